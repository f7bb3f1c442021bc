//! Applies commands.

use crate::command::Entry;
use crate::event::Event;
use crate::state::State;
use crate::units::{Nanos, Seq};

/// The state of the venue and the only way to change it.
#[derive(Clone, Debug, Default)]
pub struct Engine {
    state: State,
}

/// A broken invariant, in words: a fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub String);

/// Why bytes are not a snapshot of the engine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The checked reader refused them.
    #[error("not an engine snapshot: {reason}")]
    Malformed {
        /// What it found.
        reason: String,
    },
}

impl Engine {
    /// An empty venue; its log begins with `Command::Genesis`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything, to read.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Applies one command of the log: first whatever fell due by `at`, then the command itself.
    pub fn apply(&mut self, seq: Seq, at: Nanos, entry: &Entry, events: &mut Vec<Event>) {
        let _ = (seq, at, entry, events);
    }

    /// When the next timer falls due, if any: by then the log needs a command, a `Tick` if nothing else comes.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.state.timers.first().map(|&(at, _)| at)
    }

    /// The state as snapshot bytes.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        rkyv::to_bytes::<rkyv::rancor::Error>(&self.state)
            .expect("plain data always has a snapshot")
            .to_vec()
    }

    /// The engine that a snapshot was taken of.
    pub fn restore(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let state = rkyv::from_bytes::<State, rkyv::rancor::Error>(bytes).map_err(|error| {
            SnapshotError::Malformed {
                reason: error.to_string(),
            }
        })?;
        Ok(Self { state })
    }

    /// A hash over the whole state, equal on every replica at the same log sequence.
    #[must_use]
    pub fn state_hash(&self) -> u64 {
        use std::hash::{Hash, Hasher};
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        self.state.hash(&mut hasher);
        hasher.finish()
    }
}
