//! What became of requests, orders and quotes: the numbered flow from the venue to one session.

use crate::values::*;

messages! {
    /// What happened to an order.
    [50] ExecutionReport, 116 {
        /// Number in the session's report flow; zero if not part of it.
        session_seq: u64,
        /// Log sequence of the command that caused it.
        log_seq: u64,
        /// Log time of that command, nanoseconds UTC.
        match_time: u64,
        /// The request answered; zero if none asked.
        client_seq: u64,
        /// The order.
        order_id: u64,
        /// The client's label.
        label: u128,
        /// Its limit, ticks per Unit.
        price: u64,
        /// Units still open.
        leaves_qty: u64,
        /// Units traded so far.
        cum_qty: u64,
        /// Price of this trade, ticks per Unit.
        last_price: u64,
        /// Units of this trade.
        last_qty: u64,
        /// The trade; zero if this is none.
        trade_id: u64,
        /// The account.
        account: u32,
        /// The instrument.
        instrument: u16,
        /// Buy or sell.
        side: Side,
        /// What happened.
        exec_type: ExecType,
        /// The state after it.
        ord_status: OrdStatus,
        /// Why it closed.
        closure: Closure,
        /// Remarks.
        flags: ReportFlags,
        /// Of a quote the maker's number for it; zero for any other order.
        quote: u8,
    }
    /// A request was refused.
    [51] CommandReject, 63 {
        /// Number in the session's report flow; zero when the gateway refused, before the log.
        session_seq: u64,
        /// Log sequence of the command; zero when the gateway refused.
        log_seq: u64,
        /// Log time of that command, nanoseconds UTC.
        match_time: u64,
        /// The request.
        client_seq: u64,
        /// The label it named.
        label: u128,
        /// The thing that stands in its way, where one does; else zero.
        existing_id: u64,
        /// The account.
        account: u32,
        /// Why; the venue's list of reject codes.
        code: u16,
        /// Remarks.
        flags: ReportFlags,
    }
    /// A mass cancel was done; each order has its own execution report too.
    [52] MassCancelReport, 41 {
        /// Number in the session's report flow.
        session_seq: u64,
        /// Log sequence of the command; the id of this mass action.
        log_seq: u64,
        /// Log time of that command, nanoseconds UTC.
        match_time: u64,
        /// The request.
        client_seq: u64,
        /// How many orders ended.
        cancelled: u32,
        /// The account.
        account: u32,
        /// Remarks.
        flags: ReportFlags,
    }
    /// Tokens are reserved.
    [53] ReserveReport, 69 {
        /// Number in the session's report flow.
        session_seq: u64,
        /// Log sequence of the command.
        log_seq: u64,
        /// Log time of that command, nanoseconds UTC.
        match_time: u64,
        /// The request.
        client_seq: u64,
        /// The reservation.
        reservation: u64,
        /// Tokens reserved.
        tokens: u64,
        /// Units bought for it inside the command.
        bought_qty: u64,
        /// What they cost with fees, nano-dollars.
        spent: i64,
        /// The account.
        account: u32,
        /// Remarks.
        flags: ReportFlags,
    } issuers: Issuer;
    /// A reservation was settled.
    [54] SettleReport, 69 {
        /// Number in the session's report flow.
        session_seq: u64,
        /// Log sequence of the command.
        log_seq: u64,
        /// Log time of that command, nanoseconds UTC.
        match_time: u64,
        /// The request.
        client_seq: u64,
        /// The reservation.
        reservation: u64,
        /// Tokens billed.
        billed: u64,
        /// Tokens delivered that no lot covered; nobody pays for them.
        unbilled: u64,
        /// What the billed tokens had cost, nano-dollars.
        cost: i64,
        /// The account.
        account: u32,
        /// Remarks.
        flags: ReportFlags,
    }
    /// A request without a report of its own kind was done.
    [55] CommandReport, 45 {
        /// Number in the session's report flow.
        session_seq: u64,
        /// Log sequence of the command.
        log_seq: u64,
        /// Log time of that command, nanoseconds UTC.
        match_time: u64,
        /// The request.
        client_seq: u64,
        /// The thing that it made, or acted on; zero for none.
        id: u64,
        /// The account.
        account: u32,
        /// Remarks.
        flags: ReportFlags,
    }
    /// A mass quote was done. What was refused of it has a report of its own each, before this one and with its log sequence.
    [56] MassQuoteReport, 41 {
        /// Number in the session's report flow.
        session_seq: u64,
        /// Log sequence of the command.
        log_seq: u64,
        /// Log time of that command, nanoseconds UTC.
        match_time: u64,
        /// The request.
        client_seq: u64,
        /// The account.
        account: u32,
        /// Sides that are now as was asked for; an entry has two.
        accepted: u16,
        /// Sides that were refused.
        refused: u16,
        /// Remarks.
        flags: ReportFlags,
    }
    /// One side of a mass quote was refused; nothing stands there any more.
    [57] QuoteRefused, 35 {
        /// Number in the session's report flow.
        session_seq: u64,
        /// Log sequence of the command, as in the mass quote's own report.
        log_seq: u64,
        /// Log time of that command, nanoseconds UTC.
        match_time: u64,
        /// The account.
        account: u32,
        /// The instrument.
        instrument: u16,
        /// Why; the venue's list of reject codes.
        code: u16,
        /// The maker's number for the quote.
        quote: u8,
        /// Bid (buy) or ask (sell).
        side: Side,
        /// Remarks.
        flags: ReportFlags,
    }
    /// Quote protection took the session's quotes out of the book; each one's execution report follows. Mass quotes are refused
    /// until protection is set again.
    [58] QuotesPulled, 33 {
        /// Number in the session's report flow.
        session_seq: u64,
        /// Log sequence of the command whose fills were too many.
        log_seq: u64,
        /// Log time of that command, nanoseconds UTC.
        match_time: u64,
        /// The account.
        account: u32,
        /// How many orders were taken out.
        count: u32,
        /// Remarks.
        flags: ReportFlags,
    }
}

block! {
    /// Whose tokens a reservation holds, in the order in which they will be drawn.
    Issuer, 4 {
        /// The supplier's account.
        supplier: u32,
    }
}
