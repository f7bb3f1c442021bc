//! Orders that are changed where they rest, or moved to another price.

use super::levels::Place;
use super::placing::{check_price, is_multiple};
use super::trading::{Entering, Incoming, crosses, resting_hold};
use super::{Refusal, Step};
use crate::book::{Depth, Record, WIDEST, hold_of, narrow};
use crate::command::{AccountMode, OrderRef, SelfTrade, Side};
use crate::event::{Event, OrderReplaced, Subject, Told};
use crate::ids::InstrumentId;
use crate::reject::Reject;
use crate::report::{Fill, Kind};
use crate::state::SessionIndex;
use crate::units::{Price, Qty, Usd};

impl Step<'_> {
    #[inline(never)]
    pub(super) fn replace(
        &mut self,
        order: OrderRef,
        qty: Qty,
        price: Price,
        stp: SelfTrade,
        post_only: bool,
    ) -> Result<(), Refusal> {
        if self.state.accounts[self.account.0 as usize].mode == AccountMode::Easy {
            return Err(Reject::AutoModeTradingRestricted.into());
        }
        if qty.is_zero() {
            return self.cancel(order);
        }
        let (slot, resting) = self.find(order)?;
        self.change::<false>((slot, resting), (qty, price), stp, post_only)
    }

    /// Changes a resting order of the account. Of a quote nobody is told, as with [`Self::open`].
    #[inline(always)]
    pub(super) fn change<const QUOTE: bool>(
        &mut self,
        (slot, resting): (u32, Record),
        (qty, price): (Qty, Price),
        stp: SelfTrade,
        post_only: bool,
    ) -> Result<(), Refusal> {
        self.state.books.ask_for_cells(InstrumentId(resting.instrument), resting.price, price);
        let before = self.subject_of(slot, &resting);
        let (instrument, side) = (before.instrument, before.side);
        let refuse = |reject: Reject| Refusal { reject, label: before.label, order: before.id };
        let terms = self.open_market(instrument).map_err(refuse)?;
        if qty > terms.max_qty || !is_multiple(qty, terms.lot) {
            return Err(refuse(Reject::InvalidQuantity));
        }
        check_price(price, terms).map_err(refuse)?;
        let (tick, fee) = (terms.tick, resting.terms().highest_fee_bps());
        // An ask holds no dollars, but what it would bring must be a sum of dollars too.
        let needed = hold_of(price, qty, if side == Side::Buy { fee } else { 0 }, tick);
        let needed = needed.ok_or(refuse(Reject::OutOfRange))?;
        if qty.0 + u64::from(resting.filled) > WIDEST {
            return Err(refuse(Reject::OutOfRange));
        }
        let (price, remaining) = (narrow(price.0), narrow(qty.0));
        let keeps_priority = price == resting.price && remaining <= resting.remaining;
        let trades = !keeps_priority && self.state.books.would_trade(instrument, side, price);
        if trades && post_only {
            return Err(refuse(Reject::WouldTrade));
        }
        match side {
            Side::Buy => {
                let held = resting_hold(&resting, fee, tick);
                let account = &mut self.state.accounts[self.account.0 as usize];
                let free = account.usd_available.plus(held);
                if needed > free && !keeps_priority {
                    return Err(refuse(Reject::InsufficientFunds));
                }
                account.updated_at = self.at;
                account.usd_available = free.minus(needed);
                account.usd_held = account.usd_held.minus(held).plus(needed);
            }
            Side::Sell => {
                let old_qty = Qty(resting.remaining.into());
                let holding = self.state.holdings.open(self.account, instrument, self.at);
                let free = holding.available.plus(old_qty);
                if qty > free {
                    return Err(refuse(Reject::InsufficientUnits));
                }
                holding.updated_at = self.at;
                holding.available = free.minus(qty);
                holding.held = holding.held.minus(old_qty).plus(qty);
            }
        }
        if trades {
            let hold = if side == Side::Buy { needed } else { Usd::ZERO };
            self.cross(slot, (price, remaining), stp, hold, !QUOTE);
            return Ok(());
        }
        let depths = if keeps_priority {
            [self.state.books.shrink(slot, resting.remaining - remaining, self.at); 2]
        } else {
            self.state.books.relocate(slot, price, remaining, self.at)
        };
        self.replaced::<QUOTE>(slot, resting.price, depths);
        Ok(())
    }

    /// Tells of an order that was changed, of the level that it left and of the one that it joined, and what both have now.
    #[inline(always)]
    fn replaced<const QUOTE: bool>(&mut self, slot: u32, left_price: u32, [left, joined]: [Depth; 2]) {
        let record = self.state.books.record(slot);
        let (session, to) = (SessionIndex(record.session), Place::of(record));
        let order = self.subject_of(slot, record);
        let told = if QUOTE { Told::NOBODY } else { self.told_replaced(&order) };
        let apart = QUOTE || !self.touched.is_empty();
        if apart {
            let from = Place { price: left_price, ..to };
            // The better price first: the next quote of a maker's row often leaves or joins the level that this one touched last.
            let better = crosses(from.side, Price(from.price.into()), Price(to.price.into()));
            let (near, far) = if better { (from, to) } else { (to, from) };
            self.touch(near);
            self.touch(far);
        }
        self.events.push(Event::OrderReplaced(OrderReplaced {
            told,
            order,
            left_qty: left.qty,
            joined_qty: joined.qty,
            left_orders: left.orders,
            joined_orders: if apart { 0 } else { joined.orders },
            left_price,
        }));
        if !QUOTE && session != self.session {
            self.notify_order(session, &order, Kind::Replaced, &Fill::default());
        }
    }

    /// The answer to whoever had the order changed.
    #[inline(always)]
    fn told_replaced(&mut self, order: &Subject) -> Told {
        self.told(self.session, self.client_seq, order, Kind::Replaced)
    }

    /// A changed order comes in again at a price at which it trades.
    #[inline(never)]
    fn cross(&mut self, slot: u32, (price, remaining): (u32, u32), stp: SelfTrade, hold: Usd, tells: bool) {
        let resting = *self.state.books.record(slot);
        let order = Subject { price, remaining, ..self.subject_of(slot, &resting) };
        let told = if tells { self.told_replaced(&order) } else { Told::NOBODY };
        self.touch(Place::of(&resting));
        self.events.push(Event::OrderReplaced(OrderReplaced::apart(told, order)));
        let session = SessionIndex(resting.session);
        if tells && session != self.session {
            self.notify_order(session, &order, Kind::Replaced, &Fill::default());
        }
        let mut incoming = self.reentering(&resting, order, stp);
        incoming.hold = hold;
        self.state.books.leave(slot);
        self.run(&mut incoming);
    }

    /// A resting order as it comes in again.
    fn reentering(&self, resting: &Record, order: Subject, stp: SelfTrade) -> Incoming {
        let terms = resting.terms();
        Incoming {
            order,
            session: SessionIndex(resting.session),
            tif: terms.tif,
            kind: Entering::Resting,
            stp,
            limit: Some(order.price()),
            hold: Usd::ZERO,
            tick: self.tick(order.instrument),
            maker_fee_bps: terms.maker_fee_bps,
            taker_fee_bps: terms.taker_fee_bps,
            to_consumption: terms.to_consumption,
            replaced: true,
        }
    }
}
