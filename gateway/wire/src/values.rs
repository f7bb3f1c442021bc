//! The enumerations and flag sets of the protocol. A number, once given, is never reused.
//! FIX letters are used where FIX has one, as the value of their ASCII byte.

use crate::field::{wire_enum, wire_set};

wire_enum! {
    /// Which side of the book.
    Side as "side" {
        /// Wants units, pays dollars.
        Buy = 1,
        /// Gives units, receives dollars.
        Sell = 2,
    }
}

wire_enum! {
    /// Which sides of the book a mass cancel takes.
    SideScope as "sideScope" {
        /// Bids and asks.
        Both = 0,
        /// Bids only.
        Buy = 1,
        /// Asks only.
        Sell = 2,
    }
}

wire_enum! {
    /// Whose orders a mass cancel takes.
    CancelScope as "cancelScope" {
        /// Every order of the account, whichever session entered it.
        Account = 1,
        /// Only orders that this session entered.
        Session = 2,
    }
}

wire_enum! {
    /// Limit or market.
    OrderType as "orderType" {
        /// Trades at its price or better; the rest may rest.
        Limit = 1,
        /// Trades at any price within its max slippage; never rests.
        Market = 2,
    }
}

wire_enum! {
    /// How long an order stays.
    TimeInForce as "timeInForce" {
        /// Until cancelled.
        Gtc = 1,
        /// Trades at once what it can; the rest ends.
        Ioc = 2,
        /// Trades whole at once or not at all.
        Fok = 3,
        /// Until the end of the day (UTC).
        Day = 4,
    }
}

wire_enum! {
    /// What happens where both sides of a match have one owner.
    SelfTrade as "selfTrade" {
        /// They may trade.
        None = 0,
        /// The incoming order ends.
        CancelNewest = 1,
        /// The resting order ends, the incoming goes on.
        CancelOldest = 2,
        /// Both end.
        CancelBoth = 3,
        /// Both shrink by the smaller of the two.
        Decrement = 4,
    }
}

wire_enum! {
    /// The language in which a call was made.
    Surface as "surface" {
        /// OpenAI chat completions, and where nothing else is said.
        ChatCompletions = 0,
        /// Anthropic messages.
        Messages = 1,
        /// OpenAI responses.
        Responses = 2,
    }
}

wire_enum! {
    /// Why the supplier that delivered was the one.
    Cover as "cover" {
        /// It had issued some of the drawn tokens, and where nothing else is said.
        Issuer = 0,
        /// Each issuer failed, or is suspended.
        Failed = 1,
        /// An issuer is not to blame: it can't do what the call asked for, or was kept from being asked.
        Unable = 2,
    }
}

wire_enum! {
    /// Which way units move between the two pockets of an account.
    Direction as "direction" {
        /// Trading to consumption.
        ToConsumption = 1,
        /// Consumption to trading, where the instrument's policy allows it.
        ToTrading = 2,
    }
}

wire_enum! {
    /// What an execution report says happened; FIX ExecType letters.
    ExecType as "execType" {
        /// Accepted; FIX 0.
        New = 48,
        /// Cancelled; FIX 4.
        Cancelled = 52,
        /// Replaced; FIX 5.
        Replaced = 53,
        /// Rejected; FIX 8.
        Rejected = 56,
        /// Ended by the venue: no liquidity, day over, self-trade; FIX C.
        Expired = 67,
        /// Restated: its quantity shrank without a trade; FIX D.
        Restated = 68,
        /// Traded; FIX F.
        Trade = 70,
        /// The state of an order, on request; FIX I.
        Status = 73,
    }
}

wire_enum! {
    /// The state of an order after what happened; FIX OrdStatus letters.
    OrdStatus as "ordStatus" {
        /// Resting, nothing traded; FIX 0.
        New = 48,
        /// Resting, partly traded; FIX 1.
        PartiallyFilled = 49,
        /// Traded whole; FIX 2.
        Filled = 50,
        /// Cancelled; FIX 4.
        Cancelled = 52,
        /// Rejected; FIX 8.
        Rejected = 56,
        /// Ended by the venue; FIX C.
        Expired = 67,
    }
}

wire_enum! {
    /// Why an order closed.
    Closure as "closure" {
        /// It is open.
        None = 0,
        /// By its owner, or by cancel-on-disconnect.
        Cancelled = 1,
        /// Traded in part; then the book was empty.
        PartiallyFilledNoLiquidity = 2,
        /// Traded in part; the next price was past its max slippage.
        PartiallyFilledMaxSlippage = 3,
        /// Nothing to trade with.
        NoFillNoLiquidity = 4,
        /// The first price was past its max slippage.
        NoFillMaxSlippage = 5,
        /// Self-trade prevention.
        SelfTrade = 6,
        /// Its day is over.
        DayOver = 7,
        /// Traded whole.
        Filled = 8,
        /// An ask, whose owner was suspended as a supplier of the instrument.
        Suspended = 9,
    }
}

wire_enum! {
    /// FIXP flow types.
    Flow as "flow" {
        /// Nothing is sent.
        None = 0,
        /// Best effort.
        Unsequenced = 1,
        /// At most once: client to venue.
        Idempotent = 2,
        /// Exactly once after retransmission: venue to client.
        Recoverable = 3,
    }
}

wire_enum! {
    /// What the venue does with a session's orders when its connection is lost.
    CancelPolicy as "cancelPolicy" {
        /// They stay.
        Keep = 0,
        /// They are cancelled once the grace has run out in log time.
        CancelAfterGrace = 1,
    }
}

wire_enum! {
    /// Why a Negotiate was refused.
    NegotiationCode as "negotiationCode" {
        /// No further reason given.
        Unspecified = 0,
        /// Unknown key, wrong signature or stale timestamp; deliberately one code.
        Credentials = 1,
        /// Client flow must be Idempotent, server flow Recoverable.
        FlowTypeNotSupported = 2,
        /// The session id belongs to another account.
        DuplicateId = 3,
        /// The venue cannot take it just now; try again.
        Busy = 4,
        /// The schema version is not served.
        SchemaVersion = 5,
        /// The account or its key is blocked.
        Blocked = 6,
        /// The account has as many sessions as it may.
        TooManySessions = 7,
        /// This node does not lead; try the one named, or another. Since version 2.
        NotLeader = 8,
    }
}

wire_enum! {
    /// Why an Establish was refused.
    EstablishmentCode as "establishmentCode" {
        /// No further reason given.
        Unspecified = 0,
        /// The session was never negotiated.
        Unnegotiated = 1,
        /// This connection is already established.
        AlreadyEstablished = 2,
        /// The account, key or session is blocked.
        SessionBlocked = 3,
        /// The keep-alive interval is outside what the venue accepts.
        KeepAliveInterval = 4,
        /// Unknown key, wrong signature or stale timestamp; deliberately one code.
        Credentials = 5,
        /// This node does not lead; try the one named, or another.
        NotLeader = 6,
        /// The schema version is not served.
        SchemaVersion = 7,
        /// The venue cannot take it just now; try again.
        Busy = 8,
        /// The report number wanted is beyond what was ever sent.
        NextSeqNo = 9,
    }
}

wire_enum! {
    /// Why a retransmission was refused.
    RetransmitCode as "retransmitCode" {
        /// The range holds a number that was never sent.
        OutOfRange = 1,
        /// The oldest of them is no longer kept; ask the state instead.
        NoLongerKept = 2,
        /// More than the cap for one request.
        TooMany = 3,
        /// One is already under way.
        Busy = 4,
    }
}

wire_enum! {
    /// Why a connection ends.
    TerminateCode as "terminateCode" {
        /// The sender is done.
        Finished = 0,
        /// A newer Establish of the same session took over.
        Superseded = 1,
        /// Three keep-alive intervals of silence.
        KeepAliveLapsed = 2,
        /// No login in time.
        LoginTimeout = 3,
        /// The bytes are not frames of this protocol.
        BadFrame = 4,
        /// A frame longer than the venue's limit.
        FrameTooLong = 5,
        /// A message that the schema does not define, or not for this direction.
        BadMessage = 6,
        /// A message that may not come in this phase.
        OutOfPhase = 7,
        /// Throttled, and went on.
        Throttled = 8,
        /// The reader fell too far behind.
        SlowReader = 9,
        /// No room for another connection.
        Full = 10,
        /// The venue is shutting down.
        Shutdown = 11,
        /// The key was revoked or the account blocked.
        Revoked = 12,
        /// Too many refused logins on one connection.
        Unauthenticated = 13,
        /// This node leads no longer; go on at the one named, or another. Since version 2.
        NotLeader = 14,
    }
}

wire_enum! {
    /// Which bucket ran empty, and how far.
    ThrottleLevel as "throttleLevel" {
        /// Refused; slow down.
        Rejected = 1,
        /// Refused, and the next breach ends the connection.
        LastWarning = 2,
    }
}

wire_enum! {
    /// Why a market data request was refused.
    MarketDataCode as "marketDataCode" {
        /// No such instrument.
        UnknownInstrument = 1,
        /// As many subscriptions as one connection may have.
        TooMany = 2,
        /// There is no such subscription.
        NotSubscribed = 3,
        /// The depth is larger than the venue serves.
        Depth = 4,
    }
}

wire_set! {
    /// Options of an order.
    OrderFlags as "orderFlags" {
        /// Rejected if it would trade at once.
        POST_ONLY("postOnly") = 0,
        /// Bought units go to consumption at once, whatever the account's mode says.
        TO_CONSUMPTION("toConsumption") = 1,
    }
}

wire_set! {
    /// Remarks on a report.
    ReportFlags as "reportFlags" {
        /// It may have been sent before; the same session sequence means the same report.
        POSS_RESEND("possResend") = 0,
        /// The reported side took liquidity.
        AGGRESSOR("aggressor") = 1,
        /// Nobody on this session asked for it: a resting order traded, a timer ran.
        UNSOLICITED("unsolicited") = 2,
    }
}

wire_set! {
    /// Remarks of the inference tier on a delivery.
    SettleFlags as "settleFlags" {
        /// The counts are the venue's own: the supplier sent none, or none to believe.
        ESTIMATED("estimated") = 0,
        /// The stream ended before the supplier was done.
        PARTIAL("partial") = 1,
        /// The supplier's own counts were beyond belief.
        DISTRUSTED("distrusted") = 2,
    }
}

wire_set! {
    /// Remarks on market data.
    BookFlags as "bookFlags" {
        /// Everything of this matching event has now been sent.
        END_OF_EVENT("endOfEvent") = 0,
        /// First part of a snapshot: drop the old image.
        FIRST("first") = 1,
        /// Last part of a snapshot: the image is whole.
        LAST("last") = 2,
        /// The reader fell behind; events were left out before this snapshot.
        GAP("gap") = 3,
    }
}

/// Reject codes that the gateway itself gives, before the log; the engine's are below 60,000.
pub mod gateway_reject {
    /// The inbound queue is full; nothing was done, try again with the next number.
    pub const BUSY: u16 = 60_001;
    /// The request is older than the client's own `validForUs`.
    pub const STALE: u16 = 60_002;
    /// A field holds a value that the schema does not define.
    pub const SYNTAX: u16 = 60_003;
    /// The bucket for this kind of request is empty.
    pub const THROTTLED: u16 = 60_004;
    /// The directory payload cannot be read.
    pub const PAYLOAD: u16 = 60_005;
    /// The client sequence number is zero.
    pub const ZERO_SEQUENCE: u16 = 60_006;
    /// The number was used before and its answer is no longer kept, or it was skipped; not executed.
    pub const FORGOTTEN: u16 = 60_007;
}
