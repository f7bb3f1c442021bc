//! What is known of an account's money besides its balance: what it paid, what it was given, and its reloads.

use rkyv::{Archive, Deserialize as Thaw, Serialize as Freeze};

use super::{Account, State};
use crate::funding::{AccountTerms, AutoReload, PaymentMethod, PaymentSource, ReloadFailure};
use crate::ids::AccountId;
use crate::units::{DAY, Nanos, Usd};

/// Of one account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
pub struct Funding {
    /// Paid in so far: deposits and reloads; stops counting at `i64::MAX`.
    pub paid: Usd,
    /// Given so far, in credits; stops counting at `i64::MAX`.
    pub credited: Usd,
    /// It has had its sign-up credit.
    pub signed_up: bool,
    /// The UTC day, counted from 1970-01-01, of `calls_today`.
    pub day: u64,
    /// Calls begun on that day, counted only while the terms limit them.
    pub calls_today: u32,
    /// The owner's settings.
    pub auto_reload: AutoReload,
    /// What is charged; without it, the line of credit is used.
    pub method: Option<PaymentMethod>,
    /// How much the operator lends it through reloads.
    pub credit_line: Usd,
    /// How much of that it owes.
    pub credit_used: Usd,
    /// The reload that is under way.
    pub pending: Option<Box<Reload>>,
    /// Why none is begun: the last one failed, and nobody has changed anything since.
    pub stopped: Option<ReloadFailure>,
    /// The UTC month of `reloaded`, see [`Nanos::month`].
    pub month: u32,
    /// Reloads of that month, by when they fell due, the one under way included.
    pub reloaded: Usd,
    /// When the month ends whose limit keeps a reload from being begun.
    pub waits_until: Option<Nanos>,
}

/// A reload under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
pub struct Reload {
    /// Reloads' own number, counted from 1 over the whole venue.
    pub number: u64,
    /// How much is asked for.
    pub amount: Usd,
    /// When it fell due.
    pub due_at: Nanos,
    /// Who is asked.
    pub source: PaymentSource,
}

/// How many calls an account may still begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Calls per UTC day, where they are limited.
    pub per_day: Option<u32>,
    /// Begun today.
    pub today: u32,
    /// Calls at once, where they are limited.
    pub at_once: Option<u32>,
    /// In progress.
    pub open: u32,
}

impl State {
    /// What the terms allow an account at `now`.
    #[must_use]
    pub fn allowance(&self, account: AccountId, now: Nanos) -> Option<Allowance> {
        self.account(account).map(|account| account.allowance(&self.terms, now))
    }
}

impl Account {
    /// What the terms allow it at `now`.
    #[must_use]
    pub fn allowance(&self, terms: &AccountTerms, now: Nanos) -> Allowance {
        let Funding { paid, day, calls_today, .. } = self.funding;
        let growth = match (paid.is_zero(), terms.paid_per_call_at_once.0) {
            (true, _) => Some(0),
            (false, 0) => None,
            (false, each) => Some(u32::try_from(paid.0 / each).unwrap_or(u32::MAX)),
        };
        let limited = |limit: u32| (limit > 0).then_some(limit);
        Allowance {
            per_day: limited(terms.free_calls_per_day).filter(|_| paid.is_zero()),
            today: if day == now.0 / DAY { calls_today } else { 0 },
            at_once: limited(terms.free_at_once)
                .and_then(|free| growth.map(|growth| free.saturating_add(growth))),
            open: self.open_calls,
        }
    }

    /// Whether a shortage of dollars would begin a reload.
    #[must_use]
    pub fn may_reload(&self) -> bool {
        let Funding { auto_reload, pending, stopped, .. } = &self.funding;
        auto_reload.enabled && pending.is_none() && stopped.is_none()
    }
}
