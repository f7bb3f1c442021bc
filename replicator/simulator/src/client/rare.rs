//! Commands that are rare in life and hard on replicas: terms of service, faults, probes, attestations, collateral, credits,
//! reloads. Possible and impossible ones.

use ed25519_dalek::{Signer, SigningKey};
use grid_engine::command::Command;
use grid_engine::funding::{AccountTerms, AutoReload, PaymentMethod, ReloadFailure};
use grid_engine::sla::{Attestation, Fault, SlaTerms};
use grid_engine::{AccountId, Fingerprint, Nanos, Price, Qty, SECOND, Usd};

use super::{Client, HOUR, TRADERS};
use crate::world::START;

/// With what the benchmark provider signs.
fn benchmark_key() -> SigningKey {
    SigningKey::from_bytes(&[42; 32])
}

/// How the tier becomes a benchmark provider too.
pub(super) fn opening(tier: AccountId) -> Vec<(AccountId, Command)> {
    let public_key = benchmark_key().verifying_key().to_bytes();
    vec![
        (tier, Command::AddSigningKey { public_key, label: String::new() }),
        (tier, Command::SetBenchmark { allowed: true }),
    ]
}

impl Client {
    /// What a tier reports of suppliers.
    pub(super) fn report(&mut self) -> Command {
        let instrument = self.instrument();
        let supplier = if self.dice.chance(1, 20) { self.account } else { self.any_supplier() };
        match self.dice.below(8) {
            0..=3 => Command::ReportFault { instrument, supplier, fault: *self.dice.pick(&Fault::ALL) },
            4 | 5 => Command::ReportProbe { instrument, supplier, passed: self.dice.chance(4, 5) },
            _ => {
                let key = benchmark_key();
                let model = if self.dice.chance(1, 10) { "another" } else { "m" };
                let mut statement = Attestation {
                    supplier,
                    instrument,
                    model: model.into(),
                    score: self.dice.below(60) as u32,
                    valid_until: Nanos(START.0 + self.dice.below(4 * HOUR)),
                    key: Fingerprint::of(&key.verifying_key().to_bytes()),
                    signature: vec![0; 64],
                };
                if self.dice.chance(9, 10) {
                    let symbol = ["plain", "dated"][usize::from(instrument.0)];
                    let said = statement.statement(symbol, "");
                    statement.signature = key.sign(said.as_bytes()).to_bytes().to_vec();
                }
                Command::Attest(Box::new(statement))
            }
        }
    }

    /// What a consumer does.
    pub(super) fn consume(&mut self) -> Command {
        if !self.dice.chance(1, 40) {
            return self.trade(grid_engine::command::Side::Buy);
        }
        Command::SetAutoReload(AutoReload {
            enabled: self.dice.chance(4, 5),
            threshold: Usd::dollars(self.dice.below(3_000) as i64),
            amount: Usd::dollars(self.dice.between(100, 400) as i64),
            monthly_limit: None,
        })
    }

    /// What the operator decides of service and money.
    pub(super) fn operate_service_and_money(&mut self) -> (AccountId, Command) {
        let (instrument, trader, supplier) = (self.instrument(), self.any_trader(), self.any_supplier());
        let some = Usd(self.dice.below(30_000_000_000) as i64);
        // Numbers of reloads are counted over the venue; the operator guesses.
        let reload = self.dice.between(1, 2 * u64::from(TRADERS));
        match self.dice.below(16) {
            0 | 1 => (self.account, Command::SetSlaTerms { instrument, terms: Box::new(self.terms()) }),
            2 => (supplier, Command::SetCollateral { instrument, amount: Usd(some.0 - 1_000_000_000) }),
            3 => {
                let price = Price(*self.dice.pick(&[0, 100, 110, u64::MAX]));
                let capacity = Qty(*self.dice.pick(&[0, 600, 6_000]));
                (supplier, Command::SetManaged { instrument, price, capacity })
            }
            4 => {
                let allowed = self.dice.chance(9, 10);
                (AccountId(2 + self.dice.below(6) as u32), Command::SetBenchmark { allowed })
            }
            5 => {
                let terms = AccountTerms {
                    sign_up_credit: *self.dice.pick(&[Usd::ZERO, Usd::dollars(25)]),
                    one_way: self.dice.chance(1, 4),
                    ..AccountTerms::default()
                };
                (self.account, Command::SetAccountTerms(terms))
            }
            6 => (trader, Command::Credit { amount: some }),
            7 => (trader, Command::SignUpCredit),
            8 => {
                let card = PaymentMethod { customer: "c".into(), method: "m".into() };
                let method = self.dice.chance(3, 4).then(|| Box::new(card));
                (trader, Command::SetPaymentMethod(method))
            }
            9 => (trader, Command::SetCreditLine { limit: Usd::dollars(self.dice.below(900) as i64) }),
            10 => (trader, Command::RepayCredit { amount: some }),
            11 => (trader, Command::ReloadFailed { reload, reason: ReloadFailure::Declined }),
            12 => (supplier, Command::Deposit { amount: some }),
            13 => (supplier, Command::Withdraw { amount: some }),
            _ => {
                let amount = Usd::dollars(self.dice.between(1, 150) as i64);
                (trader, Command::ReloadPaid { reload, amount })
            }
        }
    }

    fn terms(&mut self) -> SlaTerms {
        SlaTerms {
            window: Nanos(*self.dice.pick(&[0, 60 * SECOND, 60 * SECOND, 120 * SECOND])),
            sample: self.dice.below(3) as u32,
            error_max_bps: *self.dice.pick(&[0, 500, 2_000, 10_000, 10_001]),
            uptime_min_bps: *self.dice.pick(&[0, 5_000, 9_900]),
            penalty_bps: self.dice.below(2_000) as u16,
            penalty: Usd(*self.dice.pick(&[0, 10_000_000, 5_000_000_000, 300_000_000_000])),
            breaches_to_suspend: *self.dice.pick(&[0, 1, 3]),
            probes_to_decide: self.dice.below(3) as u8,
            collateral_per_unit: Usd(*self.dice.pick(&[0, 0, 0, 1_000_000])),
            cover_penalty_bps: self.dice.below(3_000) as u16,
            cover_ceiling_bps: *self.dice.pick(&[0, 10_000, 20_000]),
            attested: self.dice.chance(1, 12),
            ..SlaTerms::NONE
        }
    }
}
