//! Who leads, as everyone on this node sees it: written by the consensus core's driver and by the matcher, read by whoever
//! takes in commands.
//!
//! Invariant: an *epoch* is the term in which this node leads and has applied a block of that very term. Only within one is a
//! command taken in, so what a client is then told about its own past is final: every block of an earlier leader that
//! survived is in front of that block.

use std::time::{Duration, Instant};

use crate::consensus::{Leadership, NodeId};
use crate::outbound::Waker;
use crate::sync::{Arc, AtomicU64, Condvar, Mutex, Ordering, PoisonError};

/// The notices that the stages post.
#[derive(Default)]
pub(crate) struct Board {
    /// The term that this node leads; 0 for none. Written under the core's lock.
    led: AtomicU64,
    /// The term of the last block applied. Written by the matcher.
    applied: AtomicU64,
    /// Who leads as far as this node knows; 0 for nobody. Written under the core's lock.
    leader: AtomicU64,
    wakers: Mutex<Vec<Waker>>,
    changes: Mutex<u64>,
    changed: Condvar,
}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Board")
            .field("epoch", &self.epoch())
            .field("leader", &self.leader())
            .finish_non_exhaustive()
    }
}

impl Board {
    /// Where the applied log stands at the start.
    pub(crate) fn starting_at(term: u64) -> Self {
        Self { applied: AtomicU64::new(term), ..Self::default() }
    }

    #[inline]
    pub(crate) fn epoch(&self) -> Option<u64> {
        let led = self.led.load(Ordering::SeqCst);
        (led != 0 && self.applied.load(Ordering::SeqCst) == led).then_some(led)
    }

    /// True while this node leads, whether or not it has applied a block of its own yet.
    pub(crate) fn leads(&self) -> bool {
        self.led.load(Ordering::SeqCst) != 0
    }

    fn leader(&self) -> Option<NodeId> {
        let leader = self.leader.load(Ordering::SeqCst);
        (leader != 0).then_some(leader)
    }

    /// Posts what the core says now.
    pub(crate) fn post(&self, now: Leadership) {
        let led = if now.leads { now.term } else { 0 };
        let leader = now.leader.unwrap_or(0);
        // Nobody else writes them, and news are rare.
        if (self.led.load(Ordering::SeqCst), self.leader.load(Ordering::SeqCst)) == (led, leader) {
            return;
        }
        let was = (self.led.swap(led, Ordering::SeqCst), self.leader.swap(leader, Ordering::SeqCst));
        if was != (led, leader) {
            self.tell();
        }
    }

    /// Posts the term of a block that was just applied. Both sides write before they look, so one of them sees the epoch begin.
    pub(crate) fn post_applied(&self, term: u64) {
        // Nobody else writes it.
        if self.applied.load(Ordering::SeqCst) == term {
            return;
        }
        if self.applied.swap(term, Ordering::SeqCst) != term && self.led.load(Ordering::SeqCst) == term {
            self.tell();
        }
    }

    fn tell(&self) {
        *self.changes.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
        for wake in self.wakers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            wake();
        }
    }
}

/// Watches who leads; clones watch the same node.
#[derive(Clone, Debug)]
pub struct LeaderWatch(pub(crate) Arc<Board>);

impl LeaderWatch {
    /// The term in which this node leads and has applied a block of that term, so that it may answer clients; else `None`.
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        self.0.epoch()
    }

    /// Who leads, as far as this node knows.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.0.leader()
    }

    /// Has `wake` called after every change; it must be short, must not block, and must not watch from within.
    pub fn wake_with(&self, wake: Waker) {
        self.0.wakers.lock().unwrap_or_else(PoisonError::into_inner).push(wake);
    }

    /// Waits until this node may answer clients; `None` if it does not within `limit`.
    #[must_use]
    pub fn wait_to_lead(&self, limit: Duration) -> Option<u64> {
        self.wait_until(limit, Self::epoch)
    }

    /// Waits until `found` finds what it looks for, looking again after every change; `None` if it does not within `limit`.
    pub fn wait_until<R>(&self, limit: Duration, found: impl Fn(&Self) -> Option<R>) -> Option<R> {
        // A limit beyond what a clock can tell is none.
        let until = Instant::now().checked_add(limit);
        let mut changes = self.0.changes.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(result) = found(self) {
                return Some(result);
            }
            let left = until.map_or(limit, |until| until.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return None;
            }
            changes = self
                .0
                .changed
                .wait_timeout(changes, left.min(Duration::from_secs(3600)))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn an_epoch_begins_with_the_first_applied_block_of_the_own_term_and_ends_with_the_leadership() {
        let watch = LeaderWatch(Arc::new(Board::starting_at(3)));
        let woken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&woken);
        watch.wake_with(Arc::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
        }));
        let posts = |term, leader, leads| Leadership { term, leader, leads };
        watch.0.post(posts(4, Some(1), true));
        assert_eq!((watch.epoch(), watch.leader()), (None, Some(1)), "its own term is not applied yet");
        watch.0.post_applied(3);
        assert_eq!(watch.epoch(), None, "an earlier term's block is not its own");
        watch.0.post_applied(4);
        assert_eq!(watch.wait_to_lead(Duration::ZERO), Some(4));
        watch.0.post(posts(5, Some(2), false));
        assert_eq!((watch.epoch(), watch.leader()), (None, Some(2)));
        watch.0.post(posts(5, Some(2), false));
        assert_eq!(woken.load(Ordering::SeqCst), 3, "once for each change");
        watch.0.post(posts(6, Some(1), true));
        assert_eq!(watch.epoch(), None, "the block applied is of an older epoch");
    }
}
