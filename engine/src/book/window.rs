//! The levels around the touch of a busy book: an array by price, which both sides share since their prices never meet.
//!
//! ```text
//! cells   [ . . b b . b . . . a . a a . ]     16 bytes a tick, price = base + index
//! bits    asks 000000000101100, bids backwards 0000000101100, and a word of those says which 64 words have any
//! ```
//! Finding a level costs one access, finding the next better or worse one costs a few bit operations.

use zerocopy::FromZeros;

use super::ladder::Cell;
use crate::command::Side;
use crate::prefetch::ask_for;

/// The most ticks that a window covers: 256 KiB of cells, which the second cache holds.
pub(crate) const TICKS_MAX: u32 = 1 << 14;
/// The fewest.
const TICKS_MIN: u32 = 1 << 10;

/// Levels at prices `base..base + cells.len()`; of no price at all until it is laid.
///
/// Invariant: a side's bits name the cells that have orders of this side; no cell is named by both.
#[derive(Clone, Debug, Default)]
pub(crate) struct Window {
    base: u32,
    cells: Box<[Cell]>,
    sides: [Bits; 2],
}

impl Window {
    /// One without levels. Its last price must fit 32 bits.
    pub(crate) fn new(base: u32, ticks: u32) -> Self {
        let cells = <[Cell]>::new_box_zeroed_with_elems(ticks as usize)
            .expect("the machine has memory for the windows that its limits allow");
        let bits = || Bits { words: vec![0; ticks as usize / 64].into(), tops: [0; 4], levels: 0 };
        Self { base, cells, sides: [bits(), bits()] }
    }

    /// The size that covers `span` ticks with room on both sides, as far as there is one.
    pub(crate) fn ticks_for(span: u32) -> u32 {
        span.saturating_mul(2).clamp(TICKS_MIN, TICKS_MAX).next_power_of_two()
    }

    pub(crate) const fn base(&self) -> u32 {
        self.base
    }

    /// A power of two; 0 where none is laid.
    pub(crate) const fn ticks(&self) -> u32 {
        self.cells.len() as u32
    }

    pub(crate) const fn is_laid(&self) -> bool {
        !self.cells.is_empty()
    }

    /// How many levels it has on both sides.
    pub(crate) const fn levels(&self) -> u32 {
        self.sides[0].levels + self.sides[1].levels
    }

    /// Where a price is.
    #[inline(always)]
    pub(crate) fn place(&self, price: u32) -> Option<u32> {
        let at = price.wrapping_sub(self.base);
        (at < self.ticks()).then_some(at)
    }

    /// Between a place and where a side's bits have it, both ways: bids are filed backwards, so that on both sides a worse
    /// level lies behind a better one.
    #[inline]
    const fn flip(&self, side: Side) -> u32 {
        self.ticks().wrapping_sub(1) & (side as u32).wrapping_sub(1)
    }

    /// Asks for the level at a price.
    #[inline]
    pub(crate) fn ask_for(&self, price: u32) {
        if let Some(at) = self.place(price) {
            ask_for(&self.cells[at as usize]);
            for side in [Side::Buy, Side::Sell] {
                ask_for(&self.sides[side as usize].words[(at ^ self.flip(side)) as usize / 64]);
            }
        }
    }

    /// What rests at a place on this side.
    #[inline]
    pub(crate) fn get(&self, side: Side, at: u32) -> Option<&Cell> {
        self.sides[side as usize].has(at ^ self.flip(side)).then(|| &self.cells[at as usize])
    }

    /// What lies at a place, whether anything rests there or not.
    #[inline(always)]
    pub(crate) fn at(&self, at: u32) -> &Cell {
        &self.cells[at as usize]
    }

    /// The level at a place that has one.
    #[inline(always)]
    pub(crate) fn at_mut(&mut self, at: u32) -> &mut Cell {
        &mut self.cells[at as usize]
    }

    /// The level at a place, made if there is none.
    #[inline(always)]
    pub(crate) fn get_or_insert(&mut self, side: Side, at: u32) -> &mut Cell {
        let flip = self.flip(side);
        let cell = &mut self.cells[at as usize];
        if cell.count == 0 {
            self.sides[side as usize].set(at ^ flip);
        }
        cell
    }

    /// Takes away the level at a place that has one.
    #[inline(always)]
    pub(crate) fn remove(&mut self, side: Side, at: u32) {
        self.cells[at as usize] = Cell::EMPTY;
        let flip = self.flip(side);
        self.sides[side as usize].unset(at ^ flip);
    }

    /// The next level that is worse than a place.
    #[inline]
    pub(crate) fn worse(&self, side: Side, at: u32) -> Option<u32> {
        let flip = self.flip(side);
        self.sides[side as usize].from((at ^ flip) + 1).map(|found| found ^ flip)
    }

    /// The best level.
    pub(crate) fn best(&self, side: Side) -> Option<u32> {
        let flip = self.flip(side);
        self.sides[side as usize].from(0).map(|found| found ^ flip)
    }

    /// Prices and levels of a side, best first.
    pub(crate) fn iter(&self, side: Side) -> impl Iterator<Item = (u32, Cell)> {
        let mut next = self.best(side);
        std::iter::from_fn(move || {
            let at = next?;
            next = self.worse(side, at);
            Some((self.base + at, self.cells[at as usize]))
        })
    }

    /// Takes all levels away and covers other prices.
    pub(crate) fn begin_at(&mut self, base: u32) {
        for side in [Side::Buy, Side::Sell] {
            let mut next = self.best(side);
            while let Some(at) = next {
                next = self.worse(side, at);
                self.remove(side, at);
            }
        }
        self.base = base;
    }
}

/// Which places of a window have a level of one side, best first.
#[derive(Clone, Debug, Default)]
struct Bits {
    words: Box<[u64]>,
    /// Which words are not zero.
    tops: [u64; 4],
    levels: u32,
}

const _: () = assert!(TICKS_MAX as usize <= 64 * 64 * 4, "four words name all words");

impl Bits {
    #[inline]
    fn has(&self, at: u32) -> bool {
        self.words[at as usize / 64] >> (at % 64) & 1 != 0
    }

    #[inline(always)]
    fn set(&mut self, at: u32) {
        let word = at as usize / 64;
        self.words[word] |= 1 << (at % 64);
        self.tops[word / 64] |= 1 << (word % 64);
        self.levels += 1;
    }

    #[inline(always)]
    fn unset(&mut self, at: u32) {
        let word = at as usize / 64;
        self.words[word] &= !(1 << (at % 64));
        if self.words[word] == 0 {
            self.tops[word / 64] &= !(1 << (word % 64));
        }
        self.levels -= 1;
    }

    /// The first place from `at` on that has a level.
    #[inline]
    fn from(&self, at: u32) -> Option<u32> {
        let (word, bit) = (at as usize / 64, at % 64);
        let here = self.words.get(word)? & (u64::MAX << bit);
        if here != 0 {
            return Some(word as u32 * 64 + here.trailing_zeros());
        }
        let next = word + 1;
        let mut top = next / 64;
        let mut bits = self.tops.get(top)? & (u64::MAX << (next % 64));
        loop {
            if bits != 0 {
                let word = top * 64 + bits.trailing_zeros() as usize;
                return Some(word as u32 * 64 + self.words[word].trailing_zeros());
            }
            top += 1;
            bits = *self.tops.get(top)?;
        }
    }
}
