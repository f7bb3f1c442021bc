//! Snapshots on disk: the machine's whole state at a block boundary, so that a start need not replay from the first block.
//!
//! A snapshot is never trusted: header, chunks and the state's own hash are checked, and a bad one is passed over for an older,
//! or for a replay from the first block. It is written beside, synced and renamed, so a file of the right name is whole.
//! Format: `JOURNAL.md`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use grid_engine::{Nanos, Seq};

use crate::block::Position;

/// Version of the snapshot file format.
pub(crate) const SNAPSHOT_FORMAT: u32 = 1;
/// How many snapshots are kept.
pub(crate) const SNAPSHOTS_KEPT: usize = 3;
const MAGIC: [u8; 8] = *b"GRIDSNAP";
const HEADER: usize = 128;
const CHUNK: usize = 1 << 20;

/// What a snapshot is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// Where the log stood.
    pub position: Position,
    /// Hash of the state, compared after restoring it.
    pub state_hash: u64,
    /// Version of the machine's coding.
    pub machine_format: u32,
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
    dir: PathBuf,
}

impl SnapshotStore {
    /// Over an existing directory.
    #[must_use]
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Writes a snapshot durably and removes all but the newest three.
    ///
    /// # Errors
    /// [`SnapshotError::Io`]; nothing with the final name is left behind then.
    pub fn write(&self, meta: &SnapshotMeta, body: &[u8]) -> Result<PathBuf, SnapshotError> {
        let path = self.dir.join(format!("snapshot-{:020}.snap", meta.position.index));
        let temporary = self.dir.join("snapshot-next.tmp");
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| SnapshotError::Io { action, path, source }
        };
        let mut file = File::create(&temporary).map_err(io("create", &temporary))?;
        file.write_all(&header(meta, body.len() as u64)).map_err(io("write", &temporary))?;
        for chunk in body.chunks(CHUNK) {
            file.write_all(chunk).map_err(io("write", &temporary))?;
            file.write_all(&crc32c::crc32c(chunk).to_le_bytes()).map_err(io("write", &temporary))?;
        }
        file.sync_all().map_err(io("sync", &temporary))?;
        std::fs::rename(&temporary, &path).map_err(io("rename", &path))?;
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(io("sync the directory of", &path))?;
        for old in self.list()?.into_iter().skip(SNAPSHOTS_KEPT) {
            std::fs::remove_file(&old).map_err(io("remove", &old))?;
        }
        Ok(path)
    }

    /// The snapshot files, newest first.
    ///
    /// # Errors
    /// [`SnapshotError::Io`] if the directory cannot be listed.
    pub fn list(&self) -> Result<Vec<PathBuf>, SnapshotError> {
        let io = |source| SnapshotError::Io { action: "list", path: self.dir.clone(), source };
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.dir).map_err(io)? {
            let path = entry.map_err(io)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with("snapshot-") && name.ends_with(".snap") {
                found.push(path);
            }
        }
        found.sort();
        found.reverse();
        Ok(found)
    }

    /// Reads and checks one snapshot's header and body; the state hash is for the caller, who can restore it.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn read(path: &Path) -> Result<(SnapshotMeta, Vec<u8>), SnapshotError> {
        let (meta, body_len, mut file) = open(path)?;
        let io = |source| SnapshotError::Io { action: "read", path: path.to_owned(), source };
        let bad = |why: String| SnapshotError::Bad { path: path.to_owned(), why };
        let on_disk = file.metadata().map_err(io)?.len();
        let expected = HEADER as u64 + body_len + 4 * body_len.div_ceil(CHUNK as u64);
        if on_disk != expected {
            return Err(bad(format!("it has {on_disk} bytes where {expected} belong")));
        }
        let mut body = vec![0; body_len as usize];
        for (nth, chunk) in body.chunks_mut(CHUNK).enumerate() {
            let mut crc = [0; 4];
            file.read_exact(chunk).and_then(|()| file.read_exact(&mut crc)).map_err(io)?;
            if crc32c::crc32c(chunk) != u32::from_le_bytes(crc) {
                return Err(bad(format!("the checksum of its mebibyte {nth} does not match")));
            }
        }
        Ok((meta, body))
    }

    /// Reads and checks one snapshot's header only.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn read_meta(path: &Path) -> Result<(SnapshotMeta, u64), SnapshotError> {
        open(path).map(|(meta, body_len, _)| (meta, body_len))
    }
}

fn open(path: &Path) -> Result<(SnapshotMeta, u64, File), SnapshotError> {
    let io = |source| SnapshotError::Io { action: "read", path: path.to_owned(), source };
    let bad = |why: &str| SnapshotError::Bad { path: path.to_owned(), why: why.to_owned() };
    let mut file = File::open(path).map_err(io)?;
    let mut bytes = [0; HEADER];
    file.read_exact(&mut bytes).map_err(|source| match source.kind() {
        io::ErrorKind::UnexpectedEof => bad("it is shorter than its header"),
        _ => io(source),
    })?;
    let (meta, body_len) = read_header(&bytes).map_err(bad)?;
    Ok((meta, body_len, file))
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
    let crc = crc32c::crc32c(&out[..HEADER - 4]);
    out[HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
    out
}

fn read_header(bytes: &[u8; HEADER]) -> Result<(SnapshotMeta, u64), &'static str> {
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
    Ok((SnapshotMeta { position, state_hash: word(5), machine_format: u32_at(12) }, word(6)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As for a block's bytes: a change needs a new format number and a reader of the old.
    #[test]
    fn the_bytes_of_a_snapshot_header_are_those_of_format_1() {
        let position =
            Position { index: 7, term: 2, seq: Seq(42), chain: 0x0102_0304_0506_0708, at: Nanos(1_234) };
        let meta = SnapshotMeta { position, state_hash: 0xfeed, machine_format: 3 };
        let bytes = header(&meta, 3_000_000);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let golden = concat!(
            "47524944534e41500100000003000000070000000000000002000000000000002a000000000000000807060504030201",
            "d204000000000000edfe000000000000c0c62d0000000000000000000000000000000000000000000000000000000000",
            "0000000000000000000000000000000000000000000000000000000099ff689c",
        );
        assert_eq!(hex, golden);
        assert_eq!(read_header(&bytes), Ok((meta, 3_000_000)));
    }
}
