//! Terms of service: what calls, faults and probes say of a supplier, what a closed window costs it, and how it leaves
//! an instrument's roster and comes back (design §4, SLA).

use super::{Refusal, Step};
use crate::command::Usage;
use crate::event::{ChargeReason, Event, ReportBody, WindowClosed};
use crate::ids::{AccountId, InstrumentId};
use crate::instrument::QualityTerms;
use crate::reject::Reject;
use crate::sla::{Fault, SlaTerms, Waived};
use crate::state::{Closed, Delivered, Figures, Pair, Reasons, State, Timer, is_late, is_slow};
use crate::units::{Nanos, Tokens, Usd};

impl Step<'_> {
    pub(super) fn set_sla_terms(
        &mut self,
        instrument: InstrumentId,
        terms: &SlaTerms,
    ) -> Result<(), Refusal> {
        self.state.instrument(instrument).ok_or(Reject::UnknownInstrument)?;
        if !terms.are_possible() {
            return Err(Reject::OutOfRange.into());
        }
        let at = self.at;
        let record = &mut self.state.instruments[usize::from(instrument.0)];
        record.sla = *terms;
        record.updated_at = at;
        if let Some(due) = record.window_ends.take() {
            self.state.timers.remove(&(due, Timer::Window(instrument)));
        }
        let open: Vec<_> = self.services_of(instrument).collect();
        for supplier in open {
            self.state.services.open(supplier, instrument, at).window = Default::default();
        }
        self.schedule_window(instrument);
        self.review_quality_of(instrument);
        self.events.push(Event::DirectoryChanged);
        self.answer(ReportBody::Done { created: 0 });
        Ok(())
    }

    fn services_of(&self, instrument: InstrumentId) -> impl Iterator<Item = AccountId> + '_ {
        let pairs = self.state.services.iter().map(Pair::pair);
        pairs.filter(move |&(_, of)| of == instrument).map(|(supplier, _)| supplier)
    }

    /// Windows are the same for everybody: from one multiple of their length to the next.
    fn schedule_window(&mut self, instrument: InstrumentId) {
        let at = self.at;
        let record = &mut self.state.instruments[usize::from(instrument.0)];
        let length = record.sla.window.0;
        if let Some(passed) = at.0.checked_div(length) {
            let due = Nanos(passed.saturating_add(1).saturating_mul(length));
            record.window_ends = Some(due);
            self.state.timers.insert((due, Timer::Window(instrument)));
        }
    }

    /// The terms under which a supplier's service of an instrument is measured, where it is.
    fn measured(&self, instrument: InstrumentId) -> Option<(SlaTerms, &QualityTerms)> {
        let record = &self.state.instruments[usize::from(instrument.0)];
        (!record.sla.window.is_zero()).then_some((record.sla, &record.spec.quality))
    }

    /// Whether the terms let a consumer off paying for a delivery, and why.
    pub(super) fn waives(&self, instrument: InstrumentId, usage: &Usage) -> Waived {
        let record = &self.state.instruments[usize::from(instrument.0)];
        let (terms, quality) = (&record.sla, &record.spec.quality);
        if !terms.late_is_free {
            return Waived::No;
        }
        let seen = seen(usage);
        if seen.ttft_us.is_some_and(|ttft_us| is_late(ttft_us, quality, terms.late_tolerance_bps)) {
            return Waived::Late;
        }
        let from = terms.slow_is_free_from;
        let slow = |(tokens, micros)| is_slow(tokens, micros, quality, terms.late_tolerance_bps);
        if !from.is_zero() && usage.completion_tokens >= from && seen.pace.is_some_and(slow) {
            return Waived::Slow;
        }
        Waived::No
    }

    /// A call was settled: what it says of whoever delivered it.
    pub(super) fn note_delivery(
        &mut self,
        instrument: InstrumentId,
        usage: &Usage,
        billed: Tokens,
        value: Usd,
    ) {
        let record = &self.state.instruments[usize::from(instrument.0)];
        if record.sla.window.is_zero() {
            return;
        }
        let window = &mut self.state.services.open(usage.supplier, instrument, self.at).window;
        window.earn(billed, value);
        // Who left early, or was left, says nothing of speed; a supplier that cut it is reported for that.
        if !usage.partial {
            window.deliver(&record.sla, &record.spec.quality, self.at, &seen(usage));
        }
    }

    pub(super) fn report_fault(
        &mut self,
        instrument: InstrumentId,
        supplier: AccountId,
        fault: Fault,
    ) -> Result<(), Refusal> {
        self.state.instrument(instrument).ok_or(Reject::UnknownInstrument)?;
        self.state.suppliers.get(&supplier).ok_or(Reject::NotASupplier)?;
        self.note_fault(instrument, supplier, fault);
        self.answer(ReportBody::Done { created: 0 });
        Ok(())
    }

    pub(super) fn note_fault(&mut self, instrument: InstrumentId, supplier: AccountId, fault: Fault) {
        self.supply_mut(supplier, instrument).failures += 1;
        let terms = self.measured(instrument).map(|(terms, _)| terms);
        if let Some(terms) = terms {
            self.state.services.open(supplier, instrument, self.at).window.fail(&terms, self.at, fault);
        }
    }

    /// A window closes: everybody who was asked in it is judged.
    pub(super) fn close_windows(&mut self, instrument: InstrumentId) {
        self.state.instruments[usize::from(instrument.0)].window_ends = None;
        let Some((terms, _)) = self.measured(instrument) else {
            return;
        };
        let asked: Vec<_> = self.services_of(instrument).collect();
        for supplier in asked {
            let window = &mut self.state.services.open(supplier, instrument, self.at).window;
            let window = std::mem::take(window);
            if !window.is_empty() {
                self.judge(supplier, instrument, &terms, window.figures(&terms));
            }
        }
        self.schedule_window(instrument);
    }

    fn judge(&mut self, supplier: AccountId, instrument: InstrumentId, terms: &SlaTerms, figures: Figures) {
        let at = self.at;
        let broken = figures.broken.count();
        let once = figures.value.basis_points(terms.penalty_bps).0.saturating_add(terms.penalty.0);
        let penalty = Usd(once.saturating_mul(i64::from(broken)).min(crate::limits::ALL_USD.0));
        let service = self.state.services.open(supplier, instrument, at);
        let enough = u64::from(figures.calls) + u64::from(figures.faults) >= u64::from(terms.sample);
        if broken > 0 {
            service.breaches = service.breaches.saturating_add(1);
            service.breaches_total += 1;
        } else if enough {
            service.breaches = 0;
        }
        service.last = Some(Closed { at, figures, penalty });
        let breaches = service.breaches;
        let closed = WindowClosed { supplier, instrument, figures, penalty, breaches };
        self.events.push(Event::WindowClosed(Box::new(closed)));
        if !penalty.is_zero() {
            self.charge(supplier, AccountId::VENUE, instrument, Usd::ZERO, penalty, ChargeReason::Breach);
        }
        if terms.breaches_to_suspend > 0 && breaches >= terms.breaches_to_suspend {
            self.set_reasons(supplier, instrument, |why| why.breach = true);
        }
    }

    pub(super) fn report_probe(
        &mut self,
        instrument: InstrumentId,
        supplier: AccountId,
        passed: bool,
    ) -> Result<(), Refusal> {
        let record = self.state.instrument(instrument).ok_or(Reject::UnknownInstrument)?;
        self.state.suppliers.get(&supplier).ok_or(Reject::NotASupplier)?;
        let decides = record.sla.probes_to_decide;
        let at = self.at;
        self.supply_mut(supplier, instrument);
        let service = self.state.services.open(supplier, instrument, at);
        let before = if service.probes_pass == passed { service.probes } else { 0 };
        service.probes = before.saturating_add(1);
        (service.probes_pass, service.probed_at) = (passed, at);
        if decides > 0 && service.probes >= decides {
            if passed {
                service.breaches = 0;
            }
            self.set_reasons(supplier, instrument, |why| why.breach = !passed);
        }
        self.answer(ReportBody::Done { created: 0 });
        Ok(())
    }

    /// Changes why a supplier is off the roster of an instrument, and says so where it did change.
    pub(super) fn set_reasons(
        &mut self,
        supplier: AccountId,
        instrument: InstrumentId,
        change: impl FnOnce(&mut Reasons),
    ) {
        let at = self.at;
        let supply = self.supply_mut(supplier, instrument);
        let mut why = supply.standing.reasons();
        change(&mut why);
        let standing = supply.standing.for_reasons(why, at);
        if standing == supply.standing {
            return;
        }
        supply.standing = standing;
        let Reasons { breach, quality } = why;
        self.events.push(Event::StandingChanged { supplier, instrument, breach, quality });
        self.review_asks(supplier);
        if standing.is_active() {
            return;
        }
        // What it fails to deliver from now on is not evidence of anything new.
        let service = self.state.services.open(supplier, instrument, at);
        (service.probes, service.probes_pass) = (0, false);
    }

    /// After a suspension began or ended: nobody may buy on the book what its seller may not deliver, so its asks there
    /// are closed, and new ones are refused until it is back.
    pub(super) fn review_asks(&mut self, supplier: AccountId) {
        let standing = |state: &State| {
            let whole = state.suppliers.get(&supplier).is_some_and(|known| known.profile.suspended);
            whole || state.supplies.of(supplier).any(|(_, supply)| !supply.standing.is_active())
        };
        let barred = standing(self.state);
        self.state.accounts[supplier.0 as usize].watched.set_asks(barred);
        if barred {
            self.close_asks_of_suspended(supplier);
        }
    }
}

/// What a settled call lets be known. A first token at 0 was not seen: the answer came whole.
fn seen(usage: &Usage) -> Delivered {
    let timed = usage.ttft_us > 0;
    let micros = usage.duration_us.saturating_sub(usage.ttft_us);
    // The first token is what the time begins with.
    let tokens = usage.completion_tokens.0.saturating_sub(1);
    Delivered {
        ttft_us: timed.then_some(usage.ttft_us),
        pace: (timed && tokens > 0 && micros > 0 && !usage.partial).then_some((tokens, micros)),
        lied: usage.distrusted,
    }
}
