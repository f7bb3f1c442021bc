//! The terms of service of the configuration, and how they reach the log.

use grid_engine::command::Command;
use grid_engine::sla::SlaTerms;
use grid_engine::{AccountId, Engine, InstrumentId, Nanos, SECOND, Tokens};
use grid_replicator::Replica;
use serde::Deserialize;

use crate::config::{Config, dollars};
use crate::setup::{Operator, SetupError};

/// `[sla]`: the terms of every instrument that is defined from the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sla {
    window_seconds: u64,
    sample: u32,
    ttft_percentile_bps: u16,
    pace_percentile_bps: u16,
    error_max_bps: u16,
    uptime_min_bps: u16,
    penalty_bps: u16,
    penalty_usd: String,
    breaches_to_suspend: u8,
    probes_to_decide: u8,
    late_is_free: bool,
    late_tolerance_bps: u16,
    slow_is_free_from_tokens: u64,
    collateral_per_unit_usd: String,
    cover_penalty_bps: u16,
    cover_ceiling_bps: u32,
    attested: bool,
}

impl Sla {
    /// The engine's form.
    pub(crate) fn terms(&self) -> Result<SlaTerms, String> {
        Ok(SlaTerms {
            window: Nanos(self.window_seconds.saturating_mul(SECOND)),
            sample: self.sample,
            ttft_percentile_bps: self.ttft_percentile_bps,
            pace_percentile_bps: self.pace_percentile_bps,
            error_max_bps: self.error_max_bps,
            uptime_min_bps: self.uptime_min_bps,
            penalty_bps: self.penalty_bps,
            penalty: dollars(&self.penalty_usd)?,
            breaches_to_suspend: self.breaches_to_suspend,
            probes_to_decide: self.probes_to_decide,
            late_is_free: self.late_is_free,
            late_tolerance_bps: self.late_tolerance_bps,
            slow_is_free_from: Tokens(self.slow_is_free_from_tokens),
            collateral_per_unit: dollars(&self.collateral_per_unit_usd)?,
            cover_penalty_bps: self.cover_penalty_bps,
            cover_ceiling_bps: self.cover_ceiling_bps,
            attested: self.attested,
        })
    }
}

/// Whether an instrument waits for the configured terms.
pub(crate) fn lacks_terms(replica: &Replica<Engine>, config: &Config) -> bool {
    config.sla.terms() != Ok(SlaTerms::NONE) && !without_terms(replica, config).is_empty()
}

/// The configured instruments for which nobody has set any terms since they were defined.
fn without_terms(replica: &Replica<Engine>, config: &Config) -> Vec<InstrumentId> {
    replica.read(|engine| {
        let state = engine.state();
        let records = config.instruments.iter().filter_map(|terms| state.instrument_by_symbol(&terms.symbol));
        let untouched =
            records.filter(|record| record.sla == SlaTerms::NONE && record.updated_at == record.created_at);
        untouched.map(|record| record.id).collect()
    })
}

/// Sets the configured terms where there are none.
pub(crate) fn set_terms(operator: &Operator<'_>, config: &Config) -> Result<(), SetupError> {
    let terms = config.sla.terms().map_err(SetupError::Config)?;
    if terms == SlaTerms::NONE {
        return Ok(());
    }
    let own = AccountId(operator.client.account());
    for instrument in without_terms(operator.replica, config) {
        let command = Command::SetSlaTerms { instrument, terms: Box::new(terms) };
        operator.command("set terms of service", own, &command)?;
    }
    Ok(())
}
