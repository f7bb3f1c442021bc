//! Requests as callers make them, and reports and events as they get them: owned, and without the fields that are
//! the client's business.

use std::net::SocketAddr;
use std::sync::Arc;

use grid_wire::{
    BookIncrement, BookSnapshot, CancelOrder, CommandReject, CommandReport, DirectoryRequest,
    ExecutionReport, Issuer, Level, MAX_PAYLOAD_LEN, MAX_QUOTE_ENTRIES, MarketDataReject, MassCancel,
    MassCancelReport, MassQuote, MassQuoteReport, Message, NewOrder, NewOrderTagged, QuoteProtection,
    QuoteRefused, QuotesPulled, Release, ReplaceOrder, Reserve, ReserveReport, Settle, SettleReport,
    TradePrint, Transfer,
};

use crate::error::ClientError;
use crate::quotes::Quotes;

/// Something to ask of the venue. The client fills in `client_seq` and `sending_time`.
#[derive(Clone, Debug)]
pub enum Request {
    /// Enter an order.
    Place(NewOrder),
    /// Enter an order with a text of its own.
    PlaceTagged(Box<NewOrderTagged>),
    /// Cancel an order.
    Cancel(CancelOrder),
    /// Replace an order's open quantity and price.
    Replace(ReplaceOrder),
    /// Cancel many orders.
    MassCancel(MassCancel),
    /// Say what many quotes are to be.
    MassQuote(Quotes),
    /// Set when the session's quotes are pulled.
    Protect(QuoteProtection),
    /// Set tokens aside.
    Reserve(Reserve),
    /// Bill a reservation.
    Settle(Settle),
    /// Give a reservation back.
    Release(Release),
    /// Move units between the pockets of an account.
    Transfer(Transfer),
    /// A rare command in the engine's log form.
    Directory {
        /// The account acted on; zero for the session's own.
        account: u32,
        /// The engine's command, encoded.
        payload: Vec<u8>,
    },
}

macro_rules! from {
    ($($message:ty => $variant:ident),*) => {
        $(impl From<$message> for Request {
            fn from(message: $message) -> Self {
                Self::$variant(message.into())
            }
        })*
    };
}
from!(
    NewOrder => Place, NewOrderTagged => PlaceTagged, CancelOrder => Cancel, ReplaceOrder => Replace,
    MassCancel => MassCancel, Quotes => MassQuote, QuoteProtection => Protect, Reserve => Reserve, Settle => Settle, Release => Release, Transfer => Transfer
);

impl Request {
    /// Why it can never be sent, if so.
    pub(crate) fn unfit(&self) -> Option<ClientError> {
        match self {
            Self::Directory { payload, .. } if payload.len() > MAX_PAYLOAD_LEN => {
                Some(ClientError::TooLong { bytes: payload.len(), max: MAX_PAYLOAD_LEN })
            }
            Self::MassQuote(Quotes { entries, .. }) if entries.len() > MAX_QUOTE_ENTRIES => {
                Some(ClientError::TooManyQuotes { entries: entries.len(), max: MAX_QUOTE_ENTRIES })
            }
            _ => None,
        }
    }

    /// The version of the protocol that brought it. An older node would end the connection over it, and again after each resend.
    pub(crate) fn since(&self) -> u16 {
        match self {
            Self::MassQuote(_) | Self::Protect(_) => 4,
            _ => 1,
        }
    }

    /// What the venue's throttle counts it as.
    pub(crate) fn cost(&self) -> Cost {
        match self {
            Self::Cancel(_) | Self::MassCancel(_) => Cost::Cancel,
            Self::MassQuote(Quotes { entries, .. }) => Cost::Requests(entries.len().max(1) as u32),
            _ => Cost::Requests(1),
        }
    }

    /// The frame under this number.
    pub(crate) fn encode(self, client_seq: u64, sending_time: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(160);
        match self {
            Self::Place(m) => NewOrder { client_seq, sending_time, ..m }.encode(&mut out),
            Self::PlaceTagged(m) => NewOrderTagged { client_seq, sending_time, ..*m }.encode(&mut out),
            Self::Cancel(m) => CancelOrder { client_seq, sending_time, ..m }.encode(&mut out),
            Self::Replace(m) => ReplaceOrder { client_seq, sending_time, ..m }.encode(&mut out),
            Self::MassCancel(m) => MassCancel { client_seq, sending_time, ..m }.encode(&mut out),
            Self::MassQuote(Quotes { message, entries }) => {
                MassQuote { client_seq, sending_time, ..message }.encode(&entries, &mut out);
            }
            Self::Protect(m) => QuoteProtection { client_seq, sending_time, ..m }.encode(&mut out),
            Self::Reserve(m) => Reserve { client_seq, sending_time, ..m }.encode(&mut out),
            Self::Settle(m) => Settle { client_seq, sending_time, ..m }.encode(&mut out),
            Self::Release(m) => Release { client_seq, sending_time, ..m }.encode(&mut out),
            Self::Transfer(m) => Transfer { client_seq, sending_time, ..m }.encode(&mut out),
            Self::Directory { account, payload } => {
                DirectoryRequest { client_seq, sending_time, account }.encode(&payload, &mut out);
            }
        }
        out
    }
}

/// From which of the venue's buckets a request is drawn. Cancels have a larger one of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cost {
    /// One cancel.
    Cancel,
    /// As much as so many requests.
    Requests(u32),
}

/// One numbered report of the session. As the result of a call it is the answer, and not a reject.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// Something happened to an order.
    Execution(ExecutionReport),
    /// A request was refused.
    Reject(CommandReject),
    /// A mass cancel was done.
    MassCancel(MassCancelReport),
    /// A mass quote was done, with what was refused of it. There are fewer refusals than `refused` says only where reports were
    /// lost, which [`Event::ReportsLost`] tells.
    MassQuote(MassQuoteReport, Arc<[QuoteRefused]>),
    /// One side of a mass quote was refused; the answer brings it too. Never the result of a call.
    QuoteRefused(QuoteRefused),
    /// Quote protection took the session's quotes out of the book. Never the result of a call.
    QuotesPulled(QuotesPulled),
    /// Tokens are reserved, by issuer.
    Reserve(ReserveReport, Arc<[Issuer]>),
    /// A reservation was settled.
    Settle(SettleReport),
    /// Another request was done.
    Command(CommandReport),
}

macro_rules! common {
    ($($(#[doc = $doc:literal])* $name:ident: $type:ty),*) => {
        $($(#[doc = $doc])*
        #[must_use]
        pub fn $name(&self) -> $type {
            match self {
                Self::Execution(r) => r.$name,
                Self::Reject(r) => r.$name,
                Self::MassCancel(r) => r.$name,
                Self::MassQuote(r, _) => r.$name,
                Self::QuoteRefused(r) => r.$name,
                Self::QuotesPulled(r) => r.$name,
                Self::Reserve(r, _) => r.$name,
                Self::Settle(r) => r.$name,
                Self::Command(r) => r.$name,
            }
        })*
    };
}

impl Report {
    common! {
        /// Its number in the session; 0 where the gateway spoke, before the log.
        session_seq: u64,
        /// Log sequence of the command that caused it: a replica that has passed it shows what it did.
        log_seq: u64,
        /// The account concerned.
        account: u32
    }

    /// The request that it answers or follows from; 0 for none.
    #[must_use]
    pub fn client_seq(&self) -> u64 {
        match self {
            Self::Execution(r) => r.client_seq,
            Self::Reject(r) => r.client_seq,
            Self::MassCancel(r) => r.client_seq,
            Self::MassQuote(r, _) => r.client_seq,
            Self::QuoteRefused(_) | Self::QuotesPulled(_) => 0,
            Self::Reserve(r, _) => r.client_seq,
            Self::Settle(r) => r.client_seq,
            Self::Command(r) => r.client_seq,
        }
    }

    /// The order that it is about, or the thing that the request made; 0 for none.
    #[must_use]
    pub fn id(&self) -> u64 {
        match self {
            Self::Execution(r) => r.order_id,
            Self::Reject(r) => r.existing_id,
            Self::MassCancel(r) => r.log_seq,
            Self::MassQuote(r, _) => r.log_seq,
            Self::QuoteRefused(_) | Self::QuotesPulled(_) => 0,
            Self::Reserve(r, _) => r.reservation,
            Self::Settle(r) => r.log_seq,
            Self::Command(r) => r.id,
        }
    }

    /// The report in a message, if it is one. Refusals of a mass quote are not in the message of its answer.
    pub(crate) fn from_message(message: &Message<'_>) -> Option<Self> {
        Some(match message {
            Message::ExecutionReport(r) => Self::Execution(*r),
            Message::CommandReject(r) => Self::Reject(*r),
            Message::MassCancelReport(r) => Self::MassCancel(*r),
            Message::MassQuoteReport(r) => Self::MassQuote(*r, [].into()),
            Message::QuoteRefused(r) => Self::QuoteRefused(*r),
            Message::QuotesPulled(r) => Self::QuotesPulled(*r),
            Message::ReserveReport(r, issuers) => Self::Reserve(*r, issuers.iter().collect()),
            Message::SettleReport(r) => Self::Settle(*r),
            Message::CommandReport(r) => Self::Command(*r),
            _ => return None,
        })
    }
}

/// Something that the venue said, or that happened to the connection.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The session is live.
    Connected {
        /// Where.
        address: SocketAddr,
        /// The highest client sequence number that the venue has applied.
        last_client_seq: u64,
    },
    /// The connection was lost; the client is trying to take the session up again.
    Disconnected,
    /// A report of this session, answers included; each number once, late ones after a gap too.
    Report(Report),
    /// Reports that the venue no longer keeps.
    ReportsLost {
        /// The first.
        from: u64,
        /// The first that is not lost.
        until: u64,
    },
    /// A book's image, whole or in parts.
    Snapshot(BookSnapshot, Arc<[Level]>),
    /// A book's changes by one matching event.
    Increment(BookIncrement, Arc<[Level]>),
    /// A trade.
    Trade(TradePrint),
    /// A subscription was refused.
    MarketDataReject(MarketDataReject),
    /// The client has stopped for good.
    Stopped(ClientError),
}
