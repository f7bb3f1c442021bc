//! Every message, once: the tables in the files beside this one, by what the messages are about, are the structs that
//! programs use, the layout on the wire, and the schema that the world reads. Here they stand together: a frame may hold any
//! of them.
//!
//! `block` declares a run of fields and `body` the message around it; `grown` knows what older senders leave out, and
//! `error` what can be wrong.

#[macro_use]
mod block;
#[macro_use]
mod body;
mod delivery;
mod directory;
mod error;
mod grown;
mod market;
mod orders;
mod quotes;
mod reports;
mod session;

pub use block::{Block, BlockSpec, FieldSpec};
pub use body::{Group, MessageSpec, Tail};
pub use delivery::*;
pub use directory::*;
pub use error::DecodeError;
pub use market::*;
pub use orders::*;
pub use quotes::*;
pub use reports::*;
pub use session::*;

use crate::field::Value;
use crate::frame::Frame;

/// The id of the schema, in every header.
pub const SCHEMA_ID: u16 = 7201;
/// The version of the schema that this code speaks.
pub const SCHEMA_VERSION: u16 = 4;
/// Templates that carry a client sequence number as their first field.
pub const COMMAND_TEMPLATES: std::ops::Range<u16> = 20..40;

/// Makes of a list of messages, by what follows their blocks, the one type that holds any of them.
macro_rules! any_of {
    (
        plain { $($plain:ident,)* }
        group { $($group:ident: $entry:ident,)* }
        data { $($data:ident,)* }
    ) => {
        /// Any message of the schema, decoded.
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub enum Message<'a> {
            $(#[doc = concat!("See [`", stringify!($plain), "`].")] $plain($plain),)*
            $(#[doc = concat!("See [`", stringify!($group), "`].")] $group($group, Group<'a, $entry>),)*
            $(#[doc = concat!("See [`", stringify!($data), "`].")] $data($data, &'a [u8]),)*
        }

        impl<'a> Message<'a> {
            /// Reads the message of a frame. A block longer than this version knows is read up to
            /// what it knows.
            pub fn decode(frame: &Frame<'a>) -> Result<Self, DecodeError> {
                match frame.template {
                    $($plain::TEMPLATE => $plain::decode(frame).map(Self::$plain),)*
                    $($group::TEMPLATE => $group::decode(frame).map(|(block, entries)| Self::$group(block, entries)),)*
                    $($data::TEMPLATE => $data::decode(frame).map(|(block, data)| Self::$data(block, data)),)*
                    template => Err(DecodeError::UnknownTemplate { template }),
                }
            }

            /// The name in the schema.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$plain(_) => $plain::NAME,)*
                    $(Self::$group(..) => $group::NAME,)*
                    $(Self::$data(..) => $data::NAME,)*
                }
            }

            /// Appends the message as one frame.
            pub fn encode(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$plain(block) => block.encode(out),)*
                    $(Self::$group(block, entries) => block.encode(&entries.iter().collect::<Vec<_>>(), out),)*
                    $(Self::$data(block, data) => block.encode(data, out),)*
                }
            }

            /// The values of the fixed part, and of each group entry, under the schema's names.
            pub fn values(&self) -> (Vec<(String, Value)>, Vec<Vec<(String, Value)>>) {
                match self {
                    $(Self::$plain(block) => (block.values(), Vec::new()),)*
                    $(Self::$group(block, entries) => (
                        block.values(), entries.iter().map(|entry| entry.values()).collect(),
                    ),)*
                    $(Self::$data(block, _) => (block.values(), Vec::new()),)*
                }
            }
        }

        /// Every message of the schema.
        pub const MESSAGES: &[MessageSpec] = &[$($plain::SPEC,)* $($group::SPEC,)* $($data::SPEC,)*];

        /// One frame of every message, its values drawn from `state`; for golden files and fuzzing.
        pub fn samples(state: &mut u64) -> Vec<(&'static str, Vec<u8>)> {
            vec![
                $(($plain::NAME, $plain::sampled(state)),)*
                $(($group::NAME, $group::sampled(state)),)*
                $(($data::NAME, $data::sampled(state)),)*
            ]
        }
    };
}

// The order is that in which samples are drawn; another one would change every golden file.
any_of! {
    plain {
        Hello, Negotiate, NegotiationResponse, NegotiationReject, Establish, EstablishmentAck,
        EstablishmentReject, Sequence, RetransmitRequest, Retransmission, RetransmitReject, NotApplied,
        Throttled, NewOrder, NewOrderTagged, CancelOrder, ReplaceOrder, MassCancel, Reserve, Settle,
        Release, Transfer, QuoteProtection, MarketDataSubscribe, MarketDataUnsubscribe, ExecutionReport,
        CommandReject, MassCancelReport, SettleReport, CommandReport, MassQuoteReport, QuoteRefused,
        QuotesPulled, TradePrint, MarketDataReject, MarketDataUnsubscribed,
    }
    group {
        MassQuote: QuoteEntry, ReserveReport: Issuer, BookSnapshot: Level, BookIncrement: Level,
    }
    data {
        Terminate, DirectoryRequest,
    }
}
