//! One instrument's resting orders, by price and then by time.
//!
//! ```text
//!  bids                     asks                       orders (one slab, u32 links, freed slots reused newest first)
//!  [.. 78 79 80]            [.. 83 82 81]              80 ─► #4 ⇄ #9 ⇄ #2      head is oldest, tail is newest
//!            └ best at the tail       └ best at the tail
//! ```
//! A side is a vector of levels sorted so that the best is last: the touch moves without shifting anything.
//! The book knows no money and no rules; `engine::matching` decides what trades.

use std::collections::BTreeMap;

use crate::command::{Side, TimeInForce};
use crate::ids::{AccountId, Label, OrderId, SessionId};
use crate::units::{Nanos, Price, Qty, Usd};

/// No order: end of a list.
const NONE: u32 = u32::MAX;

/// One resting order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Order {
    /// Its id.
    pub id: OrderId,
    /// Whose.
    pub account: AccountId,
    /// The session that hears of its fills.
    pub session: SessionId,
    /// The client's label.
    pub label: Label,
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

#[derive(Clone, Debug, PartialEq, Eq, Hash, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Node {
    order: Option<Order>,
    prev: u32,
    next: u32,
}

/// One price level.
///
/// Invariants: never empty; `qty` and `orders` are the sums of its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Level {
    /// Its price.
    pub price: Price,
    /// Open quantity.
    pub qty: Qty,
    /// How many orders.
    pub orders: u32,
    head: u32,
    tail: u32,
}

/// The book of one instrument.
///
/// Invariants: best bid below best ask; `index` names exactly the orders in the levels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Book {
    bids: Vec<Level>,
    asks: Vec<Level>,
    nodes: Vec<Node>,
    free: Vec<u32>,
    index: BTreeMap<OrderId, u32>,
}

impl Book {
    /// Levels of a side, best first.
    pub fn levels(&self, side: Side) -> impl Iterator<Item = &Level> {
        self.side(side).iter().rev()
    }

    /// The best level of a side.
    #[must_use]
    pub fn best(&self, side: Side) -> Option<&Level> {
        self.side(side).last()
    }

    /// The level at exactly this price.
    #[must_use]
    pub fn level(&self, side: Side, price: Price) -> Option<&Level> {
        self.find(side, price).ok().map(|at| &self.side(side)[at])
    }

    /// The orders of a level, oldest first.
    pub fn orders_at(&self, level: &Level) -> impl Iterator<Item = &Order> {
        let mut at = level.head;
        std::iter::from_fn(move || {
            let node = self.nodes.get(at as usize)?;
            at = node.next;
            node.order.as_ref()
        })
    }

    /// All orders of a side, in the order in which they would trade.
    pub fn queue(&self, side: Side) -> impl Iterator<Item = &Order> {
        self.levels(side).flat_map(|level| self.orders_at(level))
    }

    /// One order.
    #[must_use]
    pub fn order(&self, id: OrderId) -> Option<&Order> {
        self.index.get(&id).and_then(|&at| self.nodes[at as usize].order.as_ref())
    }

    /// How many orders rest.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// True when nothing rests.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The order that trades first on a side.
    pub(crate) fn front(&self, side: Side) -> Option<&Order> {
        self.best(side).map(|level| {
            self.nodes[level.head as usize].order.as_ref().expect("a level's head is a resting order")
        })
    }

    /// Adds an order behind all others of its level.
    pub(crate) fn insert(&mut self, order: Order) {
        let (id, side, price, qty) = (order.id, order.side, order.price, order.remaining);
        let slot = self.allocate(order);
        let at = match self.find(side, price) {
            Ok(at) => at,
            Err(at) => {
                let level = Level { price, qty: Qty::ZERO, orders: 0, head: NONE, tail: NONE };
                self.side_mut(side).insert(at, level);
                at
            }
        };
        let level = &mut self.side_mut(side)[at];
        let tail = level.tail;
        level.tail = slot;
        level.qty = level.qty.plus(qty);
        level.orders += 1;
        if tail == NONE {
            level.head = slot;
        } else {
            self.nodes[tail as usize].next = slot;
            self.nodes[slot as usize].prev = tail;
        }
        self.index.insert(id, slot);
    }

    /// Takes an order out.
    pub(crate) fn remove(&mut self, id: OrderId) -> Option<Order> {
        let slot = self.index.remove(&id)?;
        let node = &mut self.nodes[slot as usize];
        let (prev, next) = (node.prev, node.next);
        let order = node.order.take().expect("the index names resting orders");
        self.free.push(slot);
        if prev != NONE {
            self.nodes[prev as usize].next = next;
        }
        if next != NONE {
            self.nodes[next as usize].prev = prev;
        }
        let at = self.find(order.side, order.price).expect("a resting order has a level");
        let level = &mut self.side_mut(order.side)[at];
        level.qty = level.qty.minus(order.remaining);
        level.orders -= 1;
        if level.head == slot {
            level.head = next;
        }
        if level.tail == slot {
            level.tail = prev;
        }
        if level.orders == 0 {
            self.side_mut(order.side).remove(at);
        }
        Some(order)
    }

    /// Changes a resting order in place; its price and side stay, its level follows its quantity.
    pub(crate) fn amend<R>(&mut self, id: OrderId, change: impl FnOnce(&mut Order) -> R) -> Option<R> {
        let &slot = self.index.get(&id)?;
        let order = self.nodes[slot as usize].order.as_mut().expect("the index names resting orders");
        let before = order.remaining;
        let result = change(order);
        let (side, price, after) = (order.side, order.price, order.remaining);
        let at = self.find(side, price).expect("a resting order has a level");
        let level = &mut self.side_mut(side)[at];
        level.qty = level.qty.minus(before).plus(after);
        Some(result)
    }

    /// The first broken invariant in words.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut seen = 0;
        for side in [Side::Buy, Side::Sell] {
            let levels = self.side(side);
            for pair in levels.windows(2) {
                if !self.worse(side, pair[0].price, pair[1].price) {
                    return Err(format!("{side:?} levels are sorted, best last: {:?}", pair));
                }
            }
            for level in levels {
                let (mut qty, mut orders, mut last) = (0, 0, NONE);
                let mut at = level.head;
                while at != NONE {
                    let node = &self.nodes[at as usize];
                    let order = node.order.as_ref().ok_or("a level lists resting orders")?;
                    if order.price != level.price || order.side != side || order.remaining.is_zero() {
                        return Err(format!("a level's orders share its price and are open: {order:?}"));
                    }
                    if self.index.get(&order.id) != Some(&at) || node.prev != last {
                        return Err(format!("index and links name the order: {order:?}"));
                    }
                    qty += order.remaining.0;
                    orders += 1;
                    last = at;
                    at = node.next;
                }
                if level.tail != last || level.qty != Qty(qty) || level.orders != orders || orders == 0 {
                    return Err(format!("a level's sums are those of its list: {level:?}"));
                }
                seen += orders as usize;
            }
        }
        if seen != self.index.len() || self.nodes.len() != seen + self.free.len() {
            return Err(format!("{seen} orders in levels, {} in the index", self.index.len()));
        }
        if let (Some(bid), Some(ask)) = (self.best(Side::Buy), self.best(Side::Sell))
            && bid.price >= ask.price
        {
            return Err(format!("best bid {} below best ask {}", bid.price.0, ask.price.0));
        }
        Ok(())
    }

    fn allocate(&mut self, order: Order) -> u32 {
        let node = Node { order: Some(order), prev: NONE, next: NONE };
        match self.free.pop() {
            Some(slot) => {
                self.nodes[slot as usize] = node;
                slot
            }
            None => {
                let slot =
                    u32::try_from(self.nodes.len()).expect("open orders are bounded far below u32::MAX");
                self.nodes.push(node);
                slot
            }
        }
    }

    const fn side(&self, side: Side) -> &Vec<Level> {
        match side {
            Side::Buy => &self.bids,
            Side::Sell => &self.asks,
        }
    }

    const fn side_mut(&mut self, side: Side) -> &mut Vec<Level> {
        match side {
            Side::Buy => &mut self.bids,
            Side::Sell => &mut self.asks,
        }
    }

    /// True when `a` trades after `b` on this side.
    fn worse(&self, side: Side, a: Price, b: Price) -> bool {
        match side {
            Side::Buy => a < b,
            Side::Sell => a > b,
        }
    }

    /// Where a price is on a side, or where it belongs. Looks from the best end, where most of the traffic is.
    fn find(&self, side: Side, price: Price) -> Result<usize, usize> {
        let levels = self.side(side);
        match levels.last() {
            None => Err(0),
            Some(best) if best.price == price => Ok(levels.len() - 1),
            Some(_) => levels.binary_search_by(|level| match side {
                Side::Buy => level.price.cmp(&price),
                Side::Sell => price.cmp(&level.price),
            }),
        }
    }
}
