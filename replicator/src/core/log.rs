//! The log as raft reads it: recent blocks in memory, older ones from the journal, the newest snapshot as a number.
//!
//! Every block that is not yet applied is in memory; behind that as many as fit into the window, for followers that are a little
//! late. Whoever is later than that is served through [`OldBlocks`], and whoever is later than the journal, by a snapshot.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use grid_sequencer::{Block, Blocks, HardState, Position};
use raft::eraftpb::{ConfState, Entry, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use super::wire;

/// What is asked for is no longer in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal begins later than that")]
pub struct Compacted;

/// Reads blocks that left memory: the journal.
pub trait OldBlocks: Send {
    /// Log blocks from index `from` on, without a gap: at least one, else about `max_bytes` of them. Only asked for blocks that are durable,
    /// applied, and not below what [`super::RaftCore::compact`] was told. An error of the disk stops the process instead of coming back.
    ///
    /// # Errors
    /// [`Compacted`] when the journal begins later.
    fn read(&self, from: u64, max_bytes: usize) -> Result<Vec<Arc<Block>>, Compacted>;

    /// Index and term of the last block that can *not* be read any more, as of now; `None` if nothing was let go since the start.
    fn start(&self) -> Option<(u64, u64)> {
        None
    }
}

struct Slot {
    block: Arc<Block>,
    /// Memory of all blocks that ever were in the window, up to this one, in bytes.
    bytes_to: u64,
}

/// Invariants: `blocks` are without a gap behind `before`; `start.index <= before.index`; equal (index, term) is an equal block.
pub(super) struct Log {
    before: Position,
    bytes_before: u64,
    blocks: VecDeque<Slot>,
    /// Index and term of the last block that cannot be read any more.
    /// The journal lets blocks go on its own; this is brought up to date when one is missed.
    start: Cell<(u64, u64)>,
    snapshot: Option<(u64, u64)>,
    old: Option<Box<dyn OldBlocks>>,
    /// What was last read through `old`: an entry that raft sends is turned back into its block from here.
    reread: RefCell<BTreeMap<u64, Arc<Block>>>,
    window_bytes: u64,
    /// Bytes that may yet be read for followers that lag before raft has been told something else.
    budget: Cell<u64>,
    initial: (HardState, ConfState),
}

/// Bytes read at once for followers that lag: while they are read and sent, nobody else is served. The followers' answers ask for more.
const READ_BYTES: u64 = 2 << 20;
/// Re-read blocks at which those are let go.
const REREAD_BLOCKS: usize = 4096;

impl Log {
    pub(super) fn new(
        applied: Position,
        start: (u64, u64),
        snapshot: Option<(u64, u64)>,
        old: Option<Box<dyn OldBlocks>>,
        window_bytes: u64,
        initial: (HardState, ConfState),
    ) -> Self {
        Self {
            before: applied,
            bytes_before: 0,
            blocks: VecDeque::new(),
            start: Cell::new(start),
            snapshot,
            old,
            reread: RefCell::default(),
            window_bytes,
            budget: Cell::new(READ_BYTES),
            initial,
        }
    }

    /// Where the log stands after its last block.
    pub(super) fn end(&self) -> Position {
        self.blocks.back().map_or(self.before, |slot| slot.block.position())
    }

    /// Index of its last block.
    pub(super) fn last(&self) -> u64 {
        self.before.index + self.blocks.len() as u64
    }

    /// Where it stands after the block of this index, if that is in memory (or the last before it).
    pub(super) fn position(&self, index: u64) -> Option<Position> {
        if index == self.before.index {
            return Some(self.before);
        }
        self.slot(index).map(|slot| slot.block.position())
    }

    /// The term of that block alone.
    pub(super) fn recent_term(&self, index: u64) -> Option<u64> {
        if index == self.before.index {
            return Some(self.before.term);
        }
        self.slot(index).map(|slot| slot.block.header().term)
    }

    fn slot(&self, index: u64) -> Option<&Slot> {
        self.blocks.get(usize::try_from(index.checked_sub(self.before.index + 1)?).ok()?)
    }

    /// The block of this index in memory.
    pub(super) fn recent(&self, index: u64) -> Option<&Arc<Block>> {
        self.slot(index).map(|slot| &slot.block)
    }

    /// The blocks in memory from one index to another, both among them: one at least, else as many as fit into so many bytes.
    pub(super) fn recent_from(&self, first: u64, last: u64, max_bytes: u64) -> Blocks {
        if first > last {
            return Blocks::default();
        }
        let place =
            |index: u64| index.checked_sub(self.before.index + 1).expect("what is not applied is in memory");
        let (first, last) = (place(first) as usize, place(last) as usize);
        if first == last {
            return [Arc::clone(&self.blocks[first].block)].into();
        }
        let before = first.checked_sub(1).map_or(self.bytes_before, |nth| self.blocks[nth].bytes_to);
        let fits = |slot: &&Slot| slot.bytes_to - before <= max_bytes;
        let count = if fits(&&self.blocks[last]) {
            last + 1 - first
        } else {
            self.blocks.range(first..=last).take_while(fits).count().max(1)
        };
        let slots = self.blocks.range(first..first + count);
        slots.map(|slot| Arc::clone(&slot.block)).collect()
    }

    /// The very block of an entry.
    pub(super) fn block_of(&self, entry: &Entry) -> Option<Arc<Block>> {
        let same = |block: &Arc<Block>| block.header().term == entry.term;
        if let Some(block) = self.recent(entry.index).filter(|block| same(block)) {
            return Some(Arc::clone(block));
        }
        if let Some(block) = self.reread.borrow().get(&entry.index).filter(|block| same(block)) {
            return Some(Arc::clone(block));
        }
        Block::from_bytes(entry.data.clone()).ok().map(Arc::new)
    }

    pub(super) fn renew_budget(&self) {
        self.budget.set(READ_BYTES);
    }

    pub(super) fn forget_reread(&self) {
        let mut reread = self.reread.borrow_mut();
        if reread.len() > REREAD_BLOCKS {
            reread.clear();
        }
    }

    pub(super) fn push(&mut self, block: Arc<Block>) {
        debug_assert_eq!(self.end().refuses(block.header()), None);
        let before = self.blocks.back().map_or(self.bytes_before, |slot| slot.bytes_to);
        let bytes_to = before + (block.bytes().len() + size_of::<Block>()) as u64;
        self.blocks.push_back(Slot { block, bytes_to });
    }

    /// Drops every block behind `index`.
    pub(super) fn truncate(&mut self, index: u64) {
        let keep = index.checked_sub(self.before.index).expect("what is applied is never replaced");
        self.blocks.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
    }

    /// Lets blocks go that are applied and more than the window holds.
    pub(super) fn trim(&mut self, applied: u64) {
        let end = self.blocks.back().map_or(self.bytes_before, |slot| slot.bytes_to);
        while let Some(slot) = self.blocks.front() {
            let header = slot.block.header();
            let held = end - self.bytes_before;
            // Without a journal to read from, what leaves memory is gone: then a snapshot must stand for it.
            let stands = self.old.is_some() || self.snapshot.is_some_and(|(index, _)| header.index <= index);
            if held <= self.window_bytes || header.index > applied || !stands {
                break;
            }
            self.before = slot.block.position();
            self.bytes_before = slot.bytes_to;
            self.blocks.pop_front();
        }
        if self.old.is_none() && self.start.get().0 < self.before.index {
            self.start.set((self.before.index, self.before.term));
        }
    }

    pub(super) fn start(&self) -> u64 {
        self.start.get().0
    }

    pub(super) fn snapshot_index(&self) -> Option<u64> {
        self.snapshot.map(|(index, _)| index)
    }

    pub(super) fn set_snapshot(&mut self, index: u64, term: u64) {
        if self.snapshot.is_none_or(|(newest, _)| newest < index) {
            self.snapshot = Some((index, term));
        }
    }

    /// The log up to `index` may go from the journal; returns up to where that is really so.
    pub(super) fn compact(&mut self, index: u64, applied: u64) -> u64 {
        let index = index.min(applied).min(self.snapshot.map_or(0, |(index, _)| index));
        if index > self.start.get().0
            && let Ok(term) = self.term(index)
        {
            self.start.set((index, term));
        }
        self.start.get().0
    }

    /// Blocks of `low..high` as raft keeps them: at least one, else as many as fit.
    fn read(&self, low: u64, high: u64, max_bytes: u64) -> raft::Result<Vec<Entry>> {
        let mut entries: Vec<Entry> = Vec::new();
        let (mut next, mut bytes) = (low, 0_u64);
        while next < high && next <= self.before.index {
            let left = usize::try_from(max_bytes.saturating_sub(bytes)).unwrap_or(usize::MAX);
            for block in self.read_old(next, left.min(1 << 20))? {
                bytes += block.bytes().len() as u64;
                if block.header().index >= high || (bytes > max_bytes && !entries.is_empty()) {
                    return Ok(entries);
                }
                assert_eq!(block.header().index, next, "the journal's blocks come without a gap");
                entries.push(wire::entry(&block));
                next += 1;
            }
        }
        while next < high {
            let Some(block) = self.recent(next) else {
                return Err(raft::Error::Store(StorageError::Unavailable));
            };
            bytes += block.bytes().len() as u64;
            if bytes > max_bytes && !entries.is_empty() {
                break;
            }
            entries.push(wire::entry(block));
            next += 1;
        }
        Ok(entries)
    }

    fn read_old(&self, from: u64, max_bytes: usize) -> raft::Result<Vec<Arc<Block>>> {
        let compacted = || raft::Error::Store(StorageError::Compacted);
        let old = self.old.as_ref().ok_or_else(compacted)?;
        let blocks = old.read(from, max_bytes).map_err(|Compacted| {
            // Whoever stands exactly where the journal begins now needs no snapshot, if only the term there is known.
            if let Some(start) = old.start().filter(|start| start.0 > self.start.get().0) {
                self.start.set(start);
            }
            compacted()
        })?;
        assert!(!blocks.is_empty(), "the journal has block {from}: it is durable and was not compacted");
        self.reread.borrow_mut().extend(blocks.iter().map(|block| (block.header().index, Arc::clone(block))));
        Ok(blocks)
    }
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let (hard_state, conf_state) = &self.initial;
        let mut made = raft::eraftpb::HardState::default();
        (made.term, made.vote, made.commit) = (hard_state.term, hard_state.vote, hard_state.commit);
        Ok(RaftState::new(made, conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let max_bytes = max_size.into().unwrap_or(u64::MAX);
        if low <= self.start.get().0 {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let for_follower = context.can_async();
        if for_follower && self.budget.get() == 0 {
            // Raft leaves it at that and comes back with the follower's next answer, to a heartbeat if to nothing else.
            return Err(raft::Error::Store(StorageError::LogTemporarilyUnavailable));
        }
        let entries = self.read(low, high, max_bytes)?;
        if for_follower {
            let bytes: usize = entries.iter().map(|entry| entry.data.len()).sum();
            self.budget.set(self.budget.get().saturating_sub(bytes as u64));
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.start.get().0 {
            return Ok(self.start.get().1);
        }
        if index < self.start.get().0 {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if let Some(term) = self.recent_term(index) {
            return Ok(term);
        }
        if index > self.before.index {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        if let Some(block) = self.reread.borrow().get(&index) {
            return Ok(block.header().term);
        }
        match self.read_old(index, 1) {
            Ok(blocks) => Ok(blocks[0].header().term),
            Err(_) if index == self.start.get().0 => Ok(self.start.get().1),
            Err(error) => Err(error),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.start.get().0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        match self.snapshot {
            Some((index, term)) if index >= self.start.get().0 => Ok(wire::snapshot(index, term)),
            _ => Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable)),
        }
    }
}
