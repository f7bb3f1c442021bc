//! How a parked thread is woken without a wake-up ever getting lost.
//!
//! The sleeper raises a flag, then looks for work once more, then parks. The ringer makes work visible, then looks at
//! the flag. A full fence on both sides, between the write and the look, means that at least one of them sees the other: either the
//! sleeper finds the work, or the ringer finds the flag. While the other side is awake, ringing is a fence and a load.

use std::time::Duration;

use crossbeam::utils::CachePadded;

use crate::outbound::Waker;
use crate::sync::{Arc, AtomicBool, Mutex, Ordering, Parker, PoisonError, Unparker, fence};

/// The side that wakes; shared by everyone who may hand work to the sleeper.
pub(crate) struct Doorbell {
    asleep: CachePadded<AtomicBool>,
    unparker: Unparker,
    /// Wakes a sleeper that waits in an event loop of its own, where parking is none.
    waker: Mutex<Option<Waker>>,
}

impl std::fmt::Debug for Doorbell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Doorbell").field("asleep", &self.asleep).finish_non_exhaustive()
    }
}

/// The side that sleeps; owned by one thread at a time.
#[derive(Debug)]
pub(crate) struct Sleeper {
    bell: Arc<Doorbell>,
    parker: Parker,
}

/// A new doorbell and the sleeper behind it.
pub(crate) fn doorbell() -> (Arc<Doorbell>, Sleeper) {
    let parker = Parker::new();
    let bell = Doorbell {
        asleep: CachePadded::new(AtomicBool::new(false)),
        unparker: parker.unparker().clone(),
        waker: Mutex::new(None),
    };
    let bell = Arc::new(bell);
    (Arc::clone(&bell), Sleeper { bell, parker })
}

impl Doorbell {
    /// Wakes the sleeper if it sleeps; call it after the work is visible.
    pub(crate) fn ring(&self) {
        fence(Ordering::SeqCst);
        self.ring_fenced();
    }

    /// The same for a caller with several bells to ring, who has put one full fence behind all that it made visible.
    pub(crate) fn ring_fenced(&self) {
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel) {
            self.unparker.unpark();
            if let Some(waker) = &*self.waker.lock().unwrap_or_else(PoisonError::into_inner) {
                waker();
            }
        }
    }

    /// Has `waker` called too when a sleeper is woken. It must be short, and not ring this bell.
    pub(crate) fn set_waker(&self, waker: Option<Waker>) {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = waker;
    }
}

impl Sleeper {
    /// Sleeps until rung or until `limit` has passed, unless `has_work` says at the last moment that there is some.
    pub(crate) fn sleep(&self, limit: Option<Duration>, has_work: impl Fn() -> bool) {
        if self.doze(has_work) {
            match limit {
                Some(limit) => self.parker.park_timeout(limit),
                None => self.parker.park(),
            }
        }
        self.rouse();
    }

    /// The first half of a sleep elsewhere than here: true if the caller may sleep and will be rung; false if `has_work` says at
    /// the last moment that there is some. [`Sleeper::rouse`] must follow.
    pub(crate) fn doze(&self, has_work: impl Fn() -> bool) -> bool {
        self.bell.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        !has_work()
    }

    /// The second half: awake, and in no need of ringing.
    pub(crate) fn rouse(&self) {
        self.bell.asleep.store(false, Ordering::Relaxed);
    }

    pub(crate) fn bell(&self) -> &Doorbell {
        &self.bell
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn no_wake_up_is_lost_when_both_sides_race() {
        // Two threads hand a counter to and fro; one lost wake-up and the test never ends.
        const ROUNDS: u64 = 20_000;
        let ball = Arc::new(AtomicU64::new(0));
        let (left_bell, left) = doorbell();
        let (right_bell, right) = doorbell();
        let play = |sleeper: Sleeper, other: Arc<Doorbell>, ball: Arc<AtomicU64>, parity: u64| {
            std::thread::spawn(move || {
                loop {
                    let at = ball.load(Ordering::Acquire);
                    if at >= ROUNDS {
                        other.ring();
                        return;
                    }
                    if at % 2 == parity {
                        ball.store(at + 1, Ordering::Release);
                        other.ring();
                    } else {
                        sleeper.sleep(None, || {
                            let at = ball.load(Ordering::Acquire);
                            at % 2 == parity || at >= ROUNDS
                        });
                    }
                }
            })
        };
        let a = play(left, Arc::clone(&right_bell), Arc::clone(&ball), 0);
        let b = play(right, left_bell, Arc::clone(&ball), 1);
        a.join().expect("left player ends");
        b.join().expect("right player ends");
        assert!(ball.load(Ordering::Acquire) >= ROUNDS);
    }
}
