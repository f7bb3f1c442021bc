//! What a block brought about, as consumers get it, and how its memory serves the next one.

use grid_engine::Seq;

use crate::block::CommittedBlock;
use crate::clocks::Stamps;
use crate::machine::{LookAhead, Machine};
use crate::sync::Arc;

/// Events that an output's memory is kept for; one that needed more gives it back.
const EVENTS_KEPT: usize = 1024;

/// One committed block and all that applying it brought about. The events of all its commands lie one behind the other, where
/// the machine put them.
#[derive(Debug)]
pub struct Output<M: Machine> {
    /// The block with its commands.
    pub block: Arc<CommittedBlock<M::Command>>,
    /// In order.
    events: Vec<M::Event>,
    /// Where the events of each command end: as many as there are commands, none before the one ahead of it.
    ends: Vec<u32>,
    /// Of a block that the stage clocks follow.
    pub(crate) stamps: Option<Stamps>,
}

impl<M: Machine> Output<M> {
    /// Of a block that is yet to be applied, with room for so many events.
    pub(crate) fn before(block: Arc<CommittedBlock<M::Command>>, events: usize) -> Self {
        let ends = Vec::with_capacity(block.plain_commands().len());
        Self { block, events: Vec::with_capacity(events.min(EVENTS_KEPT)), ends, stamps: None }
    }

    /// Becomes that of another block, which is yet to be applied; gives back the block that it was of.
    pub(crate) fn renew(
        &mut self,
        block: Arc<CommittedBlock<M::Command>>,
    ) -> Arc<CommittedBlock<M::Command>> {
        let Self { block: own, events, ends, stamps } = self;
        events.clear();
        events.shrink_to(EVENTS_KEPT);
        ends.clear();
        *stamps = None;
        std::mem::replace(own, block)
    }

    /// Has a machine apply the block, `ahead` of which it is told what comes.
    pub(crate) fn apply<'a, I: Iterator<Item = &'a M::Command> + Clone>(
        &mut self,
        machine: &mut M,
        ahead: &mut LookAhead<I>,
    ) where
        M::Command: 'a,
    {
        let Self { block, events, ends, .. } = self;
        debug_assert!(events.is_empty() && ends.is_empty());
        ends.reserve(block.plain_commands().len());
        let at = block.at();
        for (seq, command) in block.commands() {
            ahead.advance(machine);
            machine.apply(seq, at, command, events);
            ends.push(u32::try_from(events.len()).expect("a block has far fewer than 2^32 events"));
        }
    }

    /// How many commands the block holds, for who need not look at it.
    #[must_use]
    pub fn commands(&self) -> usize {
        self.ends.len()
    }

    /// All events, in order.
    #[must_use]
    pub fn events(&self) -> &[M::Event] {
        &self.events
    }

    /// Where the events of each command end among [all of them](Output::events), in order.
    pub fn ends(&self) -> impl ExactSizeIterator<Item = usize> {
        self.ends.iter().map(|end| *end as usize)
    }

    /// The events of the block's command at `place`, counted from 0; none for a place behind the last.
    #[must_use]
    pub fn events_of(&self, place: usize) -> &[M::Event] {
        let Some(end) = self.ends.get(place) else { return &[] };
        let start = place.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.events[start as usize..*end as usize]
    }

    /// Each command of the block with its number and its events, in order; also those that brought nothing about.
    pub fn by_command(&self) -> impl ExactSizeIterator<Item = (Seq, &M::Command, &[M::Event])> {
        let commands = self.block.commands().enumerate();
        commands.map(|(place, (seq, command))| (seq, command, self.events_of(place)))
    }

    /// All events, in order, each with the number of the command that caused it.
    pub fn numbered(&self) -> impl Iterator<Item = (Seq, &M::Event)> {
        self.by_command().flat_map(|(seq, _, events)| events.iter().map(move |event| (seq, event)))
    }
}

/// Which block: where the log stands behind it, as far as stages tell each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) index: u64,
    pub(crate) seq: Seq,
    pub(crate) term: u64,
}

impl Place {
    pub(crate) fn of<C>(block: &CommittedBlock<C>) -> Self {
        Self { index: block.index(), seq: block.last_seq(), term: block.block().header().term }
    }
}
