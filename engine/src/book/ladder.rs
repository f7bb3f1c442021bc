//! The price levels of one book: what rests at each price, and which price is best.
//!
//! A book begins as two sorted vectors. Once a side passes [`CROWDED`] levels, a window of ticks around the touch takes
//! in what it covers (`window.rs`), and the vectors keep what lies beyond it: a price outside is slower to reach, never
//! lost. The window stays where it is while the touch moves within it. When orders keep coming in beyond it, as many as
//! there are levels, it is laid anew around the touch, larger if that helps: so each level that is carried over has been
//! paid for by a command, whatever the market does. A window is given up once the book has long had few levels: as many of
//! them have gone meanwhile as the window has ticks, so that a book which is emptied and filled again allocates nothing,
//! and an adversary who makes a book wide and narrow again pays a command for every 16 bytes that are cleared for it.
//!
//! Derived from the orders, so neither hashed nor in snapshots; which form a book has changes nothing but time.

use zerocopy::FromZeros;

use super::slab::NONE;
use super::sorted::Sorted;
use super::window::{TICKS_MAX, Window};
use super::{Depth, Form};
use crate::command::Side;
use crate::prefetch::ask_for;
use crate::units::{Price, Qty};

/// A side with more levels than this gets a window.
const CROWDED: usize = 64;

/// A book with at most so many levels on both sides together is better off without a window.
const CALM: u32 = 32;

/// What rests at one price: never empty once an order is in it. The orders' links hold the rest of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromZeros)]
#[repr(C)]
pub(crate) struct Cell {
    /// Open quantity.
    pub(crate) qty: u64,
    /// The oldest order, if there is one.
    pub(crate) head: u32,
    /// How many orders.
    pub(crate) count: u32,
}

impl Cell {
    pub(crate) const EMPTY: Self = Self { qty: 0, head: NONE, count: 0 };

    #[inline]
    pub(crate) const fn depth(&self) -> Depth {
        Depth { qty: Qty(self.qty), orders: self.count }
    }

    /// An order of so much leaves; what is left.
    #[inline(always)]
    pub(super) const fn take(&mut self, qty: u32) -> Depth {
        self.count -= 1;
        self.qty -= qty as u64;
        self.depth()
    }
}

const _: () = assert!(size_of::<Cell>() == 16, "four levels in a cache line");

/// The levels of one book.
#[derive(Clone, Debug, Default)]
#[repr(C, align(64))] // what most commands look at comes first, in one cache line
pub(crate) struct Ladder {
    /// The standing of the best price of each side; 0 where there is none.
    best: [u64; 2],
    window: Window,
    /// Levels beyond the window, or all of them, by rank.
    far: [Sorted; 2],
    /// Accesses beyond the window since it was laid.
    strain: u32,
    /// Levels that have gone from the window since there were more than [`CALM`].
    calm: u32,
    /// Levels on their way from one window to the next; empty otherwise.
    moving: Vec<(Side, u32, Cell)>,
    /// Levels that were ever carried over.
    #[cfg(test)]
    carried: u64,
}

/// Grows towards the better price; its own inverse.
#[inline]
const fn rank(side: Side, price: u32) -> u32 {
    match side {
        Side::Buy => price,
        Side::Sell => !price,
    }
}

/// One more than any price.
const PRICES: u64 = 1 << 32;

/// As [`rank`], but above 0 for every price, and such that a bid and an ask whose standings add up to [`PRICES`] trade.
#[inline]
const fn standing(side: Side, price: u32) -> u64 {
    match side {
        Side::Buy => price as u64,
        Side::Sell => PRICES - price as u64,
    }
}

/// The price that has this standing.
#[inline]
const fn price_of(side: Side, standing: u64) -> Option<u32> {
    match (standing, side) {
        (0, _) => None,
        (_, Side::Buy) => Some(standing as u32),
        (_, Side::Sell) => Some((PRICES - standing) as u32),
    }
}

impl Ladder {
    /// The best price of a side.
    #[inline]
    pub(crate) fn best_price(&self, side: Side) -> Option<u32> {
        price_of(side, self.best[side as usize])
    }

    /// Whether an order of this side would trade at once at this price.
    #[inline(always)]
    pub(crate) fn would_trade(&self, side: Side, price: u32) -> bool {
        standing(side, price) + self.best[side.opposite() as usize] >= PRICES
    }

    /// The best price of a side and what rests there.
    #[inline]
    pub(crate) fn best(&self, side: Side) -> Option<(u32, Cell)> {
        let price = self.best_price(side)?;
        self.cell(side, price).map(|&cell| (price, cell))
    }

    /// The best price of a side and the slot of its oldest order.
    #[inline]
    pub(crate) fn front(&self, side: Side) -> Option<(u32, u32)> {
        let price = self.best_price(side)?;
        let cell = match self.window.place(price) {
            Some(at) => self.window.at(at),
            None => self.far[side as usize].get(rank(side, price))?,
        };
        Some((price, cell.head))
    }

    /// What rests at a price.
    #[inline]
    pub(crate) fn cell(&self, side: Side, price: u32) -> Option<&Cell> {
        match self.window.place(price) {
            Some(at) => self.window.get(side, at),
            None => self.far[side as usize].get(rank(side, price)),
        }
    }

    /// What rests at a price where something rests, to change; it must not become empty.
    #[inline(always)]
    pub(crate) fn cell_mut(&mut self, side: Side, price: u32) -> Option<&mut Cell> {
        match self.window.place(price) {
            Some(at) => Some(self.window.at_mut(at)),
            None => self.far_mut(side, price),
        }
    }

    /// The level at a price, made if there is none; the caller puts an order into it.
    #[inline(always)]
    pub(crate) fn cell_or_empty(&mut self, side: Side, price: u32) -> &mut Cell {
        let best = &mut self.best[side as usize];
        *best = (*best).max(standing(side, price));
        match self.window.place(price) {
            Some(at) => self.window.get_or_insert(side, at),
            None => self.cell_beyond(side, price),
        }
    }

    #[inline(never)]
    fn far_mut(&mut self, side: Side, price: u32) -> Option<&mut Cell> {
        self.far[side as usize].get_mut(rank(side, price))
    }

    #[inline(never)]
    fn cell_beyond(&mut self, side: Side, price: u32) -> &mut Cell {
        self.pass_by(side);
        match self.window.place(price) {
            Some(at) => self.window.get_or_insert(side, at),
            None => self.far[side as usize].get_or_insert(rank(side, price)),
        }
    }

    /// Takes an order of so much out of its level, which goes with its last one; what the level has now, and where it is
    /// while it lasts, so that the caller can mend its links.
    #[inline(always)]
    pub(crate) fn leave(&mut self, side: Side, price: u32, qty: u32) -> (Depth, Option<&mut Cell>) {
        let Some(at) = self.window.place(price) else {
            return self.leave_beyond(side, price, qty);
        };
        let depth = self.window.at_mut(at).take(qty);
        if depth.orders != 0 {
            return (depth, Some(self.window.at_mut(at)));
        }
        self.window.remove(side, at);
        if self.best[side as usize] == standing(side, price) {
            self.find_best(side, at);
        }
        if self.window.levels() > CALM {
            self.calm = 0;
        } else {
            self.grow_calm();
        }
        (depth, None)
    }

    /// One level less in a window that has few.
    #[cold]
    fn grow_calm(&mut self) {
        self.calm += 1;
        if self.calm > self.window.ticks() {
            self.give_up_window();
        }
    }

    #[inline(never)]
    fn leave_beyond(&mut self, side: Side, price: u32, qty: u32) -> (Depth, Option<&mut Cell>) {
        let was_best = self.best[side as usize] == standing(side, price);
        let (depth, spot) = self.far[side as usize].leave(rank(side, price), qty);
        if let Some(spot) = spot {
            return (depth, Some(self.far[side as usize].at_mut(spot)));
        }
        if was_best {
            // A small book has none, and need not be asked for what it would lie in.
            let near = if self.window.is_laid() { self.window.best(side) } else { None };
            self.set_best(side, near);
        }
        (depth, None)
    }

    /// The next best price, once the level at this place of the window, the best one, has gone.
    #[inline(never)]
    fn find_best(&mut self, side: Side, at: u32) {
        let near = self.window.worse(side, at);
        self.set_best(side, near);
    }

    /// The better of the window's best level and of those beyond.
    fn set_best(&mut self, side: Side, near: Option<u32>) {
        let near = near.map_or(0, |at| standing(side, self.window.base() + at));
        let beyond =
            self.far[side as usize].best().map_or(0, |(beyond, _)| standing(side, rank(side, beyond)));
        self.best[side as usize] = near.max(beyond);
    }

    /// The levels of a side, best first.
    pub(crate) fn levels(&self, side: Side) -> impl Iterator<Item = (u32, Cell)> {
        let mut near = self.window.iter(side).peekable();
        let mut far =
            self.far[side as usize].iter().map(move |(order, cell)| (rank(side, order), cell)).peekable();
        std::iter::from_fn(move || match (near.peek(), far.peek()) {
            (Some(&(near_price, _)), Some(&(far_price, _)))
                if rank(side, near_price) < rank(side, far_price) =>
            {
                far.next()
            }
            (Some(_), _) => near.next(),
            (None, _) => far.next(),
        })
    }

    /// True when nothing rests.
    pub(crate) fn is_empty(&self) -> bool {
        self.best == [0, 0]
    }

    /// Asks for what is looked at first.
    #[inline]
    pub(crate) fn ask_for(&self) {
        ask_for(&self.best);
        ask_for(&self.far[0]);
        ask_for(&self.far[1]);
    }

    /// Asks for what the search for a level reads.
    #[inline]
    pub(crate) fn ask_for_ranks(&self, side: Side) {
        if !self.window.is_laid() {
            self.far[side as usize].ask_for_ranks();
        }
    }

    /// Asks for what rests at a price, if the window has it.
    #[inline(always)]
    pub(crate) fn ask_for_cell(&self, price: u32) {
        if let Some(at) = self.window.place(price) {
            ask_for(self.window.at(at));
        }
    }

    /// Asks for the level at a price.
    #[inline]
    pub(crate) fn ask_for_level(&self, side: Side, price: u32) {
        if self.window.is_laid() {
            self.window.ask_for(price);
        } else {
            self.far[side as usize].ask_for_level(rank(side, price));
        }
    }

    /// How the levels are kept.
    pub(crate) fn form(&self) -> Form {
        let window = self.window.is_laid().then(|| (Price(self.window.base().into()), self.window.ticks()));
        Form { window, beyond: self.far[0].len() + self.far[1].len() }
    }

    fn len(&self) -> usize {
        self.window.levels() as usize + self.far[0].len() + self.far[1].len()
    }

    /// An order comes in beyond the window, or where there is none: lays one once that has happened often enough.
    #[inline]
    fn pass_by(&mut self, side: Side) {
        if !self.window.is_laid() && self.far[side as usize].len() < CROWDED {
            return;
        }
        self.strain += 1;
        if !self.window.is_laid() || self.strain as usize > CROWDED + self.len() {
            self.lay_window();
        }
    }

    /// Lays a window around the touch and carries over every level that changes its place.
    #[cold]
    fn lay_window(&mut self) {
        self.strain = 0;
        let (base, ticks) = self.plan();
        let (old_base, old_ticks) = (self.window.base(), self.window.ticks());
        if old_ticks >= ticks && old_base.abs_diff(base) < old_ticks / 4 {
            return; // it lies well; what is beyond it would be beyond any
        }
        self.carry(|window| {
            if window.ticks() >= ticks {
                window.begin_at(base);
            } else {
                *window = Window::new(base, ticks);
            }
        });
    }

    /// Goes back to sorted levels alone.
    #[cold]
    fn give_up_window(&mut self) {
        (self.strain, self.calm) = (0, 0);
        self.carry(|window| *window = Window::default());
    }

    /// Carries every level over to where it belongs once the window has changed.
    fn carry(&mut self, change: impl FnOnce(&mut Window)) {
        let mut moving = std::mem::take(&mut self.moving);
        for side in [Side::Buy, Side::Sell] {
            moving.extend(self.levels(side).map(|(price, cell)| (side, price, cell)));
            self.far[side as usize].clear();
        }
        #[cfg(test)]
        {
            self.carried += moving.len() as u64;
        }
        change(&mut self.window);
        for (side, price, cell) in moving.drain(..).rev() {
            match self.window.place(price) {
                Some(at) => *self.window.get_or_insert(side, at) = cell,
                None => self.far[side as usize].push_best(rank(side, price), cell),
            }
        }
        self.moving = moving;
    }

    /// Where a window should begin, and how many ticks it should cover.
    fn plan(&self) -> (u32, u32) {
        let [bid, ask] = [Side::Buy, Side::Sell].map(|side| self.best_price(side));
        // A touch so wide that no window covers both its ends: the side with more beyond the window.
        let middle = match (bid, ask) {
            (Some(bid), Some(ask)) if ask.abs_diff(bid) < TICKS_MAX / 2 => bid.midpoint(ask),
            (Some(bid), Some(ask)) => {
                if self.far[0].len() > self.far[1].len() {
                    bid
                } else {
                    ask
                }
            }
            (Some(only), None) | (None, Some(only)) => only,
            (None, None) => return (0, Window::ticks_for(0)),
        };
        let ends = |side: Side| {
            let near = self.window.iter(side).map(|(price, _)| price).last();
            let far = self.far[side as usize].worst().map(|order| rank(side, order));
            near.into_iter().chain(far)
        };
        let reach = ends(Side::Buy).chain(ends(Side::Sell)).chain(bid).chain(ask);
        let reach = reach.map(|price| price.abs_diff(middle)).max().unwrap_or(0);
        let ticks = Window::ticks_for(reach.saturating_mul(2));
        (middle.saturating_sub(ticks / 2).min(u32::MAX - (ticks - 1)), ticks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A ladder beside a map by price.
    #[derive(Default)]
    struct Pair {
        ladder: Ladder,
        naive: [BTreeMap<u32, Cell>; 2],
        orders: Vec<(Side, u32, u32)>,
        steps: u64,
    }

    impl Pair {
        fn best(&self, side: Side) -> Option<u32> {
            let levels = &self.naive[side as usize];
            match side {
                Side::Buy => levels.last_key_value(),
                Side::Sell => levels.first_key_value(),
            }
            .map(|(&price, _)| price)
        }

        /// Adds an order, unless it would trade.
        fn add(&mut self, side: Side, price: u32, dice: u64) {
            let opposite = self.best(side.opposite());
            if opposite.is_some_and(|opposite| rank(side, price) >= rank(side, opposite)) {
                return;
            }
            let qty = dice % 100 + 1;
            for cell in [
                self.ladder.cell_or_empty(side, price),
                self.naive[side as usize].entry(price).or_insert(Cell::EMPTY),
            ] {
                cell.qty += qty;
                cell.count += 1;
                cell.head = 1;
            }
            self.orders.push((side, price, qty as u32));
            self.compare(side, price);
        }

        /// Takes an order out.
        fn take(&mut self, nth: usize) {
            let (side, price, qty) = self.orders.swap_remove(nth);
            let naive = self.naive[side as usize].get_mut(&price).unwrap();
            naive.count -= 1;
            naive.qty -= u64::from(qty);
            let (left, cell) = self.ladder.leave(side, price, qty);
            assert_eq!((left, cell.copied()), (naive.depth(), Some(*naive).filter(|naive| naive.count != 0)));
            if left.orders == 0 {
                self.naive[side as usize].remove(&price);
            }
            self.compare(side, price);
        }

        fn compare(&mut self, side: Side, price: u32) {
            self.steps += 1;
            for side in [Side::Buy, Side::Sell] {
                let best = self.best(side);
                assert_eq!(self.ladder.best_price(side), best, "step {}", self.steps);
                let expected = best.map(|best| (best, self.naive[side as usize][&best]));
                assert_eq!(self.ladder.best(side), expected, "step {}", self.steps);
            }
            assert_eq!(self.ladder.cell(side, price), self.naive[side as usize].get(&price));
            assert_eq!(
                self.ladder.cell(side.opposite(), price),
                self.naive[side.opposite() as usize].get(&price)
            );
            if self.steps.is_multiple_of(997) {
                let levels = |side| self.naive[side as usize].iter().map(|(&price, &cell)| (price, cell));
                assert!(self.ladder.levels(Side::Buy).eq(levels(Side::Buy).rev()), "step {}", self.steps);
                assert!(self.ladder.levels(Side::Sell).eq(levels(Side::Sell)), "step {}", self.steps);
            }
        }

        /// However the market moved, each command has paid for the levels that were carried over.
        fn settle(&self) {
            assert!(
                self.ladder.carried <= 2 * self.steps + 1_000,
                "{} in {}",
                self.ladder.carried,
                self.steps
            );
        }
    }

    struct Dice(u64);

    impl Dice {
        fn roll(&mut self) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            self.0 >> 32
        }
    }

    /// `flow` says at which price the next order of a side comes, given the step and a number; about `resting` rest.
    fn flow(resting: usize, steps: u64, price: impl Fn(Side, u64, u64) -> u32) -> Pair {
        let (mut pair, mut dice) = (Pair::default(), Dice(42));
        for step in 0..steps {
            if pair.orders.len() > resting {
                let nth = match dice.roll() % 3 {
                    // The newest, the oldest, anyone.
                    0 => pair.orders.len() - 1,
                    1 => 0,
                    _ => dice.roll() as usize % pair.orders.len(),
                };
                pair.take(nth);
            }
            let side = if dice.roll().is_multiple_of(2) { Side::Buy } else { Side::Sell };
            let roll = dice.roll();
            pair.add(side, price(side, step, roll), roll);
        }
        pair.settle();
        while !pair.orders.is_empty() {
            pair.take(pair.orders.len() - 1);
        }
        assert!(pair.ladder.is_empty());
        pair
    }

    fn around(middle: u32, side: Side, distance: u64) -> u32 {
        match side {
            Side::Buy => middle - distance as u32,
            Side::Sell => middle + 1 + distance as u32,
        }
    }

    #[test]
    fn a_small_book_needs_no_window_and_a_crowded_one_gets_it() {
        let small = flow(60, 20_000, |side, _, roll| around(10_000, side, roll % 50));
        assert!(!small.ladder.window.is_laid());
        let large = flow(1_000, 20_000, |side, _, roll| around(10_000, side, roll % 400));
        assert_eq!(large.ladder.window.ticks(), 2_048);
    }

    #[test]
    fn a_book_that_stays_narrow_gives_its_window_up_and_a_wide_one_gets_it_again() {
        let mut pair = Pair::default();
        let wide = |pair: &mut Pair| {
            for away in 0..400 {
                pair.add(Side::Buy, 10_000 - away, 1);
                pair.add(Side::Sell, 10_001 + away, 1);
            }
        };
        for _ in 0..3 {
            wide(&mut pair);
            assert!(pair.ladder.window.is_laid());
            while pair.orders.len() > 20 {
                pair.take(pair.orders.len() / 2);
            }
            let ticks = pair.ladder.window.ticks();
            for step in 0..ticks {
                assert!(pair.ladder.window.is_laid(), "given up after {step} levels went, of {ticks} ticks");
                pair.add(Side::Buy, 9_590, 1);
                pair.take(pair.orders.len() - 1);
                if !pair.ladder.window.is_laid() {
                    assert!(step > ticks / 2, "not before it was paid for");
                    break;
                }
            }
            assert!(!pair.ladder.window.is_laid());
            while !pair.orders.is_empty() {
                pair.take(0);
            }
        }
        pair.settle();
    }

    #[test]
    fn a_market_that_drifts_takes_its_window_along() {
        let pair =
            flow(1_000, 300_000, |side, step, roll| around(1_000_000 + (step * 3) as u32, side, roll % 600));
        assert!(pair.ladder.window.base() > 1_500_000);
        let down =
            flow(1_000, 300_000, |side, step, roll| around(1_000_000 - (step * 3) as u32, side, roll % 600));
        assert!(down.ladder.window.base() < 500_000);
    }

    #[test]
    fn prices_far_from_the_touch_are_kept() {
        flow(3_000, 100_000, |side, _, roll| match roll % 4 {
            0 => around(2_000_000_000, side, roll / 4 % 1_999_999_999),
            1 => around(2_000_000_000, side, roll / 4 % 100_000),
            _ => around(2_000_000_000, side, roll / 4 % 1_000),
        });
    }

    #[test]
    fn the_ends_of_all_prices_can_be_the_touch() {
        flow(500, 50_000, |side, _, roll| around(400, side, roll % 400));
        flow(500, 50_000, |side, _, roll| around(u32::MAX - 500, side, roll % 499));
        flow(500, 50_000, |side, _, roll| match side {
            Side::Buy => 1 + (roll % 300) as u32,
            Side::Sell => u32::MAX - (roll % 300) as u32,
        });
    }

    #[test]
    fn a_touch_that_jumps_to_and_fro_is_not_followed_at_every_jump() {
        for period in [1, 2, 64, 500, 5_000] {
            flow(2_000, 100_000, |side, step, roll| {
                let middle = if (step / period).is_multiple_of(2) { 100_000 } else { 900_000 };
                around(middle, side, roll % 1_000)
            });
        }
    }
}
