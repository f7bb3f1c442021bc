//! The stages of the order path. Each does its work in a `step` that never waits; threads, tests and the simulator drive them.
//!
//! ```text
//! submitters ─► inbound ring ─► sequencer ─► consensus core ─► journal ring ─► journal ─► persisted ─► consensus core
//!                    ▲                            │
//!                  timer ─► tick ─────────────────┴─► committed ring ─► matcher ─► outbound ring ─► consumers
//! ```
//! A block enters the core when it is sealed and comes out to the matcher when it is committed. The matcher's cursor is what
//! holds the sequencer back, so the number of blocks between the two is bounded.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crossbeam::utils::CachePadded;
use disruptor::{EventPoller, Polling, SingleProducerBarrier};
use grid_engine::{Nanos, Seq};

use crate::block::{Block, BlockKind, CommandBytes, CommittedBlock, Position};
use crate::clock::{Clock, Stamper};
use crate::consensus::Persist;
use crate::door::Door;
use crate::doorbell::Doorbell;
use crate::driver::Drive;
use crate::fault;
use crate::inbound::{Inbound, Submitter};
use crate::journal::{Durability, Journal, JournalError};
use crate::layout::{Stage, Step};
use crate::leadership::Board;
use crate::machine::Machine;
use crate::outbound::{Outbound, Output};
use crate::room::RoomCall;
use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering, PoisonError};

/// When a block closes, if the input does not run empty first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockLimits {
    /// Most commands.
    pub commands: usize,
    /// Most payload bytes, unless a single command is larger.
    pub bytes: usize,
    /// Longest time a block stays open.
    pub open: Nanos,
}

impl Default for BlockLimits {
    /// 64 commands, 8 KiB, 20 µs (design §5).
    fn default() -> Self {
        Self { commands: 64, bytes: 8 << 10, open: Nanos(20_000) }
    }
}

/// Most hand-overs, of some blocks each, that the journal writes with one sync.
const GROUP: u64 = 256;
/// Most blocks that the sequencer closes before other stages of its thread get a turn.
const SEAL_BLOCKS: usize = 16;
/// Most blocks that the matcher applies before other stages of its thread get a turn.
const MATCH_BLOCKS: u64 = 64;
/// A tick that the ring refused, or that brought the deadline no further, is repeated after this long.
const TICK_AGAIN: Duration = Duration::from_millis(20);
/// How often the clock is compared with the wall.
const WALL_EVERY: Duration = Duration::from_secs(1);
/// How often the matcher complains about a consumer that does not keep up.
const COMPLAIN_EVERY: Duration = Duration::from_secs(5);

pub(crate) type JournalPoller = EventPoller<Option<Persist>, SingleProducerBarrier>;
pub(crate) type CommittedPoller<C> = EventPoller<Option<Committed<C>>, SingleProducerBarrier>;

/// A committed block on its way to the matcher.
pub(crate) enum Committed<C> {
    /// Proposed here, with the commands as the producers handed them in.
    Own(Arc<CommittedBlock<C>>),
    /// Proposed by another leader, or before a restart: its commands are yet to be decoded.
    Bytes(Arc<Block>),
}

impl<C> Clone for Committed<C> {
    fn clone(&self) -> Self {
        match self {
            Self::Own(block) => Self::Own(Arc::clone(block)),
            Self::Bytes(block) => Self::Bytes(Arc::clone(block)),
        }
    }
}

impl<C> Committed<C> {
    pub(crate) fn index(&self) -> u64 {
        match self {
            Self::Own(block) => block.index(),
            Self::Bytes(block) => block.header().index,
        }
    }
}

/// The commands of a block that another node sealed.
///
/// # Panics
/// On bytes that this program cannot read: going on without them would part this node from the others.
fn decode<M: Machine>(block: Arc<Block>) -> Arc<CommittedBlock<M::Command>> {
    let index = block.header().index;
    let commands = if block.header().kind == BlockKind::Entry {
        CommandBytes::new(block.payload())
    } else {
        CommandBytes::new(&[])
    };
    let commands: Result<Vec<_>, _> = commands.map(M::decode).collect();
    let commands = commands.unwrap_or_else(|error| {
        panic!("a command of committed block {index} cannot be read: {error}. Start this node with the leader's program version or a newer one")
    });
    assert_eq!(
        commands.len(),
        block.header().commands as usize,
        "block {index} holds as many commands as it says"
    );
    Arc::new(CommittedBlock::new(block, commands))
}

/// Cursors that the stages publish, each written by one stage, and the bells to ring after.
#[derive(Debug)]
pub(crate) struct Cursors {
    /// Index of the last block that this node proposed; written under the core's lock.
    pub(crate) sequenced: CachePadded<AtomicU64>,
    /// Nothing will be sequenced any more.
    pub(crate) sequencer_done: AtomicBool,
    /// The matcher has ended; nothing needs to be committed any more.
    pub(crate) matcher_done: AtomicBool,
    /// Index of the last block handed to the matcher; written under the core's lock.
    pub(crate) committed: CachePadded<AtomicU64>,
    /// Syncs of the journal so far, each for a group of blocks.
    pub(crate) groups: AtomicU64,
    /// Index of the last block applied and published; written by the matcher.
    pub(crate) applied: CachePadded<AtomicU64>,
    /// Number of the last command applied.
    pub(crate) applied_seq: AtomicU64,
    /// When the machine next wants a tick; `u64::MAX` for never.
    pub(crate) deadline: AtomicU64,
    /// Segments wholly below this index are no longer needed; read by the journal.
    pub(crate) release: AtomicU64,
    /// The sequencer waits for the matcher.
    pub(crate) sequencer_blocked: RoomCall,
    /// The core's driver waits for room in the committed ring.
    pub(crate) core_blocked: RoomCall,
    /// Who leads.
    pub(crate) board: Arc<Board>,
    /// A shutdown ran out of patience with a consumer.
    pub(crate) abandon: AtomicBool,
    pub(crate) bell_sequencer: Arc<Doorbell>,
    pub(crate) bell_journal: Arc<Doorbell>,
    pub(crate) bell_matcher: Arc<Doorbell>,
    pub(crate) bell_timer: Arc<Doorbell>,
}

pub(crate) struct SequencerStage<M: Machine> {
    pub(crate) inbound: Inbound<M::Command>,
    pub(crate) door: Arc<Door>,
    pub(crate) core: Arc<dyn Drive<M::Command>>,
    /// Most blocks between this stage and the matcher.
    pub(crate) log_slots: u64,
    pub(crate) clock: Clock,
    pub(crate) stamper: Stamper,
    pub(crate) limits: BlockLimits,
    pub(crate) pending: Pending<M::Command>,
    /// The core leads and takes no block just now: it is handing its leadership over, and may yet keep it.
    pub(crate) held: bool,
    pub(crate) cursors: Arc<Cursors>,
}

/// Commands taken from the ring and not yet in a block: at most one ring full and one block.
pub(crate) struct Pending<C> {
    /// With the length of its log form and its epoch.
    commands: VecDeque<(C, usize, u64)>,
    bytes: Vec<u8>,
    /// Bytes at the front that already are in a block.
    used: usize,
    opened: Nanos,
}

impl<C> Pending<C> {
    pub(crate) fn new() -> Self {
        Self { commands: VecDeque::new(), bytes: Vec::new(), used: 0, opened: Nanos::ZERO }
    }

    fn push(&mut self, command: C, framed: &[u8], epoch: u64) {
        self.bytes.extend_from_slice(framed);
        self.commands.push_back((command, framed.len(), epoch));
    }

    /// Forgets the commands in front that are of epochs before this term: others before them may be lost with those.
    fn expire(&mut self, term: u64) {
        let mut dropped = 0;
        while let Some((_, len, _)) = self.commands.pop_front_if(|(_, _, epoch)| *epoch < term) {
            self.used += len;
            dropped += 1;
        }
        if dropped > 0 {
            tracing::debug!(
                dropped,
                term,
                "commands of an earlier epoch; nobody was told anything about them"
            );
        }
    }

    fn fills(&self, limits: &BlockLimits) -> bool {
        self.commands.len() >= limits.commands || self.bytes.len() - self.used >= limits.bytes
    }

    /// The commands of the next block, and its payload, after [`Pending::expire`] for its term.
    fn cut(&mut self, limits: &BlockLimits, term: u64) -> (Vec<C>, &[u8]) {
        let mut bytes = 0;
        let fits = |(nth, (_, len, epoch)): &(usize, &(C, usize, u64))| {
            bytes += len;
            *nth == 0 || (*nth < limits.commands && bytes <= limits.bytes && *epoch >= term)
        };
        let count = self.commands.iter().enumerate().take_while(fits).count();
        let mut payload = 0;
        let commands = self.commands.drain(..count).map(|(command, len, _)| {
            payload += len;
            command
        });
        let commands = commands.collect();
        let start = self.used;
        self.used += payload;
        (commands, &self.bytes[start..self.used])
    }

    /// Forgets everything; returns how many commands that were.
    fn clear(&mut self) -> usize {
        let dropped = self.commands.len();
        self.commands.clear();
        self.tidy();
        dropped
    }

    /// Forgets bytes that are in blocks, once all are.
    fn tidy(&mut self) {
        if self.commands.is_empty() {
            self.bytes.clear();
            self.used = 0;
        }
    }
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
        if self.pending.commands.is_empty() {
            self.pending.tidy();
            self.pending.opened = self.clock.now();
        }
        self.inbound.drain(|command, framed, epoch| self.pending.push(command, framed, epoch)) > 0
    }

    /// Keeps the block open for what is just arriving, until the input is empty, the block full, or its time over.
    fn fill(&mut self) {
        let closes = self.pending.opened.after(self.limits.open);
        while !self.pending.fills(&self.limits) && self.inbound.has_some() && self.clock.now() < closes {
            self.drain();
        }
    }

    /// Proposes blocks of what is pending, as far as there is room and the core takes some; false if this node does not lead.
    fn propose(&mut self) -> bool {
        let core = Arc::clone(&self.core);
        let mut blocks = 0;
        core.propose(&mut |before, term| {
            self.pending.expire(term);
            // Before anything of its own, a leader's log holds the empty block of its term.
            let last = before.index;
            let room = last.saturating_sub(self.cursors.applied.load(Ordering::Acquire)) < self.log_slots;
            if self.pending.commands.is_empty() || blocks == SEAL_BLOCKS || !room {
                return None;
            }
            blocks += 1;
            let at = self.stamper.stamp_after(before.at);
            let (commands, payload) = self.pending.cut(&self.limits, term);
            let block = Block::entry(before, term, at, commands.len() as u32, payload);
            Some((Arc::new(block), commands))
        })
    }
}

impl<M: Machine> Stage for SequencerStage<M> {
    fn step(&mut self) -> Step {
        let shut = self.door.is_shut();
        let mut worked = false;
        self.held = false;
        if !self.pending.fills(&self.limits) {
            worked = self.drain();
        }
        if !self.pending.commands.is_empty() && self.has_room_or_call() {
            self.fill();
            let before = self.pending.commands.len();
            if self.propose() {
                self.held = self.pending.commands.len() == before;
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
        if shut && self.pending.commands.is_empty() && !self.inbound.has_some() {
            self.cursors.sequencer_done.store(true, Ordering::Release);
            self.cursors.bell_journal.ring();
            self.cursors.bell_matcher.ring();
            return Step::Done;
        }
        if worked { Step::Worked } else { Step::Idle }
    }

    fn has_work(&self) -> bool {
        if !self.pending.commands.is_empty() {
            return !self.held && self.has_room_or_call();
        }
        self.inbound.has_some() || self.door.is_shut()
    }

    fn patience(&self) -> Option<Duration> {
        // A core that keeps its leadership after all does not ring.
        self.held.then_some(Duration::from_millis(1))
    }
}

pub(crate) struct JournalStage<C> {
    pub(crate) input: JournalPoller,
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
        match self.input.take(GROUP) {
            Ok(mut ready) => {
                self.group.extend((&mut ready).map(|slot| slot.as_ref().expect("published").clone()))
            }
            Err(Polling::NoEvents | Polling::Shutdown) if done => {
                self.journal.commit(self.cursors.committed.load(Ordering::Acquire));
                if let Err(error) = self.journal.close() {
                    fault::abort(&error.to_string());
                }
                self.core.close();
                return Step::Done;
            }
            Err(Polling::NoEvents | Polling::Shutdown) => {}
        }
        let worked = !self.group.is_empty();
        if let Err(error) = self.write().and_then(|()| self.release()) {
            fault::abort(&error.to_string());
        }
        if worked { Step::Worked } else { Step::Idle }
    }

    fn has_work(&self) -> bool {
        self.input.has_available()
            || self.cursors.matcher_done.load(Ordering::Acquire)
            || self.cursors.release.load(Ordering::Acquire) > self.released
    }
}

pub(crate) struct MatcherStage<M: Machine> {
    pub(crate) input: CommittedPoller<M::Command>,
    pub(crate) core: Arc<dyn Drive<M::Command>>,
    pub(crate) machine: Option<M>,
    pub(crate) outbound: Outbound<M>,
    pub(crate) refused: Option<Arc<Output<M>>>,
    pub(crate) blocked_since: Option<Instant>,
    pub(crate) position: Position,
    pub(crate) events: Vec<M::Event>,
    pub(crate) ended: Arc<Mutex<Option<(M, Position)>>>,
    pub(crate) cursors: Arc<Cursors>,
}

impl<M: Machine> MatcherStage<M> {
    fn apply(&mut self, committed: Committed<M::Command>) -> Arc<Output<M>> {
        let machine = self.machine.as_mut().expect("present until the end");
        let block = match committed {
            Committed::Own(block) => block,
            Committed::Bytes(block) => decode::<M>(block),
        };
        let refused = self.position.refuses(block.block().header());
        assert!(refused.is_none(), "committed blocks are applied in log order: {refused:?}");
        let mut events = Vec::new();
        for (seq, command) in block.commands() {
            machine.apply(seq, block.at(), command, &mut self.events);
            events.extend(self.events.drain(..).map(|event| (seq, event)));
        }
        self.position = block.position();
        Arc::new(Output { block, events })
    }

    /// Publishes or keeps it as refused; the block counts as applied once its output is out.
    fn publish(&mut self, output: Arc<Output<M>>) -> bool {
        let (index, seq) = (output.block.index(), output.block.last_seq());
        if let Err(refused) = self.outbound.try_publish(output) {
            if !self.cursors.abandon.load(Ordering::Acquire) {
                self.refused = Some(refused);
                self.complain();
                return false;
            }
            let consumers = self.outbound.names();
            tracing::error!(index, consumers, "a consumer does not read; the shutdown goes on without it");
        }
        self.blocked_since = None;
        self.cursors.applied_seq.store(seq.0, Ordering::Release);
        self.cursors.applied.store(index, Ordering::Release);
        self.cursors.board.post_applied(self.position.term);
        if self.cursors.sequencer_blocked.take() {
            self.cursors.bell_sequencer.ring();
        }
        true
    }

    fn complain(&mut self) {
        let now = Instant::now();
        let since = *self.blocked_since.get_or_insert(now);
        if now - since >= COMPLAIN_EVERY {
            self.blocked_since = Some(now);
            let consumers = self.outbound.names();
            tracing::error!(consumers, "a consumer is a whole ring behind and the venue waits for it");
        }
    }

    fn publish_deadline(&self) {
        let machine = self.machine.as_ref().expect("present until the end");
        let deadline = machine.next_deadline().map_or(u64::MAX, |at| at.0);
        if self.cursors.deadline.swap(deadline, Ordering::AcqRel) != deadline {
            self.cursors.bell_timer.ring();
        }
    }

    /// True once nothing that must be waited for is on its way: what a leader took in is applied; of a follower nobody waits.
    fn may_end(&self) -> bool {
        let cursors = &self.cursors;
        cursors.sequencer_done.load(Ordering::Acquire)
            && (cursors.abandon.load(Ordering::Acquire)
                || !cursors.board.leads()
                || cursors.sequenced.load(Ordering::Acquire) <= self.position.index)
    }

    fn end(&mut self) -> Step {
        self.outbound.close();
        let machine = self.machine.take().expect("a stage ends once");
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some((machine, self.position));
        self.cursors.matcher_done.store(true, Ordering::Release);
        self.cursors.bell_journal.ring();
        Step::Done
    }
}

impl<M: Machine> Stage for MatcherStage<M> {
    fn step(&mut self) -> Step {
        if let Some(output) = self.refused.take() {
            if !self.publish(output) {
                return Step::Idle;
            }
            self.outbound.wake();
        }
        let may_end = self.may_end();
        let mut worked = false;
        for _ in 0..MATCH_BLOCKS {
            // One by one, so that a full outbound ring stops it after any block. One producer: `take` scans nothing.
            let committed = match self.input.take(1) {
                Ok(mut one) => (&mut one).next().and_then(|slot| slot.clone()),
                Err(Polling::NoEvents | Polling::Shutdown) => None,
            };
            let Some(committed) = committed else { break };
            worked = true;
            let output = self.apply(committed);
            if !self.publish(output) {
                break;
            }
        }
        if self.cursors.core_blocked.take() {
            self.core.resume();
        }
        if !worked {
            return if may_end { self.end() } else { Step::Idle };
        }
        self.publish_deadline();
        self.outbound.wake();
        Step::Worked
    }

    fn has_work(&self) -> bool {
        if self.refused.is_some() {
            return !self.outbound.is_blocked() || self.cursors.abandon.load(Ordering::Acquire);
        }
        self.input.has_available() || self.may_end()
    }

    fn patience(&self) -> Option<Duration> {
        // Losing the leadership ends the wait of a shutdown without a ring.
        let ends = self.cursors.sequencer_done.load(Ordering::Acquire).then_some(Duration::from_millis(1));
        ends.or(self.refused.is_some().then_some(COMPLAIN_EVERY))
    }
}

/// The last tick, to know when another is called for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SubmittedTick {
    /// The deadline that it was for.
    deadline: u64,
    when: Nanos,
    /// The last command applied at that time; until that changes, the tick may still be under way.
    applied: u64,
    /// The ring did not take it.
    refused: bool,
}

/// Two clocks in one stage: the core's logical time, and a tick command when the machine's deadline has come, and only then,
/// so that an idle venue writes nothing.
pub(crate) struct TimerStage<M: Machine> {
    pub(crate) submitter: Submitter<M>,
    pub(crate) core: Arc<dyn Drive<M::Command>>,
    pub(crate) door: Arc<Door>,
    pub(crate) clock: Clock,
    pub(crate) cursors: Arc<Cursors>,
    pub(crate) submitted: Option<SubmittedTick>,
    /// How long one step of the core's time is.
    pub(crate) core_tick: Duration,
    pub(crate) core_ticked: Nanos,
    pub(crate) wall_seen: Nanos,
}

impl<M: Machine> TimerStage<M> {
    /// How long until a tick is to be submitted, `ZERO` for now.
    fn due_in(&self) -> Option<Duration> {
        let deadline = self.cursors.deadline.load(Ordering::Acquire);
        // Followers hear of time from the leader.
        if deadline == u64::MAX || self.cursors.board.epoch().is_none() {
            return None;
        }
        match self.submitted {
            Some(tick) if tick.deadline == deadline => {
                // Never two under way: a venue that waits for a consumer must not fill up with ticks.
                let under_way =
                    !tick.refused && tick.applied == self.cursors.applied_seq.load(Ordering::Acquire);
                let rest = TICK_AGAIN.saturating_sub(since(self.clock.monotonic(), tick.when));
                Some(if under_way { TICK_AGAIN.min(rest + TICK_AGAIN) } else { rest })
            }
            _ => Some(Duration::from_nanos(deadline.saturating_sub(self.clock.now().0))),
        }
    }

    fn core_due_in(&self) -> Duration {
        self.core_tick.saturating_sub(since(self.clock.monotonic(), self.core_ticked))
    }
}

fn since(now: Nanos, then: Nanos) -> Duration {
    Duration::from_nanos(now.0.saturating_sub(then.0))
}

impl<M: Machine> Stage for TimerStage<M> {
    fn step(&mut self) -> Step {
        if self.door.is_closed() && self.cursors.matcher_done.load(Ordering::Acquire) {
            return Step::Done;
        }
        let now = self.clock.monotonic();
        if since(now, self.wall_seen) >= WALL_EVERY {
            self.wall_seen = now;
            self.clock.follow_wall();
        }
        let mut worked = false;
        if self.core_due_in().is_zero() {
            // One at a time: a node that was asleep for long must not rush through a whole election timeout.
            self.core_ticked = now;
            self.core.tick();
            worked = true;
        }
        if self.door.is_closed() || self.due_in() != Some(Duration::ZERO) {
            return if worked { Step::Worked } else { Step::Idle };
        }
        let deadline = self.cursors.deadline.load(Ordering::Acquire);
        let applied = self.cursors.applied_seq.load(Ordering::Acquire);
        let refused = self.submitter.try_submit(M::tick()).is_err();
        self.submitted = Some(SubmittedTick { deadline, when: now, applied, refused });
        Step::Worked
    }

    fn has_work(&self) -> bool {
        let closed = self.door.is_closed();
        (closed && self.cursors.matcher_done.load(Ordering::Acquire))
            || self.core_due_in().is_zero()
            || (!closed && self.due_in() == Some(Duration::ZERO))
    }

    fn patience(&self) -> Option<Duration> {
        let most = if self.clock.is_manual() || self.door.is_closed() {
            Duration::from_millis(1)
        } else {
            WALL_EVERY
        };
        let most = most.min(self.core_due_in());
        Some(self.due_in().map_or(most, |due| due.min(most)))
    }
}

/// Where the stages are, for metrics and for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Index of the last block that this node proposed.
    pub sequenced_index: u64,
    /// Index of the last block that is committed.
    pub committed_index: u64,
    /// Index of the last block whose events are out.
    pub applied_index: u64,
    /// Number of the last command whose events are out.
    pub applied_seq: Seq,
    /// Syncs of the journal since the start, each for a group of blocks.
    pub groups: u64,
}

impl Cursors {
    pub(crate) fn status(&self) -> Status {
        Status {
            applied_seq: Seq(self.applied_seq.load(Ordering::Acquire)),
            applied_index: self.applied.load(Ordering::Acquire),
            committed_index: self.committed.load(Ordering::Acquire),
            sequenced_index: self.sequenced.load(Ordering::Acquire),
            groups: self.groups.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_holds_commands_of_its_own_term_only() {
        let mut pending = Pending::new();
        // A producer that was interrupted in the middle comes late with an old epoch.
        for (command, epoch) in [('a', 5), ('b', 5), ('c', 7), ('d', 7), ('e', 5), ('f', 7)] {
            pending.push(command, command.to_string().as_bytes(), epoch);
        }
        let mut blocks = Vec::new();
        while !pending.commands.is_empty() {
            pending.expire(7);
            let (commands, payload) = pending.cut(&BlockLimits::default(), 7);
            blocks.push((commands, payload.to_vec()));
        }
        assert_eq!(blocks, [(vec!['c', 'd'], b"cd".to_vec()), (vec!['f'], b"f".to_vec())]);
    }
}
