//! Commands at a planned rate. A client that waits for an answer before it sends the next command asks a stalled venue nothing, and so
//! never hears how long it would have waited (coordinated omission). Here every command has its planned time, whether or not the
//! one before it is answered, and its latency counts from then.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::rounds::nanos;

/// A plan of send times. It is small and copied freely: whoever sends and whoever hears the answers may be different threads.
///
/// Sending is up to the caller: it sends while fewer than [`OpenLoop::due`] are sent, and is never ahead of the plan.
#[derive(Clone, Copy, Debug)]
pub struct OpenLoop {
    begin: Instant,
    interval_ns: f64,
    commands: u64,
    warm_up: u64,
}

/// One in so many commands, at the beginning, warms up and is not recorded.
const WARM_UP: u64 = 5;

impl OpenLoop {
    /// `rate` commands per second from now on, `seconds` long; the first fifth is not recorded.
    #[must_use]
    pub fn start(rate: f64, seconds: f64) -> Self {
        let commands = ((rate * seconds).ceil() as u64).max(1);
        Self::start_with(rate, commands)
    }

    /// `rate` commands per second from now on, `commands` of them; the first fifth is not recorded.
    #[must_use]
    pub fn start_with(rate: f64, commands: u64) -> Self {
        Self { begin: Instant::now(), interval_ns: 1e9 / rate, commands, warm_up: commands / WARM_UP }
    }

    /// All commands of the plan, those of the warm-up too.
    #[must_use]
    pub fn commands(&self) -> u64 {
        self.commands
    }

    /// How many should have been sent by `now`, at most all.
    #[must_use]
    pub fn due(&self, now: Instant) -> u64 {
        let passed_ns = now.saturating_duration_since(self.begin).as_nanos() as f64;
        ((passed_ns / self.interval_ns) as u64).saturating_add(1).min(self.commands)
    }

    /// When the `nth` command, counted from 0, is to be sent.
    #[must_use]
    pub fn planned(&self, nth: u64) -> Instant {
        self.begin + Duration::from_nanos((nth as f64 * self.interval_ns) as u64)
    }

    /// Records that the `nth` command was answered at `at`, unless it warms up.
    pub fn answered(&self, nth: u64, at: Instant, into: &mut Histogram<u64>) {
        if nth >= self.warm_up {
            into.saturating_record(nanos(at.saturating_duration_since(self.planned(nth))));
        }
    }

    /// Commands per second of what is recorded, if the last answer came at `last`: below the planned rate, the path did not keep up.
    #[must_use]
    pub fn reached(&self, last: Instant) -> f64 {
        let took = last.saturating_duration_since(self.planned(self.warm_up)).as_secs_f64();
        (self.commands - self.warm_up) as f64 / took.max(1e-9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latencies::histogram;

    #[test]
    fn a_stall_is_in_every_command_that_it_delayed() {
        let plan = OpenLoop::start_with(1_000_000.0, 1_000);
        let stalled_until = plan.planned(1_000);
        let mut record = histogram();
        (0..1_000).for_each(|nth| plan.answered(nth, stalled_until, &mut record));
        assert_eq!(record.len(), 800, "the first fifth warms up");
        // From 1 µs for the last to 800 µs for the first: a client that waited would have told of one command of 1 ms.
        assert!(record.value_at_quantile(0.5) > 350_000 && record.value_at_quantile(0.5) < 450_000);
        assert!(record.max() > 790_000);
    }

    #[test]
    fn the_plan_is_never_ahead_of_its_time() {
        let plan = OpenLoop::start(1_000.0, 0.01);
        assert_eq!(plan.commands(), 10);
        assert_eq!(plan.due(plan.planned(0)), 1);
        assert_eq!(plan.due(plan.planned(3) + Duration::from_micros(500)), 4);
        assert_eq!(plan.due(plan.planned(1_000)), 10, "no more than all");
    }
}
