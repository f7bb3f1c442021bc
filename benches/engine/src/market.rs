//! The mix of the benches of the whole path: resting orders, cancels and fills that keep a book at about 10,000 orders over 200 levels, one fifth of them
//! immediate, from 16 accounts and one session; with the opening, because a venue that is measured starts empty.

use grid_engine::command::{Entry, Side, TimeInForce};
use grid_engine::{Engine, InstrumentId};

use crate::dice::Dice;
use crate::flow::{Flow, Wanted};
use crate::venue::Setup;

const MARKET: InstrumentId = InstrumentId(0);
const TRADERS: u32 = 16;
/// Orders that rest before the mix begins.
const RESTING: usize = 10_000;

/// The mix as a source of commands. Each is chosen by what those before it left, so they are the same on every run, and nothing is refused if
/// they are applied in this order from the first on.
#[derive(Debug)]
pub struct Market {
    flow: Flow,
    dice: Dice,
}

impl Market {
    /// With accounts that can pay, and the book as large as it is going to stay.
    #[must_use]
    pub fn open() -> Self {
        let setup = Setup {
            traders: TRADERS,
            instruments: 1,
            sellers: TRADERS,
            sessions: 1,
            max_price: 10_000,
            consumers: 0,
        };
        let mut market = Self { flow: Flow::open(&setup), dice: Dice::new(42) };
        (0..RESTING).for_each(|_| market.rest());
        market
    }

    /// The commands that made the market what it is, and have not been taken yet.
    pub fn take_tape(&mut self) -> Vec<Entry> {
        self.flow.venue_mut().take_tape()
    }

    /// The next command, applied.
    ///
    /// # Panics
    /// Never: a step leaves its command on the tape.
    #[expect(clippy::should_implement_trait, reason = "it never ends")]
    pub fn next(&mut self) -> Entry {
        // What fills take out, new orders put back: the book stays as large as it was.
        let thin = self.flow.open_orders(MARKET).len() <= RESTING;
        match self.dice.below(5) {
            2 | 3 if !thin => {
                let order = self.flow.any(MARKET, &mut self.dice).expect("thousands are open");
                self.flow.cancel(order);
            }
            0..=3 => self.rest(),
            _ => self.take(),
        }
        self.flow.venue_mut().pop_tape().expect("a step leaves its command on the tape")
    }

    /// After the last command.
    #[must_use]
    pub const fn engine(&self) -> &Engine {
        self.flow.venue().engine()
    }

    /// Bids at 801 to 900, asks at 1,001 to 1,100.
    fn rest(&mut self) {
        let side = self.side();
        let price = match side {
            Side::Buy => 900 - self.dice.below(100) as u32,
            Side::Sell => 1_001 + self.dice.below(100) as u32,
        };
        let qty = 1 + self.dice.below(9) as u32;
        self.place(side, price, qty, TimeInForce::Gtc);
    }

    /// Takes at most a few orders from the touch and leaves nothing behind.
    fn take(&mut self) {
        let side = self.side();
        let price = if side == Side::Buy { 1_100 } else { 801 };
        let qty = 1 + self.dice.below(5) as u32;
        self.place(side, price, qty, TimeInForce::Ioc);
    }

    fn side(&mut self) -> Side {
        if self.dice.below(2) == 0 { Side::Buy } else { Side::Sell }
    }

    fn place(&mut self, side: Side, price: u32, qty: u32, tif: TimeInForce) {
        let trader = self.dice.below(TRADERS.into()) as u32;
        self.flow.place(Wanted { trader, instrument: MARKET, side, price, qty, tif });
    }
}
