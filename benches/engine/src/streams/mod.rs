//! The mixes, each a [`Tape`](crate::tape::Tape): how often what is asked, of books of which size.

mod exchange_mix;
mod place_cancel_match;
mod reserve_settle;

pub use exchange_mix::exchange_mix;
pub use place_cancel_match::{Depth, place_cancel_match};
pub use reserve_settle::reserve_settle;
