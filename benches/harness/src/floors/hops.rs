//! What it takes to tell another thread something, one way: half of a round trip that carries nothing and answers at once.
//!
//! Round trips are timed in blocks and the clock is read once a block, since a reading costs as much as half a hop. A block that another
//! process interrupted is one sample of many.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use core_affinity::CoreId;
use crossbeam::sync::Parker;
use crossbeam::utils::CachePadded;
use disruptor::{BusySpin, Polling, Producer};
use hdrhistogram::Histogram;

use super::pinned;
use crate::latencies::histogram;
use crate::rounds::{nanos, per_second};

/// Round trips between two readings of the clock.
const BLOCK: u64 = 64;
/// Slots of the bare rings; as many as fit into the first cache.
const SLOTS: usize = 1024;
/// Tells the other side to end.
const OVER: u64 = u64::MAX;

/// Runs `trip` until `long` has passed and records nanoseconds one way: half a round trip.
fn record(long: Duration, block: u64, mut trip: impl FnMut()) -> Histogram<u64> {
    let mut record = histogram();
    let begin = Instant::now();
    loop {
        let start = Instant::now();
        (0..block).for_each(|_| trip());
        let end = Instant::now();
        record.saturating_record((nanos(end - start) / (2 * block)).max(1));
        if end - begin >= long {
            return record;
        }
    }
}

/// Nanoseconds for a cache line to get from one core to the other, when both look for it all the time.
#[must_use]
pub fn cache_line_hop(cores: (CoreId, CoreId), long: Duration) -> Histogram<u64> {
    let (ask, answer) = (CachePadded::new(AtomicU64::new(0)), CachePadded::new(AtomicU64::new(0)));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            core_affinity::set_for_current(cores.1);
            let mut seen = 0;
            while seen != OVER {
                let asked = ask.load(Ordering::Acquire);
                if asked == seen {
                    std::hint::spin_loop();
                } else {
                    answer.store(asked, Ordering::Release);
                    seen = asked;
                }
            }
        });
        pinned(Some(cores.0), || {
            let mut nth = 0;
            let record = record(long, BLOCK, || {
                nth += 1;
                ask.store(nth, Ordering::Release);
                while answer.load(Ordering::Acquire) != nth {
                    std::hint::spin_loop();
                }
            });
            ask.store(OVER, Ordering::Release);
            record
        })
    })
}

/// Nanoseconds through one bare `disruptor` ring with a poller at its end, both sides spinning.
#[must_use]
pub fn ring_hop(cores: (CoreId, CoreId), long: Duration) -> Histogram<u64> {
    let (mut asked, there) = disruptor::build_single_producer(SLOTS, || 0_u64, BusySpin).new_event_poller();
    let mut there = there.build();
    let (mut answered, back) = disruptor::build_single_producer(SLOTS, || 0_u64, BusySpin).new_event_poller();
    let mut back = back.build();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            core_affinity::set_for_current(cores.1);
            loop {
                match asked.poll() {
                    Ok(mut events) => (&mut events).for_each(|nth| back.publish(|slot| *slot = *nth)),
                    Err(Polling::NoEvents) => std::hint::spin_loop(),
                    Err(Polling::Shutdown) => return,
                }
            }
        });
        pinned(Some(cores.0), move || {
            let mut nth = 0;
            record(long, BLOCK, || {
                nth += 1;
                there.publish(|slot| *slot = nth);
                let mut heard = 0;
                while heard != nth {
                    match answered.poll() {
                        Ok(mut events) => (&mut events).for_each(|nth| heard = *nth),
                        Err(_) => std::hint::spin_loop(),
                    }
                }
            })
        })
    })
}

/// Events per second through one bare `disruptor` ring, `events` of them, both sides spinning and the poller taking all that is there.
///
/// # Panics
/// If an event is lost or comes out of turn.
#[must_use]
pub fn ring_throughput(cores: (CoreId, CoreId), events: u64) -> f64 {
    let (mut poller, ring) = disruptor::build_single_producer(SLOTS, || 0_u64, BusySpin).new_event_poller();
    let mut ring = ring.build();
    let begin = std::thread::scope(|scope| {
        let consumer = scope.spawn(move || {
            core_affinity::set_for_current(cores.1);
            let mut next = 0;
            while next < events {
                match poller.poll() {
                    Ok(mut ready) => (&mut ready).for_each(|nth| {
                        assert_eq!(*nth, next, "events come in turn");
                        next += 1;
                    }),
                    Err(_) => std::hint::spin_loop(),
                }
            }
        });
        let begin = pinned(Some(cores.0), move || {
            let begin = Instant::now();
            (0..events).for_each(|nth| ring.publish(|slot| *slot = nth));
            begin
        });
        consumer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        begin
    });
    per_second(events, begin.elapsed())
}

/// Nanoseconds until a thread that sleeps is awake and has seen what it was woken for.
#[must_use]
pub fn park_hop(long: Duration) -> Histogram<u64> {
    let (there, back) = (Parker::new(), Parker::new());
    let (wake_there, wake_back) = (there.unparker().clone(), back.unparker().clone());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let over = &over;
        scope.spawn(move || {
            while !over.load(Ordering::Acquire) {
                there.park();
                wake_back.unpark();
            }
        });
        // A trip is long against a reading of the clock.
        let record = record(long, 1, || {
            wake_there.unpark();
            back.park();
        });
        over.store(true, Ordering::Release);
        wake_there.unpark();
        record
    })
}

#[cfg(test)]
mod tests {
    use super::super::pair_of_cores;
    use super::*;

    const SHORT: Duration = Duration::from_millis(2);

    #[test]
    fn every_hop_is_there_and_back() {
        assert!(!park_hop(SHORT).is_empty());
        if let Some(cores) = pair_of_cores() {
            assert!(!cache_line_hop(cores, SHORT).is_empty());
            assert!(!ring_hop(cores, SHORT).is_empty());
        }
    }

    #[test]
    fn a_ring_loses_nothing() {
        if let Some(cores) = pair_of_cores() {
            assert!(ring_throughput(cores, 10_000) > 0.0);
        }
    }
}
