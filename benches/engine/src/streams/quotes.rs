//! Makers that move all their quotes whenever a book's middle moves: by one mass quote each, or order by order.

use grid_engine::InstrumentId;
use grid_engine::command::{QuoteEntry, QuoteSide, Side, TimeInForce};
use grid_engine::{Price, Qty};

use crate::dice::Dice;
use crate::flow::{Flow, Wanted};
use crate::tape::Tape;
use crate::venue::Setup;

const BOOKS: u16 = 9;
const MAKERS: u32 = 5;
const LEVELS: u32 = 10;
const CENTRE: u32 = 10_000;
const QTY: u32 = 100;

/// Orders that one mass quote moves.
pub const ORDERS_PER_QUOTE: u64 = 2 * LEVELS as u64;

const SETUP: Setup = Setup {
    traders: MAKERS,
    instruments: BOOKS,
    sellers: MAKERS,
    sessions: 4,
    max_price: 20_000,
    consumers: 0,
};

/// Books' middles, which wander by a tick and return.
struct Middles {
    dice: Dice,
    at: [u32; BOOKS as usize],
}

impl Middles {
    fn new() -> Self {
        Self { dice: Dice::new(7), at: [CENTRE; BOOKS as usize] }
    }

    /// The next book that moves, and whether upwards.
    fn step(&mut self) -> (InstrumentId, bool) {
        let book = self.dice.below(BOOKS.into()) as usize;
        let up = self.dice.below(2_000) < u64::from(CENTRE + 1_000 - self.at[book]);
        self.at[book] = if up { self.at[book] + 1 } else { self.at[book] - 1 };
        (InstrumentId(book as u16), up)
    }
}

/// What a maker wants around a middle: its own ticks away, so that makers share some levels and not others.
fn around(maker: u32, instrument: InstrumentId, middle: u32) -> Box<[QuoteEntry]> {
    let side = |price: u32| QuoteSide { price: Price(price.into()), qty: Qty(QTY.into()) };
    let entry = |level: u32| QuoteEntry {
        instrument,
        quote: level as u8,
        bid: side(middle - level - maker),
        ask: side(middle + level + maker),
    };
    (1..=LEVELS).map(entry).collect()
}

/// Five makers with ten levels a side on each of nine books; whenever a book's middle moves, each of them moves all its quotes there with one
/// mass quote.
#[must_use]
pub fn mass_quotes(commands: u64) -> Tape {
    let mut flow = Flow::open(&SETUP);
    for maker in 0..MAKERS {
        flow.venue_mut().own_session(maker);
        for instrument in (0..BOOKS).map(InstrumentId) {
            quote(&mut flow, maker, instrument, CENTRE);
        }
    }
    let mut middles = Middles::new();
    Tape::record(flow, |flow| {
        let mut left = commands;
        while left > 0 {
            let (instrument, _) = middles.step();
            for maker in 0..MAKERS.min(left as u32) {
                quote(flow, maker, instrument, middles.at[usize::from(instrument.0)]);
                left -= 1;
            }
        }
    })
}

fn quote(flow: &mut Flow, maker: u32, instrument: InstrumentId, middle: u32) {
    flow.quote(maker, around(maker, instrument, middle));
}

/// The same order by order: a refresh is the replacement of both sides of each level, the side first that moves away.
#[must_use]
pub fn replaced_quotes(commands: u64) -> Tape {
    let mut flow = Flow::open(&SETUP);
    let mut quotes = Vec::new();
    for instrument in (0..BOOKS).map(InstrumentId) {
        for trader in 0..MAKERS {
            for away in 1..=LEVELS {
                for side in [Side::Buy, Side::Sell] {
                    let away = away + trader;
                    let price = if side == Side::Buy { CENTRE - away } else { CENTRE + away };
                    let wanted = Wanted { trader, instrument, side, price, qty: QTY, tif: TimeInForce::Gtc };
                    quotes.push(flow.place(wanted));
                }
            }
        }
    }
    let each = (MAKERS * LEVELS * 2) as usize;
    let mut middles = Middles::new();
    Tape::record(flow, |flow| {
        let mut left = commands;
        while left > 0 {
            let (book, up) = middles.step();
            let first = if up { Side::Sell } else { Side::Buy };
            for side in [first, first.opposite()] {
                for &quote in &quotes[usize::from(book.0) * each..][..each] {
                    let known = *flow.order(quote);
                    if known.side != side || left == 0 {
                        continue;
                    }
                    let price = if up { known.price + 1 } else { known.price - 1 };
                    flow.replace(quote, price, QTY);
                    left -= 1;
                }
            }
        }
    })
}
