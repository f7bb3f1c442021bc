//! Suppliers that speak Anthropic Messages: a chat completion request in their language, and their answers as chat
//! chunks. Whatever surface a client uses, its request is a chat completion by now, so this one direction is enough.
//!
//! What such a supplier can't be asked is no fault of the client's: the call goes to one that can.

mod answer;
mod request;

pub(crate) use answer::{Listener, whole};
pub(crate) use request::write;
