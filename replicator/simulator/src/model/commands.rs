//! Who may send what to the second bookkeeper, and where each command goes.

use grid_engine::command::Command;
use grid_engine::instrument::InstrumentStatus;
use grid_engine::sla::{Fault, SlaTerms};
use grid_engine::{Fingerprint, InstrumentId, Reject, SessionId, TOKENS_PER_UNIT, limits};

use super::quotes::Quotes;
use super::tranche::{Tranche, join};
use super::{Account, Answer, Market, Model, Session};
use crate::naive::Book;

impl Model {
    pub(super) fn venue_command(&mut self, command: &Command) -> Option<Result<u64, Reject>> {
        match command {
            Command::Genesis { operator_key } if self.accounts.is_empty() => {
                self.accounts.push(Account::default());
                self.accounts.push(Account { operator: true, tier: true, ..Account::default() });
                self.keys.insert(Fingerprint::of(operator_key), 1);
            }
            Command::OpenSession { session, key } => {
                if let Some(&account) = self.keys.get(key) {
                    let ends_at = Some(self.at + limits::SESSION_KEPT.0);
                    self.sessions.entry(session.0).or_insert(Session {
                        account,
                        last: 0,
                        connection: None,
                        grace: None,
                        cancels_at: None,
                        ends_at,
                        quotes: Quotes::default(),
                    });
                }
            }
            Command::Establish { session, key, cancel_on_disconnect, connection } => {
                let Some(&account) = self.keys.get(key) else { return Some(Err(Reject::UnknownKey)) };
                let Some(session) = self.sessions.get_mut(&session.0) else {
                    return Some(Err(Reject::UnknownSession));
                };
                if session.account != account {
                    return Some(Err(Reject::NotPermitted));
                }
                session.connection = Some(*connection);
                session.grace = cancel_on_disconnect.map(|grace| grace.0);
                session.cancels_at = None;
                session.ends_at = None;
                return Some(Ok(session.last));
            }
            Command::SessionLost { session: id, connection } => {
                let at = self.at;
                let session = self.sessions.get_mut(&id.0)?;
                if session.connection != Some(*connection) {
                    return None;
                }
                session.connection = None;
                session.ends_at = Some(at + limits::SESSION_KEPT.0);
                match session.grace {
                    Some(0) => self.cancel_session(id.0),
                    Some(grace) => session.cancels_at = Some(at + grace),
                    None => {}
                }
            }
            _ => {}
        }
        None
    }

    pub(super) fn permit(&self, caller: u32, subject: u32, command: &Command) -> Result<(), Reject> {
        let by = &self.accounts[caller as usize];
        let allowed = match command {
            Command::OpenAccount { .. }
            | Command::Deposit { .. }
            | Command::Withdraw { .. }
            | Command::DefineInstrument(_)
            | Command::SetInstrumentStatus { .. }
            | Command::RegisterSupplier(_)
            | Command::SetCapacity { .. }
            | Command::SetAccountTerms(_)
            | Command::Credit { .. }
            | Command::SignUpCredit
            | Command::SetPaymentMethod(_)
            | Command::SetCreditLine { .. }
            | Command::RepayCredit { .. }
            | Command::ReloadPaid { .. }
            | Command::ReloadFailed { .. }
            | Command::SetSlaTerms { .. }
            | Command::SetCollateral { .. }
            | Command::SetManaged { .. }
            | Command::SetBenchmark { .. } => by.operator,
            Command::Reserve { .. }
            | Command::Settle { .. }
            | Command::Release { .. }
            | Command::ReportFault { .. }
            | Command::ReportProbe { .. } => by.tier || by.operator,
            Command::MassQuote { .. } | Command::SetQuoteProtection(_) => caller == subject,
            Command::Attest(_) => {
                (caller == subject || by.tier || by.operator)
                    && self.accounts.get(subject as usize).is_some_and(|account| account.benchmark)
            }
            _ => caller == subject || by.tier || by.operator,
        };
        if !allowed {
            return Err(Reject::NotPermitted);
        }
        if subject == 0 || subject as usize >= self.accounts.len() {
            return Err(Reject::UnknownAccount);
        }
        Ok(())
    }

    pub(super) fn client_command(
        &mut self,
        session: SessionId,
        who: u32,
        command: &Command,
    ) -> Result<Answer, Reject> {
        match command {
            Command::Place(new) => self.place(session, who, new),
            Command::Cancel { order } => {
                let (instrument, at) = self.find(who, *order)?;
                self.cancel_at(instrument, at);
                Ok(Answer::Cancelled)
            }
            Command::Replace { order, qty, price, stp, post_only } => {
                self.replace(who, *order, *qty, *price, *stp, *post_only)
            }
            Command::MassCancel(scope) => Ok(Answer::MassCancelled(self.mass_cancel(who, *scope))),
            Command::MassQuote { entries, stp, post_only } => {
                self.mass_quote((session, who), entries, *stp, *post_only)
            }
            Command::SetQuoteProtection(protection) => self.protect(session, *protection),
            Command::Transfer { instrument, qty, direction } => {
                self.transfer(who, *instrument, qty.0, *direction)
            }
            Command::Reserve { instrument, tokens, request, valid_for, key, surface: _ } => {
                // Nobody registers a consumption key here.
                if key.0 != 0 {
                    return Err(Reject::UnknownKey);
                }
                self.reserve(who, *instrument, tokens.0, *request, *valid_for)
            }
            Command::Settle { reservation, usage } => self.settle(who, reservation.0, usage),
            Command::Release { reservation, supplier } => {
                self.reservation_of(who, reservation.0)?;
                let instrument = InstrumentId(self.reservations[&reservation.0].instrument);
                if self.supplier(supplier.0).is_ok() {
                    self.note_fault(instrument, supplier.0, Fault::Refused);
                }
                self.give_back(reservation.0);
                Ok(Answer::Done(0))
            }
            Command::Issue { instrument, qty } => self.issue(who, *instrument, qty.0),
            Command::TransferIssuance { instrument, qty } => {
                self.market(*instrument)?;
                if qty.0 == 0 {
                    return Err(Reject::InvalidQuantity);
                }
                let issuance = self.holding(who, *instrument).map_or(0, |holding| holding.issuance);
                if qty.0 > issuance {
                    return Err(Reject::InsufficientUnits);
                }
                let holding = self.holding_mut(who, *instrument);
                holding.issuance -= qty.0;
                let own = Tranche { issuer: who, trade: 0, qty: qty.0, escrow: 0, cost: 0 };
                join(&mut holding.tranches, own);
                self.transfers += 1;
                Ok(Answer::Done(self.transfers))
            }
            Command::AddSigningKey { public_key, .. } => {
                let key = Fingerprint::of(public_key);
                if self.keys.contains_key(&key) {
                    return Err(Reject::DuplicateKey);
                }
                self.keys.insert(key, who);
                Ok(Answer::Done(0))
            }
            Command::OpenAccount { capabilities, .. } => {
                self.accounts.push(Account {
                    tier: capabilities.tier,
                    operator: capabilities.operator,
                    ..Account::default()
                });
                Ok(Answer::Done(self.accounts.len() as u64 - 1))
            }
            Command::Deposit { amount } => {
                if amount.0 <= 0 {
                    return Err(Reject::OutOfRange);
                }
                self.pay(who, amount.0);
                Ok(Answer::Done(0))
            }
            Command::Withdraw { amount } => {
                if amount.0 <= 0 {
                    return Err(Reject::OutOfRange);
                }
                if i128::from(amount.0) + self.owed_by(who) > self.usd_available(who) {
                    return Err(Reject::InsufficientFunds);
                }
                self.collect(who);
                self.accounts[who as usize].usd -= amount.0;
                Ok(Answer::Done(0))
            }
            Command::DefineInstrument(spec) => {
                let fee_bps = spec.market.maker_fee_bps.max(spec.market.taker_fee_bps);
                self.markets.push(Market {
                    terms: spec.market,
                    delivery: spec.delivery,
                    live: spec.status == InstrumentStatus::Live,
                    issued: 0,
                    sla: SlaTerms::NONE,
                    window_ends: None,
                    last_price: None,
                    book: Book { orders: Vec::new(), tick: spec.market.tick, fee_bps },
                });
                Ok(Answer::Done(self.markets.len() as u64 - 1))
            }
            Command::SetInstrumentStatus { instrument, status } => {
                self.market(*instrument)?;
                self.markets[usize::from(instrument.0)].live = *status == InstrumentStatus::Live;
                Ok(Answer::Done(u64::from(instrument.0)))
            }
            Command::RegisterSupplier(_) => {
                self.accounts[who as usize].supplier = true;
                Ok(Answer::Done(0))
            }
            Command::SetCapacity { instrument, capacity } => {
                self.market(*instrument)?;
                if !self.accounts[who as usize].supplier {
                    return Err(Reject::NotASupplier);
                }
                let tokens = capacity.0 * TOKENS_PER_UNIT;
                self.accounts[who as usize].supply.entry(instrument.0).or_default()[0] = tokens;
                Ok(Answer::Done(0))
            }
            other => self.rare_command(who, other),
        }
    }

    /// Money and service; those that clients send.
    fn rare_command(&mut self, who: u32, command: &Command) -> Result<Answer, Reject> {
        Ok(match *command {
            Command::SetSlaTerms { instrument, ref terms } => self.set_sla_terms(instrument, terms)?,
            Command::ReportFault { instrument, supplier, fault } => {
                self.report_fault(instrument, supplier.0, fault)?
            }
            Command::ReportProbe { instrument, supplier, passed } => {
                self.report_probe(instrument, supplier.0, passed)?
            }
            Command::SetCollateral { instrument, amount } => self.set_collateral(who, instrument, amount)?,
            // Nobody buys in Auto Mode here, so nobody buys from it.
            Command::SetManaged { instrument, price, capacity } => {
                let highest = self.market(instrument)?.terms.max_price;
                if capacity.0 > 0 && (price.0 == 0 || price > highest) {
                    return Err(Reject::InvalidPrice);
                }
                self.supplier(who)?;
                Answer::Done(0)
            }
            Command::SetBenchmark { allowed } => {
                self.accounts[who as usize].benchmark = allowed;
                Answer::Done(0)
            }
            Command::Attest(ref statement) => self.attest(who, statement)?,
            Command::SetAccountTerms(terms) => {
                (self.sign_up_credit, self.one_way) = (terms.sign_up_credit.0, terms.one_way);
                Answer::Done(0)
            }
            Command::Credit { amount } => self.credit(who, amount.0)?,
            Command::SignUpCredit => {
                if self.accounts[who as usize].funding.signed_up {
                    return Err(Reject::AlreadyCredited);
                }
                let answer = self.credit(who, self.sign_up_credit)?;
                self.accounts[who as usize].funding.signed_up = true;
                answer
            }
            Command::SetAutoReload(settings) => self.set_auto_reload(who, settings),
            Command::SetPaymentMethod(ref method) => self.set_card(who, method.is_some()),
            Command::SetCreditLine { limit } => self.set_credit_line(who, limit),
            Command::RepayCredit { amount } => self.repay(who, amount)?,
            Command::ReloadPaid { reload, amount } => self.reload_paid(who, reload, amount)?,
            Command::ReloadFailed { reload, .. } => self.reload_failed(who, reload)?,
            ref other => unreachable!("no simulated client sends {other:?}"),
        })
    }

    fn credit(&mut self, who: u32, amount: i64) -> Result<Answer, Reject> {
        if amount <= 0 {
            return Err(Reject::OutOfRange);
        }
        self.pay(who, amount);
        Ok(Answer::Done(0))
    }
}
