//! Snapshots on disk: the machine's whole state at a block boundary, so that a start need not replay from the first block.
//!
//! A snapshot is never trusted: header, chunks and the state's own hash are checked, and a bad one is passed over for an older,
//! or for a replay from the first block. It is written beside, synced and renamed, so a file of the right name is whole.
//! Format: `JOURNAL.md`.
//!
//! One that comes from another node is written in the same way, under a name of its own: [`crate::recover`] takes it in,
//! because the journal has to go on behind it, and there is one way only in which a state comes into being.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use grid_engine::{Nanos, Seq};

use crate::block::Position;
use crate::disk::{Access, Disk, DiskFile, RealDisk};

/// Version of the snapshot file format.
pub(crate) const SNAPSHOT_FORMAT: u32 = 2;
/// How many snapshots are kept.
pub(crate) const SNAPSHOTS_KEPT: usize = 3;
const MAGIC: [u8; 8] = *b"GRIDSNAP";
const HEADER: usize = 128;
const CHUNK: usize = 1 << 20;
/// Most bytes of the members, far above any cluster's.
const MEMBERS_MAX: usize = 1 << 20;
const TEMPORARY: &str = "snapshot-next.tmp";
const RECEIVING: &str = "received-next.tmp";
const ENDING: &str = ".snap";
const RECEIVED: &str = "received-";
const OWN: &str = "snapshot-";

/// What a snapshot is of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// Where the log stood.
    pub position: Position,
    /// Hash of the state, compared after restoring it.
    pub state_hash: u64,
    /// Version of the machine's coding.
    pub machine_format: u32,
    /// The cluster's members at that position, in the replicator's coding; empty for a venue that never had any.
    pub members: Vec<u8>,
}

/// Why a snapshot could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The operating system refused.
    #[error("cannot {action} snapshot {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The bytes are not what was written.
    #[error("snapshot {} is unusable: {why}", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// What does not check.
        why: String,
    },
}

/// The directory of snapshots.
#[derive(Clone, Debug)]
pub struct SnapshotStore {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

impl SnapshotStore {
    /// Over an existing directory of a disk.
    #[must_use]
    pub fn on(disk: Arc<dyn Disk>, dir: PathBuf) -> Self {
        Self { disk, dir }
    }

    /// Over an existing directory of this machine.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self::on(RealDisk::shared(), dir)
    }

    /// Writes a snapshot durably and removes all but the newest three.
    ///
    /// # Errors
    /// [`SnapshotError::Io`]; nothing with the final name is left behind then.
    ///
    /// # Panics
    /// If the members take more than a mebibyte: a fault.
    pub fn write(&self, meta: &SnapshotMeta, body: &[u8]) -> Result<PathBuf, SnapshotError> {
        assert!(meta.members.len() <= MEMBERS_MAX, "the members of a cluster fit into a mebibyte");
        let path = self.path(OWN, meta.position.index);
        let temporary = self.dir.join(TEMPORARY);
        let file = self.disk.create(&temporary).map_err(io_error("create", &temporary))?;
        let write = |bytes: &[u8], at: &mut u64| {
            file.write_bytes_at(bytes, *at).map_err(io_error("write", &temporary))?;
            *at += bytes.len() as u64;
            Ok(())
        };
        let mut at = 0;
        write(&header(meta, body.len() as u64), &mut at)?;
        write(&meta.members, &mut at)?;
        for chunk in body.chunks(CHUNK) {
            write(chunk, &mut at)?;
            write(&crc32c::crc32c(chunk).to_le_bytes(), &mut at)?;
        }
        file.sync_all().map_err(io_error("sync", &temporary))?;
        self.name_or_stop(&temporary, &path)?;
        self.tidy()?;
        Ok(path)
    }

    /// Gives a whole and synced file its name, durably.
    fn name(&self, from: &Path, to: &Path) -> Result<(), SnapshotError> {
        crate::fault_point!("snapshot.written");
        self.disk.rename(from, to).map_err(io_error("rename", to))?;
        crate::fault_point!("snapshot.named");
        self.disk.sync_dir(&self.dir).map_err(io_error("sync the directory of", to))
    }

    /// As `name`, while a venue runs. If the name cannot be made durable the process ends: everyone who lists the directory
    /// would count on a file that a loss of power may take back.
    fn name_or_stop(&self, from: &Path, to: &Path) -> Result<(), SnapshotError> {
        self.name(from, to).inspect_err(|error| {
            if self.disk.open(from, Access::Read).is_err() {
                crate::fault::abort(&error.to_string());
            }
        })
    }

    /// Removes all but the newest three.
    fn tidy(&self) -> Result<(), SnapshotError> {
        for old in self.list()?.into_iter().skip(SNAPSHOTS_KEPT) {
            self.disk.remove(&old).map_err(io_error("remove", &old))?;
        }
        Ok(())
    }

    fn path(&self, kind: &str, index: u64) -> PathBuf {
        self.dir.join(format!("{kind}{index:020}{ENDING}"))
    }

    /// The snapshot files, newest first.
    ///
    /// # Errors
    /// [`SnapshotError::Io`] if the directory cannot be listed.
    pub fn list(&self) -> Result<Vec<PathBuf>, SnapshotError> {
        self.named(OWN)
    }

    /// Snapshots from other nodes that are whole and not taken in yet, newest first.
    pub(crate) fn received(&self) -> Result<Vec<PathBuf>, SnapshotError> {
        self.named(RECEIVED)
    }

    fn named(&self, kind: &str) -> Result<Vec<PathBuf>, SnapshotError> {
        let mut names = self.disk.list(&self.dir).map_err(io_error("list", &self.dir))?;
        names.retain(|name| name.starts_with(kind) && name.ends_with(ENDING));
        names.sort();
        names.reverse();
        Ok(names.into_iter().map(|name| self.dir.join(name)).collect())
    }

    /// Index of the oldest snapshot that is kept: what the journal must still continue. `None` without a snapshot.
    ///
    /// # Errors
    /// [`SnapshotError::Io`] if the directory cannot be listed.
    pub fn oldest_index(&self) -> Result<Option<u64>, SnapshotError> {
        Ok(self.list()?.last().and_then(|path| index_of(path)))
    }

    /// Makes a received snapshot one of this node's own, durably.
    pub(crate) fn take_in(&self, received: &Path, index: u64) -> Result<(), SnapshotError> {
        self.name(received, &self.path(OWN, index))?;
        self.tidy()
    }

    /// Puts away what a start leaves behind: received snapshots that were no news, and files that were never finished.
    pub(crate) fn sweep(&self) -> Result<(), SnapshotError> {
        let unfinished = [TEMPORARY, RECEIVING];
        for name in self.disk.list(&self.dir).map_err(io_error("list", &self.dir))? {
            if unfinished.contains(&name.as_str()) || (name.starts_with(RECEIVED) && name.ends_with(ENDING)) {
                let path = self.dir.join(name);
                self.disk.remove(&path).map_err(io_error("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Reads and checks one snapshot's header and body; the state hash is for the caller, who can restore it.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn read(&self, path: &Path) -> Result<(SnapshotMeta, Vec<u8>), SnapshotError> {
        let open = self.open(path)?;
        let mut body = vec![0; open.body_len as usize];
        let mut chunks = body.chunks_mut(CHUNK);
        open.each_chunk(|bytes| chunks.next().expect("one for each").copy_from_slice(bytes))?;
        Ok((open.meta, body))
    }

    /// Reads and checks one snapshot's header only; with the bytes of its body.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn read_meta(&self, path: &Path) -> Result<(SnapshotMeta, u64), SnapshotError> {
        self.open(path).map(|open| (open.meta, open.body_len))
    }

    /// The newest snapshot that checks in full, to be sent to another node as it is.
    ///
    /// # Errors
    /// [`SnapshotError::Io`] if the directory cannot be listed. Bad snapshots are passed over.
    pub fn open_for_sending(&self) -> Result<Option<SnapshotSource>, SnapshotError> {
        for path in self.list()? {
            match self.open(&path).and_then(|open| open.each_chunk(|_| ()).map(|()| open)) {
                Ok(open) => return Ok(Some(SnapshotSource { open })),
                Err(error) => tracing::warn!(%error, "passed over a snapshot for sending"),
            }
        }
        Ok(None)
    }

    /// Begins to take a snapshot from another node. Only one can be under way at a time.
    ///
    /// # Errors
    /// [`SnapshotError::Io`].
    pub fn receive(&self) -> Result<SnapshotReceiver, SnapshotError> {
        let path = self.dir.join(RECEIVING);
        let file = self.disk.create(&path).map_err(io_error("create", &path))?;
        Ok(SnapshotReceiver { store: self.clone(), path, file, bytes: 0 })
    }

    fn open(&self, path: &Path) -> Result<OpenSnapshot, SnapshotError> {
        let file = self.disk.open(path, Access::Read).map_err(io_error("read", path))?;
        OpenSnapshot::read(file, path)
    }
}

/// The index in a snapshot's file name.
pub(crate) fn index_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?.strip_suffix(ENDING)?;
    name.strip_prefix(OWN).or_else(|| name.strip_prefix(RECEIVED))?.parse().ok()
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SnapshotError {
    let path = path.to_owned();
    move |source| SnapshotError::Io { action, path, source }
}

/// A snapshot file whose header, members and length check.
#[derive(Debug)]
struct OpenSnapshot {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    meta: SnapshotMeta,
    body_len: u64,
    /// Where the body begins.
    body_at: u64,
    bytes: u64,
}

impl OpenSnapshot {
    fn read(file: Box<dyn DiskFile>, path: &Path) -> Result<Self, SnapshotError> {
        let bad = |why: String| SnapshotError::Bad { path: path.to_owned(), why };
        let mut bytes = [0; HEADER];
        if file.read_most_at(&mut bytes, 0).map_err(io_error("read", path))? < HEADER {
            return Err(bad("it is shorter than its header".to_owned()));
        }
        let Header { mut meta, body_len, members_len, members_crc } =
            read_header(&bytes).map_err(|why| bad(why.to_owned()))?;
        let body_at = (HEADER + members_len) as u64;
        let on_disk = file.len().map_err(io_error("look at", path))?;
        let checksums = 4 * body_len.div_ceil(CHUNK as u64);
        let expected = body_at.saturating_add(body_len).saturating_add(checksums);
        if on_disk != expected {
            return Err(bad(format!("it has {on_disk} bytes where {expected} belong")));
        }
        meta.members = vec![0; members_len];
        file.read_exact_at(&mut meta.members, HEADER as u64).map_err(io_error("read", path))?;
        if crc32c::crc32c(&meta.members) != members_crc {
            return Err(bad("the checksum of its members does not match".to_owned()));
        }
        Ok(Self { path: path.to_owned(), file, meta, body_len, body_at, bytes: on_disk })
    }

    /// Reads and checks the body, chunk by chunk.
    fn each_chunk(&self, mut take: impl FnMut(&[u8])) -> Result<(), SnapshotError> {
        let mut buffer = vec![0; CHUNK + 4];
        let (mut at, mut left, mut nth) = (self.body_at, self.body_len, 0);
        while left > 0 {
            let len = left.min(CHUNK as u64) as usize;
            let with_crc = &mut buffer[..len + 4];
            self.file.read_exact_at(with_crc, at).map_err(io_error("read", &self.path))?;
            let (chunk, crc) = with_crc.split_at(len);
            if crc32c::crc32c(chunk).to_le_bytes() != crc {
                let why = format!("the checksum of its mebibyte {nth} does not match");
                return Err(SnapshotError::Bad { path: self.path.clone(), why });
            }
            take(chunk);
            at += len as u64 + 4;
            left -= len as u64;
            nth += 1;
        }
        Ok(())
    }
}

/// A snapshot of this node, open for sending: it goes as the bytes of its file. It stays readable if it is removed meanwhile.
#[derive(Debug)]
pub struct SnapshotSource {
    open: OpenSnapshot,
}

impl SnapshotSource {
    /// What it is of.
    #[must_use]
    pub fn meta(&self) -> &SnapshotMeta {
        &self.open.meta
    }

    /// Bytes of the whole file.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a snapshot always has a header")]
    pub fn len(&self) -> u64 {
        self.open.bytes
    }

    /// Reads from `at` bytes on as much as fits, and says how much that is; 0 at the end.
    ///
    /// # Errors
    /// [`SnapshotError::Io`].
    pub fn read_at(&self, buffer: &mut [u8], at: u64) -> Result<usize, SnapshotError> {
        self.open.file.read_most_at(buffer, at).map_err(io_error("read", &self.open.path))
    }
}

/// A snapshot on its way in from another node. Dropped before [`SnapshotReceiver::finish`], it leaves nothing that counts.
#[derive(Debug)]
pub struct SnapshotReceiver {
    store: SnapshotStore,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    bytes: u64,
}

impl SnapshotReceiver {
    /// Bytes taken so far: where the next ones belong.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes the next bytes of the file, in order.
    ///
    /// # Errors
    /// [`SnapshotError::Io`].
    pub fn write(&mut self, chunk: &[u8]) -> Result<(), SnapshotError> {
        self.file.write_bytes_at(chunk, self.bytes).map_err(io_error("write", &self.path))?;
        self.bytes += chunk.len() as u64;
        Ok(())
    }

    /// Checks everything that can be checked without the machine, makes it durable and gives it its name. The next
    /// [`crate::recover`] on this directory takes it in: let the node start again from disk.
    ///
    /// # Errors
    /// [`SnapshotError::Bad`] for bytes that are no snapshot, [`SnapshotError::Io`]; nothing that counts is left then.
    pub fn finish(self) -> Result<SnapshotMeta, SnapshotError> {
        let Self { store, path, file, .. } = self;
        file.sync_all().map_err(io_error("sync", &path))?;
        let open = OpenSnapshot::read(file, &path)?;
        open.each_chunk(|_| ())?;
        store.name_or_stop(&path, &store.path(RECEIVED, open.meta.position.index))?;
        Ok(open.meta)
    }
}

fn header(meta: &SnapshotMeta, body_len: u64) -> [u8; HEADER] {
    let mut out = [0; HEADER];
    out[0..8].copy_from_slice(&MAGIC);
    out[8..12].copy_from_slice(&SNAPSHOT_FORMAT.to_le_bytes());
    out[12..16].copy_from_slice(&meta.machine_format.to_le_bytes());
    let Position { index, term, seq, chain, at } = meta.position;
    for (nth, word) in [index, term, seq.0, chain, at.0, meta.state_hash, body_len].into_iter().enumerate() {
        out[16 + nth * 8..24 + nth * 8].copy_from_slice(&word.to_le_bytes());
    }
    out[72..76].copy_from_slice(&(meta.members.len() as u32).to_le_bytes());
    out[76..80].copy_from_slice(&crc32c::crc32c(&meta.members).to_le_bytes());
    let crc = crc32c::crc32c(&out[..HEADER - 4]);
    out[HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
    out
}

struct Header {
    /// Without the members.
    meta: SnapshotMeta,
    body_len: u64,
    members_len: usize,
    members_crc: u32,
}

/// Reads a header of format 1 or 2; the former has zeros where the latter tells of the members.
fn read_header(bytes: &[u8; HEADER]) -> Result<Header, &'static str> {
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let word =
        |nth: usize| u64::from_le_bytes(bytes[16 + nth * 8..24 + nth * 8].try_into().expect("eight bytes"));
    if bytes[..8] != MAGIC {
        return Err("it does not begin like a snapshot");
    }
    if crc32c::crc32c(&bytes[..HEADER - 4]) != u32_at(HEADER - 4) {
        return Err("its header is damaged");
    }
    if u32_at(8) > SNAPSHOT_FORMAT {
        return Err("its format is newer than this program knows");
    }
    let position =
        Position { index: word(0), term: word(1), seq: Seq(word(2)), chain: word(3), at: Nanos(word(4)) };
    let meta =
        SnapshotMeta { position, state_hash: word(5), machine_format: u32_at(12), members: Vec::new() };
    let members_len = u32_at(72) as usize;
    if members_len > MEMBERS_MAX {
        return Err("it has more members than any cluster");
    }
    Ok(Header { meta, body_len: word(6), members_len, members_crc: u32_at(76) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As for a block's bytes: a change needs a new format number and a reader of the old.
    #[test]
    fn the_bytes_of_a_snapshot_header_are_those_of_format_2() {
        let position =
            Position { index: 7, term: 2, seq: Seq(42), chain: 0x0102_0304_0506_0708, at: Nanos(1_234) };
        let meta =
            SnapshotMeta { position, state_hash: 0xfeed, machine_format: 3, members: b"one, two".to_vec() };
        let bytes = header(&meta, 3_000_000);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let golden = concat!(
            "47524944534e41500200000003000000070000000000000002000000000000002a000000000000000807060504030201",
            "d204000000000000edfe000000000000c0c62d00000000000800000006ed4b5200000000000000000000000000000000",
            "0000000000000000000000000000000000000000000000000000000043a347c0",
        );
        assert_eq!(hex, golden);
        let read = read_header(&bytes).expect("it reads");
        assert_eq!((read.body_len, read.members_len), (3_000_000, 8));
        assert_eq!(read.meta, SnapshotMeta { members: Vec::new(), ..meta });
    }
}
