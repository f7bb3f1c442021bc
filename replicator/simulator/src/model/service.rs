//! Terms of service in the second bookkeeper: what windows add up to, who is off which roster, and what closes with that.

use std::collections::BTreeMap;

use grid_engine::command::Side;
use grid_engine::event::Closure;
use grid_engine::sla::{Attestation, Fault, SlaTerms};
use grid_engine::state::State;
use grid_engine::{AccountId, InstrumentId, Reject, limits};

use super::{Answer, Model};

/// Parts of a window in which a supplier was asked, or served.
const PARTS: u64 = 60;

#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    calls: u64,
    faults: u64,
    overloaded: u64,
    lies: u64,
    value: i64,
    /// By part: asked, and whether it served.
    parts: BTreeMap<u64, bool>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Service {
    window: Window,
    breaches: u8,
    probes: u8,
    passed: bool,
}

/// Why somebody is off a roster: breach, quality.
type Reasons = (bool, bool);

/// What the second bookkeeper knows of service.
#[derive(Clone, Debug, Default)]
pub(super) struct Book {
    /// In the order in which they began.
    services: Vec<((u32, u16), Service)>,
    standing: BTreeMap<(u32, u16), Reasons>,
    attested: BTreeMap<(u32, u16, String), u64>,
    /// When attestations end, those that were replaced too.
    ends: Vec<(u64, u32, u16)>,
}

impl Book {
    pub(super) fn is_suspended(&self, who: u32, instrument: InstrumentId) -> bool {
        self.standing.get(&(who, instrument.0)).is_some_and(|why| *why != (false, false))
    }

    fn service(&mut self, who: u32, instrument: InstrumentId) -> &mut Service {
        let key = (who, instrument.0);
        let at = self.services.iter().position(|(pair, _)| *pair == key).unwrap_or_else(|| {
            self.services.push((key, Service::default()));
            self.services.len() - 1
        });
        &mut self.services[at].1
    }

    pub(super) fn ends(&self) -> impl Iterator<Item = (u64, u32, u16)> + '_ {
        self.ends.iter().copied()
    }
}

impl Window {
    fn mark(&mut self, at: u64, terms: &SlaTerms, served: bool) {
        let length = terms.window.0;
        let part = at % length / length.div_ceil(PARTS);
        *self.parts.entry(part).or_default() |= served;
    }

    fn broken(&self, terms: &SlaTerms) -> u8 {
        if self.calls + self.faults < u64::from(terms.sample) {
            return 0;
        }
        let errors = self.faults - self.overloaded + self.lies;
        let judged = self.calls + self.faults - self.overloaded;
        let served = self.parts.values().filter(|served| **served).count() as u64;
        let failing = errors * 10_000 > judged * u64::from(terms.error_max_bps);
        let away = served * 10_000 < self.parts.len() as u64 * u64::from(terms.uptime_min_bps);
        u8::from(failing) + u8::from(away)
    }
}

impl Model {
    pub(super) fn set_sla_terms(
        &mut self,
        instrument: InstrumentId,
        terms: &SlaTerms,
    ) -> Result<Answer, Reject> {
        self.market(instrument)?;
        // The only impossible ones that clients send.
        if terms.error_max_bps > 10_000 {
            return Err(Reject::OutOfRange);
        }
        self.markets[usize::from(instrument.0)].sla = *terms;
        for (_, service) in self.service.services.iter_mut().filter(|(pair, _)| pair.1 == instrument.0) {
            service.window = Window::default();
        }
        self.schedule_window(instrument);
        self.review_quality_of(instrument);
        Ok(Answer::Done(0))
    }

    fn schedule_window(&mut self, instrument: InstrumentId) {
        let at = self.at;
        let market = &mut self.markets[usize::from(instrument.0)];
        market.window_ends =
            at.checked_div(market.sla.window.0).map(|passed| (passed + 1) * market.sla.window.0);
    }

    pub(super) fn report_fault(
        &mut self,
        instrument: InstrumentId,
        supplier: u32,
        fault: Fault,
    ) -> Result<Answer, Reject> {
        self.market(instrument)?;
        self.supplier(supplier)?;
        self.note_fault(instrument, supplier, fault);
        Ok(Answer::Done(0))
    }

    pub(super) fn supplier(&self, who: u32) -> Result<(), Reject> {
        let known = self.accounts.get(who as usize).is_some_and(|account| account.supplier);
        if known { Ok(()) } else { Err(Reject::NotASupplier) }
    }

    pub(super) fn note_fault(&mut self, instrument: InstrumentId, supplier: u32, fault: Fault) {
        let (at, terms) = (self.at, self.markets[usize::from(instrument.0)].sla);
        if terms.window.0 > 0 {
            let window = &mut self.service.service(supplier, instrument).window;
            window.mark(at, &terms, false);
            window.faults += 1;
            window.overloaded += u64::from(fault == Fault::Overloaded);
        }
    }

    /// Nothing is late or slow here: no instrument promises any speed.
    pub(super) fn note_delivery(
        &mut self,
        instrument: InstrumentId,
        supplier: u32,
        partial: bool,
        lied: bool,
        value: i64,
    ) {
        let (at, terms) = (self.at, self.markets[usize::from(instrument.0)].sla);
        if terms.window.0 == 0 {
            return;
        }
        let window = &mut self.service.service(supplier, instrument).window;
        window.value += value;
        if !partial {
            window.mark(at, &terms, true);
            window.calls += 1;
            window.lies += u64::from(lied);
        }
    }

    pub(super) fn close_window(&mut self, instrument: InstrumentId) {
        let terms = self.markets[usize::from(instrument.0)].sla;
        let measured = self.service.services.iter().map(|(pair, _)| *pair);
        let measured: Vec<_> = measured.filter(|pair| pair.1 == instrument.0).collect();
        for (supplier, _) in measured {
            let service = self.service.service(supplier, instrument);
            let window = std::mem::take(&mut service.window);
            if window.parts.is_empty() {
                continue;
            }
            let broken = window.broken(&terms);
            if broken > 0 {
                service.breaches = service.breaches.saturating_add(1);
            } else if window.calls + window.faults >= u64::from(terms.sample) {
                service.breaches = 0;
            }
            let breaches = service.breaches;
            let share = i128::from(window.value) * i128::from(terms.penalty_bps) / 10_000;
            let penalty = (share + i128::from(terms.penalty.0)) * i128::from(broken);
            let penalty = penalty.min(limits::ALL_USD.0.into()) as i64;
            if penalty > 0 {
                self.charge(supplier, 0, instrument, penalty);
            }
            if terms.breaches_to_suspend > 0 && breaches >= terms.breaches_to_suspend {
                self.set_reasons(supplier, instrument, |why| why.0 = true);
            }
        }
        self.schedule_window(instrument);
    }

    pub(super) fn report_probe(
        &mut self,
        instrument: InstrumentId,
        supplier: u32,
        passed: bool,
    ) -> Result<Answer, Reject> {
        let decides = self.market(instrument)?.sla.probes_to_decide;
        self.supplier(supplier)?;
        let service = self.service.service(supplier, instrument);
        service.probes = if service.passed == passed { service.probes.saturating_add(1) } else { 1 };
        service.passed = passed;
        if decides > 0 && service.probes >= decides {
            if passed {
                service.breaches = 0;
            }
            self.set_reasons(supplier, instrument, |why| why.0 = !passed);
        }
        Ok(Answer::Done(0))
    }

    fn set_reasons(&mut self, supplier: u32, instrument: InstrumentId, change: impl FnOnce(&mut Reasons)) {
        let why = self.service.standing.entry((supplier, instrument.0)).or_default();
        let before = *why;
        change(why);
        let after = *why;
        if after == before {
            return;
        }
        if after != (false, false) {
            let asks = |order: &crate::naive::Order, at: u16| {
                order.account.0 == supplier && order.side == Side::Sell && at == instrument.0
            };
            self.close_where(asks, Closure::Suspended);
            let service = self.service.service(supplier, instrument);
            (service.probes, service.passed) = (0, false);
        }
    }

    // -- quality ----------------------------------------------------------------------------------------------

    /// The model that every supplier offers for every instrument.
    const MODEL: &str = "m";

    pub(super) fn attest(&mut self, who: u32, statement: &Attestation) -> Result<Answer, Reject> {
        let (supplier, instrument) = (statement.supplier.0, statement.instrument);
        if self.keys.get(&statement.key) != Some(&who) {
            return Err(Reject::UnknownKey);
        }
        self.market(instrument)?;
        self.supplier(supplier)?;
        if statement.valid_until.0 <= self.at {
            return Err(Reject::OutOfRange);
        }
        if statement.model != Self::MODEL {
            return Err(Reject::InvalidText);
        }
        // Whoever sends a bad signature sends this one.
        if statement.signature == [0; 64] {
            return Err(Reject::BadSignature);
        }
        let valid_until = statement.valid_until.0;
        self.service.attested.insert((supplier, instrument.0, statement.model.clone()), valid_until);
        self.service.ends.push((valid_until, supplier, instrument.0));
        self.review_quality(supplier, instrument);
        Ok(Answer::Done(0))
    }

    pub(super) fn attestation_ends(&mut self, supplier: u32, instrument: u16) {
        let at = self.at;
        let ends = |&(until, who, of): &(u64, u32, u16)| until <= at && (who, of) == (supplier, instrument);
        self.service.ends.retain(|end| !ends(end));
        self.review_quality(supplier, InstrumentId(instrument));
    }

    fn review_quality_of(&mut self, instrument: InstrumentId) {
        let suppliers = (0..).zip(&self.accounts).filter(|(_, account)| account.supplier).map(|(who, _)| who);
        for who in suppliers.collect::<Vec<_>>() {
            self.review_quality(who, instrument);
        }
    }

    /// No floor is set, so an attestation of any score does.
    fn review_quality(&mut self, supplier: u32, instrument: InstrumentId) {
        let demanded = self.markets[usize::from(instrument.0)].sla.attested;
        let until = self.service.attested.get(&(supplier, instrument.0, Self::MODEL.to_owned()));
        let unfit = demanded && until.is_none_or(|until| *until <= self.at);
        if self.service.standing.get(&(supplier, instrument.0)).is_some_and(|why| why.1) != unfit {
            self.set_reasons(supplier, instrument, |why| why.1 = unfit);
        }
    }

    // -- comparing --------------------------------------------------------------------------------------------

    pub(super) fn compare_service(&self, state: &State) -> Result<(), String> {
        for (&(who, instrument), &why) in &self.service.standing {
            let supply = state.supplies.get(AccountId(who), InstrumentId(instrument));
            let found = supply.map(|supply| supply.standing.reasons()).unwrap_or_default();
            if (found.breach, found.quality) != why {
                return Err(format!(
                    "after command {} the model has supplier {who} off instrument {instrument} for {why:?}, the engine {found:?}",
                    self.seq
                ));
            }
        }
        for ((who, instrument), service) in &self.service.services {
            let found = state.services.get(AccountId(*who), InstrumentId(*instrument));
            let told = found.map_or((0, 0, 0), |found| (found.breaches, found.probes, found.window.value.0));
            let own = (service.breaches, service.probes, service.window.value);
            if own != told {
                return Err(format!(
                    "after command {} the model has breaches, probes and value {own:?} of supplier {who} in {instrument}, the engine {told:?}",
                    self.seq
                ));
            }
        }
        Ok(())
    }
}
