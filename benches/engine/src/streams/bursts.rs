//! What comes in bursts: an order that sweeps a thin book, everything cancelled at once, and makers that move all their quotes.

use grid_engine::InstrumentId;
use grid_engine::command::{Side, TimeInForce};

use crate::dice::Dice;
use crate::flow::{Flow, Wanted};
use crate::tape::Tape;
use crate::venue::Setup;

const MARKET: InstrumentId = InstrumentId(0);
const TRADERS: u32 = 100;
const CENTRE: u32 = 10_000;

const fn setup(instruments: u16) -> Setup {
    Setup { traders: TRADERS, instruments, sellers: TRADERS, sessions: 4, max_price: 20_000, consumers: 0 }
}

fn side(dice: &mut Dice) -> Side {
    if dice.below(2) == 0 { Side::Buy } else { Side::Sell }
}

fn trader(dice: &mut Dice) -> u32 {
    dice.below(TRADERS.into()) as u32
}

/// One order on each of 20 levels some ticks apart, then one that takes them all and nothing is left; again and again, on either side.
#[must_use]
pub fn thin_book_sweep(commands: u64) -> Tape {
    const LEVELS: u32 = 20;
    let mut dice = Dice::new(4);
    let mut maker_side = Side::Sell;
    let (mut resting, mut last) = (0, CENTRE);
    Tape::record(Flow::open(&setup(1)), |flow| {
        for _ in 0..commands {
            if resting == 0 {
                maker_side = side(&mut dice);
                last = CENTRE;
            }
            if resting < LEVELS {
                let step = 1 + dice.below(30) as u32;
                last = if maker_side == Side::Sell { last + step } else { last - step };
                let (trader, qty) = (trader(&mut dice), 10);
                let wanted = Wanted {
                    trader,
                    instrument: MARKET,
                    side: maker_side,
                    price: last,
                    qty,
                    tif: TimeInForce::Gtc,
                };
                flow.place(wanted);
                resting += 1;
            } else {
                let (trader, side) = (trader(&mut dice), maker_side.opposite());
                let wanted = Wanted {
                    trader,
                    instrument: MARKET,
                    side,
                    price: last,
                    qty: 10 * LEVELS,
                    tif: TimeInForce::Ioc,
                };
                flow.place(wanted);
                resting = 0;
            }
        }
    })
}

/// A thousand orders are entered and then cancelled one by one, in no order.
#[must_use]
pub fn cancel_burst(commands: u64) -> Tape {
    const BURST: usize = 1_000;
    let mut dice = Dice::new(5);
    let mut entering = true;
    Tape::record(Flow::open(&setup(1)), |flow| {
        for _ in 0..commands {
            let open = flow.open_orders(MARKET).len();
            entering = if entering { open < BURST } else { open == 0 };
            if entering {
                rest(flow, MARKET, &mut dice, 200);
            } else {
                let order = flow.any(MARKET, &mut dice).expect("some are open");
                flow.cancel(order);
            }
        }
    })
}

/// Traders enter a hundred orders each and take all of them out with one command.
#[must_use]
pub fn mass_cancel(commands: u64) -> Tape {
    const EACH: u64 = 100;
    let mut dice = Dice::new(6);
    Tape::record(Flow::open(&setup(1)), |flow| {
        for nth in 0..commands {
            let trader = (nth / (EACH + 1) % u64::from(TRADERS)) as u32;
            if nth % (EACH + 1) == EACH {
                flow.mass_cancel(trader);
            } else {
                rest_of(flow, MARKET, trader, &mut dice, 200);
            }
        }
    })
}

fn rest(flow: &mut Flow, instrument: InstrumentId, dice: &mut Dice, levels: u64) -> u32 {
    let trader = trader(dice);
    rest_of(flow, instrument, trader, dice, levels)
}

fn rest_of(flow: &mut Flow, instrument: InstrumentId, trader: u32, dice: &mut Dice, levels: u64) -> u32 {
    let side = side(dice);
    let away = 1 + dice.below(levels) as u32;
    let price = if side == Side::Buy { CENTRE - away } else { CENTRE + away };
    let qty = 1 + dice.below(100) as u32;
    flow.place(Wanted { trader, instrument, side, price, qty, tif: TimeInForce::Gtc })
}

/// Five makers with ten levels a side on each of nine books; whenever a book's middle moves, each of them moves all its quotes there. There is
/// no command for a mass quote: a refresh is the replacement of both sides of each level, the side first that moves away.
#[must_use]
pub fn quote_refresh(commands: u64) -> Tape {
    const BOOKS: u16 = 9;
    const MAKERS: u32 = 5;
    const LEVELS: u32 = 10;
    let mut flow = Flow::open(&setup(BOOKS));
    let mut quotes = Vec::new();
    for instrument in (0..BOOKS).map(InstrumentId) {
        for trader in 0..MAKERS {
            for away in 1..=LEVELS {
                for side in [Side::Buy, Side::Sell] {
                    let away = away + trader;
                    let price = if side == Side::Buy { CENTRE - away } else { CENTRE + away };
                    quotes.push(flow.place(Wanted {
                        trader,
                        instrument,
                        side,
                        price,
                        qty: 100,
                        tif: TimeInForce::Gtc,
                    }));
                }
            }
        }
    }
    let mut dice = Dice::new(7);
    let each = (MAKERS * LEVELS * 2) as usize;
    let mut middles = [CENTRE; BOOKS as usize];
    Tape::record(flow, |flow| {
        let mut left = commands;
        while left > 0 {
            let book = dice.below(BOOKS.into()) as usize;
            let up = dice.below(2_000) < u64::from(CENTRE + 1_000 - middles[book]);
            middles[book] = if up { middles[book] + 1 } else { middles[book] - 1 };
            let first = if up { Side::Sell } else { Side::Buy };
            for side in [first, first.opposite()] {
                for &quote in &quotes[book * each..(book + 1) * each] {
                    let known = *flow.order(quote);
                    if known.side != side || left == 0 {
                        continue;
                    }
                    let price = if up { known.price + 1 } else { known.price - 1 };
                    flow.replace(quote, price, 100);
                    left -= 1;
                }
            }
            if left == 0 {
                break;
            }
        }
    })
}
