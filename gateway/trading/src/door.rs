//! The two things that this tier needs of the rest of the venue, and nothing more: a door through which every change
//! goes, and a view of the committed state. Tests put an engine of their own behind both.

use std::future::Future;
use std::pin::Pin;

use grid_engine::command::Command;
use grid_engine::{AccountId, Engine, Nanos, OrderId, Reject, Seq};

/// A future that a trait object can return.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The binary door (design §2.6).
pub trait Door: Send + Sync + 'static {
    /// Sends a command for an account and waits for its answer, which is given only after it is durable.
    fn submit(&self, account: AccountId, command: Command) -> Pending<'_, Result<Answer, DoorError>>;
}

/// What the venue answered to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Where the command stands in the log.
    pub seq: Seq,
    /// Its stamp.
    pub at: Nanos,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a command; only what this tier's own commands can come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An order was accepted, changed or cancelled.
    Order(OrderId),
    /// Refused.
    Rejected {
        /// Why.
        reject: Reject,
        /// The thing that stands in its way, where one does: for a duplicate label the earlier order.
        existing: OrderId,
    },
    /// A mass cancel is done.
    MassCancelled {
        /// How many orders were taken out.
        count: u32,
    },
    /// Done.
    Done {
        /// The number of what it made; 0 where it made nothing.
        created: u64,
    },
    /// Something that no command of this tier is answered with.
    Other,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DoorError {
    /// The door refused before the venue saw the command: too much at once. Safe to repeat.
    #[error("the venue is busy: {reason}")]
    Busy {
        /// What is full.
        reason: String,
    },
    /// The connection is down. Whether the command was applied is not known; a repeat with the same client order
    /// id is safe.
    #[error("the venue can't be reached: {reason}")]
    Unreachable {
        /// What happened.
        reason: String,
    },
}

/// The committed state, at a known place in the log.
pub trait View: Send + Sync + 'static {
    /// Lends the engine for a short read.
    fn read(&self, reader: &mut dyn FnMut(&Engine));
    /// The last command that it has applied.
    fn applied(&self) -> Seq;
    /// Where the last write stands that a client of this account has been told of by another tier of this node, once it
    /// stands somewhere.
    fn promised(&self, account: AccountId) -> Pending<'_, Seq>;
    /// Resolves once it has applied this one.
    fn wait_for(&self, seq: Seq) -> Pending<'_, ()>;
}

impl dyn View {
    /// What a closure makes of the engine.
    pub fn look<R>(&self, look: impl FnOnce(&Engine) -> R) -> R {
        let (mut look, mut result) = (Some(look), None);
        self.read(&mut |engine| {
            if let Some(look) = look.take() {
                result = Some(look(engine));
            }
        });
        result.expect("a view lends its engine exactly once")
    }
}
