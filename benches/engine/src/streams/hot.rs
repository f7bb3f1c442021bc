//! One kind of command at a time, for the counts of instructions: each tape is so many of them on a book that was made for it.

use grid_engine::InstrumentId;
use grid_engine::command::{Side, TimeInForce};

use super::reserve_settle::Calls;
use crate::flow::{Flow, Wanted};
use crate::tape::Tape;
use crate::venue::Setup;

const MARKET: InstrumentId = InstrumentId(0);
const TRADERS: u32 = 16;
const CENTRE: u32 = 10_000;
const QTY: u32 = 10;

/// A kind of command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hot {
    /// A new order that rests.
    PlaceResting,
    /// A new order that takes all of one level.
    PlaceCrossingOne,
    /// A new order that takes all of five levels.
    PlaceCrossingFive,
    /// An immediate order that finds nothing.
    IocMiss,
    /// A cancel.
    Cancel,
    /// A smaller quantity at the same price.
    ReplaceKeepingPriority,
    /// Another price.
    ReplaceMoving,
    /// One command that cancels 100 orders.
    MassCancel,
    /// One command that moves 20 orders, of which each pair is a quote.
    MassQuote,
    /// A cancel of an order that is no longer open: what every command costs, with one report.
    Refused,
    /// A client sequence for the second time, which is answered from the reports that are kept.
    Repeated,
    /// Tokens set aside.
    Reserve,
    /// Tokens settled.
    Settle,
    /// Tokens set aside after one Unit was bought for them.
    AutoBuy,
}

fn setup(consumers: u32) -> Setup {
    Setup { traders: TRADERS, instruments: 1, sellers: TRADERS, sessions: 1, max_price: 20_000, consumers }
}

fn order(nth: u32, side: Side, away: u32, qty: u32, tif: TimeInForce) -> Wanted {
    let price = if side == Side::Buy { CENTRE - away } else { CENTRE + away };
    Wanted { trader: nth % TRADERS, instrument: MARKET, side, price, qty, tif }
}

const fn side(nth: u32) -> Side {
    if nth.is_multiple_of(2) { Side::Buy } else { Side::Sell }
}

/// `count` commands of this kind.
#[must_use]
pub fn hot(kind: Hot, count: u32) -> Tape {
    match kind {
        Hot::Reserve | Hot::Settle | Hot::AutoBuy => calls(kind, count),
        Hot::MassQuote => super::mass_quotes(count.into()),
        _ => orders(kind, count),
    }
}

fn orders(kind: Hot, count: u32) -> Tape {
    let mut flow = Flow::open(&setup(0));
    // A book of a thousand orders, so that a command has something to find its way through.
    for nth in 0..1_000 {
        flow.place(order(nth, side(nth), 2_000 + nth % 500, QTY, TimeInForce::Gtc));
    }
    let levels = if kind == Hot::PlaceCrossingFive { 5 } else { 1 };
    let rests = match kind {
        Hot::MassCancel => 100 * count,
        Hot::PlaceResting | Hot::IocMiss | Hot::Repeated => 0,
        _ => levels * count,
    };
    let crosses = matches!(kind, Hot::PlaceCrossingOne | Hot::PlaceCrossingFive);
    let made: Vec<_> = (0..rests)
        .map(|nth| {
            let wanted = match kind {
                // Asks on a level each, which are taken from the lowest.
                _ if crosses => order(nth, Side::Sell, 1 + nth, QTY, TimeInForce::Gtc),
                Hot::MassCancel => Wanted {
                    trader: nth / 100 % TRADERS,
                    ..order(nth, side(nth), 1 + nth % 300, QTY, TimeInForce::Gtc)
                },
                _ => order(nth, side(nth), 1 + nth % 300, QTY, TimeInForce::Gtc),
            };
            flow.place(wanted)
        })
        .collect();
    if kind == Hot::Refused {
        made.iter().for_each(|&nth| flow.cancel(nth));
    }
    assert!(kind != Hot::MassCancel || count <= TRADERS, "each trader cancels once");
    Tape::record(flow, |flow| {
        for nth in 0..count {
            match kind {
                Hot::PlaceResting => {
                    flow.place(order(nth, side(nth), 1 + nth % 300, QTY, TimeInForce::Gtc));
                }
                Hot::IocMiss => {
                    flow.place(order(nth, side(nth), 1, QTY, TimeInForce::Ioc));
                }
                Hot::PlaceCrossingOne | Hot::PlaceCrossingFive => {
                    let price = CENTRE + levels * (nth + 1);
                    let taker = order(nth, Side::Buy, 0, levels * QTY, TimeInForce::Gtc);
                    flow.place(Wanted { price, ..taker });
                }
                Hot::Cancel => flow.cancel(made[nth as usize]),
                Hot::Refused => flow.cancel_again(made[nth as usize]),
                Hot::ReplaceKeepingPriority => {
                    let price = flow.order(made[nth as usize]).price;
                    flow.replace(made[nth as usize], price, QTY / 2);
                }
                Hot::ReplaceMoving => {
                    let known = *flow.order(made[nth as usize]);
                    let price = if known.side == Side::Buy { known.price - 400 } else { known.price + 400 };
                    flow.replace(made[nth as usize], price, QTY);
                }
                Hot::MassCancel => flow.mass_cancel(nth),
                Hot::Repeated => flow.venue_mut().repeat(),
                Hot::MassQuote | Hot::Reserve | Hot::Settle | Hot::AutoBuy => unreachable!("made elsewhere"),
            }
        }
    })
}

fn calls(kind: Hot, count: u32) -> Tape {
    let consumers = if kind == Hot::AutoBuy { count } else { TRADERS };
    let mut flow = Flow::open(&setup(consumers));
    for nth in 0..100 {
        flow.place(order(nth, Side::Sell, 1 + nth, 100_000, TimeInForce::Gtc));
    }
    let consumer = |nth: u32| TRADERS + nth % consumers;
    let mut calls = Calls::new();
    if kind != Hot::AutoBuy {
        // Each has bought, and settled a few.
        (0..4 * consumers).for_each(|nth| calls.reserve(&mut flow, consumer(nth)));
        (0..4 * consumers).for_each(|_| calls.settle(&mut flow));
    }
    if kind == Hot::Settle {
        (0..count).for_each(|nth| calls.reserve(&mut flow, consumer(nth)));
    }
    Tape::record(flow, |flow| {
        for nth in 0..count {
            if kind == Hot::Settle {
                calls.settle(flow);
            } else {
                calls.reserve(flow, consumer(nth));
            }
        }
    })
}
