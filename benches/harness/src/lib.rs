//! How everything here is measured and told: rounds with their median and spread, percentiles, the floor beside the result, and one form
//! of report for all scenarios. What is measured is not known here: a [`Scenario`] brings its work, checks it, and answers with [`Row`]s.
//!
//! Three rules keep the figures honest. A latency under load counts from the moment at which the command was *planned* to be sent
//! ([`OpenLoop`]), so a stall is in every command that it delayed. Figures are compared within one run, round by round, never with those of
//! another day. And no time decides whether a run passes: the result of the work does.

mod awake;
mod figures;
pub mod floors;
mod ground;
pub mod heap;
mod html;
mod latencies;
mod machine;
mod markdown;
mod near;
mod open_loop;
pub mod plain;
mod report;
mod rounds;
mod row;
mod scenario;
mod table;

pub use awake::Awake;
pub use figures::how_many;
pub use ground::Ground;
pub use latencies::{Latencies, PERCENTILES, histogram};
pub use machine::Machine;
pub use open_loop::OpenLoop;
pub use report::{Measured, Report, SCHEMA};
pub use rounds::{Rounds, median_of, micros, nanos, per_second, ratios};
pub use row::{Against, Floor, Point, Row};
pub use scenario::{Scenario, Settings};
