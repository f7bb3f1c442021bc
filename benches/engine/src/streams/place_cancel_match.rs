//! Half of the commands are new orders, 15 in 100 of them immediate; 41 in 100 cancel and 9 change one to another price and quantity. The flow of a
//! public survey of matching engines, with its two sizes of book.

use grid_engine::InstrumentId;
use grid_engine::command::{Side, TimeInForce};

use crate::dice::Dice;
use crate::flow::{Flow, Wanted};
use crate::tape::Tape;
use crate::venue::Setup;

const MARKET: InstrumentId = InstrumentId(0);
const TRADERS: u32 = 1_000;
const CENTRE: u32 = 10_000;

/// How large the book is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// About 2,700 orders over some hundred levels, most of them near a touch that wanders.
    Normal,
    /// About 20,900 orders on 60 levels around a touch that stays.
    Static,
}

impl Depth {
    const fn orders(self) -> usize {
        match self {
            Self::Normal => 2_700,
            Self::Static => 20_900,
        }
    }
}

/// `commands` of the mix, from a book of full size.
#[must_use]
pub fn place_cancel_match(depth: Depth, commands: u64) -> Tape {
    place_cancel_match_among(TRADERS, depth, commands)
}

/// The same among fewer or more traders.
#[must_use]
pub fn place_cancel_match_among(traders: u32, depth: Depth, commands: u64) -> Tape {
    let setup =
        Setup { traders, instruments: 1, sellers: traders, sessions: 4, max_price: 20_000, consumers: 0 };
    let mut mix = Mix { traders, depth, dice: Dice::new(2), centre: CENTRE };
    let mut flow = Flow::open(&setup);
    while flow.open_orders(MARKET).len() < depth.orders() {
        mix.rest(&mut flow);
    }
    (0..depth.orders() as u64).for_each(|_| mix.next(&mut flow));
    Tape::record(flow, |flow| (0..commands).for_each(|_| mix.next(flow)))
}

struct Mix {
    traders: u32,
    depth: Depth,
    dice: Dice,
    centre: u32,
}

impl Mix {
    fn next(&mut self, flow: &mut Flow) {
        if self.depth == Depth::Normal && self.dice.once_in(8_000) {
            // The touch wanders a tick at a time, and turns back before it is far away.
            let up = self.dice.below(2_000) < u64::from(CENTRE + 1_000 - self.centre);
            self.centre = if up { self.centre + 1 } else { self.centre - 1 };
        }
        match self.dice.below(1_000) {
            0..425 => self.rest(flow),
            425..500 => self.take(flow),
            500..910 => {
                if let Some(order) = flow.any(MARKET, &mut self.dice) {
                    flow.cancel(order);
                }
            }
            _ => {
                if let Some(order) = flow.any(MARKET, &mut self.dice) {
                    let price = self.passive(flow.order(order).side);
                    flow.replace(order, price, 1 + self.dice.below(100) as u32);
                }
            }
        }
    }

    /// A price away from the touch, on its own side.
    fn passive(&mut self, side: Side) -> u32 {
        let away = match self.depth {
            Depth::Static => self.dice.below(30),
            Depth::Normal => (self.dice.unit().powi(3) * 200.0) as u64,
        } as u32;
        if side == Side::Buy { self.centre - 1 - away } else { self.centre + 1 + away }
    }

    fn side(&mut self) -> Side {
        if self.dice.below(2) == 0 { Side::Buy } else { Side::Sell }
    }

    fn rest(&mut self, flow: &mut Flow) {
        let (trader, side) = (self.dice.below(self.traders.into()) as u32, self.side());
        let (price, qty) = (self.passive(side), 1 + self.dice.below(100) as u32);
        flow.place(Wanted { trader, instrument: MARKET, side, price, qty, tif: TimeInForce::Gtc });
    }

    /// What cancels leave over is taken: a book above its size meets immediate orders that fill, one below it those that miss.
    fn take(&mut self, flow: &mut Flow) {
        let (trader, side) = (self.dice.below(self.traders.into()) as u32, self.side());
        let full = flow.open_orders(MARKET).len() >= self.depth.orders();
        let (reach, qty) = if full { (5, 1 + self.dice.below(60)) } else { (0, 1 + self.dice.below(20)) };
        let price = if side == Side::Buy { self.centre + reach } else { self.centre - reach };
        flow.place(Wanted {
            trader,
            instrument: MARKET,
            side,
            price,
            qty: qty as u32,
            tif: TimeInForce::Ioc,
        });
    }
}
