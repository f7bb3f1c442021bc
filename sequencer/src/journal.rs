//! The journal: every sequenced block, on disk, before anyone is told what it did.
//! Replaying it rebuilds the machine exactly, so only inputs are written, never fills. It is also the raft log's storage.
//!
//! Format and the rules of recovery: `JOURNAL.md` beside this crate's manifest. Not here: sending blocks to followers.
//!
//! An error of any kind while writing is for the caller to treat as a fault: after a failed write or sync nobody knows what the
//! disk holds, and a second sync may report success for data that is gone. So a journal that failed once refuses to go on.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::block::{Block, BlockHeader, BlockKind, HEADER_BYTES, Position};
use crate::consensus::HardState;
use crate::segment::{
    End, SEGMENT_HEADER_BYTES, SegmentHeader, SegmentInfo, TornTail, Visited, list_segments, segment_name,
    walk,
};

/// Most buffers that the kernel takes in one vectored write.
const WRITE_BUFFERS: usize = 1024;
/// Zeros written at a time when a segment is prepared.
const FILL_CHUNK: usize = 1 << 20;
const PREPARED_NAME: &str = "journal-next.tmp";

/// When a group counts as durable on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Once it is synced.
    DiskQuorum,
    /// Once it is written; the sync follows.
    MemoryQuorum,
}
/// How the journal lays out its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalConfig {
    /// Bytes of each segment file, header included. Files on disk keep the size that they were made with.
    pub segment_bytes: u64,
    /// Number of the cluster, written into each segment.
    pub cluster: u64,
    /// Number of this node in it.
    pub node: u64,
}

impl Default for JournalConfig {
    /// Segments of 32 MiB: large enough that a new one is rare, small enough that preparing two at a first start goes unnoticed.
    fn default() -> Self {
        Self { segment_bytes: 32 << 20, cluster: 1, node: 1 }
    }
}

/// What went wrong with a journal; every case says what to do.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}{}", path.display(), advice(source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A block that had been acknowledged no longer reads.
    #[error(
        "{}: block {index} at byte {offset} is damaged: {why}. Nothing was changed. Do not cut or delete the file: \
         restore it from a copy or from another node of the cluster, then start again",
        path.display()
    )]
    Damaged {
        /// The segment file.
        path: PathBuf,
        /// Where the block begins, in bytes from the start of the file.
        offset: u64,
        /// The index that the block has or should have.
        index: u64,
        /// What does not check.
        why: String,
    },
    /// A segment file is not the one that belongs here.
    #[error(
        "{} cannot be used: {why}. Nothing was changed. Put the right files back from a copy, then start again",
        path.display()
    )]
    BadSegment {
        /// The segment file.
        path: PathBuf,
        /// What does not check.
        why: String,
    },
    /// The journal does not reach from the start that was asked for.
    #[error("the journal in {} begins after block {first}, but block {needed} must be read; restore the older segments", dir.display())]
    Missing {
        /// The journal's directory.
        dir: PathBuf,
        /// Index before the first segment.
        first: u64,
        /// Index of the first block that must be read.
        needed: u64,
    },
    /// The journal and the snapshot that it should continue are not of one history.
    #[error("the journal in {} does not continue the snapshot at block {index}: {why}; restore the journal that belongs to it", dir.display())]
    Foreign {
        /// The journal's directory.
        dir: PathBuf,
        /// The snapshot's index.
        index: u64,
        /// What does not check.
        why: String,
    },
    /// A size in the configuration cannot work.
    #[error("segments of {segment_bytes} bytes cannot hold a block of {block_bytes}; set larger segments")]
    SegmentTooSmall {
        /// Configured bytes of a segment.
        segment_bytes: u64,
        /// Bytes of the block.
        block_bytes: u64,
    },
    /// An earlier write failed.
    #[error("an earlier write of the journal failed; restart to read back what is on disk")]
    Failed,
}

fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ". The disk is full: free space on it or move the data directory, then start again"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ". Make the data directory writable for this user, then start again"
        }
        _ => "",
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    let path = path.to_owned();
    move |source| JournalError::Io { action, path, source }
}

/// Makes names in a directory durable: creating or renaming a file is a change of its directory.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), JournalError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error("sync the directory", dir))
}

/// What reading a journal from some position to its end found.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) position: Position,
    pub(crate) hard_state: HardState,
    pub(crate) torn: Option<TornTail>,
    /// The last segment and where to write on in it; `None` for a journal without a segment.
    end: Option<(SegmentInfo, u64)>,
}

/// Reads all blocks after `from`, in order, with bytes read and to be read; without `from`, all blocks there are.
/// Changes nothing.
///
/// `visit` sees every block of the segments it takes, also those up to `from`; it can tell by the index. The block that `from`
/// stands behind is always among them, so that it is certain that this journal continues it.
pub(crate) fn read<E: From<JournalError>>(
    dir: &Path,
    machine_format: u32,
    from: Option<Position>,
    visit: &mut dyn FnMut(&Visited<'_>) -> Result<(), E>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Read, E> {
    let segments = list_segments(dir, machine_format)?;
    let segments = segments_from(dir, &segments, from)?;
    let Some(first) = segments.first() else {
        let position = from.unwrap_or_default();
        return Ok(Read { position, hard_state: HardState::default(), torn: None, end: None });
    };
    let from = from.unwrap_or(first.header.before);
    let mut continues = first.header.before == from;
    let total: u64 = segments.iter().map(|segment| segment.header.file_bytes).sum();
    let mut hard_state = HardState::default();
    let mut found: Option<End> = None;
    let mut done = 0;
    for (nth, segment) in segments.iter().enumerate() {
        if let Some(before) = &found
            && before.position != segment.header.before
        {
            let why = format!(
                "it does not follow on block {}, which ends the segment ahead",
                before.position.index
            );
            return Err(JournalError::BadSegment { path: segment.path.clone(), why }.into());
        }
        let last = nth + 1 == segments.len();
        let mut check = |visited: &Visited<'_>| -> Result<(), E> {
            let header = &visited.header;
            if header.kind == BlockKind::HardState {
                hard_state = HardState::from_bytes(visited.payload).ok_or_else(|| JournalError::Damaged {
                    path: visited.path.to_owned(),
                    offset: visited.offset,
                    index: header.index,
                    why: "its hard state has another length than 16 bytes".to_owned(),
                })?;
            }
            continues |= Position::after(header) == from;
            if header.index > from.index && !continues {
                return Err(foreign(dir, &from, "the block of that index is another one").into());
            }
            visit(visited)?;
            progress(done + visited.offset + header.block_bytes() as u64, total);
            Ok(())
        };
        let end = walk(segment, last, &mut check)?;
        done += segment.header.file_bytes;
        found = Some(end);
    }
    progress(total, total);
    let (end, segment) = found.zip(segments.last()).expect("at least one segment was walked");
    if !continues {
        let why = format!("the journal ends at block {}", end.position.index);
        return Err(foreign(dir, &from, &why).into());
    }
    Ok(Read { position: end.position, hard_state, torn: end.torn, end: Some((segment.clone(), end.offset)) })
}

/// The segments from the one that holds the block at `from` to the last.
fn segments_from<'a>(
    dir: &Path,
    segments: &'a [SegmentInfo],
    from: Option<Position>,
) -> Result<&'a [SegmentInfo], JournalError> {
    let (Some(from), Some(oldest)) = (from, segments.first()) else {
        return match from {
            Some(from) if from.index > 0 => Err(foreign(dir, &from, "the journal is empty")),
            _ => Ok(segments),
        };
    };
    // From the beginning, or the last segment that began before the block was written.
    let first = match from.index {
        0 => (oldest.header.before.index == 0).then_some(0),
        index => segments.iter().rposition(|segment| segment.header.before.index < index),
    };
    let first = first.ok_or_else(|| JournalError::Missing {
        dir: dir.to_owned(),
        first: oldest.header.before.index,
        needed: from.index,
    })?;
    Ok(&segments[first..])
}

fn foreign(dir: &Path, from: &Position, why: &str) -> JournalError {
    JournalError::Foreign { dir: dir.to_owned(), index: from.index, why: why.to_owned() }
}

/// The open journal; one writer.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    config: JournalConfig,
    machine_format: u32,
    file: File,
    path: PathBuf,
    ordinal: u64,
    file_bytes: u64,
    offset: u64,
    position: Position,
    failed: bool,
    preparer: Preparer,
}

impl Journal {
    /// Opens what `read` found for writing: cuts a torn tail, completes a shortened file, or makes the first segment.
    pub(crate) fn open(
        dir: &Path,
        config: JournalConfig,
        machine_format: u32,
        read: &Read,
    ) -> Result<Self, JournalError> {
        remove_if_there(&dir.join(PREPARED_NAME))?;
        let preparer = Preparer::start(dir, config.segment_bytes)?;
        let (file, path, ordinal, file_bytes, offset) = match &read.end {
            Some((segment, offset)) => {
                let file = reopen(segment, *offset)?;
                (file, segment.path.clone(), segment.header.ordinal, segment.header.file_bytes, *offset)
            }
            None => {
                let header = segment_header(&config, machine_format, 1, read.position);
                let prepared = prepare(&dir.join(PREPARED_NAME), config.segment_bytes)?;
                let (file, path) = activate(dir, prepared, &header)?;
                (file, path, 1, config.segment_bytes, SEGMENT_HEADER_BYTES as u64)
            }
        };
        preparer.order();
        Ok(Self {
            dir: dir.to_owned(),
            config,
            machine_format,
            file,
            path,
            ordinal,
            file_bytes,
            offset,
            position: read.position,
            failed: false,
            preparer,
        })
    }

    /// Where the log stands on disk.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Largest block that fits into a segment, header and padding included.
    #[must_use]
    pub(crate) fn largest_block(&self) -> u64 {
        self.config.segment_bytes.saturating_sub(SEGMENT_HEADER_BYTES as u64)
    }

    /// Writes a group of blocks and makes it durable: one write and one sync, unless it crosses into a new segment.
    ///
    /// # Errors
    /// Any [`JournalError`]; the group's fate on disk is then unknown and the journal refuses further writes.
    pub fn append<'a>(&mut self, blocks: impl IntoIterator<Item = &'a Block>) -> Result<(), JournalError> {
        if self.failed {
            return Err(JournalError::Failed);
        }
        self.failed = true;
        let mut group: Vec<&[u8]> = Vec::new();
        let mut group_bytes = 0;
        for block in blocks {
            let refusal = self.position.refuses(block.header());
            assert!(refusal.is_none(), "blocks reach the journal in log order: {refusal:?}");
            let bytes = block.bytes().len() as u64;
            if self.offset + group_bytes + bytes > self.file_bytes {
                self.write(&group, group_bytes)?;
                group.clear();
                group_bytes = 0;
                self.next_segment(bytes)?;
            }
            group.push(block.bytes());
            group_bytes += bytes;
            self.position = Position::after(block.header());
        }
        self.write(&group, group_bytes)?;
        self.failed = false;
        Ok(())
    }

    pub(crate) fn write_group(&mut self, group: &[crate::consensus::Persist]) -> Result<(), JournalError> {
        for persist in group {
            if let Some(state) = persist.hard_state {
                self.append_hard_state(state)?;
            }
            let blocks: Vec<&Block> = persist.blocks.iter().map(|b| &**b).collect();
            self.append(blocks)?;
        }
        Ok(())
    }
    pub(crate) fn sync(&mut self) -> Result<(), JournalError> {
        Ok(())
    }
    pub(crate) fn release(&mut self, _index: u64) -> Result<(), JournalError> {
        Ok(())
    }
    pub(crate) fn durability(&self) -> Durability {
        Durability::DiskQuorum
    }

    /// Journals term and vote, in the same stream and with the same certainty as entries.
    ///
    /// # Errors
    /// As [`Journal::append`].
    pub(crate) fn append_hard_state(&mut self, state: HardState) -> Result<(), JournalError> {
        let header = BlockHeader {
            payload_len: 0,
            crc: 0,
            index: self.position.index,
            term: state.term,
            first_seq: self.position.seq.next(),
            commands: 0,
            kind: BlockKind::HardState,
            flags: 0,
            chain: self.position.chain,
            at: self.position.at,
            lag: 0,
        };
        self.append([&Block::seal(header, &state.to_bytes())])
    }

    fn write(&mut self, group: &[&[u8]], bytes: u64) -> Result<(), JournalError> {
        if bytes == 0 {
            return Ok(());
        }
        let mut at = self.offset;
        for part in group.chunks(WRITE_BUFFERS) {
            let mut slices: Vec<IoSlice<'_>> = part.iter().map(|bytes| IoSlice::new(bytes)).collect();
            let mut left = slices.as_mut_slice();
            while !left.is_empty() {
                match rustix::io::pwritev(&self.file, left, at) {
                    Ok(0) => return Err(io_error("write", &self.path)(io::ErrorKind::WriteZero.into())),
                    Ok(written) => {
                        at += written as u64;
                        IoSlice::advance_slices(&mut left, written);
                    }
                    Err(rustix::io::Errno::INTR) => {}
                    Err(errno) => return Err(io_error("write", &self.path)(errno.into())),
                }
            }
        }
        self.file.sync_data().map_err(io_error("sync", &self.path))?;
        self.offset += bytes;
        Ok(())
    }

    /// Moves on to the prepared segment. Everything in the old one is durable by now.
    fn next_segment(&mut self, block_bytes: u64) -> Result<(), JournalError> {
        if block_bytes > self.largest_block() {
            return Err(JournalError::SegmentTooSmall {
                segment_bytes: self.config.segment_bytes,
                block_bytes,
            });
        }
        let prepared = match self.preparer.take() {
            Ok(file) => file,
            // The side thread could not; perhaps somebody has made room since. If not, this is the fault.
            Err(_) => prepare(&self.dir.join(PREPARED_NAME), self.config.segment_bytes)?,
        };
        let header = segment_header(&self.config, self.machine_format, self.ordinal + 1, self.position);
        let (file, path) = activate(&self.dir, prepared, &header)?;
        self.preparer.order();
        self.file = file;
        self.path = path;
        self.ordinal += 1;
        self.file_bytes = self.config.segment_bytes;
        self.offset = SEGMENT_HEADER_BYTES as u64;
        Ok(())
    }
}

fn segment_header(
    config: &JournalConfig,
    machine_format: u32,
    ordinal: u64,
    before: Position,
) -> SegmentHeader {
    let JournalConfig { segment_bytes, cluster, node } = *config;
    SegmentHeader { machine_format, ordinal, cluster, node, file_bytes: segment_bytes, before }
}

fn remove_if_there(path: &Path) -> Result<(), JournalError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Opens the last segment for writing and makes sure that only zeros follow the end of the log in it.
fn reopen(segment: &SegmentInfo, end: u64) -> Result<File, JournalError> {
    let path = &segment.path;
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(io_error("open", path))?;
    let mut tail = Vec::new();
    let on_disk = file.metadata().map_err(io_error("look at", path))?.len();
    tail.resize(on_disk.saturating_sub(end) as usize, 0);
    file.read_exact_at(&mut tail, end).map_err(io_error("read", path))?;
    let used = tail.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    if used > 0 {
        tail.fill(0);
        file.write_all_at(&tail[..used], end).map_err(io_error("cut the torn tail of", path))?;
    }
    if on_disk < segment.header.file_bytes {
        fill(&file, on_disk, segment.header.file_bytes).map_err(io_error("fill", path))?;
    }
    file.sync_all().map_err(io_error("sync", path))?;
    Ok(file)
}

/// Zeros, written rather than only allocated: the first write to an allocated extent costs a metadata transaction.
fn fill(file: &File, mut from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0; FILL_CHUNK.min((to - from) as usize)];
    while from < to {
        let len = (zeros.len() as u64).min(to - from) as usize;
        file.write_all_at(&zeros[..len], from)?;
        from += len as u64;
    }
    Ok(())
}

fn prepare(path: &Path, bytes: u64) -> Result<File, JournalError> {
    let made = || {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        fill(&file, 0, bytes)?;
        file.sync_all()?;
        Ok(file)
    };
    made().map_err(io_error("prepare the next segment as", path))
}

/// Gives a prepared file its header and its name. Only then is it part of the journal, and it is so as a whole.
fn activate(dir: &Path, file: File, header: &SegmentHeader) -> Result<(File, PathBuf), JournalError> {
    let (from, path) = (dir.join(PREPARED_NAME), dir.join(segment_name(header.ordinal)));
    file.write_all_at(&header.layout(), 0).map_err(io_error("write the header of", &path))?;
    file.sync_data().map_err(io_error("sync", &path))?;
    std::fs::rename(&from, &path).map_err(io_error("rename a prepared segment to", &path))?;
    sync_dir(dir)?;
    Ok((file, path))
}

/// The side thread that has the next segment ready before it is needed, so filling it never delays a commit.
#[derive(Debug)]
struct Preparer {
    orders: Option<Sender<()>>,
    ready: Receiver<Result<File, JournalError>>,
    thread: Option<JoinHandle<()>>,
}

impl Preparer {
    fn start(dir: &Path, bytes: u64) -> Result<Self, JournalError> {
        let (orders, work) = bounded::<()>(1);
        let (done, ready) = bounded(1);
        let path = dir.join(PREPARED_NAME);
        let body = move || {
            while work.recv().is_ok() {
                let prepared = prepare(&path, bytes);
                if let Err(error) = &prepared {
                    tracing::error!(%error, "the next journal segment could not be prepared; make room before this one is full");
                }
                if done.send(prepared).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("journal-prepare".to_owned())
            .spawn(body)
            .map_err(io_error("start a thread for", dir))?;
        Ok(Self { orders: Some(orders), ready, thread: Some(thread) })
    }

    fn order(&self) {
        // A full or closed channel means that one is already being made, or that its absence shows at `take`.
        let _ = self.orders.as_ref().map(|orders| orders.try_send(()));
    }

    fn take(&self) -> Result<File, JournalError> {
        self.ready.recv().unwrap_or(Err(JournalError::Failed))
    }
}

impl Drop for Preparer {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

const _: () = assert!(HEADER_BYTES == 64, "the journal's format is fixed");
