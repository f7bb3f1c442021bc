//! The one door into the log: a bounded ring that any number of producers fill and the sequencer stage empties.
//!
//! Full is an explicit answer, never a wait: the producer tells its client. Commands are encoded by their producers, in
//! parallel, and their log form lies in the slot itself: the sequencer, on another core, fetches it with the rest and has no pointer to
//! follow. Only a command with an unusually long form needs memory of its own.
//!
//! A slot is a `Mutex` although nobody ever contends for it: producer and consumer have it in turns, by the ring's cursors, so
//! the lock costs the consumer some nanoseconds and spares `unsafe`. The consumer always takes all that is ready: `take(n)` on a
//! ring with many producers scans the whole backlog on each call (8 µs at 16,384 waiting).

use disruptor::{EventPoller, MultiProducer, MultiProducerBarrier, Polling, Producer, SingleConsumerBarrier};

use grid_engine::Nanos;

use crate::block::push_command;
use crate::clocks::{Clocks, Sampler};
use crate::door::Door;
use crate::doorbell::Doorbell;
use crate::leadership::Board;
use crate::machine::Machine;
use crate::stages::Pending;
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Why a command was not taken; it comes back to the caller.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError<C> {
    /// The ring has no free slot: the venue is busy, try later.
    #[error("the venue is busy: its inbound ring is full")]
    Full(C),
    /// The command's log form is larger than a command may be.
    #[error("the command takes {bytes} bytes in the log, where {limit} are allowed")]
    TooLarge {
        /// The command.
        command: C,
        /// Bytes of its log form.
        bytes: usize,
        /// Most bytes allowed.
        limit: usize,
    },
    /// The venue is shutting down.
    #[error("the venue is shutting down")]
    Closed(C),
    /// Another node leads, or none does yet.
    #[error("this node does not lead the cluster")]
    NotLeader(C),
}

impl<C> SubmitError<C> {
    /// The command that was not taken.
    pub fn into_command(self) -> C {
        match self {
            Self::Full(command)
            | Self::Closed(command)
            | Self::NotLeader(command)
            | Self::TooLarge { command, .. } => command,
        }
    }
}

/// Room for the log form of most commands, with its length in front.
const COMMAND_BYTES: usize = 96;

#[derive(Debug)]
struct Filled<C> {
    /// Length prefix and log form, as they will stand in the block: so many bytes of `framed`, or `long` where those are more than
    /// it has room for.
    bytes: usize,
    framed: [u8; COMMAND_BYTES],
    long: Vec<u8>,
    command: Option<C>,
    /// The epoch that it was handed in for.
    epoch: u64,
    /// When it arrived, if it is one to be followed.
    arrived: Option<Nanos>,
}

/// What the sequencer takes out of a slot.
pub(crate) struct Taken<'a, C> {
    pub(crate) command: C,
    /// Length prefix and log form, as they will stand in the block.
    pub(crate) framed: &'a [u8],
    /// The epoch that it was handed in for.
    pub(crate) epoch: u64,
    /// When it arrived, if it is one to be followed.
    pub(crate) arrived: Option<Nanos>,
}

type Slot<C> = Mutex<Filled<C>>;

/// A poisoned slot is whole: nothing that can panic runs under the lock.
fn open<C>(slot: &Slot<C>) -> MutexGuard<'_, Filled<C>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A producer's handle; clone one for each thread that submits.
pub struct Submitter<M: Machine> {
    ring: MultiProducer<Slot<M::Command>, SingleConsumerBarrier>,
    door: Arc<Door>,
    board: Arc<Board>,
    bell: Arc<Doorbell>,
    buffer: Vec<u8>,
    command_bytes_max: usize,
    slots: usize,
    sampler: Sampler,
}

impl<M: Machine> Clone for Submitter<M> {
    fn clone(&self) -> Self {
        Self {
            ring: self.ring.clone(),
            door: Arc::clone(&self.door),
            board: Arc::clone(&self.board),
            bell: Arc::clone(&self.bell),
            buffer: Vec::new(),
            command_bytes_max: self.command_bytes_max,
            slots: self.slots,
            sampler: self.sampler.clone(),
        }
    }
}

impl<M: Machine> std::fmt::Debug for Submitter<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Submitter").field("door", &self.door).finish_non_exhaustive()
    }
}

impl<M: Machine> Submitter<M> {
    /// For the stage clocks: what is handed in from now on, until this is called again, arrived now. Who reads many commands at
    /// once says so when it has read; otherwise a command arrives when it is handed in.
    pub fn arrive(&mut self) {
        self.sampler.arrive();
    }

    /// Hands a command in without waiting and wakes the sequencer.
    ///
    /// `Ok` means that it is queued and, unless this node stops leading first, will be in the log. It is acknowledged only by
    /// its events, which follow when it is committed.
    ///
    /// # Errors
    /// [`SubmitError`] with the command.
    pub fn try_submit(&mut self, command: M::Command) -> Result<(), SubmitError<M::Command>> {
        // Without an epoch none is right, and the command comes back.
        let epoch = self.board.epoch().unwrap_or_default();
        self.try_submit_within(command, epoch)
    }

    /// The same, for this epoch of [`crate::LeaderWatch::epoch`] only: the command is in a block of that very term or in
    /// none. So of several commands that depend on their order, handed in within one epoch, none is in the log without
    /// those before it, although a node may lose the leadership with some of them in blocks and win it again with
    /// the others still waiting.
    ///
    /// # Errors
    /// [`SubmitError`] with the command.
    pub fn try_submit_within(
        &mut self,
        command: M::Command,
        epoch: u64,
    ) -> Result<(), SubmitError<M::Command>> {
        let queued = self.try_queue_within(command, epoch);
        self.bell.ring();
        queued
    }

    /// The same without waking the sequencer, for a producer that hands in several at a time: a sequencer that sleeps looks at
    /// none of them before [`Submitter::wake`], which must follow.
    ///
    /// # Errors
    /// [`SubmitError`] with the command.
    pub fn try_queue_within(
        &mut self,
        command: M::Command,
        epoch: u64,
    ) -> Result<(), SubmitError<M::Command>> {
        self.buffer.clear();
        let bytes = push_command(&mut self.buffer, |out| M::encode(&command, out)) - 4;
        let limit = self.command_bytes_max;
        if bytes > limit {
            self.buffer = Vec::new();
            return Err(SubmitError::TooLarge { command, bytes, limit });
        }
        if self.board.epoch() != Some(epoch) {
            return Err(self.not_led(command));
        }
        if !self.door.enter() {
            self.door.refuse();
            self.door.leave();
            // A shutdown may have found this thread in the door.
            self.bell.ring();
            return Err(SubmitError::Closed(command));
        }
        let arrived = self.sampler.next();
        let (buffer, mut command) = (&mut self.buffer, Some(command));
        let filled = self.ring.try_publish(|slot| {
            // The ring says that nobody else has it.
            let slot = slot.get_mut().unwrap_or_else(PoisonError::into_inner);
            slot.bytes = buffer.len();
            match slot.framed.get_mut(..buffer.len()) {
                Some(room) => room.copy_from_slice(buffer),
                None => slot.long = std::mem::take(buffer),
            }
            slot.command = command.take();
            slot.epoch = epoch;
            slot.arrived = arrived;
        });
        if filled.is_err() {
            self.door.refuse();
        }
        self.door.leave();
        match (filled, command) {
            (Err(_), Some(command)) => Err(SubmitError::Full(command)),
            _ => Ok(()),
        }
    }

    /// Hands a command in where it will stand, to a sequencer that this very thread steps: past ring and door, because nobody else
    /// can come in between.
    #[inline]
    pub(crate) fn put_into(
        &mut self,
        pending: &mut Pending<M::Command>,
        command: M::Command,
        epoch: u64,
    ) -> Result<(), SubmitError<M::Command>> {
        if self.board.epoch() != Some(epoch) {
            return Err(self.not_led(command));
        }
        if self.door.is_closed() {
            return Err(SubmitError::Closed(command));
        }
        // As many as could wait in the ring.
        if pending.len() >= self.slots {
            return Err(SubmitError::Full(command));
        }
        let (arrived, limit) = (self.sampler.next(), self.command_bytes_max);
        let put = pending.put(command, epoch, arrived, limit, |command, out| M::encode(command, out));
        put.map_err(|(command, bytes)| SubmitError::TooLarge { command, bytes, limit })
    }

    fn not_led(&self, command: M::Command) -> SubmitError<M::Command> {
        if self.door.is_closed() { SubmitError::Closed(command) } else { SubmitError::NotLeader(command) }
    }

    /// Wakes the sequencer for what was queued.
    pub fn wake(&self) {
        self.bell.ring();
    }
}

/// The sequencer's end of the ring.
pub(crate) struct Inbound<C> {
    poller: EventPoller<Slot<C>, MultiProducerBarrier>,
}

/// A new ring of `slots` (a power of two, at least 64).
pub(crate) fn inbound<M: Machine>(
    slots: usize,
    command_bytes_max: usize,
    door: Arc<Door>,
    board: Arc<Board>,
    bell: Arc<Doorbell>,
    clocks: &Arc<Clocks>,
) -> (Submitter<M>, Inbound<M::Command>) {
    let empty = || {
        let framed = [0; COMMAND_BYTES];
        Mutex::new(Filled { bytes: 0, framed, long: Vec::new(), command: None, epoch: 0, arrived: None })
    };
    let (poller, builder) =
        disruptor::build_multi_producer(slots, empty, disruptor::BusySpin).new_event_poller();
    let sampler = clocks.sampler();
    let submitter = Submitter {
        ring: builder.build(),
        door,
        board,
        bell,
        buffer: Vec::new(),
        command_bytes_max,
        slots,
        sampler,
    };
    (submitter, Inbound { poller })
}

impl<C: Send + 'static> Inbound<C> {
    /// True when a command is ready.
    pub(crate) fn has_some(&self) -> bool {
        self.poller.has_available()
    }

    /// Takes all that is ready and gives each to `take`; returns how many.
    pub(crate) fn drain(&mut self, mut take: impl FnMut(Taken<'_, C>)) -> usize {
        let mut ready = match self.poller.poll() {
            Ok(ready) => ready,
            Err(Polling::NoEvents | Polling::Shutdown) => return 0,
        };
        let mut taken = 0;
        for slot in &mut ready {
            let mut slot = open(slot);
            let command = slot.command.take().expect("a published slot holds a command");
            let (epoch, arrived) = (slot.epoch, slot.arrived);
            match slot.framed.get(..slot.bytes) {
                Some(framed) => take(Taken { command, framed, epoch, arrived }),
                None => take(Taken { command, framed: &std::mem::take(&mut slot.long), epoch, arrived }),
            }
            taken += 1;
        }
        taken
    }
}
