//! Reading a data directory without touching it, also while a venue runs on it: what `grid inspect` is made of.

use std::path::{Path, PathBuf};

use grid_engine::{Nanos, Seq};

use crate::block::{BlockHeader, BlockKind, CommandBytes, Position};
use crate::consensus::HardState;
use crate::disk::RealDisk;
use crate::journal::{self, From, JournalError};
use crate::machine::Machine;
use crate::recover::{journal_dir, snapshot_dir};
use crate::segment::{TornTail, Visited, list_segments};
use crate::snapshot::{SnapshotError, SnapshotMeta, SnapshotStore};
use crate::trail::Moved;

/// One block of the journal, as it lies on disk.
#[derive(Debug)]
pub struct InspectedBlock<'a> {
    /// The segment file.
    pub path: &'a Path,
    /// Where the block begins, in bytes from the start of the file.
    pub offset: u64,
    /// Its header.
    pub header: BlockHeader,
    /// So many blocks ahead of it, from its index on, are replaced by it and what follows: they were never committed.
    pub replaces: u64,
    payload: &'a [u8],
}

impl<'a> InspectedBlock<'a> {
    /// Its commands with their numbers, as bytes; none for a block of another kind.
    pub fn command_bytes(&self) -> impl Iterator<Item = (Seq, &'a [u8])> + use<'a> {
        let payload = if self.header.kind == BlockKind::Entry { self.payload } else { &[] };
        let first = self.header.first_seq.0;
        CommandBytes::new(payload).enumerate().map(move |(nth, bytes)| (Seq(first + nth as u64), bytes))
    }

    /// Its commands, decoded; one that this program cannot read comes as the reason.
    pub fn commands<M: Machine>(
        &self,
    ) -> impl Iterator<Item = (Seq, Result<M::Command, String>)> + use<'a, M> {
        self.command_bytes().map(|(seq, bytes)| (seq, M::decode(bytes).map_err(|error| error.0)))
    }

    /// Term, vote and committed index, for a note of that kind.
    #[must_use]
    pub fn hard_state(&self) -> Option<HardState> {
        (self.header.kind == BlockKind::HardState).then(|| HardState::from_bytes(self.payload)).flatten()
    }

    /// The change of members in the replicator's coding, for a block of that kind.
    #[must_use]
    pub fn conf_change(&self) -> Option<&'a [u8]> {
        (self.header.kind == BlockKind::ConfChange).then_some(self.payload)
    }

    /// Where the snapshot stands behind which the log goes on, for a note of that kind.
    #[must_use]
    pub fn snapshot(&self) -> Option<Position> {
        (self.header.kind == BlockKind::Snapshot).then(|| Position::from_bytes(self.payload)).flatten()
    }
}

/// What a journal holds, all of it checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalSummary {
    /// Segment files.
    pub segments: usize,
    /// Entry blocks, those included that were replaced, and those without commands that a leader began its term with.
    pub entry_blocks: u64,
    /// Blocks of other kinds.
    pub other_blocks: u64,
    /// Commands in all entry blocks.
    pub commands: u64,
    /// Blocks that others took the place of: they were never committed.
    pub replaced_blocks: u64,
    /// Changes of members.
    pub conf_changes: u64,
    /// Where the log stands before the first block that can be read.
    pub log_start: Position,
    /// Bytes of blocks, without what is prepared and still empty.
    pub bytes: u64,
    /// Stamp of the first block with commands.
    pub first_at: Option<Nanos>,
    /// Where the log stands behind the last block, committed or not.
    pub position: Position,
    /// Term, vote and committed index as last journalled.
    pub hard_state: HardState,
    /// What a crash left half written, or a running venue is just writing.
    pub torn: Option<TornTail>,
}

/// Walks all blocks of a data directory's journal from the first and checks each one.
///
/// # Errors
/// [`JournalError`] for the first thing that does not check; blocks before it have been visited.
pub fn visit_blocks(
    data: &Path,
    machine_format: u32,
    mut visit: impl FnMut(&InspectedBlock<'_>),
) -> Result<JournalSummary, JournalError> {
    let dir = journal_dir(data);
    let mut summary = JournalSummary {
        segments: list_segments(&RealDisk, &dir, machine_format)?.len(),
        ..JournalSummary::default()
    };
    let mut last = None;
    let mut each = |visited: &Visited<'_>| -> Result<(), JournalError> {
        let (header, payload) = (visited.header, visited.payload());
        summary.bytes += header.block_bytes() as u64;
        if header.kind == BlockKind::Entry {
            summary.entry_blocks += 1;
            summary.commands += u64::from(header.commands);
            if header.commands > 0 {
                summary.first_at.get_or_insert(header.at);
            }
        } else {
            summary.other_blocks += 1;
            summary.conf_changes += u64::from(header.kind == BlockKind::ConfChange);
        }
        let replaces = match visited.moved {
            Moved::On => last.replace(header.index).map_or(0, |last| (last + 1).saturating_sub(header.index)),
            Moved::Behind(position) => {
                last = Some(position.index);
                0
            }
            Moved::HardState(_) => 0,
        };
        summary.replaced_blocks += replaces;
        visit(&InspectedBlock {
            path: visited.path,
            offset: visited.offset,
            header,
            replaces,
            payload: &payload,
        });
        Ok(())
    };
    let read = journal::read(&RealDisk, &dir, machine_format, From::Oldest, &mut each, &mut |_, _| {})?;
    summary.position = read.trail.last();
    summary.hard_state = read.trail.hard_state();
    summary.log_start = read.trail.start();
    summary.torn = read.torn;
    Ok(summary)
}

/// A snapshot file, whether it reads or not.
#[derive(Debug)]
pub struct InspectedSnapshot {
    /// The file.
    pub path: PathBuf,
    /// What it is of and how many bytes its body has, or why it does not read.
    pub meta: Result<(SnapshotMeta, u64), SnapshotError>,
}

/// All snapshots of a data directory, newest first, each read and checked in full.
///
/// # Errors
/// [`SnapshotError::Io`] if the directory cannot be listed.
pub fn snapshots(data: &Path) -> Result<Vec<InspectedSnapshot>, SnapshotError> {
    let store = SnapshotStore::new(snapshot_dir(data));
    let checked = |path: PathBuf| {
        let meta = store.read(&path).map(|(meta, body)| (meta, body.len() as u64));
        InspectedSnapshot { path, meta }
    };
    Ok(store.list()?.into_iter().map(checked).collect())
}
