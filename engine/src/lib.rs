//! The market itself: a pure function of (state, command, stamped time).
//!
//! [`Engine::apply`] takes one [`Entry`] of the log with its position and stamp, changes the [`State`] and says in
//! [`Event`]s what happened. Same log, same bytes: nothing here knows a clock, chance, a thread, a file, a socket, a
//! float or an unordered collection (`.clippy.toml` beside `Cargo.toml` says so to the compiler).
//!
//! | module | holds |
//! |---|---|
//! | [`units`], [`ids`] | quantities and names, each its own type |
//! | [`command`], [`event`], [`reject`] | what comes in, what goes out, and every "no" with its number |
//! | [`instrument`] | the terms of what is traded |
//! | [`funding`] | the terms on which money comes in |
//! | [`sla`] | what suppliers promise, how they fail, what that costs |
//! | [`state`] | all state as plain data |
//! | [`book`] | one instrument's resting orders, by price and then time |
//! | [`limits`] | every bound |

#![deny(clippy::float_arithmetic)] // a rounding never creates money (design §2.11)

pub mod book;
pub mod command;
mod engine;
pub mod event;
pub mod funding;
pub mod ids;
pub mod instrument;
pub mod limits;
mod log_form;
mod prefetch;
pub mod reject;
mod report;
pub mod sla;
pub mod state;
pub mod units;

pub use command::{Command, Entry};
pub use engine::{Ahead, Engine, SnapshotError, Violation};
pub use event::Event;
pub use ids::*;
pub use reject::Reject;
pub use state::State;
pub use units::*;
