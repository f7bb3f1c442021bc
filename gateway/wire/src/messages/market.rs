//! Market data: subscriptions, and what everyone sees of a book.

use crate::values::*;

messages! {
    /// Subscribes to depth and trades of one instrument; a snapshot comes first.
    [40] MarketDataSubscribe, 12 {
        /// Echoed in the answer.
        request_id: u64,
        /// The instrument.
        instrument: u16,
        /// Price levels per side; zero for all.
        depth: u16,
    }
    /// Ends a subscription.
    [41] MarketDataUnsubscribe, 10 {
        /// Echoed in the answer.
        request_id: u64,
        /// The instrument.
        instrument: u16,
    }
    /// The book of one instrument, whole or in parts; replaces any earlier image.
    [60] BookSnapshot, 43 {
        /// The request that asked for it; zero where the venue conflated a slow reader.
        request_id: u64,
        /// The last matching event included.
        channel_seq: u64,
        /// Log sequence of that event's command.
        log_seq: u64,
        /// Log time of that command, nanoseconds UTC.
        match_time: u64,
        /// Price of the last trade, ticks per Unit; zero if none.
        last_price: u64,
        /// The instrument.
        instrument: u16,
        /// Remarks.
        flags: BookFlags,
    } levels: Level;
    /// Changes of one matching event.
    [61] BookIncrement, 27 {
        /// The instrument's channel: counts matching events.
        channel_seq: u64,
        /// Log sequence of the command that caused it.
        log_seq: u64,
        /// Log time of that command, nanoseconds UTC.
        match_time: u64,
        /// The instrument.
        instrument: u16,
        /// Remarks.
        flags: BookFlags,
    } changes: Level;
    /// A trade, for everyone.
    [62] TradePrint, 52 {
        /// The instrument's channel: counts matching events.
        channel_seq: u64,
        /// Log sequence of the command that caused it.
        log_seq: u64,
        /// Log time of that command, nanoseconds UTC.
        match_time: u64,
        /// The trade.
        trade_id: u64,
        /// Ticks per Unit.
        price: u64,
        /// Units.
        qty: u64,
        /// The instrument.
        instrument: u16,
        /// The side that took liquidity.
        aggressor: Side,
        /// Remarks.
        flags: BookFlags,
    }
    /// A market data request was refused.
    [63] MarketDataReject, 11 {
        /// The request.
        request_id: u64,
        /// The instrument it named.
        instrument: u16,
        /// Why.
        code: MarketDataCode,
    }
    /// A subscription has ended on request.
    [64] MarketDataUnsubscribed, 10 {
        /// The request.
        request_id: u64,
        /// The instrument.
        instrument: u16,
    }
}

block! {
    /// One price level after a change.
    Level, 21 {
        /// Ticks per Unit.
        price: u64,
        /// Units now open at it; zero if the level is gone.
        qty: u64,
        /// Orders now open at it.
        orders: u32,
        /// Bid (buy) or ask (sell).
        side: Side,
    }
}
