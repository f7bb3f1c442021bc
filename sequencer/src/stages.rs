//! The stages of the order path. Each does its work in a `step` that never waits; threads, tests and the simulator drive them.
//!
//! ```text
//! submitters ─► inbound ring ─► sequencer ─► log ring ─┬─► journal ─► persisted ─► consensus ─► commit gate
//!                    ▲                                  └───────────── matcher, behind the gate ─► outbound ring ─► consumers
//!                  timer
//! ```
//! The log ring's slots are blocks. The matcher is its last consumer, so its cursor is what holds the sequencer back.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::utils::CachePadded;
use disruptor::{
    EventPoller, MultiConsumerBarrier, Polling, Producer, SingleProducer, SingleProducerBarrier,
};
use grid_engine::{Nanos, Seq};

use crate::block::{Block, BlockHeader, BlockKind, CommittedBlock, Position};
use crate::clock::{Clock, Stamper};
use crate::consensus::Consensus;
use crate::doorbell::Doorbell;
use crate::fault;
use crate::inbound::{Door, Inbound, Submitter};
use crate::journal::Journal;
use crate::layout::{Stage, Step};
use crate::machine::Machine;
use crate::outbound::{Outbound, Output};

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

/// Most blocks that the journal writes with one sync.
const GROUP_BLOCKS: u64 = 1024;
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

pub(crate) type LogSlot<C> = Option<Arc<CommittedBlock<C>>>;
pub(crate) type LogPoller<C> = EventPoller<LogSlot<C>, SingleProducerBarrier>;
pub(crate) type LogRing<C> = SingleProducer<LogSlot<C>, MultiConsumerBarrier>;
pub(crate) type SharedConsensus = Arc<Mutex<Box<dyn Consensus>>>;

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Cursors that the stages publish, each written by one stage, and the bells to ring after.
#[derive(Debug)]
pub(crate) struct Cursors {
    /// Index of the last block in the log ring; written by the sequencer.
    pub(crate) sequenced: CachePadded<AtomicU64>,
    /// Nothing will be sequenced any more.
    pub(crate) sequencer_done: AtomicBool,
    /// The commit gate: the matcher applies nothing above it. Written by the journal.
    pub(crate) committed: CachePadded<AtomicU64>,
    /// Syncs of the journal so far, each for a group of blocks.
    pub(crate) groups: AtomicU64,
    /// Index of the last block applied and published; written by the matcher.
    pub(crate) applied: CachePadded<AtomicU64>,
    /// Number of the last command applied.
    pub(crate) applied_seq: AtomicU64,
    /// When the machine next wants a tick; `u64::MAX` for never.
    pub(crate) deadline: AtomicU64,
    /// The sequencer waits for room in the log ring.
    pub(crate) sequencer_blocked: AtomicBool,
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
    pub(crate) log: LogRing<M::Command>,
    pub(crate) log_slots: u64,
    pub(crate) consensus: SharedConsensus,
    pub(crate) clock: Clock,
    pub(crate) stamper: Stamper,
    pub(crate) limits: BlockLimits,
    pub(crate) position: Position,
    pub(crate) pending: Pending<M::Command>,
    pub(crate) cursors: Arc<Cursors>,
}

/// Commands taken from the ring and not yet in a block: at most one ring full and one block.
pub(crate) struct Pending<C> {
    commands: VecDeque<(C, usize)>,
    bytes: Vec<u8>,
    /// Bytes at the front that already are in a block.
    used: usize,
    opened: Nanos,
}

impl<C> Pending<C> {
    pub(crate) fn new() -> Self {
        Self { commands: VecDeque::new(), bytes: Vec::new(), used: 0, opened: Nanos::ZERO }
    }

    fn push(&mut self, command: C, framed: &[u8]) {
        self.bytes.extend_from_slice(framed);
        self.commands.push_back((command, framed.len()));
    }

    fn fills(&self, limits: &BlockLimits) -> bool {
        self.commands.len() >= limits.commands || self.bytes.len() - self.used >= limits.bytes
    }

    /// The commands of the next block, and its payload.
    fn cut(&mut self, limits: &BlockLimits) -> (Vec<C>, &[u8]) {
        let mut bytes = 0;
        let fits = |(nth, (_, len)): &(usize, &(C, usize))| {
            bytes += len;
            *nth == 0 || (*nth < limits.commands && bytes <= limits.bytes)
        };
        let count = self.commands.iter().enumerate().take_while(fits).count();
        let mut payload = 0;
        let commands = self.commands.drain(..count).map(|(command, len)| {
            payload += len;
            command
        });
        let commands = commands.collect();
        let start = self.used;
        self.used += payload;
        (commands, &self.bytes[start..self.used])
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
        let applied = self.cursors.applied.load(Ordering::Acquire);
        self.position.index - applied < self.log_slots
    }

    /// Like `has_room`, but a `false` comes with the promise of a ring when that changes.
    fn has_room_or_call(&self) -> bool {
        if self.has_room() {
            return true;
        }
        self.cursors.sequencer_blocked.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.has_room()
    }

    fn drain(&mut self) -> bool {
        if self.pending.commands.is_empty() {
            self.pending.tidy();
            self.pending.opened = self.clock.now();
        }
        self.inbound.drain(|command, framed| self.pending.push(command, framed)) > 0
    }

    /// Keeps the block open for what is just arriving, until the input is empty, the block full, or its time over.
    fn fill(&mut self) {
        let closes = self.pending.opened.after(self.limits.open);
        while !self.pending.fills(&self.limits) && self.inbound.has_some() && self.clock.now() < closes {
            self.drain();
        }
    }

    fn seal(&mut self) {
        let at = self.stamper.stamp();
        let (commands, payload) = self.pending.cut(&self.limits);
        let (placement, committed) = {
            let mut consensus = held(&self.consensus);
            (consensus.propose(payload), consensus.committed())
        };
        assert_eq!(placement.index, self.position.index + 1, "consensus numbers blocks without a gap");
        let header = BlockHeader {
            payload_len: 0,
            crc: 0,
            index: placement.index,
            term: placement.term,
            first_seq: self.position.seq.next(),
            commands: commands.len() as u32,
            kind: BlockKind::Entry,
            flags: 0,
            chain: self.position.chain,
            at,
            lag: u32::try_from(self.position.index - committed).unwrap_or(u32::MAX),
        };
        let block = Arc::new(CommittedBlock::new(Block::seal(header, payload), commands));
        self.position = block.position();
        let published = self.log.try_publish(|slot| *slot = Some(block));
        assert!(published.is_ok(), "the log ring has room for what the matcher's cursor allows");
        self.cursors.sequenced.store(self.position.index, Ordering::Release);
        self.cursors.bell_journal.ring();
    }
}

impl<M: Machine> Stage for SequencerStage<M> {
    fn step(&mut self) -> Step {
        let shut = self.door.is_shut();
        let mut worked = false;
        if !self.pending.fills(&self.limits) {
            worked = self.drain();
        }
        for _ in 0..SEAL_BLOCKS {
            if self.pending.commands.is_empty() || !self.has_room_or_call() {
                break;
            }
            self.fill();
            self.seal();
            worked = true;
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
            return self.has_room_or_call();
        }
        self.inbound.has_some() || self.door.is_shut()
    }

    fn patience(&self) -> Option<Duration> {
        // A producer that leaves the door after it closed does not ring.
        self.door.is_closed().then_some(Duration::from_millis(1))
    }
}

pub(crate) struct JournalStage<C> {
    pub(crate) log: LogPoller<C>,
    pub(crate) journal: Journal,
    pub(crate) consensus: SharedConsensus,
    pub(crate) group: Vec<Arc<CommittedBlock<C>>>,
    pub(crate) cursors: Arc<Cursors>,
}

impl<C: Send + Sync + 'static> Stage for JournalStage<C> {
    fn step(&mut self) -> Step {
        // Before the poll: what was sequenced before this was true is seen by the poll.
        let done = self.cursors.sequencer_done.load(Ordering::Acquire);
        match self.log.take(GROUP_BLOCKS) {
            Ok(mut ready) => {
                self.group.extend((&mut ready).map(|slot| Arc::clone(slot.as_ref().expect("published"))))
            }
            Err(Polling::NoEvents | Polling::Shutdown) => return if done { Step::Done } else { Step::Idle },
        }
        if let Err(error) = self.journal.append(self.group.iter().map(|block| block.block())) {
            fault::abort(&error.to_string());
        }
        let last = self.group.last().expect("a poll brings at least one").index();
        self.group.clear();
        let committed = {
            let mut consensus = held(&self.consensus);
            consensus.persisted(last);
            consensus.committed()
        };
        self.cursors.groups.fetch_add(1, Ordering::Relaxed);
        self.cursors.committed.store(committed, Ordering::Release);
        self.cursors.bell_matcher.ring();
        Step::Worked
    }

    fn has_work(&self) -> bool {
        self.log.has_available() || self.cursors.sequencer_done.load(Ordering::Acquire)
    }
}

pub(crate) struct MatcherStage<M: Machine> {
    pub(crate) log: LogPoller<M::Command>,
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
    fn gate(&self) -> u64 {
        self.cursors.committed.load(Ordering::Acquire) - self.position.index
    }

    fn apply(&mut self, block: Arc<CommittedBlock<M::Command>>) -> Arc<Output<M>> {
        let machine = self.machine.as_mut().expect("present until the end");
        assert_eq!(block.index(), self.position.index + 1, "blocks are applied in log order");
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
        fence(Ordering::SeqCst);
        if self.cursors.sequencer_blocked.load(Ordering::Relaxed)
            && self.cursors.sequencer_blocked.swap(false, Ordering::AcqRel)
        {
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

    fn end(&mut self) -> Step {
        self.outbound.close();
        let machine = self.machine.take().expect("a stage ends once");
        *held(&self.ended) = Some((machine, self.position));
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
        let done = self.cursors.sequencer_done.load(Ordering::Acquire);
        let ready = self.gate().min(MATCH_BLOCKS);
        if ready == 0 {
            let all = self.cursors.sequenced.load(Ordering::Acquire) == self.position.index;
            return if done && all { self.end() } else { Step::Idle };
        }
        for _ in 0..ready {
            // One by one, so that a full outbound ring stops it after any block. One producer: `take` scans nothing.
            let block = match self.log.take(1) {
                Ok(mut one) => (&mut one).next().and_then(Option::clone).expect("a published slot is filled"),
                Err(Polling::NoEvents | Polling::Shutdown) => {
                    unreachable!("a committed block is in the log ring")
                }
            };
            let output = self.apply(block);
            if !self.publish(output) {
                break;
            }
        }
        self.publish_deadline();
        self.outbound.wake();
        Step::Worked
    }

    fn has_work(&self) -> bool {
        if self.refused.is_some() {
            return !self.outbound.is_blocked() || self.cursors.abandon.load(Ordering::Acquire);
        }
        self.gate() > 0 || self.cursors.sequencer_done.load(Ordering::Acquire)
    }

    fn patience(&self) -> Option<Duration> {
        self.refused.is_some().then_some(COMPLAIN_EVERY)
    }
}

/// The last tick, to know when another is called for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SubmittedTick {
    /// The deadline that it was for.
    deadline: u64,
    when: Instant,
    /// The last command applied at that time; until that changes, the tick may still be under way.
    applied: u64,
    /// The ring did not take it.
    refused: bool,
}

/// Submits a tick when the machine's deadline has come, and only then: an idle venue writes nothing.
pub(crate) struct TimerStage<M: Machine> {
    pub(crate) submitter: Submitter<M>,
    pub(crate) door: Arc<Door>,
    pub(crate) clock: Clock,
    pub(crate) cursors: Arc<Cursors>,
    pub(crate) submitted: Option<SubmittedTick>,
    pub(crate) wall_seen: Instant,
}

impl<M: Machine> TimerStage<M> {
    /// How long until there is something to do, `ZERO` for now.
    fn due_in(&self) -> Option<Duration> {
        let deadline = self.cursors.deadline.load(Ordering::Acquire);
        if deadline == u64::MAX {
            return None;
        }
        match self.submitted {
            Some(tick) if tick.deadline == deadline => {
                // Never two under way: a venue that waits for a consumer must not fill up with ticks.
                let under_way =
                    !tick.refused && tick.applied == self.cursors.applied_seq.load(Ordering::Acquire);
                let rest = TICK_AGAIN.saturating_sub(tick.when.elapsed());
                Some(if under_way { TICK_AGAIN } else { rest })
            }
            _ => Some(Duration::from_nanos(deadline.saturating_sub(self.clock.now().0))),
        }
    }
}

impl<M: Machine> Stage for TimerStage<M> {
    fn step(&mut self) -> Step {
        if self.door.is_closed() {
            return Step::Done;
        }
        if self.wall_seen.elapsed() >= WALL_EVERY {
            self.wall_seen = Instant::now();
            self.clock.follow_wall();
        }
        if self.due_in() != Some(Duration::ZERO) {
            return Step::Idle;
        }
        let deadline = self.cursors.deadline.load(Ordering::Acquire);
        let applied = self.cursors.applied_seq.load(Ordering::Acquire);
        let refused = self.submitter.try_submit(M::tick()).is_err();
        self.submitted = Some(SubmittedTick { deadline, when: Instant::now(), applied, refused });
        Step::Worked
    }

    fn has_work(&self) -> bool {
        self.door.is_closed() || self.due_in() == Some(Duration::ZERO)
    }

    fn patience(&self) -> Option<Duration> {
        let most = if self.clock.is_manual() { Duration::from_millis(1) } else { WALL_EVERY };
        Some(self.due_in().map_or(most, |due| due.min(most)))
    }
}

/// Where the stages are, for metrics and for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Index of the last block that was closed.
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
