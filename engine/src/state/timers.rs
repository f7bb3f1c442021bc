//! What falls due when, with the earliest moment at hand: nearly every command finds nothing due, and that takes one comparison.

use std::collections::BTreeSet;
use std::ops::Deref;

use rkyv::with::Skip;
use rkyv::{Archive, Deserialize as Thaw, Serialize as Freeze};

use super::Timer;
use super::derived::Derived;
use crate::units::Nanos;

/// What falls due besides reservations, earliest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
pub struct Timers {
    set: BTreeSet<(Nanos, Timer)>,
    /// Nothing falls due before; what was taken out may have left it too early, never too late.
    #[rkyv(with = Skip)]
    quiet_until: Derived<Nanos>,
}

impl Timers {
    /// False when nothing is due by then, for certain.
    #[inline]
    pub(crate) fn may_be_due(&self, at: Nanos) -> bool {
        self.quiet_until.0 <= at
    }

    /// Whoever has done all that was due says so.
    pub(crate) fn settle(&mut self) {
        self.quiet_until.0 = self.set.first().map_or(Nanos(u64::MAX), |&(due, _)| due);
    }

    pub(crate) fn insert(&mut self, timer: (Nanos, Timer)) {
        self.quiet_until.0 = self.quiet_until.0.min(timer.0);
        self.set.insert(timer);
    }

    pub(crate) fn remove(&mut self, timer: &(Nanos, Timer)) {
        self.set.remove(timer);
    }

    pub(crate) fn pop_first(&mut self) -> Option<(Nanos, Timer)> {
        self.set.pop_first()
    }
}

impl Deref for Timers {
    type Target = BTreeSet<(Nanos, Timer)>;

    fn deref(&self) -> &Self::Target {
        &self.set
    }
}
