//! The task that brings suspended suppliers back: it probes whoever is off a roster for breaking its terms, one probe
//! after the other, with pauses that grow while probes fail, and tells the venue what came of each. The venue decides
//! how many it takes. It looks when the venue has news of standings and offers, and when a probe is due.
//!
//! Every tier may run it. What another tier has just probed is left alone, by the time that the venue's state gives for
//! the last probe; where two probe at once all the same, the venue hears of two probes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use grid_engine::state::State;
use grid_engine::{AccountId, InstrumentId, Nanos};
use tokio::sync::watch;

use crate::server::Tier;

type Pair = (AccountId, InstrumentId);

/// When suspended suppliers are probed.
#[derive(Clone, Copy, Debug)]
pub struct Pauses {
    /// The state is looked at for them whenever it has news, and after this long without any.
    pub look: Duration,
    /// From a suspension to the first probe, and from one that was passed to the next.
    pub first: Duration,
    /// From a probe that was failed to the next, at most; the pause doubles up to this.
    pub longest: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self {
            look: Duration::from_secs(60),
            first: Duration::from_secs(60),
            longest: Duration::from_secs(3_600),
        }
    }
}

/// Probes until the tier stops.
pub(crate) async fn run(tier: Arc<Tier>, pauses: Pauses, mut stopped: watch::Receiver<bool>) {
    let mut pace = Pace { pauses, due: BTreeMap::new() };
    let mut news = tier.directory.news();
    let required = tier.config.probing.required;
    loop {
        news.mark_unchanged();
        let off = tier.directory.read(|state| wanted(state, required));
        if let Some(pair) = pace.next(&off, now()) {
            let probe = tier.desk.probe(&tier, pair.0, pair.1, tier.config.probing);
            let made = tokio::select! {
                biased;
                _ = stopped.wait_for(|stop| *stop) => return,
                made = probe => made,
            };
            pace.went(pair, made.as_ref().is_ok_and(|report| report.passed), now());
            match made {
                Ok(report) => tell(&tier, pair, report.passed).await,
                // Nothing was asked, so there is nothing to tell.
                Err(why) => tracing::warn!(supplier = pair.0.0, %why, "not probed"),
            }
            continue;
        }
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stop| *stop) => return,
            Ok(()) = news.changed() => {}
            () = tokio::time::sleep(pace.rest(now())) => {}
        }
    }
}

async fn tell(tier: &Tier, (supplier, instrument): Pair, passed: bool) {
    tracing::info!(supplier = supplier.0, passed, "probed");
    if let Err(error) = tier.bureau.door.report_probe(instrument, supplier, passed).await {
        tracing::warn!(supplier = supplier.0, %error, "a probe could not be reported");
    }
}

/// Whether the last probe of the supplier was passed.
pub(crate) fn is_proven(state: &State, supplier: AccountId, instrument: InstrumentId) -> bool {
    state.services.get(supplier, instrument).is_some_and(|service| service.probes_pass)
}

/// Who is off a roster for a breach, or has yet to pass a first probe, with the time of the last one.
fn wanted(state: &State, required: bool) -> BTreeMap<Pair, Nanos> {
    let mut wanted = BTreeMap::new();
    for (supplier, one) in &state.suppliers {
        if one.profile.suspended {
            continue;
        }
        for offer in &one.profile.offers {
            let service = state.services.get(*supplier, offer.instrument);
            let standing = state.supplies.get(*supplier, offer.instrument).map(|supply| supply.standing);
            let off = standing.is_some_and(|standing| standing.reasons().breach);
            let unproven = required && !is_proven(state, *supplier, offer.instrument);
            if off || unproven {
                let last = service.map_or(Nanos::ZERO, |service| service.probed_at);
                wanted.insert((*supplier, offer.instrument), last);
            }
        }
    }
    wanted
}

/// Who is due when.
struct Pace {
    pauses: Pauses,
    /// The next probe of a pair, and the pause before it.
    due: BTreeMap<Pair, (Nanos, Duration)>,
}

impl Pace {
    /// One of the wanted that is due. Those no longer wanted are forgotten; those that are new wait for the first pause.
    fn next(&mut self, wanted: &BTreeMap<Pair, Nanos>, now: Nanos) -> Option<Pair> {
        self.due.retain(|pair, _| wanted.contains_key(pair));
        let first = self.pauses.first;
        for (pair, last) in wanted {
            let (due, pause) = self.due.entry(*pair).or_insert((after(now, first), first));
            // Somebody else has tried it since.
            *due = (*due).max(after(*last, *pause));
        }
        self.due
            .iter()
            .filter(|(_, (due, _))| *due <= now)
            .min_by_key(|(_, (due, _))| *due)
            .map(|(pair, _)| *pair)
    }

    /// Until the next probe is due, or the state is to be looked at in any case.
    fn rest(&self, now: Nanos) -> Duration {
        let next = self.due.values().map(|(due, _)| due.0.saturating_sub(now.0)).min();
        next.map_or(self.pauses.look, |nanos| Duration::from_nanos(nanos).min(self.pauses.look))
    }

    fn went(&mut self, pair: Pair, passed: bool, now: Nanos) {
        let before = self.due.get(&pair).map_or(self.pauses.first, |(_, pause)| *pause);
        let pause = if passed { self.pauses.first } else { (before * 2).min(self.pauses.longest) };
        self.due.insert(pair, (after(now, pause), pause));
    }
}

fn after(moment: Nanos, pause: Duration) -> Nanos {
    Nanos(moment.0.saturating_add(u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX)))
}

fn now() -> Nanos {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = grid_engine::SECOND;

    #[test]
    fn pauses_grow_while_probes_fail_and_shrink_when_one_is_passed() {
        let pauses = Pauses {
            look: Duration::from_secs(1),
            first: Duration::from_secs(10),
            longest: Duration::from_secs(35),
        };
        let mut pace = Pace { pauses, due: BTreeMap::new() };
        let pair = (AccountId(2), InstrumentId(0));
        let wanted = BTreeMap::from([(pair, Nanos::ZERO)]);
        let mut at = 0;
        let mut probed = Vec::new();
        while probed.len() < 6 {
            if pace.next(&wanted, Nanos(at * SECOND)).is_some() {
                probed.push(at);
                pace.went(pair, probed.len() == 5, Nanos(at * SECOND));
            }
            at += 1;
        }
        assert_eq!(probed, [10, 30, 65, 100, 135, 145]);
    }

    #[test]
    fn what_another_tier_has_just_probed_is_left_alone_and_what_came_back_is_forgotten() {
        let pauses = Pauses { first: Duration::from_secs(10), ..Pauses::default() };
        let mut pace = Pace { pauses, due: BTreeMap::new() };
        let pair = (AccountId(2), InstrumentId(0));
        let at = |seconds: u64| Nanos(seconds * SECOND);
        assert_eq!(pace.next(&BTreeMap::from([(pair, at(0))]), at(100)), None);
        assert_eq!(pace.next(&BTreeMap::from([(pair, at(105))]), at(111)), None);
        assert_eq!(pace.rest(at(111)), Duration::from_secs(4), "it looks again when the probe is due");
        assert_eq!(pace.next(&BTreeMap::from([(pair, at(105))]), at(115)), Some(pair));
        assert_eq!(pace.next(&BTreeMap::new(), at(116)), None);
        assert!(pace.due.is_empty());
        assert_eq!(pace.rest(at(116)), pauses.look);
    }
}
