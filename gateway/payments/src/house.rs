//! The venue's own lines of credit: the operator grants one, reloads draw on it, and what is owed is engine state.
//!
//! Nothing is kept here, so nothing can be charged twice: the engine adds to what is owed with the same command that mints
//! the dollars, and refuses what the line has no room for.

use std::sync::Arc;

use grid_engine::Usd;

use crate::provider::{Charge, Outcome, Pending, Provider};
use crate::worker::{Venue, look};

/// Lends what lines of credit have room for.
#[derive(Clone)]
pub struct House {
    venue: Arc<dyn Venue>,
}

impl House {
    /// Lines of credit as this venue shows them.
    #[must_use]
    pub fn new(venue: Arc<dyn Venue>) -> Self {
        Self { venue }
    }
}

impl std::fmt::Debug for House {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("House").finish_non_exhaustive()
    }
}

impl Provider for House {
    fn charge(&self, charge: Charge) -> Pending<Outcome> {
        let room = look(&*self.venue, |state| {
            let funding = state.account(charge.account).map(|account| &account.funding);
            funding.map_or(Usd::ZERO, |funding| {
                funding.credit_line.checked_sub(funding.credit_used).unwrap_or(Usd::ZERO)
            })
        });
        let outcome = if charge.amount <= room {
            Outcome::Paid { amount: charge.amount }
        } else {
            Outcome::Declined { why: format!("the line of credit has room for ${room}") }
        };
        Box::pin(std::future::ready(outcome))
    }
}
