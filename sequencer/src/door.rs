//! What lets a shutdown wait for producers that are in the middle of a submission.
//!
//! A producer counts itself in, then looks whether the door is closed. A shutdown closes the door, then looks whether anybody is counted in.
//! All in one order that everyone agrees on (`SeqCst`), so a producer that found the door open is seen by the shutdown.

use crossbeam::utils::CachePadded;

use crate::sync::{AtomicBool, AtomicUsize, Ordering};

/// The door of the inbound ring; open at first.
#[derive(Debug, Default)]
pub(crate) struct Door {
    closed: AtomicBool,
    entering: CachePadded<AtomicUsize>,
}

impl Door {
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// True once no submission can succeed any more. What is in the ring then is all there will be.
    pub(crate) fn is_shut(&self) -> bool {
        self.is_closed() && self.entering.load(Ordering::SeqCst) == 0
    }

    /// False if the door is closed. Either way, [`Door::leave`] must follow.
    pub(crate) fn enter(&self) -> bool {
        self.entering.fetch_add(1, Ordering::SeqCst);
        !self.is_closed()
    }

    pub(crate) fn leave(&self) {
        self.entering.fetch_sub(1, Ordering::SeqCst);
    }
}
