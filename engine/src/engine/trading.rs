//! An order on its way: what holds for it whether it comes in, is changed or ends.

use super::Step;
use super::ending::Hears;
use super::levels::Place;
use super::matching::Stopped;
use crate::book::{Depth, Entry, Record, Terms, hold_of};
use crate::command::{SelfTrade, Side, TimeInForce};
use crate::event::{Closure, LevelAfter, Subject};
use crate::ids::{AccountId, InstrumentId, Label, OrderId};
use crate::state::{SessionIndex, Timer};
use crate::units::{Nanos, Price, Qty, Usd};

/// An order on its way into the book that trades first.
pub(super) struct Incoming {
    /// As it stands at this moment: its id is given when it is accepted, its price is zero where it takes the book's prices.
    pub(super) order: Subject,
    pub(super) session: SessionIndex,
    pub(super) tif: TimeInForce,
    pub(super) kind: Entering,
    pub(super) stp: SelfTrade,
    /// No worse than this; `None` takes any price.
    pub(super) limit: Option<Price>,
    /// Dollars set aside for it.
    pub(super) hold: Usd,
    /// What a tick is worth here.
    pub(super) tick: Usd,
    pub(super) maker_fee_bps: u16,
    pub(super) taker_fee_bps: u16,
    pub(super) to_consumption: bool,
    /// It rested before and keeps its slot and its place among its account's orders.
    pub(super) replaced: bool,
}

impl Incoming {
    /// What it must hold for what is open of it. `None` above `i64::MAX`.
    fn needs(&self) -> Option<Usd> {
        let fee = self.maker_fee_bps.max(self.taker_fee_bps);
        hold_of(self.order.price(), self.order.remaining(), fee, self.tick)
    }

    /// As it enters the book.
    fn entry(&self, at: Nanos) -> Entry {
        let order = &self.order;
        let terms = Terms {
            side: order.side,
            tif: self.tif,
            to_consumption: self.to_consumption,
            labelled: order.label != Label::default(),
            quote: order.quote,
            maker_fee_bps: self.maker_fee_bps,
            taker_fee_bps: self.taker_fee_bps,
        };
        Entry {
            id: order.id,
            account: order.account,
            session: self.session,
            instrument: order.instrument,
            price: order.price,
            remaining: order.remaining,
            filled: order.filled,
            terms,
            at,
        }
    }
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
    /// Matches an incoming order whose hold is set, then rests or closes what is left.
    pub(super) fn run(&mut self, incoming: &mut Incoming) {
        if incoming.kind == Entering::AllOrNothing {
            let (fillable, limited) = self
                .preview(incoming)
                .map_or((Qty::ZERO, false), |preview| (preview.fillable, preview.limited));
            if fillable < incoming.order.remaining() {
                let slipped = limited && incoming.order.price == 0;
                let reason = if slipped { Closure::NoFillMaxSlippage } else { Closure::NoFillNoLiquidity };
                return self.close_incoming(incoming, reason);
            }
        }
        let entered = incoming.order.remaining;
        let stopped = self.take(incoming);
        let none = incoming.order.filled == 0;
        match stopped {
            Stopped::Done => self.close_incoming(incoming, Closure::Filled),
            Stopped::SelfTrade => self.close_incoming(incoming, Closure::SelfTrade),
            Stopped::BookEmpty | Stopped::Limit if incoming.kind == Entering::Resting => {
                if incoming.order.remaining != entered && incoming.order.side == Side::Buy {
                    let needed = incoming.needs().expect("less than the hold that was accepted");
                    self.free_usd(incoming.order.account, incoming.hold.minus(needed));
                }
                self.rest(incoming);
            }
            Stopped::Limit if incoming.order.price == 0 => {
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
        let entry = incoming.entry(self.at);
        if incoming.replaced {
            let (slot, books) = (slot_of(entry.id), &mut self.state.books);
            books.change(slot, |record| {
                (record.price, record.remaining, record.filled) =
                    (entry.price, entry.remaining, entry.filled);
                record.updated_at = entry.at.0;
            });
            books.join(slot);
        } else {
            self.enter(&entry, incoming.order.label);
        }
        self.touch(Place { instrument: entry.instrument, side: entry.terms.side, price: entry.price });
    }

    /// Puts an order into the book that never rested before; what its level has now.
    #[inline(always)]
    pub(super) fn enter(&mut self, entry: &Entry, label: Label) -> Depth {
        let (slot, state) = (slot_of(entry.id), &mut *self.state);
        let account = &mut state.accounts[entry.account.0 as usize];
        if entry.terms.tif == TimeInForce::Day {
            let timer = Timer::DayOrder(entry.instrument, entry.id);
            state.timers.insert((entry.at.next_midnight(), timer));
        }
        if entry.terms.labelled {
            account.labels.insert(label, entry.id);
            state.books.set_label(slot, label);
        }
        state.sessions.order_rests(entry.session);
        state.books.enter(slot, entry, &mut account.orders)
    }

    /// Ends an order that is not in the book: gives back what it still holds and says why.
    #[inline(never)]
    fn close_incoming(&mut self, incoming: &Incoming, reason: Closure) {
        let order = &incoming.order;
        match order.side {
            Side::Buy => self.free_usd(order.account, incoming.hold),
            Side::Sell => self.free_units(order.account, order.instrument, order.remaining()),
        }
        if let Some(slot) = order.id.slot() {
            if incoming.replaced {
                let record = *self.state.books.record(slot);
                self.retire(slot, &record, order.label);
            } else {
                self.state.books.give_slot(slot);
            }
        }
        self.tell_closed(incoming.session, order, reason, LevelAfter::APART, Hears::Notice);
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
    #[inline(always)]
    pub(super) fn subject_of(&self, slot: u32, record: &Record) -> Subject {
        Subject {
            id: OrderId(record.id),
            account: AccountId(record.account),
            label: self.state.books.label(slot, record),
            instrument: InstrumentId(record.instrument),
            side: record.side(),
            price: record.price,
            remaining: record.remaining,
            filled: record.filled,
            quote: record.quote(),
        }
    }

    /// Dollars that a resting bid holds.
    #[inline]
    pub(super) fn hold_behind(&self, record: &Record) -> Usd {
        resting_hold(record, record.terms().highest_fee_bps(), self.tick(InstrumentId(record.instrument)))
    }

    pub(super) fn tick(&self, instrument: InstrumentId) -> Usd {
        self.state.instruments[usize::from(instrument.0)].spec.market.tick
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
fn slot_of(id: OrderId) -> u32 {
    let Some(slot) = id.slot() else { unreachable!("an order that may rest has a slot: {id:?}") };
    slot
}

/// Dollars that a resting bid holds where a tick is worth so much.
#[inline(always)]
pub(super) fn resting_hold(record: &Record, fee_bps: u16, tick: Usd) -> Usd {
    hold_of(Price(record.price.into()), Qty(record.remaining.into()), fee_bps, tick)
        .expect("no more than the hold that was accepted")
}
