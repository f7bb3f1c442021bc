//! Orders in and out: every check before anything changes, then holds, matching, and what rests or closes.

use super::matching::Stopped;
use super::{Refusal, Step};
use crate::book::Order;
use crate::command::{
    AccountMode, MassCancelScope, NewOrder, OrderKind, OrderRef, SelfTrade, Side, TimeInForce,
};
use crate::event::{Closure, Event, Exec, OrderOpened, OrderReport, ReportBody};
use crate::ids::{AccountId, InstrumentId, Label, OrderId, SessionId};
use crate::instrument::{InstrumentStatus, MarketTerms};
use crate::limits;
use crate::reject::Reject;
use crate::state::Timer;
use crate::units::{Price, Qty, Usd};

/// An order on its way into the book.
pub(super) struct Incoming {
    pub(super) order: Order,
    pub(super) instrument: InstrumentId,
    /// No worse than this; `None` takes any price.
    pub(super) limit: Option<Price>,
    pub(super) kind: Entering,
    pub(super) stp: SelfTrade,
}

/// What becomes of a remainder.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Entering {
    /// It rests.
    Resting,
    /// It is closed.
    Immediate,
    /// There is none, or nothing happened at all.
    AllOrNothing,
}

impl Step<'_> {
    pub(super) fn place(&mut self, new: &NewOrder) -> Result<(), Refusal> {
        let refuse = |reject: Reject| Refusal { reject, label: new.label, order: OrderId::default() };
        let incoming = self.admit(new).map_err(refuse)?;
        let needed = self.needed_hold(&incoming).map_err(refuse)?;
        if new.tag.len() > limits::TEXT || (!new.tag.is_empty() && new.label == Label::default()) {
            return Err(refuse(Reject::InvalidText));
        }
        self.check_label(new)?;
        if matches!(new.kind, OrderKind::Limit { tif: TimeInForce::PostOnly, price }
            if self.would_trade(new.instrument, new.side, price))
        {
            return Err(refuse(Reject::WouldTrade));
        }
        if self.state.accounts[self.account.0 as usize].orders.len() >= limits::OPEN_ORDERS {
            return Err(refuse(Reject::TooManyOrders));
        }
        self.fund(&incoming, needed).map_err(refuse)?;
        self.remember_tag(new, incoming.order.id);
        let price = match new.kind {
            OrderKind::Limit { price, .. } => Some(price),
            OrderKind::Market { .. } => None,
        };
        self.enter(incoming, price, new.tag.clone(), true);
        Ok(())
    }

    /// Everything that can be said of a new order without looking at the book or at balances.
    fn admit(&self, new: &NewOrder) -> Result<Incoming, Reject> {
        if self.state.accounts[self.account.0 as usize].mode == AccountMode::Easy {
            return Err(Reject::AutoModeTradingRestricted);
        }
        let terms = self.open_market(new.instrument)?;
        if new.qty < terms.min_qty || new.qty > terms.max_qty || !new.qty.0.is_multiple_of(terms.lot.0) {
            return Err(Reject::InvalidQuantity);
        }
        let (price, limit, tif, kind) = match new.kind {
            OrderKind::Limit { price, tif } => {
                check_price(price, &terms)?;
                let kind = match tif {
                    TimeInForce::Ioc => Entering::Immediate,
                    TimeInForce::Fok => Entering::AllOrNothing,
                    TimeInForce::Gtc | TimeInForce::Day | TimeInForce::PostOnly => Entering::Resting,
                };
                (price, Some(price), tif, kind)
            }
            OrderKind::Market { max_slippage_bps, fill_or_kill } => {
                let limit =
                    max_slippage_bps.and_then(|bps| self.slippage_limit(new.instrument, new.side, bps));
                let kind = if fill_or_kill { Entering::AllOrNothing } else { Entering::Immediate };
                (Price::ZERO, limit, TimeInForce::Ioc, kind)
            }
        };
        let order = Order {
            id: OrderId(self.seq.0),
            account: self.account,
            session: self.session,
            label: new.label,
            side: new.side,
            price,
            remaining: new.qty,
            filled: Qty::ZERO,
            hold: Usd::ZERO,
            tif,
            maker_fee_bps: terms.maker_fee_bps,
            taker_fee_bps: terms.taker_fee_bps,
            to_consumption: new.to_consumption,
            submitted_at: self.at,
            updated_at: self.at,
        };
        Ok(Incoming { order, instrument: new.instrument, limit, kind, stp: new.stp })
    }

    fn open_market(&self, instrument: InstrumentId) -> Result<MarketTerms, Reject> {
        let instrument = self.state.instrument(instrument).ok_or(Reject::UnknownInstrument)?;
        if instrument.spec.status != InstrumentStatus::Live {
            return Err(Reject::InstrumentNotLive);
        }
        Ok(instrument.spec.market)
    }

    fn check_label(&self, new: &NewOrder) -> Result<(), Refusal> {
        let account = &self.state.accounts[self.account.0 as usize];
        let earlier = if new.label == Label::default() {
            None
        } else {
            account.labels.get(&new.label).or_else(|| account.tags.get(&new.label))
        };
        match earlier {
            Some(&order) => Err(Refusal { reject: Reject::DuplicateLabel, label: new.label, order }),
            None => Ok(()),
        }
    }

    fn remember_tag(&mut self, new: &NewOrder, order: OrderId) {
        if new.tag.is_empty() {
            return;
        }
        let account = self.account_mut(self.account);
        if account.tags_by_age.len() == limits::TAGS_KEPT
            && let Some(oldest) = account.tags_by_age.pop_front()
        {
            account.tags.remove(&oldest);
        }
        account.tags.insert(new.label, order);
        account.tags_by_age.push_back(new.label);
    }

    fn would_trade(&self, instrument: InstrumentId, side: Side, price: Price) -> bool {
        self.book(instrument).best(side.opposite()).is_some_and(|best| crosses(side, price, best.price))
    }

    /// The worst price within `bps` hundredths of a percent of the best opposite one; `None` on an empty book.
    pub(super) fn slippage_limit(&self, instrument: InstrumentId, side: Side, bps: u16) -> Option<Price> {
        let best = u128::from(self.book(instrument).best(side.opposite())?.price.0);
        let limit = match side {
            Side::Buy => best * (10_000 + u128::from(bps)) / 10_000,
            Side::Sell => (best * u128::from(10_000_u16.saturating_sub(bps))).div_ceil(10_000),
        };
        Some(Price(u64::try_from(limit).unwrap_or(u64::MAX)))
    }

    /// Refuses what the account can't pay or deliver; changes nothing.
    fn fund(&self, incoming: &Incoming, needed: Usd) -> Result<(), Reject> {
        let account = &self.state.accounts[incoming.order.account.0 as usize];
        match incoming.order.side {
            Side::Buy if needed > account.usd_available => Err(Reject::InsufficientFunds),
            Side::Sell => {
                let available = account.holdings.get(&incoming.instrument).map_or(Qty::ZERO, |h| h.available);
                if incoming.order.remaining > available { Err(Reject::InsufficientUnits) } else { Ok(()) }
            }
            Side::Buy => Ok(()),
        }
    }

    /// Dollars that an incoming bid must set aside: at its limit, or what a market order would really cost.
    fn needed_hold(&self, incoming: &Incoming) -> Result<Usd, Reject> {
        let order = &incoming.order;
        let tick = self.state.instruments[usize::from(incoming.instrument.0)].spec.market.tick;
        if order.price != Price::ZERO {
            let needed = hold_for(order, order.remaining, tick).ok_or(Reject::OutOfRange)?;
            return Ok(if order.side == Side::Buy { needed } else { Usd::ZERO });
        }
        let preview = self.preview(incoming)?;
        let fee = preview.value.basis_points(order.taker_fee_bps);
        let needed = preview.value.checked_add(fee).ok_or(Reject::OutOfRange)?;
        Ok(if order.side == Side::Buy { needed } else { Usd::ZERO })
    }

    /// Sets the hold aside, announces the order and matches it. The caller has checked that it is funded.
    pub(super) fn enter(
        &mut self,
        mut incoming: Incoming,
        price: Option<Price>,
        tag: String,
        answer: bool,
    ) -> Qty {
        let hold = self
            .needed_hold(&incoming)
            .unwrap_or_else(|reject| unreachable!("checked by the caller: {reject}"));
        let instrument = incoming.instrument;
        self.set_hold(&mut incoming.order, instrument, hold);
        let order = &incoming.order;
        self.events.push(Event::OrderOpened(OrderOpened {
            order: order.id,
            account: order.account,
            instrument,
            side: order.side,
            price,
            tif: order.tif,
            qty: order.remaining,
            label: order.label,
            tag,
        }));
        if answer {
            let report = OrderReport::new(order, instrument, Exec::New);
            self.answer(ReportBody::Order(report));
        }
        let before = incoming.order.filled;
        let filled = self.run(incoming);
        filled.minus(before)
    }

    fn set_hold(&mut self, order: &mut Order, instrument: InstrumentId, hold: Usd) {
        match order.side {
            Side::Buy => {
                order.hold = hold;
                let account = self.account_mut(order.account);
                account.usd_available = account.usd_available.minus(hold);
                account.usd_held = account.usd_held.plus(hold);
            }
            Side::Sell => {
                let holding = self.holding_mut(order.account, instrument);
                holding.available = holding.available.minus(order.remaining);
                holding.held = holding.held.plus(order.remaining);
            }
        }
    }

    /// Matches an incoming order whose hold is set, then rests or closes what is left. Returns what it has filled
    /// over its life.
    fn run(&mut self, mut incoming: Incoming) -> Qty {
        if incoming.kind == Entering::AllOrNothing {
            let (fillable, limited) = self
                .preview(&incoming)
                .map_or((Qty::ZERO, false), |preview| (preview.fillable, preview.limited));
            if fillable < incoming.order.remaining {
                let slipped = limited && incoming.order.price == Price::ZERO;
                let reason = if slipped { Closure::NoFillMaxSlippage } else { Closure::NoFillNoLiquidity };
                self.close_incoming(incoming, reason);
                return Qty::ZERO;
            }
        }
        let stopped = self.take(&mut incoming);
        let filled = incoming.order.filled;
        let none = filled.is_zero();
        match stopped {
            Stopped::Done => self.close_incoming(incoming, Closure::Filled),
            Stopped::SelfTrade => self.close_incoming(incoming, Closure::SelfTrade),
            Stopped::BookEmpty | Stopped::Limit if incoming.kind == Entering::Resting => self.rest(incoming),
            Stopped::Limit if incoming.order.price == Price::ZERO => {
                let reason =
                    if none { Closure::NoFillMaxSlippage } else { Closure::PartiallyFilledMaxSlippage };
                self.close_incoming(incoming, reason);
            }
            Stopped::BookEmpty | Stopped::Limit => {
                let reason =
                    if none { Closure::NoFillNoLiquidity } else { Closure::PartiallyFilledNoLiquidity };
                self.close_incoming(incoming, reason);
            }
        }
        filled
    }

    fn rest(&mut self, incoming: Incoming) {
        let Incoming { mut order, instrument, .. } = incoming;
        let tick = self.state.instruments[usize::from(instrument.0)].spec.market.tick;
        if order.side == Side::Buy {
            let needed =
                hold_for(&order, order.remaining, tick).expect("less than the hold that was accepted");
            let over = order.hold.minus(needed);
            order.hold = needed;
            self.free_usd(order.account, over);
        }
        if order.tif == TimeInForce::Day {
            self.state
                .timers
                .insert((order.submitted_at.next_midnight(), Timer::DayOrder(instrument, order.id)));
        }
        let account = self.account_mut(order.account);
        account.orders.insert(order.id, instrument);
        if order.label != Label::default() {
            account.labels.insert(order.label, order.id);
        }
        if let Some(index) = self.index_of(order.session) {
            self.state.sessions.order_rests(index);
        }
        self.touched.push((instrument, order.side, order.price));
        self.book_mut(instrument).insert(order);
    }

    /// Ends an order that is not in the book.
    fn close_incoming(&mut self, incoming: Incoming, reason: Closure) {
        let Incoming { order, instrument, .. } = incoming;
        self.close(&order, instrument, reason, None);
    }

    /// Gives back what the order still holds and says why it ended. The order is no longer in the book.
    fn close(&mut self, order: &Order, instrument: InstrumentId, reason: Closure, answer_to: Option<u64>) {
        match order.side {
            Side::Buy => self.free_usd(order.account, order.hold),
            Side::Sell => {
                let remaining = order.remaining;
                let holding = self.holding_mut(order.account, instrument);
                holding.held = holding.held.minus(remaining);
                holding.available = holding.available.plus(remaining);
            }
        }
        self.forget(order);
        let remaining = order.remaining;
        self.events.push(Event::OrderClosed {
            order: order.id,
            account: order.account,
            instrument,
            filled: order.filled,
            remaining,
            reason,
        });
        let report = OrderReport::new(order, instrument, Exec::Closed(reason)).with_nothing_open();
        if answer_to.is_some() {
            self.answer(ReportBody::Order(report));
        }
        // A fill has told its session already; a cancel through another session has not.
        let told = reason == Closure::Filled || (answer_to.is_some() && order.session == self.session);
        if !told {
            self.notify(order.session, order.account, ReportBody::Order(report));
        }
    }

    /// Drops the order from its account's lists and timers.
    fn forget(&mut self, order: &Order) {
        if order.tif == TimeInForce::Day
            && let Some(&instrument) = self.state.accounts[order.account.0 as usize].orders.get(&order.id)
        {
            let due = order.submitted_at.next_midnight();
            self.state.timers.remove(&(due, Timer::DayOrder(instrument, order.id)));
        }
        let account = self.account_mut(order.account);
        let rested = account.orders.remove(&order.id).is_some();
        if account.labels.get(&order.label) == Some(&order.id) {
            account.labels.remove(&order.label);
        }
        if rested && let Some(index) = self.index_of(order.session) {
            self.state.sessions.order_leaves(index);
        }
    }

    pub(super) fn free_usd(&mut self, account: AccountId, amount: Usd) {
        let account = self.account_mut(account);
        account.usd_held = account.usd_held.minus(amount);
        account.usd_available = account.usd_available.plus(amount);
    }

    /// Takes a resting order out of the book and ends it.
    pub(super) fn close_resting(
        &mut self,
        instrument: InstrumentId,
        id: OrderId,
        reason: Closure,
        answer_to: Option<u64>,
    ) {
        let order = self.book_mut(instrument).remove(id).expect("the caller found it resting");
        self.touched.push((instrument, order.side, order.price));
        self.close(&order, instrument, reason, answer_to);
    }

    fn find(&self, order: OrderRef) -> Result<(InstrumentId, OrderId), Refusal> {
        let account = &self.state.accounts[self.account.0 as usize];
        let (id, label) = match order {
            OrderRef::Id(id) => (Some(id), Label::default()),
            OrderRef::Label(label) => (account.labels.get(&label).copied(), label),
        };
        let found = id.and_then(|id| account.orders.get(&id).map(|&instrument| (instrument, id)));
        found.ok_or(Refusal { reject: Reject::UnknownOrder, label, order: id.unwrap_or_default() })
    }

    pub(super) fn cancel(&mut self, order: OrderRef) -> Result<(), Refusal> {
        let (instrument, id) = self.find(order)?;
        self.close_resting(instrument, id, Closure::Cancelled, Some(self.client_seq));
        Ok(())
    }

    pub(super) fn mass_cancel(&mut self, scope: MassCancelScope) -> Result<(), Refusal> {
        let account = &self.state.accounts[self.account.0 as usize];
        let matching: Vec<_> = account
            .orders
            .iter()
            .filter(|&(&id, &instrument)| {
                let order = self.book(instrument).order(id).expect("an account's orders rest in their books");
                scope.instrument.is_none_or(|wanted| wanted == instrument)
                    && scope.side.is_none_or(|wanted| wanted == order.side)
                    && scope.session.is_none_or(|wanted| wanted == order.session)
            })
            .map(|(&id, &instrument)| (instrument, id))
            .collect();
        self.answer(ReportBody::MassCancelled {
            count: u32::try_from(matching.len()).expect("bounded by OPEN_ORDERS"),
        });
        for (instrument, id) in matching {
            self.close_resting(instrument, id, Closure::Cancelled, None);
        }
        Ok(())
    }

    pub(super) fn cancel_orders_of_session(&mut self, account: AccountId, session: SessionId) {
        let Some(state) = self.state.account(account) else {
            return;
        };
        let matching: Vec<_> = state
            .orders
            .iter()
            .filter(|&(&id, &instrument)| {
                self.book(instrument).order(id).is_some_and(|o| o.session == session)
            })
            .map(|(&id, &instrument)| (instrument, id))
            .collect();
        for (instrument, id) in matching {
            self.close_resting(instrument, id, Closure::Cancelled, None);
        }
    }

    pub(super) fn expire_day_order(&mut self, instrument: InstrumentId, id: OrderId) {
        if self.book(instrument).order(id).is_some() {
            self.close_resting(instrument, id, Closure::Expired, None);
        }
    }

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
        let (instrument, id) = self.find(order)?;
        let resting =
            self.book(instrument).order(id).expect("an account's orders rest in their books").clone();
        let refuse = |reject: Reject| Refusal { reject, label: resting.label, order: id };
        if qty.is_zero() {
            self.close_resting(instrument, id, Closure::Cancelled, Some(self.client_seq));
            return Ok(());
        }
        let terms = self.open_market(instrument).map_err(refuse)?;
        if qty > terms.max_qty || !qty.0.is_multiple_of(terms.lot.0) {
            return Err(refuse(Reject::InvalidQuantity));
        }
        check_price(price, &terms).map_err(refuse)?;
        let changed = Order { price, remaining: qty, updated_at: self.at, ..resting.clone() };
        let hold = match resting.side {
            Side::Buy => hold_for(&changed, qty, terms.tick).ok_or(refuse(Reject::OutOfRange))?,
            Side::Sell => {
                price.notional(qty, terms.tick).ok_or(refuse(Reject::OutOfRange))?;
                Usd::ZERO
            }
        };
        let keeps_priority = price == resting.price && qty <= resting.remaining;
        if !keeps_priority {
            if post_only && self.would_trade(instrument, resting.side, price) {
                return Err(refuse(Reject::WouldTrade));
            }
            self.can_change(&resting, instrument, qty, hold).map_err(refuse)?;
        }
        self.move_hold(&resting, instrument, qty, hold);
        self.touched.push((instrument, resting.side, resting.price));
        let changed = Order { hold, ..changed };
        self.events.push(Event::OrderReplaced {
            order: id,
            account: changed.account,
            instrument,
            price,
            remaining: qty,
        });
        let report = OrderReport::new(&changed, instrument, Exec::Replaced);
        self.answer(ReportBody::Order(report));
        if changed.session != self.session {
            self.notify(changed.session, changed.account, ReportBody::Order(report));
        }
        if keeps_priority {
            self.book_mut(instrument).amend(id, |order| *order = changed);
        } else {
            self.book_mut(instrument).remove(id);
            self.forget(&resting);
            self.run(Incoming {
                order: changed,
                instrument,
                limit: Some(price),
                kind: Entering::Resting,
                stp,
            });
        }
        Ok(())
    }

    /// Whether the account can carry the changed order, with what the resting one holds given back.
    fn can_change(
        &self,
        resting: &Order,
        instrument: InstrumentId,
        qty: Qty,
        hold: Usd,
    ) -> Result<(), Reject> {
        let account = &self.state.accounts[resting.account.0 as usize];
        match resting.side {
            Side::Buy if hold > account.usd_available.plus(resting.hold) => Err(Reject::InsufficientFunds),
            Side::Sell if qty > account.holdings[&instrument].available.plus(resting.remaining) => {
                Err(Reject::InsufficientUnits)
            }
            _ => Ok(()),
        }
    }

    fn move_hold(&mut self, resting: &Order, instrument: InstrumentId, qty: Qty, hold: Usd) {
        match resting.side {
            Side::Buy => {
                let account = self.account_mut(resting.account);
                account.usd_available = account.usd_available.plus(resting.hold).minus(hold);
                account.usd_held = account.usd_held.minus(resting.hold).plus(hold);
            }
            Side::Sell => {
                let holding = self.holding_mut(resting.account, instrument);
                holding.available = holding.available.plus(resting.remaining).minus(qty);
                holding.held = holding.held.minus(resting.remaining).plus(qty);
            }
        }
    }
}

/// True when an order at `price` on `side` trades with an opposite one at `opposite`.
pub(super) fn crosses(side: Side, price: Price, opposite: Price) -> bool {
    match side {
        Side::Buy => price >= opposite,
        Side::Sell => price <= opposite,
    }
}

/// What a bid holds for `qty` of its open quantity: notional at its limit, and the higher of its two fees.
pub(super) fn hold_for(order: &Order, qty: Qty, tick: Usd) -> Option<Usd> {
    let notional = order.price.notional(qty, tick)?;
    notional.checked_add(notional.basis_points(order.maker_fee_bps.max(order.taker_fee_bps)))
}

fn check_price(price: Price, terms: &MarketTerms) -> Result<(), Reject> {
    if price.is_zero() || price > terms.max_price { Err(Reject::InvalidPrice) } else { Ok(()) }
}
