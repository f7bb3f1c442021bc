//! In which order a call tries the suppliers: a pure function of what is known when it starts, so that the same
//! facts always give the same order, and one line for the operator says why.
//!
//! | first | because |
//! |---|---|
//! | issuers of the reserved tokens, in the order of the draws | they owe the delivery and are paid for it already |
//! | those with the lower ask in the instrument's book; those without any after them | the contract's rule (§7) |
//! | those that did not fail lately; those left alone for now last of all | what failed may fail again |
//! | those that keep the instrument's floors of speed | measured here, on calls of this tier |
//! | the one that the prompt's prefix belongs to | its cache may still hold it (rendezvous hashing) |
//! | those with more room | a supplier near its limit answers late or not at all |
//! | by a hash of prompt and account, then the lower account | load is spread, and somebody must be first |

use std::fmt::Write as _;

use grid_engine::{AccountId, Price};

/// What is known of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) supplier: AccountId,
    /// Its place among the draws.
    pub(crate) draw: Option<usize>,
    /// Its best resting ask.
    pub(crate) ask: Option<Price>,
    /// How its last calls went.
    pub(crate) health: Health,
    /// It was measured below a floor.
    pub(crate) slow: bool,
    /// How many of four quarters of its places are taken.
    pub(crate) load: u8,
}

/// How a supplier's last calls went, best first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Health {
    /// It answers.
    #[default]
    Sound,
    /// It failed lately, and has not delivered since.
    Shaky,
    /// It would not be entered now: failing, or asked to be left alone.
    Resting,
}

/// What put the first one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// There is nobody else.
    Only,
    /// It issued the tokens.
    Issuer,
    /// It asks less.
    Price,
    /// The next one failed lately.
    Health,
    /// The next one was measured below a floor.
    Speed,
    /// The prompt's prefix belongs to it.
    Cache,
    /// It has more room.
    Room,
    /// Nothing but the spread of load.
    Spread,
}

impl Why {
    /// One word, for the operator and the receipt.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Only => "only",
            Self::Issuer => "issuer",
            Self::Price => "price",
            Self::Health => "health",
            Self::Speed => "speed",
            Self::Cache => "cache",
            Self::Room => "room",
            Self::Spread => "spread",
        }
    }
}

/// What outweighs cache and room.
type Before = (usize, i64, Health, bool);

impl Facts {
    fn before(&self) -> Before {
        let ask = self.ask.map_or(i64::MAX, |price| i64::try_from(price.0).unwrap_or(i64::MAX));
        (self.draw.unwrap_or(usize::MAX), ask, self.health, self.slow)
    }

    /// For the operator: `7 draw 0 at 81`, `9 slow 3/4 taken`.
    pub(crate) fn describe(&self, out: &mut String) {
        let _ = write!(out, "{}", self.supplier.0);
        if let Some(draw) = self.draw {
            let _ = write!(out, " draw {draw}");
        }
        if let Some(ask) = self.ask {
            let _ = write!(out, " at {}", ask.0);
        }
        match self.health {
            Health::Sound => {}
            Health::Shaky => out.push_str(" shaky"),
            Health::Resting => out.push_str(" resting"),
        }
        if self.slow {
            out.push_str(" slow");
        }
        if self.load > 0 {
            let _ = write!(out, " {}/4 taken", self.load);
        }
    }
}

/// Sorts candidates by their facts, and says what put the first one first; `affinity` stands for the prompt's prefix,
/// where it has one worth a cache.
pub(crate) fn order<T>(candidates: &mut [(Facts, T)], affinity: Option<u64>) -> Why {
    let near = |facts: &Facts| {
        (affinity.map_or(0, |affinity| rendezvous(affinity, facts.supplier)), facts.supplier.0)
    };
    candidates.sort_by_key(|(facts, _)| (facts.before(), near(facts)));
    // Among equals the first one is where the prefix belongs; the others follow by their room.
    let mut rest = &mut candidates[..];
    while let Some((first, _)) = rest.first() {
        let before = first.before();
        let equals = rest.partition_point(|(facts, _)| facts.before() <= before);
        let (group, others) = rest.split_at_mut(equals);
        let home = usize::from(affinity.is_some());
        group[home..].sort_by_key(|(facts, _)| (facts.load, near(facts)));
        rest = others;
    }
    let facts: Vec<&Facts> = candidates.iter().take(2).map(|(facts, _)| facts).collect();
    let [first, second] = facts[..] else { return Why::Only };
    let ((draw, ask, health, slow), (next_draw, next_ask, next_health, next_slow)) =
        (first.before(), second.before());
    match () {
        () if draw != next_draw => Why::Issuer,
        () if ask != next_ask => Why::Price,
        () if health != next_health => Why::Health,
        () if slow != next_slow => Why::Speed,
        () if affinity.is_some() => Why::Cache,
        () if first.load != second.load => Why::Room,
        () => Why::Spread,
    }
}

/// A number for the pair: the supplier with the lowest one is where the prefix belongs. When one comes or goes, only
/// its own prefixes move.
fn rendezvous(affinity: u64, supplier: AccountId) -> u64 {
    mixed(affinity ^ mixed(u64::from(supplier.0).wrapping_add(0x9e37_79b9_7f4a_7c15)))
}

/// A hash of bytes that is the same on every machine and in every version (as FNV-1a, but eight
/// bytes at a time, and mixed).
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let (eights, rest) = bytes.as_chunks::<8>();
    let step = |hash: u64, more: u64| (hash ^ more).wrapping_mul(0x0100_0000_01b3).rotate_left(29);
    let hash = eights.iter().map(|eight| u64::from_le_bytes(*eight)).fold(0xcbf2_9ce4_8422_2325, step);
    mixed(rest.iter().map(|byte| u64::from(*byte)).fold(hash, step))
}

/// SplitMix64's finalizer.
pub(crate) fn mixed(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(supplier: u32) -> Facts {
        Facts {
            supplier: AccountId(supplier),
            draw: None,
            ask: None,
            health: Health::Sound,
            slow: false,
            load: 0,
        }
    }

    fn asks(supplier: u32, ask: u64) -> Facts {
        Facts { ask: Some(Price(ask)), ..facts(supplier) }
    }

    fn ordered(all: &[Facts], affinity: Option<u64>) -> (Vec<u32>, Why) {
        let mut all: Vec<(Facts, ())> = all.iter().map(|facts| (*facts, ())).collect();
        let why = order(&mut all, affinity);
        (all.iter().map(|(facts, ())| facts.supplier.0).collect(), why)
    }

    #[test]
    fn issuer_then_price_then_health_then_speed_then_cache_then_room() {
        let all = [
            facts(1),
            Facts { load: 4, ..asks(2, 80) },
            Facts { load: 1, ..asks(3, 80) },
            Facts { slow: true, ..asks(4, 80) },
            Facts { health: Health::Shaky, ..asks(5, 80) },
            Facts { health: Health::Resting, ..asks(6, 80) },
            Facts { health: Health::Resting, slow: true, load: 4, ..asks(7, 79) },
            Facts { draw: Some(1), ..facts(8) },
            Facts { draw: Some(0), health: Health::Resting, slow: true, load: 4, ..asks(9, 99) },
        ];
        assert_eq!(ordered(&all, None).0, [9, 8, 7, 3, 2, 4, 5, 6, 1]);
        let mut homes = std::collections::BTreeSet::new();
        for affinity in 0..50 {
            let order = ordered(&all, Some(affinity)).0;
            homes.insert(order[3]);
            assert_eq!((&order[..3], &order[5..]), ([9, 8, 7].as_slice(), [4, 5, 6, 1].as_slice()));
        }
        assert_eq!(homes, [2, 3].into(), "the cache outweighs the room");
    }

    #[test]
    fn the_first_difference_is_the_reason() {
        for (first, second, affinity, why) in [
            (Facts { draw: Some(0), ..asks(1, 90) }, asks(2, 80), None, Why::Issuer),
            (asks(1, 80), asks(2, 90), Some(3), Why::Price),
            (asks(1, 80), facts(2), None, Why::Price),
            (asks(1, 80), Facts { health: Health::Shaky, ..asks(2, 80) }, None, Why::Health),
            (facts(1), Facts { slow: true, ..facts(2) }, None, Why::Speed),
            (facts(1), Facts { load: 2, ..facts(2) }, None, Why::Room),
            (facts(1), facts(2), None, Why::Spread),
        ] {
            assert_eq!(ordered(&[second, first], affinity), (vec![1, 2], why));
        }
        assert_eq!(ordered(&[facts(1), facts(2)], Some(1)).1, Why::Cache);
        assert_eq!(ordered(&[facts(1)], Some(1)), (vec![1], Why::Only));
        assert_eq!(ordered(&[], None), (vec![], Why::Only));
    }

    #[test]
    fn the_order_depends_on_the_facts_alone_and_not_on_how_they_are_listed() {
        let all: Vec<Facts> = (1..=6).map(facts).collect();
        let backwards: Vec<Facts> = all.iter().rev().copied().collect();
        for affinity in (0..200).map(Some).chain([None]) {
            assert_eq!(ordered(&all, affinity), ordered(&backwards, affinity));
        }
    }

    #[test]
    fn a_prefix_stays_where_it_is_when_another_supplier_leaves_and_all_get_their_share() {
        let all: Vec<Facts> = (1..=5).map(facts).collect();
        let mut share = [0; 6];
        for affinity in (0..1_000).map(|n: u64| Some(hash(&n.to_le_bytes()))) {
            let first = ordered(&all, affinity).0[0];
            share[first as usize] += 1;
            let without: Vec<Facts> =
                all.iter().filter(|one| one.supplier.0 != first % 5 + 1).copied().collect();
            assert_eq!(ordered(&without, affinity).0[0], first);
        }
        assert!(share[1..].iter().all(|share| (120..280).contains(share)), "{share:?}");
    }

    #[test]
    fn the_operator_is_told_why() {
        let mut told = String::new();
        Facts { draw: Some(0), slow: true, load: 3, ..asks(7, 81) }.describe(&mut told);
        assert_eq!(told, "7 draw 0 at 81 slow 3/4 taken");
    }
}
