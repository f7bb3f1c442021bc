//! How far a replica has come, and waiting for it: from async tasks and from plain threads.

use std::time::{Duration, Instant};

use grid_engine::Seq;
use tokio::sync::watch;

use crate::sync::{AtomicU64, Condvar, Mutex, Ordering, PoisonError};

/// Why a wait ended without the replica having got there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    /// The venue stopped before.
    #[error("the venue has stopped")]
    Stopped,
    /// It took longer than the caller allowed.
    #[error("the replica did not get there in time")]
    Timeout,
}

#[derive(Clone, Copy, Debug)]
struct Reached {
    seq: Seq,
    ended: bool,
}

impl Reached {
    fn settles(self, seq: Seq) -> Option<Result<(), WaitError>> {
        match self {
            Self { seq: reached, .. } if reached >= seq => Some(Ok(())),
            Self { ended: true, .. } => Some(Err(WaitError::Stopped)),
            Self { .. } => None,
        }
    }
}

/// As plain threads see it.
#[derive(Debug)]
struct Threads {
    reached: Reached,
    /// How many of them wait: where none does, nobody asks the system to wake any.
    waiting: usize,
}

#[derive(Debug)]
pub(crate) struct Progress {
    applied: AtomicU64,
    tasks: watch::Sender<Reached>,
    threads: Mutex<Threads>,
    moved: Condvar,
}

impl Progress {
    pub(crate) fn new(seq: Seq) -> Self {
        let reached = Reached { seq, ended: false };
        Self {
            applied: AtomicU64::new(seq.0),
            tasks: watch::Sender::new(reached),
            threads: Mutex::new(Threads { reached, waiting: 0 }),
            moved: Condvar::new(),
        }
    }

    pub(crate) fn applied(&self) -> Seq {
        Seq(self.applied.load(Ordering::Acquire))
    }

    pub(crate) fn reach(&self, seq: Seq) {
        self.applied.store(seq.0, Ordering::Release);
        self.tell(|reached| reached.seq = seq);
    }

    pub(crate) fn end(&self) {
        self.tell(|reached| reached.ended = true);
    }

    fn tell(&self, change: impl Fn(&mut Reached)) {
        self.tasks.send_modify(&change);
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut threads.reached);
        let awaited = threads.waiting > 0;
        drop(threads);
        if awaited {
            self.moved.notify_all();
        }
    }

    pub(crate) async fn wait_for(&self, seq: Seq) -> Result<(), WaitError> {
        if self.applied() >= seq {
            return Ok(());
        }
        let mut tasks = self.tasks.subscribe();
        let reached = tasks.wait_for(|reached| reached.settles(seq).is_some()).await;
        let settled = reached.ok().and_then(|reached| reached.settles(seq));
        settled.unwrap_or(Err(WaitError::Stopped))
    }

    pub(crate) fn wait_for_blocking(&self, seq: Seq, limit: Duration) -> Result<(), WaitError> {
        if self.applied() >= seq {
            return Ok(());
        }
        let give_up = Instant::now() + limit;
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.waiting += 1;
        let outcome = loop {
            if let Some(settled) = threads.reached.settles(seq) {
                break settled;
            }
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break Err(WaitError::Timeout);
            }
            threads = self.moved.wait_timeout(threads, left).unwrap_or_else(PoisonError::into_inner).0;
        };
        threads.waiting -= 1;
        outcome
    }
}
