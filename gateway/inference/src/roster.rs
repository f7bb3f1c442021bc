//! Which supplier gets the call: who offers the instrument, who of them is able, and who may be asked now.
//!
//! A supplier that failed several times in a row is left alone for a while and then probed with one call; one that is
//! full, or asked for patience, is passed over. When that leaves nobody, the one that was left alone for longest gets
//! the call after all: a supplier that may have recovered is better than none. Every 429 halves the calls that it gets
//! at once, and every round of answers lets them grow again, so that its own limit is found without being told; where
//! its headers tell, that is heeded. What it refuses as unsupported is remembered, and calls that need it go
//! elsewhere. What is remembered of one supplier is `health`'s, the order among them `choice`'s.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use grid_engine::command::Side;
use grid_engine::state::State;
use grid_engine::{AccountId, InstrumentId, Price};
use parking_lot::Mutex;

use crate::breaker::{Moment, Pass};
use crate::choice::{self, Facts, Why};
use crate::config::Routing;
use crate::health::Health;
pub(crate) use crate::health::{Shut, Verdict};
use crate::needs::Needs;
use crate::patience::Allowance;
use crate::stats::{One, Stats};

/// So many resting orders are looked at for the candidates' best asks, best first. Who has none among them comes after
/// all who have.
const ASKS_READ: usize = 256;

/// A supplier's model that may serve the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) supplier: AccountId,
    pub(crate) instrument: InstrumentId,
    /// Which of the supplier's offers it is.
    pub(crate) offer: u8,
    pub(crate) model: String,
    pub(crate) base_url: String,
    pub(crate) sealed_credential: Vec<u8>,
    /// The instrument's floors.
    pub(crate) floors: Floors,
    /// Its best resting ask, once somebody has looked.
    pub(crate) ask: Option<Price>,
}

/// What an instrument promises of speed; 0 promises nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Floors {
    pub(crate) ttft_ceiling_ms: u32,
    pub(crate) tokens_per_second: u32,
}

/// Everybody who offers the instrument and is not suspended, as a whole or from this instrument, by account.
pub(crate) fn offers(state: &State, instrument: InstrumentId) -> Vec<Candidate> {
    let quality = state.instruments.get(usize::from(instrument.0)).map(|one| &one.spec.quality);
    let floors = quality.map_or_else(Floors::default, |quality| Floors {
        ttft_ceiling_ms: quality.ttft_ceiling_ms,
        tokens_per_second: quality.tokens_per_second_floor,
    });
    let active = state.suppliers.iter().filter(|(id, _)| !state.is_suspended(**id, instrument));
    active
        .flat_map(|(account, supplier)| {
            let profile = &supplier.profile;
            let mine = (0..).zip(&profile.offers).filter(move |(_, offer)| offer.instrument == instrument);
            mine.map(|(place, offer)| Candidate {
                supplier: *account,
                instrument,
                offer: place,
                model: offer.model.clone(),
                base_url: profile.base_url.clone(),
                sealed_credential: profile.sealed_credential.clone(),
                floors,
                ask: None,
            })
        })
        .collect()
}

/// Notes what each candidate asks for a Unit just now.
pub(crate) fn read_asks(state: &State, candidates: &mut [Candidate]) {
    let Some(instrument) = candidates.first().map(|candidate| candidate.instrument) else {
        return;
    };
    let Some(book) = state.book(instrument) else {
        return;
    };
    let mut missing = candidates.len();
    for order in book.queue(Side::Sell).take(ASKS_READ) {
        for candidate in candidates.iter_mut() {
            if candidate.supplier == order.account && candidate.ask.is_none() {
                candidate.ask = Some(order.price);
                missing -= 1;
            }
        }
        if missing == 0 {
            return;
        }
    }
}

/// The state of every supplier that was ever tried.
#[derive(Debug)]
pub(crate) struct Roster {
    routing: Routing,
    /// What models are known to lack, by their name.
    lacks: HashMap<String, Needs>,
    stats: Arc<Stats>,
    began: Instant,
    health: Mutex<HashMap<(AccountId, InstrumentId), Health>>,
}

/// A place at a supplier, given back when the attempt is over.
#[derive(Debug)]
pub(crate) struct Slot {
    roster: Arc<Roster>,
    key: (AccountId, InstrumentId),
    verdict: Verdict,
    pass: Pass,
    entered: Instant,
    first: Option<Instant>,
    /// Tokens and time after the first content, where it was the supplier's own pace.
    pace: Option<(u64, Duration)>,
    /// What it said is left of its limit.
    allowance: Option<Allowance>,
    _one: One,
}

impl Roster {
    pub(crate) fn new(routing: Routing, lacks: HashMap<String, Needs>, stats: Arc<Stats>) -> Arc<Self> {
        Arc::new(Self { routing, lacks, stats, began: Instant::now(), health: Mutex::default() })
    }

    fn now(&self) -> Moment {
        self.began.elapsed()
    }

    /// Keeps the candidates that can do all of it, and says whom that leaves out. Where nobody can, the result is what
    /// the best of them lacks.
    pub(crate) fn able(
        &self,
        candidates: &mut Vec<Candidate>,
        needs: Needs,
    ) -> Result<Vec<AccountId>, Needs> {
        if needs.is_empty() {
            return Ok(Vec::new());
        }
        let now = self.now();
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
                let (able, unable) = std::mem::take(candidates)
                    .into_iter()
                    .partition::<Vec<_>, _>(|candidate| lacking(candidate).is_empty());
                *candidates = able;
                Ok(unable.into_iter().map(|candidate| candidate.supplier).collect())
            }
        }
    }

    /// What any of the candidates can do.
    pub(crate) fn abilities(&self, candidates: &[Candidate]) -> Needs {
        let now = self.now();
        let all = self.health.lock();
        candidates.iter().fold(Needs::default(), |able, candidate| {
            let told = self.lacks.get(&candidate.model).copied().unwrap_or_default();
            let found = all.get(&(candidate.supplier, candidate.instrument));
            let lacks = found.map_or(told, |health| told.or(health.lacks(now)));
            able.or(Needs::EVERYTHING.without(lacks))
        })
    }

    /// Puts the candidates into the order in which a call tries them, and tells why, in a word and in facts.
    pub(crate) fn rank(
        &self,
        candidates: &mut Vec<Candidate>,
        issuers: &[AccountId],
        affinity: Option<u64>,
    ) -> (Why, String) {
        let now = self.now();
        let all = self.health.lock();
        let facts = |candidate: &Candidate| {
            let health = all.get(&(candidate.supplier, candidate.instrument)).copied().unwrap_or_default();
            Facts {
                supplier: candidate.supplier,
                draw: issuers.iter().position(|issuer| *issuer == candidate.supplier),
                ask: candidate.ask,
                health: health.state(now, &self.routing),
                slow: health.is_below(candidate.floors),
                load: health.load(&self.routing),
            }
        };
        let mut known: Vec<(Facts, Candidate)> =
            candidates.drain(..).map(|candidate| (facts(&candidate), candidate)).collect();
        drop(all);
        let why = choice::order(&mut known, affinity);
        let mut told = String::new();
        for (facts, candidate) in known {
            if !told.is_empty() {
                told.push_str(", ");
            }
            facts.describe(&mut told);
            candidates.push(candidate);
        }
        (why, told)
    }

    /// The candidate refused these as unsupported: calls that need them go elsewhere for a while.
    pub(crate) fn lacks(&self, candidate: &Candidate, needs: Needs) {
        let now = self.now();
        let mut all = self.health.lock();
        all.entry((candidate.supplier, candidate.instrument)).or_default().refused(needs, now);
    }

    /// A place at the candidate, unless it is full or left alone for now.
    pub(crate) fn enter(self: &Arc<Self>, candidate: &Candidate) -> Result<Slot, Shut> {
        self.admit(candidate, Health::enter)
    }

    /// A place at a candidate that is left alone for its failures, unless it is full or being probed.
    pub(crate) fn force(self: &Arc<Self>, candidate: &Candidate) -> Result<Slot, Shut> {
        self.admit(candidate, Health::force)
    }

    fn admit(
        self: &Arc<Self>,
        candidate: &Candidate,
        admit: fn(&mut Health, Moment, &Routing) -> Result<Pass, Shut>,
    ) -> Result<Slot, Shut> {
        let key = (candidate.supplier, candidate.instrument);
        let now = self.now();
        let pass = admit(self.health.lock().entry(key).or_default(), now, &self.routing)?;
        Ok(Slot {
            roster: Arc::clone(self),
            key,
            verdict: Verdict::Neutral,
            pass,
            entered: Instant::now(),
            first: None,
            pace: None,
            allowance: None,
            _one: One::of(Arc::clone(&self.stats), |stats| &stats.attempts),
        })
    }

    /// The one whose pause after failures ends soonest, where there is one.
    pub(crate) fn last_resort<'a>(&self, candidates: &'a [Candidate]) -> Option<&'a Candidate> {
        let all = self.health.lock();
        let until =
            |candidate: &Candidate| all.get(&(candidate.supplier, candidate.instrument))?.failing_until();
        candidates
            .iter()
            .filter_map(|candidate| Some((until(candidate)?, candidate)))
            .min_by_key(|(until, _)| *until)
            .map(|(_, candidate)| candidate)
    }

    /// How long the candidate lets nobody in; nothing where it would now.
    pub(crate) fn wait(&self, candidate: &Candidate) -> Option<Duration> {
        let now = self.now();
        let all = self.health.lock();
        all.get(&(candidate.supplier, candidate.instrument))?.wait(now, &self.routing, false)
    }

    /// Whether anybody could be entered now, if only as the last resort, and if not, when.
    pub(crate) fn ready(&self, candidates: &[Candidate]) -> Result<(), Duration> {
        let now = self.now();
        let all = self.health.lock();
        let wait = |candidate: &Candidate| {
            all.get(&(candidate.supplier, candidate.instrument))?.wait(now, &self.routing, true)
        };
        let mut soonest: Option<Duration> = None;
        for candidate in candidates {
            let Some(wait) = wait(candidate) else {
                return Ok(());
            };
            soonest = Some(soonest.map_or(wait, |soonest| soonest.min(wait)));
        }
        soonest.map_or(Ok(()), Err)
    }

    fn leave(&self, slot: &Slot) {
        let now = self.now();
        let mut all = self.health.lock();
        let health = all.entry(slot.key).or_default();
        if let Some(first) = slot.first {
            health.first_content(first.duration_since(slot.entered));
        }
        if let Some((tokens, time)) = slot.pace {
            health.pace(tokens, time);
        }
        health.ended(slot.pass, slot.verdict, now, &self.routing);
        if let Some(said) = slot.allowance {
            health.allow(said, now);
        }
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

    /// What it said is left of its limit, though it answers this call.
    pub(crate) fn allows(&mut self, allowance: Option<Allowance>) {
        self.allowance = allowance;
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
    use crate::health::{MEASURED_MIN, PATIENCE_MAX};
    use crate::needs::Need;

    fn candidate(supplier: u32) -> Candidate {
        Candidate {
            supplier: AccountId(supplier),
            instrument: InstrumentId(0),
            offer: 0,
            model: "m".into(),
            base_url: String::new(),
            sealed_credential: Vec::new(),
            floors: Floors { ttft_ceiling_ms: 100, tokens_per_second: 50 },
            ask: None,
        }
    }

    fn roster(failures: u32, open: Duration, concurrent: u32) -> Arc<Roster> {
        Roster::new(
            Routing {
                breaker_failures: failures,
                breaker_open: open,
                breaker_open_max: open,
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
        let (_, told) = roster.rank(&mut candidates, &issuers, None);
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
            let unable = roster.able(&mut all, needs)?;
            let able: Vec<u32> = all.iter().map(|c| c.supplier.0).collect();
            assert_eq!(able.len() + unable.len(), 2);
            Ok::<_, Needs>(able)
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
    fn patience_that_was_asked_for_outlasts_good_answers_to_earlier_calls() {
        let roster = roster(5, Duration::ZERO, 10);
        let one = candidate(1);
        let mut early = [roster.enter(&one).unwrap(), roster.enter(&one).unwrap()];
        early.iter_mut().for_each(|slot| slot.judge(Verdict::Good));
        let [first, mut last] = early;
        last.allows(Some(Allowance { calls: 0, resets: Duration::from_secs(50) }));
        drop(last);
        drop(first);
        assert!(roster.enter(&one).is_err());
        assert!(roster.force(&one).is_err());
        assert!(roster.wait(&one).is_some_and(|wait| wait > Duration::from_secs(40)));
    }

    #[test]
    fn failures_in_a_row_close_a_supplier_in_one_instrument_and_one_success_forgives_them() {
        let roster = roster(2, Duration::from_secs(3_600), 10);
        let one = candidate(1);
        for verdict in [Verdict::Bad, Verdict::Good, Verdict::Bad, Verdict::Neutral] {
            roster.enter(&one).unwrap().judge(verdict);
        }
        roster.enter(&one).unwrap().judge(Verdict::Bad);
        assert!(roster.enter(&one).is_err());
        assert!(roster.enter(&Candidate { instrument: InstrumentId(1), ..one.clone() }).is_ok());
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
        let asked = Verdict::Busy(Some(Duration::from_secs(50)));
        roster.enter(&all[2]).unwrap().judge(asked);
        assert!(roster.ready(&all).is_ok());
        assert_eq!(roster.last_resort(&all), Some(&all[1]));
        roster.force(&all[1]).unwrap().judge(Verdict::Good);
        assert!(roster.enter(&all[1]).is_ok(), "one success forgives everything");
        assert!(roster.force(&all[2]).is_err(), "who asked for patience gets it");
    }

    #[test]
    fn a_full_or_busy_supplier_is_passed_over() {
        let roster = roster(5, Duration::ZERO, 1);
        let (one, two) = (candidate(1), candidate(2));
        let slot = roster.enter(&one).unwrap();
        assert!(roster.enter(&one).is_err());
        drop(slot);
        roster.enter(&two).unwrap().judge(Verdict::Busy(Some(Duration::from_secs(9_999))));
        assert!(roster.ready(&[two]).unwrap_err() <= PATIENCE_MAX);
        assert!(roster.enter(&one).is_ok());
    }
}
