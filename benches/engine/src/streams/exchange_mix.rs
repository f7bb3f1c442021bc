//! The flow that exchange-core's own generator makes at its newest commit, by the rules that it follows: while a side has fewer orders than it
//! should, one command in five enters one; otherwise one in twenty takes at any price. Of the rest most move an order a hundredth of the
//! way to the last price, some take one out or make it smaller. It comes to 12.1 % new, 1.9 % immediate, 0.06 % all or nothing, 7.0 % cancel, 71.9 % move
//! and 7.0 % reduce, about 970 orders on 850 levels; one command in 25 trades.

use grid_engine::InstrumentId;
use grid_engine::command::{Side, TimeInForce};

use crate::dice::Dice;
use crate::flow::{Flow, Wanted};
use crate::tape::Tape;
use crate::venue::Setup;

const MARKET: InstrumentId = InstrumentId(0);
/// As many as the original has.
const TRADERS: u32 = 1_000;
/// Orders that a side should have.
const HALF: i64 = 500;
/// A side that lacks more than this is filled twice as fast.
const FAST: i64 = 375;
/// How many commands the count of open orders lags behind.
const LOOK_EVERY: u64 = 512;
/// Where the market starts, and how far from there it may go.
const CENTRE: u32 = 190_000;
const DEVIATION: u32 = 9_500;
const LOWEST: u32 = CENTRE - 5 * DEVIATION;
const HIGHEST: u32 = CENTRE + 5 * DEVIATION;

/// `commands` of the mix, from a book that has filled up.
#[must_use]
pub fn exchange_mix(commands: u64) -> Tape {
    exchange_mix_among(TRADERS, commands)
}

/// The same among fewer or more traders.
#[must_use]
pub fn exchange_mix_among(traders: u32, commands: u64) -> Tape {
    let setup =
        Setup { traders, instruments: 1, sellers: traders, sessions: 4, max_price: 250_000, consumers: 0 };
    let mut mix = Mix { traders, dice: Dice::new(1), lacks: [HALF; 2], last: CENTRE, filling: true };
    let mut flow = Flow::open(&setup);
    // Ten times the orders that it should have, so that where they were entered no longer shows.
    for nth in 0..20 * HALF as u64 {
        mix.next(&mut flow, nth);
    }
    Tape::record(flow, |flow| (0..commands).for_each(|nth| mix.next(flow, nth)))
}

struct Mix {
    traders: u32,
    dice: Dice,
    /// How many orders the sides lack, as of the last look: buy, sell.
    lacks: [i64; 2],
    last: u32,
    filling: bool,
}

impl Mix {
    fn next(&mut self, flow: &mut Flow, nth: u64) {
        if flow.last_price() != 0 {
            self.last = flow.last_price().clamp(LOWEST, HIGHEST);
        }
        if nth.is_multiple_of(LOOK_EVERY) {
            let open = flow.open_orders(MARKET);
            let bids = open.iter().filter(|&&nth| flow.order(nth).side == Side::Buy).count() as i64;
            self.lacks = [HALF - bids, HALF - (open.len() as i64 - bids)];
            self.filling = self.filling && self.lacks.iter().any(|&lack| lack > 0);
        }
        let dice = &mut self.dice;
        let side = if dice.below(2) == 0 { Side::Buy } else { Side::Sell };
        let lack = self.lacks[usize::from(side == Side::Sell)];
        let grow = lack > 0;
        let choices = match (grow, self.filling || lack > FAST) {
            (true, true) => 2,
            (true, false) => 10,
            (false, _) => 40,
        };
        let choice = dice.below(choices);
        let Some(order) = flow.any(MARKET, dice).filter(|_| choice >= 2) else {
            return if grow { self.enter(flow, side) } else { self.take(flow, side) };
        };
        match choice {
            2 => flow.cancel(order),
            3 => {
                let known = *flow.order(order);
                // Sometimes by all of it, which closes it.
                let by = 1 + dice.below(known.remaining.into()) as u32;
                flow.replace(order, known.price, known.remaining - by);
            }
            _ => {
                let known = *flow.order(order);
                let price = moved(known.price, self.last, dice).min(HIGHEST);
                flow.replace(order, price, known.remaining);
            }
        }
    }

    fn enter(&mut self, flow: &mut Flow, side: Side) {
        let dice = &mut self.dice;
        let spread = 1 + (dice.unit().powi(2) * f64::from(DEVIATION)) as u64;
        let mean = (0..4).map(|_| dice.below(spread)).sum::<u64>() / 4;
        let away = (mean as i64 * 2 - spread as i64).unsigned_abs() as u32;
        let price = if side == Side::Buy { self.last - away } else { self.last + away };
        let (trader, qty) = (dice.below(self.traders.into()) as u32, size(dice));
        flow.place(Wanted { trader, instrument: MARKET, side, price, qty, tif: TimeInForce::Gtc });
    }

    fn take(&mut self, flow: &mut Flow, side: Side) {
        let dice = &mut self.dice;
        let price = if side == Side::Buy { HIGHEST } else { LOWEST };
        let tif = if dice.once_in(32) { TimeInForce::Fok } else { TimeInForce::Ioc };
        let (trader, qty) = (dice.below(self.traders.into()) as u32, size(dice));
        flow.place(Wanted { trader, instrument: MARKET, side, price, qty, tif });
    }
}

/// From 1 to 126, small ones more often.
fn size(dice: &mut Dice) -> u32 {
    1 + (dice.below(6) * dice.below(6) * dice.below(6)) as u32
}

/// A hundredth of the way to the last price, at least one tick; at that price, one tick either way.
fn moved(price: u32, last: u32, dice: &mut Dice) -> u32 {
    match price.cmp(&last) {
        std::cmp::Ordering::Greater => price - (price - last).div_ceil(100),
        std::cmp::Ordering::Less => price + (last - price).div_ceil(100),
        std::cmp::Ordering::Equal => price + 1 - 2 * dice.below(2) as u32,
    }
}
