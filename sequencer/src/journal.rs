//! The journal: every sequenced block, on disk, before anyone is told what it did.
//! Replaying it rebuilds the machine exactly, so only inputs are written, never fills. It is also the raft log's storage.
//!
//! Format and the rules of recovery: `JOURNAL.md` beside this crate's manifest. Not here: sending blocks to followers.
//!
//! An error of any kind while writing is for the caller to treat as a fault: after a failed write or sync nobody knows what the
//! disk holds, and a second sync may report success for data that is gone. So a journal that failed once refuses to go on.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam::channel::{Receiver, bounded};

use crate::block::{Block, BlockKind, HEADER_BYTES, Position};
use crate::consensus::{HardState, Persist};
use crate::disk::{Access, Background, Disk, DiskFile};
use crate::segment::{
    End, SEGMENT_HEADER_BYTES, SegmentHeader, SegmentInfo, TornTail, Visited, list_segments, segment_name,
    walk,
};
use crate::trail::{Moved, Trail};

/// Zeros written at a time when a segment is prepared.
const FILL_CHUNK: usize = 1 << 20;
/// A commit index alone is written with other blocks once it is this far ahead of the one on disk: whoever reads the journal takes it for
/// a lower bound, and consensus finds the true one.
const COMMIT_LAG: u64 = 64;
const PREPARED_NAME: &str = "journal-next.tmp";

/// When a group of blocks counts as durable on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Once it is synced: what a quorum has survives a loss of power everywhere at once.
    #[default]
    DiskQuorum,
    /// Once the system has it; the sync follows at once. A crash of the process loses nothing, a loss of power may, so a node
    /// that lost power has to join again as a new one.
    MemoryQuorum,
}

/// How the journal lays out its files, and what it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalConfig {
    /// Bytes of each segment file, header included. Files on disk keep the size that they were made with.
    pub segment_bytes: u64,
    /// Number of the cluster, written into each segment.
    pub cluster: u64,
    /// Number of this node in it.
    pub node: u64,
    /// When a group counts as durable.
    pub durability: Durability,
    /// Bytes of segments that are kept at least, however much of them nobody needs any more.
    pub retain_bytes: u64,
}

impl Default for JournalConfig {
    /// Segments of 32 MiB: large enough that a new one is rare, small enough that preparing two at a first start goes unnoticed.
    /// 8 GiB are kept, so that a small venue keeps everything.
    fn default() -> Self {
        Self {
            segment_bytes: 32 << 20,
            cluster: 1,
            node: 1,
            durability: Durability::DiskQuorum,
            retain_bytes: 8 << 30,
        }
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
    /// The journal was written by another node, or for another cluster.
    #[error(
        "{} was written by node {} of cluster {}, and this is node {node} of cluster {cluster}: a node that goes on with \
         another's journal votes twice. Start with the right data directory or configuration; a new node begins with an empty one",
        path.display(), found.1, found.0
    )]
    NotOurs {
        /// The segment file.
        path: PathBuf,
        /// Cluster and node in its header.
        found: (u64, u64),
        /// The configured cluster.
        cluster: u64,
        /// The configured node.
        node: u64,
    },
    /// The log goes on behind a snapshot that is not there.
    #[error(
        "the journal in {} goes on behind a snapshot of block {index}, and no such snapshot can be read: restore it to the \
         directory of snapshots; or, in a cluster, put the whole data directory aside and let the node join again",
        dir.display()
    )]
    NeedsSnapshot {
        /// The journal's directory.
        dir: PathBuf,
        /// Index of the last block in the snapshot.
        index: u64,
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

impl JournalError {
    /// True if the journal is sound and does not reach to where a snapshot stands, or not from there on.
    pub(crate) fn is_a_gap(&self) -> bool {
        matches!(self, Self::Foreign { .. } | Self::Missing { .. } | Self::NeedsSnapshot { .. })
    }
}

impl JournalError {
    /// True where files do not hold what they should: what another node's copy can help with.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::BadSegment { .. })
    }
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

/// Nothing is asked of the allocator where nothing fails.
pub(crate) fn io_error<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> JournalError + 'a {
    move |source| JournalError::Io { action, path: path.to_owned(), source }
}

/// What reading a journal from some position to its end found.
#[derive(Debug)]
pub(crate) struct Read {
    /// Where the log ends, and where it stood behind each block that is not known to be committed.
    pub(crate) trail: Trail,
    pub(crate) torn: Option<TornTail>,
    /// A note was met that the log goes on behind a snapshot.
    pub(crate) jumped: bool,
    /// The segments there are, oldest first.
    segments: Vec<SegmentInfo>,
    /// Which of them the reading began with.
    first: usize,
    /// Where to write on in the last one; `None` for a journal without a segment.
    end: Option<End>,
}

impl Read {
    /// All that there is was read, so the beginning of the trail is that of the log.
    pub(crate) fn began_at_oldest(&self) -> bool {
        self.first == 0
    }
}

/// What to read of a journal.
#[derive(Clone, Copy, Debug)]
pub(crate) enum From {
    /// All that there is, wherever it begins.
    Oldest,
    /// What continues this position, which stands behind a committed block.
    Position(Position),
}

/// Reads all blocks after `from`, in the order of the file, with bytes read and to be read. Changes nothing.
///
/// `visit` sees every block of the segments it takes, also those up to `from`, and those that are replaced later. The block
/// that `from` stands behind is among them, or the beginning of the journal is, so that it is certain that the journal continues it.
pub(crate) fn read<E: std::convert::From<JournalError>>(
    disk: &dyn Disk,
    dir: &Path,
    machine_format: u32,
    from: From,
    visit: &mut dyn FnMut(&Visited<'_>) -> Result<(), E>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Read, E> {
    let segments = list_segments(disk, dir, machine_format)?;
    let first = first_segment(dir, &segments, from)?;
    let beginning = match (segments.get(first), from) {
        (Some(segment), _) => Trail::from_middle(segment.header.before),
        (None, From::Position(position)) => Trail::behind(position),
        (None, From::Oldest) => Trail::behind(Position::default()),
    };
    let mut read = Read { trail: beginning, torn: None, jumped: false, segments, first, end: None };
    let total: u64 = read.segments[first..].iter().map(|segment| segment.header.file_bytes).sum();
    let mut anchor = Anchor { dir, from, met: None, holds: false };
    let mut done = 0;
    for nth in first..read.segments.len() {
        let segment = &read.segments[nth];
        let before = read.trail.last();
        if nth > first && before != segment.header.before {
            let why = format!("it does not follow on block {}, which ends the segment ahead", before.index);
            return Err(JournalError::BadSegment { path: segment.path.clone(), why }.into());
        }
        anchor.check(&read.trail)?;
        let mut each = |visited: &Visited<'_>, trail: &Trail| -> Result<(), E> {
            read.jumped |= matches!(visited.moved, Moved::Behind(_));
            anchor.check(trail)?;
            visit(visited)?;
            progress(done + visited.offset + visited.header.block_bytes() as u64, total);
            Ok(())
        };
        let last = nth + 1 == read.segments.len();
        let end = walk(disk, segment, last, &mut read.trail, &mut each)?;
        done += segment.header.file_bytes;
        read.torn.clone_from(&end.torn);
        read.end = Some(end);
    }
    progress(total, total);
    anchor.check_end(&read.trail)?;
    Ok(read)
}

/// Sees to it that a journal continues the position that it is read from.
struct Anchor<'a> {
    dir: &'a Path,
    from: From,
    /// Behind the last block of that index that was met, while there is one: the trail forgets it as soon as a later one is committed.
    met: Option<Position>,
    /// The block that the position stands behind was met, and is committed.
    holds: bool,
}

impl Anchor<'_> {
    /// Once it is known up to where the log is committed: that includes the position, or not.
    fn check(&mut self, trail: &Trail) -> Result<(), JournalError> {
        let From::Position(from) = self.from else { return Ok(()) };
        match trail.at(from.index) {
            None if trail.last().index >= from.index => {}
            met => self.met = met,
        }
        if self.holds || !trail.is_settled() || trail.committed() < from.index {
            return Ok(());
        }
        if trail.start().index > from.index {
            // A snapshot was installed that is newer than the one to read from.
            return Err(JournalError::NeedsSnapshot { dir: self.dir.to_owned(), index: trail.start().index });
        }
        if self.met != Some(from) {
            return Err(foreign(self.dir, &from, "the block of that index is another one"));
        }
        self.holds = true;
        Ok(())
    }

    fn check_end(&self, trail: &Trail) -> Result<(), JournalError> {
        let From::Position(from) = self.from else { return Ok(()) };
        if self.holds || trail.at(from.index) == Some(from) {
            return Ok(());
        }
        let last = trail.last().index;
        let why = if last < from.index {
            format!("the journal ends at block {last}")
        } else {
            "the block of that index is another one".to_owned()
        };
        Err(foreign(self.dir, &from, &why))
    }
}

/// The segment to begin with, to meet everything that continues `from`: the last one that began before its block was written.
fn first_segment(dir: &Path, segments: &[SegmentInfo], from: From) -> Result<usize, JournalError> {
    let From::Position(from) = from else { return Ok(0) };
    let Some(oldest) = segments.first() else {
        return if from.index == 0 { Ok(0) } else { Err(foreign(dir, &from, "the journal is empty")) };
    };
    if let Some(found) = segments.iter().rposition(|segment| segment.header.before.index < from.index) {
        return Ok(found);
    }
    let first = oldest.header.before.index;
    if first > from.index {
        return Err(JournalError::Missing { dir: dir.to_owned(), first, needed: from.index + 1 });
    }
    Ok(0)
}

fn foreign(dir: &Path, from: &Position, why: &str) -> JournalError {
    JournalError::Foreign { dir: dir.to_owned(), index: from.index, why: why.to_owned() }
}

/// From where on the log of a directory can be read without a gap, up to its end.
pub(crate) fn log_start(
    disk: &dyn Disk,
    dir: &Path,
    machine_format: u32,
) -> Result<Option<Position>, JournalError> {
    enum Stop {
        Settled,
        Error(JournalError),
    }
    impl std::convert::From<JournalError> for Stop {
        fn from(error: JournalError) -> Self {
            Self::Error(error)
        }
    }
    let segments = list_segments(disk, dir, machine_format)?;
    let Some(oldest) = segments.first() else { return Ok(None) };
    let mut trail = Trail::from_middle(oldest.header.before);
    for (nth, segment) in segments.iter().enumerate() {
        if trail.is_settled() {
            break;
        }
        let mut each = |_: &Visited<'_>, trail: &Trail| {
            if trail.is_settled() { Err(Stop::Settled) } else { Ok(()) }
        };
        match walk(disk, segment, nth + 1 == segments.len(), &mut trail, &mut each) {
            Ok(_) => {}
            Err(Stop::Settled) => break,
            Err(Stop::Error(error)) => return Err(error),
        }
    }
    Ok(Some(trail.start()))
}

/// A segment that the open journal knows of.
#[derive(Debug)]
struct Kept {
    path: PathBuf,
    /// Index of the last block when it was begun: all blocks that count in earlier segments are at or below it.
    before: u64,
    bytes: u64,
}

/// Makes an empty segment of a given number, behind a given position.
pub(crate) fn begin_at(
    disk: &dyn Disk,
    dir: &Path,
    config: &JournalConfig,
    machine_format: u32,
    ordinal: u64,
    before: Position,
) -> Result<PathBuf, JournalError> {
    let header = segment_header(config, machine_format, ordinal, before);
    let prepared = prepare(disk, &dir.join(PREPARED_NAME), config.segment_bytes)?;
    activate(disk, dir, &*prepared, &header)
}

/// The open journal; one writer.
#[derive(Debug)]
pub struct Journal {
    disk: Arc<dyn Disk>,
    background: Arc<dyn Background>,
    dir: PathBuf,
    config: JournalConfig,
    machine_format: u32,
    /// Oldest first; the last is the one being written.
    segments: VecDeque<Kept>,
    file: Box<dyn DiskFile>,
    ordinal: u64,
    offset: u64,
    trail: Trail,
    /// An index known to be committed; on disk it may lag behind.
    committed: u64,
    failed: bool,
    /// Something was written and not synced yet.
    unsynced: bool,
    /// Empty between two groups: its memory serves again.
    memory: Write,
    next: Option<Receiver<Result<Box<dyn DiskFile>, JournalError>>>,
}

impl Journal {
    /// Opens what `read` found for writing: cuts a torn tail, completes a shortened file, or makes the first segment.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        background: Arc<dyn Background>,
        dir: &Path,
        config: JournalConfig,
        machine_format: u32,
        read: Read,
    ) -> Result<Self, JournalError> {
        let JournalConfig { cluster, node, .. } = config;
        let ours = |segment: &&SegmentInfo| (segment.header.cluster, segment.header.node) == (cluster, node);
        if let Some(other) = read.segments.iter().find(|segment| !ours(segment)) {
            let (path, found) = (other.path.clone(), (other.header.cluster, other.header.node));
            return Err(JournalError::NotOurs { path, found, cluster, node });
        }
        remove_if_there(&*disk, &dir.join(PREPARED_NAME))?;
        // A process that died before it synced the directory leaves names in it that a loss of power would take back.
        sync_dir(&*disk, dir)?;
        let (file, ordinal, offset, segments) = match (read.segments.last(), &read.end) {
            (Some(segment), Some(end)) => {
                let file = reopen(&*disk, segment, end)?;
                let kept = read.segments.iter().map(|segment| Kept {
                    path: segment.path.clone(),
                    before: segment.header.before.index,
                    bytes: segment.header.file_bytes,
                });
                (file, segment.header.ordinal, end.offset, kept.collect())
            }
            _ => {
                let before = read.trail.last();
                let header = segment_header(&config, machine_format, 1, before);
                let prepared = prepare(&*disk, &dir.join(PREPARED_NAME), config.segment_bytes)?;
                let path = activate(&*disk, dir, &*prepared, &header)?;
                let kept = Kept { path, before: before.index, bytes: config.segment_bytes };
                (prepared, 1, SEGMENT_HEADER_BYTES as u64, VecDeque::from([kept]))
            }
        };
        let mut journal = Self {
            disk,
            background,
            dir: dir.to_owned(),
            config,
            machine_format,
            segments,
            file,
            ordinal,
            offset,
            committed: read.trail.committed(),
            trail: read.trail.settled(),
            failed: false,
            unsynced: false,
            memory: Write::default(),
            next: None,
        };
        journal.begin_segment_again()?;
        journal.order_next();
        Ok(journal)
    }

    /// A process that died between the naming of a segment and its first write left it without what is to be remembered, or with a
    /// torn part of it. The segments ahead, which have it, may be released.
    fn begin_segment_again(&mut self) -> Result<(), JournalError> {
        let is_empty = self.offset == SEGMENT_HEADER_BYTES as u64;
        if is_empty && self.trail.hard_state() != HardState::default() {
            self.begin()?;
            self.note_hard_state()?;
        }
        Ok(())
    }

    /// Writes down what is to be remembered, and syncs it.
    fn note_hard_state(&mut self) -> Result<(), JournalError> {
        let mut write = Write::default();
        self.take_in(Arc::new(self.hard_state_note_here()), &mut write);
        self.write(&mut write)?;
        self.failed = false;
        self.sync()
    }

    /// Where the log stands behind the last block written.
    #[must_use]
    pub fn position(&self) -> Position {
        self.trail.last()
    }

    /// Where it stood behind the block of this index, if that is the last one known to be committed or a later one.
    pub(crate) fn at(&self, index: u64) -> Option<Position> {
        self.trail.at(index)
    }

    /// Term, vote and committed index as last written.
    #[must_use]
    pub fn hard_state(&self) -> HardState {
        self.trail.hard_state()
    }

    /// When a group counts as durable.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.config.durability
    }

    /// Bytes of all segment files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Largest block that fits into a segment, header and padding included.
    #[must_use]
    pub(crate) fn largest_block(&self) -> u64 {
        self.config.segment_bytes.saturating_sub(SEGMENT_HEADER_BYTES as u64 + HARD_STATE_BYTES)
    }

    /// Blocks up to `index`, of those written so far, are committed: written down now and then with what is written anyway.
    pub fn commit(&mut self, index: u64) {
        self.committed = self.committed.max(index.min(self.trail.last().index));
    }

    /// Writes groups and makes them durable: one write and one sync, unless they cross into a new segment.
    ///
    /// # Errors
    /// As [`Journal::write_group`].
    pub fn append(&mut self, group: &[Persist]) -> Result<(), JournalError> {
        self.write_group(group)?;
        self.sync()
    }

    /// Writes what is to become durable together: all blocks in their order, then the newest hard state if there is one, in one
    /// write. What is known to be committed goes with them now and then. Follow it with [`Journal::sync`].
    ///
    /// # Errors
    /// Any [`JournalError`]; the group's fate on disk is then unknown and the journal refuses further writes.
    ///
    /// # Panics
    /// If a block cannot stand where it is to go, or a committed one would be replaced: a fault of consensus.
    pub fn write_group(&mut self, group: &[Persist]) -> Result<(), JournalError> {
        self.write_noting(group, COMMIT_LAG)
    }

    /// The same, with the commit index if it is `lag` ahead of the one on disk.
    fn write_noting(&mut self, group: &[Persist], lag: u64) -> Result<(), JournalError> {
        self.begin()?;
        let mut write = std::mem::take(&mut self.memory);
        for block in group.iter().flat_map(|persist| &persist.blocks) {
            self.place(Arc::clone(block), &mut write)?;
        }
        let newest = group.iter().rev().find_map(|persist| persist.hard_state);
        if let Some(note) = self.hard_state_note(newest, lag) {
            self.place(Arc::new(note), &mut write)?;
        }
        self.write(&mut write)?;
        self.memory = write;
        self.failed = false;
        Ok(())
    }

    /// Makes durable what was written.
    ///
    /// # Errors
    /// Any [`JournalError`]; nobody knows then what is on disk, and the journal refuses further writes.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        if self.failed {
            return Err(JournalError::Failed);
        }
        if self.unsynced {
            self.failed = true;
            self.file.sync_data().map_err(io_error("sync", self.path()))?;
            self.unsynced = false;
            self.failed = false;
        }
        Ok(())
    }

    /// Writes down what is known to be committed, and syncs: a clean end, after which a reader needs nobody to tell it.
    ///
    /// # Errors
    /// As [`Journal::write_group`].
    pub fn close(&mut self) -> Result<(), JournalError> {
        self.write_noting(&[], 1)?;
        self.sync()
    }

    /// Notes that the log goes on behind a snapshot whose file is in place, and begins a new segment there.
    pub(crate) fn go_on_behind(&mut self, position: Position) -> Result<(), JournalError> {
        self.begin()?;
        let note = Block::note(&self.trail.last(), BlockKind::Snapshot, &position.to_bytes());
        let state = self.trail.hard_state();
        let state = HardState {
            term: state.term.max(position.term),
            // A vote counts in its own term only.
            vote: if position.term > state.term { 0 } else { state.vote },
            commit: position.index,
        };
        let mut write = Write::default();
        self.place(Arc::new(note), &mut write)?;
        self.place(Arc::new(hard_state_block(&position, state)), &mut write)?;
        self.write(&mut write)?;
        self.failed = false;
        self.sync()
    }

    /// Begins a new segment that holds all that is still needed, and removes the older ones: their log ends before a snapshot.
    pub(crate) fn leave_behind(&mut self) -> Result<(), JournalError> {
        self.begin()?;
        self.next_segment(HARD_STATE_BYTES)?;
        self.note_hard_state()?;
        while self.segments.len() > 1 {
            let old = self.segments.pop_front().expect("more than one");
            remove_segment(&*self.disk, &self.dir, &old.path)?;
        }
        Ok(())
    }

    /// Removes segments whose blocks are all at or below `index`, oldest first, as long as the configured number of bytes is
    /// left. Call it with what neither a snapshot nor a member needs any more.
    ///
    /// # Errors
    /// As [`Journal::sync`]. Removing happens aside; if it fails, the process ends.
    pub fn release(&mut self, index: u64) -> Result<(), JournalError> {
        // What an old one remembers must be durable at the beginning of the next.
        self.sync()?;
        let index = index.min(self.trail.committed());
        let mut bytes = self.bytes();
        while let [oldest, next, ..] = self.segments.make_contiguous()
            && next.before <= index
            && bytes - oldest.bytes >= self.config.retain_bytes
        {
            bytes -= oldest.bytes;
            let old = self.segments.pop_front().expect("it is there");
            let (disk, dir) = (Arc::clone(&self.disk), self.dir.clone());
            self.background.run(Box::new(move || {
                if let Err(error) = remove_segment(&*disk, &dir, &old.path) {
                    crate::fault::abort(&error.to_string());
                }
            }));
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.disk)
    }

    fn path(&self) -> &Path {
        &self.segments.back().expect("a journal has a segment").path
    }

    /// Before a write: what went before must be durable, and an error on the way leaves the journal failed.
    fn begin(&mut self) -> Result<(), JournalError> {
        self.sync()?;
        self.failed = true;
        Ok(())
    }

    /// The note to end a group with, if there is anything new in it.
    fn hard_state_note(&self, newest: Option<HardState>, lag: u64) -> Option<Block> {
        let written = self.trail.hard_state();
        let state = newest.unwrap_or(written);
        let last = self.trail.last();
        // Committed elsewhere may be more than is here; what is said here is true of this journal.
        let commit = state.commit.max(self.committed).min(last.index).max(written.commit);
        let state = HardState { commit, ..state };
        let worth = newest.is_some() || commit >= written.commit + lag;
        (worth && state != written).then(|| hard_state_block(&last, state))
    }

    /// Takes a block into the write that is being put together, in the next segment if it does not fit into this one.
    fn place(&mut self, block: Arc<Block>, write: &mut Write) -> Result<(), JournalError> {
        let own = block.bytes().len() as u64;
        if self.offset + write.bytes + own > self.segments.back().expect("a journal has a segment").bytes {
            self.write(write)?;
            self.next_segment(own)?;
            self.take_in(Arc::new(self.hard_state_note_here()), write);
        }
        self.take_in(block, write);
        Ok(())
    }

    fn take_in(&mut self, block: Arc<Block>, write: &mut Write) {
        let header = block.header();
        // Also where the file does not say so yet.
        let final_already = header.kind.is_log() && header.index <= self.committed;
        assert!(!final_already, "block {} is committed and never replaced", header.index);
        let taken = self.trail.accept_block(&block);
        assert!(taken.is_ok(), "blocks reach the journal in the order of the log: {taken:?}");
        write.bytes += block.bytes().len() as u64;
        write.blocks.push(block);
    }

    /// Each segment begins with what is to be remembered, so that nobody has to look for it in older ones.
    fn hard_state_note_here(&self) -> Block {
        let (state, last) = (self.trail.hard_state(), self.trail.last());
        let commit = self.committed.min(last.index).max(state.commit);
        hard_state_block(&last, HardState { commit, ..state })
    }

    fn write(&mut self, write: &mut Write) -> Result<(), JournalError> {
        let Write { blocks, headers, bytes } = write;
        // The first of a write stands in the file as it was sealed.
        let (mut alone, mut several);
        let slices: &mut [IoSlice<'_>] = match blocks.as_slice() {
            [] => return Ok(()),
            [block] => {
                alone = [IoSlice::new(block.bytes())];
                &mut alone
            }
            [first, later @ ..] => {
                headers.clear();
                headers.extend((1..).zip(later).map(|(nth, block)| block.header().stamped(nth)));
                several = Vec::with_capacity(blocks.len() * 2);
                several.push(IoSlice::new(first.bytes()));
                for (header, block) in headers.iter().zip(later) {
                    several.push(IoSlice::new(header));
                    let rest = &block.bytes()[HEADER_BYTES..];
                    if !rest.is_empty() {
                        several.push(IoSlice::new(rest));
                    }
                }
                &mut several
            }
        };
        crate::fault_point!("journal.write");
        self.unsynced = true;
        self.file.write_all_at(slices, self.offset).map_err(io_error("write", self.path()))?;
        crate::fault_point!("journal.written");
        self.offset += std::mem::take(bytes);
        blocks.clear();
        Ok(())
    }

    /// Moves on to the prepared segment, with everything in the old one durable.
    fn next_segment(&mut self, block_bytes: u64) -> Result<(), JournalError> {
        if block_bytes > self.largest_block() {
            return Err(JournalError::SegmentTooSmall {
                segment_bytes: self.config.segment_bytes,
                block_bytes,
            });
        }
        if self.unsynced {
            self.file.sync_data().map_err(io_error("sync", self.path()))?;
            self.unsynced = false;
        }
        let prepared = match self.next.take().and_then(|next| next.recv().ok()) {
            Some(Ok(file)) => file,
            // It could not be made aside; perhaps somebody has made room since. If not, this is the fault.
            _ => prepare(&*self.disk, &self.dir.join(PREPARED_NAME), self.config.segment_bytes)?,
        };
        let before = self.trail.last();
        let header = segment_header(&self.config, self.machine_format, self.ordinal + 1, before);
        let path = activate(&*self.disk, &self.dir, &*prepared, &header)?;
        self.order_next();
        self.file = prepared;
        self.segments.push_back(Kept { path, before: before.index, bytes: self.config.segment_bytes });
        self.ordinal += 1;
        self.offset = SEGMENT_HEADER_BYTES as u64;
        Ok(())
    }

    /// Has the next segment filled aside, so that filling it never delays a commit.
    fn order_next(&mut self) {
        let (done, ready) = bounded(1);
        let (disk, path, bytes) =
            (Arc::clone(&self.disk), self.dir.join(PREPARED_NAME), self.config.segment_bytes);
        self.background.run(Box::new(move || {
            let prepared = prepare(&*disk, &path, bytes);
            if let Err(error) = &prepared {
                tracing::error!(%error, "the next journal segment could not be prepared; make room before this one is full");
            }
            // Nobody waits for it any more when the journal was closed.
            let _ = done.send(prepared);
        }));
        self.next = Some(ready);
    }
}

impl Drop for Journal {
    /// Waits for the segment being prepared: the next to open this directory removes it first.
    fn drop(&mut self) {
        if let Some(next) = self.next.take() {
            let _ = next.recv();
        }
    }
}

/// Blocks that go to disk together.
#[derive(Debug, Default)]
struct Write {
    blocks: Vec<Arc<Block>>,
    bytes: u64,
    /// Room for the headers of all but the first, as they stand in the file.
    headers: Vec<[u8; HEADER_BYTES]>,
}

/// Bytes of a hard state's block.
const HARD_STATE_BYTES: u64 = 128;

fn hard_state_block(position: &Position, state: HardState) -> Block {
    Block::note(position, BlockKind::HardState, &state.to_bytes())
}

fn segment_header(
    config: &JournalConfig,
    machine_format: u32,
    ordinal: u64,
    before: Position,
) -> SegmentHeader {
    let JournalConfig { segment_bytes, cluster, node, .. } = *config;
    SegmentHeader { machine_format, ordinal, cluster, node, file_bytes: segment_bytes, before }
}

pub(crate) fn remove_if_there(disk: &dyn Disk, path: &Path) -> Result<(), JournalError> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Removes one segment for good. The directory is synced after each, so that a crash leaves no gap between segments.
fn remove_segment(disk: &dyn Disk, dir: &Path, path: &Path) -> Result<(), JournalError> {
    disk.remove(path).map_err(io_error("remove", path))?;
    sync_dir(disk, dir)
}

/// Makes names in a directory durable: creating or renaming a file is a change of its directory.
pub(crate) fn sync_dir(disk: &dyn Disk, dir: &Path) -> Result<(), JournalError> {
    disk.sync_dir(dir).map_err(io_error("sync the directory", dir))
}

/// Opens the last segment for writing and makes sure that what was read is on disk, and that only zeros follow it.
///
/// What was read may be in the system's memory only: a process can die between a write and its sync, or of a sync that failed,
/// after which the system no longer knows that those pages are not on disk. So the last write is written again, and synced.
fn reopen(disk: &dyn Disk, segment: &SegmentInfo, end: &End) -> Result<Box<dyn DiskFile>, JournalError> {
    let path = &segment.path;
    let file = disk.open(path, Access::Write).map_err(io_error("open", path))?;
    let on_disk = file.len().map_err(io_error("look at", path))?;
    let mut tail = vec![0; on_disk.saturating_sub(end.last_write) as usize];
    file.read_exact_at(&mut tail, end.last_write).map_err(io_error("read", path))?;
    let keep = (end.offset - end.last_write) as usize;
    let used = tail.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    // Padding of the last block may be missing from a file that ends early.
    tail.resize(tail.len().max(keep), 0);
    tail[keep..].fill(0);
    let write = &tail[..used.max(keep)];
    if !write.is_empty() {
        file.write_bytes_at(write, end.last_write).map_err(io_error("cut the torn tail of", path))?;
    }
    let on_disk = on_disk.max(end.last_write + write.len() as u64);
    if on_disk < segment.header.file_bytes {
        fill(&*file, on_disk, segment.header.file_bytes).map_err(io_error("fill", path))?;
    }
    file.sync_all().map_err(io_error("sync", path))?;
    Ok(file)
}

/// Zeros, written rather than only allocated: the first write to an allocated extent costs a metadata transaction.
fn fill(file: &dyn DiskFile, mut from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0; FILL_CHUNK.min((to - from) as usize)];
    while from < to {
        let len = (zeros.len() as u64).min(to - from) as usize;
        file.write_bytes_at(&zeros[..len], from)?;
        from += len as u64;
    }
    Ok(())
}

fn prepare(disk: &dyn Disk, path: &Path, bytes: u64) -> Result<Box<dyn DiskFile>, JournalError> {
    let made = || {
        let file = disk.create(path)?;
        fill(&*file, 0, bytes)?;
        file.sync_all()?;
        Ok(file)
    };
    made().map_err(io_error("prepare the next segment as", path))
}

/// Gives a prepared file its header and its name. Only then is it part of the journal, and it is so as a whole.
fn activate(
    disk: &dyn Disk,
    dir: &Path,
    file: &dyn DiskFile,
    header: &SegmentHeader,
) -> Result<PathBuf, JournalError> {
    let (from, path) = (dir.join(PREPARED_NAME), dir.join(segment_name(header.ordinal)));
    file.write_bytes_at(&header.layout(), 0).map_err(io_error("write the header of", &path))?;
    file.sync_data().map_err(io_error("sync", &path))?;
    crate::fault_point!("journal.segment_prepared");
    disk.rename(&from, &path).map_err(io_error("rename a prepared segment to", &path))?;
    crate::fault_point!("journal.segment_named");
    sync_dir(disk, dir)?;
    Ok(path)
}

const _: () = assert!(HEADER_BYTES == 64, "the journal's format is fixed");
