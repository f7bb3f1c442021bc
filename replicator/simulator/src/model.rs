//! A second bookkeeper: what every command of the log must bring about, worked out with plain lists and sums.
//!
//! It shares no code with the engine. Matching is the naive book that the engine's own tests use as their oracle; dollars are
//! one total per account (what is held follows from the open orders), Units and tokens are lists by origin. After each command
//! of the committed log the engine's answer, its trades, the ends of orders and every balance are compared with it.
//!
//! It knows the commands that the simulated clients send, and no others: nobody trades in Auto Mode, instruments are defined
//! once, nothing is swept, no calls are free or limited, no instrument promises speed, and suppliers place no bids.

mod money;
mod service;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use grid_engine::command::{
    Command, Cover, Entry, MassCancelScope, NewOrder, OrderKind, OrderRef, SelfTrade, Side, TimeInForce,
    TransferDirection, Usage,
};
use grid_engine::event::{Closure, Event, Exec, ReportBody};
use grid_engine::instrument::{DeliveryTerms, InstrumentStatus, MarketTerms};
use grid_engine::limits;
use grid_engine::sla::{Fault, SlaTerms};
use grid_engine::state::State;
use grid_engine::{
    AccountId, Fingerprint, InstrumentId, Nanos, OrderId, Price, Qty, Reject, Seq, SessionId, TOKENS_PER_UNIT,
};

use crate::naive::{self, Book, Closed, Fill, Incoming, Order, Outcome};

/// What the answer to a command must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Rejected(Reject),
    New,
    Replaced,
    Cancelled,
    MassCancelled(u32),
    Reserved { reservation: u64, tokens: u64 },
    Settled { billed: u64, unbilled: u64, cost: i64 },
    Done(u64),
}

/// Units of one origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tranche {
    issuer: u32,
    trade: u64,
    qty: u64,
    escrow: i64,
    cost: i64,
}

#[derive(Clone, Debug)]
struct Lot {
    id: u64,
    issuer: u32,
    trade: u64,
    tokens: u64,
    free: u64,
    reserved: u64,
    gone: u64,
    escrow: i64,
    cost: i64,
    expires: Option<u64>,
}

#[derive(Clone, Debug, Default)]
struct Holding {
    issuance: u64,
    tranches: VecDeque<Tranche>,
    lots: Vec<Lot>,
}

#[derive(Clone, Debug, Default)]
struct Account {
    /// Free and held together.
    usd: i64,
    tier: bool,
    operator: bool,
    supplier: bool,
    /// Capacity, issued, delivered, expired; in tokens, by instrument.
    supply: BTreeMap<u16, [u64; 4]>,
    holdings: BTreeMap<u16, Holding>,
    tags: BTreeSet<u128>,
    /// By instrument.
    collateral: BTreeMap<u16, i64>,
    benchmark: bool,
    funding: money::Funding,
}

#[derive(Clone, Debug)]
struct Session {
    account: u32,
    last: u64,
    connection: Option<u64>,
    grace: Option<u64>,
    cancels_at: Option<u64>,
    ends_at: Option<u64>,
}

#[derive(Clone, Debug)]
struct Reservation {
    account: u32,
    instrument: u16,
    request: u128,
    draws: Vec<(u64, u64)>,
    expires: u64,
}

#[derive(Clone, Debug)]
struct Market {
    terms: MarketTerms,
    delivery: DeliveryTerms,
    live: bool,
    issued: u64,
    book: Book,
    sla: SlaTerms,
    window_ends: Option<u64>,
    last_price: Option<u64>,
}

/// What falls due, in the order in which the engine's timers fire at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Reservation(u64),
    Lot(u32, u16, u64),
    DayOrder(u16, u64),
    Session(u128),
    SessionEnd(u128),
    Window(u16),
    Attestation(u32, u16),
}

/// The venue as the second bookkeeper sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    accounts: Vec<Account>,
    keys: BTreeMap<Fingerprint, u32>,
    sessions: BTreeMap<u128, Session>,
    markets: Vec<Market>,
    reservations: BTreeMap<u64, Reservation>,
    /// The number of the last one, and the slots that are free again.
    reserved: u64,
    free_slots: Vec<u64>,
    to_consumption: BTreeMap<u64, bool>,
    /// Orders accepted. The model knows no slots and calls an order by its number alone.
    orders: u64,
    trades: u64,
    lots: u64,
    transfers: u64,
    issuances: u64,
    reloads: u64,
    /// Who owes whom.
    debts: BTreeMap<(u32, u32), i64>,
    service: service::Book,
    sign_up_credit: i64,
    one_way: bool,
    seq: u64,
    at: u64,
    outcome: Outcome,
}

/// What the model makes of one command, to be compared with what the engine said.
pub(crate) struct Expected {
    /// The answer, or none where nobody is answered.
    answer: Option<Answer>,
    /// A number that came again.
    repeated: bool,
    outcome: Outcome,
    /// The result of an `Establish`: last client number, or refused.
    established: Option<Result<u64, Reject>>,
}

/// The part of `whole` that belongs to the first `taken` of `of`, rounded down.
fn share(whole: i64, taken: u64, of: u64) -> i64 {
    (i128::from(whole) * i128::from(taken) / i128::from(of)) as i64
}

fn part(whole: i64, before: u64, after: u64, of: u64) -> i64 {
    share(whole, after, of) - share(whole, before, of)
}

fn join(tranches: &mut VecDeque<Tranche>, new: Tranche) {
    if let Some(last) = tranches.back_mut()
        && last.issuer == new.issuer
        && last.trade == new.trade
    {
        last.qty += new.qty;
        last.escrow += new.escrow;
        last.cost += new.cost;
        return;
    }
    if tranches.len() >= limits::TRANCHES {
        let kin = |old: &&mut Tranche| old.issuer == new.issuer && (old.trade == 0) == (new.trade == 0);
        if let Some(old) = tranches.iter_mut().rev().find(kin) {
            old.qty += new.qty;
            old.escrow += new.escrow;
            old.cost += new.cost;
            return;
        }
    }
    tranches.push_back(new);
}

fn take(tranches: &mut VecDeque<Tranche>, qty: u64) -> Vec<Tranche> {
    let (mut left, mut taken) = (qty, Vec::new());
    while left > 0 {
        let mut first = tranches.pop_front().expect("the model sells what is there");
        let now = first.qty.min(left);
        let piece = Tranche {
            qty: now,
            escrow: share(first.escrow, now, first.qty),
            cost: share(first.cost, now, first.qty),
            ..first
        };
        first.qty -= piece.qty;
        first.escrow -= piece.escrow;
        first.cost -= piece.cost;
        if first.qty > 0 {
            tranches.push_front(first);
        }
        left -= now;
        taken.push(piece);
    }
    taken
}

impl Model {
    /// Works out one command of the log.
    pub(crate) fn apply(&mut self, seq: Seq, at: Nanos, entry: &Entry) -> Expected {
        self.seq = seq.0;
        self.at = at.0;
        self.outcome = Outcome::default();
        self.run_due();
        let mut expected =
            Expected { answer: None, repeated: false, outcome: Outcome::default(), established: None };
        if entry.session == SessionId::VENUE {
            expected.established = self.venue_command(&entry.command);
        } else if let Some(session) = self.sessions.get_mut(&entry.session.0) {
            if entry.client_seq > session.last {
                session.last = entry.client_seq;
                let caller = session.account;
                let subject = entry.account.0;
                let answer = self
                    .permit(caller, subject, &entry.command)
                    .and_then(|()| self.client_command(entry.session, subject, &entry.command));
                expected.answer = Some(answer.unwrap_or_else(Answer::Rejected));
                if (subject as usize) < self.accounts.len() {
                    self.look_at_funds(subject);
                }
            } else {
                expected.repeated = true;
            }
        }
        expected.outcome = std::mem::take(&mut self.outcome);
        expected
    }

    // -- time -------------------------------------------------------------------------------------------------

    fn due(&self) -> Option<(u64, Due)> {
        let reservations = self.reservations.iter().map(|(&id, held)| (held.expires, Due::Reservation(id)));
        let sessions = self.sessions.iter().flat_map(|(&id, session)| {
            [
                session.cancels_at.map(|at| (at, Due::Session(id))),
                session.ends_at.map(|at| (at, Due::SessionEnd(id))),
            ]
        });
        let orders = self.markets.iter().enumerate().flat_map(|(instrument, market)| {
            let day = market.book.orders.iter().filter(|order| order.tif == TimeInForce::Day);
            day.map(move |order| {
                (order.submitted_at.next_midnight().0, Due::DayOrder(instrument as u16, order.id.0))
            })
        });
        let lots = self.accounts.iter().enumerate().flat_map(|(account, record)| {
            record.holdings.iter().flat_map(move |(&instrument, holding)| {
                holding.lots.iter().filter(|lot| lot.free > 0).filter_map(move |lot| {
                    lot.expires.map(|at| (at, Due::Lot(account as u32, instrument, lot.id)))
                })
            })
        });
        let windows = (0..)
            .zip(&self.markets)
            .filter_map(|(instrument, market)| Some((market.window_ends?, Due::Window(instrument))));
        let attestations = self.service.ends().map(|(at, supplier, of)| (at, Due::Attestation(supplier, of)));
        let due = reservations.chain(sessions.flatten()).chain(orders).chain(lots);
        let due = due.chain(windows).chain(attestations);
        due.filter(|&(when, _)| when <= self.at).min()
    }

    fn run_due(&mut self) {
        while let Some((_, due)) = self.due() {
            match due {
                Due::Reservation(id) => self.give_back(id),
                Due::Lot(account, instrument, lot) => self.expire_lot(account, instrument, lot),
                Due::DayOrder(instrument, id) => {
                    self.close_where(|order, at| order.id.0 == id && at == instrument, Closure::Expired);
                }
                Due::Session(id) => {
                    self.session_mut(id).cancels_at = None;
                    self.cancel_session(id);
                }
                Due::SessionEnd(id) => {
                    self.sessions.remove(&id);
                }
                Due::Window(instrument) => self.close_window(InstrumentId(instrument)),
                Due::Attestation(supplier, instrument) => self.attestation_ends(supplier, instrument),
            }
        }
    }

    fn session_mut(&mut self, id: u128) -> &mut Session {
        self.sessions.get_mut(&id).expect("a session that something is due for exists")
    }

    fn cancel_session(&mut self, id: u128) {
        let account = self.sessions[&id].account;
        let own = |order: &Order, _| order.account.0 == account && order.session.0 == id;
        self.close_where(own, Closure::Cancelled);
    }

    /// Takes out the matching orders, oldest first over all books.
    fn close_where(&mut self, matches: impl Fn(&Order, u16) -> bool, reason: Closure) -> u32 {
        let mut gone = Vec::new();
        for (instrument, market) in self.markets.iter_mut().enumerate() {
            let goes = |order: &Order| matches(order, instrument as u16);
            gone.extend(market.book.orders.iter().filter(|order| goes(order)).cloned());
            market.book.orders.retain(|order| !goes(order));
        }
        gone.sort_by_key(|order| order.id);
        for order in &gone {
            self.outcome.close(order, reason);
        }
        gone.len() as u32
    }

    // -- the venue's own commands -----------------------------------------------------------------------------

    fn venue_command(&mut self, command: &Command) -> Option<Result<u64, Reject>> {
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

    // -- clients' commands ------------------------------------------------------------------------------------

    fn permit(&self, caller: u32, subject: u32, command: &Command) -> Result<(), Reject> {
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

    fn client_command(&mut self, session: SessionId, who: u32, command: &Command) -> Result<Answer, Reject> {
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

    fn market(&self, instrument: InstrumentId) -> Result<&Market, Reject> {
        self.markets.get(usize::from(instrument.0)).ok_or(Reject::UnknownInstrument)
    }

    fn holding(&self, who: u32, instrument: InstrumentId) -> Option<&Holding> {
        self.accounts[who as usize].holdings.get(&instrument.0)
    }

    fn holding_mut(&mut self, who: u32, instrument: InstrumentId) -> &mut Holding {
        self.accounts[who as usize].holdings.entry(instrument.0).or_default()
    }

    fn usd_held(&self, who: u32) -> i128 {
        let bids = self.markets.iter().flat_map(|market| {
            let own = market.book.orders.iter();
            let own = own.filter(|order| order.account.0 == who && order.side == Side::Buy);
            own.map(|order| market.book.hold(order.price, order.remaining))
        });
        let collateral = self.accounts[who as usize].collateral.values().copied().map(i128::from);
        bids.chain(collateral).sum()
    }

    fn usd_available(&self, who: u32) -> i128 {
        i128::from(self.accounts[who as usize].usd) - self.usd_held(who)
    }

    fn units_held(&self, who: u32, instrument: usize) -> u64 {
        let orders = self.markets[instrument].book.orders.iter();
        orders.filter(|o| o.account.0 == who && o.side == Side::Sell).map(|order| order.remaining).sum()
    }

    fn units_available(&self, who: u32, instrument: InstrumentId) -> u64 {
        let all = self.holding(who, instrument).map_or(0, |h| h.tranches.iter().map(|t| t.qty).sum());
        all - self.units_held(who, usize::from(instrument.0))
    }

    fn find(&self, who: u32, order: OrderRef) -> Result<(usize, usize), Reject> {
        let named = |open: &Order| {
            open.account.0 == who
                && match order {
                    OrderRef::Id(id) => open.id == numbered(id),
                    OrderRef::Label(label) => label.0 != 0 && open.label == label,
                }
        };
        let mut found = self.markets.iter().enumerate().filter_map(|(instrument, market)| {
            Some((instrument, market.book.orders.iter().position(named)?))
        });
        found.next().ok_or(Reject::UnknownOrder)
    }

    fn cancel_at(&mut self, instrument: usize, at: usize) {
        let order = self.markets[instrument].book.orders.remove(at);
        self.outcome.close(&order, Closure::Cancelled);
    }

    fn mass_cancel(&mut self, who: u32, scope: MassCancelScope) -> u32 {
        let matches = |order: &Order, at: u16| {
            order.account.0 == who
                && scope.instrument.is_none_or(|wanted| wanted.0 == at)
                && scope.side.is_none_or(|wanted| wanted == order.side)
                && scope.session.is_none_or(|wanted| wanted == order.session)
        };
        self.close_where(matches, Closure::Cancelled)
    }

    fn place(&mut self, session: SessionId, who: u32, new: &NewOrder) -> Result<Answer, Reject> {
        let market = self.market(new.instrument)?;
        let terms = market.terms;
        if !market.live {
            return Err(Reject::InstrumentNotLive);
        }
        if new.qty < terms.min_qty || new.qty > terms.max_qty || !new.qty.0.is_multiple_of(terms.lot.0) {
            return Err(Reject::InvalidQuantity);
        }
        let best = market.book.best_price(new.side.opposite());
        let (price, limit, is_market, tif, whole) = match new.kind {
            OrderKind::Limit { price, tif } => {
                if price.0 == 0 || price > terms.max_price {
                    return Err(Reject::InvalidPrice);
                }
                (price, Some(price), false, tif, tif == TimeInForce::Fok)
            }
            OrderKind::Market { max_slippage_bps, fill_or_kill } => {
                let limit =
                    max_slippage_bps.zip(best).map(|(bps, best)| naive::slippage_limit(new.side, best, bps));
                (Price(0), limit, true, TimeInForce::Ioc, fill_or_kill)
            }
        };
        let order = Order {
            id: OrderId(self.orders + 1),
            account: AccountId(who),
            session,
            label: new.label,
            side: new.side,
            price,
            remaining: new.qty.0,
            filled: 0,
            tif,
            submitted_at: Nanos(self.at),
        };
        let rests = !is_market && !matches!(tif, TimeInForce::Ioc | TimeInForce::Fok);
        let incoming =
            Incoming { order, limit, market: is_market, all_or_nothing: whole, rests, stp: new.stp };
        let needs = if is_market {
            let cost = market.book.preview(&incoming).1;
            cost + cost * i128::from(terms.taker_fee_bps) / 10_000
        } else {
            market.book.hold(price, new.qty.0)
        };
        if needs > i128::from(i64::MAX) {
            return Err(Reject::OutOfRange);
        }
        if !new.tag.is_empty() && new.label.0 == 0 {
            return Err(Reject::InvalidText);
        }
        if new.label.0 != 0 {
            let open = |order: &Order| order.account.0 == who && order.label == new.label;
            let used = self.accounts[who as usize].tags.contains(&new.label.0);
            if used || self.markets.iter().flat_map(|market| &market.book.orders).any(open) {
                return Err(Reject::DuplicateLabel);
            }
        }
        if tif == TimeInForce::PostOnly && best.is_some_and(|best| naive::crosses(new.side, price, best)) {
            return Err(Reject::WouldTrade);
        }
        match new.side {
            Side::Buy if needs > self.usd_available(who) => return Err(Reject::InsufficientFunds),
            Side::Sell if new.qty.0 > self.units_available(who, new.instrument) => {
                return Err(Reject::InsufficientUnits);
            }
            Side::Sell if self.service.is_suspended(who, new.instrument) => return Err(Reject::Suspended),
            _ => {}
        }
        if !new.tag.is_empty() {
            self.accounts[who as usize].tags.insert(new.label.0);
        }
        self.orders += 1;
        self.to_consumption.insert(self.orders, new.to_consumption);
        self.enter(usize::from(new.instrument.0), incoming);
        Ok(Answer::New)
    }

    fn enter(&mut self, instrument: usize, incoming: Incoming) {
        // Who is who, before makers leave the book.
        let mut parties: BTreeMap<OrderId, (u32, Side)> = self.markets[instrument]
            .book
            .orders
            .iter()
            .map(|order| (order.id, (order.account.0, order.side)))
            .collect();
        parties.insert(incoming.order.id, (incoming.order.account.0, incoming.order.side));
        let first = self.outcome.fills.len();
        self.markets[instrument].book.enter(incoming, &mut self.outcome);
        for nth in first..self.outcome.fills.len() {
            let fill = self.outcome.fills[nth];
            self.settle_fill(instrument, fill, parties[&fill.taker], parties[&fill.maker].0);
        }
    }

    fn settle_fill(&mut self, instrument: usize, fill: Fill, (taker, taker_side): (u32, Side), maker: u32) {
        self.trades += 1;
        let market = &self.markets[instrument];
        let value = i64::try_from(market.book.value(fill.price, fill.qty)).expect("bounded by the hold");
        let fee = |bps: u16| (i128::from(value) * i128::from(bps) / 10_000) as i64;
        let (maker_fee, taker_fee) = (fee(market.terms.maker_fee_bps), fee(market.terms.taker_fee_bps));
        let (buyer, buyer_fee, buyer_order, seller, seller_fee) = match taker_side {
            Side::Buy => (taker, taker_fee, fill.taker, maker, maker_fee),
            Side::Sell => (maker, maker_fee, fill.maker, taker, taker_fee),
        };
        self.accounts[buyer as usize].usd -= value + buyer_fee;
        self.accounts[0].usd += buyer_fee + seller_fee;
        self.markets[instrument].last_price = Some(fill.price.0);
        let proceeds = value - seller_fee;
        let id = InstrumentId(instrument as u16);
        let sold = take(&mut self.holding_mut(seller, id).tranches, fill.qty);
        let (mut before, mut bought) = (0, Vec::new());
        for piece in sold {
            let after = before + piece.qty;
            let net = part(proceeds, before, after, fill.qty);
            let cost = part(value, before, after, fill.qty);
            let first_sale = piece.issuer == seller && piece.trade == 0;
            let escrow = if first_sale { net } else { piece.escrow };
            if !first_sale {
                self.accounts[seller as usize].usd += net;
            }
            bought.push(Tranche { escrow, cost, trade: self.trades, ..piece });
            before = after;
        }
        self.collect(seller);
        if self.to_consumption[&buyer_order.0] {
            self.open_lots(buyer, id, bought);
        } else {
            for piece in bought {
                join(&mut self.holding_mut(buyer, id).tranches, piece);
            }
        }
    }

    fn replace(
        &mut self,
        who: u32,
        order: OrderRef,
        qty: Qty,
        price: Price,
        stp: SelfTrade,
        post_only: bool,
    ) -> Result<Answer, Reject> {
        let (instrument, at) = self.find(who, order)?;
        if qty.0 == 0 {
            self.cancel_at(instrument, at);
            return Ok(Answer::Cancelled);
        }
        let market = &self.markets[instrument];
        if !market.live {
            return Err(Reject::InstrumentNotLive);
        }
        if qty > market.terms.max_qty || !qty.0.is_multiple_of(market.terms.lot.0) {
            return Err(Reject::InvalidQuantity);
        }
        if price.0 == 0 || price > market.terms.max_price {
            return Err(Reject::InvalidPrice);
        }
        let resting = market.book.orders[at].clone();
        let needs = match resting.side {
            Side::Buy => market.book.hold(price, qty.0),
            Side::Sell => market.book.value(price, qty.0),
        };
        if needs > i128::from(i64::MAX) {
            return Err(Reject::OutOfRange);
        }
        if price == resting.price && qty.0 <= resting.remaining {
            self.markets[instrument].book.orders[at].remaining = qty.0;
            return Ok(Answer::Replaced);
        }
        let best = market.book.best_price(resting.side.opposite());
        if post_only && best.is_some_and(|best| naive::crosses(resting.side, price, best)) {
            return Err(Reject::WouldTrade);
        }
        let held = market.book.hold(resting.price, resting.remaining);
        match resting.side {
            Side::Buy if needs > self.usd_available(who) + held => return Err(Reject::InsufficientFunds),
            Side::Sell
                if qty.0 > self.units_available(who, InstrumentId(instrument as u16)) + resting.remaining =>
            {
                return Err(Reject::InsufficientUnits);
            }
            _ => {}
        }
        let mut order = self.markets[instrument].book.orders.remove(at);
        order.price = price;
        order.remaining = qty.0;
        let incoming =
            Incoming { order, limit: Some(price), market: false, all_or_nothing: false, rests: true, stp };
        self.enter(instrument, incoming);
        Ok(Answer::Replaced)
    }

    // -- delivery ---------------------------------------------------------------------------------------------

    fn open_lots(&mut self, who: u32, instrument: InstrumentId, pieces: Vec<Tranche>) {
        let window = self.markets[usize::from(instrument.0)].delivery.window;
        let expires = window.map(|window| self.at + window.0);
        for piece in pieces {
            self.lots += 1;
            let tokens = piece.qty * TOKENS_PER_UNIT;
            let lot = Lot {
                id: self.lots,
                issuer: piece.issuer,
                trade: piece.trade,
                tokens,
                free: tokens,
                reserved: 0,
                gone: 0,
                escrow: piece.escrow,
                cost: piece.cost,
                expires,
            };
            let lots = &mut self.holding_mut(who, instrument).lots;
            lots.push(lot);
            lots.sort_by_key(|lot| (lot.expires.unwrap_or(u64::MAX), lot.id));
        }
        self.transfers += 1;
    }

    fn transfer(
        &mut self,
        who: u32,
        instrument: InstrumentId,
        qty: u64,
        direction: TransferDirection,
    ) -> Result<Answer, Reject> {
        if self.one_way && direction == TransferDirection::ToTrading {
            return Err(Reject::NotPermitted);
        }
        self.market(instrument)?;
        if qty == 0 {
            return Err(Reject::InvalidQuantity);
        }
        match direction {
            TransferDirection::ToConsumption => {
                if qty > self.units_available(who, instrument) {
                    return Err(Reject::InsufficientUnits);
                }
                let pieces = take(&mut self.holding_mut(who, instrument).tranches, qty);
                self.open_lots(who, instrument, pieces);
            }
            TransferDirection::ToTrading => {
                let whole = |lot: &&mut Lot| lot.free == lot.tokens && lot.expires.is_none();
                let movable: u64 = self.holding(who, instrument).map_or(0, |holding| {
                    let lots = holding.lots.iter();
                    lots.filter(|lot| lot.free == lot.tokens && lot.expires.is_none())
                        .map(|lot| lot.tokens / TOKENS_PER_UNIT)
                        .sum()
                });
                if qty > movable {
                    return Err(Reject::InsufficientUnits);
                }
                let holding = self.holding_mut(who, instrument);
                let mut left = qty;
                for lot in holding.lots.iter_mut().filter(whole) {
                    let units = (lot.tokens / TOKENS_PER_UNIT).min(left);
                    if units == 0 {
                        continue;
                    }
                    let tokens = units * TOKENS_PER_UNIT;
                    let escrow = share(lot.escrow, tokens, lot.tokens);
                    let cost = share(lot.cost, tokens, lot.tokens);
                    lot.escrow -= escrow;
                    lot.cost -= cost;
                    lot.tokens -= tokens;
                    lot.free -= tokens;
                    left -= units;
                    let piece = Tranche { issuer: lot.issuer, trade: lot.trade, qty: units, escrow, cost };
                    join(&mut holding.tranches, piece);
                }
                holding.lots.retain(|lot| lot.tokens > 0);
                self.transfers += 1;
            }
        }
        Ok(Answer::Done(self.transfers))
    }

    fn reserve(
        &mut self,
        who: u32,
        instrument: InstrumentId,
        tokens: u64,
        request: u128,
        valid_for: Nanos,
    ) -> Result<Answer, Reject> {
        self.market(instrument)?;
        if tokens == 0 {
            return Err(Reject::InvalidQuantity);
        }
        if valid_for.0 == 0 || valid_for > limits::RESERVATION_LIFE {
            return Err(Reject::OutOfRange);
        }
        if self.reservations.values().any(|held| held.account == who && held.request == request) {
            return Err(Reject::DuplicateRequest);
        }
        let free: u64 = self.holding(who, instrument).map_or(0, |h| h.lots.iter().map(|lot| lot.free).sum());
        if tokens > free {
            return Err(Reject::InsufficientTokens);
        }
        let draws = draw(&mut self.holding_mut(who, instrument).lots, tokens);
        let expires = self.at + valid_for.0;
        let held = Reservation { account: who, instrument: instrument.0, request, draws, expires };
        self.reserved += 1;
        let open = self.reservations.len() as u64;
        let id = self.reserved << 24 | self.free_slots.pop().unwrap_or(open);
        self.reservations.insert(id, held);
        Ok(Answer::Reserved { reservation: id, tokens })
    }

    fn reservation_of(&self, who: u32, id: u64) -> Result<(), Reject> {
        let held = self.reservations.get(&id).filter(|held| held.account == who);
        held.map(|_| ()).ok_or(Reject::UnknownReservation)
    }

    fn settle(&mut self, who: u32, id: u64, usage: &Usage) -> Result<Answer, Reject> {
        self.reservation_of(who, id)?;
        if !self.accounts.get(usage.supplier.0 as usize).is_some_and(|account| account.supplier) {
            return Err(Reject::NotASupplier);
        }
        let delivered =
            usage.prompt_tokens.0.checked_add(usage.completion_tokens.0).ok_or(Reject::OutOfRange)?;
        let held = self.reservations.remove(&id).expect("just seen");
        self.free_slots.push(id & 0xFF_FFFF);
        let instrument = InstrumentId(held.instrument);
        let (mut left, mut used) = (delivered, Vec::new());
        for (lot, tokens) in held.draws {
            let now = left.min(tokens);
            self.unreserve(who, instrument, lot, tokens - now);
            if now > 0 {
                used.push((lot, now));
                left -= now;
            }
        }
        if left > 0 {
            let lots = &mut self.holding_mut(who, instrument).lots;
            let free: u64 = lots.iter().map(|lot| lot.free).sum();
            let more = left.min(free);
            used.extend(draw(lots, more));
            left -= more;
        }
        let mut cost = 0;
        let by = usage.supplier.0;
        let mut cover = if usage.cover == Cover::Failed { self.cover(instrument) } else { None };
        for (id, tokens) in used {
            let lots = &mut self.holding_mut(who, instrument).lots;
            let lot = lots.iter_mut().find(|lot| lot.id == id).expect("a drawn lot is there");
            lot.reserved -= tokens;
            let before = lot.gone;
            lot.gone += tokens;
            let worth = part(lot.cost, before, lot.gone, lot.tokens);
            cost += worth;
            let released = part(lot.escrow, before, lot.gone, lot.tokens);
            let issuer = lot.issuer;
            lots.retain(|lot| lot.gone < lot.tokens);
            self.supply_mut(issuer, instrument)[2] += tokens;
            match &mut cover {
                Some(cover) if issuer != by => {
                    self.buy_in(cover, instrument, (issuer, by, who), (tokens, released, worth));
                }
                _ => self.pay(by, released),
            }
        }
        self.note_delivery(instrument, by, usage.partial, usage.distrusted, cost);
        Ok(Answer::Settled { billed: delivered - left, unbilled: left, cost })
    }

    fn supply_mut(&mut self, issuer: u32, instrument: InstrumentId) -> &mut [u64; 4] {
        self.accounts[issuer as usize].supply.entry(instrument.0).or_default()
    }

    fn give_back(&mut self, id: u64) {
        let held = self.reservations.remove(&id).expect("the caller has seen it");
        self.free_slots.push(id & 0xFF_FFFF);
        for (lot, tokens) in held.draws {
            self.unreserve(held.account, InstrumentId(held.instrument), lot, tokens);
        }
    }

    fn unreserve(&mut self, who: u32, instrument: InstrumentId, id: u64, tokens: u64) {
        let at = self.at;
        let lots = &mut self.holding_mut(who, instrument).lots;
        let lot = lots.iter_mut().find(|lot| lot.id == id).expect("a reserved lot is there");
        lot.reserved -= tokens;
        lot.free += tokens;
        if lot.expires.is_some_and(|deadline| deadline <= at) {
            self.expire_lot(who, instrument.0, id);
        }
    }

    fn expire_lot(&mut self, who: u32, instrument: u16, id: u64) {
        let instrument = InstrumentId(instrument);
        let lots = &mut self.holding_mut(who, instrument).lots;
        let Some(lot) = lots.iter_mut().find(|lot| lot.id == id && lot.free > 0) else { return };
        let before = lot.gone;
        lot.gone += lot.free;
        let tokens = std::mem::take(&mut lot.free);
        let released = part(lot.escrow, before, lot.gone, lot.tokens);
        let issuer = lot.issuer;
        lots.retain(|lot| lot.gone < lot.tokens);
        self.supply_mut(issuer, instrument)[3] += tokens;
        self.pay(issuer, released);
    }

    fn issue(&mut self, who: u32, instrument: InstrumentId, qty: u64) -> Result<Answer, Reject> {
        self.market(instrument)?;
        if qty == 0 {
            return Err(Reject::InvalidQuantity);
        }
        if !self.accounts[who as usize].supplier {
            return Err(Reject::NotASupplier);
        }
        let tokens = qty.checked_mul(TOKENS_PER_UNIT).ok_or(Reject::OutOfRange)?;
        let issued = self.markets[usize::from(instrument.0)].issued;
        let all = issued.checked_add(tokens).filter(|all| *all <= limits::ALL_TOKENS);
        let all = all.ok_or(Reject::OutOfRange)?;
        let [capacity, issued, delivered, expired] =
            self.accounts[who as usize].supply.get(&instrument.0).copied().unwrap_or_default();
        if issued - delivered - expired + tokens > capacity {
            return Err(Reject::BeyondCapacity);
        }
        let owed = (issued - delivered - expired + tokens).div_ceil(TOKENS_PER_UNIT);
        let per_unit = self.market(instrument)?.sla.collateral_per_unit.0;
        if i128::from(per_unit) * i128::from(owed) > i128::from(self.collateral(who, instrument)) {
            return Err(Reject::BeyondCollateral);
        }
        if self.service.is_suspended(who, instrument) {
            return Err(Reject::Suspended);
        }
        self.markets[usize::from(instrument.0)].issued = all;
        self.supply_mut(who, instrument)[1] += tokens;
        self.holding_mut(who, instrument).issuance += qty;
        self.issuances += 1;
        Ok(Answer::Done(self.issuances))
    }

    // -- comparing --------------------------------------------------------------------------------------------

    /// What the engine said and holds, against what was worked out here. The first difference comes back in words.
    pub(crate) fn compare(
        &self,
        expected: &Expected,
        entry: &Entry,
        events: &[Event],
        state: &State,
    ) -> Result<(), String> {
        let told = Told::of(entry, events);
        let differs = |what: &str, expected: &dyn std::fmt::Debug, found: &dyn std::fmt::Debug| {
            Err(format!(
                "the model expects {what} {expected:?} of command {} {entry:?}, the engine has {found:?}",
                self.seq
            ))
        };
        if told.answer != expected.answer {
            return differs("the answer", &expected.answer, &told.answer);
        }
        if told.repeated != expected.repeated {
            return differs("a repeat", &expected.repeated, &told.repeated);
        }
        if told.outcome != expected.outcome {
            return differs("trades and closed orders", &expected.outcome, &told.outcome);
        }
        if told.established != expected.established {
            return differs("a session's place", &expected.established, &told.established);
        }
        self.compare_balances(state)?;
        self.compare_debts(state)?;
        self.compare_service(state)
    }

    fn compare_balances(&self, state: &State) -> Result<(), String> {
        if state.accounts.len() != self.accounts.len() {
            return Err(format!("the model has {} accounts", self.accounts.len()));
        }
        for (id, (account, found)) in self.accounts.iter().zip(&state.accounts).enumerate() {
            let held = self.usd_held(id as u32);
            let usd = (i128::from(account.usd) - held, held);
            let told = (i128::from(found.usd_available.0), i128::from(found.usd_held.0));
            if usd != told {
                return Err(format!(
                    "after command {} the model has dollars {usd:?} in account {id}, the engine {told:?}",
                    self.seq
                ));
            }
            for (&instrument, holding) in &account.holdings {
                let at = InstrumentId(instrument);
                let free: u64 = holding.lots.iter().map(|lot| lot.free).sum();
                let reserved: u64 = holding.lots.iter().map(|lot| lot.reserved).sum();
                let held = self.units_held(id as u32, usize::from(instrument));
                let own = [holding.issuance, self.units_available(id as u32, at), held, free, reserved];
                let told = state.holding(found.id, at).map_or([0; 5], |h| {
                    [h.issuance.0, h.available.0, h.held.0, h.free_tokens().0, h.reserved_tokens().0]
                });
                if own != told {
                    return Err(format!(
                        "after command {} the model has Units and tokens {own:?} of {at:?} in account {id}, the engine {told:?}",
                        self.seq
                    ));
                }
            }
        }
        Ok(())
    }

    /// The queue of each side, order by order; too dear to compare each time.
    pub(crate) fn compare_books(&self, state: &State) -> Result<(), String> {
        for (instrument, market) in self.markets.iter().enumerate() {
            for side in [Side::Buy, Side::Sell] {
                let own: Vec<_> = market
                    .book
                    .queue(side)
                    .iter()
                    .map(|o| (o.id, o.account, o.remaining, o.filled))
                    .collect();
                let book = state.book(InstrumentId(instrument as u16)).ok_or("every market has a book")?;
                let found: Vec<_> = book
                    .queue(side)
                    .map(|o| (numbered(o.id), o.account, o.remaining.0, o.filled.0))
                    .collect();
                if own != found {
                    return Err(format!("the model's queue {own:?} is not the engine's {found:?}"));
                }
            }
        }
        Ok(())
    }
}

/// What the model calls an order of the engine.
fn numbered(id: OrderId) -> OrderId {
    OrderId(id.number())
}

/// Reserves from the front; the caller has made sure that enough is free.
fn draw(lots: &mut [Lot], tokens: u64) -> Vec<(u64, u64)> {
    let (mut left, mut draws) = (tokens, Vec::new());
    for lot in lots {
        let now = lot.free.min(left);
        if now > 0 {
            lot.free -= now;
            lot.reserved += now;
            left -= now;
            draws.push((lot.id, now));
        }
    }
    draws
}

/// What the engine said, in the model's words.
#[derive(Default)]
struct Told {
    answer: Option<Answer>,
    repeated: bool,
    outcome: Outcome,
    established: Option<Result<u64, Reject>>,
}

impl Told {
    fn of(entry: &Entry, events: &[Event]) -> Self {
        let mut told = Self::default();
        for event in events {
            match event {
                Event::Report { session, report }
                    if *session == entry.session
                        && report.client_seq == entry.client_seq
                        && report.client_seq != 0 =>
                {
                    told.answer = told.answer.or_else(|| answer(&report.body));
                }
                Event::Repeated { session, .. } => told.repeated |= *session == entry.session,
                Event::Traded(trade) => told.outcome.fills.push(Fill {
                    taker: numbered(trade.taker_order),
                    maker: numbered(trade.maker_order),
                    price: trade.price,
                    qty: trade.qty.0,
                }),
                Event::OrderClosed { order, filled, remaining, reason, .. } => {
                    told.outcome.closed.push(Closed {
                        order: numbered(*order),
                        filled: filled.0,
                        remaining: remaining.0,
                        reason: *reason,
                    });
                }
                Event::SessionEstablished { result, .. } => {
                    told.established =
                        Some(result.as_ref().map(|at| at.last_client_seq).map_err(|reject| *reject));
                }
                _ => {}
            }
        }
        told
    }
}

fn answer(body: &ReportBody) -> Option<Answer> {
    Some(match body {
        ReportBody::Rejected { reject, .. } => Answer::Rejected(*reject),
        ReportBody::Order(order) => match order.exec() {
            Exec::New => Answer::New,
            Exec::Replaced => Answer::Replaced,
            Exec::Closed(Closure::Cancelled) => Answer::Cancelled,
            _ => return None,
        },
        ReportBody::MassCancelled { count } => Answer::MassCancelled(*count),
        ReportBody::Reserved { reservation, tokens, .. } => {
            Answer::Reserved { reservation: reservation.0, tokens: tokens.0 }
        }
        ReportBody::Settled { billed, unbilled, cost, .. } => {
            Answer::Settled { billed: billed.0, unbilled: unbilled.0, cost: cost.0 }
        }
        ReportBody::Done { created } => Answer::Done(*created),
    })
}
