//! How the loop's thread is woken: with a system call only where it sleeps. Under load it never does, and then a ring
//! costs whoever rings a store, a fence and a load.
//!
//! The ringer notes the ring, then looks whether the loop sleeps; the loop says that it sleeps, then looks for a ring. A
//! full fence on both sides, between the write and the look, means that at least one of them sees the other.

use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Rung by many, heard by the loop.
#[derive(Debug)]
pub(crate) struct Bell {
    rung: AtomicBool,
    asleep: AtomicBool,
    waker: mio::Waker,
}

impl Bell {
    pub(crate) fn new(waker: mio::Waker) -> Self {
        Self { rung: AtomicBool::new(false), asleep: AtomicBool::new(false), waker }
    }

    /// Has the loop turn once more; call it after there is something to be found.
    pub(crate) fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel) {
            // It fails only when the poll is gone, and then nobody sleeps.
            let _ = self.waker.wake();
        }
    }

    /// Whether the loop may sleep now: from here until [`Self::awake`] a ring wakes the poll.
    pub(crate) fn may_sleep(&self) -> bool {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        !self.rung.load(Ordering::Relaxed)
    }

    /// The loop turns; rings up to here are heard in this turn.
    pub(crate) fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
        if self.rung.load(Ordering::Relaxed) {
            // What the ring announced was there before it, and is looked for after this.
            self.rung.swap(false, Ordering::Acquire);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn no_ring_is_lost_however_it_meets_the_sleeper() {
        const ROUNDS: u64 = 20_000;
        let mut poll = mio::Poll::new().unwrap();
        let bell = Arc::new(Bell::new(mio::Waker::new(poll.registry(), mio::Token(0)).unwrap()));
        let (asked, heard) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let ringer = {
            let (bell, asked, heard) = (Arc::clone(&bell), Arc::clone(&asked), Arc::clone(&heard));
            std::thread::spawn(move || {
                for round in 1..=ROUNDS {
                    asked.store(round, Ordering::Release);
                    bell.ring();
                    while heard.load(Ordering::Acquire) < round {
                        std::thread::yield_now();
                    }
                }
            })
        };
        // One lost ring and this never ends: the poll has no limit.
        let mut events = mio::Events::with_capacity(4);
        while heard.load(Ordering::Relaxed) < ROUNDS {
            let limit = if bell.may_sleep() { None } else { Some(std::time::Duration::ZERO) };
            poll.poll(&mut events, limit).unwrap();
            bell.awake();
            heard.store(asked.load(Ordering::Acquire), Ordering::Release);
        }
        ringer.join().unwrap();
    }
}
