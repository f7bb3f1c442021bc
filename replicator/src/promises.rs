//! Reads that know of writes still on their way.
//!
//! Who tells a client of something before the log's answer has come promises it first. A reader who must not miss it waits
//! until every promise made to the same owner before has been kept, and then until a replica shows the last that was. So the
//! one who writes waits for nobody, and only the one who reads at once waits at all.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use grid_engine::Seq;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The promises of one node; clones share them. Owners are numbers that mean nothing here.
#[derive(Clone, Default)]
pub struct Promises(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    made: u64,
    /// Whoever was ever promised something: a few words for each.
    owners: HashMap<u64, Owner>,
}

#[derive(Default)]
struct Owner {
    /// Open promises by number, each with the readers that wait for it and all before it.
    open: BTreeMap<u64, Vec<oneshot::Sender<()>>>,
    /// Where the last write stands that was promised and came about.
    kept: Seq,
}

impl fmt::Debug for Promises {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let book = self.0.lock();
        let open: usize = book.owners.values().map(|owner| owner.open.len()).sum();
        f.debug_struct("Promises").field("open", &open).finish_non_exhaustive()
    }
}

impl Promises {
    /// A write for `owner` is on its way.
    pub fn make(&self, owner: u64) -> Promise {
        let mut book = self.0.lock();
        book.made += 1;
        let number = book.made;
        book.owners.entry(owner).or_default().open.insert(number, Vec::new());
        Promise { promises: self.clone(), owner, number }
    }

    /// Whether a write for `owner` is on its way.
    #[must_use]
    pub fn any(&self, owner: u64) -> bool {
        self.0.lock().owners.get(&owner).is_some_and(|owner| !owner.open.is_empty())
    }

    /// Resolves once every promise that was made to `owner` before this call has been kept or given up, with the position that a
    /// replica must have passed to show those that were kept.
    pub async fn settled(&self, owner: u64) -> Seq {
        let wait = {
            let mut book = self.0.lock();
            book.owners.get_mut(&owner).and_then(|owner| owner.open.last_entry()).map(|mut last| {
                let (ended, wait) = oneshot::channel();
                // Readers whose patience ended make room for the next.
                last.get_mut().retain(|reader| !reader.is_closed());
                last.get_mut().push(ended);
                wait
            })
        };
        if let Some(wait) = wait {
            let _ = wait.await;
        }
        self.0.lock().owners.get(&owner).map_or(Seq(0), |owner| owner.kept)
    }
}

/// A write that is on its way. Dropped, it is given up: nobody waits for it any longer.
#[derive(Debug)]
#[must_use = "a promise that is dropped is given up"]
pub struct Promise {
    promises: Promises,
    owner: u64,
    number: u64,
}

impl Promise {
    /// It stands in the log there.
    pub fn keep(self, seq: Seq) {
        let mut book = self.promises.0.lock();
        if let Some(owner) = book.owners.get_mut(&self.owner) {
            owner.kept = owner.kept.max(seq);
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        let mut book = self.promises.0.lock();
        let Some(owner) = book.owners.get_mut(&self.owner) else { return };
        let Some(readers) = owner.open.remove(&self.number) else { return };
        // Its readers wait for all before it, too: the youngest of these takes them over.
        match owner.open.range_mut(..self.number).next_back() {
            Some((_, earlier)) => earlier.extend(readers),
            None => {
                for reader in readers {
                    let _ = reader.send(());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn poll(wait: std::pin::Pin<&mut impl Future<Output = Seq>>) -> Poll<Seq> {
        wait.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_reader_waits_for_what_was_promised_before_and_for_nothing_else() {
        let promises = Promises::default();
        assert_eq!(poll(pin!(promises.settled(7))), Poll::Ready(Seq(0)), "nothing was promised");
        let (first, second, other) = (promises.make(7), promises.make(7), promises.make(8));
        let mut reader = pin!(promises.settled(7));
        assert!(poll(reader.as_mut()).is_pending());
        let later = promises.make(7);
        second.keep(Seq(12));
        assert!(poll(reader.as_mut()).is_pending(), "the first is still open");
        let mut last = pin!(promises.settled(7));
        assert!(poll(last.as_mut()).is_pending());
        first.keep(Seq(11));
        assert_eq!(poll(reader.as_mut()), Poll::Ready(Seq(12)), "the later one was made after the question");
        assert!(poll(last.as_mut()).is_pending());
        drop(later);
        assert_eq!(poll(last.as_mut()), Poll::Ready(Seq(12)), "what was given up is waited for no longer");
        drop(other);
        assert!(!promises.any(7) && !promises.any(8));
    }

    #[test]
    fn readers_that_lost_patience_leave_nothing_behind() {
        let promises = Promises::default();
        let promise = promises.make(1);
        for _ in 0..100 {
            assert!(poll(pin!(promises.settled(1))).is_pending());
        }
        let readers: usize = promises.0.lock().owners[&1].open.values().map(Vec::len).sum();
        assert!(readers <= 1, "{readers} readers");
        drop(promise);
    }
}
