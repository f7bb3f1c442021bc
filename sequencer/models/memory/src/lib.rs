//! The hand-offs between the sequencer's threads, compiled from the very sources that run in production, in every interleaving and with every stale
//! value that the memory model allows. A lost wake-up shows as a deadlock, which `loom` reports.
//!
//! What is not here: the ring and the lanes, whose queues have models of their own where they come from, and are one atomic counter in these; and the
//! stages put together, which `../threads` drives with many more threads but under one order of memory.

#![expect(clippy::missing_panics_doc, reason = "a model panics where what it shows is not so")]

use std::time::Duration;

use loom::thread;

#[allow(dead_code, unreachable_pub, reason = "models use a part of it")]
#[path = "../../../../replicator/src/links/attention.rs"]
mod attention;
#[allow(dead_code, unreachable_pub, reason = "models use a part of it")]
#[path = "../../../src/door.rs"]
mod door;
#[allow(dead_code, unreachable_pub, reason = "models use a part of it")]
#[path = "../../../src/doorbell.rs"]
mod doorbell;
#[allow(dead_code, unreachable_pub, reason = "models use a part of it")]
#[path = "../../../src/leadership.rs"]
mod leadership;
#[allow(dead_code, unreachable_pub, reason = "models use a part of it")]
#[path = "../../../src/room.rs"]
mod room;
mod sync;

/// What `leadership` wants from its neighbours that is no hand-off.
mod consensus {
    pub(crate) use grid_sequencer::{Leadership, NodeId};
}
mod outbound {
    pub(crate) use grid_sequencer::Waker;
}

use attention::Attention;
use consensus::Leadership;
use door::Door;
use doorbell::{Doorbell, Sleeper, doorbell};
use leadership::{Board, LeaderWatch};
use room::RoomCall;
use sync::{Arc, AtomicBool, AtomicU64, AtomicUsize, Ordering};

pub use sync::weakened;

/// Goes through a model as far as `preemptions` forced switches between threads reach; the usual bound, beyond which
/// faults are very rare.
fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// Work is made visible, the bell is rung, and the sleeper sees the work: once and again, because a bell has a state.
pub fn a_sleeper_is_woken_for_work() {
    check(3, || {
        let work = Arc::new(AtomicUsize::new(0));
        let (bell, sleeper) = doorbell();
        let ringer = {
            let work = Arc::clone(&work);
            thread::spawn(move || {
                for _ in 0..2 {
                    work.fetch_add(1, Ordering::Relaxed);
                    bell.ring();
                }
            })
        };
        for wanted in 1..=2 {
            while work.load(Ordering::Relaxed) < wanted {
                sleeper.sleep(None, || work.load(Ordering::Relaxed) >= wanted);
            }
        }
        ringer.join().expect("the ringer ends");
    });
}

/// Two that ring for one sleeper, as journal and gateway do for a thread that has several stages.
pub fn a_sleeper_is_woken_by_either_of_two() {
    check(2, || {
        let work = [Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false))];
        let (bell, sleeper) = doorbell();
        let ringers = work.clone().map(|mine| {
            let bell = Arc::clone(&bell);
            thread::spawn(move || {
                mine.store(true, Ordering::Relaxed);
                bell.ring();
            })
        });
        for wanted in &work {
            while !wanted.load(Ordering::Relaxed) {
                sleeper.sleep(None, || wanted.load(Ordering::Relaxed));
            }
        }
        for ringer in ringers {
            ringer.join().expect("a ringer ends");
        }
    });
}

/// A sleeper that does not look once more before it parks: what [`a_sleeper_is_woken_for_work`] is there to find.
pub fn a_sleeper_that_does_not_look_again_is_lost() {
    check(3, || {
        let work = Arc::new(AtomicBool::new(false));
        let (bell, sleeper) = doorbell();
        let ringer = {
            let work = Arc::clone(&work);
            thread::spawn(move || {
                work.store(true, Ordering::Relaxed);
                bell.ring();
            })
        };
        if !work.load(Ordering::Relaxed) {
            sleeper.sleep(None, || false);
        }
        ringer.join().expect("the ringer ends");
    });
}

/// The links' thread turns until it has seen what two senders put in line; `last_look` is what it does between its turn's end
/// and its sleep.
fn the_links_turn(last_look: impl Fn(&AtomicUsize) -> usize + Send + Sync + Copy + 'static) {
    check(3, move || {
        const FRAMES: usize = 2;
        let line = Arc::new(AtomicUsize::new(0));
        let attention = Arc::new(Attention::default());
        let poll = sync::Parker::new();
        let senders = [(); 2].map(|()| {
            let (line, attention, waker) = (Arc::clone(&line), Arc::clone(&attention), poll.unparker());
            thread::spawn(move || {
                line.fetch_add(1, Ordering::Relaxed);
                if attention.call() {
                    waker.unpark();
                }
            })
        });
        let mut seen = line.load(Ordering::Relaxed);
        while seen < FRAMES {
            attention.begin_turn();
            seen = line.load(Ordering::Relaxed);
            attention.end_turn();
            seen = seen.max(last_look(&line));
            if seen < FRAMES {
                poll.park();
            }
        }
        for sender in senders {
            sender.join().expect("a sender ends");
        }
    });
}

/// Whatever is sent while the links turn, and whoever sends it, leaves in this turn or the next.
pub fn the_links_see_what_is_sent() {
    the_links_turn(|line| line.load(Ordering::Relaxed));
}

/// Links that sleep without a last look: what [`the_links_see_what_is_sent`] is there to find.
pub fn links_that_do_not_look_again_leave_something_behind() {
    the_links_turn(|_| 0);
}

/// Somebody who fills a ring of one slot, as the matcher fills the outbound lanes, the sequencer the window up to the matcher's cursor,
/// and the core's driver the committed lane.
struct Filler {
    room: Arc<Room>,
    sleeper: Sleeper,
}

struct Room {
    filled: AtomicU64,
    emptied: AtomicU64,
    call: RoomCall,
    bell: Arc<Doorbell>,
    filled_bell: Arc<Doorbell>,
}

impl Filler {
    fn try_fill(&self) -> bool {
        let filled = self.room.filled.load(Ordering::Relaxed);
        let room = filled - self.room.emptied.load(Ordering::Acquire) < 1;
        if room {
            self.room.filled.store(filled + 1, Ordering::Release);
            self.room.filled_bell.ring();
        }
        room
    }

    fn fill(&self) {
        loop {
            if self.try_fill() {
                return;
            }
            self.room.call.ask();
            if self.try_fill() {
                self.room.call.withdraw();
                return;
            }
            self.sleeper.sleep(None, || !self.room.call.is_open());
        }
    }
}

/// Whoever found no room and asked is told of room, each time.
pub fn whoever_asks_for_room_is_told() {
    check(2, || {
        const BLOCKS: u64 = 2;
        let (bell, sleeper) = doorbell();
        let (filled_bell, emptier) = doorbell();
        let room = Arc::new(Room {
            filled: AtomicU64::new(0),
            emptied: AtomicU64::new(0),
            call: RoomCall::default(),
            bell,
            filled_bell,
        });
        let filler = Filler { room: Arc::clone(&room), sleeper };
        let filling = thread::spawn(move || (0..BLOCKS).for_each(|_| filler.fill()));
        for nth in 0..BLOCKS {
            let there = || room.filled.load(Ordering::Acquire) > nth;
            while !there() {
                emptier.sleep(None, there);
            }
            room.emptied.store(nth + 1, Ordering::Release);
            if room.call.take() {
                room.bell.ring();
            }
        }
        filling.join().expect("the filler ends");
    });
}

/// A submission that got through the door is in the ring once a shutdown finds the door shut; none gets in afterwards.
pub fn what_came_through_the_door_is_there_when_it_is_shut() {
    check(3, || {
        let door = Arc::new(Door::default());
        let ring = Arc::new(AtomicUsize::new(0));
        let producers = [(); 2].map(|()| {
            let (door, ring) = (Arc::clone(&door), Arc::clone(&ring));
            thread::spawn(move || {
                let taken = door.enter();
                if taken {
                    ring.fetch_add(1, Ordering::Relaxed);
                }
                door.leave();
                usize::from(taken)
            })
        });
        door.close();
        while !door.is_shut() {
            thread::yield_now();
        }
        let found = ring.load(Ordering::Relaxed);
        let taken: usize = producers.map(|producer| producer.join().expect("a producer ends")).iter().sum();
        assert_eq!(found, taken, "what was taken in is found when the door is shut");
    });
}

/// Who waits for the epoch hears of it, whichever of its two conditions comes last; and no epoch is seen that is none.
pub fn whoever_waits_for_the_epoch_hears_of_it() {
    check(2, || {
        let board = Arc::new(Board::starting_at(4));
        let (core, matcher, watch) = (Arc::clone(&board), Arc::clone(&board), LeaderWatch(board));
        let leads = thread::spawn(move || {
            core.post(Leadership { term: 5, leader: Some(1), leads: true });
        });
        let applies = thread::spawn(move || matcher.post_applied(5));
        assert_eq!(watch.wait_to_lead(Duration::MAX), Some(5));
        leads.join().expect("the core ends");
        applies.join().expect("the matcher ends");
        assert_eq!(watch.epoch(), Some(5));
    });
}

/// A waker that is called on each change sees the last one, so that an event loop which looks when woken misses nothing.
pub fn a_waker_is_called_after_the_epoch_began() {
    check(3, || {
        let board = Arc::new(Board::starting_at(4));
        let seen = Arc::new(AtomicBool::new(false));
        {
            let (watch, seen) = (Arc::downgrade(&board), Arc::clone(&seen));
            LeaderWatch(Arc::clone(&board)).wake_with(Arc::new(move || {
                let board = watch.upgrade().expect("it is there while it tells");
                if LeaderWatch(board).epoch() == Some(5) {
                    seen.store(true, Ordering::Relaxed);
                }
            }));
        }
        let matcher = Arc::clone(&board);
        let applies = thread::spawn(move || matcher.post_applied(5));
        board.post(Leadership { term: 5, leader: Some(1), leads: true });
        applies.join().expect("the matcher ends");
        assert!(seen.load(Ordering::Relaxed), "one of the two calls came after both notices");
    });
}
