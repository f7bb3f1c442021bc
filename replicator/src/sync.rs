//! What threads meet on, from one place, as in the sequencer: its models compile the same sources over instrumented twins.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
pub(crate) use std::sync::{Condvar, Mutex, PoisonError};
