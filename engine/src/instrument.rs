//! What is traded: a standardized contract for inference, defined by what is measured and not by a model.

use rkyv::{Archive, Deserialize as Thaw, Serialize as Freeze};
use serde::{Deserialize, Serialize};

use crate::units::{Nanos, Price, Qty, Usd};

/// The terms of an instrument and of its market. Set by the operator, identified by `symbol`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Archive, Freeze, Thaw)]
pub struct InstrumentSpec {
    /// Lower-case name that clients pass as `model`, at most 32 bytes of `a-z 0-9 -`.
    pub symbol: String,
    /// Display name, at most 64 bytes.
    pub name: String,
    /// For people, at most 512 bytes.
    pub description: String,
    /// What is measured.
    pub quality: QualityTerms,
    /// How it trades.
    pub market: MarketTerms,
    /// How it is delivered.
    pub delivery: DeliveryTerms,
    /// Whether it trades at all.
    pub status: InstrumentStatus,
}

/// The measured thresholds (contract §2.1).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, Archive, Freeze, Thaw)]
pub struct QualityTerms {
    /// Which public index the floor is on, e.g. `AA Intelligence`.
    pub index: String,
    /// Lowest index value that qualifies; 0 where none is published.
    pub score_floor: u32,
    /// Lowest output speed in tokens per second; 0 where none is published.
    pub tokens_per_second_floor: u32,
    /// Longest time to first token, in milliseconds.
    pub ttft_ceiling_ms: u32,
    /// Smallest context window that qualifies, in tokens.
    pub context_floor: u32,
    /// Smallest maximum output that qualifies, in tokens.
    pub output_floor: u32,
}

/// The market's order controls (contract §3.13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Archive, Freeze, Thaw)]
pub struct MarketTerms {
    /// What one tick is worth per Unit.
    pub tick: Usd,
    /// Orders come in multiples of this many Units.
    pub lot: Qty,
    /// Smallest order.
    pub min_qty: Qty,
    /// Largest order.
    pub max_qty: Qty,
    /// Highest price that can be entered.
    pub max_price: Price,
    /// What a maker pays, in hundredths of a percent of notional.
    pub maker_fee_bps: u16,
    /// What a taker pays, in hundredths of a percent of notional.
    pub taker_fee_bps: u16,
}

/// How bought Units reach consumption, and how long they live there (contract §4.2, D1 to D3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Archive, Freeze, Thaw)]
pub struct DeliveryTerms {
    /// Life of a lot, or none.
    pub window: Option<Nanos>,
    /// When Units move.
    pub movement: Movement,
}

/// When Units move from trading to consumption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Archive, Freeze, Thaw)]
pub enum Movement {
    /// At fill in Auto Mode; by the owner's own transfer in Advanced Mode.
    AtFill,
    /// Everything that is free to move, at 00, 04, 08, 12, 16 and 20 UTC.
    Swept,
}

/// Whether an instrument trades.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Archive, Freeze, Thaw)]
pub enum InstrumentStatus {
    /// Listed, not yet open for orders.
    Preview,
    /// Open.
    Live,
    /// Closed for new orders for now; cancels and delivery go on.
    Halted,
}
