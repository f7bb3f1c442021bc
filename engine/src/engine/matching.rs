//! Incoming against resting: best price first, then oldest first, at the resting order's price (contract §3.3 to 3.6).

use super::Step;
use super::ledger::Buyer;
use super::levels::Place;
use super::trading::{Incoming, crosses, resting_hold};
use crate::book::hold_of;
use crate::command::{SelfTrade, Side};
use crate::event::{Closure, Event, OrderClosed, OrderReplaced, Subject, Trade};
use crate::ids::{AccountId, InstrumentId, TradeId};
use crate::prefetch::ask_for;
use crate::reject::Reject;
use crate::report::{Fill, Kind};
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
        let order = &incoming.order;
        let mut left = order.remaining();
        let mut preview = Preview { fillable: Qty::ZERO, value: Usd::ZERO, limited: false };
        for resting in self.state.books.queue(order.instrument, order.side.opposite()) {
            if left.is_zero() {
                break;
            }
            let price = Price(resting.price.into());
            if beyond(incoming, price) {
                preview.limited = true;
                break;
            }
            let qty = left.min(Qty(resting.remaining.into()));
            if resting.account == order.account.0 {
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
        let Subject { instrument, account, side, .. } = incoming.order;
        while incoming.order.remaining != 0 {
            let Some((price, slot)) = self.state.books.front(instrument, side.opposite()) else {
                return Stopped::BookEmpty;
            };
            if beyond(incoming, Price(price.into())) {
                return Stopped::Limit;
            }
            let own = self.state.books.record(slot).account == account.0;
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
                let resting = self.state.books.record(slot).remaining;
                let qty = incoming.order.remaining.min(resting);
                if qty == resting {
                    self.close_resting(slot, Closure::SelfTrade);
                } else {
                    self.shrink_resting(slot, qty);
                }
                // A bid keeps its whole hold until it rests or closes; an ask gives the Units back at once.
                incoming.order.remaining -= qty;
                let Subject { account, instrument, side, remaining, .. } = incoming.order;
                if side == Side::Sell {
                    self.free_units(account, instrument, Qty(qty.into()));
                }
                remaining == 0
            }
        }
    }

    fn shrink_resting(&mut self, slot: u32, by: u32) {
        let before = *self.state.books.record(slot);
        let (account, instrument) = (AccountId(before.account), InstrumentId(before.instrument));
        self.state.books.shrink(slot, by, self.at);
        let subject = self.subject(slot);
        match subject.side {
            Side::Buy => {
                let freed = self.hold_behind(&before).minus(self.hold_behind(self.state.books.record(slot)));
                self.free_usd(account, freed);
            }
            Side::Sell => self.free_units(account, instrument, Qty(by.into())),
        }
        self.touch(Place::of(&before));
        let told = self.told(SessionIndex(before.session), 0, &subject, Kind::Replaced);
        self.happened(|| Event::OrderReplaced(OrderReplaced::apart(told, subject)));
    }

    /// Asks for what the trades of an account will move: they last left the caches with its trade before.
    #[inline(always)]
    fn ask_for_party(&self, account: AccountId, instrument: InstrumentId, side: Side) {
        ask_for(&self.state.accounts[account.0 as usize].usd_available);
        if let Some(holding) = self.state.holdings.get(account, instrument) {
            holding.ask_for_tranche(side);
        }
    }

    /// One match: the order in `slot`, first of the other side, gives as much as both have.
    fn trade(&mut self, incoming: &mut Incoming, slot: u32) {
        let before = *self.state.books.record(slot);
        let (terms, session) = (before.terms(), SessionIndex(before.session));
        self.ask_for_party(AccountId(before.account), incoming.order.instrument, terms.side);
        if incoming.order.filled == 0 {
            self.ask_for_party(incoming.order.account, incoming.order.instrument, incoming.order.side);
        }
        let narrow_qty = incoming.order.remaining.min(before.remaining);
        let (price, qty) = (Price(before.price.into()), Qty(narrow_qty.into()));
        let value = price.notional(qty, incoming.tick).expect("no more than the hold that was accepted");
        let maker_fee = value.basis_points(terms.maker_fee_bps);
        let taker_fee = value.basis_points(incoming.taker_fee_bps);
        self.touch(Place::of(&before));
        self.state.books.fill(slot, narrow_qty, self.at);
        let mut resting = self.subject_of(slot, &before);
        for order in [&mut resting, &mut incoming.order] {
            order.remaining -= narrow_qty;
            order.filled += narrow_qty;
        }

        self.state.counters.trade += 1;
        let id = TradeId(self.state.counters.trade);
        let trade = Trade {
            trade: id,
            instrument: resting.instrument,
            price,
            qty,
            value,
            aggressor: incoming.order.side,
            taker_order: incoming.order.id,
            taker: incoming.order.account,
            taker_fee,
            maker_order: resting.id,
            maker: resting.account,
            maker_fee,
        };
        self.happened(|| Event::Traded(trade));
        let record = &mut self.state.instruments[usize::from(trade.instrument.0)];
        record.last_trade = Some(LastTrade { price, qty, at: self.at });
        record.trades += 1;
        record.volume = Qty(record.volume.0.saturating_add(qty.0));

        match trade.aggressor {
            Side::Buy => {
                let paid = value.plus(taker_fee);
                incoming.hold = incoming.hold.minus(paid);
                let buyer = Buyer {
                    account: trade.taker,
                    released: paid,
                    paid,
                    to_consumption: incoming.to_consumption,
                };
                self.settle_trade(&trade, trade.maker, buyer);
            }
            Side::Sell => {
                // What the limit held beyond the price paid and its fee goes back.
                let fee = terms.highest_fee_bps();
                let left = hold_of(price, resting.remaining(), fee, incoming.tick)
                    .expect("less than the whole held");
                let released = resting_hold(&before, fee, incoming.tick).minus(left);
                let paid = value.plus(maker_fee);
                let buyer =
                    Buyer { account: trade.maker, released, paid, to_consumption: terms.to_consumption };
                self.settle_trade(&trade, trade.taker, buyer);
            }
        }
        if resting.quote != 0 {
            self.count_quote_fill(session, qty);
        }
        let fill = Fill { trade: id, price: before.price, qty: narrow_qty };
        self.notify_order(session, &resting, Kind::Trade { aggressor: false }, &fill);
        self.notify_order(incoming.session, &incoming.order, Kind::Trade { aggressor: true }, &fill);
        if resting.remaining == 0 {
            self.retire(slot, &before, resting.label);
            self.happened(|| Event::OrderClosed(OrderClosed::filled(resting)));
        }
    }
}

fn beyond(incoming: &Incoming, price: Price) -> bool {
    incoming.limit.is_some_and(|limit| !crosses(incoming.order.side, limit, price))
}
