//! How the links' thread is woken at most once a turn, and never too seldom.
//!
//! Waking costs a system call, and a busy core sends thousands of messages a second, most of them from within the links'
//! own turn. So whoever puts something in line calls for attention, and wakes the thread only if nobody has called since
//! its last look. All accesses are read-modify-writes: each call is ordered before or after the thread's last look, and
//! one before it is seen by it.

use crate::sync::{AtomicBool, Ordering};

/// Whether the thread will look once more before it sleeps.
#[derive(Debug, Default)]
pub(crate) struct Attention(AtomicBool);

impl Attention {
    /// Something has been put in line. Says whether the thread must be woken for it.
    #[must_use = "nobody else wakes the thread"]
    pub(crate) fn call(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    /// The thread is awake: nobody need wake it.
    pub(crate) fn begin_turn(&self) {
        self.0.swap(true, Ordering::AcqRel);
    }

    /// The thread will look a last time and then sleep: what is put in line from here on needs a wake-up.
    pub(crate) fn end_turn(&self) {
        self.0.swap(false, Ordering::AcqRel);
    }
}
