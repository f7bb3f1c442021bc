//! Levels in order of price, best last: a whole small book, and of a busy one what lies far from the touch.
//!
//! A level is filed under its rank, which grows towards the best price, so that both sides are kept alike. The touch
//! moves without shifting anything, and since the levels lie in blocks of at most [`BLOCK`], a level in the middle of
//! a quarter of a million shifts no more than a block of them.

use super::ladder::Cell;
use crate::prefetch::ask_for;

/// Levels in a block.
const BLOCK: usize = 256;

type Entry = (u32, Cell);

/// The levels of one side.
///
/// Invariant: no block is empty unless it is the only one.
#[derive(Clone, Debug)]
pub(crate) struct Sorted {
    /// Worst first, as are the levels in each.
    blocks: Vec<Vec<Entry>>,
    /// A block that was emptied, for the next one that is wanted.
    spare: Vec<Entry>,
    levels: usize,
}

impl Default for Sorted {
    fn default() -> Self {
        Self { blocks: vec![Vec::new()], spare: Vec::new(), levels: 0 }
    }
}

impl Sorted {
    /// How many levels.
    pub(crate) const fn len(&self) -> usize {
        self.levels
    }

    /// The best level.
    #[inline]
    pub(crate) fn best(&self) -> Option<Entry> {
        self.blocks.last().and_then(|block| block.last()).copied()
    }

    /// Asks for the best levels.
    #[inline]
    pub(crate) fn ask_for(&self) {
        if let Some(best) = self.blocks.last().and_then(|block| block.last()) {
            ask_for(best);
        }
    }

    /// The worst level's rank.
    pub(crate) fn worst(&self) -> Option<u32> {
        self.blocks.first().and_then(|block| block.first()).map(|entry| entry.0)
    }

    pub(crate) fn get(&self, rank: u32) -> Option<&Cell> {
        let (block, at) = self.find(rank);
        at.ok().map(|at| &self.blocks[block][at].1)
    }

    pub(crate) fn get_mut(&mut self, rank: u32) -> Option<&mut Cell> {
        let (block, at) = self.find(rank);
        at.ok().map(|at| &mut self.blocks[block][at].1)
    }

    /// The level, made empty if there is none; and whether it was made.
    pub(crate) fn get_or_insert(&mut self, rank: u32) -> (&mut Cell, bool) {
        let (mut block, at) = self.find(rank);
        let (at, new) = match at {
            Ok(at) => (at, false),
            Err(mut at) => {
                if self.blocks[block].len() == BLOCK {
                    self.split(block);
                    if at > BLOCK / 2 {
                        (block, at) = (block + 1, at - BLOCK / 2);
                    }
                }
                self.blocks[block].insert(at, (rank, Cell::EMPTY));
                self.levels += 1;
                (at, true)
            }
        };
        (&mut self.blocks[block][at].1, new)
    }

    /// Adds a level that is better than all.
    pub(crate) fn push_best(&mut self, rank: u32, cell: Cell) {
        if self.blocks.last().is_none_or(|block| block.len() == BLOCK) {
            let spare = std::mem::take(&mut self.spare);
            self.blocks.push(spare);
        }
        if let Some(block) = self.blocks.last_mut() {
            block.push((rank, cell));
            self.levels += 1;
        }
    }

    /// Takes a level away; true if it was there.
    pub(crate) fn remove(&mut self, rank: u32) -> bool {
        let (block, Ok(at)) = self.find(rank) else {
            return false;
        };
        self.blocks[block].remove(at);
        self.levels -= 1;
        if self.blocks.len() > 1 && self.blocks[block].len() < BLOCK / 4 {
            self.merge(block);
        }
        true
    }

    /// Takes all levels away.
    pub(crate) fn clear(&mut self) {
        self.blocks.truncate(1);
        self.blocks[0].clear();
        self.levels = 0;
    }

    /// Best first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Entry> {
        self.blocks.iter().rev().flat_map(|block| block.iter().rev().copied())
    }

    /// The block where a rank is or belongs, and where in it. Looks from the best end, where most of the traffic is.
    #[inline]
    fn find(&self, rank: u32) -> (usize, Result<usize, usize>) {
        let last = self.blocks.len() - 1;
        let block = match self.blocks[last].first() {
            Some(first) if last > 0 && rank < first.0 => self
                .blocks
                .partition_point(|block| block.first().is_some_and(|first| first.0 <= rank))
                .saturating_sub(1),
            _ => last,
        };
        let levels = &self.blocks[block];
        let at = match levels.last() {
            None => Err(0),
            Some(best) if best.0 == rank => Ok(levels.len() - 1),
            Some(best) if best.0 < rank => Err(levels.len()),
            Some(_) => levels.binary_search_by_key(&rank, |entry| entry.0),
        };
        (block, at)
    }

    /// Divides a full block.
    fn split(&mut self, block: usize) {
        let mut upper = std::mem::take(&mut self.spare);
        upper.extend(self.blocks[block].drain(BLOCK / 2..));
        self.blocks.insert(block + 1, upper);
    }

    /// Joins a block that became small with a neighbour, if both fit with room to spare.
    fn merge(&mut self, block: usize) {
        let lower = if block + 1 < self.blocks.len() { block } else { block - 1 };
        let both = self.blocks[lower].len() + self.blocks[lower + 1].len();
        if both > BLOCK / 2 && !self.blocks[block].is_empty() {
            return;
        }
        let mut upper = self.blocks.remove(lower + 1);
        self.blocks[lower].append(&mut upper);
        self.spare = upper;
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
                let (cell, new) = sorted.get_or_insert(rank);
                assert_eq!(new, model.insert(rank, u64::from(step)).is_none());
                cell.qty = u64::from(step);
            } else {
                assert_eq!(sorted.remove(rank), model.remove(&rank).is_some());
            }
            assert_eq!(sorted.get(rank).map(|cell| cell.qty), model.get(&rank).copied());
            assert_eq!(sorted.best().map(|best| best.0), model.last_key_value().map(|(rank, _)| *rank));
            if step % 1_000 == 0 {
                assert!(sorted.iter().map(|(rank, _)| rank).eq(model.keys().rev().copied()));
                assert_eq!(sorted.len(), model.len());
                assert!(sorted.blocks.len() <= 2 + 8 * sorted.len() / BLOCK, "small neighbours are joined");
            }
        }
    }
}
