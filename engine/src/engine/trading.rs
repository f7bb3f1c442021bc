//! Orders in and out: every check before anything changes, then holds, matching, and what rests or closes.

use std::cmp::Ordering;

use super::levels::Place;
use super::matching::Stopped;
use super::{Refusal, Step};
use crate::book::{Depth, Entry, NONE, Record, Terms, WIDEST, hold_of};
use crate::command::{
    AccountMode, MassCancelScope, NewOrder, OrderKind, OrderRef, SelfTrade, Side, TimeInForce,
};
use crate::event::{Closure, Event, Exec, LevelUpdate, OrderOpened, ReportBody};
use crate::ids::{AccountId, InstrumentId, Label, OrderId, SessionId};
use crate::instrument::{InstrumentStatus, MarketTerms};
use crate::limits;
use crate::reject::Reject;
use crate::report::Subject;
use crate::state::{SessionIndex, Timer};
use crate::units::{Nanos, Price, Qty, Usd};

/// An order on its way into the book.
pub(super) struct Incoming {
    /// Given when it is accepted.
    pub(super) id: OrderId,
    pub(super) account: AccountId,
    pub(super) session: SessionIndex,
    pub(super) label: Label,
    pub(super) instrument: InstrumentId,
    pub(super) side: Side,
    pub(super) tif: TimeInForce,
    pub(super) kind: Entering,
    pub(super) stp: SelfTrade,
    /// Zero for an order at the book's prices.
    pub(super) price: Price,
    /// No worse than this; `None` takes any price.
    pub(super) limit: Option<Price>,
    pub(super) remaining: Qty,
    pub(super) filled: Qty,
    /// Dollars set aside for it.
    pub(super) hold: Usd,
    /// What a tick is worth here.
    pub(super) tick: Usd,
    pub(super) maker_fee_bps: u16,
    pub(super) taker_fee_bps: u16,
    pub(super) to_consumption: bool,
    /// It rested before and keeps its slot and its place among its account's orders.
    pub(super) replaced: bool,
    /// Of a quote its number, else 0.
    pub(super) quote: u8,
}

impl Incoming {
    /// What it must hold for what is open of it. `None` above `i64::MAX`.
    pub(super) fn needs(&self) -> Option<Usd> {
        hold_of(self.price, self.remaining, self.maker_fee_bps.max(self.taker_fee_bps), self.tick)
    }

    #[inline(always)]
    pub(super) fn subject(&self) -> Subject {
        Subject {
            order: self.id,
            label: self.label,
            instrument: self.instrument,
            side: self.side,
            price: narrow(self.price.0),
            remaining: narrow(self.remaining.0),
            filled: narrow(self.filled.0),
            quote: self.quote,
        }
    }
}

/// What an order's session hears of its end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Hears {
    /// That it is done: the command asked for this and nothing else.
    Answer,
    /// That it happened.
    Notice,
    /// Nothing of this order: one answer covers all that the command did.
    Nothing,
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
    #[inline(never)]
    pub(super) fn place(&mut self, new: &NewOrder) -> Result<(), Refusal> {
        self.open::<false>(new, 0).map(|_| ())
    }

    /// Opens an order. A quote is one of several things that its command does: nobody is told that it was accepted, and its levels
    /// are told with all others in the end.
    #[inline(always)]
    pub(super) fn open<const QUOTE: bool>(&mut self, new: &NewOrder, quote: u8) -> Result<OrderId, Refusal> {
        let refuse = |reject: Reject| Refusal { reject, label: new.label, order: OrderId::default() };
        let mut incoming = self.admit(new, quote).map_err(refuse)?;
        let needed = self.needed_hold(&incoming).map_err(refuse)?;
        if new.tag.len() > limits::TEXT || (!new.tag.is_empty() && new.label == Label::default()) {
            return Err(refuse(Reject::InvalidText));
        }
        self.check_label(new)?;
        // A market order, whose price is zero, does not rest.
        let rests =
            incoming.kind == Entering::Resting && !self.would_trade(new.instrument, new.side, incoming.price);
        if incoming.tif == TimeInForce::PostOnly && !rests {
            return Err(refuse(Reject::WouldTrade));
        }
        let account = &self.state.accounts[self.account.0 as usize];
        if account.orders.len() >= limits::OPEN_ORDERS {
            return Err(refuse(Reject::TooManyOrders));
        }
        match new.side {
            Side::Buy if needed > account.usd_available => return Err(refuse(Reject::InsufficientFunds)),
            Side::Sell => {
                let available = self.units_available(self.account, new.instrument);
                if new.qty > available {
                    return Err(refuse(Reject::InsufficientUnits));
                }
                if account.watched.asks() && self.state.is_suspended(self.account, new.instrument) {
                    return Err(refuse(Reject::Suspended));
                }
            }
            Side::Buy => {}
        }
        self.check_room(incoming.kind == Entering::Resting).map_err(refuse)?;
        let price = (!incoming.price.is_zero()).then_some(incoming.price);
        self.accept(&mut incoming, needed);
        if !new.tag.is_empty() {
            self.remember_tag(new, incoming.id);
        }
        if rests {
            let (place, depth) = self.enter(&incoming);
            let level = self.level::<QUOTE>(place, depth);
            self.announce(&incoming, price, &new.tag, level);
            if !QUOTE {
                self.answer_order(&incoming.subject(), Exec::New);
            }
        } else {
            self.announce(&incoming, price, &new.tag, None);
            if !QUOTE {
                self.answer_order(&incoming.subject(), Exec::New);
            }
            self.run(&mut incoming);
        }
        Ok(incoming.id)
    }

    /// Everything that can be said of a new order without looking at balances.
    #[inline(always)]
    fn admit(&self, new: &NewOrder, quote: u8) -> Result<Incoming, Reject> {
        if self.state.accounts[self.account.0 as usize].mode == AccountMode::Easy {
            return Err(Reject::AutoModeTradingRestricted);
        }
        let terms = self.open_market(new.instrument)?;
        if new.qty < terms.min_qty || new.qty > terms.max_qty || !is_multiple(new.qty, terms.lot) {
            return Err(Reject::InvalidQuantity);
        }
        let (price, limit, tif, kind) = match new.kind {
            OrderKind::Limit { price, tif } => {
                check_price(price, terms)?;
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
        Ok(Incoming {
            id: OrderId::default(),
            account: self.account,
            session: self.session_index,
            label: new.label,
            instrument: new.instrument,
            side: new.side,
            tif,
            kind,
            stp: new.stp,
            price,
            limit,
            remaining: new.qty,
            filled: Qty::ZERO,
            hold: Usd::ZERO,
            tick: terms.tick,
            maker_fee_bps: terms.maker_fee_bps,
            taker_fee_bps: terms.taker_fee_bps,
            to_consumption: new.to_consumption,
            replaced: false,
            quote,
        })
    }

    fn open_market(&self, instrument: InstrumentId) -> Result<&MarketTerms, Reject> {
        let instrument = self.state.instrument(instrument).ok_or(Reject::UnknownInstrument)?;
        if instrument.spec.status != InstrumentStatus::Live {
            return Err(Reject::InstrumentNotLive);
        }
        Ok(&instrument.spec.market)
    }

    /// Whether the venue can number one more order, and keep it if it may rest.
    pub(super) fn check_room(&self, rests: bool) -> Result<(), Reject> {
        let full = rests && !self.state.books.has_room();
        if full || self.state.counters.order >= OrderId::LAST_NUMBER {
            Err(Reject::LimitReached)
        } else {
            Ok(())
        }
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

    #[inline(never)]
    fn remember_tag(&mut self, new: &NewOrder, order: OrderId) {
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
        self.state.books.would_trade(instrument, side, narrow(price.0))
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

    /// Dollars that an incoming bid must set aside: at its limit, or what a market order would really cost.
    fn needed_hold(&self, incoming: &Incoming) -> Result<Usd, Reject> {
        let needed = if incoming.price.is_zero() {
            let value = self.preview(incoming)?.value;
            value.checked_add(value.basis_points(incoming.taker_fee_bps))
        } else {
            incoming.needs()
        };
        let needed = needed.ok_or(Reject::OutOfRange)?;
        Ok(if incoming.side == Side::Buy { needed } else { Usd::ZERO })
    }

    /// Units that the account can sell.
    #[inline(always)]
    fn units_available(&self, account: AccountId, instrument: InstrumentId) -> Qty {
        self.state.holdings.get(account, instrument).map_or(Qty::ZERO, |holding| holding.available)
    }

    /// Numbers the order and sets its hold aside. The caller has checked that it is funded and that there is room.
    #[inline(always)]
    pub(super) fn accept(&mut self, incoming: &mut Incoming, hold: Usd) {
        let state = &mut *self.state;
        state.counters.order += 1;
        let slot = (incoming.kind == Entering::Resting).then(|| state.books.take_slot());
        incoming.id = OrderId::new(state.counters.order, slot);
        match incoming.side {
            Side::Buy => {
                incoming.hold = hold;
                let account = self.account_mut(incoming.account);
                account.usd_available = account.usd_available.minus(hold);
                account.usd_held = account.usd_held.plus(hold);
            }
            Side::Sell => {
                let holding = self.holding_mut(incoming.account, incoming.instrument);
                holding.available = holding.available.minus(incoming.remaining);
                holding.held = holding.held.plus(incoming.remaining);
            }
        }
    }

    /// Tells everybody of a new order.
    #[inline(always)]
    pub(super) fn announce(
        &mut self,
        incoming: &Incoming,
        price: Option<Price>,
        tag: &str,
        level: Option<LevelUpdate>,
    ) {
        self.events.push(Event::OrderOpened(OrderOpened {
            order: incoming.id,
            account: incoming.account,
            instrument: incoming.instrument,
            side: incoming.side,
            price,
            tif: incoming.tif,
            qty: incoming.remaining,
            label: incoming.label,
            // Most have none, and even an empty copy would be made through the allocator.
            tag: if tag.is_empty() { String::new() } else { tag.to_owned() },
            level,
        }));
    }

    /// Matches an incoming order whose hold is set, then rests or closes what is left.
    pub(super) fn run(&mut self, incoming: &mut Incoming) {
        if incoming.kind == Entering::AllOrNothing {
            let (fillable, limited) = self
                .preview(incoming)
                .map_or((Qty::ZERO, false), |preview| (preview.fillable, preview.limited));
            if fillable < incoming.remaining {
                let slipped = limited && incoming.price.is_zero();
                let reason = if slipped { Closure::NoFillMaxSlippage } else { Closure::NoFillNoLiquidity };
                return self.close_incoming(incoming, reason);
            }
        }
        let entered = incoming.remaining;
        let stopped = self.take(incoming);
        let none = incoming.filled.is_zero();
        match stopped {
            Stopped::Done => self.close_incoming(incoming, Closure::Filled),
            Stopped::SelfTrade => self.close_incoming(incoming, Closure::SelfTrade),
            Stopped::BookEmpty | Stopped::Limit if incoming.kind == Entering::Resting => {
                if incoming.remaining != entered && incoming.side == Side::Buy {
                    let needed = incoming.needs().expect("less than the hold that was accepted");
                    self.free_usd(incoming.account, incoming.hold.minus(needed));
                }
                self.rest(incoming);
            }
            Stopped::Limit if incoming.price.is_zero() => {
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
    }

    /// What is left of an incoming order goes into the book.
    pub(super) fn rest(&mut self, incoming: &Incoming) {
        if !incoming.replaced {
            let (place, _) = self.enter(incoming);
            return self.touch(place);
        }
        let slot = slot_of(incoming);
        let (price, remaining) = (narrow(incoming.price.0), narrow(incoming.remaining.0));
        let filled = narrow(incoming.filled.0);
        let (at, books) = (self.at.0, &mut self.state.books);
        books.change(slot, |record| {
            (record.price, record.remaining, record.filled) = (price, remaining, filled);
            record.updated_at = at;
        });
        books.join(slot);
        self.touch(Place { instrument: incoming.instrument, side: incoming.side, price });
    }

    /// Puts an order into the book that never rested before; which level it joined, and what that has now.
    #[inline(always)]
    fn enter(&mut self, incoming: &Incoming) -> (Place, Depth) {
        let slot = slot_of(incoming);
        let (at, state) = (self.at, &mut *self.state);
        let labelled = incoming.label != Label::default();
        let terms = Terms {
            side: incoming.side,
            tif: incoming.tif,
            to_consumption: incoming.to_consumption,
            labelled,
            quote: incoming.quote,
            maker_fee_bps: incoming.maker_fee_bps,
            taker_fee_bps: incoming.taker_fee_bps,
        };
        let entering = Entry {
            id: incoming.id,
            account: incoming.account,
            session: incoming.session,
            instrument: incoming.instrument,
            price: narrow(incoming.price.0),
            remaining: narrow(incoming.remaining.0),
            filled: narrow(incoming.filled.0),
            terms,
            at,
        };
        if incoming.tif == TimeInForce::Day {
            let timer = Timer::DayOrder(incoming.instrument, incoming.id);
            state.timers.insert((at.next_midnight(), timer));
        }
        let account = &mut state.accounts[incoming.account.0 as usize];
        if labelled {
            account.labels.insert(incoming.label, incoming.id);
            state.books.set_label(slot, incoming.label);
        }
        state.sessions.order_rests(incoming.session);
        let depth = state.books.enter(slot, &entering, &mut account.orders);
        (Place { instrument: incoming.instrument, side: incoming.side, price: entering.price }, depth)
    }

    /// Ends an order that is not in the book: gives back what it still holds and says why.
    #[inline(never)]
    fn close_incoming(&mut self, incoming: &Incoming, reason: Closure) {
        match incoming.side {
            Side::Buy => self.free_usd(incoming.account, incoming.hold),
            Side::Sell => self.free_units(incoming.account, incoming.instrument, incoming.remaining),
        }
        if let Some(slot) = incoming.id.slot() {
            if incoming.replaced {
                self.retire(slot, incoming.label);
            } else {
                self.state.books.give_slot(slot);
            }
        }
        let subject = incoming.subject();
        self.tell_closed((incoming.account, incoming.session), &subject, reason, None, Hears::Notice);
    }

    /// Says that an order has ended. `subject` has what was open of it.
    #[inline(always)]
    pub(super) fn tell_closed(
        &mut self,
        (account, session): (AccountId, SessionIndex),
        subject: &Subject,
        reason: Closure,
        level: Option<LevelUpdate>,
        hears: Hears,
    ) {
        self.events.push(Event::OrderClosed {
            order: subject.order,
            account,
            instrument: subject.instrument,
            filled: Qty(subject.filled.into()),
            remaining: Qty(subject.remaining.into()),
            reason,
            level,
        });
        let (subject, exec) = (Subject { remaining: 0, ..*subject }, Exec::Closed(reason));
        if hears == Hears::Answer {
            self.answer_order(&subject, exec);
        }
        // A fill has told its session already; a cancel through another session has not.
        let told = match hears {
            Hears::Answer => session == self.session_index,
            Hears::Notice => reason == Closure::Filled,
            Hears::Nothing => true,
        };
        if !told {
            self.notify_order(session, account, &subject, exec);
        }
    }

    /// Frees the slot of an order that is in no level any more, and drops it from its account's lists and timers.
    #[inline(always)]
    pub(super) fn retire(&mut self, slot: u32, label: Label) {
        let state = &mut *self.state;
        let owner = state.books.record(slot).account as usize;
        let account = &mut state.accounts[owner];
        let record = state.books.retire(slot, &mut account.orders);
        state.sessions.order_leaves(SessionIndex(record.session));
        if label != Label::default() {
            account.labels.remove(&label);
        }
        if record.terms().tif == TimeInForce::Day {
            let due = Nanos(record.submitted_at).next_midnight();
            let timer = Timer::DayOrder(InstrumentId(record.instrument), OrderId(record.id));
            state.timers.remove(&(due, timer));
        }
    }

    #[inline(always)]
    pub(super) fn free_usd(&mut self, account: AccountId, amount: Usd) {
        let account = self.account_mut(account);
        account.usd_held = account.usd_held.minus(amount);
        account.usd_available = account.usd_available.plus(amount);
    }

    #[inline(always)]
    pub(super) fn free_units(&mut self, account: AccountId, instrument: InstrumentId, qty: Qty) {
        let holding = self.holding_mut(account, instrument);
        holding.held = holding.held.minus(qty);
        holding.available = holding.available.plus(qty);
    }

    /// A resting order as it stands at this moment.
    #[inline]
    pub(super) fn subject(&self, slot: u32) -> Subject {
        self.subject_of(slot, self.state.books.record(slot))
    }

    /// As [`Self::subject`], of a record that was read already.
    #[inline]
    fn subject_of(&self, slot: u32, record: &Record) -> Subject {
        Subject {
            order: OrderId(record.id),
            label: self.state.books.label_of(slot, record),
            instrument: InstrumentId(record.instrument),
            side: record.side(),
            price: record.price,
            remaining: record.remaining,
            filled: record.filled,
            quote: record.quote(),
        }
    }

    /// Takes a resting order out of the book and ends it, for its owner who asked for that alone.
    #[inline(never)]
    fn cancel_resting(&mut self, slot: u32) {
        self.end_resting(slot, Closure::Cancelled, Hears::Answer);
    }

    /// Takes a resting order out of the book and ends it, among other things.
    #[inline(never)]
    pub(super) fn close_resting(&mut self, slot: u32, reason: Closure) {
        self.end_resting(slot, reason, Hears::Notice);
    }

    /// Takes a quote out of the book and ends it, for its owner who is told of all of them at once.
    #[inline(never)]
    pub(super) fn withdraw_quote(&mut self, slot: u32) {
        self.end_resting(slot, Closure::Cancelled, Hears::Nothing);
    }

    #[inline(always)]
    fn end_resting(&mut self, slot: u32, reason: Closure, hears: Hears) {
        let record = *self.state.books.record(slot);
        let (account, instrument) = (AccountId(record.account), InstrumentId(record.instrument));
        let session = SessionIndex(record.session);
        let subject = self.subject_of(slot, &record);
        match subject.side {
            Side::Buy => {
                let hold = self.hold_behind(&record);
                self.free_usd(account, hold);
            }
            Side::Sell => self.free_units(account, instrument, Qty(record.remaining.into())),
        }
        let (place, depth) = (Place::of(&record), self.state.books.leave(slot));
        self.retire(slot, subject.label);
        let level = if hears == Hears::Answer {
            self.level::<false>(place, depth)
        } else {
            self.touch(place);
            None
        };
        self.tell_closed((account, session), &subject, reason, level, hears);
    }

    /// Dollars that a resting bid holds.
    #[inline]
    pub(super) fn hold_behind(&self, record: &Record) -> Usd {
        resting_hold(record, record.terms().highest_fee_bps(), self.tick(InstrumentId(record.instrument)))
    }

    pub(super) fn tick(&self, instrument: InstrumentId) -> Usd {
        self.state.instruments[usize::from(instrument.0)].spec.market.tick
    }

    /// The slot of an open order of this account.
    fn find(&self, order: OrderRef) -> Result<u32, Refusal> {
        let (id, label) = match order {
            OrderRef::Id(id) => (Some(id), Label::default()),
            OrderRef::Label(label) => {
                (self.state.accounts[self.account.0 as usize].labels.get(&label).copied(), label)
            }
        };
        let id = id.unwrap_or_default();
        let found = self.state.books.find(id).filter(|record| record.account == self.account.0);
        found.and_then(|record| OrderId(record.id).slot()).ok_or(Refusal {
            reject: Reject::UnknownOrder,
            label,
            order: id,
        })
    }

    #[inline(never)]
    pub(super) fn cancel(&mut self, order: OrderRef) -> Result<(), Refusal> {
        let slot = self.find(order)?;
        self.cancel_resting(slot);
        Ok(())
    }

    pub(super) fn mass_cancel(&mut self, scope: MassCancelScope) -> Result<(), Refusal> {
        let books = &self.state.books;
        let orders = self.state.accounts[self.account.0 as usize].orders;
        let count = books.own(orders).filter(|&slot| self.covers(scope, slot)).count();
        let count = u32::try_from(count).expect("bounded by OPEN_ORDERS");
        self.answer(ReportBody::MassCancelled { count });
        self.close_covered(self.account, scope);
        Ok(())
    }

    pub(super) fn cancel_orders_of_session(&mut self, account: AccountId, session: SessionId) {
        if self.state.account(account).is_some() {
            self.close_covered(
                account,
                MassCancelScope { session: Some(session), instrument: None, side: None },
            );
        }
    }

    fn covers(&self, scope: MassCancelScope, slot: u32) -> bool {
        let books = &self.state.books;
        let record = books.record(slot);
        scope.instrument.is_none_or(|wanted| wanted.0 == record.instrument)
            && scope.side.is_none_or(|wanted| wanted == record.side())
            && scope
                .session
                .is_none_or(|wanted| wanted == self.state.sessions.id(SessionIndex(record.session)))
    }

    /// Closes an account's orders in the scope, oldest first.
    fn close_covered(&mut self, account: AccountId, scope: MassCancelScope) {
        let mut at = self.state.accounts[account.0 as usize].orders.first();
        while at != NONE {
            let slot = at;
            at = self.state.books.record(slot).own_next;
            if self.covers(scope, slot) {
                self.close_resting(slot, Closure::Cancelled);
            }
        }
    }

    /// Closes an account's asks in instruments that it is suspended from, oldest first.
    #[cold]
    pub(super) fn close_asks_of_suspended(&mut self, account: AccountId) {
        let mut at = self.state.accounts[account.0 as usize].orders.first();
        while at != NONE {
            let slot = at;
            let record = self.state.books.record(slot);
            at = record.own_next;
            let instrument = InstrumentId(record.instrument);
            if record.side() == Side::Sell && self.state.is_suspended(account, instrument) {
                self.close_resting(slot, Closure::Suspended);
            }
        }
    }

    pub(super) fn expire_day_order(&mut self, id: OrderId) {
        if let Some(slot) = self.state.books.find(id).and_then(|_| id.slot()) {
            self.close_resting(slot, Closure::Expired);
        }
    }

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
        let slot = self.find(order)?;
        if qty.is_zero() {
            self.cancel_resting(slot);
            return Ok(());
        }
        self.change::<false>(slot, qty, price, stp, post_only)
    }

    /// Changes a resting order of the account. Of a quote nobody is told, as with [`Self::open`].
    #[inline(always)]
    pub(super) fn change<const QUOTE: bool>(
        &mut self,
        slot: u32,
        qty: Qty,
        price: Price,
        stp: SelfTrade,
        post_only: bool,
    ) -> Result<(), Refusal> {
        let resting = *self.state.books.record(slot);
        self.state.books.ask_for_cells(&resting, price);
        let before = self.subject_of(slot, &resting);
        let (instrument, side) = (before.instrument, before.side);
        let refuse = |reject: Reject| Refusal { reject, label: before.label, order: before.order };
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
        let place = Place::of(&resting);
        let levels = if keeps_priority {
            let depth = self.state.books.shrink(slot, resting.remaining - remaining, self.at);
            [self.level::<QUOTE>(place, depth), None]
        } else if trades {
            self.touch(place);
            [None; 2]
        } else {
            let depths = self.state.books.relocate(slot, price, remaining, self.at);
            self.levels::<QUOTE>(place, Place { price, ..place }, depths)
        };
        self.events.push(Event::OrderReplaced {
            order: before.order,
            account: self.account,
            instrument,
            price: Price(price.into()),
            remaining: qty,
            levels,
        });
        if !QUOTE {
            let subject = Subject { price, remaining, ..before };
            self.answer_order(&subject, Exec::Replaced);
            let session = SessionIndex(resting.session);
            if session != self.session_index {
                self.notify_order(session, self.account, &subject, Exec::Replaced);
            }
        }
        if trades {
            let mut incoming = self.reentering(slot, qty, Price(price.into()), stp);
            incoming.hold = if side == Side::Buy { needed } else { Usd::ZERO };
            self.state.books.leave(slot);
            self.run(&mut incoming);
        }
        Ok(())
    }

    /// As [`Self::level`], of the one that an order left and of the one that it joined.
    #[inline(always)]
    fn levels<const QUOTE: bool>(
        &mut self,
        from: Place,
        to: Place,
        [left, joined]: [Depth; 2],
    ) -> [Option<LevelUpdate>; 2] {
        if QUOTE || !self.touched.is_empty() {
            // The better price first: the next quote of a maker's row often leaves or joins the level that this one touched last.
            let better = crosses(from.side, Price(from.price.into()), Price(to.price.into()));
            let (near, far) = if better { (from, to) } else { (to, from) };
            self.touch(near);
            self.touch(far);
            return [None; 2];
        }
        let (left, joined) = (Some(from.told(left)), Some(to.told(joined)));
        match from.price.cmp(&to.price) {
            Ordering::Less => [left, joined],
            Ordering::Equal => [joined, None],
            Ordering::Greater => [joined, left],
        }
    }

    /// A resting order as it would come in again.
    fn reentering(&self, slot: u32, qty: Qty, price: Price, stp: SelfTrade) -> Incoming {
        let books = &self.state.books;
        let record = books.record(slot);
        let terms = record.terms();
        let instrument = InstrumentId(record.instrument);
        Incoming {
            id: OrderId(record.id),
            account: AccountId(record.account),
            session: SessionIndex(record.session),
            label: books.label(slot),
            instrument,
            side: terms.side,
            tif: terms.tif,
            kind: Entering::Resting,
            stp,
            price,
            limit: Some(price),
            remaining: qty,
            filled: Qty(record.filled.into()),
            hold: Usd::ZERO,
            tick: self.tick(instrument),
            maker_fee_bps: terms.maker_fee_bps,
            taker_fee_bps: terms.taker_fee_bps,
            to_consumption: terms.to_consumption,
            replaced: true,
            quote: terms.quote,
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

/// Where an order lies that may rest.
fn slot_of(incoming: &Incoming) -> u32 {
    let Some(slot) = incoming.id.slot() else {
        unreachable!("an order that may rest has a slot: {:?}", incoming.id)
    };
    slot
}

/// Dollars that a resting bid holds where a tick is worth so much.
#[inline(always)]
fn resting_hold(record: &Record, fee_bps: u16, tick: Usd) -> Usd {
    hold_of(Price(record.price.into()), Qty(record.remaining.into()), fee_bps, tick)
        .expect("no more than the hold that was accepted")
}

/// A price or a quantity as it is stored.
pub(super) fn narrow(wide: u64) -> u32 {
    u32::try_from(wide).expect("an instrument's largest price and quantity fit 32 bits")
}

/// Most instruments trade in single Units, and a division is slow.
const fn is_multiple(qty: Qty, lot: Qty) -> bool {
    lot.0 == 1 || qty.0.is_multiple_of(lot.0)
}

fn check_price(price: Price, terms: &MarketTerms) -> Result<(), Reject> {
    if price.is_zero() || price > terms.max_price { Err(Reject::InvalidPrice) } else { Ok(()) }
}
