//! Books and nothing else: price levels, orders in the order of their arrival, matching. No accounts, no holds, no fees, no events, no ids but the
//! stream's own. What our engine takes beyond it is the price of being a market and not a data structure.
//!
//! Every price between a stream's lowest and highest has its level in one array; three layers of bits, 64 to 1, find the next level that has orders; the best
//! of each side is kept. Orders of all books lie in one slab, linked in a circle per level, and freed slots are used again, the newest first. Where
//! there is more of it all than caches hold, what a message needs is asked for some messages ahead, as our engine does.

mod bits;

use bits::{Bits, PRICES};

use crate::near::ask_for;
use crate::plain::{Book, Message, Tally, Verb};

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Order {
    number: u32,
    price: u32,
    qty: u32,
    next: u32,
    prev: u32,
    book: u16,
    buy: bool,
}

#[derive(Clone, Copy)]
struct Level {
    head: u32,
    orders: u32,
    qty: u64,
}

/// One book's levels.
struct Prices {
    levels: Vec<Level>,
    /// The price of the first level.
    lowest: u32,
    /// Bids, asks.
    bits: [Bits; 2],
    best: [Option<u32>; 2],
}

impl Prices {
    fn level(&mut self, price: u32) -> &mut Level {
        &mut self.levels[(price - self.lowest) as usize]
    }

    /// The price nearest below or above that has orders of a side.
    fn next(&self, side: usize, price: u32, down: bool) -> Option<u32> {
        Some(self.bits[side].next(price - self.lowest, down)? + self.lowest)
    }
}

/// What a stream needs room for: its books, its orders and the prices at which they rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Books.
    pub books: u16,
    /// The lowest price at which an order may rest.
    pub lowest: u32,
    /// The highest.
    pub highest: u32,
    /// New orders.
    pub orders: usize,
}

impl Extent {
    /// Of a stream.
    #[must_use]
    pub fn of(messages: &[Message]) -> Self {
        let mut extent = Self { books: 0, lowest: u32::MAX, highest: 0, orders: 0 };
        for message in messages {
            extent.books = extent.books.max(message.book + 1);
            extent.orders = extent.orders.max(message.order as usize + 1);
            if matches!(message.verb, Verb::New | Verb::Move) {
                extent.lowest = extent.lowest.min(message.price);
                extent.highest = extent.highest.max(message.price);
            }
        }
        extent.lowest = extent.lowest.min(extent.highest);
        extent
    }
}

/// More levels and orders than this are not in the near caches.
const NEAR: usize = 1 << 16;
/// How many messages ahead of its turn an order's place is asked for, the order and its level, and the orders next to it.
const AHEAD: [usize; 3] = [16, 10, 5];

/// The bare books; see the head of this file.
pub struct Ladder {
    books: Vec<Prices>,
    orders: Vec<Order>,
    free: u32,
    /// By number; [`NONE`] if not open.
    slots: Vec<u32>,
    open: usize,
}

impl std::fmt::Debug for Ladder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ladder")
            .field("books", &self.books.len())
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}

impl Ladder {
    /// Empty, with room for a stream.
    ///
    /// # Panics
    /// If prices are 64 to the power of 3 or more.
    #[must_use]
    pub fn new(extent: Extent) -> Self {
        let Extent { books, lowest, highest, orders } = extent;
        let prices = (highest - lowest) as usize + 1;
        assert!(prices <= PRICES, "the bits reach to {PRICES} prices");
        let book = || Prices {
            levels: vec![Level { head: NONE, orders: 0, qty: 0 }; prices],
            lowest,
            bits: [Bits::new(prices), Bits::new(prices)],
            best: [None; 2],
        };
        Self {
            books: (0..books).map(|_| book()).collect(),
            orders: Vec::with_capacity(orders),
            free: NONE,
            slots: vec![NONE; orders],
            open: 0,
        }
    }

    fn take_slot(&mut self, order: Order) -> u32 {
        self.open += 1;
        if self.free == NONE {
            self.orders.push(order);
            return self.orders.len() as u32 - 1;
        }
        let slot = self.free;
        self.free = self.orders[slot as usize].next;
        self.orders[slot as usize] = order;
        slot
    }

    fn rest(&mut self, message: &Message, qty: u32) {
        let Message { order: number, price, book, buy, .. } = *message;
        let slot = self.take_slot(Order { number, price, qty, next: NONE, prev: NONE, book, buy });
        self.slots[number as usize] = slot;
        let prices = &mut self.books[usize::from(book)];
        let level = prices.level(price);
        let head = if level.head == NONE { slot } else { level.head };
        let tail = if level.head == NONE { slot } else { self.orders[head as usize].prev };
        level.head = head;
        level.orders += 1;
        level.qty += u64::from(qty);
        if level.orders == 1 {
            let side = usize::from(!buy);
            prices.bits[side].set(price - prices.lowest);
            let better = |best: u32| if buy { price > best } else { price < best };
            if prices.best[side].is_none_or(better) {
                prices.best[side] = Some(price);
            }
        }
        self.orders[slot as usize].next = head;
        self.orders[slot as usize].prev = tail;
        self.orders[tail as usize].next = slot;
        self.orders[head as usize].prev = slot;
    }

    /// Takes an order out; what is open of it does not count in its level any more.
    fn remove(&mut self, slot: u32) {
        let order = self.orders[slot as usize];
        let prices = &mut self.books[usize::from(order.book)];
        let level = prices.level(order.price);
        level.qty -= u64::from(order.qty);
        level.orders -= 1;
        if level.orders == 0 {
            level.head = NONE;
            let side = usize::from(!order.buy);
            prices.bits[side].clear(order.price - prices.lowest);
            if prices.best[side] == Some(order.price) {
                prices.best[side] = prices.next(side, order.price, order.buy);
            }
        } else {
            if level.head == slot {
                level.head = order.next;
            }
            self.orders[order.prev as usize].next = order.next;
            self.orders[order.next as usize].prev = order.prev;
        }
        self.slots[order.number as usize] = NONE;
        self.orders[slot as usize].next = self.free;
        self.free = slot;
        self.open -= 1;
    }

    /// Trades an incoming order as far as its limit reaches; what is left of it.
    fn match_against(&mut self, taker: &Message, tally: &mut Tally) -> u32 {
        let Message { order, price: limit, mut qty, book, buy, .. } = *taker;
        let (book, side) = (usize::from(book), usize::from(buy));
        while qty > 0 {
            let prices = &mut self.books[book];
            let reached = |best: &u32| if buy { *best <= limit } else { *best >= limit };
            let Some(price) = prices.best[side].filter(reached) else { break };
            let level = prices.level(price);
            let slot = level.head;
            let maker = &mut self.orders[slot as usize];
            let traded = qty.min(maker.qty);
            tally.trade(order, maker.number, price, traded);
            qty -= traded;
            maker.qty -= traded;
            level.qty -= u64::from(traded);
            if maker.qty == 0 {
                self.remove(slot);
            }
        }
        qty
    }

    /// Whether all of it can be traded within its limit.
    fn can_fill(&mut self, taker: &Message) -> bool {
        let Message { price: limit, qty, book, buy, .. } = *taker;
        let (prices, side) = (&mut self.books[usize::from(book)], usize::from(buy));
        let (mut level, mut found) = (prices.best[side], 0);
        let reached = |price: &u32| if buy { *price <= limit } else { *price >= limit };
        while let Some(price) = level.filter(reached) {
            found += prices.level(price).qty;
            if found >= u64::from(qty) {
                return true;
            }
            level = prices.next(side, price, !buy);
        }
        false
    }

    fn slot(&self, number: u32) -> Option<u32> {
        self.slots.get(number as usize).copied().filter(|slot| *slot != NONE)
    }
}

impl Book for Ladder {
    fn name(&self) -> &'static str {
        "bare ladder, without accounts"
    }

    fn apply(&mut self, message: &Message, tally: &mut Tally) {
        match message.verb {
            Verb::New | Verb::NewIoc | Verb::NewFok => {
                if message.verb == Verb::NewFok && !self.can_fill(message) {
                    return;
                }
                let left = self.match_against(message, tally);
                if left > 0 && message.verb == Verb::New {
                    self.rest(message, left);
                }
            }
            Verb::Cancel => {
                if let Some(slot) = self.slot(message.order) {
                    self.remove(slot);
                }
            }
            Verb::Move => {
                if let Some(slot) = self.slot(message.order) {
                    self.remove(slot);
                    let left = self.match_against(message, tally);
                    if left > 0 {
                        self.rest(message, left);
                    }
                }
            }
            Verb::Reduce => {
                if let Some(slot) = self.slot(message.order) {
                    let resting = &mut self.orders[slot as usize];
                    let less = resting.qty - message.qty.min(resting.qty);
                    resting.qty -= less;
                    let (book, price) = (usize::from(resting.book), resting.price);
                    self.books[book].level(price).qty -= u64::from(less);
                }
            }
        }
    }

    fn run(&mut self, messages: &[Message], tally: &mut Tally) {
        let levels = self.books.len() * self.books.first().map_or(0, |book| book.levels.len());
        if levels + self.open <= NEAR {
            messages.iter().for_each(|message| self.apply(message, tally));
            return;
        }
        for (at, message) in messages.iter().enumerate() {
            let ahead = |step: usize| messages.get(at + AHEAD[step]);
            if let Some(later) = ahead(0) {
                ask_for(&self.slots, later.order as usize);
                ask_for(&self.books, later.book.into());
            }
            if let Some(later) = ahead(1) {
                let slot = self.slots[later.order as usize];
                ask_for(&self.orders, slot as usize);
                let prices = &self.books[usize::from(later.book)];
                ask_for(&prices.levels, later.price.wrapping_sub(prices.lowest) as usize);
            }
            if let Some(later) = ahead(2) {
                let prices = &self.books[usize::from(later.book)];
                if let Some(order) = self.orders.get(self.slots[later.order as usize] as usize) {
                    ask_for(&prices.levels, (order.price - prices.lowest) as usize);
                    ask_for(&self.orders, order.next as usize);
                    ask_for(&self.orders, order.prev as usize);
                }
                if let Some(level) = prices.levels.get(later.price.wrapping_sub(prices.lowest) as usize) {
                    ask_for(&self.orders, level.head as usize);
                }
            }
            self.apply(message, tally);
        }
    }

    fn open(&self) -> Option<usize> {
        Some(self.open)
    }
}

#[cfg(test)]
mod tests;
