//! Who can be asked for money, and what can come of it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use grid_engine::funding::PaymentSource;
use grid_engine::{AccountId, Nanos, Usd};

/// An answer that is still to come.
pub type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Whoever can be asked.
pub trait Provider: fmt::Debug + Send + Sync + 'static {
    /// Asks for the money. Asked again under the same key, a provider charges nothing more and answers as before.
    fn charge(&self, charge: Charge) -> Pending<Outcome>;
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// Names the reload among all that ever were, of this venue and of others.
    pub key: String,
    /// Reloads' own number.
    pub reload: u64,
    /// Whose.
    pub account: AccountId,
    /// How much.
    pub amount: Usd,
    /// Who is charged.
    pub source: PaymentSource,
    /// Since when, in log time.
    pub due_at: Nanos,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The money is there.
    Paid {
        /// How much: no more than was asked for.
        amount: Usd,
    },
    /// No, and asking again would not help.
    Declined {
        /// Why, for the operator's log.
        why: String,
    },
    /// Nobody can say yet.
    Again {
        /// Why, for the operator's log.
        why: String,
        /// No sooner than this.
        after: Option<Duration>,
    },
}
