//! The mixes, each a [`Tape`](crate::tape::Tape): how often what is asked, of books of which size.

mod bursts;
mod exchange_mix;
mod hot;
mod many_books;
mod place_cancel_match;
mod quotes;
mod reserve_settle;

pub use bursts::{cancel_burst, mass_cancel, thin_book_sweep};
pub use exchange_mix::{exchange_mix, exchange_mix_among};
pub use hot::{Hot, hot};
pub use many_books::Books;
pub use place_cancel_match::{Depth, place_cancel_match, place_cancel_match_among};
pub use quotes::{ORDERS_PER_QUOTE, mass_quotes, replaced_quotes};
pub use reserve_settle::reserve_settle;
