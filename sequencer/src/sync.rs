//! What threads meet on, from one place: the crate `models` beside this one compiles the same sources over instrumented twins of
//! these and goes through their interleavings. A file that hands something from thread to thread takes its primitives from here.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

pub(crate) use crossbeam::sync::{Parker, Unparker};
