//! The words of the scripts about service: terms, faults, probes, collateral, the managed supplier, attestations.

use std::fmt::Write as _;

use ed25519_dalek::{Signer, SigningKey};
use grid_engine::command::{Command, Offer, SupplierProfile};
use grid_engine::event::{Charge, WindowClosed};
use grid_engine::sla::{Attestation, Fault, SlaTerms};
use grid_engine::state::{Closed, Figures, Standing};
use grid_engine::{AccountId, Fingerprint, Nanos, Price, Qty, Tokens, Usd};

use super::{Stage, Words, span, usd};

/// The key with which a benchmark provider signs.
fn signing_key(account: AccountId) -> SigningKey {
    SigningKey::from_bytes(&[account.0 as u8; 32])
}

impl Stage {
    /// A command of these words, if it is one.
    pub(super) fn service_command(
        &mut self,
        word: &str,
        subject: AccountId,
        words: &mut Words<'_>,
    ) -> Option<Command> {
        let instrument = self.instrument;
        Some(match word {
            "sla" => Command::SetSlaTerms { instrument, terms: Box::new(terms(words)) },
            // fault KIND of SUPPLIER
            "fault" => {
                let name = words.next();
                let kind = Fault::ALL.into_iter().find(|fault| fault.name() == name);
                let fault = kind.unwrap_or_else(|| panic!("{name} is no fault: {}", self.place));
                Command::ReportFault { instrument, supplier: self.supplier(words), fault }
            }
            // probe passed|failed of SUPPLIER
            "probe" => {
                let passed = words.next() == "passed";
                Command::ReportProbe { instrument, supplier: self.supplier(words), passed }
            }
            "collateral" => Command::SetCollateral { instrument, amount: words.usd() },
            // managed QTY @ TICKS — for the supplier, by the operator
            "managed" => Command::SetManaged {
                instrument,
                capacity: Qty(words.number()),
                price: Price(words.number_option("@").unwrap_or(0)),
            },
            "benchmark" => Command::SetBenchmark { allowed: words.next() == "on" },
            "signs" => Command::AddSigningKey {
                public_key: signing_key(subject).verifying_key().to_bytes(),
                label: String::new(),
            },
            // offers MODEL...
            "offers" => {
                let models = std::mem::take(&mut words.left);
                let offer = |model: &str| Offer { instrument, model: model.into() };
                let offers = models.into_iter().map(offer).collect();
                Command::RegisterSupplier(Box::new(SupplierProfile { offers, ..SupplierProfile::default() }))
            }
            // attest MODEL of SUPPLIER SCORE for SPAN [signed_by NAME] [forged]
            "attest" => {
                let model = words.next().to_owned();
                let supplier = self.supplier(words);
                let signer = words.option("signed_by").map_or(subject, |name| self.actors[name].account);
                let key = signing_key(signer);
                let forged = words.flag("forged");
                let mut statement = Attestation {
                    supplier,
                    instrument,
                    model,
                    valid_until: self.venue.now.after(span(words.option("for").unwrap())),
                    score: words.number() as u32,
                    key: Fingerprint::of(&key.verifying_key().to_bytes()),
                    signature: Vec::new(),
                };
                let spec = &self.venue.engine.state().instrument(instrument).unwrap().spec;
                let said = statement.statement(&spec.symbol, &spec.quality.index);
                statement.signature = key.sign(said.as_bytes()).to_bytes().to_vec();
                statement.score += u32::from(forged);
                Command::Attest(Box::new(statement))
            }
            _ => return None,
        })
    }

    fn supplier(&self, words: &mut Words<'_>) -> AccountId {
        self.actors[words.option("of").unwrap_or_else(|| panic!("of whom? {}", self.place))].account
    }

    pub(super) fn tell_charge(&self, charge: &Charge) -> String {
        let Charge { charge, from, to, instrument, reason, paid, owed } = *charge;
        let of = instrument.map_or_else(String::new, |instrument| self.of(instrument));
        let owed = if owed == Usd::ZERO { String::new() } else { format!(", owes ${owed}") };
        format!("charge {charge} of {}{of} to {}: {reason:?} ${paid}{owed}", self.who(from), self.who(to))
    }

    pub(super) fn tell_window(&self, closed: &WindowClosed) -> String {
        let WindowClosed { supplier, instrument, figures, penalty, breaches } = closed;
        format!(
            "window of {}{} closed: {}; penalty ${penalty}, broken {breaches} in a row",
            self.who(*supplier),
            self.of(*instrument),
            tell_figures(figures)
        )
    }

    /// What the state says of a supplier's service.
    pub(super) fn tell_service(&self, name: &str) -> Vec<String> {
        let state = self.venue.engine.state();
        let id = self.actors[name].account;
        let mut told = Vec::new();
        for (instrument, supply) in state.supplies.of(id) {
            let of = self.of(instrument);
            let standing = match supply.standing {
                Standing::Active => "active".into(),
                Standing::Suspended { since, why } => {
                    let mut told = format!("suspended since {}", Self::when(since));
                    for (word, holds) in [("breach", why.breach), ("quality", why.quality)] {
                        if holds {
                            write!(told, ", {word}").unwrap();
                        }
                    }
                    told
                }
            };
            told.push(format!(
                "{name}{of} is {standing}; collateral ${}, penalties ${}, covered {} for ${}",
                supply.collateral, supply.penalties, supply.covered.0, supply.cover_cost
            ));
        }
        for (instrument, service) in state.services.of(id) {
            let terms = &state.instruments[usize::from(instrument.0)].sla;
            let of = self.of(instrument);
            if !service.window.is_empty() {
                told.push(format!("  window{of}: {}", tell_figures(&service.window.figures(terms))));
            }
            if let Some(Closed { at, figures, penalty }) = &service.last {
                let at = Self::when(*at);
                told.push(format!("  closed{of} at {at}: {}; penalty ${penalty}", tell_figures(figures)));
            }
        }
        let range = (id, AccountId(0))..=(id, AccountId(u32::MAX));
        for (&(_, to), owed) in state.debts.range(range) {
            told.push(format!("  owes {} ${owed}", self.who(to)));
        }
        told
    }
}

fn terms(words: &mut Words<'_>) -> SlaTerms {
    let mut terms = SlaTerms::NONE;
    let mut bps = |word, field: &mut u16| {
        if let Some(bps) = words.number_option(word) {
            *field = bps as u16;
        }
    };
    bps("ttft", &mut terms.ttft_percentile_bps);
    bps("pace", &mut terms.pace_percentile_bps);
    bps("errors", &mut terms.error_max_bps);
    bps("uptime", &mut terms.uptime_min_bps);
    bps("penalty_bps", &mut terms.penalty_bps);
    bps("tolerance", &mut terms.late_tolerance_bps);
    bps("cover_penalty", &mut terms.cover_penalty_bps);
    terms.window = words.option("window").map_or(Nanos::ZERO, span);
    terms.sample = words.number_option("sample").unwrap_or(0) as u32;
    terms.penalty = words.option("penalty").map_or(Usd::ZERO, usd);
    terms.breaches_to_suspend = words.number_option("suspend").unwrap_or(0) as u8;
    terms.probes_to_decide = words.number_option("probes").unwrap_or(3) as u8;
    terms.late_is_free = words.flag("late_is_free");
    terms.slow_is_free_from = Tokens(words.number_option("slow_is_free_from").unwrap_or(0));
    terms.collateral_per_unit = words.option("collateral").map_or(Usd::ZERO, usd);
    if let Some(bps) = words.number_option("cover_ceiling") {
        terms.cover_ceiling_bps = bps as u32;
    }
    terms.attested = words.flag("attested");
    terms
}

fn tell_figures(figures: &Figures) -> String {
    let mut told = format!(
        "{} calls, {} faults, {} lies, errors {} bps, uptime {} bps, {} late, {} slow, worth ${}",
        figures.calls,
        figures.faults,
        figures.lies,
        figures.error_bps,
        figures.uptime_bps,
        figures.late,
        figures.slow,
        figures.value
    );
    if figures.ttft_us > 0 {
        write!(told, ", first token within {} us", figures.ttft_us).unwrap();
    }
    if figures.tokens_per_second > 0 {
        write!(told, ", {} tokens/s", figures.tokens_per_second).unwrap();
    }
    let broken = figures.broken;
    for (word, broken) in
        [("ttft", broken.ttft), ("pace", broken.pace), ("errors", broken.errors), ("uptime", broken.uptime)]
    {
        if broken {
            write!(told, ", {word} broken").unwrap();
        }
    }
    told
}
