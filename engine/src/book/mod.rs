//! Resting orders: all books of the venue, by price and then by time.
//!
//! ```text
//!  a book's ladder (ladder.rs)                  the one slab of orders (slab.rs)
//!  bids [.. 78 79 80]   asks [.. 83 82 81]      80 ─► #4 ⇄ #9 ⇄ #2      head is oldest, tail is newest
//!                 └ best             └ best     an id names its slot, freed slots are reused newest first
//! ```
//! A busy book's levels around the touch are in an array by tick instead (window.rs).
//! The orders are state; the ladders follow from them and are made anew when a snapshot is read. Storage is narrow
//! (32 bits for a price or a quantity), what readers get is [`Order`], as wide as the venue speaks.
//! Books know no money and no rules; `engine::matching` decides what trades.

mod ladder;
mod slab;
mod sorted;
mod window;

use std::hash::{Hash, Hasher};

use rkyv::{Archive, Deserialize as Thaw, Serialize as Freeze};

use crate::command::{Side, TimeInForce};
use crate::ids::{AccountId, InstrumentId, Label, OrderId, SessionId};
use crate::prefetch::ask_for;
use crate::state::{SessionIndex, Sessions};
use crate::units::{Nanos, Price, Qty, Usd};

pub(crate) use ladder::Ladder;
pub(crate) use slab::{NONE, Record, Terms};

use slab::{Orders, Slab};

/// The highest price and the largest quantity that an order can have.
pub const WIDEST: u64 = u32::MAX as u64;

/// A price or a quantity as it is stored; above [`WIDEST`], which an instrument's terms exclude, a fault.
#[inline(always)]
pub(crate) fn narrow(wide: u64) -> u32 {
    u32::try_from(wide).expect("an instrument's largest price and quantity fit 32 bits")
}

/// One open order, as readers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Its id.
    pub id: OrderId,
    /// Whose.
    pub account: AccountId,
    /// The session that hears of its fills.
    pub session: SessionId,
    /// The client's label.
    pub label: Label,
    /// Of a quote its number; 0 for any other order.
    pub quote: u8,
    /// Buy or sell.
    pub side: Side,
    /// Its limit.
    pub price: Price,
    /// Open.
    pub remaining: Qty,
    /// Filled so far.
    pub filled: Qty,
    /// Dollars held for the open quantity of a bid; zero for an ask, which holds Units.
    pub hold: Usd,
    /// How long it lives.
    pub tif: TimeInForce,
    /// Maker fee agreed when it was accepted, in hundredths of a percent.
    pub maker_fee_bps: u16,
    /// Taker fee agreed when it was accepted, in hundredths of a percent.
    pub taker_fee_bps: u16,
    /// Bought Units go straight to consumption.
    pub to_consumption: bool,
    /// When it was accepted.
    pub submitted_at: Nanos,
    /// When it last changed.
    pub updated_at: Nanos,
}

/// One price level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// Its price.
    pub price: Price,
    /// Open quantity.
    pub qty: Qty,
    /// How many orders.
    pub orders: u32,
    head: u32,
}

/// How a book's levels are kept at this moment. It follows from what happened to the book and changes nothing but time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// The first price of the window of ticks, and how many it covers, where there is one.
    pub window: Option<(Price, u32)>,
    /// Levels that are not in a window.
    pub beyond: usize,
}

/// What rests at a price, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Depth {
    pub(crate) qty: Qty,
    pub(crate) orders: u32,
}

/// The open orders of one account, oldest first: where the list begins and ends, and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
pub struct OpenOrders {
    first: u32,
    last: u32,
    count: u32,
}

impl Default for OpenOrders {
    fn default() -> Self {
        Self { first: NONE, last: NONE, count: 0 }
    }
}

impl OpenOrders {
    /// How many.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// The slot of the oldest, or [`NONE`].
    pub(crate) const fn first(&self) -> u32 {
        self.first
    }

    /// True when there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// What a bid holds: notional at its limit, and the higher of its two fees. `None` above `i64::MAX`.
#[inline(always)]
pub(crate) fn hold_of(price: Price, qty: Qty, fee_bps: u16, tick: Usd) -> Option<Usd> {
    let notional = price.notional(qty, tick)?;
    notional.checked_add(notional.basis_points(fee_bps))
}

/// An order as it enters a book.
pub(crate) struct Entry {
    pub(crate) id: OrderId,
    pub(crate) account: AccountId,
    pub(crate) session: SessionIndex,
    pub(crate) instrument: InstrumentId,
    pub(crate) price: u32,
    pub(crate) remaining: u32,
    pub(crate) filled: u32,
    pub(crate) terms: Terms,
    pub(crate) at: Nanos,
}

/// All books of the venue.
///
/// Invariants: in each book best bid below best ask; the ladders are what the orders say.
#[derive(Clone, Debug, Default, Archive, Freeze, Thaw)]
pub struct Books {
    slab: Slab,
    #[rkyv(with = rkyv::with::Skip)]
    ladders: Vec<Ladder>,
}

impl PartialEq for Books {
    fn eq(&self, other: &Self) -> bool {
        self.slab == other.slab
    }
}

impl Eq for Books {}

impl Hash for Books {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.slab.hash(hasher);
    }
}

impl Books {
    /// How many orders rest on the venue.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.slab.live()
    }

    /// True when nothing rests.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Opens the book of the next instrument.
    pub(crate) fn list(&mut self) {
        self.ladders.push(Ladder::default());
    }

    /// To read one book. `tick` is its instrument's.
    pub(crate) fn view<'a>(
        &'a self,
        sessions: &'a Sessions,
        instrument: InstrumentId,
        tick: Usd,
    ) -> Option<BookView<'a>> {
        let ladder = self.ladders.get(usize::from(instrument.0))?;
        Some(BookView { books: self, sessions, ladder, instrument, tick })
    }

    /// Whether one more order can rest.
    pub(crate) const fn has_room(&self) -> bool {
        !self.slab.is_full()
    }

    /// A slot for an order to come.
    #[inline]
    pub(crate) fn take_slot(&mut self) -> u32 {
        self.slab.take_slot()
    }

    /// Gives back a slot whose order does not rest.
    #[inline]
    pub(crate) fn give_slot(&mut self, slot: u32) {
        self.slab.give_slot(slot);
    }

    #[inline]
    pub(crate) fn ladder(&self, instrument: InstrumentId) -> &Ladder {
        &self.ladders[usize::from(instrument.0)]
    }

    /// The slot and the record of an order that rests.
    #[inline(always)]
    pub(crate) fn find(&self, id: OrderId) -> Option<(u32, &Record)> {
        self.slab.find(id)
    }

    /// The record in a slot that is known to be taken.
    #[inline(always)]
    pub(crate) fn record(&self, slot: u32) -> &Record {
        self.slab.at(slot)
    }

    /// The label of the order in a slot, whose record was read already.
    #[inline]
    pub(crate) fn label(&self, slot: u32, record: &Record) -> Label {
        self.slab.label(slot, record.is_labelled())
    }

    /// The best price of a side, and the slot of the order that trades first there.
    #[inline]
    pub(crate) fn front(&self, instrument: InstrumentId, side: Side) -> Option<(u32, u32)> {
        self.ladder(instrument).front(side)
    }

    /// Whether an order of this side would trade at once at this price.
    #[inline(always)]
    pub(crate) fn would_trade(&self, instrument: InstrumentId, side: Side, price: u32) -> bool {
        self.ladder(instrument).would_trade(side, price)
    }

    /// The best price of a side.
    #[inline]
    pub(crate) fn best_price(&self, instrument: InstrumentId, side: Side) -> Option<u32> {
        self.ladder(instrument).best_price(side)
    }

    /// A side's orders as they would trade.
    pub(crate) fn queue(&self, instrument: InstrumentId, side: Side) -> impl Iterator<Item = &Record> {
        self.ladder(instrument).levels(side).flat_map(move |(_, cell)| {
            let mut at = cell.head;
            std::iter::from_fn(move || {
                if at == NONE {
                    return None;
                }
                let record = self.slab.at(at);
                at = record.next;
                Some(record)
            })
        })
    }

    /// What rests at a price.
    #[inline]
    pub(crate) fn depth(&self, instrument: InstrumentId, side: Side, price: u32) -> Depth {
        self.ladder(instrument).cell(side, price).map_or(Depth::default(), ladder::Cell::depth)
    }

    /// Keeps the label of the order in a slot.
    pub(crate) fn set_label(&mut self, slot: u32, label: Label) {
        self.slab.set_label(slot, label);
    }

    /// Puts a new order behind all others of its level and of its account. `slot` came from `take_slot`. What the level
    /// has now.
    #[inline(always)]
    pub(crate) fn enter(&mut self, slot: u32, order: &Entry, own: &mut OpenOrders) -> Depth {
        let mut orders = self.slab.orders();
        let own_prev = own.last;
        match own_prev {
            NONE => own.first = slot,
            last => orders.at(last).own_next = slot,
        }
        own.last = slot;
        own.count += 1;
        let (side, price) = (order.terms.side, order.price);
        let ladder = &mut self.ladders[usize::from(order.instrument.0)];
        let (depth, prev) = link(&mut orders, ladder, slot, (side, price), order.remaining);
        // Field by field: one that was made elsewhere would be copied in larger pieces than it was made of.
        let record = orders.at(slot);
        record.id = order.id.0;
        record.submitted_at = order.at.0;
        record.updated_at = order.at.0;
        record.price = price;
        record.remaining = order.remaining;
        record.filled = order.filled;
        record.prev = prev;
        record.next = NONE;
        record.own_prev = own_prev;
        record.own_next = NONE;
        record.account = order.account.0;
        record.session = order.session.0;
        record.instrument = order.instrument.0;
        record.terms = order.terms.pack();
        depth
    }

    /// Takes a resting order, whose record the caller has read, out of its level and its account's list, and frees its slot. What
    /// the level has now.
    #[inline(always)]
    pub(crate) fn remove(&mut self, slot: u32, record: &Record, own: &mut OpenOrders) -> Depth {
        let ladder = &mut self.ladders[usize::from(record.instrument)];
        let level = (record.side(), record.price);
        let links = (record.prev, record.next);
        let depth = unlink(&mut self.slab.orders(), ladder, slot, level, record.remaining, links);
        self.retire(slot, record, own);
        depth
    }

    /// As [`Self::remove`], of an order that is in no level.
    #[inline(always)]
    pub(crate) fn retire(&mut self, slot: u32, record: &Record, own: &mut OpenOrders) {
        let mut orders = self.slab.orders();
        match record.own_prev {
            NONE => own.first = record.own_next,
            prev => orders.at(prev).own_next = record.own_next,
        }
        match record.own_next {
            NONE => own.last = record.own_prev,
            next => orders.at(next).own_prev = record.own_prev,
        }
        own.count -= 1;
        self.slab.give_slot(slot);
    }

    /// Puts the order in `slot` behind all others of its level; what the level has now.
    #[inline(always)]
    pub(crate) fn join(&mut self, slot: u32) -> Depth {
        let mut orders = self.slab.orders();
        let record = orders.at(slot);
        let (side, price, qty) = (record.side(), record.price, record.remaining);
        let ladder = &mut self.ladders[usize::from(record.instrument)];
        let (depth, prev) = link(&mut orders, ladder, slot, (side, price), qty);
        let record = orders.at(slot);
        (record.prev, record.next) = (prev, NONE);
        depth
    }

    /// Takes the order in `slot` out of its level; it keeps its slot and its place in its account's list. What the level
    /// has now.
    #[inline(always)]
    pub(crate) fn leave(&mut self, slot: u32) -> Depth {
        let mut orders = self.slab.orders();
        let record = orders.at(slot);
        let (level, qty) = ((record.side(), record.price), record.remaining);
        let links = (record.prev, record.next);
        let ladder = &mut self.ladders[usize::from(record.instrument)];
        unlink(&mut orders, ladder, slot, level, qty, links)
    }

    /// Moves a resting order behind all others of another price, or of its own, with another open quantity. What the level
    /// that it left has now, and then the one that it joined.
    #[inline(always)]
    pub(crate) fn relocate(&mut self, slot: u32, price: u32, remaining: u32, at: Nanos) -> [Depth; 2] {
        let mut orders = self.slab.orders();
        let record = orders.at(slot);
        let (side, before, qty) = (record.side(), record.price, record.remaining);
        let links = (record.prev, record.next);
        (record.price, record.remaining, record.updated_at) = (price, remaining, at.0);
        let ladder = &mut self.ladders[usize::from(record.instrument)];
        let left = unlink(&mut orders, ladder, slot, (side, before), qty, links);
        let (joined, prev) = link(&mut orders, ladder, slot, (side, price), remaining);
        let record = orders.at(slot);
        (record.prev, record.next) = (prev, NONE);
        [left, joined]
    }

    /// Lowers the open quantity of a resting order, which must not become zero; what its level has now.
    #[inline(always)]
    pub(crate) fn shrink(&mut self, slot: u32, by: u32, at: Nanos) -> Depth {
        let record = self.slab.at_mut(slot);
        record.remaining -= by;
        record.updated_at = at.0;
        let (side, price) = (record.side(), record.price);
        let cell = self.ladders[usize::from(record.instrument)].cell_mut(side, price);
        let cell = cell.expect("a resting order has a level");
        cell.qty -= u64::from(by);
        cell.depth()
    }

    /// Moves `qty` of a resting order from open to filled. An order without open quantity has left its level.
    #[inline]
    pub(crate) fn fill(&mut self, slot: u32, qty: u32, at: Nanos) {
        let record = self.slab.at_mut(slot);
        record.filled += qty;
        record.updated_at = at.0;
        if record.remaining == qty {
            self.leave(slot);
            self.slab.at_mut(slot).remaining = 0;
        } else {
            self.shrink(slot, qty, at);
        }
    }

    /// Gives an order that is in no level a new price and quantity.
    #[inline]
    pub(crate) fn change(&mut self, slot: u32, change: impl FnOnce(&mut Record)) {
        change(self.slab.at_mut(slot));
    }

    /// Asks for the record of an order.
    #[inline]
    pub(crate) fn ask_for_order(&self, id: OrderId) {
        if let Some(record) = id.slot().and_then(|slot| self.slab.get(slot)) {
            ask_for(record);
        }
    }

    /// Asks for what a book begins with.
    #[inline]
    pub(crate) fn ask_for_book(&self, instrument: InstrumentId) {
        if let Some(ladder) = self.ladders.get(usize::from(instrument.0)) {
            ladder.ask_for();
        }
    }

    /// Asks for the orders that an order is linked with.
    #[inline]
    pub(crate) fn ask_for_neighbours(&self, record: &Record) {
        for slot in [record.prev, record.next, record.own_prev, record.own_next] {
            if let Some(neighbour) = self.slab.get(slot) {
                ask_for(neighbour);
            }
        }
    }

    /// Asks for the order of an account that it entered last.
    #[inline]
    pub(crate) fn ask_for_newest(&self, orders: OpenOrders) {
        if let Some(record) = self.slab.get(orders.last) {
            ask_for(record);
        }
    }

    /// Asks for the oldest order of a level, which knows the newest.
    #[inline]
    pub(crate) fn ask_for_oldest(&self, instrument: InstrumentId, side: Side, price: Price) {
        if let (Some(ladder), Ok(price)) =
            (self.ladders.get(usize::from(instrument.0)), u32::try_from(price.0))
            && let Some(record) = ladder.cell(side, price).and_then(|cell| self.slab.get(cell.head))
        {
            ask_for(record);
        }
    }

    /// Asks for what the search for a level of a side reads.
    #[inline]
    pub(crate) fn ask_for_ranks(&self, instrument: InstrumentId, side: Side) {
        if let Some(ladder) = self.ladders.get(usize::from(instrument.0)) {
            ladder.ask_for_ranks(side);
        }
    }

    /// Asks for the level at a price.
    #[inline]
    pub(crate) fn ask_for_level(&self, instrument: InstrumentId, side: Side, price: Price) {
        if let (Some(ladder), Ok(price)) =
            (self.ladders.get(usize::from(instrument.0)), u32::try_from(price.0))
        {
            ladder.ask_for_level(side, price);
        }
    }

    /// Asks for the two levels between which an order is about to move, if its book has a window.
    #[inline(always)]
    pub(crate) fn ask_for_cells(&self, instrument: InstrumentId, from: u32, to: Price) {
        let ladder = self.ladder(instrument);
        ladder.ask_for_cell(from);
        ladder.ask_for_cell(to.0 as u32);
    }

    /// The slots of an account's open orders, oldest first.
    pub(crate) fn own(&self, orders: OpenOrders) -> impl Iterator<Item = u32> {
        let mut at = orders.first;
        std::iter::from_fn(move || {
            let slot = at;
            if slot == NONE {
                return None;
            }
            at = self.slab.at(slot).own_next;
            Some(slot)
        })
    }

    /// An order as readers see it.
    pub(crate) fn wide(&self, slot: u32, tick: Usd, sessions: &Sessions) -> Order {
        let record = self.slab.at(slot);
        let terms = record.terms();
        let (price, remaining) = (Price(record.price.into()), Qty(record.remaining.into()));
        let fee = terms.highest_fee_bps();
        let hold = match terms.side {
            Side::Buy => {
                hold_of(price, remaining, fee, tick).expect("no more than the hold that was accepted")
            }
            Side::Sell => Usd::ZERO,
        };
        Order {
            id: OrderId(record.id),
            account: AccountId(record.account),
            session: sessions.id(SessionIndex(record.session)),
            label: self.label(slot, record),
            quote: terms.quote,
            side: terms.side,
            price,
            remaining,
            filled: Qty(record.filled.into()),
            hold,
            tif: terms.tif,
            maker_fee_bps: terms.maker_fee_bps,
            taker_fee_bps: terms.taker_fee_bps,
            to_consumption: terms.to_consumption,
            submitted_at: Nanos(record.submitted_at),
            updated_at: Nanos(record.updated_at),
        }
    }

    /// Makes the ladders of `count` books from the orders, as after reading a snapshot. In words what a snapshot's
    /// orders contradict.
    pub(crate) fn rebuild(&mut self, count: usize) -> Result<(), String> {
        self.slab.check()?;
        self.ladders = vec![Ladder::default(); count];
        let mut levels = Vec::new();
        let mut seen = 0;
        let linked = |slot: u32| {
            self.slab
                .get(slot)
                .filter(|record| record.id != 0)
                .ok_or_else(|| format!("slot {slot} has an order"))
        };
        for (slot, record) in self.slab.iter() {
            if usize::from(record.instrument) >= count {
                return Err(format!("a resting order's book exists: {record:?}"));
            }
            if linked(record.prev)?.next != NONE {
                continue;
            }
            let (mut at, mut orders, mut qty) = (slot, 0, 0);
            while at != NONE {
                let order = linked(at)?;
                orders += 1;
                qty += u64::from(order.remaining);
                seen += 1;
                if seen > self.slab.live() {
                    return Err("each resting order is in one level".to_owned());
                }
                at = order.next;
            }
            levels.push((record.instrument, record.side() as usize, record.price, slot, orders, qty));
        }
        levels.sort_unstable();
        for (instrument, side, price, head, orders, qty) in levels {
            let side = if side == Side::Buy as usize { Side::Buy } else { Side::Sell };
            let cell = self.ladders[usize::from(instrument)].cell_or_empty(side, price);
            (cell.head, cell.count, cell.qty) = (head, orders, qty);
        }
        self.check()
    }

    /// The first broken invariant in words.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.slab.check()?;
        let mut seen = 0;
        for (instrument, ladder) in self.ladders.iter().enumerate() {
            for side in [Side::Buy, Side::Sell] {
                seen += self.check_side(instrument, ladder, side)?;
            }
            if let (Some((bid, _)), Some((ask, _))) = (ladder.best(Side::Buy), ladder.best(Side::Sell))
                && bid >= ask
            {
                return Err(format!("best bid {bid} below best ask {ask}"));
            }
        }
        if seen != self.slab.live() {
            return Err(format!("{seen} orders in levels, {} in the slab", self.slab.live()));
        }
        Ok(())
    }

    /// Proves one side and returns how many orders it has.
    fn check_side(&self, instrument: usize, ladder: &Ladder, side: Side) -> Result<usize, String> {
        let mut seen = 0;
        let mut before = None;
        for (price, cell) in ladder.levels(side) {
            let better = |before: u32| match side {
                Side::Buy => before > price,
                Side::Sell => before < price,
            };
            if !before.is_none_or(better) {
                return Err(format!("{side:?} levels are sorted, best first: {before:?}, {price}"));
            }
            if ladder.cell(side, price) != Some(&cell)
                || (before.is_none() && ladder.best(side) != Some((price, cell)))
            {
                return Err(format!("the level at {price} is found there"));
            }
            before = Some(price);
            let (mut qty, mut orders, mut last) = (0, 0, NONE);
            let mut at = cell.head;
            while at != NONE {
                let order = self.slab.at(at);
                if order.id == 0
                    || order.price != price
                    || order.side() != side
                    || order.remaining == 0
                    || usize::from(order.instrument) != instrument
                {
                    return Err(format!("a level's orders share its price and are open: {order:?}"));
                }
                if last != NONE && order.prev != last {
                    return Err(format!("links name the neighbours: {order:?}"));
                }
                qty += u64::from(order.remaining);
                orders += 1;
                last = at;
                at = order.next;
                if orders as usize > self.slab.live() {
                    return Err(format!("the list at {price} ends"));
                }
            }
            if orders == 0 || (cell.qty, cell.count) != (qty, orders) || self.slab.at(cell.head).prev != last
            {
                return Err(format!("a level's sums are those of its list: {cell:?}"));
            }
            seen += orders as usize;
        }
        Ok(seen)
    }

    /// Proves an account's list and returns its slots.
    pub(crate) fn check_own(&self, account: AccountId, orders: OpenOrders) -> Result<Vec<u32>, String> {
        let mut slots = Vec::new();
        let mut last = NONE;
        let mut at = orders.first;
        while at != NONE {
            let record = self.slab.get(at).filter(|record| record.id != 0);
            let record = record.ok_or_else(|| format!("an open order of {account:?} rests in slot {at}"))?;
            if record.account != account.0 || record.own_prev != last {
                return Err(format!("{record:?} belongs to {account:?}, which lists it"));
            }
            if last != NONE && self.slab.at(last).id >= record.id {
                return Err(format!("open orders of {account:?} are listed by age"));
            }
            last = at;
            at = record.own_next;
            slots.push(last);
            if slots.len() > orders.len() {
                break;
            }
        }
        if slots.len() != orders.len() || orders.last != last {
            return Err(format!(
                "{} of {account:?}'s orders are listed, {} counted",
                slots.len(),
                orders.len()
            ));
        }
        Ok(slots)
    }
}

/// Puts an order of so much behind all others of a level, but for its own links: its next is nobody. What the level has
/// now, and which slot is before it.
#[inline(always)]
fn link(
    orders: &mut Orders<'_>,
    ladder: &mut Ladder,
    slot: u32,
    (side, price): (Side, u32),
    qty: u32,
) -> (Depth, u32) {
    let cell = ladder.cell_or_empty(side, price);
    cell.qty += u64::from(qty);
    cell.count += 1;
    let depth = cell.depth();
    let tail = if depth.orders == 1 {
        cell.head = slot;
        slot
    } else {
        let tail = std::mem::replace(&mut orders.at(cell.head).prev, slot);
        orders.at(tail).next = slot;
        tail
    };
    (depth, tail)
}

/// Takes an order of so much, which names its neighbours, out of its level; what the level has now.
#[inline(always)]
fn unlink(
    orders: &mut Orders<'_>,
    ladder: &mut Ladder,
    slot: u32,
    (side, price): (Side, u32),
    qty: u32,
    (prev, next): (u32, u32),
) -> Depth {
    let (depth, cell) = ladder.leave(side, price, qty);
    let Some(cell) = cell else {
        return depth;
    };
    let head = cell.head;
    if head == slot {
        cell.head = next;
        orders.at(next).prev = prev;
    } else {
        orders.at(prev).next = next;
        let after = if next == NONE { head } else { next };
        orders.at(after).prev = prev;
    }
    depth
}

/// One instrument's resting orders, to read.
#[derive(Clone, Copy, Debug)]
pub struct BookView<'a> {
    books: &'a Books,
    sessions: &'a Sessions,
    ladder: &'a Ladder,
    instrument: InstrumentId,
    tick: Usd,
}

impl<'a> BookView<'a> {
    /// Levels of a side, best first.
    pub fn levels(self, side: Side) -> impl Iterator<Item = Level> + 'a {
        self.ladder.levels(side).map(level)
    }

    /// The best level of a side.
    #[must_use]
    pub fn best(self, side: Side) -> Option<Level> {
        self.ladder.best(side).map(level)
    }

    /// The level at exactly this price.
    #[must_use]
    pub fn level(self, side: Side, price: Price) -> Option<Level> {
        let price = u32::try_from(price.0).ok()?;
        self.ladder.cell(side, price).map(|&cell| level((price, cell)))
    }

    /// The orders of a level, oldest first.
    pub fn orders_at(self, level: Level) -> impl Iterator<Item = Order> + 'a {
        let mut at = level.head;
        std::iter::from_fn(move || {
            if at == NONE {
                return None;
            }
            let slot = at;
            at = self.books.record(slot).next;
            Some(self.books.wide(slot, self.tick, self.sessions))
        })
    }

    /// All orders of a side, in the order in which they would trade.
    pub fn queue(self, side: Side) -> impl Iterator<Item = Order> + 'a {
        self.levels(side).flat_map(move |level| self.orders_at(level))
    }

    /// One order.
    #[must_use]
    pub fn order(self, id: OrderId) -> Option<Order> {
        let (slot, record) = self.books.find(id)?;
        let own = record.instrument == self.instrument.0;
        own.then(|| self.books.wide(slot, self.tick, self.sessions))
    }

    /// How many orders rest. Counts the levels' orders, so it takes as long as there are levels.
    #[must_use]
    pub fn len(self) -> usize {
        let orders = |side| self.ladder.levels(side).map(|(_, cell)| cell.count as usize).sum::<usize>();
        orders(Side::Buy) + orders(Side::Sell)
    }

    /// True when nothing rests.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.ladder.is_empty()
    }

    /// How its levels are kept.
    #[must_use]
    pub fn form(self) -> Form {
        self.ladder.form()
    }
}

fn level((price, cell): (u32, ladder::Cell)) -> Level {
    Level { price: Price(price.into()), qty: Qty(cell.qty), orders: cell.count, head: cell.head }
}
