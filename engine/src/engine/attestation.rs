//! Who may state the quality of models, what they stated, and what follows: a model that is not good enough, or that
//! nobody vouches for where somebody must, takes its supplier off the instrument's roster until that changes.

use super::{Refusal, Step};
use crate::event::{Event, ReportBody};
use crate::ids::{AccountId, InstrumentId};
use crate::limits;
use crate::reject::Reject;
use crate::sla::Attestation;
use crate::state::{Attested, Timer};

impl Step<'_> {
    pub(super) fn set_benchmark(&mut self, allowed: bool) -> Result<(), Refusal> {
        self.account_mut(self.account).benchmark = allowed;
        self.events.push(Event::DirectoryChanged);
        self.answer(ReportBody::Done { created: 0 });
        Ok(())
    }

    /// Accepts an attestation of a model that is on offer. Its signature is checked here, where it becomes state, so
    /// every replica has checked it; the state keeps all that anybody needs to check it again.
    pub(super) fn attest(&mut self, statement: &Attestation) -> Result<(), Refusal> {
        let (supplier, instrument) = (statement.supplier, statement.instrument);
        let keys = &self.state.signing_keys;
        let key = keys.get(&statement.key).filter(|key| key.active && key.account == self.account);
        let public_key = key.ok_or(Reject::UnknownKey)?.public_key;
        let spec = &self.state.instrument(instrument).ok_or(Reject::UnknownInstrument)?.spec;
        let known = self.state.suppliers.get(&supplier).ok_or(Reject::NotASupplier)?;
        if statement.valid_until <= self.at {
            return Err(Reject::OutOfRange.into());
        }
        let mut offers = known.profile.offers.iter();
        if !offers.any(|offer| offer.instrument == instrument && offer.model == statement.model) {
            return Err(Reject::InvalidText.into());
        }
        if !statement.is_signed_by(&public_key, &spec.symbol, &spec.quality.index) {
            return Err(Reject::BadSignature.into());
        }
        let place = (supplier, instrument, statement.model.clone());
        let attestations = &mut self.state.attestations;
        if attestations.len() >= limits::ATTESTATIONS && !attestations.contains_key(&place) {
            return Err(Reject::LimitReached.into());
        }
        let attested = Attested { by: self.account, at: self.at, statement: statement.clone() };
        attestations.insert(place, attested);
        self.state.timers.insert((statement.valid_until, Timer::Attestation(supplier, instrument)));
        self.review_quality(supplier, instrument);
        self.events.push(Event::DirectoryChanged);
        self.answer(ReportBody::Done { created: 0 });
        Ok(())
    }

    /// Looks again at everybody who offers an instrument, after its floor or its terms changed.
    pub(super) fn review_quality_of(&mut self, instrument: InstrumentId) {
        let suppliers: Vec<_> = self.state.suppliers.keys().copied().collect();
        for supplier in suppliers {
            self.review_quality(supplier, instrument);
        }
    }

    /// Looks again at all that a supplier offers, and forgets what was said of what it no longer offers.
    pub(super) fn review_offers(&mut self, supplier: AccountId) {
        let offers = &self.state.suppliers[&supplier].profile.offers;
        let offered = |instrument, model: &str| {
            offers.iter().any(|offer| offer.instrument == instrument && offer.model == model)
        };
        let mine =
            (supplier, InstrumentId(0), String::new())..=(supplier, InstrumentId(u16::MAX), String::new());
        let gone = self.state.attestations.range(mine).map(|(key, _)| key);
        let gone: Vec<_> = gone.filter(|key| !offered(key.1, &key.2)).cloned().collect();
        for key in gone {
            self.state.attestations.remove(&key);
        }
        for instrument in 0..self.state.instruments.len() {
            self.review_quality(supplier, InstrumentId(instrument as u16));
        }
    }

    /// Takes a supplier off the roster, or lets it back, for the quality of the models that it offers. Every one of them
    /// must do, since any of them may get a call.
    pub(super) fn review_quality(&mut self, supplier: AccountId, instrument: InstrumentId) {
        let record = &self.state.instruments[usize::from(instrument.0)];
        let (floor, demanded) = (record.spec.quality.score_floor, record.sla.attested);
        let Some(known) = self.state.suppliers.get(&supplier) else {
            return;
        };
        let unfit = known.profile.offers.iter().filter(|offer| offer.instrument == instrument).any(|offer| {
            let found = self.state.attestations.get(&(supplier, instrument, offer.model.clone()));
            match found.filter(|found| found.statement.valid_until > self.at) {
                Some(found) => found.statement.score < floor,
                None => demanded,
            }
        });
        let standing = self.state.supplies.get(supplier, instrument).map(|supply| supply.standing);
        if standing.unwrap_or_default().reasons().quality != unfit {
            self.set_reasons(supplier, instrument, |why| why.quality = unfit);
        }
    }
}
