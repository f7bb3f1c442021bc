//! Levels in order of price, best last: a whole small book, and of a busy one what lies far from the touch.
//!
//! A level is filed under its rank, which grows towards the best price, so that both sides are kept alike. The touch
//! moves without shifting anything, and since the levels lie in blocks of at most [`BLOCK`], a level in the middle of
//! a quarter of a million shifts no more than a block of them.

use super::Depth;
use super::ladder::Cell;
use crate::prefetch::ask_for;

/// Levels in a block.
const BLOCK: usize = 256;

type Entry = (u32, Cell);

/// Levels that lie together, worst first: their ranks apart from what rests there, since a search reads ranks alone.
#[derive(Clone, Debug, Default)]
struct Block {
    ranks: Vec<u32>,
    cells: Vec<Cell>,
}

impl Block {
    fn len(&self) -> usize {
        self.ranks.len()
    }

    fn insert(&mut self, at: usize, rank: u32, cell: Cell) {
        if self.ranks.len() == self.ranks.capacity() {
            // By a quarter: many small books together should not keep half of their memory empty.
            let more = (self.ranks.len() / 4).max(4);
            self.ranks.reserve_exact(more);
            self.cells.reserve_exact(more);
        }
        self.ranks.insert(at, rank);
        self.cells.insert(at, cell);
    }

    fn last(&self) -> Option<Entry> {
        self.ranks.last().copied().zip(self.cells.last().copied())
    }

    /// Moves the levels from `at` on behind those of another block.
    fn move_to(&mut self, at: usize, other: &mut Self) {
        other.ranks.extend(self.ranks.drain(at..));
        other.cells.extend(self.cells.drain(at..));
    }
}

/// The levels of one side.
///
/// Invariant: no block below the top is empty, nor is the top while there are blocks below it.
#[derive(Clone, Debug, Default)]
#[repr(C, align(64))] // all that a small book is found by lies in one cache line
pub(crate) struct Sorted {
    /// The best levels: all of a small book.
    top: Block,
    levels: u32,
    /// What a small book never needs.
    rest: Option<Box<Rest>>,
}

const _: () = assert!(size_of::<Sorted>() == 64, "one cache line");

/// What lies below the top block.
#[derive(Clone, Debug, Default)]
struct Rest {
    /// The other blocks, worst first.
    lower: Vec<Block>,
    /// A block that was emptied, for the next one that is wanted.
    spare: Block,
}

/// Where a level lies until the next one comes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    block: usize,
    at: usize,
}

impl Sorted {
    /// How many levels.
    pub(crate) const fn len(&self) -> usize {
        self.levels as usize
    }

    /// The blocks below the top, worst first.
    #[inline]
    fn lower(&self) -> &[Block] {
        self.rest.as_ref().map_or(&[], |rest| &rest.lower)
    }

    fn rest_mut(&mut self) -> &mut Rest {
        self.rest.get_or_insert_default()
    }

    /// The best level.
    #[inline]
    pub(crate) fn best(&self) -> Option<Entry> {
        self.top.last()
    }

    /// Asks for the ranks of the best levels, a cache line of them each 16.
    #[inline]
    pub(crate) fn ask_for_ranks(&self) {
        self.top.ranks.iter().rev().step_by(16).take(8).for_each(ask_for);
    }

    /// Asks for the level of a rank, or what lies where it belongs.
    #[inline]
    pub(crate) fn ask_for_level(&self, rank: u32) {
        let at = self.top.ranks.partition_point(|&other| other < rank);
        if let Some(cell) = self.top.cells.get(at) {
            ask_for(cell);
        }
    }

    /// The worst level's rank.
    pub(crate) fn worst(&self) -> Option<u32> {
        self.lower().first().unwrap_or(&self.top).ranks.first().copied()
    }

    pub(crate) fn get(&self, rank: u32) -> Option<&Cell> {
        let (block, at) = self.find(rank);
        at.ok().map(|at| &self.block(block).cells[at])
    }

    pub(crate) fn get_mut(&mut self, rank: u32) -> Option<&mut Cell> {
        let (block, at) = self.find(rank);
        at.ok().map(|at| &mut self.block_mut(block).cells[at])
    }

    /// The level, made empty if there is none.
    pub(crate) fn get_or_insert(&mut self, rank: u32) -> &mut Cell {
        let (mut block, at) = self.find(rank);
        let at = match at {
            Ok(at) => at,
            Err(mut at) => {
                if self.block(block).len() == BLOCK {
                    self.split(block);
                    if at > BLOCK / 2 {
                        (block, at) = (block + 1, at - BLOCK / 2);
                    }
                }
                self.block_mut(block).insert(at, rank, Cell::EMPTY);
                self.levels += 1;
                at
            }
        };
        &mut self.block_mut(block).cells[at]
    }

    /// Adds a level that is better than all.
    pub(crate) fn push_best(&mut self, rank: u32, cell: Cell) {
        if self.top.len() == BLOCK {
            let rest = self.rest.get_or_insert_default();
            let full = std::mem::replace(&mut self.top, std::mem::take(&mut rest.spare));
            rest.lower.push(full);
        }
        self.top.insert(self.top.len(), rank, cell);
        self.levels += 1;
    }

    /// Takes an order of so much out of a level, which goes with its last one; what the level has now, and where it is while it
    /// lasts.
    ///
    /// # Panics
    /// When there is no such level: a fault.
    pub(crate) fn leave(&mut self, rank: u32, qty: u32) -> (Depth, Option<Spot>) {
        let (block, at) = self.find(rank);
        let at = at.expect("a resting order has a level");
        let depth = self.block_mut(block).cells[at].take(qty);
        if depth.orders == 0 {
            self.remove(block, at);
            return (depth, None);
        }
        (depth, Some(Spot { block, at }))
    }

    /// The level at a spot that was found just now.
    pub(crate) fn at_mut(&mut self, Spot { block, at }: Spot) -> &mut Cell {
        &mut self.block_mut(block).cells[at]
    }

    /// Takes a level away.
    fn remove(&mut self, block: usize, at: usize) {
        let levels = self.block_mut(block);
        levels.ranks.remove(at);
        levels.cells.remove(at);
        let left = levels.len();
        self.levels -= 1;
        if left < BLOCK / 4 && !self.lower().is_empty() {
            self.merge(block);
        }
    }

    /// Takes all levels away.
    pub(crate) fn clear(&mut self) {
        if let Some(rest) = &mut self.rest {
            rest.lower.clear();
        }
        self.top.ranks.clear();
        self.top.cells.clear();
        self.levels = 0;
    }

    /// Best first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Entry> {
        let blocks = std::iter::once(&self.top).chain(self.lower().iter().rev());
        blocks.flat_map(|block| block.ranks.iter().copied().zip(block.cells.iter().copied()).rev())
    }

    /// The blocks are counted from the worst; the last is the top.
    #[inline]
    fn block(&self, nth: usize) -> &Block {
        self.lower().get(nth).unwrap_or(&self.top)
    }

    #[inline]
    fn block_mut(&mut self, nth: usize) -> &mut Block {
        match &mut self.rest {
            Some(rest) => rest.lower.get_mut(nth).unwrap_or(&mut self.top),
            None => &mut self.top,
        }
    }

    /// The block where a rank is or belongs, and where in it. Looks from the best end, where most of the traffic is.
    #[inline]
    fn find(&self, rank: u32) -> (usize, Result<usize, usize>) {
        let lower = self.lower();
        let top = lower.len();
        let block = match self.top.ranks.first() {
            Some(&first) if top > 0 && rank < first => lower
                .partition_point(|block| block.ranks.first().is_some_and(|&first| first <= rank))
                .saturating_sub(1),
            _ => top,
        };
        let ranks = &self.block(block).ranks;
        let at = match ranks.last() {
            None => Err(0),
            Some(&best) if best == rank => Ok(ranks.len() - 1),
            Some(&best) if best < rank => Err(ranks.len()),
            Some(_) => ranks.binary_search(&rank),
        };
        (block, at)
    }

    /// Divides a full block: its better half becomes the next block.
    fn split(&mut self, nth: usize) {
        let mut upper = std::mem::take(&mut self.rest_mut().spare);
        self.block_mut(nth).move_to(BLOCK / 2, &mut upper);
        let lower = &mut self.rest.get_or_insert_default().lower;
        if nth == lower.len() {
            let worse = std::mem::replace(&mut self.top, upper);
            lower.push(worse);
        } else {
            lower.insert(nth + 1, upper);
        }
    }

    /// Joins a block that became small with a neighbour, if both fit with room to spare.
    fn merge(&mut self, nth: usize) {
        let worse = nth.min(self.lower().len() - 1);
        let both = self.block(worse).len() + self.block(worse + 1).len();
        if both > BLOCK / 2 && self.block(nth).len() > 0 {
            return;
        }
        let rest = self.rest.get_or_insert_default();
        if worse + 1 == rest.lower.len() {
            // With the top: the joined one is the top from now on.
            let mut joined = rest.lower.pop().unwrap_or_default();
            self.top.move_to(0, &mut joined);
            rest.spare = std::mem::replace(&mut self.top, joined);
        } else {
            let mut better = rest.lower.remove(worse + 1);
            better.move_to(0, &mut rest.lower[worse]);
            rest.spare = better;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn blocks_split_and_join_and_stay_in_order() {
        let mut sorted = Sorted::default();
        let mut model = BTreeMap::new();
        let mut dice = 7_u64;
        for step in 0..200_000_u32 {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let rank = (dice >> 40) as u32 % 5_000;
            // Grows to thousands of levels, then shrinks to none, and again.
            if (step / 20_000).is_multiple_of(2) || (dice >> 33).is_multiple_of(4) {
                *sorted.get_or_insert(rank) = Cell { qty: u64::from(step), head: 0, count: 1 };
                model.insert(rank, u64::from(step));
            } else if model.remove(&rank).is_some() {
                let qty = sorted.get(rank).map_or(0, |cell| cell.qty as u32);
                assert_eq!(sorted.leave(rank, qty), (Depth::default(), None));
            }
            assert_eq!(sorted.get(rank).map(|cell| cell.qty), model.get(&rank).copied());
            assert_eq!(sorted.best().map(|best| best.0), model.last_key_value().map(|(rank, _)| *rank));
            if step % 1_000 == 0 {
                assert!(sorted.iter().map(|(rank, _)| rank).eq(model.keys().rev().copied()));
                assert_eq!(sorted.len(), model.len());
                assert!(sorted.lower().len() <= 1 + 8 * sorted.len() / BLOCK, "small neighbours are joined");
            }
        }
    }
}
