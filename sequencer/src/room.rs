//! How whoever found a ring full hears of room in it without a call ever getting lost.
//!
//! The one in want asks, then tries once more. The one that makes room makes it, then looks whether anybody asked. As with the
//! [doorbell](crate::doorbell) a full fence on both sides, between the write and the look, means that one of them at least sees the other.
//! While nobody is in want, making room costs a fence and a load.

use crate::sync::{AtomicBool, Ordering, fence};

/// Asked by one side, answered by the other.
#[derive(Debug, Default)]
pub(crate) struct RoomCall(AtomicBool);

impl RoomCall {
    /// Asks to be called; try once more after this, because what made room before it does not call.
    pub(crate) fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// There was room after all.
    pub(crate) fn withdraw(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// True while somebody waits to be called.
    pub(crate) fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Call this after making room; true if somebody asked, who must then be told. It is true once for each asking.
    pub(crate) fn take(&self) -> bool {
        fence(Ordering::SeqCst);
        self.take_fenced()
    }

    /// The same for a caller who has put a full fence behind the room that it made.
    pub(crate) fn take_fenced(&self) -> bool {
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::AcqRel)
    }
}
