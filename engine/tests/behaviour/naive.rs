//! A book that is obviously right: a plain list of orders in order of arrival, searched from end to end.
//!
//! It knows price, time, self-trade prevention and what becomes of remainders. What an account can pay it is told.

use grid_engine::command::{SelfTrade, Side, TimeInForce};
use grid_engine::event::Closure;
use grid_engine::{AccountId, Label, Nanos, OrderId, Price, SessionId, Usd};

/// An open order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) id: OrderId,
    pub(crate) account: AccountId,
    pub(crate) session: SessionId,
    pub(crate) label: Label,
    pub(crate) side: Side,
    pub(crate) price: Price,
    pub(crate) remaining: u64,
    pub(crate) filled: u64,
    pub(crate) tif: TimeInForce,
    pub(crate) submitted_at: Nanos,
}

/// An order on its way in.
#[derive(Clone, Debug)]
pub(crate) struct Incoming {
    pub(crate) order: Order,
    /// No worse than this.
    pub(crate) limit: Option<Price>,
    pub(crate) market: bool,
    pub(crate) all_or_nothing: bool,
    pub(crate) rests: bool,
    pub(crate) stp: SelfTrade,
}

/// One match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fill {
    pub(crate) taker: OrderId,
    pub(crate) maker: OrderId,
    pub(crate) price: Price,
    pub(crate) qty: u64,
}

/// One order's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) order: OrderId,
    pub(crate) filled: u64,
    pub(crate) remaining: u64,
    pub(crate) reason: Closure,
}

/// What a command did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) fills: Vec<Fill>,
    pub(crate) closed: Vec<Closed>,
}

/// One instrument's open orders in order of arrival.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book {
    pub(crate) orders: Vec<Order>,
    pub(crate) tick: Usd,
    /// The higher of the two fees.
    pub(crate) fee_bps: u16,
}

impl Book {
    /// Where the order is that trades first with someone on `side`'s opposite.
    fn best(&self, side: Side) -> Option<usize> {
        let mut best: Option<usize> = None;
        for (at, order) in self.orders.iter().enumerate() {
            let better = |than: Price| match side {
                Side::Buy => order.price > than,
                Side::Sell => order.price < than,
            };
            if order.side == side && best.is_none_or(|best| better(self.orders[best].price)) {
                best = Some(at);
            }
        }
        best
    }

    pub(crate) fn best_price(&self, side: Side) -> Option<Price> {
        self.best(side).map(|at| self.orders[at].price)
    }

    /// The orders of a side in the order in which they trade.
    pub(crate) fn queue(&self, side: Side) -> Vec<&Order> {
        let mut queue: Vec<_> = self.orders.iter().filter(|order| order.side == side).collect();
        queue.sort_by_key(|order| match side {
            Side::Buy => std::cmp::Reverse(order.price.0),
            Side::Sell => std::cmp::Reverse(u64::MAX - order.price.0),
        });
        queue
    }

    /// `(price, quantity, orders)` of a side, best first.
    pub(crate) fn levels(&self, side: Side) -> Vec<(u64, u64, u32)> {
        let mut levels: Vec<(u64, u64, u32)> = Vec::new();
        for order in self.orders.iter().filter(|order| order.side == side) {
            match levels.iter_mut().find(|level| level.0 == order.price.0) {
                Some(level) => {
                    level.1 += order.remaining;
                    level.2 += 1;
                }
                None => levels.push((order.price.0, order.remaining, 1)),
            }
        }
        levels.sort_unstable();
        if side == Side::Buy {
            levels.reverse();
        }
        levels
    }

    /// How much of the incoming order would trade, what that would cost without fees, and whether its limit stopped it.
    pub(crate) fn preview(&self, incoming: &Incoming) -> (u64, i128, bool) {
        let (mut left, mut qty, mut cost) = (incoming.order.remaining, 0, 0);
        for order in self.queue(incoming.order.side.opposite()) {
            if left == 0 {
                break;
            }
            if incoming.beyond(order.price) {
                return (qty, cost, true);
            }
            let part = left.min(order.remaining);
            if order.account == incoming.order.account {
                match incoming.stp {
                    SelfTrade::Allow => {}
                    SelfTrade::CancelResting => continue,
                    SelfTrade::CancelIncoming | SelfTrade::CancelBoth => break,
                    SelfTrade::Decrement => {
                        left -= part;
                        continue;
                    }
                }
            }
            left -= part;
            qty += part;
            cost += self.value(order.price, part);
        }
        (qty, cost, false)
    }

    pub(crate) fn value(&self, price: Price, qty: u64) -> i128 {
        i128::from(price.0) * i128::from(qty) * i128::from(self.tick.0)
    }

    /// What a bid holds.
    pub(crate) fn hold(&self, price: Price, qty: u64) -> i128 {
        let value = self.value(price, qty);
        value + value * i128::from(self.fee_bps) / 10_000
    }

    /// Enters an order whose account can carry it.
    pub(crate) fn enter(&mut self, mut incoming: Incoming, out: &mut Outcome) {
        if incoming.all_or_nothing {
            let (qty, _, limited) = self.preview(&incoming);
            if qty < incoming.order.remaining {
                let slipped = limited && incoming.market;
                let reason = if slipped { Closure::NoFillMaxSlippage } else { Closure::NoFillNoLiquidity };
                return out.close(&incoming.order, reason);
            }
        }
        let opposite = incoming.order.side.opposite();
        loop {
            if incoming.order.remaining == 0 {
                return out.close(&incoming.order, Closure::Filled);
            }
            let Some(at) = self.best(opposite) else {
                return self.leave(incoming, false, out);
            };
            if incoming.beyond(self.orders[at].price) {
                return self.leave(incoming, true, out);
            }
            if self.orders[at].account == incoming.order.account {
                match incoming.stp {
                    SelfTrade::Allow => {}
                    SelfTrade::CancelIncoming => return out.close(&incoming.order, Closure::SelfTrade),
                    SelfTrade::CancelResting => {
                        let resting = self.orders.remove(at);
                        out.close(&resting, Closure::SelfTrade);
                        continue;
                    }
                    SelfTrade::CancelBoth => {
                        let resting = self.orders.remove(at);
                        out.close(&resting, Closure::SelfTrade);
                        return out.close(&incoming.order, Closure::SelfTrade);
                    }
                    SelfTrade::Decrement => {
                        let less = incoming.order.remaining.min(self.orders[at].remaining);
                        if self.orders[at].remaining == less {
                            let resting = self.orders.remove(at);
                            out.close(&resting, Closure::SelfTrade);
                        } else {
                            self.orders[at].remaining -= less;
                        }
                        incoming.order.remaining -= less;
                        if incoming.order.remaining == 0 {
                            return out.close(&incoming.order, Closure::SelfTrade);
                        }
                        continue;
                    }
                }
            }
            let resting = &mut self.orders[at];
            let qty = incoming.order.remaining.min(resting.remaining);
            resting.remaining -= qty;
            resting.filled += qty;
            incoming.order.remaining -= qty;
            incoming.order.filled += qty;
            out.fills.push(Fill { taker: incoming.order.id, maker: resting.id, price: resting.price, qty });
            if resting.remaining == 0 {
                let resting = self.orders.remove(at);
                out.close(&resting, Closure::Filled);
            }
        }
    }

    /// A remainder rests or is closed; `limited` says that someone was left, but beyond the limit.
    fn leave(&mut self, incoming: Incoming, limited: bool, out: &mut Outcome) {
        if incoming.rests {
            return self.orders.push(incoming.order);
        }
        let reason = match (incoming.order.filled > 0, limited && incoming.market) {
            (true, true) => Closure::PartiallyFilledMaxSlippage,
            (true, false) => Closure::PartiallyFilledNoLiquidity,
            (false, true) => Closure::NoFillMaxSlippage,
            (false, false) => Closure::NoFillNoLiquidity,
        };
        out.close(&incoming.order, reason);
    }
}

impl Incoming {
    fn beyond(&self, price: Price) -> bool {
        self.limit.is_some_and(|limit| !crosses(self.order.side, limit, price))
    }
}

impl Outcome {
    pub(crate) fn close(&mut self, order: &Order, reason: Closure) {
        let Order { id, filled, remaining, .. } = *order;
        self.closed.push(Closed { order: id, filled, remaining, reason });
    }
}

/// True when someone with this limit trades at this price.
pub(crate) fn crosses(side: Side, limit: Price, price: Price) -> bool {
    match side {
        Side::Buy => limit >= price,
        Side::Sell => limit <= price,
    }
}

/// The worst price within `bps` of the best opposite one.
pub(crate) fn slippage_limit(side: Side, best: Price, bps: u16) -> Price {
    let (best, bps) = (u128::from(best.0), u128::from(bps));
    match side {
        Side::Buy => Price((best * (10_000 + bps) / 10_000) as u64),
        Side::Sell => Price((best * (10_000 - bps.min(10_000))).div_ceil(10_000) as u64),
    }
}
