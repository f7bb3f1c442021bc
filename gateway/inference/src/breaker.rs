//! The circuit breaker of one supplier in one instrument, as a state machine that is told the time.
//!
//! ```text
//!            failures in a row                 pause over, one call
//!  closed ───────────────────────► open ───────────────────────────► half-open (one probe under way)
//!    ▲                              ▲  ▲                                 │  │  │
//!    │                              │  └──── the probe failed: twice as ─┘  │  │
//!    │                              └─────── the probe said nothing ────────┘  │
//!    └────────────────────────────────────── the probe delivered ──────────────┘
//! ```
//!
//! A supplier that asks to be left alone (429, `Retry-After`) is open for exactly as long as it asked for, whatever
//! calls say that had begun before; that is no failure, so its next pause is no longer for it. Calls that began before
//! it opened decide nothing: only a probe closes it.

use std::time::Duration;

/// Time since some fixed moment; never goes back.
pub(crate) type Moment = Duration;

/// When it opens, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// Failures in a row that open it; at least 1.
    pub(crate) failures: u32,
    /// The first pause; each further one is twice as long, until a probe delivers.
    pub(crate) open_min: Duration,
    /// The longest pause.
    pub(crate) open_max: Duration,
}

/// How a call that was let through went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It delivered.
    Good,
    /// It failed.
    Bad,
    /// Nothing to learn: the client left, or asked for the impossible.
    Neutral,
    /// The supplier wants no calls until then.
    Busy(Moment),
}

/// What a call was let through as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// One of many.
    Call,
    /// The one that decides, by its number; an older one decides nothing any more.
    Probe(u32),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Closed,
    Open {
        until: Moment,
        /// The supplier asked for it.
        asked: bool,
    },
    HalfOpen,
}

/// The breaker.
///
/// Invariants: it is half-open exactly while the newest probe is under way and nobody asked for a pause meanwhile;
/// `failures` counts only while it is closed; `openings` is 0 after a probe delivered.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Breaker {
    phase: Phase,
    /// In a row.
    failures: u32,
    /// Openings by failure since it last was sound.
    openings: u32,
    /// Probes so far; wraps.
    probes: u32,
    /// When it last failed, where it did.
    failed_at: Option<Moment>,
}

impl Breaker {
    /// Lets a call through, or not.
    pub(crate) fn enter(&mut self, now: Moment) -> Option<Pass> {
        match self.phase {
            Phase::Closed => Some(Pass::Call),
            Phase::Open { until, .. } if now >= until => Some(self.probe()),
            Phase::Open { .. } | Phase::HalfOpen => None,
        }
    }

    /// Lets a call through although it is open for its failures: a supplier that may have recovered is better than
    /// none. Who asked to be left alone is left alone, and there is only one probe at a time.
    pub(crate) fn force(&mut self, now: Moment) -> Option<Pass> {
        match self.phase {
            Phase::Open { asked: false, .. } => Some(self.probe()),
            _ => self.enter(now),
        }
    }

    fn probe(&mut self) -> Pass {
        self.phase = Phase::HalfOpen;
        self.probes = self.probes.wrapping_add(1);
        Pass::Probe(self.probes)
    }

    /// A call that was let through has ended.
    pub(crate) fn ended(&mut self, pass: Pass, outcome: Outcome, now: Moment, terms: &Terms) {
        if outcome == Outcome::Bad {
            self.failed_at = Some(now);
        }
        let decides = self.phase == Phase::HalfOpen && pass == Pass::Probe(self.probes);
        match (outcome, self.phase) {
            (Outcome::Busy(until), _) => self.leave_alone(until),
            (Outcome::Good, Phase::HalfOpen) if decides => {
                *self = Self { probes: self.probes, ..Self::default() };
            }
            (Outcome::Bad, Phase::HalfOpen) if decides => self.open(now, terms),
            (Outcome::Neutral, Phase::HalfOpen) if decides => {
                self.phase = Phase::Open { until: now, asked: false };
            }
            (Outcome::Good, Phase::Closed) => (self.failures, self.openings, self.failed_at) = (0, 0, None),
            (Outcome::Bad, Phase::Closed) => {
                self.failures = self.failures.saturating_add(1);
                if self.failures >= terms.failures {
                    self.open(now, terms);
                }
            }
            _ => {}
        }
    }

    fn open(&mut self, now: Moment, terms: &Terms) {
        let pause = terms.open_min.saturating_mul(1 << self.openings.min(16)).min(terms.open_max);
        self.openings = self.openings.saturating_add(1);
        self.failures = 0;
        self.phase = Phase::Open { until: now + pause, asked: false };
    }

    /// The supplier wants no calls until then.
    pub(crate) fn leave_alone(&mut self, until: Moment) {
        let asked_before = match self.phase {
            Phase::Open { until, asked: true } => until,
            _ => Moment::ZERO,
        };
        self.phase = Phase::Open { until: until.max(asked_before), asked: true };
    }

    /// How long it lets nobody through; nothing where it would now. Where a probe is under way nobody knows, and it is
    /// `guess`.
    pub(crate) fn rests(&self, now: Moment, guess: Duration) -> Option<Duration> {
        match self.phase {
            Phase::Closed => None,
            Phase::Open { until, .. } => Some(until.saturating_sub(now)).filter(|rest| !rest.is_zero()),
            Phase::HalfOpen => Some(guess),
        }
    }

    /// Until when it is open for its failures, where it is.
    pub(crate) fn failing_until(&self) -> Option<Moment> {
        match self.phase {
            Phase::Open { until, asked: false } => Some(until),
            _ => None,
        }
    }

    /// Whether it has failed within so long, and not delivered since.
    pub(crate) fn is_shaky(&self, now: Moment, lately: Duration) -> bool {
        self.failed_at.is_some_and(|at| now < at + lately)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms =
        Terms { failures: 3, open_min: Duration::from_secs(2), open_max: Duration::from_secs(10) };

    fn at(seconds: u64) -> Moment {
        Duration::from_secs(seconds)
    }

    /// One line of a story: when, what happens, and what comes of it.
    enum Line {
        /// A call comes: is it let through, and as what?
        Enter(u64, Option<Pass>),
        /// One comes that has nowhere else to go.
        Force(u64, Option<Pass>),
        /// One ends.
        End(u64, Pass, Outcome),
        /// So long it rests.
        Rests(u64, Option<u64>),
    }

    #[test]
    fn every_transition_has_its_line() {
        use Line::{End, Enter, Force, Rests};
        use Outcome::{Bad, Busy, Good, Neutral};
        use Pass::{Call, Probe};
        let stories: [(&str, Vec<Line>); 9] = [
            (
                "fewer failures than it takes, with a success between, leave it closed",
                vec![
                    End(0, Call, Bad),
                    End(0, Call, Bad),
                    End(0, Call, Good),
                    End(0, Call, Bad),
                    End(0, Call, Bad),
                    Enter(0, Some(Call)),
                ],
            ),
            (
                "failures in a row open it, and its pause ends in one probe",
                vec![
                    End(0, Call, Bad),
                    End(0, Call, Bad),
                    End(0, Call, Neutral),
                    End(1, Call, Bad),
                    Enter(2, None),
                    Rests(2, Some(1)),
                    Rests(3, None),
                    Enter(3, Some(Probe(1))),
                    Enter(3, None),
                    Force(3, None),
                    End(4, Probe(1), Good),
                    Enter(4, Some(Call)),
                    Enter(4, Some(Call)),
                ],
            ),
            (
                "each failed probe doubles the pause up to the longest, and a good one forgets it",
                vec![
                    End(0, Call, Bad),
                    End(0, Call, Bad),
                    End(0, Call, Bad),
                    Enter(2, Some(Probe(1))),
                    End(2, Probe(1), Bad),
                    Rests(2, Some(4)),
                    Enter(6, Some(Probe(2))),
                    End(6, Probe(2), Bad),
                    Rests(6, Some(8)),
                    Enter(14, Some(Probe(3))),
                    End(14, Probe(3), Bad),
                    Rests(14, Some(10)),
                    Enter(24, Some(Probe(4))),
                    End(24, Probe(4), Good),
                    End(25, Call, Bad),
                    End(25, Call, Bad),
                    End(25, Call, Bad),
                    Rests(25, Some(2)),
                ],
            ),
            (
                "a probe whose client left says nothing, and the next call is the probe",
                vec![
                    End(0, Call, Bad),
                    End(0, Call, Bad),
                    End(0, Call, Bad),
                    Enter(2, Some(Probe(1))),
                    End(3, Probe(1), Neutral),
                    Enter(3, Some(Probe(2))),
                ],
            ),
            (
                "calls that began before it opened neither close it nor open it again",
                vec![
                    End(0, Call, Bad),
                    End(0, Call, Bad),
                    End(0, Call, Bad),
                    End(0, Call, Good),
                    End(0, Call, Bad),
                    Rests(0, Some(2)),
                    Enter(2, Some(Probe(1))),
                    End(2, Call, Good),
                    End(2, Call, Neutral),
                    Enter(2, None),
                ],
            ),
            (
                "who asks for a pause gets exactly that, and is not forced",
                vec![
                    End(0, Call, Busy(at(5))),
                    End(1, Call, Good),
                    Enter(4, None),
                    Force(4, None),
                    Rests(4, Some(1)),
                    Force(5, Some(Probe(1))),
                    End(5, Probe(1), Good),
                    Enter(5, Some(Call)),
                ],
            ),
            (
                "a shorter pause asked for later does not cut a longer one short",
                vec![End(0, Call, Busy(at(9))), End(1, Call, Busy(at(3))), Rests(3, Some(6))],
            ),
            (
                "a pause that is asked for during a probe outlasts the probe's success",
                vec![
                    End(0, Call, Bad),
                    End(0, Call, Bad),
                    End(0, Call, Bad),
                    Enter(2, Some(Probe(1))),
                    End(2, Call, Busy(at(7))),
                    End(3, Probe(1), Good),
                    Enter(6, None),
                    Enter(7, Some(Probe(2))),
                ],
            ),
            (
                "where there is nobody else a failing one is asked early, once at a time",
                vec![
                    End(0, Call, Bad),
                    End(0, Call, Bad),
                    End(0, Call, Bad),
                    Force(1, Some(Probe(1))),
                    Force(1, None),
                    End(1, Probe(1), Bad),
                    Rests(1, Some(4)),
                ],
            ),
        ];
        for (story, lines) in stories {
            let mut breaker = Breaker::default();
            for (number, line) in lines.into_iter().enumerate() {
                match line {
                    Enter(now, pass) => assert_eq!(breaker.enter(at(now)), pass, "{story}, line {number}"),
                    Force(now, pass) => assert_eq!(breaker.force(at(now)), pass, "{story}, line {number}"),
                    End(now, pass, outcome) => breaker.ended(pass, outcome, at(now), &TERMS),
                    Rests(now, rest) => {
                        assert_eq!(breaker.rests(at(now), at(99)), rest.map(at), "{story}, line {number}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_failure_counts_against_it_for_a_while_or_until_it_delivers() {
        let mut breaker = Breaker::default();
        assert!(!breaker.is_shaky(at(0), at(5)));
        breaker.ended(Pass::Call, Outcome::Bad, at(1), &TERMS);
        assert!(breaker.is_shaky(at(5), at(5)) && !breaker.is_shaky(at(6), at(5)));
        breaker.ended(Pass::Call, Outcome::Good, at(2), &TERMS);
        assert!(!breaker.is_shaky(at(2), at(5)));
    }

    /// SplitMix64: the same seed, the same numbers.
    fn draw(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    #[test]
    fn whatever_happens_there_is_one_probe_at_most_and_no_pause_that_lasts() {
        for seed in 0..200 {
            let (mut random, mut now) = (seed, Moment::ZERO);
            let mut breaker = Breaker::default();
            let mut under_way: Vec<Pass> = Vec::new();
            for step in 0..500 {
                now += Duration::from_millis(draw(&mut random) % 700);
                let rests = breaker.rests(now, at(1));
                if draw(&mut random).is_multiple_of(2) || under_way.is_empty() {
                    let forced = draw(&mut random).is_multiple_of(4);
                    let pass = if forced { breaker.force(now) } else { breaker.enter(now) };
                    if !forced {
                        assert_eq!(pass.is_none(), rests.is_some(), "seed {seed}, step {step}");
                    }
                    under_way.extend(pass);
                } else {
                    let pass = under_way.swap_remove(draw(&mut random) as usize % under_way.len());
                    let outcome = match draw(&mut random) % 5 {
                        0 | 1 => Outcome::Bad,
                        2 => Outcome::Good,
                        3 => Outcome::Neutral,
                        _ => Outcome::Busy(now + Duration::from_millis(draw(&mut random) % 5_000)),
                    };
                    breaker.ended(pass, outcome, now, &TERMS);
                    let longest = TERMS.open_max.max(at(5));
                    let rest = breaker.rests(now, Duration::ZERO).unwrap_or_default();
                    assert!(rest <= longest, "seed {seed}, step {step}: {rest:?}");
                }
                let newest = under_way.iter().filter(|pass| **pass == Pass::Probe(breaker.probes)).count();
                if breaker.phase == Phase::HalfOpen {
                    assert_eq!(newest, 1, "seed {seed}, step {step}: exactly one decides");
                }
            }
            // Left to itself it lets somebody through, whatever came before.
            for pass in under_way.drain(..) {
                breaker.ended(pass, Outcome::Neutral, now, &TERMS);
            }
            assert!(breaker.enter(now + at(20)).is_some(), "seed {seed}");
        }
    }
}
