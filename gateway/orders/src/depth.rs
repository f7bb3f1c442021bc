//! One side of a book as the world may know it.
//!
//! While nobody watches, its levels lie where a change finds them at once; who comes to look has them put in order first,
//! and there they stay for as long as anybody watches.

use std::collections::{BTreeMap, HashMap};

/// Open quantity and number of orders of a level.
type Open = (u64, u32);

/// Levels by price; none of them is empty.
#[derive(Debug)]
pub(crate) enum Depth {
    /// Clients choose prices, so the hash has a seed of its own.
    Loose(HashMap<u64, Open, foldhash::quality::RandomState>),
    Sorted(BTreeMap<u64, Open>),
}

impl Default for Depth {
    fn default() -> Self {
        Self::Loose(HashMap::default())
    }
}

impl FromIterator<(u64, Open)> for Depth {
    fn from_iter<T: IntoIterator<Item = (u64, Open)>>(levels: T) -> Self {
        Self::Loose(levels.into_iter().collect())
    }
}

impl Depth {
    /// So much is open at a price now; without quantity there is no level.
    #[inline]
    pub(crate) fn set(&mut self, price: u64, qty: u64, orders: u32) {
        match (self, qty) {
            (Self::Loose(levels), 0) => drop(levels.remove(&price)),
            (Self::Loose(levels), qty) => drop(levels.insert(price, (qty, orders))),
            (Self::Sorted(levels), 0) => drop(levels.remove(&price)),
            (Self::Sorted(levels), qty) => drop(levels.insert(price, (qty, orders))),
        }
    }

    /// The levels in the order of their prices, in which they stay.
    pub(crate) fn sorted(&mut self) -> &BTreeMap<u64, Open> {
        if let Self::Loose(levels) = self {
            *self = Self::Sorted(std::mem::take(levels).into_iter().collect());
        }
        match self {
            Self::Sorted(levels) => levels,
            Self::Loose(_) => unreachable!("just put in order"),
        }
    }

    /// Nobody looks at the order any more.
    pub(crate) fn loosen(&mut self) {
        if let Self::Sorted(levels) = self {
            *self = std::mem::take(levels).into_iter().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_the_same_in_order_and_out_of_it() {
        let (mut depth, mut truth) = (Depth::default(), BTreeMap::new());
        let mut state = 7_u64;
        for round in 0..2_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (price, qty, orders) = (state >> 59, state >> 33 & 3, round);
            depth.set(price, qty, orders);
            match qty {
                0 => drop(truth.remove(&price)),
                qty => drop(truth.insert(price, (qty, orders))),
            }
            match round % 40 {
                10 => assert_eq!(*depth.sorted(), truth),
                30 => depth.loosen(),
                _ => {}
            }
        }
        assert!(matches!(depth, Depth::Loose(_)));
        assert_eq!(*depth.sorted(), truth);
    }
}
