//! Time, for those who have none of their own: the consensus core's steps, and the machine's deadlines as commands.

use std::time::Duration;

use grid_engine::Nanos;

use crate::clock::Clock;
use crate::door::Door;
use crate::driver::Drive;
use crate::inbound::Submitter;
use crate::layout::{Stage, Step};
use crate::machine::Machine;
use crate::stages::Cursors;
use crate::sync::{Arc, Ordering};

/// A tick that the ring refused, or that brought the deadline no further, is repeated after this long.
const TICK_AGAIN: Duration = Duration::from_millis(20);
/// How often the clock is compared with the wall.
const WALL_EVERY: Duration = Duration::from_secs(1);

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
    /// How long until a tick is to be submitted, `ZERO` for now. Like the other, it is told the monotonic time: a thread that spins
    /// should read the clock once for each look.
    fn due_in(&self, now: Nanos) -> Option<Duration> {
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
                let rest = TICK_AGAIN.saturating_sub(since(now, tick.when));
                Some(if under_way { TICK_AGAIN.min(rest + TICK_AGAIN) } else { rest })
            }
            _ => Some(Duration::from_nanos(deadline.saturating_sub(self.clock.now().0))),
        }
    }

    fn core_due_in(&self, now: Nanos) -> Duration {
        self.core_tick.saturating_sub(since(now, self.core_ticked))
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
        if self.core_due_in(now).is_zero() {
            // One at a time: a node that was asleep for long must not rush through a whole election timeout.
            self.core_ticked = now;
            self.core.tick();
            worked = true;
        }
        if self.door.is_closed() || self.due_in(now) != Some(Duration::ZERO) {
            return if worked { Step::Worked } else { Step::Idle };
        }
        let deadline = self.cursors.deadline.load(Ordering::Acquire);
        let applied = self.cursors.applied_seq.load(Ordering::Acquire);
        let refused = self.submitter.try_submit(M::tick()).is_err();
        self.submitted = Some(SubmittedTick { deadline, when: now, applied, refused });
        Step::Worked
    }

    fn has_work(&self) -> bool {
        let (closed, now) = (self.door.is_closed(), self.clock.monotonic());
        (closed && self.cursors.matcher_done.load(Ordering::Acquire))
            || self.core_due_in(now).is_zero()
            || (!closed && self.due_in(now) == Some(Duration::ZERO))
    }

    fn is_urgent(&self) -> bool {
        false
    }

    fn patience(&self) -> Option<Duration> {
        let most = if self.clock.is_manual() || self.door.is_closed() {
            Duration::from_millis(1)
        } else {
            WALL_EVERY
        };
        let now = self.clock.monotonic();
        let most = most.min(self.core_due_in(now));
        Some(self.due_in(now).map_or(most, |due| due.min(most)))
    }
}
