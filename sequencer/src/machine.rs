//! What the log drives: any deterministic state machine. The sequencer numbers, stamps, journals and replays commands
//! without knowing what one means, so the same code runs the engine, a test's toy and, later, the cluster simulator.

use std::fmt;

use grid_engine::{Ahead, Command, Engine, Entry, Event, Nanos, Seq};

/// Bytes that a machine cannot read back: a command of the log, or a snapshot body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub String);

/// A pure function of (state, command, stamped time): equal logs give equal states, events and hashes.
///
/// Implementations use no clock, chance, thread, file or unordered iteration (design §2.2).
pub trait Machine: Send + Sync + Sized + 'static {
    /// One input, as producers hand it in.
    type Command: Send + Sync + fmt::Debug + 'static;
    /// One output of applying a command.
    type Event: Send + Sync + Clone + PartialEq + fmt::Debug + 'static;

    /// Version of the command and snapshot coding; files that carry another one are refused. Once there is a
    /// release, a change needs a reader of the format that it had.
    const FORMAT: u32;

    /// Appends the log form of a command to `out`, which need not be empty.
    fn encode(command: &Self::Command, out: &mut Vec<u8>);

    /// Reads a command back from its log form.
    ///
    /// # Errors
    /// [`Unreadable`] for bytes that `encode` never wrote.
    fn decode(bytes: &[u8]) -> Result<Self::Command, Unreadable>;

    /// Applies the command at position `seq`, stamped `at`, and appends its events to `out`.
    fn apply(&mut self, seq: Seq, at: Nanos, command: &Self::Command, out: &mut Vec<Self::Event>);

    /// Whether [`Machine::prefetch`] is worth its time just now; asked once for a block or so.
    fn looks_ahead(&self) -> bool {
        false
    }

    /// A hint that this command is applied soon: brings what it will touch nearer to the processor. Changes nothing that anyone
    /// could tell, and is not given for every command.
    fn prefetch(&self, command: &Self::Command, ahead: Ahead) {
        let _ = (command, ahead);
    }

    /// Appends an event's bytes to `out`, equal for equal events; nodes compare hashes over them. Nothing reads them back.
    fn encode_event(event: &Self::Event, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("{event:?}").as_bytes());
    }

    /// When a tick is next due; `None` while nothing waits for time to pass.
    fn next_deadline(&self) -> Option<Nanos>;

    /// The command that lets due timers fire: time is an input like any other.
    fn tick() -> Self::Command;

    /// The whole state as bytes.
    fn snapshot(&self) -> Vec<u8>;

    /// The state that `snapshot` wrote.
    ///
    /// # Errors
    /// [`Unreadable`] for bytes that are no snapshot, or one of a newer version.
    fn restore(bytes: &[u8]) -> Result<Self, Unreadable>;

    /// A hash over the whole state, equal on every machine that applied the same log.
    fn state_hash(&self) -> u64;
}

/// Tells a machine what comes, some commands before it does: far enough ahead for memory to answer meanwhile, near enough for
/// the caches to keep what came.
#[derive(Clone, Debug)]
pub struct LookAhead<I> {
    steps: Option<[(Ahead, I); Ahead::STEPS.len()]>,
}

impl<'a, I, C: 'a> LookAhead<I>
where
    I: Iterator<Item = &'a C> + Clone,
{
    /// Over commands that are to be applied one after the other, the next one first.
    #[must_use]
    pub fn over<M: Machine<Command = C>>(commands: I, machine: &M) -> Self {
        let skipped = |count: usize| {
            let mut later = commands.clone();
            if let Some(last) = count.checked_sub(1) {
                later.nth(last);
            }
            later
        };
        let steps = || Ahead::STEPS.map(|(step, count)| (step, skipped(count)));
        Self { steps: machine.looks_ahead().then(steps) }
    }

    /// Another command is about to be applied.
    #[inline]
    pub fn advance<M: Machine<Command = C>>(&mut self, machine: &M) {
        for (ahead, later) in self.steps.iter_mut().flatten() {
            if let Some(command) = later.next() {
                machine.prefetch(command, *ahead);
            }
        }
    }
}

/// The venue's machine. The only place in this crate that names the engine, and it looks at nothing inside a command.
impl Machine for Engine {
    type Command = Entry;
    type Event = Event;

    /// In format 1, of a day before the first release, an order's id was its command's place in the log; in format 2 a
    /// reservation did not say who called, nor a settlement which model served; in format 3 the asks of a suspended
    /// supplier stayed in the book; in format 4 sessions had no quotes; in format 5 the report of what happened to an order
    /// was an event of its own; in format 6 new quotes of one command took room from each other that none of them had yet; in
    /// format 7 a holding kept its tranches behind its tokens.
    const FORMAT: u32 = 8;

    fn encode(command: &Entry, out: &mut Vec<u8>) {
        command.encode(out);
    }

    fn decode(bytes: &[u8]) -> Result<Entry, Unreadable> {
        Entry::decode(bytes).map_err(|error| Unreadable(error.to_string()))
    }

    fn apply(&mut self, seq: Seq, at: Nanos, command: &Entry, out: &mut Vec<Event>) {
        Self::apply(self, seq, at, command, out);
    }

    fn looks_ahead(&self) -> bool {
        Self::looks_ahead(self)
    }

    fn prefetch(&self, command: &Entry, ahead: Ahead) {
        Self::prefetch(self, command, ahead);
    }

    fn encode_event(event: &Event, out: &mut Vec<u8>) {
        event.encode(out);
    }

    fn next_deadline(&self) -> Option<Nanos> {
        Self::next_deadline(self)
    }

    fn tick() -> Entry {
        Entry::venue(Command::Tick)
    }

    fn snapshot(&self) -> Vec<u8> {
        Self::snapshot(self)
    }

    fn restore(bytes: &[u8]) -> Result<Self, Unreadable> {
        Self::restore(bytes).map_err(|error| Unreadable(error.to_string()))
    }

    fn state_hash(&self) -> u64 {
        Self::state_hash(self)
    }
}
