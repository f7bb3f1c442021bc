//! The price levels of one book: what rests at each price, and which price is best.
//!
//! Derived from the orders, so it is neither hashed nor written to snapshots. A side is a vector of levels sorted so
//! that the best is last: the touch moves without shifting anything.

use crate::command::Side;

use super::slab::NONE;

/// What rests at one price: never empty once an order is in it. The order's links hold the rest of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Cell {
    /// Open quantity.
    pub(crate) qty: u64,
    /// The oldest order.
    pub(crate) head: u32,
    /// How many orders.
    pub(crate) count: u32,
}

impl Cell {
    const EMPTY: Self = Self { qty: 0, head: NONE, count: 0 };
}

const _: () = assert!(size_of::<Cell>() == 16, "four levels in a cache line");

/// The levels of one book.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ladder {
    /// By side, worst first.
    sides: [Vec<(u32, Cell)>; 2],
}

impl Ladder {
    /// The best price of a side and what rests there.
    #[inline]
    pub(crate) fn best(&self, side: Side) -> Option<(u32, Cell)> {
        self.sides[side as usize].last().copied()
    }

    /// What rests at a price.
    #[inline]
    pub(crate) fn cell(&self, side: Side, price: u32) -> Option<&Cell> {
        self.find(side, price).ok().map(|at| &self.sides[side as usize][at].1)
    }

    /// What rests at a price, to change; it must not become empty.
    #[inline]
    pub(crate) fn cell_mut(&mut self, side: Side, price: u32) -> Option<&mut Cell> {
        self.find(side, price).ok().map(|at| &mut self.sides[side as usize][at].1)
    }

    /// The level at a price, made if there is none; the caller puts an order into it.
    #[inline]
    pub(crate) fn cell_or_empty(&mut self, side: Side, price: u32) -> &mut Cell {
        let at = match self.find(side, price) {
            Ok(at) => at,
            Err(at) => {
                self.sides[side as usize].insert(at, (price, Cell::EMPTY));
                at
            }
        };
        &mut self.sides[side as usize][at].1
    }

    /// Takes a level away: its last order has left.
    #[inline]
    pub(crate) fn clear(&mut self, side: Side, price: u32) {
        if let Ok(at) = self.find(side, price) {
            self.sides[side as usize].remove(at);
        }
    }

    /// The levels of a side, best first.
    pub(crate) fn levels(&self, side: Side) -> impl Iterator<Item = (u32, Cell)> {
        self.sides[side as usize].iter().rev().copied()
    }

    /// True when nothing rests.
    pub(crate) fn is_empty(&self) -> bool {
        self.sides.iter().all(Vec::is_empty)
    }

    /// Where a price is on a side, or where it belongs. Looks from the best end, where most of the traffic is.
    fn find(&self, side: Side, price: u32) -> Result<usize, usize> {
        let levels = &self.sides[side as usize];
        match levels.last() {
            None => Err(0),
            Some(best) if best.0 == price => Ok(levels.len() - 1),
            Some(_) => levels.binary_search_by(|level| match side {
                Side::Buy => level.0.cmp(&price),
                Side::Sell => price.cmp(&level.0),
            }),
        }
    }
}
