//! The one clock of the log. Commands are stamped here and nowhere else; the machine sees no other time.
//!
//! Time is `quanta`'s cycle counter on a wall-clock anchor, so a stamp costs nanoseconds and a step of the wall clock never
//! reaches the log. The anchor follows the wall clock slowly, at most half a millisecond a second, so weeks of counter drift
//! do not add up. A stamp is never before the one ahead of it, also across a restart: the first is at or after the
//! journal's last. If the wall clock was set back, stamps stand still until it has caught up.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use grid_engine::Nanos;

/// Most that one call of [`Clock::follow_wall`] moves the clock, in nanoseconds.
const SLEW_STEP_NS: i64 = 500_000;

/// UTC in nanoseconds; clones tell the same time.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Source>);

#[derive(Debug)]
enum Source {
    System {
        counter: quanta::Clock,
        start: u64,
        wall_ns_at_start: u64,
        slew_ns: AtomicI64,
    },
    /// Monotonic time, and how far the wall clock is from it.
    Manual {
        monotonic: AtomicU64,
        wall_ahead: AtomicI64,
    },
}

impl Clock {
    /// The machine's time.
    #[must_use]
    pub fn system() -> Self {
        let counter = quanta::Clock::new();
        let start = counter.raw();
        Self(Arc::new(Source::System {
            counter,
            start,
            wall_ns_at_start: wall_ns(),
            slew_ns: AtomicI64::new(0),
        }))
    }

    /// A clock that only moves when it is told to; for tests and simulation.
    #[must_use]
    pub fn manual(at: Nanos) -> Self {
        Self(Arc::new(Source::Manual { monotonic: AtomicU64::new(at.0), wall_ahead: AtomicI64::new(0) }))
    }

    /// Moves a manual clock to this time: forwards as time passes, backwards as a wall clock is set back. A system clock ignores it.
    pub fn set(&self, at: Nanos) {
        let now = self.now();
        if at >= now { self.advance(at.0 - now.0) } else { self.jump(-((now.0 - at.0) as i64)) }
    }

    /// Lets time pass on a manual clock; a system clock ignores it.
    pub fn advance(&self, by_ns: u64) {
        if let Source::Manual { monotonic, .. } = &*self.0 {
            monotonic.fetch_add(by_ns, Ordering::SeqCst);
        }
    }

    /// Sets the wall clock of a manual clock forwards or back while no time passes; a system clock ignores it.
    pub fn jump(&self, by_ns: i64) {
        if let Source::Manual { wall_ahead, .. } = &*self.0 {
            wall_ahead.fetch_add(by_ns, Ordering::SeqCst);
        }
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Nanos {
        match &*self.0 {
            Source::System { counter, start, wall_ns_at_start, slew_ns } => {
                let since = counter.delta_as_nanos(*start, counter.raw());
                Nanos((wall_ns_at_start + since).saturating_add_signed(slew_ns.load(Ordering::Relaxed)))
            }
            Source::Manual { monotonic, wall_ahead } => Nanos(
                monotonic.load(Ordering::SeqCst).saturating_add_signed(wall_ahead.load(Ordering::SeqCst)),
            ),
        }
    }

    /// A time that never goes back and no one can set: for measuring how long something takes. Only differences mean anything.
    #[must_use]
    pub fn monotonic(&self) -> Nanos {
        match &*self.0 {
            Source::System { counter, start, .. } => Nanos(counter.delta_as_nanos(*start, counter.raw())),
            Source::Manual { monotonic, .. } => Nanos(monotonic.load(Ordering::SeqCst)),
        }
    }

    /// Leans the clock towards the wall clock by at most half a millisecond; the timer calls it once a second.
    pub(crate) fn follow_wall(&self) {
        if let Source::System { slew_ns, .. } = &*self.0 {
            let ahead = i128::from(wall_ns()) - i128::from(self.now().0);
            let step = ahead.clamp(i128::from(-SLEW_STEP_NS), i128::from(SLEW_STEP_NS)) as i64;
            slew_ns.fetch_add(step, Ordering::Relaxed);
        }
    }

    pub(crate) fn is_manual(&self) -> bool {
        matches!(&*self.0, Source::Manual { .. })
    }
}

fn wall_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// Hands out the stamps of the log.
///
/// Invariant: no stamp is before an earlier one, nor before `last` at construction.
#[derive(Debug)]
pub(crate) struct Stamper {
    clock: Clock,
    last: Nanos,
}

impl Stamper {
    pub(crate) fn new(clock: Clock, last: Nanos) -> Self {
        Self { clock, last }
    }

    /// The stamp of a block that follows one stamped `before`, perhaps by another leader with another clock.
    pub(crate) fn stamp_after(&mut self, before: Nanos) -> Nanos {
        self.last = self.last.max(self.clock.now()).max(before);
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_stand_still_while_the_clock_is_behind_them() {
        let clock = Clock::manual(Nanos(100));
        let mut stamper = Stamper::new(clock.clone(), Nanos(150));
        let table = [(100, 150), (149, 150), (151, 151), (90, 151), (200, 200)];
        for (now, stamp) in table {
            clock.set(Nanos(now));
            assert_eq!(stamper.stamp_after(Nanos(0)), Nanos(stamp));
        }
        assert_eq!(stamper.stamp_after(Nanos(700)), Nanos(700), "another leader's clock was ahead");
        assert_eq!(stamper.stamp_after(Nanos(300)), Nanos(700));
    }

    #[test]
    fn setting_the_wall_clock_back_takes_no_time() {
        let clock = Clock::manual(Nanos(1_000));
        clock.advance(50);
        clock.jump(-400);
        assert_eq!((clock.now(), clock.monotonic()), (Nanos(650), Nanos(1_050)));
        clock.set(Nanos(900));
        assert_eq!((clock.now(), clock.monotonic()), (Nanos(900), Nanos(1_300)));
        clock.set(Nanos(100));
        assert_eq!((clock.now(), clock.monotonic()), (Nanos(100), Nanos(1_300)));
    }

    #[test]
    fn the_system_clock_tells_utc_and_follows_the_wall() {
        let clock = Clock::system();
        let before = wall_ns();
        clock.follow_wall();
        let now = clock.now().0;
        let minute = 60_000_000_000;
        assert!(now.abs_diff(before) < minute, "the clock is within a minute of the wall clock");
    }
}
