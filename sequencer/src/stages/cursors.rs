//! How far each stage is: what stages see of each other besides the rings, and what people see of them.

use crossbeam::utils::CachePadded;
use grid_engine::Seq;

use crate::doorbell::Doorbell;
use crate::leadership::Board;
use crate::room::RoomCall;
use crate::sync::{Arc, AtomicBool, AtomicU64, Ordering};

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
