//! What sessions are told: numbered reports, the last of which are state, so that any later leader can repeat them.

#![allow(
    missing_docs,
    reason = "rkyv derives public resolvers whose fields it can't document; every item here is"
)]

use serde::{Deserialize, Serialize};

use crate::command::Side;
use crate::event::Closure;
use crate::ids::{AccountId, InstrumentId, Label, OrderId, ReservationId, TradeId};
use crate::reject::Reject;
use crate::units::{Nanos, Price, Qty, Seq, Tokens, Usd};

/// One numbered report to a session; the last ones are kept in state, so that any later leader can repeat them.
#[derive(
    Clone,
    Debug,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
)]
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
#[derive(
    Clone,
    Debug,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
)]
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
        /// Who issued the tokens, in the order of the draws, without repeats, at most 4.
        issuers: Vec<AccountId>,
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

/// What happened to an order.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
)]
pub struct OrderReport {
    /// What.
    pub exec: Exec,
    /// To which.
    pub order: OrderId,
    /// The client's label.
    pub label: Label,
    /// Where.
    pub instrument: InstrumentId,
    /// Buy or sell.
    pub side: Side,
    /// Limit; zero for a market order.
    pub price: Price,
    /// Still open.
    pub remaining: Qty,
    /// Filled over its life.
    pub filled: Qty,
}

/// What happened to an order, with what belongs to it.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
)]
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
