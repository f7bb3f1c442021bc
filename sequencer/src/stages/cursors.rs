//! How far each stage is: what stages see of each other besides the lanes, and what people see of them.

use crossbeam::utils::CachePadded;
use grid_engine::{Nanos, Seq};

use crate::block::Position;
use crate::clocks::Clocks;
use crate::door::Door;
use crate::doorbell::Doorbell;
use crate::leadership::Board;
use crate::room::RoomCall;
use crate::stall::{Culprit, Sight};
use crate::sync::{Arc, AtomicBool, AtomicU64, Ordering};

/// Cursors that the stages publish, each written by one stage and on a cache line of its own, and the bells to ring after.
#[derive(Debug)]
pub(crate) struct Cursors {
    /// Commands that the sequencer has taken in since the start.
    pub(crate) taken: CachePadded<AtomicU64>,
    /// Index of the last block that this node proposed; written under the core's lock.
    pub(crate) sequenced: CachePadded<AtomicU64>,
    /// Nothing will be sequenced any more.
    pub(crate) sequencer_done: AtomicBool,
    /// The matcher has ended; nothing needs to be committed any more.
    pub(crate) matcher_done: AtomicBool,
    /// Ticket of what was last handed to the journal; written under the core's lock.
    pub(crate) handed: CachePadded<AtomicU64>,
    /// Ticket of what was last made durable; written by the journal.
    pub(crate) durable: CachePadded<AtomicU64>,
    /// Index of the last block handed to the matcher; written under the core's lock.
    pub(crate) committed: CachePadded<AtomicU64>,
    /// Syncs of the journal so far, each for a group of blocks.
    pub(crate) groups: CachePadded<AtomicU64>,
    /// Index of the last block applied and published; written by the matcher.
    pub(crate) applied: CachePadded<AtomicU64>,
    /// Number of the last command applied.
    pub(crate) applied_seq: CachePadded<AtomicU64>,
    /// The matcher waits for a consumer.
    pub(crate) consumer_behind: AtomicBool,
    /// When the machine next wants a tick; `u64::MAX` for never.
    pub(crate) deadline: CachePadded<AtomicU64>,
    /// Segments wholly below this index are no longer needed; read by the journal.
    pub(crate) release: CachePadded<AtomicU64>,
    /// The sequencer waits for the matcher.
    pub(crate) sequencer_blocked: RoomCall,
    /// The core's driver waits for room in the committed lane.
    pub(crate) core_blocked: RoomCall,
    /// Who leads.
    pub(crate) board: Arc<Board>,
    /// What was handed in by producers.
    pub(crate) door: Arc<Door>,
    /// Where the time goes.
    pub(crate) clocks: Arc<Clocks>,
    /// A shutdown ran out of patience with a consumer.
    pub(crate) abandon: AtomicBool,
    pub(crate) bell_sequencer: Arc<Doorbell>,
    pub(crate) bell_journal: Arc<Doorbell>,
    pub(crate) bell_matcher: Arc<Doorbell>,
    pub(crate) bell_timer: Arc<Doorbell>,
}

/// The bell of the thread that each stage is on.
pub(crate) struct StageBells {
    pub(crate) sequencer: Arc<Doorbell>,
    pub(crate) journal: Arc<Doorbell>,
    pub(crate) matcher: Arc<Doorbell>,
    pub(crate) timer: Arc<Doorbell>,
}

impl Cursors {
    /// Where everything stands when a machine goes on at `position`.
    pub(crate) fn at(
        position: &Position,
        deadline: Option<Nanos>,
        board: Arc<Board>,
        door: Arc<Door>,
        clocks: Arc<Clocks>,
        bells: StageBells,
    ) -> Self {
        let cursor = |value| CachePadded::new(AtomicU64::new(value));
        Self {
            taken: cursor(0),
            sequenced: cursor(0),
            sequencer_done: AtomicBool::new(false),
            matcher_done: AtomicBool::new(false),
            handed: cursor(0),
            durable: cursor(0),
            committed: cursor(position.index),
            groups: cursor(0),
            applied: cursor(position.index),
            applied_seq: cursor(position.seq.0),
            consumer_behind: AtomicBool::new(false),
            deadline: cursor(deadline.map_or(u64::MAX, |at| at.0)),
            release: cursor(0),
            sequencer_blocked: RoomCall::default(),
            core_blocked: RoomCall::default(),
            board,
            door,
            clocks,
            abandon: AtomicBool::new(false),
            bell_sequencer: bells.sequencer,
            bell_journal: bells.journal,
            bell_matcher: bells.matcher,
            bell_timer: bells.timer,
        }
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
    /// How a stage looks to whoever watches for stalls. A stage that waits for another has no work.
    pub(crate) fn sight(&self, culprit: Culprit) -> Sight {
        let read = |cursor: &AtomicU64| cursor.load(Ordering::Relaxed);
        // First how far a stage is, then what there is for it: work that came in between is work.
        let (cursor, has_work) = match culprit {
            Culprit::Sequencer => {
                let taken = read(&self.taken);
                (taken, self.door.handed_in() > taken)
            }
            Culprit::Journal => {
                let durable = read(&self.durable);
                (durable, read(&self.handed) > durable)
            }
            Culprit::Quorum => {
                let committed = read(&self.committed);
                let durable = read(&self.durable) == read(&self.handed);
                (committed, durable && self.board.leads() && read(&self.sequenced) > committed)
            }
            Culprit::Matcher | Culprit::Consumer => {
                let applied = read(&self.applied);
                let behind = self.consumer_behind.load(Ordering::Relaxed);
                (applied, behind == (culprit == Culprit::Consumer) && read(&self.committed) > applied)
            }
        };
        Sight { cursor, has_work }
    }
}
