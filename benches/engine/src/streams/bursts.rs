//! What comes in bursts: an order that sweeps a thin book, and everything cancelled at once.

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
