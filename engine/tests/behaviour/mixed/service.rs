//! Random commands about service, sensible and not.

use ed25519_dalek::{Signer, SigningKey};
use grid_engine::command::Command;
use grid_engine::sla::{Attestation, Fault, SlaTerms};
use grid_engine::{AccountId, Fingerprint, InstrumentId, Nanos, Price, Qty, SECOND, Tokens, Usd};

use super::{HOUR, World};
use crate::venue::Venue;

/// With what the benchmark provider signs.
fn benchmark_key() -> SigningKey {
    SigningKey::from_bytes(&[42; 32])
}

/// Makes an account a benchmark provider.
pub(super) fn set_up(venue: &mut Venue, benchmark: AccountId) {
    let public_key = benchmark_key().verifying_key().to_bytes();
    venue.operate(benchmark, Command::AddSigningKey { public_key, label: String::new() });
    venue.operate(benchmark, Command::SetBenchmark { allowed: true });
}

impl World {
    pub(super) fn terms(&mut self) -> SlaTerms {
        SlaTerms {
            window: Nanos(*self.dice.pick(&[0, 60 * SECOND, 120 * SECOND, 120 * SECOND])),
            sample: self.dice.below(3) as u32,
            penalty_bps: self.dice.below(2_000) as u16,
            penalty: Usd(*self.dice.pick(&[0, 0, 10_000_000, 100_000_000, 300_000_000_000])),
            breaches_to_suspend: *self.dice.pick(&[0, 0, 3]),
            probes_to_decide: self.dice.below(3) as u8,
            late_is_free: self.dice.chance(3, 4),
            slow_is_free_from: Tokens(self.dice.below(3) * 1_000),
            collateral_per_unit: Usd(*self.dice.pick(&[0, 0, 0, 0, 1_000_000, 5_000_000_000])),
            cover_penalty_bps: self.dice.below(3_000) as u16,
            cover_ceiling_bps: *self.dice.pick(&[0, 10_000, 20_000]),
            attested: self.dice.chance(1, 20),
            error_max_bps: *self.dice.pick(&[0, 500, 10_000, 10_001]),
            ..SlaTerms::default()
        }
    }

    /// From whom, for which account, what.
    pub(super) fn service_command(
        &mut self,
        instrument: InstrumentId,
        supplier: AccountId,
    ) -> (usize, AccountId, Command) {
        let last = self.actors.len() - 1;
        let (tier, operator) = (last - 1, last);
        let by = self.actors[self.dice.below(last as u64 + 1) as usize].account;
        let own = self.actors[tier].account;
        match self.dice.below(12) {
            0..=3 => {
                let fault = *self.dice.pick(&Fault::ALL);
                let supplier = if self.dice.chance(1, 20) { by } else { supplier };
                (tier, own, Command::ReportFault { instrument, supplier, fault })
            }
            4 | 5 => {
                let passed = self.dice.chance(4, 5);
                (tier, own, Command::ReportProbe { instrument, supplier, passed })
            }
            6 => {
                let terms = Box::new(self.terms());
                let from = if self.dice.chance(1, 10) { tier } else { operator };
                (from, by, Command::SetSlaTerms { instrument, terms })
            }
            7 | 8 => {
                let amount = Usd(match self.dice.below(20) {
                    0 => *self.dice.pick(&[-1, i64::MAX, i64::MIN]),
                    _ => self.dice.below(30_000_000_000) as i64,
                });
                (operator, supplier, Command::SetCollateral { instrument, amount })
            }
            9 => {
                let price = Price(*self.dice.pick(&[0, 101, 104, 110, u64::MAX]));
                let capacity = Qty(*self.dice.pick(&[0, 600, 6_000, 6_000, u64::MAX]));
                (operator, supplier, Command::SetManaged { instrument, price, capacity })
            }
            _ => {
                let key = benchmark_key();
                let mut statement = Attestation {
                    supplier,
                    instrument,
                    model: if self.dice.chance(1, 10) { "another" } else { "m" }.into(),
                    score: self.dice.between(28, 50) as u32,
                    valid_until: self.venue.now.after(Nanos(self.dice.below(3 * HOUR))),
                    key: Fingerprint::of(&key.verifying_key().to_bytes()),
                    signature: vec![0; 64],
                };
                if let Some(record) = self.venue.engine.state().instrument(instrument)
                    && self.dice.chance(9, 10)
                {
                    let spec = &record.spec;
                    let said = statement.statement(&spec.symbol, &spec.quality.index);
                    statement.signature = key.sign(said.as_bytes()).to_bytes().to_vec();
                }
                (operator, self.actors[3].account, Command::Attest(Box::new(statement)))
            }
        }
    }
}
