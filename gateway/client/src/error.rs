//! Why a request has no answer, and what that says about whether it happened.

use grid_wire::{CommandReject, EstablishmentCode, NegotiationCode, TerminateCode};

/// A request that was not done, or whose outcome is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The engine, or the gateway before it (codes from 60,000), refused.
    #[error("refused with code {}", .0.code)]
    Rejected(CommandReject),
    /// Too many requests for this session.
    #[error("throttled; try again in {retry_after_ms} ms")]
    Throttled {
        /// When one more would pass, milliseconds.
        retry_after_ms: u32,
    },
    /// The venue never saw the request and will not take its number any more.
    #[error("not applied: the venue did not see it")]
    NotApplied,
    /// The venue has passed this number and no longer knows what it answered: the request may have happened.
    #[error("the venue no longer keeps the answer")]
    AnswerLost,
    /// No answer in time, or (from [`crate::Client::connect`]) no session in time.
    #[error("no answer in time ({})", if *.sent { "sent: it may have happened" } else { "never sent" })]
    Timeout {
        /// Whether it was sent: then it may have happened, or may yet.
        sent: bool,
    },
    /// The client's own queue is full.
    #[error("too many requests wait to be sent")]
    Busy,
    /// A directory payload above the protocol's limit.
    #[error("payload of {bytes} bytes, at most {max}")]
    TooLong {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// More entries in one mass quote than the protocol's limit.
    #[error("{entries} quotes, at most {max}")]
    TooManyQuotes {
        /// How many.
        entries: usize,
        /// The limit.
        max: usize,
    },
    /// The node speaks an older version of the protocol, which has no such request.
    #[error("the venue speaks version {version} of the protocol, which does not know this request")]
    NotServed {
        /// Its version.
        version: u16,
    },
    /// The client was closed; a request that was under way may have happened.
    #[error("the client is closed")]
    Closed,
    /// The venue will not have this session; the client has stopped.
    #[error("the venue refuses the session: {0}")]
    Refused(Refusal),
    /// No gateway could be reached, or this machine could not give what a client needs.
    #[error("{0}")]
    Io(String),
}

impl ClientError {
    /// Whether the request certainly changed nothing and never will, so that it may be made anew.
    #[must_use]
    pub fn not_applied(&self) -> bool {
        match self {
            Self::Rejected(_)
            | Self::Throttled { .. }
            | Self::NotApplied
            | Self::Busy
            | Self::TooLong { .. }
            | Self::TooManyQuotes { .. }
            | Self::NotServed { .. } => true,
            Self::Timeout { sent } => !sent,
            Self::AnswerLost | Self::Closed | Self::Refused(_) | Self::Io(_) => false,
        }
    }

    /// The reject code, where it was refused.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Rejected(reject) => Some(reject.code),
            _ => None,
        }
    }
}

/// Why trying again would not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The session was not opened.
    #[error("negotiation: {code:?} (engine code {engine_code})")]
    Negotiation {
        /// Why.
        code: NegotiationCode,
        /// The engine's reject, or zero.
        engine_code: u16,
    },
    /// The session did not come to life.
    #[error("establishment: {code:?} (engine code {engine_code})")]
    Establishment {
        /// Why.
        code: EstablishmentCode,
        /// The engine's reject, or zero.
        engine_code: u16,
    },
    /// The venue ended it for good: another connection took it over, or its key was revoked.
    #[error("terminated: {0:?}")]
    Terminated(TerminateCode),
}
