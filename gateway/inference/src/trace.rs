//! How a call was routed, written down only for an operator who asked to see it.

use std::fmt::Write as _;
use std::sync::Arc;

use grid_engine::AccountId;
use parking_lot::Mutex;

/// The notes of one call; empty ones cost nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace(Option<Arc<Mutex<String>>>);

impl Trace {
    /// Notes that somebody will read.
    pub(crate) fn on() -> Self {
        Self(Some(Arc::default()))
    }

    /// The order in which suppliers are tried, and why.
    pub(crate) fn note(&self, order: &str) {
        if let Some(notes) = &self.0 {
            let _ = write!(notes.lock(), "order: {order}");
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
