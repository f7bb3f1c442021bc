//! Which supplier gets the call.
//!
//! Issuers of the reserved tokens come first, in the order of the draws: they owe the delivery. Then everybody else
//! who offers the instrument, by account. A supplier that failed several times in a row is left alone for a while and
//! then probed with one call; one that is full, or asked for patience, is passed over. When that leaves nobody, the
//! one that was left alone for longest gets the call after all: a supplier that may have recovered is better than none.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use grid_engine::state::State;
use grid_engine::{AccountId, InstrumentId};
use parking_lot::Mutex;

use crate::config::Routing;

/// Longest pause that a supplier's `Retry-After` can ask for.
const PATIENCE_MAX: Duration = Duration::from_secs(60);

/// A supplier's model that may serve the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) supplier: AccountId,
    pub(crate) instrument: InstrumentId,
    pub(crate) model: String,
    pub(crate) base_url: String,
    pub(crate) sealed_credential: Vec<u8>,
}

/// Everybody who offers the instrument and is not suspended, by account.
pub(crate) fn offers(state: &State, instrument: InstrumentId) -> Vec<Candidate> {
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
            })
        })
        .collect()
}

/// Issuers first, in their order; the others keep theirs.
pub(crate) fn issuers_first(candidates: &mut [Candidate], issuers: &[AccountId]) {
    candidates.sort_by_key(|candidate| {
        issuers.iter().position(|issuer| *issuer == candidate.supplier).unwrap_or(usize::MAX)
    });
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
}

/// A place at a supplier, given back when the attempt is over.
#[derive(Debug)]
pub(crate) struct Slot {
    roster: Arc<Roster>,
    key: (AccountId, InstrumentId),
    verdict: Verdict,
}

impl Roster {
    pub(crate) fn new(routing: Routing) -> Arc<Self> {
        Arc::new(Self { routing, health: Mutex::default() })
    }

    /// A place at the candidate, unless it is full or left alone for now.
    pub(crate) fn enter(self: &Arc<Self>, candidate: &Candidate) -> Option<Slot> {
        let key = (candidate.supplier, candidate.instrument);
        let mut all = self.health.lock();
        let health = all.entry(key).or_default();
        if health.in_flight >= self.routing.supplier_concurrent {
            return None;
        }
        if let Some(until) = health.closed_until {
            if health.probing || Instant::now() < until {
                return None;
            }
            health.probing = true;
        }
        health.in_flight += 1;
        Some(Slot { roster: Arc::clone(self), key, verdict: Verdict::Neutral })
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
        if health.asked || health.in_flight >= self.routing.supplier_concurrent {
            return None;
        }
        health.in_flight += 1;
        Some(Slot { roster: Arc::clone(self), key, verdict: Verdict::Neutral })
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
                _ if health.in_flight >= self.routing.supplier_concurrent => Duration::from_millis(100),
                _ => return Ok(()),
            };
            soonest = if at == 0 { wait } else { soonest.min(wait) };
        }
        Err(soonest)
    }

    fn leave(&self, key: (AccountId, InstrumentId), verdict: Verdict) {
        let mut all = self.health.lock();
        let health = all.entry(key).or_default();
        health.in_flight -= 1;
        let was_probe = std::mem::take(&mut health.probing);
        match verdict {
            Verdict::Good => *health = Health { in_flight: health.in_flight, ..Health::default() },
            Verdict::Bad => {
                health.failures += 1;
                if was_probe || health.failures >= self.routing.breaker_failures {
                    health.closed_until = Some(Instant::now() + self.routing.breaker_open);
                    health.asked = false;
                }
            }
            Verdict::Busy(pause) => {
                health.closed_until = Some(Instant::now() + pause.min(PATIENCE_MAX));
                health.asked = true;
            }
            Verdict::Neutral => {}
        }
    }
}

impl Slot {
    /// What will be remembered when the slot is given back.
    pub(crate) fn judge(&mut self, verdict: Verdict) {
        self.verdict = verdict;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.roster.leave(self.key, self.verdict);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(supplier: u32) -> Candidate {
        Candidate {
            supplier: AccountId(supplier),
            instrument: InstrumentId(0),
            model: "m".into(),
            base_url: String::new(),
            sealed_credential: Vec::new(),
        }
    }

    fn roster(failures: u32, open: Duration, concurrent: u32) -> Arc<Roster> {
        Roster::new(Routing {
            breaker_failures: failures,
            breaker_open: open,
            supplier_concurrent: concurrent,
            ..Routing::default()
        })
    }

    #[test]
    fn issuers_come_first_in_the_order_of_the_draws() {
        let mut candidates: Vec<_> = (1..=4).map(candidate).collect();
        issuers_first(&mut candidates, &[AccountId(3), AccountId(9), AccountId(2)]);
        let order: Vec<u32> = candidates.iter().map(|c| c.supplier.0).collect();
        assert_eq!(order, [3, 2, 1, 4]);
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
