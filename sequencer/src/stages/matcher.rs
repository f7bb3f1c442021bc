//! Applies committed blocks and publishes what they did: the one thread that changes the machine.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::block::{CommittedBlock, Position};
use crate::driver::Drive;
use crate::lane::LaneOut;
use crate::layout::{Stage, Step};
use crate::machine::{LookAhead, Machine};
use crate::outbound::Outbound;
use crate::output::{Output, Place};
use crate::stages::{Committed, Cursors, decode};
use crate::sync::{Arc, Mutex, Ordering, PoisonError, fence};

/// Most blocks that the matcher applies before other stages of its thread get a turn.
const MATCH_BLOCKS: u64 = 64;
/// After so many commands at the latest their outputs are published, so that consumers need not wait for a whole batch.
const PUBLISH_COMMANDS: usize = 32;
/// How often the matcher complains about a consumer that does not keep up.
const COMPLAIN_EVERY: Duration = Duration::from_secs(5);

pub(crate) struct MatcherStage<M: Machine> {
    pub(crate) input: LaneOut<Committed<M::Command>>,
    pub(crate) core: Arc<dyn Drive<M::Command>>,
    pub(crate) machine: Option<M>,
    pub(crate) outbound: Outbound<M>,
    /// Applied and not published yet; between two steps only what found no room.
    pub(crate) applied: VecDeque<Arc<Output<M>>>,
    pub(crate) blocked_since: Option<Instant>,
    pub(crate) position: Position,
    /// Taken from the lane; empty between two steps.
    pub(crate) batch: Vec<Arc<CommittedBlock<M::Command>>>,
    pub(crate) ended: Arc<Mutex<Option<(M, Position)>>>,
    pub(crate) cursors: Arc<Cursors>,
}

impl<M: Machine> MatcherStage<M> {
    /// Takes what is committed; `false` if nothing is.
    fn take(&mut self) -> bool {
        let Self { input, batch, outbound, .. } = self;
        let taken = input.take(MATCH_BLOCKS, |committed| {
            batch.push(match committed {
                Committed::Own(block) => block,
                Committed::Bytes(block) => decode::<M>(block, outbound.room_for_commands()),
            });
        });
        taken > 0
    }

    /// Applies the batch and publishes as it goes. Where consumers leave no room, the rest of the batch is applied all the same
    /// and waits, so what waits is bounded by a batch.
    fn apply(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        let machine = self.machine.as_ref().expect("present until the end");
        let mut ahead = LookAhead::over(batch.iter().flat_map(|block| block.plain_commands()), machine);
        let mut unpublished = 0;
        for block in &batch {
            let refused = self.position.refuses(block.block().header());
            assert!(refused.is_none(), "committed blocks are applied in log order: {refused:?}");
            let machine = self.machine.as_mut().expect("present until the end");
            let mut output = self.outbound.begin(Arc::clone(block));
            let told = Arc::get_mut(&mut output).expect("nobody else has it yet");
            told.apply(machine, &mut ahead);
            told.stamps = self.cursors.clocks.matched(block.index(), block.block().header().term);
            self.position = block.position();
            self.applied.push_back(output);
            unpublished += block.plain_commands().len();
            if unpublished >= PUBLISH_COMMANDS {
                unpublished = 0;
                self.publish();
            }
        }
        self.batch = batch;
        self.batch.clear();
        self.publish();
    }

    /// Publishes what waits, as far as there is room; a block counts as applied once its output is out.
    fn publish(&mut self) {
        let mut out = self.outbound.publish(&mut self.applied);
        if !self.applied.is_empty() {
            if self.cursors.abandon.load(Ordering::Acquire) {
                out = self.applied.back().map(|output| Place::of(&output.block));
                let consumers = self.outbound.names();
                tracing::error!(consumers, "a consumer does not read; the shutdown goes on without it");
                self.applied.clear();
            } else {
                self.complain();
            }
        }
        let behind = !self.applied.is_empty();
        if self.cursors.consumer_behind.load(Ordering::Relaxed) != behind {
            self.cursors.consumer_behind.store(behind, Ordering::Relaxed);
        }
        let Some(Place { index, seq, term }) = out else { return };
        if !behind {
            self.blocked_since = None;
        }
        self.cursors.applied_seq.store(seq.0, Ordering::Release);
        self.cursors.applied.store(index, Ordering::Release);
        self.cursors.board.post_applied(term);
    }

    /// Tells everybody who may wait for what was taken, applied and published in this step.
    fn tell(&self) {
        fence(Ordering::SeqCst);
        if self.cursors.sequencer_blocked.take_fenced() {
            self.cursors.bell_sequencer.ring();
        }
        if self.cursors.core_blocked.take_fenced() {
            self.core.resume();
        }
        self.outbound.wake_fenced();
    }

    fn complain(&mut self) {
        let now = Instant::now();
        let since = *self.blocked_since.get_or_insert(now);
        if now - since >= COMPLAIN_EVERY {
            self.blocked_since = Some(now);
            let consumers = self.outbound.names();
            tracing::error!(consumers, "a consumer is a whole lane behind and the venue waits for it");
        }
    }

    fn publish_deadline(&self) {
        let machine = self.machine.as_ref().expect("present until the end");
        let deadline = machine.next_deadline().map_or(u64::MAX, |at| at.0);
        // Nobody else writes it.
        if self.cursors.deadline.load(Ordering::Relaxed) != deadline {
            self.cursors.deadline.store(deadline, Ordering::Release);
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
        if !self.applied.is_empty() {
            let waiting = self.applied.len();
            self.publish();
            if self.applied.len() < waiting {
                self.tell();
            }
            if !self.applied.is_empty() {
                return Step::Idle;
            }
        }
        let may_end = self.may_end();
        let worked = self.take();
        if !worked {
            // Nothing was taken, so no room was made.
            return if may_end { self.end() } else { Step::Idle };
        }
        self.apply();
        self.publish_deadline();
        self.tell();
        self.outbound.reclaim();
        Step::Worked
    }

    fn has_work(&self) -> bool {
        if !self.applied.is_empty() {
            return !self.outbound.is_blocked() || self.cursors.abandon.load(Ordering::Acquire);
        }
        self.input.available() > 0 || self.may_end()
    }

    fn patience(&self) -> Option<Duration> {
        // Losing the leadership ends the wait of a shutdown without a ring.
        let ends = self.cursors.sequencer_done.load(Ordering::Acquire).then_some(Duration::from_millis(1));
        ends.or((!self.applied.is_empty()).then_some(COMPLAIN_EVERY))
    }
}
