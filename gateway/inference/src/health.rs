//! What is remembered of one supplier in one instrument: its circuit breaker, how many calls it takes at once, what is
//! left of its own limits, how fast it was, and what it refused as unsupported.

use std::time::Duration;

use crate::breaker::{Breaker, Moment, Outcome, Pass, Terms};
use crate::choice;
use crate::config::Routing;
use crate::needs::Needs;
use crate::patience::Allowance;
use crate::roster::Floors;

/// Longest pause that a supplier's `Retry-After` can ask for.
pub(crate) const PATIENCE_MAX: Duration = Duration::from_secs(60);
/// A supplier that is full, or being probed, may have room again after this.
pub(crate) const SOON: Duration = Duration::from_millis(100);
/// What a supplier said it can't do is believed for so long.
const LACK_LASTS: Duration = Duration::from_secs(600);
/// So many calls are measured before a supplier can count as slow.
pub(crate) const MEASURED_MIN: u32 = 8;
/// Weight of the newest measurement, as a divisor.
const NEWEST: u64 = 8;

/// How an attempt at a supplier went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It delivered.
    Good,
    /// It failed.
    Bad,
    /// It has too much to do, and asked to be left alone this long, if it said.
    Busy(Option<Duration>),
    /// Nothing to learn: the client left, or asked for the impossible.
    Neutral,
}

/// Why a supplier gets no call just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shut {
    /// As many calls of this tier are under way with it as the tier lets be, and it has done nothing to deserve that.
    ByUs,
    /// It keeps failing, asked for patience, or has reached a limit of its own, told or found.
    ByItself,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Health {
    breaker: Breaker,
    in_flight: u32,
    /// Calls at once that it was found to take; none found yet where it is nothing.
    room: Option<u32>,
    /// Answers since `room` last changed.
    answers: u32,
    /// Refusals for too much work in a row that named no time.
    refusals: u32,
    /// Calls that its own limit still allows, and until when that counts.
    allowance: Option<(u32, Moment)>,
    /// What it refused, and until when that is believed.
    lacks: Option<(Needs, Moment)>,
    speed: Speed,
}

/// Moving averages of what was measured.
#[derive(Clone, Copy, Debug, Default)]
struct Speed {
    first_us: u64,
    firsts: u32,
    millitokens_per_second: u64,
    paces: u32,
}

fn average(average: &mut u64, count: &mut u32, value: u64) {
    *average = match *count {
        0 => value,
        _ => (*average * (NEWEST - 1) + value) / NEWEST,
    };
    *count = count.saturating_add(1);
}

impl Health {
    fn places(&self, routing: &Routing) -> u32 {
        self.room.unwrap_or(u32::MAX).min(routing.supplier_concurrent)
    }

    /// As many calls are under way as it takes, or as its limit still allows.
    fn is_full(&self, now: Moment, routing: &Routing) -> bool {
        self.in_flight >= self.places(routing)
            || self.allowance.is_some_and(|(left, until)| left == 0 && now < until)
    }

    /// How many of four quarters of its places are taken.
    pub(crate) fn load(&self, routing: &Routing) -> u8 {
        let taken = u64::from(self.in_flight) * 4 / u64::from(self.places(routing)).max(1);
        taken.min(4) as u8
    }

    /// How its last calls went.
    pub(crate) fn state(&self, now: Moment, routing: &Routing) -> choice::Health {
        match self.breaker.rests(now, SOON) {
            Some(_) => choice::Health::Resting,
            None if self.breaker.is_shaky(now, routing.breaker_open) => choice::Health::Shaky,
            None => choice::Health::Sound,
        }
    }

    /// A place for one more call.
    pub(crate) fn enter(&mut self, now: Moment, routing: &Routing) -> Result<Pass, Shut> {
        self.admit(now, routing, Breaker::enter)
    }

    /// A place although it keeps failing.
    pub(crate) fn force(&mut self, now: Moment, routing: &Routing) -> Result<Pass, Shut> {
        self.admit(now, routing, Breaker::force)
    }

    fn admit(
        &mut self,
        now: Moment,
        routing: &Routing,
        admit: fn(&mut Breaker, Moment) -> Option<Pass>,
    ) -> Result<Pass, Shut> {
        if self.is_full(now, routing) {
            let spent = self.allowance.is_some_and(|(left, until)| left == 0 && now < until);
            let its_own = spent || self.room.is_some() || self.breaker.rests(now, SOON).is_some();
            return Err(if its_own { Shut::ByItself } else { Shut::ByUs });
        }
        let pass = admit(&mut self.breaker, now).ok_or(Shut::ByItself)?;
        self.in_flight += 1;
        if let Some((left, _)) = &mut self.allowance {
            *left = left.saturating_sub(1);
        }
        Ok(pass)
    }

    /// A call has ended.
    pub(crate) fn ended(&mut self, pass: Pass, verdict: Verdict, now: Moment, routing: &Routing) {
        let outcome = match verdict {
            Verdict::Good => {
                self.refusals = 0;
                self.grow(routing);
                Outcome::Good
            }
            Verdict::Bad => Outcome::Bad,
            Verdict::Neutral => Outcome::Neutral,
            Verdict::Busy(asked) => {
                self.shrink();
                let pause = asked.unwrap_or_else(|| {
                    self.refusals = self.refusals.saturating_add(1);
                    routing.busy_pause.saturating_mul(1 << (self.refusals - 1).min(16))
                });
                Outcome::Busy(now + pause.min(PATIENCE_MAX))
            }
        };
        let terms = Terms {
            failures: routing.breaker_failures,
            open_min: routing.breaker_open,
            open_max: routing.breaker_open_max.max(routing.breaker_open),
        };
        self.breaker.ended(pass, outcome, now, &terms);
        self.in_flight -= 1;
    }

    /// A limit was hit: half of what was under way is tried from now on.
    fn shrink(&mut self) {
        self.room = Some(self.in_flight.div_ceil(2).max(1));
        self.answers = 0;
    }

    /// An answer came: after as many as there is room for, there is a quarter more.
    fn grow(&mut self, routing: &Routing) {
        let Some(room) = self.room else {
            return;
        };
        self.answers += 1;
        if self.answers >= room {
            self.answers = 0;
            let more = room.saturating_add(room.div_ceil(4));
            self.room = Some(more).filter(|more| *more < routing.supplier_concurrent);
        }
    }

    /// What the supplier said of its own limit, after the call ended.
    pub(crate) fn allow(&mut self, said: Allowance, now: Moment) {
        let until = now + said.resets.min(PATIENCE_MAX);
        if said.calls == 0 {
            self.breaker.leave_alone(until);
        }
        self.allowance = Some((said.calls, until));
    }

    /// How long nobody is let through; nothing where a call could have a place, if only by force where `failing_too`.
    pub(crate) fn wait(&self, now: Moment, routing: &Routing, failing_too: bool) -> Option<Duration> {
        let rest = self.breaker.rests(now, SOON);
        if rest.is_some() && !(failing_too && self.breaker.failing_until().is_some()) {
            return rest;
        }
        match self.allowance {
            Some((0, until)) if now < until => Some(until - now),
            _ => self.is_full(now, routing).then_some(SOON),
        }
    }

    pub(crate) fn failing_until(&self) -> Option<Moment> {
        self.breaker.failing_until()
    }

    // -- abilities and speed -------------------------------------------------------------------------------------

    /// What it is known to lack just now.
    pub(crate) fn lacks(&self, now: Moment) -> Needs {
        self.lacks.filter(|(_, until)| now < *until).map_or_else(Needs::default, |(lacks, _)| lacks)
    }

    /// It refused these as unsupported.
    pub(crate) fn refused(&mut self, needs: Needs, now: Moment) {
        self.lacks = Some((self.lacks(now).or(needs), now + LACK_LASTS));
    }

    /// It was so long before its first content.
    pub(crate) fn first_content(&mut self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX >> NEWEST);
        average(&mut self.speed.first_us, &mut self.speed.firsts, took);
    }

    /// It sent so many tokens after its first content, in so long.
    pub(crate) fn pace(&mut self, tokens: u64, time: Duration) {
        let pace = u128::from(tokens) * 1_000_000_000 / time.as_micros().max(1);
        let pace = u64::try_from(pace).unwrap_or(u64::MAX >> NEWEST).min(u64::MAX >> NEWEST);
        average(&mut self.speed.millitokens_per_second, &mut self.speed.paces, pace);
    }

    /// Whether it was measured below an instrument's floors.
    pub(crate) fn is_below(&self, floors: Floors) -> bool {
        let speed = &self.speed;
        let late = speed.firsts >= MEASURED_MIN
            && floors.ttft_ceiling_ms > 0
            && speed.first_us > u64::from(floors.ttft_ceiling_ms) * 1_000;
        let dragging = speed.paces >= MEASURED_MIN
            && speed.millitokens_per_second < u64::from(floors.tokens_per_second) * 1_000;
        late || dragging
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTING: fn(u32) -> Routing =
        |concurrent| Routing { supplier_concurrent: concurrent, ..Routing::default() };

    fn at(seconds: u64) -> Moment {
        Duration::from_secs(seconds)
    }

    #[test]
    fn only_the_tier_s_own_limit_is_no_fault_of_the_supplier_s() {
        let routing = ROUTING(2);
        let full = || {
            let mut health = Health::default();
            assert!(health.enter(at(0), &routing).is_ok() && health.enter(at(0), &routing).is_ok());
            health
        };
        assert_eq!(full().enter(at(0), &routing), Err(Shut::ByUs));
        let mut spent = full();
        spent.allow(Allowance { calls: 0, resets: Duration::from_secs(9) }, at(0));
        assert_eq!(spent.enter(at(0), &routing), Err(Shut::ByItself));
        let mut busy = full();
        busy.ended(Pass::Call, Verdict::Busy(Some(Duration::from_secs(1))), at(0), &routing);
        assert_eq!(busy.enter(at(0), &routing), Err(Shut::ByItself), "its pause");
        assert_eq!(busy.enter(at(2), &routing), Err(Shut::ByItself), "the room that was found");
        let mut failing = full();
        for _ in 0..routing.breaker_failures {
            failing.ended(Pass::Call, Verdict::Bad, at(0), &routing);
            failing.in_flight += 1;
        }
        assert_eq!(failing.enter(at(0), &routing), Err(Shut::ByItself));
    }

    #[test]
    fn a_limit_that_was_hit_halves_the_calls_at_once_and_answers_let_them_grow() {
        let (mut health, routing) = (Health::default(), ROUTING(100));
        let fill = |health: &mut Health| std::iter::from_fn(|| health.enter(at(9), &routing).ok()).count();
        let end = |health: &mut Health, count: usize, verdict| {
            (0..count).for_each(|_| health.ended(Pass::Call, verdict, at(9), &routing));
        };
        for _ in 0..8 {
            health.enter(at(0), &routing).expect("room");
        }
        health.ended(Pass::Call, Verdict::Busy(Some(at(1))), at(0), &routing);
        assert_eq!(health.enter(at(0), &routing), Err(Shut::ByItself));
        let probe = Pass::Probe(1);
        end(&mut health, 7, Verdict::Good);
        assert_eq!(health.enter(at(9), &routing), Ok(probe));
        health.ended(probe, Verdict::Good, at(9), &routing);
        // Eight answers have come: once around four of them, and there is room for five.
        assert_eq!(fill(&mut health), 5);
        end(&mut health, 5, Verdict::Good);
        for _ in 0..40 {
            let count = fill(&mut health);
            end(&mut health, count, Verdict::Good);
        }
        assert_eq!(fill(&mut health), 100, "the limit of the configuration stays");
    }

    #[test]
    fn pauses_that_nobody_named_grow_until_an_answer_comes() {
        let (mut health, routing) = (Health::default(), ROUTING(100));
        let mut now = at(0);
        let first = routing.busy_pause;
        for doubled in [1, 2, 4] {
            let pass = health.enter(now, &routing).expect("the pause is over");
            health.ended(pass, Verdict::Busy(None), now, &routing);
            assert_eq!(health.wait(now, &routing, true), Some(first * doubled));
            now += first * doubled;
        }
        let pass = health.enter(now, &routing).expect("the pause is over");
        health.ended(pass, Verdict::Good, now, &routing);
        let pass = health.enter(now, &routing).expect("sound");
        health.ended(pass, Verdict::Busy(None), now, &routing);
        assert_eq!(health.wait(now, &routing, true), Some(first));
    }

    #[test]
    fn a_supplier_s_own_limit_is_not_overrun_by_calls_that_began_together() {
        let (mut health, routing) = (Health::default(), ROUTING(100));
        health.allow(Allowance { calls: 2, resets: at(10) }, at(0));
        assert!(health.enter(at(1), &routing).is_ok() && health.enter(at(1), &routing).is_ok());
        assert_eq!(
            (health.enter(at(1), &routing), health.wait(at(1), &routing, true)),
            (Err(Shut::ByItself), Some(at(9)))
        );
        assert!(health.enter(at(10), &routing).is_ok(), "the limit was reset");
        health.allow(Allowance { calls: 0, resets: at(10) }, at(20));
        assert_eq!(
            (health.force(at(21), &routing), health.wait(at(21), &routing, true)),
            (Err(Shut::ByItself), Some(at(9)))
        );
    }

    #[test]
    fn it_takes_several_measurements_below_a_floor_to_be_slow() {
        let floors = Floors { ttft_ceiling_ms: 100, tokens_per_second: 50 };
        let (mut late, mut dragging) = (Health::default(), Health::default());
        for _ in 1..MEASURED_MIN {
            late.first_content(Duration::from_millis(101));
            dragging.pace(49, at(1));
            assert!(!late.is_below(floors) && !dragging.is_below(floors));
        }
        late.first_content(Duration::from_millis(101));
        dragging.pace(49, at(1));
        assert!(late.is_below(floors) && dragging.is_below(floors));
        assert!(!late.is_below(Floors::default()), "nothing was promised");
    }
}
