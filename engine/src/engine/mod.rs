//! Applies commands. One file per concern, all of them methods of [`Step`], the work on one command.
//!
//! | file | does |
//! |---|---|
//! | `placing.rs` | new orders: checks, holds, and straight into the book where they meet nobody |
//! | `changing.rs` | replace: in place, to another price, or against the other side |
//! | `ending.rs` | cancel, mass cancel, expiry: what leaves the book and why |
//! | `trading.rs` | an order on its way: it trades, and what is left of it rests or closes |
//! | `quoting.rs` | mass quotes, and what pulls them |
//! | `matching.rs` | incoming against resting: price, time, self-trade prevention |
//! | `levels.rs` | which price levels a command touched, and what the market hears of them |
//! | `ledger.rs` | what a fill moves: dollars, Units by origin, escrow, fees |
//! | `delivery.rs` | lots, transfers, reserve with auto-buy, settle, release, sweeps, deadlines |
//! | `managed.rs` | who sells to Auto Mode when the book can't |
//! | `sla.rs` | terms of service: windows, penalties, the roster, probes |
//! | `liability.rs` | collateral, covers, penalties and debts of suppliers |
//! | `attestation.rs` | who vouches for a model, and what follows |
//! | `directory.rs` | accounts, keys, instruments, suppliers, issuance |
//! | `funding.rs` | deposits, credits, withdrawals, the free tier's limits, reloads |
//! | `sessions.rs` | high-water marks, numbered reports, cancel-on-disconnect |
//! | `check.rs` | every invariant, for tests and for the operator |
//!
//! # What stops the process
//! No command can, whatever a client sends: each is checked before anything changes, and a "no" is an answer. What is left in
//! the path of place, cancel and replace are faults, each the breach of an invariant that `check.rs` proves:
//!
//! | where | what it would mean |
//! |---|---|
//! | `apply`: the log's next place, a stamp that does not go back | whoever feeds the engine lost or mixed commands |
//! | an index into accounts, instruments, sessions, ladders or the slab | a record names what was never made: they are never removed |
//! | `plus`, `minus` | a balance beyond [`ALL_USD`](crate::limits::ALL_USD) or `ALL_TOKENS`, or a hold that was not held |
//! | `book::narrow` | a price or quantity beyond 32 bits, which an instrument's terms exclude |
//! | "a resting order has a level", "has a slot" | slab and ladder disagree |
//! | "no more than the hold that was accepted" | what is left of an order holds more than the whole did |

mod attestation;
mod changing;
mod check;
mod delivery;
mod directory;
mod ending;
mod funding;
mod ledger;
mod levels;
mod liability;
mod managed;
mod matching;
mod placing;
mod quoting;
mod sessions;
mod sla;
mod trading;

use levels::{Place, Touched};

use crate::book::{BookView, Order};
use crate::command::{Command, Entry, OrderKind, OrderRef, Side};
use crate::event::{Draw, Event};
use crate::ids::{AccountId, InstrumentId, KeyId, Label, OrderId, SessionId};
use crate::prefetch::ask_for;
use crate::reject::Reject;
use crate::state::{Account, Holding, Instrument, SessionIndex, State, Timer, Tranche};
use crate::units::{Nanos, Price, Seq};

/// The state of the venue and the only way to change it.
#[derive(Clone, Debug, Default)]
pub struct Engine {
    state: State,
    /// Empty between commands.
    touched: Touched,
    /// Empty between commands.
    scratch: Scratch,
}

/// Room for what a command takes in its hands, kept so that it need not be made anew each time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scratch {
    tranches: Vec<Tranche>,
    reserved: Vec<Draw>,
    drawn: Vec<Draw>,
    /// Sessions whose quotes are to be pulled once the command is done.
    overrun: Vec<SessionIndex>,
}

/// Open orders that the second cache can't hold with all that belongs to them.
const PREFETCH_FROM: usize = 32_768;

/// How far ahead of its turn a command is when memory is asked for: see [`Engine::prefetch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ahead {
    /// Farthest: its account and its order, or its book.
    First,
    /// Nearer: its order's neighbours and its book.
    Second,
    /// Nearer still: what the search for its level reads, or its level.
    Third,
    /// Nearest: the levels it touches, or the order that is found by its level.
    Last,
}

impl Ahead {
    /// Every step and how many commands before its turn a command should be at it.
    pub const STEPS: [(Self, usize); 4] =
        [(Self::First, 24), (Self::Second, 18), (Self::Third, 12), (Self::Last, 6)];
}

/// A broken invariant, in words: a fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub String);

/// Why bytes are not a snapshot of the engine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The checked reader refused them.
    #[error("not an engine snapshot: {reason}")]
    Malformed {
        /// What it found.
        reason: String,
    },
}

impl Engine {
    /// An empty venue; its log begins with `Command::Genesis`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything, to read.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Applies one command of the log: first whatever fell due by `at`, then the command itself.
    ///
    /// # Panics
    /// A gap in the log or a stamp that goes back is a fault.
    pub fn apply(&mut self, seq: Seq, at: Nanos, entry: &Entry, events: &mut Vec<Event>) {
        assert_eq!(seq, self.state.seq.next(), "the log has no gaps");
        assert!(at >= self.state.now, "stamps never go back");
        self.state.seq = seq;
        self.state.now = at;
        // Near by the time that the command is admitted.
        self.ask_for_account(entry.account);
        self.state.holdings.ask_for_recent(entry.account);
        if self.state.timers.may_be_due(at) || self.state.reservations.may_be_due(at) {
            self.step(seq, at, entry, SessionIndex::VENUE, events).run_timers();
        }
        // Here, since what fell due may have been the end of the session.
        let admitted = self.state.sessions.admit(entry.session, entry.client_seq);
        let session = admitted.map_or(SessionIndex::VENUE, |(session, _)| session);
        let mut step = self.step(seq, at, entry, session, events);
        match admitted {
            Some((_, caller)) => step.execute(caller, &entry.command),
            None => step.execute_unadmitted(entry),
        }
        if !step.touched.is_empty() {
            step.settle_touched();
        }
    }

    #[inline(always)]
    fn step<'a>(
        &'a mut self,
        seq: Seq,
        at: Nanos,
        entry: &Entry,
        session: SessionIndex,
        events: &'a mut Vec<Event>,
    ) -> Step<'a> {
        Step {
            state: &mut self.state,
            touched: &mut self.touched,
            scratch: &mut self.scratch,
            events,
            seq,
            at,
            session,
            client_seq: entry.client_seq,
            account: entry.account,
        }
    }

    /// Whether [`Engine::prefetch`] is worth its time just now.
    #[must_use]
    pub fn looks_ahead(&self) -> bool {
        self.state.books.len() >= PREFETCH_FROM
    }

    /// Asks for memory that a later command of the log will need; changes nothing and is never needed. Each step finds
    /// near what the one before it asked for, so whoever knows what comes takes all of them, [`Ahead::STEPS`] apart.
    /// A venue whose orders are few enough to be near anyway asks for nothing: the asking takes time too.
    #[inline]
    pub fn prefetch(&self, entry: &Entry, ahead: Ahead) {
        if self.looks_ahead() {
            self.ask_ahead(entry, ahead);
        }
    }

    fn ask_ahead(&self, entry: &Entry, ahead: Ahead) {
        let (state, account) = (&self.state, entry.account);
        match &entry.command {
            Command::Place(new) => {
                let price = match new.kind {
                    OrderKind::Limit { price, .. } => price,
                    OrderKind::Market { .. } => Price::ZERO,
                };
                match ahead {
                    Ahead::First => {
                        self.ask_for_account(account);
                        state.books.ask_for_book(new.instrument);
                    }
                    Ahead::Second => {
                        self.ask_for_market(new.instrument);
                        state.books.ask_for_ranks(new.instrument, new.side);
                        if new.side == Side::Sell {
                            state.holdings.ask_for_place(account, new.instrument);
                        }
                    }
                    Ahead::Third => {
                        state.books.ask_for_level(new.instrument, new.side, price);
                        if let Some(account) = state.account(account) {
                            state.books.ask_for_newest(account.orders);
                        }
                        if new.side == Side::Sell {
                            state.holdings.ask_for(account, new.instrument);
                        }
                    }
                    Ahead::Last => state.books.ask_for_oldest(new.instrument, new.side, price),
                }
            }
            Command::Cancel { order: OrderRef::Id(id) } => self.ask_ahead_of_order(account, *id, None, ahead),
            Command::Replace { order: OrderRef::Id(id), price, .. } => {
                self.ask_ahead_of_order(account, *id, Some(*price), ahead);
            }
            _ => {}
        }
    }

    fn ask_ahead_of_order(&self, account: AccountId, id: OrderId, price: Option<Price>, ahead: Ahead) {
        let books = &self.state.books;
        if ahead == Ahead::First {
            self.ask_for_account(account);
            return books.ask_for_order(id);
        }
        let Some((_, record)) = books.find(id) else {
            return;
        };
        let place = Place::of(record);
        match ahead {
            Ahead::First | Ahead::Second => {
                books.ask_for_neighbours(record);
                books.ask_for_book(place.instrument);
                self.ask_for_market(place.instrument);
            }
            Ahead::Third => {
                books.ask_for_ranks(place.instrument, place.side);
                if place.side == Side::Sell {
                    self.state.holdings.ask_for_place(account, place.instrument);
                }
            }
            Ahead::Last => {
                let own = Price(place.price.into());
                books.ask_for_level(place.instrument, place.side, own);
                if let Some(price) = price {
                    books.ask_for_level(place.instrument, place.side, price);
                }
                if place.side == Side::Sell {
                    self.state.holdings.ask_for(account, place.instrument);
                }
                if let Some(session) = self.state.sessions.at(SessionIndex(record.session)) {
                    session.reports.ask_for_next();
                }
            }
        }
    }

    fn ask_for_account(&self, account: AccountId) {
        if let Some(account) = self.state.account(account) {
            ask_for(&account.usd_available);
        }
    }

    fn ask_for_market(&self, instrument: InstrumentId) {
        if let Some(instrument) = self.state.instrument(instrument) {
            ask_for(&instrument.spec.market);
            ask_for(&instrument.spec.status);
        }
    }

    /// When the next timer falls due, if any: by then the log needs a command, a `Tick` if nothing else comes.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Nanos> {
        let lapse = self.state.reservations.first_due().map(|(at, _)| at);
        let other = self.state.timers.first().map(|&(at, _)| at);
        lapse.into_iter().chain(other).min()
    }

    /// Proves every invariant of the state; the first broken one is a fault.
    pub fn check_invariants(&self) -> Result<(), Violation> {
        check::check(&self.state).map_err(Violation)
    }

    /// The state as snapshot bytes.
    ///
    /// # Panics
    /// Never: plain data always has a snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        rkyv::to_bytes::<rkyv::rancor::Error>(&self.state).expect("plain data always has a snapshot").to_vec()
    }

    /// The engine that a snapshot was taken of.
    pub fn restore(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let mut aligned = rkyv::util::AlignedVec::<16>::with_capacity(bytes.len());
        aligned.extend_from_slice(bytes);
        let mut state = rkyv::from_bytes::<State, rkyv::rancor::Error>(&aligned)
            .map_err(|error| SnapshotError::Malformed { reason: error.to_string() })?;
        let books = state.instruments.len();
        let derived = state.books.rebuild(books);
        let derived = derived.and_then(|()| state.holdings.rebuild()).and_then(|()| state.supplies.rebuild());
        let derived =
            derived.and_then(|()| state.reservations.rebuild()).and_then(|()| state.services.rebuild());
        derived.map_err(|reason| SnapshotError::Malformed { reason })?;
        Ok(Self { state, ..Self::default() })
    }

    /// A hash over the whole state, equal on every replica at the same log sequence.
    #[must_use]
    pub fn state_hash(&self) -> u64 {
        use std::hash::{Hash, Hasher};
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        self.state.hash(&mut hasher);
        hasher.finish()
    }
}

impl State {
    /// An account.
    #[must_use]
    pub fn account(&self, id: AccountId) -> Option<&Account> {
        self.accounts.get(id.0 as usize)
    }

    /// Whether an account is suspended as a supplier: of the instrument, or of all of them.
    #[must_use]
    pub fn is_suspended(&self, account: AccountId, instrument: InstrumentId) -> bool {
        let standing = self.supplies.get(account, instrument).map(|supply| supply.standing);
        standing.is_some_and(|standing| !standing.is_active())
            || self.suppliers.get(&account).is_some_and(|known| known.profile.suspended)
    }

    /// Whose consumption key this is.
    #[must_use]
    pub fn owner_of_key(&self, key: KeyId) -> Option<AccountId> {
        let place = (key.0 as usize).checked_sub(1)?;
        self.keys_by_id.get(place).map(|&(account, _)| account)
    }

    /// An instrument.
    #[must_use]
    pub fn instrument(&self, id: InstrumentId) -> Option<&Instrument> {
        self.instruments.get(usize::from(id.0))
    }

    /// An instrument by its symbol; case does not matter (contract §2.2).
    #[must_use]
    pub fn instrument_by_symbol(&self, symbol: &str) -> Option<&Instrument> {
        self.symbols.get(&symbol.to_ascii_lowercase()).and_then(|&id| self.instrument(id))
    }

    /// The book of an instrument.
    #[must_use]
    pub fn book(&self, id: InstrumentId) -> Option<BookView<'_>> {
        self.books.view(&self.sessions, id, self.instrument(id)?.spec.market.tick)
    }

    /// An open order and where it rests.
    #[must_use]
    pub fn order(&self, id: OrderId) -> Option<(InstrumentId, Order)> {
        // The id of no order is that of every free slot.
        let (slot, _) = self.books.find(id).filter(|_| id != OrderId::default())?;
        Some(self.wide(slot))
    }

    /// The open orders of an account, oldest first.
    pub fn open_orders(&self, account: AccountId) -> impl Iterator<Item = (InstrumentId, Order)> + '_ {
        let orders = self.account(account).map(|account| account.orders).unwrap_or_default();
        self.books.own(orders).map(|slot| self.wide(slot))
    }

    fn wide(&self, slot: u32) -> (InstrumentId, Order) {
        let instrument = InstrumentId(self.books.record(slot).instrument);
        let tick = self.instruments[usize::from(instrument.0)].spec.market.tick;
        (instrument, self.books.wide(slot, tick, &self.sessions))
    }

    /// All that an account could not pay when it fell due, in nano-dollars.
    #[must_use]
    pub fn owed_by(&self, account: AccountId) -> i128 {
        let range = (account, AccountId(0))..=(account, AccountId(u32::MAX));
        self.debts.range(range).map(|(_, owed)| i128::from(owed.0)).sum()
    }

    /// What an account holds of an instrument, if it ever touched it.
    #[must_use]
    pub fn holding(&self, account: AccountId, instrument: InstrumentId) -> Option<&Holding> {
        self.holdings.get(account, instrument)
    }
}

/// The work on one command: the state, where events go, and who asks.
pub(crate) struct Step<'a> {
    state: &'a mut State,
    touched: &'a mut Touched,
    scratch: &'a mut Scratch,
    events: &'a mut Vec<Event>,
    seq: Seq,
    at: Nanos,
    /// Whose command it is; the venue's when no session was admitted with it.
    session: SessionIndex,
    client_seq: u64,
    account: AccountId,
}

/// A reject with what its report says besides the code.
pub(crate) struct Refusal {
    reject: Reject,
    label: Label,
    order: OrderId,
}

impl From<Reject> for Refusal {
    fn from(reject: Reject) -> Self {
        Self { reject, label: Label::default(), order: OrderId::default() }
    }
}

impl Step<'_> {
    /// A command of a client, whose session's account is `caller`.
    #[inline(always)]
    fn execute(&mut self, caller: AccountId, command: &Command) {
        let done = match command {
            // Most of what comes, and the shortest way to it.
            Command::Replace { order, qty, price, stp, post_only } => {
                self.permit_owner(caller).and_then(|()| self.replace(*order, *qty, *price, *stp, *post_only))
            }
            Command::Place(order) => self.permit_owner(caller).and_then(|()| self.place(order)),
            Command::Cancel { order } => self.permit_owner(caller).and_then(|()| self.cancel(*order)),
            _ => self.permit(caller, command).and_then(|()| self.dispatch(command)),
        };
        if let Err(refusal) = done {
            self.refuse(refusal);
        }
        if self.state.accounts.get(self.account.0 as usize).is_some_and(|account| account.watched.dollars()) {
            self.look_at_funds(self.account);
        }
    }

    /// A command that no session was admitted with: the venue's own, or one that is answered from state.
    #[inline(never)]
    fn execute_unadmitted(&mut self, entry: &Entry) {
        if entry.session == SessionId::VENUE {
            self.execute_venue(&entry.command);
        } else {
            self.answer_from_state(entry.session);
        }
    }

    /// The end of a command that touched more levels than its one order's.
    #[inline(never)]
    fn settle_touched(&mut self) {
        if !self.scratch.overrun.is_empty() {
            self.pull_overrun_quotes();
        }
        self.publish_levels();
    }

    /// The other commands of clients. On success each has already reported its answer.
    #[inline(never)]
    fn dispatch(&mut self, command: &Command) -> Result<(), Refusal> {
        match command {
            Command::MassCancel(scope) => self.mass_cancel(*scope),
            Command::MassQuote { entries, stp, post_only } => self.mass_quote(entries, *stp, *post_only),
            Command::SetQuoteProtection(protection) => self.set_quote_protection(*protection),
            Command::Transfer { instrument, qty, direction } => self.transfer(*instrument, *qty, *direction),
            Command::Reserve { instrument, tokens, request, valid_for, key, surface } => {
                self.reserve(*instrument, *tokens, *request, *valid_for, (*key, *surface))
            }
            Command::Settle { reservation, usage } => self.settle(*reservation, *usage),
            Command::Release { reservation, supplier } => self.release(*reservation, *supplier),
            Command::Issue { instrument, qty } => self.issue(*instrument, *qty),
            Command::TransferIssuance { instrument, qty } => self.transfer_issuance(*instrument, *qty),
            Command::SetMode { mode } => self.set_mode(*mode),
            Command::AddSigningKey { public_key, label } => self.add_signing_key(public_key, label),
            Command::RevokeSigningKey { fingerprint } => self.revoke_signing_key(*fingerprint),
            Command::AddConsumptionKey { hash, prefix, name, expires_at } => {
                self.add_consumption_key(*hash, prefix, name, *expires_at)
            }
            Command::RevokeConsumptionKey { hash } => self.revoke_consumption_key(*hash),
            Command::OpenAccount { name, mode, capabilities } => {
                self.open_account(name, *mode, *capabilities)
            }
            Command::Deposit { amount } => self.deposit(*amount),
            Command::Withdraw { amount } => self.withdraw(*amount),
            Command::SetAutoBuy(auto_buy) => self.set_auto_buy(*auto_buy),
            Command::DefineInstrument(spec) => self.define_instrument(spec),
            Command::SetInstrumentStatus { instrument, status } => {
                self.set_instrument_status(*instrument, *status)
            }
            Command::RegisterSupplier(profile) => self.register_supplier(profile),
            Command::SetCapacity { instrument, capacity } => self.set_capacity(*instrument, *capacity),
            Command::SetSlaTerms { instrument, terms } => self.set_sla_terms(*instrument, terms),
            Command::ReportFault { instrument, supplier, fault } => {
                self.report_fault(*instrument, *supplier, *fault)
            }
            Command::ReportProbe { instrument, supplier, passed } => {
                self.report_probe(*instrument, *supplier, *passed)
            }
            Command::SetCollateral { instrument, amount } => self.set_collateral(*instrument, *amount),
            Command::SetManaged { instrument, price, capacity } => {
                self.set_managed(*instrument, *price, *capacity)
            }
            Command::SetBenchmark { allowed } => self.set_benchmark(*allowed),
            Command::Attest(statement) => self.attest(statement),
            Command::Place(_)
            | Command::Cancel { .. }
            | Command::Replace { .. }
            | Command::Genesis { .. }
            | Command::OpenSession { .. }
            | Command::Establish { .. }
            | Command::SessionLost { .. }
            | Command::Tick => Err(Reject::NotPermitted.into()),
            Command::SetAccountTerms(terms) => self.set_account_terms(*terms),
            Command::Credit { amount } => self.credit(*amount),
            Command::SignUpCredit => self.sign_up_credit(),
            Command::SetAutoReload(settings) => self.set_auto_reload(*settings),
            Command::SetPaymentMethod(method) => self.set_payment_method(method.as_deref()),
            Command::SetCreditLine { limit } => self.set_credit_line(*limit),
            Command::RepayCredit { amount } => self.repay_credit(*amount),
            Command::ReloadPaid { reload, amount } => self.reload_paid(*reload, *amount),
            Command::ReloadFailed { reload, reason } => self.reload_failed(*reload, *reason),
        }
    }

    /// Commands of the venue's own session; nobody waits for an answer.
    fn execute_venue(&mut self, command: &Command) {
        match *command {
            Command::Genesis { operator_key } => self.genesis(&operator_key),
            Command::OpenSession { session, key } => self.open_session(session, key),
            Command::Establish { session, key, cancel_on_disconnect, connection } => {
                self.establish(session, key, cancel_on_disconnect, connection);
            }
            Command::SessionLost { session, connection } => self.session_lost(session, connection),
            // A tick only moves time, which `run_timers` has done; nothing else comes from the venue itself.
            _ => {}
        }
    }

    /// Whether the account whose session this is may act for the one that the command names: an owner for itself; a tier
    /// for anybody, as the owner would, and so the operator.
    #[inline(always)]
    fn permit_owner(&self, caller: AccountId) -> Result<(), Refusal> {
        let permitted = caller == self.account
            || self.state.account(caller).is_some_and(|caller| {
                let capabilities = caller.capabilities;
                capabilities.tier || capabilities.operator
            });
        if !permitted {
            return Err(Reject::NotPermitted.into());
        }
        self.know_account()
    }

    #[inline(always)]
    fn know_account(&self) -> Result<(), Refusal> {
        if self.account == AccountId::VENUE || self.state.account(self.account).is_none() {
            return Err(Reject::UnknownAccount.into());
        }
        Ok(())
    }

    /// Who may do what else: delivery is the tiers' alone, since an owner could settle its own call below what was
    /// delivered; the operator may do everything.
    fn permit(&self, caller: AccountId, command: &Command) -> Result<(), Refusal> {
        let caller = self.state.account(caller).ok_or(Reject::UnknownAccount)?;
        let capabilities = caller.capabilities;
        let permitted = match command {
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
            | Command::SetBenchmark { .. } => capabilities.operator,
            Command::Reserve { .. }
            | Command::Settle { .. }
            | Command::Release { .. }
            | Command::ReportFault { .. }
            | Command::ReportProbe { .. } => capabilities.tier || capabilities.operator,
            // A session's quotes are its own account's.
            Command::MassQuote { .. } | Command::SetQuoteProtection(_) => caller.id == self.account,
            // Whoever brings it, the account that states it is a benchmark provider.
            Command::Attest(_) => {
                let own = caller.id == self.account || capabilities.tier || capabilities.operator;
                own && self.state.account(self.account).is_some_and(|account| account.benchmark)
            }
            _ => return self.permit_owner(caller.id),
        };
        if !permitted {
            return Err(Reject::NotPermitted.into());
        }
        self.know_account()
    }

    #[cold]
    fn run_timers(&mut self) {
        loop {
            let other = self.state.timers.first().copied().filter(|&(due, _)| due <= self.at);
            if let Some((due, reservation)) = self.state.reservations.first_due()
                && due <= other.map_or(self.at, |(at, _)| at)
            {
                self.lapse(reservation);
                continue;
            }
            let Some((_, timer)) = other else {
                self.state.timers.settle();
                self.state.reservations.settle();
                return;
            };
            self.state.timers.pop_first();
            match timer {
                Timer::Lot(account, instrument, lot) => self.expire_lot(account, instrument, lot),
                Timer::DayOrder(_, order) => self.expire_day_order(order),
                Timer::Session(session) => self.cancel_disconnected(session),
                Timer::SessionEnd(session) => self.forget_session(session),
                Timer::Sweep(instrument) => self.sweep(instrument),
                Timer::Reload(account) => self.month_begins(account),
                Timer::Window(instrument) => self.close_windows(instrument),
                Timer::Attestation(supplier, instrument) => self.review_quality(supplier, instrument),
            }
        }
    }

    /// Tells what happened. Each event is made where it is to stay: a plain push is a call where several places make events of
    /// one kind, and copies what was just written in smaller pieces.
    #[inline(always)]
    fn happened(&mut self, event: impl FnOnce() -> Event) {
        self.events.extend(std::iter::once_with(event));
    }

    fn account_mut(&mut self, id: AccountId) -> &mut Account {
        let at = self.at;
        let account = &mut self.state.accounts[id.0 as usize];
        account.updated_at = at;
        account
    }

    fn holding_mut(&mut self, account: AccountId, instrument: InstrumentId) -> &mut Holding {
        let holding = self.state.holdings.open(account, instrument, self.at);
        holding.updated_at = self.at;
        holding
    }
}
