//! Incoming against resting: best price first, then oldest first, at the resting order's price (contract §3.3 to 3.6).

use super::Step;
use super::trading::{Incoming, crosses, hold_for};
use crate::book::Order;
use crate::command::{SelfTrade, Side};
use crate::event::{Closure, Event, Exec, OrderReport, ReportBody, Trade};
use crate::ids::{InstrumentId, TradeId};
use crate::reject::Reject;
use crate::state::LastTrade;
use crate::units::{Price, Qty, Usd};

/// Why an incoming order takes no more.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    /// Nothing is left of it.
    Done,
    /// Nobody is left on the other side.
    BookEmpty,
    /// The next price is beyond its limit.
    Limit,
    /// It met an order of its own account.
    SelfTrade,
}

/// What an incoming order would do to the book.
pub(super) struct Preview {
    /// Quantity that would trade.
    pub(super) fillable: Qty,
    /// What it would cost.
    pub(super) value: Usd,
    /// More was there, but beyond its limit.
    pub(super) limited: bool,
}

impl Step<'_> {
    /// Walks the book as `take` would, and changes nothing.
    pub(super) fn preview(&self, incoming: &Incoming) -> Result<Preview, Reject> {
        let order = &incoming.order;
        let tick = self.state.instruments[usize::from(incoming.instrument.0)].spec.market.tick;
        let mut left = order.remaining;
        let mut preview = Preview { fillable: Qty::ZERO, value: Usd::ZERO, limited: false };
        for resting in self.book(incoming.instrument).queue(order.side.opposite()) {
            if left.is_zero() {
                break;
            }
            if beyond(incoming, resting.price) {
                preview.limited = true;
                break;
            }
            let qty = left.min(resting.remaining);
            if resting.account == order.account {
                match incoming.stp {
                    SelfTrade::Allow => {}
                    SelfTrade::CancelIncoming | SelfTrade::CancelBoth => break,
                    SelfTrade::CancelResting => continue,
                    SelfTrade::Decrement => {
                        left = left.minus(qty);
                        continue;
                    }
                }
            }
            left = left.minus(qty);
            let value = resting.price.notional(qty, tick).ok_or(Reject::OutOfRange)?;
            preview.value = preview.value.checked_add(value).ok_or(Reject::OutOfRange)?;
            preview.fillable = preview.fillable.plus(qty);
        }
        Ok(preview)
    }

    /// Trades until the incoming order is done or something stops it.
    pub(super) fn take(&mut self, incoming: &mut Incoming) -> Stopped {
        let instrument = incoming.instrument;
        let opposite = incoming.order.side.opposite();
        while !incoming.order.remaining.is_zero() {
            let Some(resting) = self.book(instrument).front(opposite) else {
                return Stopped::BookEmpty;
            };
            if beyond(incoming, resting.price) {
                return Stopped::Limit;
            }
            if resting.account == incoming.order.account && incoming.stp != SelfTrade::Allow {
                let resting = resting.clone();
                if self.prevent_self_trade(incoming, &resting) {
                    return Stopped::SelfTrade;
                }
                continue;
            }
            self.trade_with_front(incoming);
        }
        Stopped::Done
    }

    /// Two orders of one account meet; true when the incoming one ends here.
    fn prevent_self_trade(&mut self, incoming: &mut Incoming, resting: &Order) -> bool {
        let instrument = incoming.instrument;
        match incoming.stp {
            SelfTrade::Allow => unreachable!("orders that may trade with each other do"),
            SelfTrade::CancelIncoming => true,
            SelfTrade::CancelResting => {
                self.close_resting(instrument, resting.id, Closure::SelfTrade, None);
                false
            }
            SelfTrade::CancelBoth => {
                self.close_resting(instrument, resting.id, Closure::SelfTrade, None);
                true
            }
            SelfTrade::Decrement => {
                let qty = incoming.order.remaining.min(resting.remaining);
                if qty == resting.remaining {
                    self.close_resting(instrument, resting.id, Closure::SelfTrade, None);
                } else {
                    self.shrink_resting(instrument, resting, qty);
                }
                self.shrink_incoming(incoming, qty);
                incoming.order.remaining.is_zero()
            }
        }
    }

    fn shrink_resting(&mut self, instrument: InstrumentId, resting: &Order, by: Qty) {
        let tick = self.tick(instrument);
        let at = self.at;
        let (changed, freed) = self
            .book_mut(instrument)
            .amend(resting.id, |order| {
                order.remaining = order.remaining.minus(by);
                order.updated_at = at;
                let freed = lower_hold(order, tick);
                (order.clone(), freed)
            })
            .expect("it rests");
        match changed.side {
            Side::Buy => self.free_usd(changed.account, freed),
            Side::Sell => self.free_units(&changed, instrument, by),
        }
        self.touched.push((instrument, changed.side, changed.price));
        self.events.push(Event::OrderReplaced {
            order: changed.id,
            account: changed.account,
            instrument,
            price: changed.price,
            remaining: changed.remaining,
        });
        let report = OrderReport::new(&changed, instrument, Exec::Replaced);
        self.notify(changed.session, changed.account, ReportBody::Order(report));
    }

    /// A bid keeps its whole hold until it rests or closes; an ask gives the Units back at once.
    fn shrink_incoming(&mut self, incoming: &mut Incoming, by: Qty) {
        incoming.order.remaining = incoming.order.remaining.minus(by);
        if incoming.order.side == Side::Sell {
            self.free_units(&incoming.order, incoming.instrument, by);
        }
    }

    fn free_units(&mut self, order: &Order, instrument: InstrumentId, qty: Qty) {
        let holding = self.holding_mut(order.account, instrument);
        holding.held = holding.held.minus(qty);
        holding.available = holding.available.plus(qty);
    }

    fn tick(&self, instrument: InstrumentId) -> Usd {
        self.state.instruments[usize::from(instrument.0)].spec.market.tick
    }

    /// One match: the front order of the other side gives as much as both have.
    fn trade_with_front(&mut self, incoming: &mut Incoming) {
        let instrument = incoming.instrument;
        let tick = self.tick(instrument);
        let side = incoming.order.side;
        let maker = self.book(instrument).front(side.opposite()).expect("the caller saw it");
        let (maker_id, price) = (maker.id, maker.price);
        let qty = incoming.order.remaining.min(maker.remaining);
        let value = price.notional(qty, tick).expect("no more than the hold that was accepted");
        let (at, whole) = (self.at, qty == maker.remaining);
        self.touched.push((instrument, side.opposite(), price));

        let (maker, maker_freed) = self
            .book_mut(instrument)
            .amend(maker_id, |maker| {
                maker.remaining = maker.remaining.minus(qty);
                maker.filled = maker.filled.plus(qty);
                maker.updated_at = at;
                let freed = lower_hold(maker, tick);
                (maker.clone(), freed)
            })
            .expect("it rests");
        let maker_fee = value.basis_points(maker.maker_fee_bps);
        let taker_fee = value.basis_points(incoming.order.taker_fee_bps);
        incoming.order.remaining = incoming.order.remaining.minus(qty);
        incoming.order.filled = incoming.order.filled.plus(qty);
        incoming.order.updated_at = at;

        self.state.counters.trade += 1;
        let trade = Trade {
            trade: TradeId(self.state.counters.trade),
            instrument,
            price,
            qty,
            value,
            aggressor: side,
            taker_order: incoming.order.id,
            taker: incoming.order.account,
            taker_fee,
            maker_order: maker.id,
            maker: maker.account,
            maker_fee,
        };
        self.events.push(Event::Traded(trade));
        let record = &mut self.state.instruments[usize::from(instrument.0)];
        record.last_trade = Some(LastTrade { price, qty, at });
        record.trades += 1;
        record.volume = Qty(record.volume.0.saturating_add(qty.0));

        match side {
            Side::Buy => {
                incoming.order.hold = incoming.order.hold.minus(value).minus(taker_fee);
                self.settle_trade(&trade, &incoming.order, &maker, value.plus(taker_fee));
            }
            Side::Sell => {
                // What the limit held beyond the price paid and its fee goes back with the rest of the hold.
                let paid = value.plus(maker_fee);
                self.free_usd(maker.account, maker_freed.minus(paid));
                self.settle_trade(&trade, &maker, &incoming.order, paid);
            }
        }
        self.report_fill(&maker, &trade, false);
        self.report_fill(&incoming.order, &trade, true);
        if whole {
            self.close_resting(instrument, maker_id, Closure::Filled, None);
        }
    }

    fn report_fill(&mut self, order: &Order, trade: &Trade, aggressor: bool) {
        let exec = Exec::Trade { trade: trade.trade, price: trade.price, qty: trade.qty, aggressor };
        let report = OrderReport::new(order, trade.instrument, exec);
        self.notify(order.session, order.account, ReportBody::Order(report));
    }
}

/// Lowers a bid's hold to what its open quantity needs and returns the difference; an ask holds no dollars.
fn lower_hold(order: &mut Order, tick: Usd) -> Usd {
    if order.side == Side::Sell {
        return Usd::ZERO;
    }
    let needed = hold_for(order, order.remaining, tick).expect("less than the hold that was accepted");
    let freed = order.hold.minus(needed);
    order.hold = needed;
    freed
}

fn beyond(incoming: &Incoming, price: Price) -> bool {
    incoming.limit.is_some_and(|limit| !crosses(incoming.order.side, limit, price))
}
