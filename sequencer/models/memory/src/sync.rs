//! The twin of the sequencer's `sync` over `loom`, which runs every interleaving and every stale value that the memory model allows.
//!
//! `loom` takes a `SeqCst` access for an acquire-release one, which is too weak and would raise false alarms. Here such an access stands between
//! full fences, which `loom` takes for what they are; that is right because the modelled code uses `SeqCst` on all accesses of a
//! protocol or on none.
//!
//! [`weakened`] takes the fences out, and with them what `SeqCst` adds: the same sources must then fail, or the model shows nothing.

use std::cell::Cell;
use std::time::Duration;

pub(crate) use std::sync::{Arc, PoisonError};

pub(crate) use loom::sync::atomic::Ordering;
pub(crate) use loom::sync::{Condvar, Mutex};

thread_local! {
    static WEAKENED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `model` with every full fence taken out of the sources. `loom` runs all threads of a model on this one.
pub fn weakened<R>(model: impl FnOnce() -> R) -> R {
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            WEAKENED.set(false);
        }
    }
    WEAKENED.set(true);
    let _restore = Restore;
    model()
}

pub(crate) fn fence(order: Ordering) {
    if !WEAKENED.get() {
        loom::sync::atomic::fence(order);
    }
}

/// Does an access, between full fences if it is to be sequentially consistent.
fn ordered<R>(order: Ordering, access: impl FnOnce() -> R) -> R {
    let total = order == Ordering::SeqCst;
    if total {
        fence(Ordering::SeqCst);
    }
    let result = access();
    if total {
        fence(Ordering::SeqCst);
    }
    result
}

fn of_load(order: Ordering) -> Ordering {
    if order == Ordering::SeqCst { Ordering::Acquire } else { order }
}

fn of_store(order: Ordering) -> Ordering {
    if order == Ordering::SeqCst { Ordering::Release } else { order }
}

fn of_both(order: Ordering) -> Ordering {
    if order == Ordering::SeqCst { Ordering::AcqRel } else { order }
}

macro_rules! atomic {
    ($name:ident, $of:ty) => {
        #[derive(Debug, Default)]
        pub(crate) struct $name(loom::sync::atomic::$name);

        #[allow(dead_code, reason = "not every type needs every access")]
        impl $name {
            pub(crate) fn new(value: $of) -> Self {
                Self(loom::sync::atomic::$name::new(value))
            }

            pub(crate) fn load(&self, order: Ordering) -> $of {
                ordered(order, || self.0.load(of_load(order)))
            }

            pub(crate) fn store(&self, value: $of, order: Ordering) {
                ordered(order, || self.0.store(value, of_store(order)));
            }

            pub(crate) fn swap(&self, value: $of, order: Ordering) -> $of {
                ordered(order, || self.0.swap(value, of_both(order)))
            }
        }
    };
}

atomic!(AtomicBool, bool);
atomic!(AtomicU64, u64);
atomic!(AtomicUsize, usize);

impl AtomicUsize {
    pub(crate) fn fetch_add(&self, by: usize, order: Ordering) -> usize {
        ordered(order, || self.0.fetch_add(by, of_both(order)))
    }
}

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
        while !*given {
            given = self.0.changed.wait(given).unwrap_or_else(PoisonError::into_inner);
        }
        *given = false;
    }

    /// Time never passes in a model: a wake-up that only a limit would make good for is a lost one.
    pub(crate) fn park_timeout(&self, _limit: Duration) {
        self.park();
    }
}

impl Unparker {
    pub(crate) fn unpark(&self) {
        *self.0.given.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.changed.notify_one();
    }
}
