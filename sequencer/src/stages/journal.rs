//! Writes what the core hands over, as much of it with one write and one sync as there is, and says when it is durable.

use crate::consensus::Persist;
use crate::driver::Drive;
use crate::fault;
use crate::journal::{Durability, Journal, JournalError};
use crate::lane::LaneOut;
use crate::layout::{Stage, Step};
use crate::stages::Cursors;
use crate::sync::{Arc, Ordering};

/// Most hand-overs, of some blocks each, that the journal writes with one sync.
const GROUP: u64 = 256;

pub(crate) struct JournalStage<C> {
    pub(crate) input: LaneOut<Persist>,
    pub(crate) journal: Journal,
    pub(crate) core: Arc<dyn Drive<C>>,
    pub(crate) group: Vec<Persist>,
    /// Up to where segments have been released.
    pub(crate) released: u64,
    pub(crate) cursors: Arc<Cursors>,
}

impl<C> JournalStage<C> {
    /// Writes the group and tells the core when it counts as durable.
    fn write(&mut self) -> Result<(), JournalError> {
        let Some(last) = self.group.last().map(|persist| persist.ticket) else { return Ok(()) };
        self.journal.commit(self.cursors.committed.load(Ordering::Acquire));
        self.journal.write_group(&self.group)?;
        let sync_first = self.journal.durability() == Durability::DiskQuorum;
        if sync_first {
            self.journal.sync()?;
        }
        self.cursors.groups.fetch_add(1, Ordering::Relaxed);
        self.cursors.durable.store(last, Ordering::Relaxed);
        if let Some(block) = self.group.iter().rev().find_map(|persist| persist.blocks.last()) {
            self.cursors.clocks.durable(block.header().index);
        }
        self.core.persisted(last);
        if !sync_first {
            self.journal.sync()?;
        }
        self.group.clear();
        Ok(())
    }

    fn release(&mut self) -> Result<(), JournalError> {
        let wanted = self.cursors.release.load(Ordering::Acquire);
        if wanted > self.released {
            self.released = wanted;
            self.journal.release(wanted)?;
        }
        Ok(())
    }
}

impl<C: Send + Sync + 'static> Stage for JournalStage<C> {
    fn step(&mut self) -> Step {
        // Before the poll: what was handed over before this was true is seen by the poll.
        let done = self.cursors.matcher_done.load(Ordering::Acquire);
        let Self { input, group, .. } = self;
        let worked = input.take(GROUP, |persist| group.push(persist)) > 0;
        if !worked && done {
            self.journal.commit(self.cursors.committed.load(Ordering::Acquire));
            if let Err(error) = self.journal.close() {
                fault::abort(&error.to_string());
            }
            self.core.close();
            return Step::Done;
        }
        if let Err(error) = self.write().and_then(|()| self.release()) {
            fault::abort(&error.to_string());
        }
        if worked { Step::Worked } else { Step::Idle }
    }

    fn has_work(&self) -> bool {
        self.input.available() > 0
            || self.cursors.matcher_done.load(Ordering::Acquire)
            || self.cursors.release.load(Ordering::Acquire) > self.released
    }
}
