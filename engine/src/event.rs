//! What happened: facts for whoever keeps history or shows the market, and the reports that sessions get.
//!
//! What happened to an order is one event, which its session's report and the level it touched can be read from: they are most of
//! what the venue makes, and each would say the same of the order again.

use std::cmp::Ordering;

use rkyv::{Archive, Deserialize as Thaw, Serialize as Freeze};
use serde::{Deserialize, Serialize};

use crate::book::Depth;
use crate::command::{Side, Surface, TimeInForce, Usage};
use crate::funding::ReloadFailure;
use crate::ids::{AccountId, InstrumentId, KeyId, LotId, OrderId, ReservationId, SessionId, TradeId};
use crate::reject::Reject;
pub use crate::report::{Exec, Issuers, OrderReport, Report, ReportBody, Subject};
use crate::report::{Fill, Kind};
use crate::sla::Waived;
use crate::state::Figures;
use crate::units::{Nanos, Price, Qty, Seq, Tokens, Usd};

// A hot command makes one or two of them, and they are what the matcher hands on.
const _: () = assert!(size_of::<Event>() <= 128);

/// One thing that a command did. Events of one command are in the order in which they happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Event {
    /// A numbered report to a session, but of an order that came in, changed or ended: those events tell it themselves, see
    /// [`Event::report`].
    Report {
        /// To whom.
        session: SessionId,
        /// The report.
        report: Report,
    },
    /// A client sequence at or below the high-water mark came again: nothing was executed, and this is what was
    /// answered then; `None` when the venue no longer holds it or the number was never applied.
    Repeated {
        /// To whom.
        session: SessionId,
        /// The repeated number.
        client_seq: u64,
        /// The answer of then.
        report: Option<Box<Report>>,
    },
    /// A session was negotiated, or refused.
    SessionOpened {
        /// Which.
        session: SessionId,
        /// Its account, or why not.
        result: Result<AccountId, Reject>,
    },
    /// A connection owns the session now, or was refused.
    SessionEstablished {
        /// Which.
        session: SessionId,
        /// The gateway's number for the connection.
        connection: u64,
        /// Where both streams stand, or why not.
        result: Result<SessionPosition, Reject>,
    },
    /// An order was accepted.
    OrderOpened(OrderOpened),
    /// An open order was changed.
    OrderReplaced(OrderReplaced),
    /// A taker and a maker traded.
    Traded(Trade),
    /// An order is no longer open.
    OrderClosed(OrderClosed),
    /// One of several levels that a command touched; a single order's are told with it, see [`Event::levels`].
    Level {
        /// Where.
        instrument: InstrumentId,
        /// What it is now.
        level: LevelUpdate,
    },
    /// An account, key, instrument or supplier changed; readers look at the state.
    DirectoryChanged,
    /// Dollars entered (positive) or left (negative).
    Funded {
        /// Whose.
        account: AccountId,
        /// How much.
        amount: Usd,
    },
    /// Units moved between balances of one account.
    Moved {
        /// Whose.
        account: AccountId,
        /// Of which instrument.
        instrument: InstrumentId,
        /// How many.
        qty: Qty,
        /// Between which.
        movement: Moved,
        /// Transfers' own number, counted from 1.
        transfer: u64,
    },
    /// A supplier issued Units.
    Issued {
        /// Who.
        account: AccountId,
        /// Of which instrument.
        instrument: InstrumentId,
        /// How many.
        qty: Qty,
        /// Issuances' own number, counted from 1.
        issuance: u64,
    },
    /// A call was settled; what was drawn for it follows.
    Used(UsageRecord),
    /// Tokens that the call just settled drew from one lot.
    Drawn {
        /// The reservation that was settled.
        reservation: ReservationId,
        /// Counted from 0 in each settlement.
        item: u32,
        /// From where, and what it had cost.
        draw: Draw,
    },
    /// A reservation was given back or lapsed.
    ReservationEnded {
        /// Which.
        reservation: ReservationId,
        /// Whose.
        account: AccountId,
        /// The call's handle.
        request: u128,
        /// Of what.
        instrument: InstrumentId,
        /// The consumption key of the call.
        key: KeyId,
        /// Where the call came in.
        surface: Surface,
        /// When it was made.
        reserved_at: Nanos,
        /// True when log time ended it.
        lapsed: bool,
    },
    /// A lot reached its deadline with tokens left.
    LotExpired {
        /// Which.
        lot: LotId,
        /// Whose.
        account: AccountId,
        /// Of which instrument.
        instrument: InstrumentId,
        /// What was left.
        tokens: Tokens,
    },
    /// Dollars were given.
    Credited {
        /// To whom.
        account: AccountId,
        /// How much.
        amount: Usd,
    },
    /// A reload is due: somebody is to charge for it, under its number, and say what came of it.
    ReloadDue {
        /// Whose.
        account: AccountId,
        /// Reloads' own number, counted from 1.
        reload: u64,
        /// How much.
        amount: Usd,
    },
    /// The payment of a reload arrived.
    Reloaded {
        /// Whose.
        account: AccountId,
        /// Which reload.
        reload: u64,
        /// How much.
        amount: Usd,
    },
    /// A reload came to nothing.
    ReloadFailed {
        /// Whose.
        account: AccountId,
        /// Which reload.
        reload: u64,
        /// Why.
        reason: ReloadFailure,
    },
    /// A supplier had to pay, or paid what it had owed.
    Charged(Charge),
    /// A window of service closed in which the supplier was asked.
    WindowClosed(Box<WindowClosed>),
    /// A supplier left the roster of an instrument, or came back, or a reason for that came or went.
    StandingChanged {
        /// Who.
        supplier: AccountId,
        /// Of which instrument.
        instrument: InstrumentId,
        /// It broke the terms of service too often, or failed its probes.
        breach: bool,
        /// Its quality is not attested, or too low.
        quality: bool,
    },
    /// A supplier said which of its models it offers. A later settlement names one by its place in this list.
    OffersChanged {
        /// Which supplier.
        supplier: AccountId,
        /// The models' names, in the order of the offers.
        models: Box<[String]>,
    },
}

/// A price level after the command that touched it; told once per level and command. Zero quantity: it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LevelUpdate {
    /// At which price.
    pub price: Price,
    /// Open quantity there.
    pub qty: Qty,
    /// Orders there.
    pub orders: u32,
    /// Which side.
    pub side: Side,
}

impl Event {
    /// What the event of a command, applied at `seq` and stamped `at`, tells a session.
    #[inline]
    #[must_use]
    pub fn report(&self, seq: Seq, at: Nanos) -> Option<(SessionId, Report)> {
        let (told, subject, kind) = match self {
            Self::Report { session, report } => return Some((*session, *report)),
            Self::OrderOpened(opened) => (&opened.told, &opened.order, Kind::New),
            Self::OrderReplaced(replaced) => (&replaced.told, &replaced.order, Kind::Replaced),
            Self::OrderClosed(closed) => (&closed.told, &closed.order, Kind::Closed(closed.reason)),
            _ => return None,
        };
        let Told { session, number, client_seq } = *told;
        let body = ReportBody::Order(OrderReport::new(subject, kind, &Fill::default()));
        let report = Report { number, client_seq, seq, at, account: subject.account, body };
        (number != 0).then_some((session, report))
    }

    /// The levels that this event tells of, and of which instrument they are: lower
    /// price first.
    #[inline]
    pub fn levels(&self) -> impl Iterator<Item = (InstrumentId, LevelUpdate)> {
        let (instrument, levels) = match self {
            Self::OrderOpened(opened) => (opened.order.instrument, [opened.level(), None]),
            Self::OrderReplaced(replaced) => (replaced.order.instrument, replaced.levels()),
            Self::OrderClosed(closed) => (closed.order.instrument, [closed.level(), None]),
            Self::Level { instrument, level } => (*instrument, [Some(*level), None]),
            _ => (InstrumentId::default(), [None; 2]),
        };
        levels.into_iter().flatten().map(move |level| (instrument, level))
    }

    /// Appends the event's bytes, equal for equal events on every machine and by every build of one machine format; for comparing
    /// what nodes came to.
    ///
    /// # Panics
    /// Never: plain data always has a form in bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        crate::log_form::told::append(self, out);
    }
}

/// Dollars that a supplier had to pay: a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Charge {
    /// Charges' own number, counted from 1.
    pub charge: u64,
    /// Who pays.
    pub from: AccountId,
    /// Who gets it.
    pub to: AccountId,
    /// For which instrument; none where debts of several are paid.
    pub instrument: Option<InstrumentId>,
    /// For what.
    pub reason: ChargeReason,
    /// What was paid just now, out of escrow, free dollars and collateral, in this order.
    pub paid: Usd,
    /// What could not be paid, and is owed from now on; of a debt that was paid, what is left of it.
    pub owed: Usd,
}

/// Why a supplier had to pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChargeReason {
    /// It broke the terms of service in a window; paid to the venue.
    Breach,
    /// Another delivered its tokens because it failed to; paid to that one, at the price of the cover.
    Cover,
    /// The same; paid to the consumer.
    CoverPenalty,
    /// It owed this.
    Debt,
}

/// A closed window of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct WindowClosed {
    /// Whose.
    pub supplier: AccountId,
    /// Of which instrument.
    pub instrument: InstrumentId,
    /// What it came to, and which terms it broke.
    pub figures: Figures,
    /// What that costs.
    pub penalty: Usd,
    /// Broken windows in a row, this one too.
    pub breaches: u8,
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SessionPosition {
    /// Its account.
    pub account: AccountId,
    /// The highest client sequence that was applied.
    pub last_client_seq: u64,
    /// The number of the next report.
    pub next_report: u64,
}

/// Which report tells a session of what happened to an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    /// The session; the venue's own where nobody is told.
    pub session: SessionId,
    /// The report's number in the session; 0 where nobody is told.
    pub number: u64,
    /// The client sequence that it answers; 0 when unsolicited.
    pub client_seq: u64,
}

impl Told {
    /// Nobody is told: the order is the venue's own, a quote that the answer to its command covers, or was told of otherwise.
    pub const NOBODY: Self = Self { session: SessionId::VENUE, number: 0, client_seq: 0 };
}

/// What a level has once an order joined or left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LevelAfter {
    pub(crate) qty: Qty,
    pub(crate) orders: u32,
}

impl LevelAfter {
    /// The command touched other levels too: each is told by itself.
    pub(crate) const APART: Self = Self { qty: Qty::ZERO, orders: u32::MAX };

    #[inline(always)]
    pub(crate) const fn of(depth: Depth) -> Self {
        Self { qty: depth.qty, orders: depth.orders }
    }

    #[inline]
    fn told(self, side: Side, price: u32) -> Option<LevelUpdate> {
        let Self { qty, orders } = self;
        (orders != Self::APART.orders).then(|| LevelUpdate { price: Price(price.into()), qty, orders, side })
    }
}

/// An order as accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OrderOpened {
    /// Whom it answers.
    pub told: Told,
    /// The order; all that it asks for is open.
    pub order: Subject,
    pub(crate) level: LevelAfter,
    /// The client's order id as text, if it gave one.
    pub tag: Option<Box<String>>,
    /// How long it lives.
    pub tif: TimeInForce,
}

impl OrderOpened {
    /// Of an order that nobody is told of, and whose levels are told by themselves.
    #[must_use]
    pub const fn untold(order: Subject, tif: TimeInForce) -> Self {
        Self { told: Told::NOBODY, order, level: LevelAfter::APART, tag: None, tif }
    }

    /// The level that it joined, where it rests at once and the command touched no other.
    #[must_use]
    pub fn level(&self) -> Option<LevelUpdate> {
        self.level.told(self.order.side, self.order.price)
    }
}

/// An open order that was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct OrderReplaced {
    /// Whom it answers, or whom it is told to.
    pub told: Told,
    /// The order as it is from now on.
    pub order: Subject,
    pub(crate) left_qty: Qty,
    pub(crate) joined_qty: Qty,
    pub(crate) left_orders: u32,
    /// Never 0 where levels are told: the order itself is there.
    pub(crate) joined_orders: u32,
    pub(crate) left_price: u32,
}

impl OrderReplaced {
    /// Where each level is told by itself.
    pub(crate) const fn apart(told: Told, order: Subject) -> Self {
        let nothing = Qty::ZERO;
        Self {
            told,
            order,
            left_qty: nothing,
            joined_qty: nothing,
            left_orders: 0,
            joined_orders: 0,
            left_price: 0,
        }
    }

    /// The levels that it left and joined, lower price first, where the command touched no others.
    #[must_use]
    pub fn levels(&self) -> [Option<LevelUpdate>; 2] {
        let Subject { side, price, .. } = self.order;
        let level =
            |price: u32, qty, orders| Some(LevelUpdate { price: Price(price.into()), qty, orders, side });
        if self.joined_orders == 0 {
            return [None; 2];
        }
        let joined = level(price, self.joined_qty, self.joined_orders);
        let left = level(self.left_price, self.left_qty, self.left_orders);
        match self.left_price.cmp(&price) {
            Ordering::Less => [left, joined],
            Ordering::Equal => [joined, None],
            Ordering::Greater => [joined, left],
        }
    }
}

/// An order that is no longer open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct OrderClosed {
    /// Whom it answers, or whom it is told to.
    pub told: Told,
    /// The order; nothing of it is open.
    pub order: Subject,
    pub(crate) level: LevelAfter,
    pub(crate) unfilled: u32,
    /// Why.
    pub reason: Closure,
}

impl OrderClosed {
    /// Of an order that was filled: nobody is told, since its last fill was told already, and its levels are told by
    /// themselves.
    #[must_use]
    pub const fn filled(order: Subject) -> Self {
        Self { told: Told::NOBODY, order, level: LevelAfter::APART, unfilled: 0, reason: Closure::Filled }
    }

    /// What was not filled of it.
    #[must_use]
    pub fn unfilled(&self) -> Qty {
        Qty(self.unfilled.into())
    }

    /// The level that it left, where the command touched no other.
    #[must_use]
    pub fn level(&self) -> Option<LevelUpdate> {
        self.level.told(self.order.side, self.order.price)
    }
}

/// One match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Trade {
    /// Its id.
    pub trade: TradeId,
    /// Where.
    pub instrument: InstrumentId,
    /// The maker's price.
    pub price: Price,
    /// How many Units.
    pub qty: Qty,
    /// What the buyer paid for them, before fees.
    pub value: Usd,
    /// The incoming side.
    pub aggressor: Side,
    /// The incoming order.
    pub taker_order: OrderId,
    /// Its account.
    pub taker: AccountId,
    /// What it paid the venue.
    pub taker_fee: Usd,
    /// The resting order.
    pub maker_order: OrderId,
    /// Its account.
    pub maker: AccountId,
    /// What it paid the venue.
    pub maker_fee: Usd,
}

/// Why an order is no longer open (contract §3.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Archive, Freeze, Thaw)]
#[repr(u8)]
pub enum Closure {
    /// Wholly filled.
    Filled = 0,
    /// By its owner, by cancel-on-disconnect or by quote protection.
    Cancelled = 1,
    /// By self-trade prevention.
    SelfTrade = 2,
    /// The book ran out after some fills.
    PartiallyFilledNoLiquidity = 3,
    /// The slippage limit was reached after some fills.
    PartiallyFilledMaxSlippage = 4,
    /// Nothing to trade with.
    NoFillNoLiquidity = 5,
    /// Nothing within the slippage limit.
    NoFillMaxSlippage = 6,
    /// A DAY order's day is over.
    Expired = 7,
    /// An ask, whose owner was suspended as a supplier of the instrument.
    Suspended = 8,
}

/// Between which balances of an account Units moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Moved {
    /// Trading to consumption by the owner.
    ToConsumption,
    /// Consumption to trading by the owner.
    ToTrading,
    /// Trading to consumption at fill.
    AtFill,
    /// Trading to consumption by a scheduled sweep.
    Swept,
    /// Issuance to trading.
    Issuance,
}

/// A settled call: who used what, delivered by whom (contract §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct UsageRecord {
    /// The reservation that it settles.
    pub reservation: ReservationId,
    /// The call's handle.
    pub request: u128,
    /// Who pays.
    pub account: AccountId,
    /// For what.
    pub instrument: InstrumentId,
    /// The consumption key of the call.
    pub key: KeyId,
    /// Where the call came in.
    pub surface: Surface,
    /// When its tokens were set aside.
    pub reserved_at: Nanos,
    /// What was delivered and by whom.
    pub usage: Usage,
    /// What was billed: delivered tokens as far as lots covered them.
    pub billed: Tokens,
    /// Delivered, but not covered by any lot, or waived; nobody pays for it.
    pub unbilled: Tokens,
    /// What the billed tokens had cost.
    pub cost: Usd,
    /// Why nothing was billed, where the terms of service let the consumer off.
    pub waived: Waived,
}

/// Tokens drawn from one lot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Archive, Freeze, Thaw)]
pub struct Draw {
    /// The lot.
    pub lot: LotId,
    /// Who issued its Units.
    pub issuer: AccountId,
    /// The trade in which the consumer bought them; 0 where it issued them itself.
    pub trade: TradeId,
    /// How many.
    pub tokens: Tokens,
    /// What they had cost.
    pub cost: Usd,
}
