//! Which supplier gets the call: what is remembered of each of them.
//!
//! A supplier that failed several times in a row is left alone for a while and then probed with one call; one that is
//! full, or asked for patience, is passed over. When that leaves nobody, the one that was left alone for longest gets
//! the call after all: a supplier that may have recovered is better than none. Every 429 halves the calls that it gets
//! at once, and every round of answers lets them grow again, so that its own limit is found without being told.
//! What it refuses as unsupported is remembered, and calls that need it go elsewhere. The order among those that may
//! be asked is `choice`'s.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use grid_engine::state::State;
use grid_engine::{AccountId, InstrumentId};
use parking_lot::Mutex;

use crate::choice::{self, Facts};
use crate::config::Routing;
use crate::needs::Needs;
use crate::stats::{One, Stats};

/// Longest pause that a supplier's `Retry-After` can ask for.
const PATIENCE_MAX: Duration = Duration::from_secs(60);
/// What a supplier said it can't do is believed for so long.
const LACK_LASTS: Duration = Duration::from_secs(600);
/// So many calls are measured before a supplier can count as slow.
const MEASURED_MIN: u32 = 8;
/// Weight of the newest measurement, as a divisor.
const NEWEST: u64 = 8;

/// A supplier's model that may serve the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) supplier: AccountId,
    pub(crate) instrument: InstrumentId,
    pub(crate) model: String,
    pub(crate) base_url: String,
    pub(crate) sealed_credential: Vec<u8>,
    /// The instrument's floors.
    pub(crate) floors: Floors,
}

/// What an instrument promises of speed; 0 promises nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Floors {
    pub(crate) ttft_ceiling_ms: u32,
    pub(crate) tokens_per_second: u32,
}

/// Everybody who offers the instrument and is not suspended, by account.
pub(crate) fn offers(state: &State, instrument: InstrumentId) -> Vec<Candidate> {
    let quality = state.instruments.get(usize::from(instrument.0)).map(|one| &one.spec.quality);
    let floors = quality.map_or_else(Floors::default, |quality| Floors {
        ttft_ceiling_ms: quality.ttft_ceiling_ms,
        tokens_per_second: quality.tokens_per_second_floor,
    });
    let active = state.suppliers.iter().filter(|(_, s)| !s.profile.suspended);
    active
        .flat_map(|(account, supplier)| {
            let profile = &supplier.profile;
            let mine = profile.offers.iter().filter(move |offer| offer.instrument == instrument);
            mine.map(|offer| Candidate {
                supplier: *account,
                instrument,
                model: offer.model.clone(),
                base_url: profile.base_url.clone(),
                sealed_credential: profile.sealed_credential.clone(),
                floors,
            })
        })
        .collect()
}

/// How an attempt at a supplier went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It delivered.
    Good,
    /// It failed.
    Bad,
    /// It asked to be left alone this long.
    Busy(Duration),
    /// Nothing to learn: the client left, or asked for the impossible.
    Neutral,
}

/// The state of every supplier that was ever tried.
#[derive(Debug)]
pub(crate) struct Roster {
    routing: Routing,
    /// What models are known to lack, by their name.
    lacks: HashMap<String, Needs>,
    stats: Arc<Stats>,
    health: Mutex<HashMap<(AccountId, InstrumentId), Health>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Health {
    in_flight: u32,
    failures: u32,
    closed_until: Option<Instant>,
    /// It is closed because it asked for it, not because it failed.
    asked: bool,
    probing: bool,
    /// Calls at once that it was found to take; none found yet where it is nothing.
    room: Option<u32>,
    /// Answers since `room` last changed.
    answers: u32,
    /// What it refused, and until when that is believed.
    lacks: Option<(Needs, Instant)>,
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

impl Speed {
    fn is_below(&self, floors: Floors) -> bool {
        let late = self.firsts >= MEASURED_MIN
            && floors.ttft_ceiling_ms > 0
            && self.first_us > u64::from(floors.ttft_ceiling_ms) * 1_000;
        let dragging = self.paces >= MEASURED_MIN
            && self.millitokens_per_second < u64::from(floors.tokens_per_second) * 1_000;
        late || dragging
    }
}

fn average(average: &mut u64, count: &mut u32, value: u64) {
    *average = match *count {
        0 => value,
        _ => (*average * (NEWEST - 1) + value) / NEWEST,
    };
    *count = count.saturating_add(1);
}

impl Health {
    fn room(&self, routing: &Routing) -> u32 {
        self.room.unwrap_or(u32::MAX).min(routing.supplier_concurrent)
    }

    fn is_full(&self, routing: &Routing) -> bool {
        self.in_flight >= self.room(routing)
    }

    fn lacks(&self, now: Instant) -> Needs {
        self.lacks.filter(|(_, until)| now < *until).map_or_else(Needs::default, |(lacks, _)| lacks)
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
}

/// A place at a supplier, given back when the attempt is over.
#[derive(Debug)]
pub(crate) struct Slot {
    roster: Arc<Roster>,
    key: (AccountId, InstrumentId),
    verdict: Verdict,
    probe: bool,
    entered: Instant,
    first: Option<Instant>,
    /// Tokens and time after the first content, where it was the supplier's own pace.
    pace: Option<(u64, Duration)>,
    /// It said that its limit is used up for so long.
    spent: Option<Duration>,
    _one: One,
}

impl Roster {
    pub(crate) fn new(routing: Routing, lacks: HashMap<String, Needs>, stats: Arc<Stats>) -> Arc<Self> {
        Arc::new(Self { routing, lacks, stats, health: Mutex::default() })
    }

    /// Keeps the candidates that can do all of it. Where nobody can, the result is what the best of them lacks.
    pub(crate) fn able(&self, candidates: &mut Vec<Candidate>, needs: Needs) -> Result<(), Needs> {
        if needs.is_empty() {
            return Ok(());
        }
        let now = Instant::now();
        let all = self.health.lock();
        let lacking = |candidate: &Candidate| {
            let told = self.lacks.get(&candidate.model).copied().unwrap_or_default();
            let found = all.get(&(candidate.supplier, candidate.instrument));
            found.map_or(told, |health| told.or(health.lacks(now))).and(needs)
        };
        let least = candidates.iter().map(lacking).min_by_key(|lacks| lacks.iter().count());
        match least {
            Some(least) if !least.is_empty() => Err(least),
            _ => {
                candidates.retain(|candidate| lacking(candidate).is_empty());
                Ok(())
            }
        }
    }

    /// What any of the candidates can do.
    pub(crate) fn abilities(&self, candidates: &[Candidate]) -> Needs {
        let now = Instant::now();
        let all = self.health.lock();
        candidates.iter().fold(Needs::default(), |able, candidate| {
            let told = self.lacks.get(&candidate.model).copied().unwrap_or_default();
            let found = all.get(&(candidate.supplier, candidate.instrument));
            let lacks = found.map_or(told, |health| told.or(health.lacks(now)));
            able.or(Needs::EVERYTHING.without(lacks))
        })
    }

    /// Puts the candidates into the order in which a call tries them, and tells why.
    pub(crate) fn rank(
        &self,
        candidates: &mut Vec<Candidate>,
        issuers: &[AccountId],
        affinity: Option<u64>,
    ) -> String {
        let now = Instant::now();
        let all = self.health.lock();
        let facts = |candidate: &Candidate| {
            let health = all.get(&(candidate.supplier, candidate.instrument)).copied().unwrap_or_default();
            let room = health.room(&self.routing);
            Facts {
                supplier: candidate.supplier,
                draw: issuers.iter().position(|issuer| *issuer == candidate.supplier),
                slow: health.speed.is_below(candidate.floors),
                crowded: u64::from(health.in_flight) * 4 >= u64::from(room) * 3,
                resting: health.closed_until.is_some_and(|until| now < until || health.probing),
            }
        };
        let mut known: Vec<(Facts, Candidate)> =
            candidates.drain(..).map(|candidate| (facts(&candidate), candidate)).collect();
        drop(all);
        choice::order(&mut known, affinity);
        let mut told = String::new();
        for (facts, candidate) in known {
            if !told.is_empty() {
                told.push_str(", ");
            }
            facts.describe(&mut told);
            candidates.push(candidate);
        }
        told
    }

    /// The candidate refused these as unsupported: calls that need them go elsewhere for a while.
    pub(crate) fn lacks(&self, candidate: &Candidate, needs: Needs) {
        let now = Instant::now();
        let mut all = self.health.lock();
        let health = all.entry((candidate.supplier, candidate.instrument)).or_default();
        health.lacks = Some((health.lacks(now).or(needs), now + LACK_LASTS));
    }

    /// A place at the candidate, unless it is full or left alone for now.
    pub(crate) fn enter(self: &Arc<Self>, candidate: &Candidate) -> Option<Slot> {
        let key = (candidate.supplier, candidate.instrument);
        let mut all = self.health.lock();
        let health = all.entry(key).or_default();
        if health.is_full(&self.routing) {
            return None;
        }
        let probe = match health.closed_until {
            Some(until) if health.probing || Instant::now() < until => return None,
            Some(_) => {
                health.probing = true;
                true
            }
            None => false,
        };
        health.in_flight += 1;
        Some(self.slot(key, probe))
    }

    fn slot(self: &Arc<Self>, key: (AccountId, InstrumentId), probe: bool) -> Slot {
        let verdict = Verdict::Neutral;
        let entered = Instant::now();
        let _one = One::of(Arc::clone(&self.stats), |stats| &stats.attempts);
        Slot {
            roster: Arc::clone(self),
            key,
            verdict,
            probe,
            entered,
            first: None,
            pace: None,
            spent: None,
            _one,
        }
    }

    /// The one whose pause after failures ends soonest, where there is one.
    pub(crate) fn last_resort<'a>(&self, candidates: &'a [Candidate]) -> Option<&'a Candidate> {
        let all = self.health.lock();
        let until = |candidate: &Candidate| {
            let health = all.get(&(candidate.supplier, candidate.instrument))?;
            health.closed_until.filter(|_| !health.asked)
        };
        candidates
            .iter()
            .filter_map(|candidate| Some((until(candidate)?, candidate)))
            .min_by_key(|(until, _)| *until)
            .map(|(_, candidate)| candidate)
    }

    /// A place at a candidate that is left alone for its failures, unless it is full.
    pub(crate) fn force(self: &Arc<Self>, candidate: &Candidate) -> Option<Slot> {
        let key = (candidate.supplier, candidate.instrument);
        let mut all = self.health.lock();
        let health = all.entry(key).or_default();
        if health.asked || health.is_full(&self.routing) {
            return None;
        }
        health.in_flight += 1;
        Some(self.slot(key, false))
    }

    /// Whether anybody could be entered now, if only as the last resort, and if not, when.
    pub(crate) fn ready(&self, candidates: &[Candidate]) -> Result<(), Duration> {
        let now = Instant::now();
        let all = self.health.lock();
        let mut soonest = Duration::from_secs(1);
        for (at, candidate) in candidates.iter().enumerate() {
            let health = all.get(&(candidate.supplier, candidate.instrument)).copied();
            let health = health.unwrap_or_default();
            let wait = match health.closed_until {
                Some(until) if health.asked && now < until => until - now,
                Some(_) if health.asked && health.probing => Duration::from_millis(100),
                _ if health.is_full(&self.routing) => Duration::from_millis(100),
                _ => return Ok(()),
            };
            soonest = if at == 0 { wait } else { soonest.min(wait) };
        }
        Err(soonest)
    }

    fn leave(&self, slot: &Slot) {
        let mut all = self.health.lock();
        let health = all.entry(slot.key).or_default();
        if slot.probe {
            health.probing = false;
        }
        if let Some(first) = slot.first {
            let took = first.duration_since(slot.entered).as_micros();
            let took = u64::try_from(took).unwrap_or(u64::MAX >> NEWEST);
            average(&mut health.speed.first_us, &mut health.speed.firsts, took);
        }
        if let Some((tokens, time)) = slot.pace {
            let pace = u128::from(tokens) * 1_000_000_000 / time.as_micros().max(1);
            let pace = u64::try_from(pace).unwrap_or(u64::MAX >> NEWEST).min(u64::MAX >> NEWEST);
            average(&mut health.speed.millitokens_per_second, &mut health.speed.paces, pace);
        }
        match slot.verdict {
            Verdict::Good => {
                let now = Instant::now();
                health.failures = 0;
                // Who asked for patience gets it, whatever calls say that had begun before.
                if !health.asked || health.closed_until.is_none_or(|until| until <= now) {
                    (health.closed_until, health.asked) = (None, false);
                }
                health.grow(&self.routing);
                if let Some(pause) = slot.spent {
                    health.closed_until = Some(now + pause.min(PATIENCE_MAX));
                    health.asked = true;
                }
            }
            Verdict::Bad => {
                health.failures += 1;
                if slot.probe || health.failures >= self.routing.breaker_failures {
                    health.closed_until = Some(Instant::now() + self.routing.breaker_open);
                    health.asked = false;
                }
            }
            Verdict::Busy(pause) => {
                health.shrink();
                health.closed_until = Some(Instant::now() + pause.min(PATIENCE_MAX));
                health.asked = true;
            }
            Verdict::Neutral => {}
        }
        health.in_flight -= 1;
    }
}

impl Slot {
    /// What will be remembered when the slot is given back.
    pub(crate) fn judge(&mut self, verdict: Verdict) {
        self.verdict = verdict;
    }

    /// The first content came.
    pub(crate) fn first_content(&mut self) {
        self.first.get_or_insert_with(Instant::now);
    }

    /// How long it wants no more calls, though it answers this one.
    pub(crate) fn spent(&mut self, pause: Option<Duration>) {
        self.spent = pause;
    }

    /// Time since the first content.
    pub(crate) fn since_first(&self) -> Option<Duration> {
        self.first.map(|first| first.elapsed())
    }

    /// So many tokens came after the first content, in so long, and nobody kept the supplier waiting meanwhile.
    pub(crate) fn pace(&mut self, tokens: u64, time: Duration) {
        self.pace = Some((tokens, time));
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.roster.leave(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::needs::Need;

    fn candidate(supplier: u32) -> Candidate {
        Candidate {
            supplier: AccountId(supplier),
            instrument: InstrumentId(0),
            model: "m".into(),
            base_url: String::new(),
            sealed_credential: Vec::new(),
            floors: Floors { ttft_ceiling_ms: 100, tokens_per_second: 50 },
        }
    }

    fn roster(failures: u32, open: Duration, concurrent: u32) -> Arc<Roster> {
        Roster::new(
            Routing {
                breaker_failures: failures,
                breaker_open: open,
                supplier_concurrent: concurrent,
                ..Routing::default()
            },
            HashMap::from([("terse".to_owned(), [Need::Tools].into_iter().collect())]),
            Arc::default(),
        )
    }

    fn ranked(roster: &Roster, candidates: &[Candidate], issuers: &[u32]) -> (Vec<u32>, String) {
        let mut candidates = candidates.to_vec();
        let issuers: Vec<AccountId> = issuers.iter().copied().map(AccountId).collect();
        let told = roster.rank(&mut candidates, &issuers, None);
        (candidates.iter().map(|c| c.supplier.0).collect(), told)
    }

    #[test]
    fn issuers_come_first_in_the_order_of_the_draws() {
        let roster = roster(2, Duration::from_secs(3_600), 10);
        let all: Vec<_> = (1..=4).map(candidate).collect();
        let (order, told) = ranked(&roster, &all, &[3, 9, 2]);
        assert_eq!(order[..2], [3, 2]);
        assert!(told.starts_with("3 draw 0, 2 draw 2, "), "{told}");
        assert_eq!(ranked(&roster, &all, &[3, 9, 2]), (order, told), "the same facts, the same order");
    }

    #[test]
    fn a_supplier_measured_below_the_floors_and_one_near_its_limit_come_later() {
        let roster = roster(2, Duration::from_secs(3_600), 4);
        let all: Vec<_> = (1..=3).map(candidate).collect();
        let first = ranked(&roster, &all, &[]).0[0];
        for _ in 0..MEASURED_MIN {
            let mut slot = roster.enter(&candidate(first)).unwrap();
            slot.first_content();
            slot.pace(49, Duration::from_secs(1));
        }
        let (order, told) = ranked(&roster, &all, &[]);
        assert_eq!(order[2], first, "{told}");
        assert!(told.contains("slow"), "{told}");
        let _places: Vec<_> = (0..3).map(|_| roster.enter(&candidate(order[0])).unwrap()).collect();
        let (crowded, told) = ranked(&roster, &all, &[]);
        assert_eq!(crowded, [order[1], order[0], order[2]], "{told}");
    }

    #[test]
    fn calls_go_only_to_those_that_are_not_known_to_lack_what_they_need() {
        let roster = roster(2, Duration::from_secs(3_600), 10);
        let terse = Candidate { model: "terse".into(), ..candidate(1) };
        let both: Needs = [Need::Tools, Need::Logprobs].into_iter().collect();
        let able = |needs| {
            let mut all = vec![terse.clone(), candidate(2)];
            roster.able(&mut all, needs).map(|()| all.iter().map(|c| c.supplier.0).collect::<Vec<_>>())
        };
        assert_eq!(able(Needs::default()), Ok(vec![1, 2]));
        assert_eq!(able(both), Ok(vec![2]));
        roster.lacks(&candidate(2), [Need::Logprobs].into_iter().collect());
        assert_eq!(able([Need::Tools].into_iter().collect()), Ok(vec![2]));
        assert_eq!(able([Need::Logprobs].into_iter().collect()), Ok(vec![1]));
        assert_eq!(able(both), Err([Need::Tools].into_iter().collect()));
        roster.enter(&candidate(2)).unwrap().judge(Verdict::Good);
        assert_eq!(
            able([Need::Logprobs].into_iter().collect()),
            Ok(vec![1]),
            "a success elsewhere changes nothing"
        );
        let able = roster.abilities(&[terse.clone(), candidate(2)]);
        assert_eq!(able, Needs::EVERYTHING);
        assert_eq!(
            roster.abilities(&[terse]),
            Needs::EVERYTHING.without([Need::Tools].into_iter().collect())
        );
    }

    #[test]
    fn a_limit_that_was_hit_halves_the_calls_at_once_and_answers_let_them_grow() {
        let roster = roster(5, Duration::ZERO, 100);
        let one = candidate(1);
        let fill = || {
            let mut slots = Vec::new();
            while let Some(slot) = roster.enter(&one) {
                slots.push(slot);
            }
            slots
        };
        let mut slots: Vec<_> = (0..8).map(|_| roster.enter(&one).unwrap()).collect();
        slots.pop().unwrap().judge(Verdict::Busy(Duration::ZERO));
        for mut slot in slots {
            slot.judge(Verdict::Good);
        }
        // Seven answers have come: once around four of them, and there is room for five.
        let slots = fill();
        assert_eq!(slots.len(), 5);
        for mut slot in slots {
            slot.judge(Verdict::Good);
        }
        assert!(fill().len() > 5);
        for _ in 0..200 {
            fill().into_iter().for_each(|mut slot| slot.judge(Verdict::Good));
        }
        assert_eq!(fill().len(), 100, "the limit of the configuration stays");
    }

    #[test]
    fn patience_that_was_asked_for_outlasts_good_answers_to_earlier_calls() {
        let roster = roster(5, Duration::ZERO, 10);
        let one = candidate(1);
        let mut early = [roster.enter(&one).unwrap(), roster.enter(&one).unwrap()];
        early.iter_mut().for_each(|slot| slot.judge(Verdict::Good));
        let [first, mut last] = early;
        last.spent(Some(Duration::from_secs(50)));
        drop(last);
        drop(first);
        assert!(roster.enter(&one).is_none());
        assert!(roster.force(&one).is_none());
    }

    #[test]
    fn a_call_that_began_before_the_breaker_opened_does_not_end_the_probe() {
        let roster = roster(1, Duration::ZERO, 10);
        let one = candidate(1);
        let early = roster.enter(&one).unwrap();
        roster.enter(&one).unwrap().judge(Verdict::Bad);
        let _probe = roster.enter(&one).expect("the pause is over");
        drop(early);
        assert!(roster.enter(&one).is_none(), "the probe is still under way");
    }

    #[test]
    fn failures_in_a_row_close_a_supplier_and_one_success_forgives_them() {
        let roster = roster(2, Duration::from_secs(3_600), 10);
        let one = candidate(1);
        for verdict in [Verdict::Bad, Verdict::Good, Verdict::Bad, Verdict::Neutral] {
            roster.enter(&one).unwrap().judge(verdict);
        }
        roster.enter(&one).unwrap().judge(Verdict::Bad);
        assert!(roster.enter(&one).is_none());
        assert!(roster.ready(&[one, candidate(2)]).is_ok());
    }

    #[test]
    fn where_all_failed_the_one_whose_pause_ends_first_is_the_last_resort() {
        let roster = roster(1, Duration::from_secs(3_600), 10);
        let all = [candidate(1), candidate(2), candidate(3)];
        assert_eq!(roster.last_resort(&all), None);
        for failing in [&all[1], &all[0]] {
            roster.enter(failing).unwrap().judge(Verdict::Bad);
        }
        let asked = Verdict::Busy(Duration::from_secs(1));
        roster.enter(&all[2]).unwrap().judge(asked);
        assert!(roster.ready(&all).is_ok());
        assert_eq!(roster.last_resort(&all), Some(&all[1]));
        roster.force(&all[1]).unwrap().judge(Verdict::Good);
        assert!(roster.enter(&all[1]).is_some(), "one success forgives everything");
        assert!(roster.force(&all[2]).is_none(), "who asked for patience gets it");
    }

    #[test]
    fn after_the_pause_one_probe_decides() {
        let roster = roster(1, Duration::ZERO, 10);
        let one = candidate(1);
        roster.enter(&one).unwrap().judge(Verdict::Bad);
        let mut probe = roster.enter(&one).expect("the pause is over");
        assert!(roster.enter(&one).is_none(), "only one probe at a time");
        probe.judge(Verdict::Good);
        drop(probe);
        let (_a, _b) = (roster.enter(&one).unwrap(), roster.enter(&one).unwrap());
    }

    #[test]
    fn a_full_or_busy_supplier_is_passed_over() {
        let roster = roster(5, Duration::ZERO, 1);
        let (one, two) = (candidate(1), candidate(2));
        let slot = roster.enter(&one).unwrap();
        assert!(roster.enter(&one).is_none());
        drop(slot);
        roster.enter(&two).unwrap().judge(Verdict::Busy(Duration::from_secs(9_999)));
        assert!(roster.ready(&[two]).unwrap_err() <= PATIENCE_MAX);
        assert!(roster.enter(&one).is_some());
    }
}
