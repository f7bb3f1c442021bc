//! In which order a call tries the suppliers: a pure function of what is known when it starts, so that the same
//! facts always give the same order, and one line for the operator says why.
//!
//! | first | because |
//! |---|---|
//! | issuers of the reserved tokens, in the order of the draws | they owe the delivery and are paid for it already |
//! | those that keep the instrument's floors of speed | measured here, on calls of this tier |
//! | those with room to spare | a supplier near its limit answers late or not at all |
//! | the one that the prompt's prefix belongs to | its cache may still hold it (rendezvous hashing) |
//! | the lower account | somebody must be first |

use std::fmt::Write as _;

use grid_engine::AccountId;

/// What is known of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) supplier: AccountId,
    /// Its place among the draws.
    pub(crate) draw: Option<usize>,
    /// It was measured below a floor.
    pub(crate) slow: bool,
    /// Three quarters of its places are taken.
    pub(crate) crowded: bool,
    /// It would not be entered now: failing, or asked to be left alone.
    pub(crate) resting: bool,
}

impl Facts {
    fn key(&self, affinity: Option<u64>) -> (usize, bool, bool, u64, u32) {
        let near = affinity.map_or(0, |affinity| rendezvous(affinity, self.supplier));
        (self.draw.unwrap_or(usize::MAX), self.slow, self.crowded, near, self.supplier.0)
    }

    /// For the operator: `7 draw 0`, `9 slow crowded`.
    pub(crate) fn describe(&self, out: &mut String) {
        let _ = write!(out, "{}", self.supplier.0);
        if let Some(draw) = self.draw {
            let _ = write!(out, " draw {draw}");
        }
        for (word, holds) in [("slow", self.slow), ("crowded", self.crowded), ("resting", self.resting)] {
            if holds {
                let _ = write!(out, " {word}");
            }
        }
    }
}

/// Sorts candidates by their facts; `affinity` stands for the prompt's prefix, where it has one worth a cache.
pub(crate) fn order<T>(candidates: &mut [(Facts, T)], affinity: Option<u64>) {
    candidates.sort_by_key(|(facts, _)| facts.key(affinity));
}

/// A number for the pair: the supplier with the lowest one is where the prefix belongs. When one comes or goes, only
/// its own prefixes move.
fn rendezvous(affinity: u64, supplier: AccountId) -> u64 {
    mixed(affinity ^ mixed(u64::from(supplier.0).wrapping_add(0x9e37_79b9_7f4a_7c15)))
}

/// A hash of bytes that is the same on every machine and in every version (FNV-1a, mixed).
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    mixed(
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        }),
    )
}

/// SplitMix64's finalizer.
fn mixed(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(supplier: u32) -> Facts {
        Facts { supplier: AccountId(supplier), draw: None, slow: false, crowded: false, resting: false }
    }

    fn ordered(all: &[Facts], affinity: u64) -> Vec<u32> {
        let mut all: Vec<(Facts, ())> = all.iter().map(|facts| (*facts, ())).collect();
        order(&mut all, Some(affinity));
        all.iter().map(|(facts, ())| facts.supplier.0).collect()
    }

    #[test]
    fn issuers_come_first_in_the_order_of_the_draws_then_the_quick_then_the_free() {
        let all = [
            Facts { crowded: true, ..facts(1) },
            Facts { slow: true, ..facts(2) },
            facts(3),
            Facts { draw: Some(1), ..facts(4) },
            Facts { draw: Some(0), slow: true, crowded: true, ..facts(5) },
        ];
        for affinity in 0..50 {
            assert_eq!(ordered(&all, affinity), [5, 4, 3, 1, 2]);
        }
    }

    #[test]
    fn the_order_depends_on_the_facts_alone_and_not_on_how_they_are_listed() {
        let all: Vec<Facts> = (1..=6).map(facts).collect();
        let backwards: Vec<Facts> = all.iter().rev().copied().collect();
        for affinity in 0..200 {
            assert_eq!(ordered(&all, affinity), ordered(&backwards, affinity));
        }
    }

    #[test]
    fn a_prefix_stays_where_it_is_when_another_supplier_leaves_and_all_get_their_share() {
        let all: Vec<Facts> = (1..=5).map(facts).collect();
        let mut share = [0; 6];
        for affinity in (0..1_000).map(|n: u64| hash(&n.to_le_bytes())) {
            let first = ordered(&all, affinity)[0];
            share[first as usize] += 1;
            let without: Vec<Facts> =
                all.iter().filter(|one| one.supplier.0 != first % 5 + 1).copied().collect();
            assert_eq!(ordered(&without, affinity)[0], first);
        }
        assert!(share[1..].iter().all(|share| (120..280).contains(share)), "{share:?}");
    }

    #[test]
    fn the_operator_is_told_why() {
        let mut told = String::new();
        Facts { draw: Some(0), slow: true, ..facts(7) }.describe(&mut told);
        assert_eq!(told, "7 draw 0 slow");
    }
}
