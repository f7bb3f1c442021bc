//! Numbers, stamps and closes blocks: the stage between the producers' ring and the consensus core.

use std::any::Any;
use std::time::Duration;

use grid_engine::Nanos;

use crate::block::Block;
use crate::clock::{Clock, Stamper};
use crate::door::Door;
use crate::driver::Drive;
use crate::inbound::Inbound;
use crate::layout::{Stage, Step};
use crate::machine::Machine;
use crate::stages::{Cursors, Pending};
use crate::sync::{Arc, Ordering};

/// Most blocks that the sequencer closes before other stages of its thread get a turn.
const SEAL_BLOCKS: usize = 16;

pub(crate) struct SequencerStage<M: Machine> {
    pub(crate) inbound: Inbound<M::Command>,
    pub(crate) door: Arc<Door>,
    pub(crate) core: Arc<dyn Drive<M::Command>>,
    /// Most blocks between this stage and the matcher.
    pub(crate) log_slots: u64,
    pub(crate) clock: Clock,
    pub(crate) stamper: Stamper,
    /// Longest time a block stays open for what is just arriving.
    pub(crate) open: Nanos,
    pub(crate) pending: Pending<M::Command>,
    /// The core leads and takes no block just now: it is handing its leadership over, and may yet keep it.
    pub(crate) held: bool,
    pub(crate) cursors: Arc<Cursors>,
}

impl<M: Machine> SequencerStage<M> {
    fn has_room(&self) -> bool {
        let (last, applied) = (&self.cursors.sequenced, &self.cursors.applied);
        last.load(Ordering::Acquire).saturating_sub(applied.load(Ordering::Acquire)) < self.log_slots
    }

    /// Like `has_room`, but a `false` comes with the promise of a ring when that changes.
    fn has_room_or_call(&self) -> bool {
        if self.has_room() {
            return true;
        }
        self.cursors.sequencer_blocked.ask();
        self.has_room()
    }

    fn drain(&mut self) -> bool {
        let pending = &mut self.pending;
        let taken = self.inbound.drain(|taken| pending.push(taken)) as u64;
        if taken == 0 {
            return false;
        }
        // Nobody else writes it.
        self.cursors.taken.store(self.cursors.taken.load(Ordering::Relaxed) + taken, Ordering::Relaxed);
        true
    }

    /// Keeps the block open for what is just arriving, until the input is empty, the block full, or its time over. With
    /// nothing arriving, nobody looks at the clock.
    fn fill(&mut self) {
        if self.pending.fills() || !self.inbound.has_some() {
            return;
        }
        let closes = self.clock.now().after(self.open);
        while !self.pending.fills() && self.inbound.has_some() && self.clock.now() < closes {
            self.drain();
        }
    }

    /// Proposes blocks of what is pending, as far as there is room and the core takes some; false if this node does not lead.
    fn propose(&mut self) -> bool {
        let Self { core, pending, stamper, cursors, log_slots, .. } = self;
        let mut blocks = 0;
        core.propose(&mut |before, term| {
            pending.expire(term);
            // Before anything of its own, a leader's log holds the empty block of its term.
            let room = before.index.saturating_sub(cursors.applied.load(Ordering::Acquire)) < *log_slots;
            if blocks == SEAL_BLOCKS || !room {
                return None;
            }
            let (commands, bytes, arrived) = pending.cut()?.into_parts();
            blocks += 1;
            if let Some(arrived) = arrived {
                cursors.clocks.closed(before.index + 1, term, arrived);
            }
            let at = stamper.stamp_after(before.at);
            let block = Block::sealed(before, term, at, commands.len() as u32, bytes);
            Some((Arc::new(block), commands))
        })
    }
}

impl<M: Machine> Stage for SequencerStage<M> {
    fn step(&mut self) -> Step {
        let shut = self.door.is_shut();
        let mut worked = false;
        self.held = false;
        if !self.pending.fills() {
            worked = self.drain();
        }
        if !self.pending.is_empty() && self.has_room_or_call() {
            self.fill();
            let before = self.pending.len();
            if self.propose() {
                self.held = self.pending.len() == before;
                worked |= !self.held;
            } else {
                worked = true;
                let dropped = self.pending.clear();
                tracing::debug!(
                    dropped,
                    "this node does not lead; nobody was told anything about these commands"
                );
            }
        }
        if shut && self.pending.is_empty() && !self.inbound.has_some() {
            self.cursors.sequencer_done.store(true, Ordering::Release);
            self.cursors.bell_journal.ring();
            self.cursors.bell_matcher.ring();
            return Step::Done;
        }
        if worked { Step::Worked } else { Step::Idle }
    }

    fn inlet(&mut self) -> Option<&mut dyn Any> {
        Some(&mut self.pending)
    }

    fn has_work(&self) -> bool {
        if !self.pending.is_empty() {
            return !self.held && self.has_room_or_call();
        }
        self.inbound.has_some() || self.door.is_shut()
    }

    fn patience(&self) -> Option<Duration> {
        // A core that keeps its leadership after all does not ring.
        self.held.then_some(Duration::from_millis(1))
    }
}
