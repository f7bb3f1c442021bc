//! The sequencer from the outside: a toy machine driven through rings, journal, crash and recovery.

#![allow(unreachable_pub, reason = "a test binary has no surface")]

mod damage;
mod golden;
mod log;
mod pipeline;
mod snapshots;
mod toy;
mod venue;
