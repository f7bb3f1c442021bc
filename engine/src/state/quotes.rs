//! What sessions quote: which orders stand for which of their numbers, and what pulls them.

#![allow(
    missing_docs,
    reason = "rkyv derives public resolvers whose fields it can't document; every item here is"
)]

use rkyv::{Archive, Deserialize as Thaw, Serialize as Freeze};

use crate::command::{QuoteProtection, Side};
use crate::ids::{InstrumentId, OrderId};
use crate::units::{Nanos, Qty};

/// The quotes of a session.
///
/// Invariants: in ascending order of instrument and number. An order that is named here and open is of this session and its
/// account, and carries the number. One that was filled or cancelled meanwhile is simply not open any more: nobody looks for
/// its quote when an order ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
pub struct Quotes(Vec<Quote>);

/// A pair of orders that a maker moves together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
pub struct Quote {
    /// Where.
    pub instrument: InstrumentId,
    /// The maker's number for it.
    pub number: u8,
    /// The last order that stood for its bid, or 0.
    pub bid: OrderId,
    /// The last order that stood for its ask, or 0.
    pub ask: OrderId,
}

impl Quote {
    /// The order of a side.
    #[must_use]
    pub const fn side(&self, side: Side) -> OrderId {
        match side {
            Side::Buy => self.bid,
            Side::Sell => self.ask,
        }
    }

    /// True when no order was ever named, or none any more.
    #[must_use]
    pub const fn is_blank(&self) -> bool {
        self.bid.0 == 0 && self.ask.0 == 0
    }

    pub(crate) const fn side_mut(&mut self, side: Side) -> &mut OrderId {
        match side {
            Side::Buy => &mut self.bid,
            Side::Sell => &mut self.ask,
        }
    }
}

impl Quotes {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Quote> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// True when there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The place of a quote, or where it would belong. Looks first at `guess`: makers name them in order.
    pub(crate) fn find(&self, instrument: InstrumentId, number: u8, guess: usize) -> Result<usize, usize> {
        let key = |quote: &Quote| (quote.instrument, quote.number);
        match self.0.get(guess) {
            Some(quote) if key(quote) == (instrument, number) => Ok(guess),
            _ => self.0.binary_search_by_key(&(instrument, number), key),
        }
    }

    /// Makes room for a quote of which nothing stands yet.
    pub(crate) fn insert(&mut self, place: usize, instrument: InstrumentId, number: u8) {
        self.0.insert(place, Quote { instrument, number, bid: OrderId::default(), ask: OrderId::default() });
    }

    pub(crate) fn at(&self, place: usize) -> &Quote {
        &self.0[place]
    }

    pub(crate) fn at_mut(&mut self, place: usize) -> &mut Quote {
        &mut self.0[place]
    }

    pub(crate) fn remove(&mut self, place: usize) {
        self.0.remove(place);
    }

    /// Drops all others.
    pub(crate) fn retain(&mut self, which: impl FnMut(&Quote) -> bool) {
        self.0.retain(which);
    }

    /// Forgets all, and keeps the room.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// When a session's quotes are pulled, and how near that is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
pub struct QuoteGuard {
    /// What pulls them; `None` for nothing.
    pub protection: Option<QuoteProtection>,
    /// They were pulled, and nothing may be quoted until the protection is set anew.
    pub pulled: bool,
    /// When the window began that is being counted.
    pub began: Nanos,
    /// Fills in it.
    pub fills: u32,
    /// Units filled in it.
    pub filled: Qty,
}

impl QuoteGuard {
    /// Counts a fill; true when it is the one that has the quotes pulled.
    pub(crate) fn count(&mut self, at: Nanos, qty: Qty) -> bool {
        let Some(protection) = self.protection.filter(|_| !self.pulled) else {
            return false;
        };
        if self.fills == 0 || at.0 - self.began.0 >= protection.window.0 {
            (self.began, self.fills, self.filled) = (at, 0, Qty::ZERO);
        }
        self.fills += 1;
        self.filled = Qty(self.filled.0.saturating_add(qty.0));
        let reached = |limit: u64, count: u64| limit != 0 && count >= limit;
        self.pulled =
            reached(protection.fills.into(), self.fills.into()) || reached(protection.qty.0, self.filled.0);
        self.pulled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_count_within_a_window_that_begins_with_the_first_and_whichever_limit_comes_first_pulls() {
        let by = |fills, qty| QuoteGuard {
            protection: Some(QuoteProtection { window: Nanos(100), fills, qty: Qty(qty) }),
            ..QuoteGuard::default()
        };
        let table = [
            // fills, Units; the fills as (at, Units); the one that pulls, from 1
            (3, 0, &[(10, 5), (20, 5), (109, 5), (110, 5)][..], Some(3)),
            (3, 0, &[(10, 5), (20, 5), (110, 5), (111, 5), (209, 1)], Some(5)),
            (0, 10, &[(10, 9), (20, 1)], Some(2)),
            (0, 10, &[(10, 9), (110, 9), (211, 9)], None),
            (2, 10, &[(10, 10)], Some(1)),
            (2, 10, &[(10, 1), (11, 1), (12, 100)], Some(2)),
            (0, 0, &[(10, u64::MAX), (11, u64::MAX)], None),
        ];
        for (fills, qty, told, pulls) in table {
            let mut guard = by(fills, qty);
            let pulled: Vec<_> = told.iter().map(|&(at, qty)| guard.count(Nanos(at), Qty(qty))).collect();
            let first = pulled.iter().position(|pulled| *pulled).map(|nth| nth + 1);
            assert_eq!(first, pulls, "{fills} fills, {qty} Units: {told:?}");
            assert_eq!(pulled.iter().filter(|pulled| **pulled).count(), usize::from(pulls.is_some()), "once");
        }
        assert!(!QuoteGuard::default().count(Nanos(1), Qty(1)), "nothing is set");
    }
}
