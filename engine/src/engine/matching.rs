//! Incoming against resting: best price first, then oldest first, at the resting order's price (contract §3.3 to 3.6).

use super::Step;
use super::levels::Place;
use super::trading::{Incoming, crosses, narrow};
use crate::command::{SelfTrade, Side};
use crate::event::{Closure, Event, Exec, OrderClosed, OrderReplaced, Trade};
use crate::ids::{AccountId, InstrumentId, OrderId, TradeId};
use crate::reject::Reject;
use crate::report::Kind;
use crate::state::{LastTrade, SessionIndex};
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
        let mut left = incoming.remaining;
        let mut preview = Preview { fillable: Qty::ZERO, value: Usd::ZERO, limited: false };
        for resting in self.state.books.queue(incoming.instrument, incoming.side.opposite()) {
            if left.is_zero() {
                break;
            }
            let price = Price(resting.price.into());
            if beyond(incoming, price) {
                preview.limited = true;
                break;
            }
            let qty = left.min(Qty(resting.remaining.into()));
            if resting.account == incoming.account.0 {
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
            let value = price.notional(qty, incoming.tick).ok_or(Reject::OutOfRange)?;
            preview.value = preview.value.checked_add(value).ok_or(Reject::OutOfRange)?;
            preview.fillable = preview.fillable.plus(qty);
        }
        Ok(preview)
    }

    /// Trades until the incoming order is done or something stops it.
    pub(super) fn take(&mut self, incoming: &mut Incoming) -> Stopped {
        let opposite = incoming.side.opposite();
        while !incoming.remaining.is_zero() {
            let Some(price) = self.state.books.best_price(incoming.instrument, opposite) else {
                return Stopped::BookEmpty;
            };
            if beyond(incoming, Price(price.into())) {
                return Stopped::Limit;
            }
            let Some(slot) = self.state.books.front(incoming.instrument, opposite) else {
                return Stopped::BookEmpty;
            };
            let own = self.state.books.record(slot).account == incoming.account.0;
            if !own || incoming.stp == SelfTrade::Allow {
                self.trade(incoming, slot);
            } else if self.prevent_self_trade(incoming, slot) {
                return Stopped::SelfTrade;
            }
        }
        Stopped::Done
    }

    /// Two orders of one account meet; true when the incoming one ends here.
    fn prevent_self_trade(&mut self, incoming: &mut Incoming, slot: u32) -> bool {
        match incoming.stp {
            SelfTrade::Allow => unreachable!("orders that may trade with each other do"),
            SelfTrade::CancelIncoming => true,
            SelfTrade::CancelResting => {
                self.close_resting(slot, Closure::SelfTrade);
                false
            }
            SelfTrade::CancelBoth => {
                self.close_resting(slot, Closure::SelfTrade);
                true
            }
            SelfTrade::Decrement => {
                let resting = Qty(self.state.books.record(slot).remaining.into());
                let qty = incoming.remaining.min(resting);
                if qty == resting {
                    self.close_resting(slot, Closure::SelfTrade);
                } else {
                    self.shrink_resting(slot, qty);
                }
                // A bid keeps its whole hold until it rests or closes; an ask gives the Units back at once.
                incoming.remaining = incoming.remaining.minus(qty);
                if incoming.side == Side::Sell {
                    self.free_units(incoming.account, incoming.instrument, qty);
                }
                incoming.remaining.is_zero()
            }
        }
    }

    fn shrink_resting(&mut self, slot: u32, by: Qty) {
        let before = *self.state.books.record(slot);
        let (account, instrument) = (AccountId(before.account), InstrumentId(before.instrument));
        self.state.books.shrink(slot, narrow(by.0), self.at);
        let subject = self.subject(slot);
        match subject.side {
            Side::Buy => {
                let freed = self.hold_behind(&before).minus(self.hold_behind(self.state.books.record(slot)));
                self.free_usd(account, freed);
            }
            Side::Sell => self.free_units(account, instrument, by),
        }
        self.touch(Place::of(&before));
        let told = self.told(SessionIndex(before.session), 0, &subject, Kind::Replaced);
        self.happened(|| Event::OrderReplaced(OrderReplaced::apart(told, subject)));
    }

    /// One match: the order in `slot`, first of the other side, gives as much as both have.
    fn trade(&mut self, incoming: &mut Incoming, slot: u32) {
        let instrument = incoming.instrument;
        let before = *self.state.books.record(slot);
        let terms = before.terms();
        let maker = AccountId(before.account);
        let price = Price(before.price.into());
        let qty = incoming.remaining.min(Qty(before.remaining.into()));
        let value = price.notional(qty, incoming.tick).expect("no more than the hold that was accepted");
        let maker_fee = value.basis_points(terms.maker_fee_bps);
        let taker_fee = value.basis_points(incoming.taker_fee_bps);
        self.touch(Place::of(&before));
        self.state.books.fill(slot, narrow(qty.0), self.at);
        incoming.remaining = incoming.remaining.minus(qty);
        incoming.filled = incoming.filled.plus(qty);

        self.state.counters.trade += 1;
        let trade = Trade {
            trade: TradeId(self.state.counters.trade),
            instrument,
            price,
            qty,
            value,
            aggressor: incoming.side,
            taker_order: incoming.id,
            taker: incoming.account,
            taker_fee,
            maker_order: OrderId(before.id),
            maker,
            maker_fee,
        };
        self.happened(|| Event::Traded(trade));
        let record = &mut self.state.instruments[usize::from(instrument.0)];
        record.last_trade = Some(LastTrade { price, qty, at: self.at });
        record.trades += 1;
        record.volume = Qty(record.volume.0.saturating_add(qty.0));

        match incoming.side {
            Side::Buy => {
                let paid = value.plus(taker_fee);
                incoming.hold = incoming.hold.minus(paid);
                self.settle_trade(&trade, incoming.account, maker, incoming.to_consumption, paid);
            }
            Side::Sell => {
                // What the limit held beyond the price paid and its fee goes back.
                let paid = value.plus(maker_fee);
                let left = self.hold_behind(self.state.books.record(slot));
                let freed = self.hold_behind(&before).minus(left);
                self.free_usd(maker, freed.minus(paid));
                self.settle_trade(&trade, maker, incoming.account, terms.to_consumption, paid);
            }
        }
        let exec = |aggressor| Exec::Trade { trade: trade.trade, price, qty, aggressor };
        let subject = self.subject(slot);
        let session = SessionIndex(before.session);
        if subject.quote != 0 {
            self.count_quote_fill(session, qty);
        }
        self.notify_order(session, subject, exec(false));
        self.notify_order(incoming.session, incoming.subject(), exec(true));
        if subject.remaining == 0 {
            self.retire(slot, subject.label);
            self.happened(|| Event::OrderClosed(OrderClosed::filled(subject)));
        }
    }
}

fn beyond(incoming: &Incoming, price: Price) -> bool {
    incoming.limit.is_some_and(|limit| !crosses(incoming.side, limit, price))
}
