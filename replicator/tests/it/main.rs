//! A replica beside a running venue, both over the sequencer's toy machine.

#![allow(
    unreachable_pub,
    dead_code,
    reason = "a test binary has no surface, and shares its toy with the sequencer's"
)]

mod comparison;
mod engine;
mod members;
mod nodes;
mod replica;
#[path = "../../../sequencer/tests/it/toy.rs"]
mod toy;
#[path = "../../../sequencer/tests/it/venue.rs"]
mod venue;
