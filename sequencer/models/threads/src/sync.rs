//! The twin of the sequencer's and the replicator's `sync` over `shuttle`, which decides from a seed at every access which thread goes on.
//!
//! All accesses here are in one order, so fences do nothing; what weaker orders allow is `../memory`'s business.

use std::cell::Cell;
use std::time::Duration;

pub(crate) use std::sync::{Arc, PoisonError};

pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard};
pub(crate) use shuttle::thread;

thread_local! {
    static FORGETFUL: Cell<bool> = const { Cell::new(false) };
}

/// Below this, a limit is part of how something works; above it, a belt beside the braces, and time never passes that long.
const LONG: Duration = Duration::from_millis(100);

/// Runs `model` over parkers that forget a token which came before the thread parked. `shuttle` runs all threads of a model on this one.
pub fn forgetful<R>(model: impl FnOnce() -> R) -> R {
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            FORGETFUL.set(false);
        }
    }
    FORGETFUL.set(true);
    let _restore = Restore;
    model()
}

/// Nothing to do: one order holds for all accesses.
pub(crate) fn fence(_order: Ordering) {}

#[derive(Debug, Default)]
struct Token {
    given: Mutex<bool>,
    changed: Condvar,
}

/// Parks a thread until its token is given; a token given before is not lost.
#[derive(Debug, Default)]
pub(crate) struct Parker(Arc<Token>);

/// Gives the token.
#[derive(Clone, Debug)]
pub(crate) struct Unparker(Arc<Token>);

impl Parker {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn unparker(&self) -> Unparker {
        Unparker(Arc::clone(&self.0))
    }

    pub(crate) fn park(&self) {
        let mut given = self.0.given.lock().unwrap_or_else(PoisonError::into_inner);
        if FORGETFUL.get() {
            *given = false;
        }
        while !*given {
            given = self.0.changed.wait(given).unwrap_or_else(PoisonError::into_inner);
        }
        *given = false;
    }

    pub(crate) fn park_timeout(&self, limit: Duration) {
        if limit > LONG {
            return self.park();
        }
        *self.0.given.lock().unwrap_or_else(PoisonError::into_inner) = false;
        thread::yield_now();
    }
}

impl Unparker {
    pub(crate) fn unpark(&self) {
        *self.0.given.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.changed.notify_one();
    }
}
