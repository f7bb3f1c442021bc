//! A maker's quotes, many in one message, and the limit on how fast they may be filled.

use crate::values::*;

messages! {
    /// Says what many quotes are to be from now on; each side is done or refused for itself.
    [30] MassQuote, 26 {
        /// Strictly increasing in the session; at most once.
        client_seq: u64,
        /// The client's clock, nanoseconds UTC.
        sending_time: u64,
        /// The account; zero for the session's own, which it must be.
        account: u32,
        /// Refused in the gateway when older than this, microseconds; zero for never.
        valid_for_us: u32,
        /// Where both sides have one owner.
        self_trade: SelfTrade,
        /// Options; only postOnly.
        flags: OrderFlags,
    } quotes: QuoteEntry;
    /// Sets how much of the session's quotes may be filled within how long before all of them are pulled. All zero: any
    /// amount. Counting begins anew, and after a pull quotes are taken again.
    [31] QuoteProtection, 36 {
        /// Strictly increasing in the session; at most once.
        client_seq: u64,
        /// The client's clock, nanoseconds UTC.
        sending_time: u64,
        /// So many Units filled within the window pull the quotes; zero for any number.
        qty: u64,
        /// The account; zero for the session's own, which it must be.
        account: u32,
        /// The window, microseconds of log time; it begins with a fill, and the next fill after its end begins another.
        window_us: u32,
        /// So many fills within the window pull the quotes; zero for any number.
        fills: u32,
    }
}

block! {
    /// One quote, a bid and an ask: what stands of it is moved, changed or withdrawn. In ascending order of instrument and
    /// number, none twice.
    QuoteEntry, 35 {
        /// The bid's limit in ticks per Unit.
        bid_price: u64,
        /// Units to be open of the bid; zero for none.
        bid_qty: u64,
        /// The ask's limit in ticks per Unit.
        ask_price: u64,
        /// Units to be open of the ask; zero for none.
        ask_qty: u64,
        /// The instrument.
        instrument: u16,
        /// The maker's number for it, 1 to 63; its own in each session and instrument.
        quote: u8,
    }
}

/// The most entries of a [`MassQuote`].
pub const MAX_QUOTE_ENTRIES: usize = 64;
