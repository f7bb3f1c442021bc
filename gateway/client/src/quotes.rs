//! Mass quotes: what is asked for, and how an answer finds the refusals that came before it.
//!
//! The venue tells each refused side in a report of its own and the answer last. After a break the answer may come first, from
//! the venue's state, and the refusals by retransmission; whoever asked is answered when both are there.

use std::collections::BTreeMap;
use std::sync::Arc;

use grid_wire::{MassQuote, MassQuoteReport, QuoteEntry, QuoteRefused};

/// What some quotes are to be from now on: of each its instrument and number, and what shall stand on both sides.
#[derive(Clone, Debug, PartialEq)]
pub struct Quotes {
    pub(crate) message: MassQuote,
    pub(crate) entries: Vec<QuoteEntry>,
}

impl Quotes {
    /// These, in any order, at most [`MAX_QUOTE_ENTRIES`](grid_wire::MAX_QUOTE_ENTRIES). `message` says how: post-only or not, what
    /// happens where the other order is the maker's own, and for how long the request may be under way.
    #[must_use]
    pub fn new(message: MassQuote, mut entries: Vec<QuoteEntry>) -> Self {
        entries.sort_by_key(|entry| (entry.instrument, entry.quote));
        Self { message, entries }
    }
}

/// An answer with the refusals that belong to it.
pub(crate) struct Whole {
    pub(crate) answer: MassQuoteReport,
    pub(crate) refusals: Arc<[QuoteRefused]>,
    /// Nobody was told of it before.
    pub(crate) new: bool,
}

/// Refusals whose answer has not come, and answers whose refusals have not.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    /// By the log sequence of their mass quote.
    told: BTreeMap<u64, Vec<QuoteRefused>>,
    held: Vec<(MassQuoteReport, bool)>,
}

impl Refusals {
    /// A refusal that was not told before.
    pub(crate) fn refused(&mut self, refusal: QuoteRefused) {
        self.told.entry(refusal.log_seq).or_default().push(refusal);
    }

    /// An answer; `new` where nobody was told of it before.
    pub(crate) fn answered(&mut self, answer: MassQuoteReport, new: bool) {
        if !self.held.iter().any(|(held, _)| held.session_seq == answer.session_seq) {
            self.held.push((answer, new));
        }
    }

    /// Whether an answer waits for its refusals.
    pub(crate) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// The next answer that waits for nothing more: its refusals are there, or all reports below its number have come or are lost.
    /// `wanted` is the lowest number that is still to come.
    pub(crate) fn next(&mut self, wanted: u64) -> Option<Whole> {
        let at = self.held.iter().position(|(answer, _)| {
            let told = self.told.get(&answer.log_seq).map_or(0, Vec::len);
            told >= usize::from(answer.refused) || wanted >= answer.session_seq
        })?;
        let (answer, new) = self.held.remove(at);
        let refusals = self.told.remove(&answer.log_seq).unwrap_or_default().into();
        if wanted >= answer.session_seq {
            // Nothing below is still to come, so nobody waits for what is left of earlier ones.
            self.told = self.told.split_off(&answer.log_seq);
        }
        Some(Whole { answer, refusals, new })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(log_seq: u64, session_seq: u64) -> QuoteRefused {
        QuoteRefused { log_seq, session_seq, ..QuoteRefused::default() }
    }

    fn answer(log_seq: u64, session_seq: u64, refused: u16) -> MassQuoteReport {
        MassQuoteReport { log_seq, session_seq, refused, ..MassQuoteReport::default() }
    }

    fn next(refusals: &mut Refusals, wanted: u64) -> Option<(u64, usize)> {
        refusals.next(wanted).map(|whole| (whole.answer.log_seq, whole.refusals.len()))
    }

    #[test]
    fn an_answer_waits_for_its_own_refusals_and_for_no_others() {
        let mut refusals = Refusals::default();
        refusals.refused(refusal(7, 3));
        refusals.answered(answer(7, 5, 2), true);
        refusals.answered(answer(8, 6, 0), true);
        assert_eq!(next(&mut refusals, 4), Some((8, 0)));
        assert_eq!(next(&mut refusals, 4), None);
        refusals.refused(refusal(7, 4));
        assert_eq!(next(&mut refusals, 1), Some((7, 2)));
        assert!(!refusals.holds() && refusals.told.is_empty());
    }

    #[test]
    fn what_is_lost_is_not_waited_for_and_nothing_is_left_of_it() {
        let mut refusals = Refusals::default();
        refusals.refused(refusal(6, 2));
        refusals.refused(refusal(7, 4));
        refusals.refused(refusal(9, 8));
        refusals.answered(answer(7, 5, 2), true);
        refusals.answered(answer(7, 5, 2), false);
        assert_eq!(next(&mut refusals, 3), None);
        assert_eq!(next(&mut refusals, 7), Some((7, 1)));
        assert!(!refusals.holds(), "the same answer once");
        assert_eq!(refusals.told.keys().copied().collect::<Vec<_>>(), [9], "its answer is still to come");
    }
}
