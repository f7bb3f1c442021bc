//! The sequencer's stages, compiled from the very sources that run in production, on threads whose every switch a seed decides: many thousand
//! schedules of a small venue from its first block to its shutdown, with rings so small that everybody has to wait for everybody.
//!
//! Only the files are not there: [`journal`] stands in for the one on disk. What weaker orders of memory allow is shown, hand-off
//! by hand-off, in `../memory`.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "the production sources have more doors than the models go through"
)]

#[path = "../../../src/block.rs"]
mod block;
#[path = "../../../src/blocks.rs"]
mod blocks;
#[path = "../../../src/clock.rs"]
mod clock;
#[path = "../../../src/clocks.rs"]
mod clocks;
#[path = "../../../src/consensus.rs"]
mod consensus;
#[path = "../../../src/door.rs"]
mod door;
#[path = "../../../src/doorbell.rs"]
mod doorbell;
#[path = "../../../src/driver.rs"]
mod driver;
mod fault;
#[path = "../../../src/inbound.rs"]
mod inbound;
mod journal;
#[path = "../../../src/lane.rs"]
mod lane;
#[path = "../../../src/layout.rs"]
mod layout;
#[path = "../../../src/leadership.rs"]
mod leadership;
#[path = "../../../src/machine.rs"]
mod machine;
#[path = "../../../src/outbound.rs"]
mod outbound;
#[path = "../../../src/output.rs"]
mod output;
#[path = "../../../../replicator/src/progress.rs"]
mod progress;
#[path = "../../../src/room.rs"]
mod room;
#[path = "../../../src/stages/mod.rs"]
mod stages;
#[path = "../../../src/stall.rs"]
mod stall;
mod sync;

mod venue;

pub use sync::forgetful;
pub use venue::{
    a_consumer_that_goes_holds_nobody_up, a_consumer_that_hangs, a_reader_sees_what_it_waited_for,
    a_reader_whose_replica_ends_unsaid, a_venue_runs_and_ends, a_venue_that_is_told_too_early,
    a_venue_whose_core_hears_of_no_room, leaders_change, leaders_change_over_a_gap,
    leaders_change_under_a_careless_producer,
};
