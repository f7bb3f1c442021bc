//! The last reports of a session, in a ring: keeping one more takes no memory and moves none.

use crate::event::Report;
use crate::limits::REPORTS_KEPT;
use crate::prefetch::ask_for;

/// The last [`REPORTS_KEPT`] reports.
///
/// Invariant: the report after the newest, `next`, is the oldest one once the ring is full.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Kept {
    ring: Vec<Report>,
    next: u32,
}

impl Kept {
    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.ring.len()
    }

    /// True while nothing was told.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Report> {
        let (newer, older) = self.ring.split_at((self.next as usize).min(self.ring.len()));
        older.iter().chain(newer)
    }

    /// Keeps one more; the oldest makes room when there are enough.
    #[inline(always)]
    pub(crate) fn keep(&mut self, report: Report) {
        match self.ring.get_mut(self.next as usize) {
            Some(place) => *place = report,
            None => self.grow(report),
        }
        self.next = if self.next as usize + 1 == REPORTS_KEPT { 0 } else { self.next + 1 };
    }

    #[cold]
    fn grow(&mut self, report: Report) {
        self.ring.push(report);
    }

    /// Asks for where the next reports will lie: the ring has long left the caches when it comes round.
    #[inline]
    pub(crate) fn ask_for_next(&self) {
        if let Some([first, second, ..]) = self.ring.get(self.next as usize..) {
            ask_for(first);
            ask_for(second);
        }
    }
}
