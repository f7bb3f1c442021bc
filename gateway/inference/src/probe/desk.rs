//! Where probes are asked for: who is to be tried in what, one probe of a supplier at a time and few at once.

use std::collections::BTreeSet;
use std::sync::Arc;

use grid_engine::instrument::QualityTerms;
use grid_engine::{AccountId, InstrumentId};
use parking_lot::Mutex;

use super::Probing;
use super::asking::Target;
use super::report::ProbeReport;
use super::suite::Suite;
use crate::server::Tier;

/// Probes that one tier makes at once.
const AT_ONCE: usize = 4;

/// The pairs that are being probed.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    busy: Mutex<BTreeSet<(AccountId, InstrumentId)>>,
}

/// Why there was no probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unprobed {
    #[error("unknown instrument")]
    UnknownInstrument,
    #[error("that account offers no model for this instrument")]
    NoOffer,
    #[error("the supplier's credential can't be opened with this venue's key")]
    Sealed,
    #[error("this supplier is being probed already, or too many others are")]
    Busy,
}

/// A place at the desk.
struct Place<'a> {
    desk: &'a Desk,
    pair: (AccountId, InstrumentId),
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.desk.busy.lock().remove(&self.pair);
    }
}

impl Desk {
    fn enter(&self, pair: (AccountId, InstrumentId)) -> Result<Place<'_>, Unprobed> {
        let mut busy = self.busy.lock();
        if busy.len() >= AT_ONCE || !busy.insert(pair) {
            return Err(Unprobed::Busy);
        }
        Ok(Place { desk: self, pair })
    }

    /// Probes every model that the supplier offers for the instrument, whether or not it is on the roster.
    pub(crate) async fn probe(
        &self,
        tier: &Arc<Tier>,
        supplier: AccountId,
        instrument: InstrumentId,
        probing: Probing,
    ) -> Result<ProbeReport, Unprobed> {
        let place = self.enter((supplier, instrument))?;
        let found = tier.directory.read(|state| {
            let spec = &state.instruments.get(usize::from(instrument.0))?.spec;
            let profile = state.suppliers.get(&supplier).map(|one| one.profile.clone());
            Some((spec.symbol.clone(), spec.quality.clone(), profile))
        });
        let (symbol, quality, profile) = found.ok_or(Unprobed::UnknownInstrument)?;
        let profile = profile.ok_or(Unprobed::NoOffer)?;
        let credential = match profile.sealed_credential.as_slice() {
            [] => Vec::new(),
            sealed => tier.config.venue_key.unseal(sealed).map_err(|_| Unprobed::Sealed)?,
        };
        let offers = profile.offers.iter().filter(|offer| offer.instrument == instrument);
        let mut models = Vec::new();
        for offer in offers {
            models.push(one(tier, &profile.base_url, &credential, &offer.model, &quality, probing).await);
        }
        drop(place);
        if models.is_empty() {
            return Err(Unprobed::NoOffer);
        }
        let passed = models.iter().all(|model| model.passed);
        Ok(ProbeReport { supplier: supplier.0, instrument: symbol, models, passed })
    }
}

async fn one(
    tier: &Arc<Tier>,
    base_url: &str,
    credential: &[u8],
    model: &str,
    quality: &QualityTerms,
    probing: Probing,
) -> super::ModelReport {
    let target = Target {
        upstream: &tier.upstream,
        metering: tier.config.metering,
        base_url,
        credential,
        model,
        idle: tier.config.clocks.idle,
    };
    let lacks = tier.config.lacks.get(model).copied().unwrap_or_default();
    Suite::new(target, quality, lacks, probing).run().await
}
