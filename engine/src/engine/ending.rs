//! Orders that end: cancelled alone or with others, expired, suspended, or done with.

use super::levels::Place;
use super::{Refusal, Step};
use crate::book::{NONE, Record};
use crate::command::{MassCancelScope, OrderRef, Side, TimeInForce};
use crate::event::{Closure, Event, LevelAfter, OrderClosed, ReportBody, Subject, Told};
use crate::ids::{AccountId, InstrumentId, Label, OrderId, SessionId};
use crate::reject::Reject;
use crate::report::{Fill, Kind};
use crate::state::{SessionIndex, Timer};
use crate::units::{Nanos, Qty};

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

impl Step<'_> {
    /// Says that an order has ended. `subject` has what was open of it.
    #[inline(always)]
    pub(super) fn tell_closed(
        &mut self,
        session: SessionIndex,
        subject: &Subject,
        reason: Closure,
        level: LevelAfter,
        hears: Hears,
    ) {
        let (order, kind) = (Subject { remaining: 0, ..*subject }, Kind::Closed(reason));
        let told = match hears {
            Hears::Answer => self.told(self.session, self.client_seq, &order, kind),
            // A fill has told its session already.
            Hears::Notice if reason != Closure::Filled => self.told(session, 0, &order, kind),
            Hears::Notice | Hears::Nothing => Told::NOBODY,
        };
        let unfilled = subject.remaining;
        self.happened(|| Event::OrderClosed(OrderClosed { told, order, level, unfilled, reason }));
        if hears == Hears::Answer && session != self.session {
            self.notify_order(session, &order, kind, &Fill::default());
        }
    }

    /// Frees the slot of an order that is in no level any more, and drops it from its account's lists and timers.
    pub(super) fn retire(&mut self, slot: u32, record: &Record, label: Label) {
        let account = &mut self.state.accounts[record.account as usize];
        self.state.books.retire(slot, record, &mut account.orders);
        self.forget(record, label);
    }

    /// Nothing names an order any more whose slot is free.
    #[inline(always)]
    fn forget(&mut self, record: &Record, label: Label) {
        let state = &mut *self.state;
        state.sessions.order_leaves(SessionIndex(record.session));
        if label != Label::default() {
            state.accounts[record.account as usize].labels.remove(&label);
        }
        if record.terms().tif == TimeInForce::Day {
            let due = Nanos(record.submitted_at).next_midnight();
            let timer = Timer::DayOrder(InstrumentId(record.instrument), OrderId(record.id));
            state.timers.remove(&(due, timer));
        }
    }

    /// Takes a resting order out of the book and ends it, among other things.
    #[inline(never)]
    pub(super) fn close_resting(&mut self, slot: u32, reason: Closure) {
        self.end_resting(slot, *self.state.books.record(slot), reason, Hears::Notice);
    }

    /// Takes a quote out of the book and ends it, for its owner who is told of all of them at once.
    #[inline(never)]
    pub(super) fn withdraw_quote(&mut self, slot: u32) {
        self.end_resting(slot, *self.state.books.record(slot), Closure::Cancelled, Hears::Nothing);
    }

    #[inline(always)]
    fn end_resting(&mut self, slot: u32, record: Record, reason: Closure, hears: Hears) {
        let subject = self.subject_of(slot, &record);
        match subject.side {
            Side::Buy => {
                let hold = self.hold_behind(&record);
                self.free_usd(subject.account, hold);
            }
            Side::Sell => {
                self.free_units(subject.account, subject.instrument, Qty(record.remaining.into()));
            }
        }
        let account = &mut self.state.accounts[record.account as usize];
        let depth = self.state.books.remove(slot, &record, &mut account.orders);
        self.forget(&record, subject.label);
        let place = Place::of(&record);
        let level = if hears == Hears::Answer {
            self.level::<false>(place, depth)
        } else {
            self.touch(place);
            LevelAfter::APART
        };
        self.tell_closed(SessionIndex(record.session), &subject, reason, level, hears);
    }

    /// An open order of this account: its slot and what lies there.
    #[inline(always)]
    pub(super) fn find(&self, order: OrderRef) -> Result<(u32, Record), Refusal> {
        let (id, label) = match order {
            OrderRef::Id(id) => (id, Label::default()),
            OrderRef::Label(label) => (self.labelled(label), label),
        };
        let refusal = Refusal { reject: Reject::UnknownOrder, label, order: id };
        match self.state.books.find(id) {
            Some((slot, record)) if record.account == self.account.0 => Ok((slot, *record)),
            _ => Err(refusal),
        }
    }

    /// The order of this account with a label; the id of no order where there is none.
    #[inline(never)]
    fn labelled(&self, label: Label) -> OrderId {
        let account = &self.state.accounts[self.account.0 as usize];
        account.labels.get(&label).copied().unwrap_or_default()
    }

    #[inline(never)]
    pub(super) fn cancel(&mut self, order: OrderRef) -> Result<(), Refusal> {
        let (slot, record) = self.find(order)?;
        self.end_resting(slot, record, Closure::Cancelled, Hears::Answer);
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
        if let Some((slot, _)) = self.state.books.find(id) {
            self.close_resting(slot, Closure::Expired);
        }
    }
}
