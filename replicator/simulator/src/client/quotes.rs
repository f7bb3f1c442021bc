//! Mass quotes, some of them crossed, unfunded or out of order, and what protects them.

use grid_engine::command::{Command, QuoteEntry, QuoteProtection, QuoteSide};
use grid_engine::{InstrumentId, Nanos, Price, Qty, SECOND};

use super::{Client, Role};

impl Client {
    pub(super) fn quote(&mut self) -> Command {
        if self.dice.chance(1, 6) {
            let protection = QuoteProtection {
                window: Nanos(self.dice.below(20) * SECOND),
                fills: self.dice.below(4) as u32,
                qty: Qty(self.dice.below(60)),
            };
            return Command::SetQuoteProtection(self.dice.chance(4, 5).then_some(protection));
        }
        let mut entries = Vec::new();
        for instrument in [InstrumentId(0), InstrumentId(1)] {
            for quote in 1..=2 {
                if self.dice.chance(2, 3) {
                    entries.push(self.entry(instrument, quote));
                }
            }
        }
        if self.dice.chance(1, 40) {
            entries.reverse();
        }
        let (stp, post_only) = (self.stp(), self.dice.chance(1, 3));
        Command::MassQuote { entries: entries.into(), stp, post_only }
    }

    fn entry(&mut self, instrument: InstrumentId, quote: u8) -> QuoteEntry {
        let mut side =
            |from, to| QuoteSide { price: Price(self.dice.between(from, to)), qty: Qty(self.dice.below(20)) };
        let (mut bid, ask) = (side(90, 100), side(99, 110));
        // As for its other orders.
        if self.role == Role::Supplier {
            bid.qty = Qty(0);
        }
        QuoteEntry { instrument, quote, bid, ask }
    }
}
