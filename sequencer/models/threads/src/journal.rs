//! A journal in memory that takes its time: others run between the write and the sync.

use crate::consensus::Persist;
use crate::sync::{Arc, AtomicU64, Ordering, thread};

/// When a write counts as durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// When it is synced.
    DiskQuorum,
    /// When it is written; it is synced right after.
    MemoryQuorum,
}

#[derive(Debug, thiserror::Error)]
#[error("memory does not fail")]
pub(crate) struct JournalError;

/// How far the disk is, for others to compare.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    /// Index of the last block that is synced.
    pub(crate) synced: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct Journal {
    disk: Arc<Disk>,
    durability: Durability,
    written: u64,
}

impl Journal {
    pub(crate) fn new(disk: Arc<Disk>, durability: Durability) -> Self {
        Self { disk, durability, written: 0 }
    }

    pub(crate) fn durability(&self) -> Durability {
        self.durability
    }

    pub(crate) fn write_group(&mut self, group: &[Persist]) -> Result<(), JournalError> {
        if let Some(last) = group.iter().flat_map(|persist| &persist.blocks).last() {
            self.written = last.header().index;
        }
        thread::yield_now();
        Ok(())
    }

    pub(crate) fn sync(&mut self) -> Result<(), JournalError> {
        thread::yield_now();
        self.disk.synced.store(self.written, Ordering::SeqCst);
        Ok(())
    }

    pub(crate) fn commit(&mut self, _index: u64) {}

    pub(crate) fn close(&mut self) -> Result<(), JournalError> {
        Ok(())
    }

    pub(crate) fn release(&mut self, _index: u64) -> Result<(), JournalError> {
        Ok(())
    }
}
