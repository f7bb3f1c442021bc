//! The path and the network, measured: from a command handed in to its answer, through one node and through three.
//!
//! `cargo run --release -p grid-benches -- list` names every scenario; `README.md` beside this crate says how to read a row. One module
//! per group of scenarios, each opening with what a regression in it would mean. Scenarios that compare take turns round by round in one
//! run. Figures of the disk are for the ratio beside them: nothing here passes or fails by an absolute one.

pub mod cluster;
pub mod commit;
pub mod failover;
pub mod growth;
pub mod inproc;
pub mod inside;
mod live;
pub mod no_disk;
pub mod replay;
pub mod rings;
pub mod stages;

use grid_harness::Scenario;

/// Every scenario of this crate, in the order in which `all` runs them.
#[must_use]
pub fn scenarios() -> Vec<Box<dyn Scenario>> {
    vec![
        Box::new(rings::RingOnly),
        Box::new(inproc::InprocOrderToAck),
        Box::new(stages::Clocks),
        Box::new(commit::CommitLatency),
        Box::new(commit::ReplicatedThroughput),
        Box::new(replay::ReplayRate),
        Box::new(replay::Recovery),
        Box::new(failover::Failover),
        Box::new(growth::Growth),
    ]
}
