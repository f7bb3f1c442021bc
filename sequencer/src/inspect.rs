//! Reading a data directory without touching it, also while a venue runs on it: what `grid inspect` is made of.

use std::path::{Path, PathBuf};

use grid_engine::{Nanos, Seq};

use crate::block::{BlockHeader, BlockKind, CommandBytes, Position};
use crate::consensus::HardState;
use crate::journal::{self, JournalError};
use crate::machine::Machine;
use crate::recover::{journal_dir, snapshot_dir};
use crate::segment::{TornTail, Visited, list_segments};
use crate::snapshot::{SnapshotError, SnapshotMeta, SnapshotStore};

/// One block of the journal, as it lies on disk.
#[derive(Debug)]
pub struct InspectedBlock<'a> {
    /// The segment file.
    pub path: &'a Path,
    /// Where the block begins, in bytes from the start of the file.
    pub offset: u64,
    /// Its header.
    pub header: BlockHeader,
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

    /// Term and vote, for a block of that kind.
    #[must_use]
    pub fn hard_state(&self) -> Option<HardState> {
        (self.header.kind == BlockKind::HardState).then(|| HardState::from_bytes(self.payload)).flatten()
    }
}

/// What a journal holds, all of it checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalSummary {
    /// Segment files.
    pub segments: usize,
    /// Blocks with commands.
    pub entry_blocks: u64,
    /// Blocks of other kinds.
    pub other_blocks: u64,
    /// Commands.
    pub commands: u64,
    /// Bytes of blocks, without what is prepared and still empty.
    pub bytes: u64,
    /// Stamp of the first block with commands.
    pub first_at: Option<Nanos>,
    /// Where the log stands.
    pub position: Position,
    /// Term and vote as last journalled.
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
    let segments = list_segments(&dir, machine_format)?;
    let mut summary = JournalSummary { segments: segments.len(), ..JournalSummary::default() };
    let mut each = |visited: &Visited<'_>| -> Result<(), JournalError> {
        let header = visited.header;
        summary.bytes += header.block_bytes() as u64;
        if header.kind == BlockKind::Entry {
            summary.entry_blocks += 1;
            summary.commands += u64::from(header.commands);
            summary.first_at.get_or_insert(header.at);
        } else {
            summary.other_blocks += 1;
        }
        visit(&InspectedBlock {
            path: visited.path,
            offset: visited.offset,
            header,
            payload: visited.payload,
        });
        Ok(())
    };
    let read = journal::read(&dir, machine_format, None, &mut each, &mut |_, _| {})?;
    summary.position = read.position;
    summary.hard_state = read.hard_state;
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
    let checked = |path: PathBuf| {
        let meta = SnapshotStore::read(&path).map(|(meta, body)| (meta, body.len() as u64));
        InspectedSnapshot { path, meta }
    };
    Ok(SnapshotStore::new(snapshot_dir(data)).list()?.into_iter().map(checked).collect())
}
