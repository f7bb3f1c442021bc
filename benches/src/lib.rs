//! Latency and throughput, told honestly: every number comes with what was done, and what was done is checked.
//!
//! `cargo run --release -p grid-benches -- place_cancel_match`, or `-- --help`. One module per group of scenarios.
//! Scenarios that compare take turns round by round in one run, and print the median of the rounds and how far they went
//! apart. Figures of the disk are for the ratio beside them: nothing here passes or fails by an absolute one.

pub mod awake;
pub mod cluster;
pub mod commit;
pub mod engine_mix;
pub mod failover;
pub mod figures;
pub mod ground;
mod live;
pub mod replay;
