//! New orders: every check before anything changes, then the hold, and into the book or against it.

use super::levels::Place;
use super::trading::{Entering, Incoming};
use super::{Refusal, Step};
use crate::book::{Entry, Terms, hold_of, narrow};
use crate::command::{AccountMode, NewOrder, OrderKind, Side, TimeInForce};
use crate::event::{Event, LevelAfter, OrderOpened, Subject, Told};
use crate::ids::{InstrumentId, Label, OrderId};
use crate::instrument::{InstrumentStatus, MarketTerms};
use crate::limits;
use crate::reject::Reject;
use crate::report::Kind;
use crate::state::{Account, Holding};
use crate::units::{Nanos, Price, Qty, Usd};

impl Step<'_> {
    #[inline(never)]
    pub(super) fn place(&mut self, new: &NewOrder) -> Result<(), Refusal> {
        self.open::<false>(new, 0).map(|_| ())
    }

    /// Opens an order. A quote is one of several things that its command does: nobody is told that it was accepted, and its levels
    /// are told with all others in the end.
    #[inline(always)]
    pub(super) fn open<const QUOTE: bool>(&mut self, new: &NewOrder, quote: u8) -> Result<OrderId, Refusal> {
        let refuse = |reject: Reject| Refusal { reject, label: new.label, order: OrderId::default() };
        let OrderKind::Limit { price, tif } = new.kind else {
            return self.open_at_market(new);
        };
        let terms = self.check_terms(new).map_err(refuse)?;
        check_price(price, terms).map_err(refuse)?;
        let (price, remaining) = (narrow(price.0), narrow(new.qty.0));
        let (maker_fee_bps, taker_fee_bps) = (terms.maker_fee_bps, terms.taker_fee_bps);
        // An ask holds no dollars, but what it would bring must be a sum of dollars too.
        let hold = hold_of(Price(price.into()), new.qty, maker_fee_bps.max(taker_fee_bps), terms.tick);
        let hold = hold.ok_or(refuse(Reject::OutOfRange))?;
        let may_rest = tif.may_rest();
        let rests = may_rest && !self.state.books.would_trade(new.instrument, new.side, price);
        let holding = self.check_order(new, hold, may_rest, tif == TimeInForce::PostOnly && !rests)?;
        if !rests {
            return Ok(self.open_crossing(new, hold, holding, quote, !QUOTE));
        }
        let id = self.accept(new, hold, holding, true);
        let (account, instrument, side) = (self.account, new.instrument, new.side);
        let terms = Terms {
            side,
            tif,
            to_consumption: new.to_consumption,
            labelled: new.label != Label::default(),
            quote,
            maker_fee_bps,
            taker_fee_bps,
        };
        let (session, at) = (self.session, self.at);
        let entry = Entry { id, account, session, instrument, price, remaining, filled: 0, terms, at };
        let depth = self.enter(&entry, new.label);
        let level = self.level::<QUOTE>(Place { instrument, side, price }, depth);
        let label = new.label;
        let order = Subject { label, id, account, price, remaining, filled: 0, instrument, side, quote };
        let told = if QUOTE { Told::NOBODY } else { self.told_opened(&order) };
        let tag = (!new.tag.is_empty()).then(|| Box::new(self.remember_tag(new, id)));
        self.events.push(Event::OrderOpened(OrderOpened { told, order, level, tag, tif }));
        Ok(id)
    }

    /// The answer to whoever sent a new order.
    #[inline(always)]
    fn told_opened(&mut self, order: &Subject) -> Told {
        self.told(self.session, self.client_seq, order, Kind::New)
    }

    /// Opens an order at the book's prices, which holds what it would really cost.
    #[inline(never)]
    fn open_at_market(&mut self, new: &NewOrder) -> Result<OrderId, Refusal> {
        let refuse = |reject: Reject| Refusal { reject, label: new.label, order: OrderId::default() };
        let taker_fee_bps = self.check_terms(new).map_err(refuse)?.taker_fee_bps;
        let value = self.preview(&self.incoming(new, 0)).map_err(refuse)?.value;
        let hold = value.checked_add(value.basis_points(taker_fee_bps));
        let hold = hold.ok_or(refuse(Reject::OutOfRange))?;
        let holding = self.check_order(new, hold, false, false)?;
        Ok(self.open_crossing(new, hold, holding, 0, true))
    }

    /// Opens an order that trades at once, or would have to.
    #[inline(never)]
    fn open_crossing(&mut self, new: &NewOrder, hold: Usd, holding: u32, quote: u8, tells: bool) -> OrderId {
        let mut incoming = self.incoming(new, quote);
        incoming.order.id = self.accept(new, hold, holding, incoming.kind == Entering::Resting);
        if new.side == Side::Buy {
            incoming.hold = hold;
        }
        let order = incoming.order;
        let tag = (!new.tag.is_empty()).then(|| Box::new(self.remember_tag(new, order.id)));
        let told = if tells { self.told_opened(&order) } else { Told::NOBODY };
        let (level, tif) = (LevelAfter::APART, incoming.tif);
        self.events.push(Event::OrderOpened(OrderOpened { told, order, level, tag, tif }));
        self.run(&mut incoming);
        order.id
    }

    /// A new order on its way, of an instrument that there is.
    fn incoming(&self, new: &NewOrder, quote: u8) -> Incoming {
        let terms = &self.state.instruments[usize::from(new.instrument.0)].spec.market;
        let (kind, tif, price, limit) = match new.kind {
            OrderKind::Limit { price, tif } => {
                let kind = match tif {
                    TimeInForce::Ioc => Entering::Immediate,
                    TimeInForce::Fok => Entering::AllOrNothing,
                    TimeInForce::Gtc | TimeInForce::Day | TimeInForce::PostOnly => Entering::Resting,
                };
                (kind, tif, price, Some(price))
            }
            OrderKind::Market { max_slippage_bps, fill_or_kill } => {
                let kind = if fill_or_kill { Entering::AllOrNothing } else { Entering::Immediate };
                let limit =
                    max_slippage_bps.and_then(|bps| self.slippage_limit(new.instrument, new.side, bps));
                (kind, TimeInForce::Ioc, Price::ZERO, limit)
            }
        };
        let order = Subject {
            label: new.label,
            id: OrderId::default(),
            account: self.account,
            price: narrow(price.0),
            remaining: narrow(new.qty.0),
            filled: 0,
            instrument: new.instrument,
            side: new.side,
            quote,
        };
        Incoming {
            order,
            session: self.session,
            tif,
            kind,
            stp: new.stp,
            limit,
            hold: Usd::ZERO,
            tick: terms.tick,
            maker_fee_bps: terms.maker_fee_bps,
            taker_fee_bps: terms.taker_fee_bps,
            to_consumption: new.to_consumption,
            replaced: false,
        }
    }

    /// That the account may trade, and the market takes orders of such a quantity; its terms.
    #[inline(always)]
    fn check_terms(&self, new: &NewOrder) -> Result<&MarketTerms, Reject> {
        if self.state.accounts[self.account.0 as usize].mode == AccountMode::Easy {
            return Err(Reject::AutoModeTradingRestricted);
        }
        let terms = self.open_market(new.instrument)?;
        if new.qty < terms.min_qty || new.qty > terms.max_qty || !is_multiple(new.qty, terms.lot) {
            return Err(Reject::InvalidQuantity);
        }
        Ok(terms)
    }

    /// What else must hold before a new order changes anything; where the Units lie that an ask sells.
    #[inline(always)]
    fn check_order(
        &self,
        new: &NewOrder,
        hold: Usd,
        may_rest: bool,
        would_trade: bool,
    ) -> Result<u32, Refusal> {
        let refuse = |reject: Reject| Refusal { reject, label: new.label, order: OrderId::default() };
        if !new.tag.is_empty() && (new.tag.len() > limits::TEXT || new.label == Label::default()) {
            return Err(refuse(Reject::InvalidText));
        }
        if new.label != Label::default() {
            self.check_label(new)?;
        }
        if would_trade {
            return Err(refuse(Reject::WouldTrade));
        }
        let account = &self.state.accounts[self.account.0 as usize];
        if account.orders.len() >= limits::OPEN_ORDERS {
            return Err(refuse(Reject::TooManyOrders));
        }
        let mut holding = 0;
        match new.side {
            Side::Buy if hold > account.usd_available => return Err(refuse(Reject::InsufficientFunds)),
            Side::Buy => {}
            Side::Sell => {
                let place = self.state.holdings.place(self.account, new.instrument);
                holding = place.ok_or(refuse(Reject::InsufficientUnits))?;
                if new.qty > self.state.holdings[holding].available {
                    return Err(refuse(Reject::InsufficientUnits));
                }
                if account.watched.asks() && self.state.is_suspended(self.account, new.instrument) {
                    return Err(refuse(Reject::Suspended));
                }
            }
        }
        self.check_room(may_rest).map_err(refuse)?;
        Ok(holding)
    }

    #[inline(always)]
    pub(super) fn open_market(&self, instrument: InstrumentId) -> Result<&MarketTerms, Reject> {
        let instrument = self.state.instrument(instrument).ok_or(Reject::UnknownInstrument)?;
        if instrument.spec.status != InstrumentStatus::Live {
            return Err(Reject::InstrumentNotLive);
        }
        Ok(&instrument.spec.market)
    }

    /// Whether the venue can number one more order, and keep it if it may rest.
    #[inline(always)]
    pub(super) fn check_room(&self, rests: bool) -> Result<(), Reject> {
        let full = rests && !self.state.books.has_room();
        if full || self.state.counters.order >= OrderId::LAST_NUMBER {
            Err(Reject::LimitReached)
        } else {
            Ok(())
        }
    }

    #[inline(never)]
    fn check_label(&self, new: &NewOrder) -> Result<(), Refusal> {
        let account = &self.state.accounts[self.account.0 as usize];
        let earlier = account.labels.get(&new.label).or_else(|| account.tags.get(&new.label));
        match earlier {
            Some(&order) => Err(Refusal { reject: Reject::DuplicateLabel, label: new.label, order }),
            None => Ok(()),
        }
    }

    /// Keeps the label of an order with a tag, so that a repeat can't create a second order; the tag, for its event.
    #[inline(never)]
    fn remember_tag(&mut self, new: &NewOrder, order: OrderId) -> String {
        let account = self.account_mut(self.account);
        if account.tags_by_age.len() == limits::TAGS_KEPT
            && let Some(oldest) = account.tags_by_age.pop_front()
        {
            account.tags.remove(&oldest);
        }
        account.tags.insert(new.label, order);
        account.tags_by_age.push_back(new.label);
        new.tag.clone()
    }

    /// The worst price within `bps` hundredths of a percent of the best opposite one; `None` on an empty book.
    pub(super) fn slippage_limit(&self, instrument: InstrumentId, side: Side, bps: u16) -> Option<Price> {
        let best = u64::from(self.state.books.best_price(instrument, side.opposite())?);
        let limit = match side {
            Side::Buy => best * (10_000 + u64::from(bps)) / 10_000,
            Side::Sell => (best * u64::from(10_000_u16.saturating_sub(bps))).div_ceil(10_000),
        };
        Some(Price(limit))
    }

    /// Numbers a new order and sets aside what it holds. The caller has checked that it is funded, where the Units lie that it
    /// sells, and that there is room.
    #[inline(always)]
    fn accept(&mut self, new: &NewOrder, hold: Usd, holding: u32, may_rest: bool) -> OrderId {
        let (at, state) = (self.at, &mut *self.state);
        match new.side {
            Side::Buy => set_dollars_aside(&mut state.accounts[self.account.0 as usize], hold, at),
            Side::Sell => set_units_aside(&mut state.holdings[holding], new.qty, at),
        }
        self.number(may_rest)
    }

    /// The id of the next order.
    #[inline(always)]
    fn number(&mut self, may_rest: bool) -> OrderId {
        let state = &mut *self.state;
        state.counters.order += 1;
        let slot = may_rest.then(|| state.books.take_slot());
        OrderId::new(state.counters.order, slot)
    }

    /// Accepts an order of the venue's own making and tells the market of it; nobody else.
    pub(super) fn accept_own(&mut self, incoming: &mut Incoming, hold: Usd) {
        incoming.order.id = self.number(incoming.kind == Entering::Resting);
        let order = incoming.order;
        let (at, state) = (self.at, &mut *self.state);
        match order.side {
            Side::Buy => {
                incoming.hold = hold;
                set_dollars_aside(&mut state.accounts[order.account.0 as usize], hold, at);
            }
            Side::Sell => {
                let holding = state.holdings.open(order.account, order.instrument, at);
                set_units_aside(holding, order.remaining(), at);
            }
        }
        let opened = OrderOpened::untold(order, incoming.tif);
        self.events.push(Event::OrderOpened(opened));
    }
}

#[inline(always)]
fn set_dollars_aside(account: &mut Account, hold: Usd, at: Nanos) {
    account.updated_at = at;
    account.usd_available = account.usd_available.minus(hold);
    account.usd_held = account.usd_held.plus(hold);
}

#[inline(always)]
fn set_units_aside(holding: &mut Holding, qty: Qty, at: Nanos) {
    holding.updated_at = at;
    holding.available = holding.available.minus(qty);
    holding.held = holding.held.plus(qty);
}

/// Most instruments trade in single Units, and a division is slow.
pub(super) const fn is_multiple(qty: Qty, lot: Qty) -> bool {
    lot.0 == 1 || qty.0.is_multiple_of(lot.0)
}

#[inline(always)]
pub(super) fn check_price(price: Price, terms: &MarketTerms) -> Result<(), Reject> {
    if price.is_zero() || price > terms.max_price { Err(Reject::InvalidPrice) } else { Ok(()) }
}
