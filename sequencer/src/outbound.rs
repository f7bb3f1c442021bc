//! The way out: what each committed block did, to several independent consumers.
//!
//! Every consumer sees every block, in order, at its own pace within the ring. If the slowest falls a whole ring behind, the matcher waits for it; memory
//! stays bounded and nothing is skipped, so a consumer must keep up or give up. One that is dropped is
//! drained by the matcher from then on; one that hangs delays a shutdown only for a grace period.

use std::collections::VecDeque;
use std::time::Duration;

use disruptor::{
    EventPoller, MissingFreeSlots, MultiConsumerBarrier, Polling, Producer, SingleProducer,
    SingleProducerBarrier,
};
use grid_engine::Seq;

use crate::block::CommittedBlock;
use crate::clocks::{Clocks, Stamps};
use crate::doorbell::{Doorbell, Sleeper, doorbell};
use crate::machine::{LookAhead, Machine};
use crate::room::RoomCall;
use crate::sync::{Arc, AtomicBool, AtomicUsize, Mutex, MutexGuard, Ordering, PoisonError};

/// One committed block and all that applying it brought about. The events of all its commands lie one behind the other, where
/// the machine put them.
#[derive(Debug)]
pub struct Output<M: Machine> {
    /// The block with its commands.
    pub block: Arc<CommittedBlock<M::Command>>,
    /// In order.
    events: Vec<M::Event>,
    /// Where the events of each command end: as many as there are commands, none before the one ahead of it.
    ends: Vec<u32>,
    /// Of a block that the stage clocks follow.
    pub(crate) stamps: Option<Stamps>,
}

impl<M: Machine> Output<M> {
    /// What a machine makes of a block, `ahead` of which it is told what comes.
    pub(crate) fn of<'a, I: Iterator<Item = &'a M::Command> + Clone>(
        block: Arc<CommittedBlock<M::Command>>,
        machine: &mut M,
        ahead: &mut LookAhead<I>,
        parts: Parts<M>,
    ) -> Self {
        let Parts { mut events, mut ends } = parts;
        debug_assert!(events.is_empty() && ends.is_empty());
        ends.reserve(block.plain_commands().len());
        let at = block.at();
        for (seq, command) in block.commands() {
            ahead.advance(machine);
            machine.apply(seq, at, command, &mut events);
            ends.push(u32::try_from(events.len()).expect("a block has far fewer than 2^32 events"));
        }
        Self { block, events, ends, stamps: None }
    }

    /// All events, in order.
    #[must_use]
    pub fn events(&self) -> &[M::Event] {
        &self.events
    }

    /// The events of the block's command at `place`, counted from 0; none for a place behind the last.
    #[must_use]
    pub fn events_of(&self, place: usize) -> &[M::Event] {
        let Some(end) = self.ends.get(place) else { return &[] };
        let start = place.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.events[start as usize..*end as usize]
    }

    /// Each command of the block with its number and its events, in order; also those that brought nothing about.
    pub fn by_command(&self) -> impl ExactSizeIterator<Item = (Seq, &M::Command, &[M::Event])> {
        let commands = self.block.commands().enumerate();
        commands.map(|(place, (seq, command))| (seq, command, self.events_of(place)))
    }

    /// All events, in order, each with the number of the command that caused it.
    pub fn numbered(&self) -> impl Iterator<Item = (Seq, &M::Event)> {
        self.by_command().flat_map(|(seq, _, events)| events.iter().map(move |event| (seq, event)))
    }

    /// The memory, for another output.
    fn into_parts(self) -> Parts<M> {
        let Self { mut events, mut ends, .. } = self;
        events.clear();
        ends.clear();
        Parts { events, ends }
    }
}

/// Which block: where the log stands behind it, as far as stages tell each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) index: u64,
    pub(crate) seq: Seq,
    pub(crate) term: u64,
}

impl Place {
    pub(crate) fn of<C>(block: &CommittedBlock<C>) -> Self {
        Self { index: block.index(), seq: block.last_seq(), term: block.block().header().term }
    }
}

/// Memory for an output's events: empty, with the room that an earlier one needed.
pub(crate) struct Parts<M: Machine> {
    events: Vec<M::Event>,
    ends: Vec<u32>,
}

impl<M: Machine> Default for Parts<M> {
    fn default() -> Self {
        Self { events: Vec::new(), ends: Vec::new() }
    }
}

/// Called after each publication, from the matcher's thread: make it short, and do not block in it.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

/// Most outputs whose memory waits to be used again.
const SPARE_MAX: usize = 64;

type Slot<M> = Option<Arc<Output<M>>>;
type RingPoller<M> = EventPoller<Slot<M>, SingleProducerBarrier>;

struct Seat {
    name: String,
    bell: Arc<Doorbell>,
    waker: Mutex<Option<Waker>>,
}

/// What both ends share.
struct Hall<M: Machine> {
    seats: Vec<Seat>,
    /// Pollers whose consumer is gone; the matcher moves them along.
    orphans: Mutex<Vec<RingPoller<M>>>,
    orphan_count: AtomicUsize,
    clocks: Arc<Clocks>,
    closed: AtomicBool,
    /// The matcher found the ring full and wants to hear of progress.
    blocked: RoomCall,
    matcher: Arc<Doorbell>,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<M: Machine> Hall<M> {
    fn tell_matcher_if_blocked(&self) {
        if self.blocked.take() {
            self.matcher.ring();
        }
    }
}

/// The matcher's end.
pub(crate) struct Outbound<M: Machine> {
    ring: Option<SingleProducer<Slot<M>, MultiConsumerBarrier>>,
    /// Memory of outputs that all consumers are done with.
    spare: Vec<Parts<M>>,
    hall: Arc<Hall<M>>,
}

/// A consumer's end; poll it from one thread.
pub struct OutputPoller<M: Machine> {
    ring: Option<RingPoller<M>>,
    hall: Arc<Hall<M>>,
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

/// A ring of `slots` (a power of two) with a poller for each name.
pub(crate) fn outbound<M: Machine>(
    slots: usize,
    names: &[String],
    matcher: Arc<Doorbell>,
    clocks: Arc<Clocks>,
) -> (Outbound<M>, Vec<OutputPoller<M>>) {
    let mut builder =
        disruptor::build_single_producer(slots, || None, disruptor::BusySpin).with_multi_consumer();
    let mut rings = Vec::new();
    // The ring needs a consumer even if nobody listens; that one is an orphan from the start.
    for _ in 0..names.len().max(1) {
        let (poller, next) = builder.new_event_poller();
        rings.push(poller);
        builder = next;
    }
    let ring = builder.build();
    let (seats, sleepers): (Vec<_>, Vec<_>) = names
        .iter()
        .map(|name| {
            let (bell, sleeper) = doorbell();
            (Seat { name: name.clone(), bell, waker: Mutex::new(None) }, sleeper)
        })
        .unzip();
    let orphans: Vec<_> = if names.is_empty() { std::mem::take(&mut rings) } else { Vec::new() };
    let hall = Arc::new(Hall {
        seats,
        orphan_count: AtomicUsize::new(orphans.len()),
        orphans: Mutex::new(orphans),
        clocks,
        closed: AtomicBool::new(false),
        blocked: RoomCall::default(),
        matcher,
    });
    let pollers = rings.into_iter().zip(sleepers).enumerate();
    let pollers = pollers
        .map(|(seat, (ring, sleeper))| OutputPoller {
            ring: Some(ring),
            hall: Arc::clone(&hall),
            seat,
            sleeper,
            stamps: None,
        })
        .collect();
    (Outbound { ring: Some(ring), spare: Vec::new(), hall }, pollers)
}

impl<M: Machine> Outbound<M> {
    /// Publishes as many outputs as there is room for before the slowest consumer, at once, and takes them from the front; if
    /// some are left, the matcher's bell rings as soon as that consumer has moved. Says which block was the last one.
    pub(crate) fn publish(&mut self, outputs: &mut VecDeque<Arc<Output<M>>>) -> Option<Place> {
        self.drain_orphans();
        let out = self.attempt(outputs);
        if outputs.is_empty() {
            return out;
        }
        self.hall.blocked.ask();
        self.drain_orphans();
        let more = self.attempt(outputs);
        if outputs.is_empty() {
            self.hall.blocked.withdraw();
        }
        more.or(out)
    }

    fn attempt(&mut self, outputs: &mut VecDeque<Arc<Output<M>>>) -> Option<Place> {
        let Self { ring, spare, .. } = self;
        let ring = ring.as_mut().expect("nothing is published after the end");
        let mut count = outputs.len();
        while let Some(last) = count.checked_sub(1).map(|nth| Place::of(&outputs[nth].block)) {
            let published = ring.try_batch_publish(count, |slots| {
                for slot in slots {
                    let before = std::mem::replace(slot, outputs.pop_front());
                    // What nobody reads any more serves again.
                    if spare.len() < SPARE_MAX
                        && let Some(before) = before.and_then(Arc::into_inner)
                    {
                        spare.push(before.into_parts());
                    }
                }
            });
            match published {
                Ok(_) => return Some(last),
                Err(MissingFreeSlots(missing)) => count = count.saturating_sub(missing as usize),
            }
        }
        None
    }

    /// Memory for the next output.
    pub(crate) fn parts(&mut self) -> Parts<M> {
        self.spare.pop().unwrap_or_default()
    }

    fn drain_orphans(&mut self) {
        if self.hall.orphan_count.load(Ordering::Acquire) > 0 {
            for orphan in held(&self.hall.orphans).iter_mut() {
                let _ = orphan.poll();
            }
        }
    }

    /// True while a refused output waits for a consumer.
    pub(crate) fn is_blocked(&self) -> bool {
        self.hall.blocked.is_open()
    }

    /// Wakes all consumers; once a step, after its last publication.
    pub(crate) fn wake(&self) {
        for seat in &self.hall.seats {
            seat.bell.ring();
            let waker = held(&seat.waker).clone();
            if let Some(waker) = waker {
                waker();
            }
        }
    }

    /// Ends the stream: consumers see what is in the ring, then `Closed`.
    pub(crate) fn close(&mut self) {
        drop(self.ring.take());
        self.hall.closed.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Names of the consumers, for messages.
    pub(crate) fn names(&self) -> String {
        self.hall.seats.iter().map(|seat| seat.name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

impl<M: Machine> OutputPoller<M> {
    /// The name it was asked for under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.hall.seats[self.seat].name
    }

    /// Has `waker` called after each publication; for a consumer that sleeps in an event loop of its own.
    ///
    /// It is called once right away, so nothing that was published before is overlooked.
    pub fn set_waker(&self, waker: Waker) {
        *held(&self.hall.seats[self.seat].waker) = Some(Arc::clone(&waker));
        waker();
    }

    /// Appends up to `limit` outputs to `into` and frees their places in the ring. Does not wait.
    pub fn poll(&mut self, limit: usize, into: &mut Vec<Arc<Output<M>>>) -> Polled {
        let ring = self.ring.as_mut().expect("present until dropped");
        let polled = match ring.take(limit as u64) {
            Ok(mut ready) => {
                let before = into.len();
                for slot in &mut ready {
                    let output = slot.as_ref().expect("a published slot is filled");
                    self.stamps = output.stamps.or(self.stamps);
                    into.push(Arc::clone(output));
                }
                Polled::Some(into.len() - before)
            }
            Err(Polling::NoEvents) => return Polled::Empty,
            Err(Polling::Shutdown) => return Polled::Closed,
        };
        self.hall.tell_matcher_if_blocked();
        polled
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
        let ring = self.ring.as_ref().expect("present until dropped");
        let closed = || self.hall.closed.load(Ordering::SeqCst);
        self.sleeper.sleep(Some(limit), || ring.has_available() || closed() || has_work());
    }

    /// Wakes this consumer out of its wait, from any thread.
    #[must_use]
    pub fn alarm(&self) -> Waker {
        let bell = Arc::clone(&self.hall.seats[self.seat].bell);
        Arc::new(move || bell.ring())
    }
}

impl<M: Machine> Drop for OutputPoller<M> {
    /// Hands the place in the ring to the matcher, so that a consumer that ends does not stop everybody else.
    fn drop(&mut self) {
        if let Some(ring) = self.ring.take() {
            held(&self.hall.orphans).push(ring);
            self.hall.orphan_count.fetch_add(1, Ordering::AcqRel);
        }
        *held(&self.hall.seats[self.seat].waker) = None;
        self.hall.tell_matcher_if_blocked();
    }
}

impl<M: Machine> std::fmt::Debug for OutputPoller<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutputPoller").field("name", &self.name()).finish_non_exhaustive()
    }
}
