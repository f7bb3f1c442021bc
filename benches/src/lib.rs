//! Latency and throughput, told honestly: every number comes with what was done, and what was done is checked.
//!
//! `cargo run --release -p grid-benches -- place_cancel_match`. One module per group of scenarios.

pub mod engine_mix;
