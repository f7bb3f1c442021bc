//! The engine measured alone: streams of commands that are made before the clock starts, and what each of them shows.
//!
//! | module | holds |
//! |---|---|
//! | [`founding`] | the first commands of a venue, for all benches |
//! | [`venue`] | an engine that keeps every command it was given: how streams are made |
//! | [`flow`] | the open orders of a stream by number, and the same stream in a form that any order book understands |
//! | [`tape`] | a stream with the state it starts from and the outcome that every run of it must have |
//! | [`streams`] | the mixes |
//! | [`measure`], [`scenarios`] | a tape run and timed, and each mix with what it shows |
//! | [`market`] | the mix of the benches of the whole path, with its opening |
//!
//! Nothing but a stream's own outcome decides whether a run is right, and no time ever does.

pub mod dice;
pub mod flow;
pub mod founding;
pub mod market;
pub mod measure;
pub mod scenarios;
pub mod streams;
pub mod tape;
pub mod venue;

pub use scenarios::{scenarios, scenarios_beside};
