//! Where the time of a command goes, measured in the running venue.
//!
//! ```text
//! gateway in ─ close ─► block closed ─ durable ─► durable here ─ commit ─► committed ─ match ─► matched ─ report ─► report out
//! ```
//! One block at a time is followed: the first that holds a command which its producer has stamped, and a producer stamps one in
//! so many. So under load nearly all that the clocks cost is a look at one line of memory per block and stage, and a venue
//! with little to do is measured just as well. Stages stamp; whoever ends a leg records it in a histogram.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam::utils::CachePadded;
use grid_engine::Nanos;
use hdrhistogram::Histogram;

use crate::clock::Clock;

/// Longest time that is told apart: ten minutes.
const LONGEST_NS: u64 = 600_000_000_000;

/// A part of a command's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leg {
    /// From its arrival at the gateway until its block is closed.
    Close,
    /// From there until the block is durable on this node.
    Durable,
    /// From there until it is known to be committed.
    Commit,
    /// From there until it is applied.
    Match,
    /// From there until what it did is on its way to the client, if the gateway says so.
    Report,
    /// The whole way, where the gateway says when it ended.
    Whole,
}

impl Leg {
    /// All of them, in the order of the way.
    pub const ALL: [Self; 6] =
        [Self::Close, Self::Durable, Self::Commit, Self::Match, Self::Report, Self::Whole];

    /// As metrics call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Close => "close",
            Self::Durable => "durable",
            Self::Commit => "commit",
            Self::Match => "match",
            Self::Report => "report",
            Self::Whole => "whole",
        }
    }
}

/// What a leg took so far, in nanoseconds; all zero before anything was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LegTimes {
    /// How many were measured.
    pub count: u64,
    /// Their sum.
    pub sum_ns: u64,
    /// Half of them took no longer, within 1 %.
    pub p50_ns: u64,
    /// Of 100, all but one took no longer.
    pub p99_ns: u64,
    /// Of 1000, all but one took no longer.
    pub p999_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

/// What all legs took since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageClocks {
    legs: [LegTimes; Leg::ALL.len()],
}

impl StageClocks {
    /// What one took.
    #[must_use]
    pub fn leg(&self, leg: Leg) -> LegTimes {
        self.legs[leg as usize]
    }
}

/// Rides with the output of a block that is followed, for whoever sends the reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamps {
    arrived: u64,
    matched: u64,
}

/// The block that is followed. Each word has one writer at a time, in the order of the path; `index` hands it over.
#[derive(Debug, Default)]
struct Followed {
    /// 0 while no block is followed.
    index: AtomicU64,
    term: AtomicU64,
    arrived: AtomicU64,
    closed: AtomicU64,
    /// 0 until it is.
    durable: AtomicU64,
    /// 0 until it is.
    committed: AtomicU64,
}

struct Record {
    times: Histogram<u64>,
    sum_ns: u64,
}

/// The clocks of one node, shared by its stages.
pub(crate) struct Clocks {
    clock: Clock,
    /// A producer stamps one command in so many; 0 for none.
    every: u32,
    followed: CachePadded<Followed>,
    legs: Mutex<Vec<Record>>,
}

impl std::fmt::Debug for Clocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clocks").field("every", &self.every).finish_non_exhaustive()
    }
}

impl Clocks {
    pub(crate) fn new(clock: Clock, every: u32) -> Arc<Self> {
        let record = |_| Record {
            times: Histogram::new_with_bounds(1, LONGEST_NS, 2).expect("bounds that a histogram can have"),
            sum_ns: 0,
        };
        // What nothing is recorded in costs nothing.
        let legs = if every > 0 { Leg::ALL.map(record).into() } else { Vec::new() };
        Arc::new(Self { clock, every, followed: CachePadded::default(), legs: Mutex::new(legs) })
    }

    /// A producer's own count of what it hands in.
    pub(crate) fn sampler(self: &Arc<Self>) -> Sampler {
        Sampler { clocks: Arc::clone(self), left: u32::from(self.every > 0), arrived: 0 }
    }

    /// Never 0.
    fn now(&self) -> u64 {
        self.clock.monotonic().0.max(1)
    }

    /// A block that holds a stamped command was closed. It is followed if none is.
    pub(crate) fn closed(&self, index: u64, term: u64, arrived: Nanos) {
        let followed = &self.followed;
        if followed.index.load(Ordering::Acquire) != 0 {
            return;
        }
        followed.term.store(term, Ordering::Relaxed);
        followed.arrived.store(arrived.0, Ordering::Relaxed);
        followed.durable.store(0, Ordering::Relaxed);
        followed.committed.store(0, Ordering::Relaxed);
        followed.closed.store(self.now(), Ordering::Relaxed);
        followed.index.store(index, Ordering::Release);
    }

    /// Blocks up to `index` are durable here.
    pub(crate) fn durable(&self, index: u64) {
        self.stamp(index, &self.followed.durable);
    }

    /// Blocks up to `index` are committed.
    pub(crate) fn committed(&self, index: u64) {
        self.stamp(index, &self.followed.committed);
    }

    fn stamp(&self, upto: u64, word: &AtomicU64) {
        let index = self.followed.index.load(Ordering::Acquire);
        if index != 0 && index <= upto && word.load(Ordering::Relaxed) == 0 {
            word.store(self.now(), Ordering::Release);
        }
    }

    /// A block was applied: if it is the one that is followed, its way inside is recorded, and another may be followed.
    pub(crate) fn matched(&self, index: u64, term: u64) -> Option<Stamps> {
        let followed = &self.followed;
        let of = followed.index.load(Ordering::Acquire);
        if of == 0 || index < of {
            return None;
        }
        let own = of == index && followed.term.load(Ordering::Relaxed) == term;
        let word = |word: &AtomicU64| word.load(Ordering::Acquire);
        let (arrived, closed) = (word(&followed.arrived), word(&followed.closed));
        let committed = word(&followed.committed);
        // A quorum of others may have it before this node does.
        let durable = Some(word(&followed.durable)).filter(|at| *at != 0).unwrap_or(committed).min(committed);
        followed.index.store(0, Ordering::Release);
        // Else it was lost with a leadership, and this is another one.
        if !own {
            return None;
        }
        let matched = self.now();
        let stamps = [arrived, closed, durable, committed, matched];
        let legs = [Leg::Close, Leg::Durable, Leg::Commit, Leg::Match];
        let mut records = self.records();
        for (leg, between) in legs.into_iter().zip(stamps.windows(2)) {
            record(&mut records, leg, between[1].saturating_sub(between[0]));
        }
        Some(Stamps { arrived, matched })
    }

    /// Reports of a followed block are on their way.
    pub(crate) fn reported(&self, stamps: Stamps) {
        let now = self.now();
        let mut records = self.records();
        record(&mut records, Leg::Report, now.saturating_sub(stamps.matched));
        record(&mut records, Leg::Whole, now.saturating_sub(stamps.arrived));
    }

    fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        self.legs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn read(&self) -> StageClocks {
        let mut clocks = StageClocks::default();
        for (times, record) in clocks.legs.iter_mut().zip(&*self.records()) {
            *times = LegTimes {
                count: record.times.len(),
                sum_ns: record.sum_ns,
                p50_ns: record.times.value_at_quantile(0.5),
                p99_ns: record.times.value_at_quantile(0.99),
                p999_ns: record.times.value_at_quantile(0.999),
                max_ns: record.times.max(),
            };
        }
        clocks
    }
}

fn record(records: &mut [Record], leg: Leg, took_ns: u64) {
    if let Some(record) = records.get_mut(leg as usize) {
        record.times.saturating_record(took_ns.max(1));
        record.sum_ns = record.sum_ns.saturating_add(took_ns);
    }
}

/// Chooses which of a producer's commands carry a stamp: the first, and then one in so many.
#[derive(Debug)]
pub(crate) struct Sampler {
    clocks: Arc<Clocks>,
    /// Commands until the next one that is stamped; 0 for never.
    left: u32,
    /// When what is handed in now arrived, if somebody said so.
    arrived: u64,
}

impl Clone for Sampler {
    fn clone(&self) -> Self {
        self.clocks.sampler()
    }
}

impl Sampler {
    /// What is handed in from now on arrived now, until this is called again.
    pub(crate) fn arrive(&mut self) {
        // Only the one that is stamped next needs a time.
        if self.left != 0 {
            self.arrived = self.clocks.now();
        }
    }

    /// For each command: its time of arrival, if it is one to be stamped.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<Nanos> {
        match self.left {
            0 => None,
            1 => {
                self.left = self.clocks.every;
                Some(Nanos(if self.arrived == 0 { self.clocks.now() } else { self.arrived }))
            }
            _ => {
                self.left -= 1;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count_and_p50(clocks: &Clocks) -> Vec<(u64, u64)> {
        let read = clocks.read();
        Leg::ALL.iter().map(|leg| (read.leg(*leg).count, read.leg(*leg).p50_ns)).collect()
    }

    #[test]
    fn each_leg_is_the_time_between_two_stages() {
        let time = Clock::manual(Nanos(100));
        let clocks = Clocks::new(time.clone(), 1);
        let arrived = clocks.sampler().next().expect("the first is stamped");
        time.advance(1);
        clocks.closed(7, 1, arrived);
        clocks.durable(6);
        time.advance(2);
        clocks.durable(7);
        time.advance(3);
        clocks.committed(9);
        time.advance(4);
        assert_eq!(clocks.matched(6, 1), None);
        let stamps = clocks.matched(7, 1).expect("it is followed");
        time.advance(5);
        clocks.reported(stamps);
        assert_eq!(count_and_p50(&clocks), [(1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (1, 15)]);
    }

    #[test]
    fn one_block_is_followed_at_a_time_and_one_that_was_lost_is_forgotten() {
        let clocks = Clocks::new(Clock::manual(Nanos(100)), 1);
        clocks.closed(7, 1, Nanos(50));
        clocks.closed(8, 1, Nanos(60));
        clocks.committed(8);
        assert_eq!(clocks.matched(7, 2), None, "block 7 of another leader");
        assert_eq!(clocks.matched(8, 2), None, "nothing is followed any more");
        clocks.closed(9, 3, Nanos(70));
        clocks.committed(9);
        assert!(clocks.matched(9, 3).is_some());
        assert_eq!(clocks.read().leg(Leg::Match).count, 1);
    }

    #[test]
    fn a_producer_stamps_its_first_command_and_then_one_in_so_many() {
        let time = Clock::manual(Nanos(100));
        let clocks = Clocks::new(time.clone(), 3);
        let mut sampler = clocks.sampler();
        let stamped = |sampler: &mut Sampler| (0..6).map(|_| sampler.next().is_some()).collect::<Vec<_>>();
        assert_eq!(stamped(&mut sampler), [true, false, false, true, false, false]);
        sampler.arrive();
        time.advance(50);
        assert_eq!(sampler.next(), Some(Nanos(100)), "when it arrived, not when it was handed in");
        let off = Clocks::new(time, 0);
        assert_eq!(stamped(&mut off.sampler()), [false; 6]);
        assert_eq!(off.read(), StageClocks::default());
    }
}
