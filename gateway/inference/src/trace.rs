//! How a call was routed, written down only for an operator who asked to see it.

use std::fmt::Write as _;
use std::sync::Arc;

use grid_engine::AccountId;
use parking_lot::Mutex;

use crate::choice::Why;

/// The notes of one call; empty ones cost nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace(Option<Arc<Mutex<String>>>);

impl Trace {
    /// Notes that somebody will read.
    pub(crate) fn on() -> Self {
        Self(Some(Arc::default()))
    }

    /// What put the first supplier first, and the order in which they are tried.
    pub(crate) fn note(&self, why: Why, order: &str) {
        if let Some(notes) = &self.0 {
            let _ = write!(notes.lock(), "by {}: {order}", why.word());
        }
    }

    /// What came of an attempt.
    pub(crate) fn attempt(&self, supplier: AccountId, outcome: &str) {
        if let Some(notes) = &self.0 {
            let _ = write!(notes.lock(), "; {}: {outcome}", supplier.0);
        }
    }

    /// The notes so far.
    pub(crate) fn read(&self) -> Option<String> {
        self.0.as_ref().map(|notes| notes.lock().clone())
    }
}
