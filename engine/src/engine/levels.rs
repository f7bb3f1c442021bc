//! Which price levels a command touched: an order that changes one alone tells of it itself; of several the market hears once each,
//! as they stand when the command is done.

use super::Step;
use crate::book::{Depth, Record};
use crate::command::Side;
use crate::event::{Event, LevelAfter, LevelUpdate};
use crate::ids::InstrumentId;
use crate::units::Price;

/// Where a level is.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) instrument: InstrumentId,
    pub(super) side: Side,
    pub(super) price: u32,
}

impl Place {
    /// Of an order.
    pub(super) fn of(record: &Record) -> Self {
        Self { instrument: InstrumentId(record.instrument), side: record.side(), price: record.price }
    }

    /// Sorts by instrument, side, price.
    const fn key(self) -> u64 {
        (self.instrument.0 as u64) << 33 | (self.side as u64) << 32 | self.price as u64
    }

    #[inline(always)]
    pub(super) fn told(self, depth: Depth) -> LevelUpdate {
        let Depth { qty, orders } = depth;
        LevelUpdate { price: Price(self.price.into()), qty, orders, side: self.side }
    }

    const fn of_key(key: u64) -> Self {
        let side = if key >> 32 & 1 == 0 { Side::Buy } else { Side::Sell };
        Self { instrument: InstrumentId((key >> 33) as u16), side, price: key as u32 }
    }
}

/// The levels that the command in progress has touched. They are put in order when all are known: to keep them so from the first on was
/// measured, and a mass cancel took a fifth more.
#[derive(Clone, Debug, Default)]
pub(crate) struct Touched(Vec<u64>);

impl Touched {
    /// True while the command has touched none.
    #[inline(always)]
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Once for runs of changes to the same one.
    #[inline]
    fn note(&mut self, key: u64) {
        if self.0.last() != Some(&key) {
            self.0.push(key);
        }
    }

    fn in_order(&mut self) {
        if self.0.len() > 1 {
            self.0.sort_unstable();
            self.0.dedup();
        }
    }
}

impl Step<'_> {
    /// Notes that a level changed.
    #[inline]
    pub(super) fn touch(&mut self, place: Place) {
        self.touched.note(place.key());
    }

    /// What the event of an order says of the one level that the command changes, where nothing else follows that could
    /// change it, as with a quote.
    #[inline(always)]
    pub(super) fn level<const QUOTE: bool>(&mut self, place: Place, depth: Depth) -> LevelAfter {
        if !QUOTE && self.touched.is_empty() {
            return LevelAfter::of(depth);
        }
        // Or something fell due before this command.
        self.touch(place);
        LevelAfter::APART
    }

    /// Tells the market each level that the command touched, once, as it stands now.
    pub(super) fn publish_levels(&mut self) {
        let mut touched = std::mem::take(self.touched);
        touched.in_order();
        for key in touched.0.drain(..) {
            let place = Place::of_key(key);
            let depth = self.state.books.depth(place.instrument, place.side, place.price);
            self.happened(|| Event::Level { instrument: place.instrument, level: place.told(depth) });
        }
        *self.touched = touched;
    }
}
