//! What the tier needs of the venue: four commands, and sight of a replica's state.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use grid_engine::command::Surface;
use grid_engine::sla::Fault;
use grid_engine::state::State;
use grid_engine::{AccountId, InstrumentId, KeyId, Nanos, Qty, Reject, ReservationId, Seq, Tokens, Usd};
use grid_replicator::Promises;
use tokio::sync::watch;

/// An answer of the venue that is still to come.
pub type Pending<T> = Pin<Box<dyn Future<Output = Result<T, DoorError>> + Send>>;

/// The way into the log. Each call is one command; the implementation resends under the same number when its
/// connection breaks, so that a command is executed at most once.
pub trait Door: Send + Sync + 'static {
    /// Sets tokens aside.
    fn reserve(&self, wanted: Wanted) -> Pending<Reserved>;

    /// Turns a reservation into a usage record.
    fn settle(
        &self,
        account: AccountId,
        reservation: ReservationId,
        usage: grid_engine::command::Usage,
    ) -> Pending<Ended>;

    /// Tells that an attempt at a supplier failed.
    fn report_fault(&self, instrument: InstrumentId, supplier: AccountId, fault: Fault) -> Pending<()>;

    /// Tells what came of a probe of a supplier.
    fn report_probe(&self, instrument: InstrumentId, supplier: AccountId, passed: bool) -> Pending<()>;

    /// Gives a reservation back.
    fn release(&self, account: AccountId, reservation: ReservationId, supplier: AccountId) -> Pending<Ended>;
}

/// Tokens to be set aside for one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Who pays.
    pub account: AccountId,
    /// The consumption key that the call came with, or none.
    pub key: KeyId,
    /// Of what.
    pub instrument: InstrumentId,
    /// Upper bound of what the call may use.
    pub tokens: Tokens,
    /// The call's handle.
    pub request: u128,
    /// Where the call came in.
    pub surface: Surface,
    /// How long the reservation lives by itself.
    pub valid_for: Nanos,
}

/// A reservation as answered by the venue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// Its id.
    pub reservation: ReservationId,
    /// How many tokens.
    pub tokens: Tokens,
    /// Units that Auto Mode bought for it.
    pub bought: Qty,
    /// What it paid for them.
    pub spent: Usd,
    /// Who issued the tokens, in the order of the draws.
    pub issuers: Vec<AccountId>,
}

/// How a reservation ended, and where in the log: a replica that has passed that position shows what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By this very word.
    Now(Seq),
    /// Before this position: by an earlier word whose answer was lost, or by itself.
    Before(Seq),
}

/// Why the venue did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DoorError {
    /// It said no.
    #[error("refused: {0}")]
    Rejected(Reject),
    /// It could not be reached: the command was not done, and never will be.
    #[error("the venue is out of reach: {0}")]
    Unavailable(String),
    /// Its answer was lost: the command may have been done.
    #[error("the venue did not answer: {0}")]
    Unanswered(String),
}

/// Sight of the venue's state at some recent moment of the log.
pub trait Directory: Send + Sync + 'static {
    /// Runs `look` on the state. It holds a lock meanwhile, so `look` is short.
    fn look(&self, look: &mut dyn FnMut(&State));

    /// Changes whenever a supplier's standing or offers have, or the directory; asked for once by whoever follows them.
    fn news(&self) -> watch::Receiver<()>;

    /// What clients have been told of before the log has answered.
    fn promises(&self) -> &Promises;

    /// Resolves once the state has passed this position of the log, or never will.
    fn reach(&self, seq: Seq) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

impl dyn Directory {
    /// Waits until `read` shows all that this account has been told of.
    pub(crate) async fn caught_up(&self, account: AccountId) {
        let seq = self.promises().settled(account.0.into()).await;
        self.reach(seq).await;
    }

    /// What `read` finds in the state.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        let (mut read, mut found) = (Some(read), None);
        self.look(&mut |state| found = read.take().map(|read| read(state)));
        found.expect("a directory shows its state exactly once")
    }
}

/// The venue as the tier sees it.
#[derive(Clone)]
pub struct Deps {
    /// Changes state.
    pub door: Arc<dyn Door>,
    /// Reads it.
    pub directory: Arc<dyn Directory>,
    /// Remembers calls that are over; without it there are no receipts.
    pub history: Option<grid_history::History>,
}

impl fmt::Debug for Deps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deps").finish_non_exhaustive()
    }
}
