//! A stream with the state it starts from and the outcome that every run of it must have.

use grid_engine::command::Entry;
use grid_engine::event::Event;
use grid_engine::{Ahead, Engine, Nanos, Seq};

use crate::flow::Flow;
use grid_harness::plain::{Call, Message, Tally};

/// Commands between two looks at what came of them, as a matcher publishes what it did in batches.
pub const BATCH: usize = 32;

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Matches.
    pub trades: u64,
    /// Events of all kinds.
    pub events: u64,
    /// Over the whole state.
    pub hash: u64,
}

/// A stream in plain form.
#[derive(Debug)]
pub struct Plain<T> {
    all: Vec<T>,
    opening: usize,
}

impl<T> Plain<T> {
    /// From the beginning of the venue.
    #[must_use]
    pub fn all(&self) -> &[T] {
        &self.all
    }

    /// What makes the state that the stream starts from.
    #[must_use]
    pub fn opening(&self) -> &[T] {
        &self.all[..self.opening]
    }

    /// The stream itself.
    #[must_use]
    pub fn stream(&self) -> &[T] {
        &self.all[self.opening..]
    }
}

/// A stream to run as often as one likes.
#[derive(Debug)]
pub struct Tape {
    /// What it starts from.
    pub start: Engine,
    /// The last command that `start` has seen.
    pub seq: Seq,
    /// The commands.
    pub entries: Vec<Entry>,
    /// The same in plain form: what goes to order books.
    pub messages: Plain<Message>,
    /// And the steps of calls.
    pub calls: Plain<Call>,
    /// What all of them trade.
    pub tally: Tally,
    /// What a run must come to.
    pub outcome: Outcome,
    /// Orders that are open at the end.
    pub open: u64,
}

impl Tape {
    /// A flow as it stands now, and then what `make` does to it.
    ///
    /// # Panics
    /// When the state is broken afterwards, or does not follow from the commands alone.
    pub fn record(mut flow: Flow, make: impl FnOnce(&mut Flow)) -> Self {
        flow.venue_mut().clear_tape();
        let (start, seq) = (flow.venue().engine().clone(), flow.venue().seq());
        let (messages_before, calls_before) = (flow.messages().len(), flow.calls().len());
        let trades_before = flow.venue().trades();
        make(&mut flow);
        let (mut venue, messages, calls, tally) = flow.into_parts();
        let messages = Plain { all: messages, opening: messages_before };
        let calls = Plain { all: calls, opening: calls_before };
        let entries = venue.take_tape();
        let engine = venue.engine();
        engine.check_invariants().expect("the books balance after the stream");
        let open = engine.state().books.len() as u64;
        let outcome =
            Outcome { trades: venue.trades() - trades_before, events: 0, hash: engine.state_hash() };
        let mut tape = Self { start, seq, entries, messages, calls, tally, outcome, open };
        let mut run = tape.run();
        run.all();
        let again = run.outcome();
        assert_eq!(Outcome { events: 0, ..again }, tape.outcome, "the same commands come to the same state");
        tape.outcome = again;
        tape
    }

    /// A run from the start.
    #[must_use]
    pub fn run(&self) -> Run<'_> {
        Run {
            engine: self.start.clone(),
            seq: self.seq,
            left: &self.entries,
            events: Vec::with_capacity(16 * BATCH),
            trades: 0,
            told: 0,
            ahead: true,
        }
    }
}

/// One run of a tape.
#[derive(Debug)]
pub struct Run<'a> {
    engine: Engine,
    seq: Seq,
    left: &'a [Entry],
    events: Vec<Event>,
    trades: u64,
    told: u64,
    ahead: bool,
}

impl Run<'_> {
    /// Without a look at the commands that come next.
    #[must_use]
    pub fn without_look_ahead(self) -> Self {
        Self { ahead: false, ..self }
    }

    /// The next `count` commands, or fewer if there are no more, in batches.
    pub fn some(&mut self, count: usize) {
        let (now, left) = self.left.split_at(count.min(self.left.len()));
        self.left = left;
        for (nth, batch) in now.chunks(BATCH).enumerate() {
            let looks_ahead = self.ahead && self.engine.looks_ahead();
            for (at, entry) in (nth * BATCH..).zip(batch) {
                if looks_ahead {
                    // What the ring has handed over is known before its turn comes.
                    for (step, ahead) in Ahead::STEPS {
                        if let Some(later) = now.get(at + ahead) {
                            self.engine.prefetch(later, step);
                        }
                    }
                }
                self.seq = self.seq.next();
                self.engine.apply(self.seq, Nanos(self.seq.0), entry, &mut self.events);
            }
            self.publish();
        }
    }

    /// All that is left.
    pub fn all(&mut self) {
        self.some(usize::MAX);
    }

    /// The next command alone; false if there is none.
    #[inline]
    pub fn one(&mut self) -> bool {
        let Some((entry, left)) = self.left.split_first() else { return false };
        self.left = left;
        self.seq = self.seq.next();
        self.engine.apply(self.seq, Nanos(self.seq.0), entry, &mut self.events);
        true
    }

    /// Whoever reads the events has done so.
    #[inline]
    pub fn publish(&mut self) {
        self.told += self.events.len() as u64;
        self.trades += self.events.iter().filter(|event| matches!(event, Event::Traded(_))).count() as u64;
        self.events.clear();
    }

    /// What it came to so far.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        Outcome { trades: self.trades, events: self.told, hash: self.engine.state_hash() }
    }

    /// As it stands.
    #[must_use]
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }
}
