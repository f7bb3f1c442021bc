//! A whole cluster in one thread, from one seed.
//!
//! Production code does the work: the stages of `grid_sequencer`, the journal, snapshots and recovery over a simulated disk, the raft core
//! and the replica of `grid_replicator`, the engine. Around it everything goes wrong that can: processes end at any step and at named places
//! inside that code, machines lose their power and what was not synced, disks tear, fill and fail, bits flip, links part, lose, delay and
//! repeat, clocks jump, members change. Clients trade through all of it and believe only what they are told.
//!
//! First everything goes wrong; then everything is repaired and must come together. What must hold is checked all the time:
//!
//! | check | where |
//! |---|---|
//! | one committed log; an index has one block; a term has one leader; stamps never go back | `ledger` |
//! | committed means durable on a majority at that moment; reported durable means synced, and is there after every crash | `probe`, `node` |
//! | nothing acked is lost, nothing executed twice, nothing left out, nothing invented | `ledger`, `client` |
//! | every client sees the same reports as every node has, byte for byte | `client`, `ledger` |
//! | nodes have the same state at the same block, byte for byte at the end | `world` |
//! | answers, trades and balances are those of an independent model; dollars and tokens are conserved | `model` |
//! | after the repair everybody gets an answer and all nodes come to the same place | `world` |
//!
//! The same seed gives the same run, so a failure's seed is all it takes to see it again.

mod client;
mod dice;
mod disk;
mod gateway;
mod ledger;
mod model;
#[allow(dead_code, reason = "the engine's own tests use all of their oracle")]
#[path = "../../../engine/tests/behaviour/naive.rs"]
mod naive;
mod network;
mod node;
mod outcome;
mod probe;
mod settings;
mod wires;
mod world;

pub use outcome::{Counts, Knobs, Lie, Outcome, Summary, run, run_many, run_with};
