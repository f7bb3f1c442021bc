//! The way out: what each committed block did, to several independent consumers.
//!
//! Every consumer sees every block, in order, at its own pace, through a [lane](crate::lane) of its own. If the slowest falls a whole lane behind, the
//! matcher waits for it; memory stays bounded and nothing is skipped, so a consumer must keep up or give up. One that is dropped is
//! passed over from then on; one that hangs delays a shutdown only for a grace period.
//!
//! All consumers share one [`Output`]. Its memory serves again once the last of them is done with it, newest first: where they keep
//! up, a venue under load turns over some few outputs that never leave the cache.

use std::collections::VecDeque;
use std::time::Duration;

use crate::block::{Block, CommittedBlock, Position};
use crate::clocks::{Clocks, Stamps};
use crate::doorbell::{Doorbell, Sleeper, doorbell};
use crate::lane::{LaneIn, LaneOut, lane};
use crate::machine::Machine;
use crate::output::{Output, Place};
use crate::room::RoomCall;
use crate::sync::{Arc, AtomicBool, Mutex, MutexGuard, Ordering, PoisonError, fence};

/// Called after each publication, from the matcher's thread: make it short, and do not block in it.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

/// Most outputs, and commands of theirs, that wait to be used again: some batches of the matcher's, because consumers take some at a time.
const SPARE_MAX: usize = 256;
/// Commands whose memory is kept for other blocks; that of a larger block is given back.
const COMMANDS_KEPT: usize = 256;

struct Seat {
    name: String,
    bell: Arc<Doorbell>,
    waker: Mutex<Option<Waker>>,
    /// There is one; so that nobody takes the lock to find none.
    has_waker: AtomicBool,
}

/// What both ends share.
struct Hall {
    seats: Vec<Seat>,
    clocks: Arc<Clocks>,
    closed: AtomicBool,
    /// The matcher found a lane full and wants to hear of progress.
    blocked: RoomCall,
    matcher: Arc<Doorbell>,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hall {
    fn tell_matcher_if_blocked(&self) {
        if self.blocked.take() {
            self.matcher.ring();
        }
    }
}

type Shared<M> = Arc<Output<M>>;

/// The matcher's end.
pub(crate) struct Outbound<M: Machine> {
    /// To each consumer that is still there.
    lanes: Vec<LaneIn<Shared<M>>>,
    /// Published, oldest first, at most a lane full: each is looked at again until all consumers are done with it.
    under_way: VecDeque<Shared<M>>,
    slots: usize,
    /// Nobody else has one of these. They are of no block any more.
    spare: Vec<Shared<M>>,
    /// Events of the largest block that was published lately: as many have room in a new output. One block differs from the next, so this
    /// shrinks by an eighth at a time.
    events: usize,
    /// Memory for the commands of blocks that are yet to be decoded, newest last. What it was of is let go when it is filled anew: then its
    /// lines come near anyway.
    commands: Vec<Vec<M::Command>>,
    /// What an output is of while it is of none.
    nothing: Arc<CommittedBlock<M::Command>>,
    hall: Arc<Hall>,
}

/// A consumer's end; poll it from one thread.
pub struct OutputPoller<M: Machine> {
    /// Present until this is dropped.
    lane: Option<LaneOut<Shared<M>>>,
    hall: Arc<Hall>,
    seat: usize,
    sleeper: Sleeper,
    /// Of the last block polled that the stage clocks follow, until it is sent.
    stamps: Option<Stamps>,
}

/// What a poll brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polled {
    /// So many outputs were appended.
    Some(usize),
    /// Nothing new.
    Empty,
    /// The venue has stopped and nothing will follow.
    Closed,
}

/// The way out with a lane of so many `slots`, and its poller, for each name.
pub(crate) fn outbound<M: Machine>(
    slots: usize,
    names: &[String],
    matcher: Arc<Doorbell>,
    clocks: Arc<Clocks>,
) -> (Outbound<M>, Vec<OutputPoller<M>>) {
    let (seats, sleepers): (Vec<_>, Vec<_>) = names
        .iter()
        .map(|name| {
            let (bell, sleeper) = doorbell();
            let (waker, has_waker) = (Mutex::new(None), AtomicBool::new(false));
            (Seat { name: name.clone(), bell, waker, has_waker }, sleeper)
        })
        .unzip();
    let closed = AtomicBool::new(false);
    let hall = Arc::new(Hall { seats, clocks, closed, blocked: RoomCall::default(), matcher });
    let (lanes, outs): (Vec<_>, Vec<_>) = names.iter().map(|_| lane(slots)).unzip();
    let pollers = outs.into_iter().zip(sleepers).enumerate();
    let pollers = pollers
        .map(|(seat, (lane, sleeper))| OutputPoller {
            lane: Some(lane),
            hall: Arc::clone(&hall),
            seat,
            sleeper,
            stamps: None,
        })
        .collect();
    let nothing = Arc::new(CommittedBlock::new(Arc::new(Block::empty(&Position::default(), 1)), Vec::new()));
    let (under_way, spare, commands) = (VecDeque::new(), Vec::new(), Vec::new());
    (Outbound { lanes, under_way, slots, spare, events: 0, commands, nothing, hall }, pollers)
}

impl<M: Machine> Outbound<M> {
    /// An output of this block, which is yet to be applied; nobody else has it.
    pub(crate) fn begin(&mut self, block: Arc<CommittedBlock<M::Command>>) -> Shared<M> {
        let Some(mut output) = self.spare.pop() else { return Arc::new(Output::before(block, self.events)) };
        Arc::get_mut(&mut output).expect("nobody has a spare one").renew(block);
        output
    }

    /// Empty, with memory that served an earlier block where there is some.
    pub(crate) fn room_for_commands(&mut self) -> Vec<M::Command> {
        let mut commands = self.commands.pop().unwrap_or_default();
        commands.clear();
        commands
    }

    /// Takes back what all consumers are done with. Their last look at it was from elsewhere, so this waits for a line of memory or
    /// two: do it when nobody waits for what comes next.
    pub(crate) fn reclaim(&mut self) {
        while let Some(mut done) = self.under_way.pop_front_if(|output| Arc::get_mut(output).is_some()) {
            if self.spare.len() < SPARE_MAX
                && let Some(output) = Arc::get_mut(&mut done)
            {
                let block = output.renew(Arc::clone(&self.nothing));
                if self.commands.len() < SPARE_MAX
                    && block.plain_commands().len() <= COMMANDS_KEPT
                    && let Some(block) = Arc::into_inner(block)
                {
                    self.commands.push(block.into_commands());
                }
                self.spare.push(done);
            }
        }
    }

    /// Publishes as many outputs as there is room for before the slowest consumer, at once, and takes them from the front; if
    /// some are left, the matcher's bell rings as soon as that consumer has moved. Says which block was the last one.
    pub(crate) fn publish(&mut self, outputs: &mut VecDeque<Shared<M>>) -> Option<Place> {
        let out = self.attempt(outputs);
        if outputs.is_empty() {
            return out;
        }
        self.hall.blocked.ask();
        let more = self.attempt(outputs);
        if outputs.is_empty() {
            self.hall.blocked.withdraw();
        }
        more.or(out)
    }

    fn attempt(&mut self, outputs: &mut VecDeque<Shared<M>>) -> Option<Place> {
        // What a consumer left in its lane goes with it.
        self.lanes.retain(|lane| !lane.is_abandoned());
        let room = |most: usize, lane: &mut LaneIn<_>| most.min(lane.room(most));
        let count = self.lanes.iter_mut().fold(outputs.len(), room);
        let last = Place::of(&outputs.get(count.checked_sub(1)?)?.block);
        for _ in 0..count {
            let output = outputs.pop_front().expect("as many as were counted");
            self.events = output.events().len().max(self.events - self.events.div_ceil(8));
            self.lanes.iter_mut().for_each(|lane| lane.put(Arc::clone(&output)));
            if self.under_way.len() == self.slots {
                self.under_way.pop_front();
            }
            self.under_way.push_back(output);
        }
        self.lanes.iter().for_each(LaneIn::publish);
        Some(last)
    }

    /// True while a refused output waits for a consumer.
    pub(crate) fn is_blocked(&self) -> bool {
        self.hall.blocked.is_open()
    }

    /// Wakes all consumers; once a step, after its last publication and a full fence behind it.
    pub(crate) fn wake_fenced(&self) {
        for seat in &self.hall.seats {
            seat.bell.ring_fenced();
            if seat.has_waker.load(Ordering::Relaxed)
                && let Some(waker) = &*held(&seat.waker)
            {
                waker();
            }
        }
    }

    /// Ends the stream: consumers see what is in their lanes, then `Closed`.
    pub(crate) fn close(&mut self) {
        self.hall.closed.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.wake_fenced();
    }

    /// Names of the consumers, for messages.
    pub(crate) fn names(&self) -> String {
        self.hall.seats.iter().map(|seat| seat.name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

impl<M: Machine> OutputPoller<M> {
    fn lane(&self) -> &LaneOut<Shared<M>> {
        self.lane.as_ref().expect("present until dropped")
    }

    /// The name it was asked for under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.hall.seats[self.seat].name
    }

    /// Has `waker` called after each publication; for a consumer that sleeps in an event loop of its own.
    ///
    /// It is called once right away, so nothing that was published before is overlooked.
    pub fn set_waker(&self, waker: Waker) {
        let seat = &self.hall.seats[self.seat];
        *held(&seat.waker) = Some(Arc::clone(&waker));
        seat.has_waker.store(true, Ordering::Relaxed);
        // Either the matcher sees that there is one, or what it published before is seen by whoever is woken here.
        fence(Ordering::SeqCst);
        waker();
    }

    /// Appends up to `limit` outputs to `into` and frees their places in the lane. Does not wait.
    pub fn poll(&mut self, limit: usize, into: &mut Vec<Arc<Output<M>>>) -> Polled {
        // Before the look: what was published before the end is seen by it.
        let closed = self.hall.closed.load(Ordering::SeqCst);
        let Self { lane, stamps, hall, .. } = self;
        let lane = lane.as_mut().expect("present until dropped");
        let taken = lane.take(limit as u64, |output| {
            *stamps = output.stamps.or(*stamps);
            into.push(output);
        });
        match taken {
            0 if closed && lane.available() == 0 => Polled::Closed,
            0 => Polled::Empty,
            some => {
                hall.tell_matcher_if_blocked();
                Polled::Some(some)
            }
        }
    }

    /// For the stage clocks: what the outputs polled so far did is on its way to whom it concerns. One consumer says so, the one
    /// whose clients wait.
    pub fn sent(&mut self) {
        if let Some(stamps) = self.stamps.take() {
            self.hall.clocks.reported(stamps);
        }
    }

    /// Parks until there is something to poll, the venue has stopped, or `limit` has passed.
    pub fn wait(&self, limit: Duration) {
        self.wait_unless(limit, || false);
    }

    /// Like [`OutputPoller::wait`], but does not park if `has_work` is true, which is asked at the last moment. Whoever makes it true
    /// calls the [alarm](OutputPoller::alarm) afterwards.
    pub fn wait_unless(&self, limit: Duration, has_work: impl Fn() -> bool) {
        let lane = self.lane();
        let closed = || self.hall.closed.load(Ordering::SeqCst);
        self.sleeper.sleep(Some(limit), || lane.available() > 0 || closed() || has_work());
    }

    /// Wakes this consumer out of its wait, from any thread.
    #[must_use]
    pub fn alarm(&self) -> Waker {
        let bell = Arc::clone(&self.hall.seats[self.seat].bell);
        Arc::new(move || bell.ring())
    }
}

impl<M: Machine> Drop for OutputPoller<M> {
    /// A consumer that ends does not stop everybody else.
    fn drop(&mut self) {
        drop(self.lane.take());
        *held(&self.hall.seats[self.seat].waker) = None;
        self.hall.tell_matcher_if_blocked();
    }
}

impl<M: Machine> std::fmt::Debug for OutputPoller<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutputPoller").field("name", &self.name()).finish_non_exhaustive()
    }
}
