//! A bounded way from one stage to the next on which things change hands: who takes one owns it, and nothing of it stays behind. So what a
//! block needed is free again as soon as the last who works on it is done, and the next block finds it in the cache.
//!
//! One side puts down, the other takes up. What was put down shows when it is published, several at a time with one write; the other side
//! looks at that one word alone, so a look that finds nothing touches no line that is being written to.
//!
//! Invariant: as many things were pushed into the queue as `published` says, or more; so who sees it say so finds them there.

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;

use crate::sync::{Arc, AtomicU64, Ordering};

struct Lane<T> {
    queue: ArrayQueue<T>,
    /// How many things the other side may take up, from the beginning on.
    published: CachePadded<AtomicU64>,
}

/// The side that puts down.
pub(crate) struct LaneIn<T> {
    lane: Arc<Lane<T>>,
    published: u64,
    /// Room that there certainly is: only this side fills it.
    room: usize,
}

/// The side that takes up.
pub(crate) struct LaneOut<T> {
    lane: Arc<Lane<T>>,
    taken: u64,
}

/// A lane with room for so many things.
pub(crate) fn lane<T>(slots: usize) -> (LaneIn<T>, LaneOut<T>) {
    let lane =
        Arc::new(Lane { queue: ArrayQueue::new(slots), published: CachePadded::new(AtomicU64::new(0)) });
    (LaneIn { lane: Arc::clone(&lane), published: 0, room: slots }, LaneOut { lane, taken: 0 })
}

impl<T> LaneIn<T> {
    /// For how many more there is room; the other side is looked at only where less is known of than is `wanted`.
    pub(crate) fn room(&mut self, wanted: usize) -> usize {
        if self.room < wanted {
            self.room = self.lane.queue.capacity() - self.lane.queue.len();
        }
        self.room
    }

    /// Puts one down that does not show before [`LaneIn::publish`]; call it only where there is [room](LaneIn::room).
    pub(crate) fn put(&mut self, thing: T) {
        self.room -= 1;
        self.published += 1;
        assert!(self.lane.queue.push(thing).is_ok(), "nobody else fills the room that there is");
    }

    /// Shows the other side what was put down.
    pub(crate) fn publish(&self) {
        self.lane.published.store(self.published, Ordering::Release);
    }

    /// Nobody will take anything up any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.lane) == 1
    }
}

impl<T> LaneOut<T> {
    /// How many there are to be taken up.
    pub(crate) fn available(&self) -> u64 {
        self.lane.published.load(Ordering::Acquire) - self.taken
    }

    /// Takes up at most so many, the oldest first, and makes room for as many; how many there were.
    pub(crate) fn take(&mut self, most: u64, mut each: impl FnMut(T)) -> usize {
        let count = self.available().min(most);
        for _ in 0..count {
            each(self.lane.queue.pop().expect("what is published was pushed before"));
        }
        self.taken += count;
        count as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_down_shows_when_it_is_published_and_is_taken_up_once_in_order() {
        let (mut put, mut take) = lane(2);
        let mut taken = Vec::new();
        put.put(1);
        assert_eq!((take.available(), put.room(1)), (0, 1));
        put.put(2);
        put.publish();
        assert_eq!((take.available(), put.room(1)), (2, 0));
        assert_eq!(take.take(1, |thing| taken.push(thing)), 1);
        assert_eq!(put.room(1), 1);
        put.put(3);
        put.publish();
        assert_eq!(take.take(9, |thing| taken.push(thing)), 2);
        assert_eq!((taken, take.available()), (vec![1, 2, 3], 0));
    }

    #[test]
    fn who_puts_down_learns_that_nobody_takes_up() {
        let (put, take) = lane::<u8>(1);
        assert!(!put.is_abandoned());
        drop(take);
        assert!(put.is_abandoned());
    }

    #[test]
    fn two_threads_lose_nothing() {
        const THINGS: u64 = 5_000;
        let (mut put, mut take) = lane(8);
        let other = std::thread::spawn(move || {
            let mut next = 0;
            while next < THINGS {
                let taken = take.take(5, |thing| {
                    assert_eq!(thing, next);
                    next += 1;
                });
                if taken == 0 {
                    std::thread::yield_now();
                }
            }
        });
        let mut next = 0;
        while next < THINGS {
            let room = put.room(3).min(3).min((THINGS - next) as usize);
            (0..room).for_each(|_| {
                put.put(next);
                next += 1;
            });
            put.publish();
            if room == 0 {
                std::thread::yield_now();
            }
        }
        other.join().expect("everything arrives in order");
    }
}
