//! The venue's whole state, as plain data: what is hashed, compared between replicas and written to snapshots.
//!
//! Only `Engine::apply` changes it; everybody else reads. Each struct states the invariant that
//! `Engine::check_invariants` proves of it.

mod derived;
mod funding;
mod holding;
mod index;
mod kept;
mod pairs;
mod quotes;
mod reservations;
mod service;
mod sessions;
mod timers;

use std::collections::{BTreeMap, VecDeque};

use rkyv::{Archive, Deserialize as Thaw, Serialize as Freeze};

use crate::book::{Books, OpenOrders};
use crate::command::{AccountMode, AutoBuy, Capabilities, SupplierProfile};
use crate::funding::AccountTerms;
use crate::ids::{AccountId, Fingerprint, InstrumentId, KeyHash, KeyId, Label, LotId, OrderId, SessionId};
use crate::instrument::InstrumentSpec;
use crate::sla::{Attestation, SlaTerms};
use crate::units::{Nanos, Price, Qty, Seq, Tokens, Usd, UsdTotal};

pub use funding::{Allowance, Funding, Reload};
pub use holding::{Holding, HoldingTotals, Lot, Tranche};
pub(crate) use kept::Heading;
pub use kept::Kept;
pub use pairs::{Pair, Pairs};
pub use quotes::{Quote, QuoteGuard, Quotes};
pub use reservations::{Reservation, Reservations};
pub use service::{Broken, Closed, Figures, Reasons, Service, Standing, Window};
pub(crate) use service::{Delivered, is_late, is_slow};
pub use sessions::{SessionIndex, Sessions};
pub use timers::Timers;

/// Everything.
///
/// Invariants: deposited − withdrawn = all dollars of all accounts + escrow in all tranches and lots; per instrument,
/// issued − delivered − expired = all Units in issuance and trading × 1,000,000 + all tokens in lots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
pub struct State {
    /// The last command applied.
    pub seq: Seq,
    /// Its stamp; never goes back.
    pub now: Nanos,
    /// By id.
    pub accounts: Vec<Account>,
    /// By id.
    pub instruments: Vec<Instrument>,
    /// Every open order.
    pub books: Books,
    /// Symbol to instrument.
    pub symbols: BTreeMap<String, InstrumentId>,
    /// Signing keys, revoked ones too.
    pub signing_keys: BTreeMap<Fingerprint, SigningKey>,
    /// Consumption keys, revoked ones too.
    pub consumption_keys: BTreeMap<KeyHash, ConsumptionKey>,
    /// The same by their ids, from 1: whose, and which.
    pub keys_by_id: Vec<(AccountId, KeyHash)>,
    /// Binary sessions.
    pub sessions: Sessions,
    /// Units and tokens, per account and instrument that it ever touched.
    pub holdings: Pairs<Holding>,
    /// Accounts that supply.
    pub suppliers: BTreeMap<AccountId, Supplier>,
    /// What they owe, per instrument.
    pub supplies: Pairs<Supply>,
    /// How well they serve, per instrument that has terms of service.
    pub services: Pairs<Service>,
    /// What suppliers could not pay when it fell due: who owes whom how much. Paid out of what they earn next.
    pub debts: BTreeMap<(AccountId, AccountId), Usd>,
    /// The newest attestation of each model that is on offer.
    pub attestations: BTreeMap<(AccountId, InstrumentId, String), Attested>,
    /// Open reservations.
    pub reservations: Reservations,
    /// What else falls due when, earliest first.
    pub timers: Timers,
    /// Last numbers given out.
    pub counters: Counters,
    /// Dollars minted so far.
    pub deposited: UsdTotal,
    /// Dollars burnt so far.
    pub withdrawn: UsdTotal,
    /// What the venue gives away, and to whom.
    pub terms: AccountTerms,
    /// Reloads under way by number, and whose they are.
    pub reloads: BTreeMap<u64, AccountId>,
}

/// Last numbers given out; the next is one more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
pub struct Counters {
    /// Of orders.
    pub order: u64,
    /// Of trades.
    pub trade: u64,
    /// Of lots.
    pub lot: u64,
    /// Of transfers.
    pub transfer: u64,
    /// Of issuances.
    pub issuance: u64,
    /// Of reloads.
    pub reload: u64,
    /// Of charges.
    pub charge: u64,
}

/// One participant.
///
/// Invariants: no balance is negative; `usd_held` = the holds of its open buy orders and its collateral;
/// `orders` = its orders in the books; `open_calls` = its open reservations; `watched` says dollars exactly while a
/// shortage of them would begin a reload, and asks exactly while it is suspended somewhere, where it then has none.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
#[repr(C, align(64))] // what most commands look at comes first, in one cache line
pub struct Account {
    /// Free dollars.
    pub usd_available: Usd,
    /// Dollars behind open buy orders, and collateral.
    pub usd_held: Usd,
    /// When a balance last changed.
    pub updated_at: Nanos,
    /// Its open orders; [`State::open_orders`] lists them.
    pub orders: OpenOrders,
    /// Its id.
    pub id: AccountId,
    /// Auto or Advanced.
    pub mode: AccountMode,
    /// What it may do.
    pub capabilities: Capabilities,
    /// What of it is looked at when it acts.
    pub watched: Watched,
    /// Its open reservations.
    pub open_calls: u32,
    /// How it buys in Auto Mode.
    pub auto_buy: AutoBuy,
    /// Labels of open orders.
    pub labels: BTreeMap<Label, OrderId>,
    /// Labels of orders that carried a tag, open or not: the last [`crate::limits::TAGS_KEPT`].
    pub tags: BTreeMap<Label, OrderId>,
    /// The same, oldest first.
    pub tags_by_age: VecDeque<Label>,
    /// For its owner to recognise.
    pub name: String,
    /// When it was opened.
    pub created_at: Nanos,
    /// Last deposit, or 0.
    pub deposited_at: Nanos,
    /// Last withdrawal, or 0.
    pub withdrawn_at: Nanos,
    /// What it paid and was given, and its reloads.
    pub funding: Funding,
    /// It may attest the quality of models.
    pub benchmark: bool,
}

/// What of an account is looked at when it acts: two facts in one byte, so that both lie where every command looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
pub struct Watched(u8);

impl Watched {
    const DOLLARS: u8 = 1;
    const ASKS: u8 = 2;

    /// Its dollars, after each of its commands: a shortage of them begins a reload.
    #[must_use]
    pub const fn dollars(self) -> bool {
        self.0 & Self::DOLLARS != 0
    }

    /// Its asks, before they come in: it is suspended as a supplier of some instrument, or of all.
    #[must_use]
    pub const fn asks(self) -> bool {
        self.0 & Self::ASKS != 0
    }

    pub(crate) fn set_dollars(&mut self, watched: bool) {
        self.0 = self.0 & !Self::DOLLARS | if watched { Self::DOLLARS } else { 0 };
    }

    pub(crate) fn set_asks(&mut self, watched: bool) {
        self.0 = self.0 & !Self::ASKS | if watched { Self::ASKS } else { 0 };
    }
}

const _: () = assert!(std::mem::offset_of!(Account, auto_buy) <= 48);

/// An instrument and its market's last trade.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
pub struct Instrument {
    /// Its id.
    pub id: InstrumentId,
    /// Its terms.
    pub spec: InstrumentSpec,
    /// The tape's last line.
    pub last_trade: Option<LastTrade>,
    /// Trades so far.
    pub trades: u64,
    /// Units traded so far.
    pub volume: Qty,
    /// Tokens minted.
    pub issued: Tokens,
    /// Tokens delivered.
    pub delivered: Tokens,
    /// Tokens lost to deadlines.
    pub expired: Tokens,
    /// Its terms of service.
    pub sla: SlaTerms,
    /// When the present window of service closes, where one is measured.
    pub window_ends: Option<Nanos>,
    /// Who sells when the book can't, and at what price.
    pub managed: Option<Managed>,
    /// When it was defined.
    pub created_at: Nanos,
    /// When its terms last changed.
    pub updated_at: Nanos,
}

/// The last trade of an instrument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
pub struct LastTrade {
    /// Price.
    pub price: Price,
    /// Quantity.
    pub qty: Qty,
    /// When.
    pub at: Nanos,
}

/// The fallback supplier of an instrument: Auto Mode buys from it what the book can't sell within the buyer's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
pub struct Managed {
    /// Who issues and delivers. Never named to the buyer.
    pub supplier: AccountId,
    /// At which price.
    pub price: Price,
    /// It sells no more than leaves it owing so many Units.
    pub capacity: Qty,
}

/// An attestation that was checked and accepted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
pub struct Attested {
    /// The benchmark provider.
    pub by: AccountId,
    /// When it was accepted.
    pub at: Nanos,
    /// What it said, and its signature.
    pub statement: Attestation,
}

/// A registered Ed25519 key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
pub struct SigningKey {
    /// Whose.
    pub account: AccountId,
    /// The 32 public bytes.
    pub public_key: [u8; 32],
    /// The owner's name for it.
    pub label: String,
    /// False once revoked.
    pub active: bool,
    /// When it was registered.
    pub created_at: Nanos,
}

/// A registered consumption key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
pub struct ConsumptionKey {
    /// Its id.
    pub id: KeyId,
    /// Whose.
    pub account: AccountId,
    /// First 8 characters of the secret.
    pub prefix: String,
    /// The owner's name for it.
    pub name: String,
    /// False once revoked.
    pub active: bool,
    /// When it stops working, if ever.
    pub expires_at: Option<Nanos>,
    /// When it was registered.
    pub created_at: Nanos,
}

/// A binary session: what makes a resend harmless and a lost report recoverable.
///
/// Invariant: the kept reports are numbered without gaps up to `next_report - 1`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
pub struct Session {
    /// Its account.
    pub account: AccountId,
    /// The highest client sequence applied.
    pub last_client_seq: u64,
    /// The number of the next report.
    pub next_report: u64,
    /// The last [`crate::limits::REPORTS_KEPT`] reports, oldest first.
    pub reports: Kept,
    /// The gateway's number of the connection that owns it; `None` while disconnected.
    pub connection: Option<u64>,
    /// Cancel its orders when it stays disconnected this long.
    pub cancel_on_disconnect: Option<Nanos>,
    /// When that will happen.
    pub cancels_at: Option<Nanos>,
    /// When it is forgotten, having stayed disconnected that long; `None` while connected.
    pub ends_at: Option<Nanos>,
    /// What it quotes where.
    pub quotes: Quotes,
    /// When its quotes are pulled.
    pub guard: QuoteGuard,
}

/// A supplier.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
pub struct Supplier {
    /// What the venue knows of it.
    pub profile: SupplierProfile,
}

/// A supplier's obligations in one instrument.
///
/// Invariants: `issued ≥ delivered + expired`; `escrow` = what waits in tranches and lots of this issuer; `collateral` is
/// part of what its account holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
#[repr(C, align(64))] // what a delivery changes lies in one cache line
pub struct Supply {
    /// Tokens issued so far.
    pub issued: Tokens,
    /// Issued tokens that were delivered, by whomever.
    pub delivered: Tokens,
    /// Proceeds waiting for delivery.
    pub escrow: Usd,
    /// Proceeds paid out so far; stops counting at `i64::MAX`.
    pub earned: Usd,
    /// Calls it delivered.
    pub calls: u64,
    /// Calls it failed.
    pub failures: u64,
    account: AccountId,
    instrument: InstrumentId,
    /// The operator's limit on liability.
    pub capacity: Qty,
    /// Issued tokens lost to their holder's deadline.
    pub expired: Tokens,
    /// Units moved from issuance to trading so far.
    pub moved_to_trading: Qty,
    /// Dollars of its own that stand behind its deliveries.
    pub collateral: Usd,
    /// Penalties that it had to pay so far, paid or owed; stops counting at `i64::MAX`.
    pub penalties: Usd,
    /// Its tokens that another supplier delivered because it failed to.
    pub covered: Tokens,
    /// What those cost it.
    pub cover_cost: Usd,
    /// Whether it is on the instrument's roster.
    pub standing: Standing,
}

impl Pair for Supply {
    fn new(account: AccountId, instrument: InstrumentId, _: Nanos) -> Self {
        Self { account, instrument, ..Self::default() }
    }

    fn pair(&self) -> (AccountId, InstrumentId) {
        (self.account, self.instrument)
    }
}

impl Supply {
    /// Tokens issued that were neither delivered nor expired.
    #[must_use]
    pub fn liability(&self) -> Tokens {
        self.issued.minus(self.delivered).minus(self.expired)
    }
}

/// Something besides a reservation that falls due; at the same moment reservations come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Freeze, Thaw)]
#[rkyv(derive(PartialEq, Eq, PartialOrd, Ord))]
pub enum Timer {
    /// A lot's deadline.
    Lot(AccountId, InstrumentId, LotId),
    /// A DAY order's midnight.
    DayOrder(InstrumentId, OrderId),
    /// A disconnected session's orders are cancelled.
    Session(SessionId),
    /// A session that nobody has come back to is forgotten.
    SessionEnd(SessionId),
    /// A scheduled sweep of an instrument.
    Sweep(InstrumentId),
    /// The month begins in which an account may reload again.
    Reload(AccountId),
    /// A window of service of an instrument closes.
    Window(InstrumentId),
    /// An attestation of a supplier ends.
    Attestation(AccountId, InstrumentId),
}
