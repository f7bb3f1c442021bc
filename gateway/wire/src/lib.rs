//! The binary protocol: schema, frames and the session, without sockets.
//!
//! `messages` is the table from which structs, layout and the published XML all follow; `frame`
//! finds messages on a stream; `login` says what is signed; `session` counts numbers and silence.
//! See `PROTOCOL.md` beside this crate for the bytes. Not here: sockets, keys, the engine's types.

mod field;
mod frame;
mod leader;
mod login;
mod messages;
pub mod schema;
mod session;
mod values;

pub use field::{BadValue, Choice, Kind, Signature, Tag, Value};
pub use frame::{Frame, FrameError, HEADER_LEN, MAGIC, MAX_FRAME_LEN, SOFH_LEN, scan};
pub use leader::{leader_address, leader_fields};
pub use login::{
    ESTABLISH_DOMAIN, LOGIN_WINDOW_NS, NEGOTIATE_DOMAIN, establish_transcript, is_fresh, negotiate_transcript,
};
pub use messages::*;
pub use session::{Arrival, Beat, IdempotentFlow, Liveness, Phase, RecoverableFlow, SILENT_INTERVALS};
pub use values::*;

#[cfg(test)]
mod tests;
