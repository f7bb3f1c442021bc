//! What lets a shutdown wait for producers that are in the middle of a submission, and says how much was handed in.
//!
//! A producer counts itself in, then looks whether the door is closed. A shutdown closes the door, then looks whether all are counted out.
//! All in one order that everyone agrees on (`SeqCst`), so a producer that found the door open is seen by the shutdown.

use crossbeam::utils::CachePadded;

use crate::sync::{AtomicBool, AtomicUsize, Ordering};

/// The door of the inbound ring; open at first.
///
/// Whether it is closed has a line of its own: the sequencer looks at it in every step, and producers write to all the others.
#[derive(Debug, Default)]
pub(crate) struct Door {
    closed: CachePadded<AtomicBool>,
    /// Producers that came; never fewer than those that went.
    entered: AtomicUsize,
    /// Producers that went again, with or without having handed something in.
    left: AtomicUsize,
    /// Of those, the ones that had to go with what they came with.
    refused: AtomicUsize,
}

impl Door {
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// True once no submission can succeed any more. What is in the ring then is all there will be.
    pub(crate) fn is_shut(&self) -> bool {
        // First who went: whoever comes in between finds the door closed.
        self.is_closed() && self.left.load(Ordering::SeqCst) == self.entered.load(Ordering::SeqCst)
    }

    /// False if the door is closed. Either way, [`Door::leave`] must follow.
    pub(crate) fn enter(&self) -> bool {
        self.entered.fetch_add(1, Ordering::SeqCst);
        !self.is_closed()
    }

    pub(crate) fn leave(&self) {
        self.left.fetch_add(1, Ordering::SeqCst);
    }

    /// Says, before leaving, that what was to be handed in was not.
    pub(crate) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// How many commands were handed in so far, or a moment ago.
    pub(crate) fn handed_in(&self) -> u64 {
        self.left.load(Ordering::Relaxed).saturating_sub(self.refused.load(Ordering::Relaxed)) as u64
    }
}
