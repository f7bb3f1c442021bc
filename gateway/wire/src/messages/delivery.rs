//! Delivery: tokens taken for an inference call, what the call used of them, and units on their way to where calls take them.

use crate::values::*;

messages! {
    /// Takes tokens out of the account's lots for one inference call, buying if it may.
    [25] Reserve, 56 {
        /// Strictly increasing in the session; at most once.
        client_seq: u64,
        /// The client's clock, nanoseconds UTC.
        sending_time: u64,
        /// The client's id of the call, unique per account.
        request_id: u128,
        /// Tokens wanted at most.
        tokens: u64,
        /// The account; zero for the session's own.
        account: u32,
        /// How long the reservation lives, milliseconds; zero for the instrument's default.
        valid_for_ms: u32,
        /// The instrument.
        instrument: u16,
        /// Where the call came in.
        surface: Surface,
        /// Not read; what follows is aligned by it.
        spare: u8,
        /// The consumption key of the call, counted from 1; zero for none.
        key: u32,
    }
    /// Turns a reservation into a usage record and gives back the rest.
    [26] Settle, 60 {
        /// Strictly increasing in the session; at most once.
        client_seq: u64,
        /// The client's clock, nanoseconds UTC.
        sending_time: u64,
        /// The reservation.
        reservation: u64,
        /// Tokens that went in.
        prompt_tokens: u64,
        /// Tokens that came out.
        completion_tokens: u64,
        /// The account; zero for the session's own.
        account: u32,
        /// The account of the supplier that delivered.
        supplier: u32,
        /// Request to first token, microseconds.
        ttft_us: u32,
        /// Whole duration, microseconds.
        duration_us: u32,
        /// Remarks.
        flags: SettleFlags,
        /// Which of the supplier's offers served, from 0.
        offer: u8,
        /// Why it was this supplier.
        cover: Cover,
        /// Suppliers that were asked, this one too; zero where nobody counted.
        attempts: u8,
    }
    /// Gives a reservation back whole.
    [27] Release, 32 {
        /// Strictly increasing in the session; at most once.
        client_seq: u64,
        /// The client's clock, nanoseconds UTC.
        sending_time: u64,
        /// The reservation.
        reservation: u64,
        /// The account; zero for the session's own.
        account: u32,
        /// The account of the supplier that failed; zero where none was reached.
        supplier: u32,
    }
    /// Moves units between the trading and the consumption pocket of one account.
    [28] Transfer, 31 {
        /// Strictly increasing in the session; at most once.
        client_seq: u64,
        /// The client's clock, nanoseconds UTC.
        sending_time: u64,
        /// Units.
        qty: u64,
        /// The account; zero for the session's own.
        account: u32,
        /// The instrument.
        instrument: u16,
        /// Which way.
        direction: Direction,
    }
}
