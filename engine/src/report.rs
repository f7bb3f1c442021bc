//! What sessions are told: numbered reports, the last of which are state, so that any later leader can repeat them.

#![allow(
    missing_docs,
    reason = "rkyv derives public resolvers whose fields it can't document; every item here is"
)]

use rkyv::{Archive, Deserialize as Thaw, Serialize as Freeze};
use serde::{Deserialize, Serialize};

use crate::book::narrow;
use crate::command::Side;
use crate::event::Closure;
use crate::ids::{AccountId, InstrumentId, Label, OrderId, ReservationId, TradeId};
use crate::reject::Reject;
use crate::units::{Nanos, Price, Qty, Seq, Tokens, Usd};

// A report is written twice for most commands, to its event and to the session's kept ones.
const _: () = assert!(size_of::<Report>() <= 112);

/// One numbered report to a session; the last ones are kept in state, so that any later leader can repeat them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Archive, Freeze, Thaw)]
#[repr(C)] // what says which kind it is lies at the end, where an event's own kind fits into it
pub struct Report {
    /// Its number in the session, from 1 without gaps.
    pub number: u64,
    /// The client sequence that it answers; 0 when unsolicited.
    pub client_seq: u64,
    /// The command that caused it.
    pub seq: Seq,
    /// That command's stamp.
    pub at: Nanos,
    /// The account concerned.
    pub account: AccountId,
    /// What it says.
    pub body: ReportBody,
}

/// What a report says. The first report that echoes a client sequence is that command's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Archive, Freeze, Thaw)]
pub enum ReportBody {
    /// Something happened to an order.
    Order(OrderReport),
    /// The command was refused.
    Rejected {
        /// Why.
        reject: Reject,
        /// The label that the command carried.
        label: Label,
        /// For `DuplicateLabel` the earlier order, else 0.
        order: OrderId,
    },
    /// A mass cancel is done; each order's own report follows.
    MassCancelled {
        /// How many orders were taken out.
        count: u32,
    },
    /// A mass quote is done. What was refused of it was told before, in reports of their own.
    Quoted {
        /// Sides that are now as was asked for.
        accepted: u16,
        /// Sides that were refused.
        refused: u16,
    },
    /// One side of a mass quote was refused, and nothing stands there any more.
    QuoteRefused {
        /// Where.
        instrument: InstrumentId,
        /// The maker's number for it.
        quote: u8,
        /// Which side.
        side: Side,
        /// Why.
        reject: Reject,
    },
    /// Quote protection took the session's quotes out of the book; each one's own report follows.
    QuotesPulled {
        /// How many orders were taken out.
        count: u32,
    },
    /// Tokens are set aside.
    Reserved {
        /// Under this id.
        reservation: ReservationId,
        /// How many.
        tokens: Tokens,
        /// Units that Auto Mode bought for it.
        bought: Qty,
        /// What it paid for them.
        spent: Usd,
        /// Who issued the tokens.
        issuers: Issuers,
    },
    /// A call is settled.
    Settled {
        /// Which.
        reservation: ReservationId,
        /// Tokens billed.
        billed: Tokens,
        /// Tokens delivered that no lot covered.
        unbilled: Tokens,
        /// What the billed tokens had cost.
        cost: Usd,
    },
    /// The command is done.
    Done {
        /// The id of what it made: account, instrument, transfer, issuance; 0 where it made nothing.
        created: u64,
    },
}

/// The issuers of reserved tokens in the order of the draws, without repeats, at most 4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, Archive, Freeze, Thaw)]
pub struct Issuers {
    count: u8,
    ids: [AccountId; 4],
}

impl Issuers {
    /// Adds one, unless it is there already or there are four.
    pub fn push(&mut self, issuer: AccountId) {
        if !self.contains(&issuer)
            && let Some(place) = self.ids.get_mut(usize::from(self.count))
        {
            *place = issuer;
            self.count += 1;
        }
    }
}

impl std::ops::Deref for Issuers {
    type Target = [AccountId];

    fn deref(&self) -> &[AccountId] {
        &self.ids[..usize::from(self.count).min(4)]
    }
}

/// What happened to an order.
///
/// Prices and quantities of orders that a session hears of fit in 32 bits, and so they are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Archive, Freeze, Thaw)]
#[repr(C)] // as for `Report`
pub struct OrderReport {
    /// The client's label.
    pub label: Label,
    /// To which.
    pub order: OrderId,
    trade: TradeId,
    price: u32,
    remaining: u32,
    filled: u32,
    traded_price: u32,
    traded_qty: u32,
    /// Where.
    pub instrument: InstrumentId,
    kind: Kind,
    /// Buy or sell.
    pub side: Side,
    /// Of a quote its number; 0 for any other order.
    pub quote: u8,
}

/// What belongs to a trade; all zero where there is none.
#[derive(Clone, Copy, Default)]
pub(crate) struct Fill {
    pub(crate) trade: TradeId,
    pub(crate) price: u32,
    pub(crate) qty: u32,
}

/// An [`Exec`] without what belongs to a trade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Archive, Freeze, Thaw)]
pub(crate) enum Kind {
    New,
    Replaced,
    Trade { aggressor: bool },
    Closed(Closure),
}

/// What happened to an order, with what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exec {
    /// Accepted.
    New,
    /// Changed.
    Replaced,
    /// Traded.
    Trade {
        /// The match.
        trade: TradeId,
        /// At this price.
        price: Price,
        /// This many.
        qty: Qty,
        /// It was the incoming one.
        aggressor: bool,
    },
    /// No longer open.
    Closed(Closure),
}

impl Exec {
    /// As it is kept.
    #[cfg(test)]
    pub(crate) fn parts(self) -> (Kind, Fill) {
        match self {
            Self::New => (Kind::New, Fill::default()),
            Self::Replaced => (Kind::Replaced, Fill::default()),
            Self::Trade { trade, price, qty, aggressor } => {
                (Kind::Trade { aggressor }, Fill { trade, price: narrow(price.0), qty: narrow(qty.0) })
            }
            Self::Closed(reason) => (Kind::Closed(reason), Fill::default()),
        }
    }
}

/// An order as it stands once something has happened to it.
///
/// Prices and quantities of orders that a session hears of fit in 32 bits, and so they are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Subject {
    /// The client's label.
    pub label: Label,
    /// Which order.
    pub id: OrderId,
    /// Whose.
    pub account: AccountId,
    pub(crate) price: u32,
    pub(crate) remaining: u32,
    pub(crate) filled: u32,
    /// Where.
    pub instrument: InstrumentId,
    /// Buy or sell.
    pub side: Side,
    /// Of a quote its number; 0 for any other order.
    pub quote: u8,
}

impl Subject {
    /// An order without a label that is not a quote.
    ///
    /// # Panics
    /// When a price or a quantity does not fit 32 bits.
    #[must_use]
    pub fn new(
        (id, account): (OrderId, AccountId),
        (instrument, side): (InstrumentId, Side),
        price: Price,
        remaining: Qty,
        filled: Qty,
    ) -> Self {
        let (price, remaining, filled) = (narrow(price.0), narrow(remaining.0), narrow(filled.0));
        Self { label: Label::default(), id, account, price, remaining, filled, instrument, side, quote: 0 }
    }

    /// Its limit; zero for a market order.
    #[must_use]
    pub fn price(&self) -> Price {
        Price(self.price.into())
    }

    /// Still open.
    #[must_use]
    pub fn remaining(&self) -> Qty {
        Qty(self.remaining.into())
    }

    /// Filled over its life.
    #[must_use]
    pub fn filled(&self) -> Qty {
        Qty(self.filled.into())
    }
}

impl OrderReport {
    /// What is told of an order now.
    #[inline(always)]
    pub(crate) fn new(subject: &Subject, kind: Kind, fill: &Fill) -> Self {
        Self {
            order: subject.id,
            label: subject.label,
            instrument: subject.instrument,
            side: subject.side,
            quote: subject.quote,
            kind,
            price: subject.price,
            remaining: subject.remaining,
            filled: subject.filled,
            traded_price: fill.price,
            traded_qty: fill.qty,
            trade: fill.trade,
        }
    }

    /// What it was made of: of whose order it tells is said beside it.
    pub(crate) fn parts(&self, account: AccountId) -> (Subject, Kind, Fill) {
        let subject = Subject {
            id: self.order,
            account,
            label: self.label,
            instrument: self.instrument,
            side: self.side,
            price: self.price,
            remaining: self.remaining,
            filled: self.filled,
            quote: self.quote,
        };
        (subject, self.kind, Fill { trade: self.trade, price: self.traded_price, qty: self.traded_qty })
    }

    /// What happened.
    #[must_use]
    pub fn exec(&self) -> Exec {
        match self.kind {
            Kind::New => Exec::New,
            Kind::Replaced => Exec::Replaced,
            Kind::Trade { aggressor } => Exec::Trade {
                trade: self.trade,
                price: Price(self.traded_price.into()),
                qty: Qty(self.traded_qty.into()),
                aggressor,
            },
            Kind::Closed(reason) => Exec::Closed(reason),
        }
    }

    /// Its limit; zero for a market order.
    #[must_use]
    pub fn price(&self) -> Price {
        Price(self.price.into())
    }

    /// Still open.
    #[must_use]
    pub fn remaining(&self) -> Qty {
        Qty(self.remaining.into())
    }

    /// Filled over its life.
    #[must_use]
    pub fn filled(&self) -> Qty {
        Qty(self.filled.into())
    }
}
