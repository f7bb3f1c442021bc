//! Where records lie that are named by what the venue itself gave out: open addressing over a fixed mixing of the key.
//!
//! The same inserts and removals lead to the same finds on every machine, and nothing is ever iterated, so no order can
//! leak into the state. A client must not be able to choose the keys: it could craft collisions. An index is derived
//! (see `derived`), so how it lies in memory is nobody's business.

use crate::prefetch::ask_for;

/// From hashed keys to places in an array. Each slot holds the hash and the place, so that a probe looks at a record only
/// when all 32 bits of the hash agree.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// `hash << 32 | place + 1`; 0 is free. A power of two of them, at least half of them free.
    slots: Vec<u64>,
    len: usize,
}

/// A hash whose highest bits are good for choosing a slot.
pub(super) fn mix(a: u64, b: u64) -> u32 {
    let mixed =
        (a ^ b.rotate_left(32).wrapping_mul(0xD6E8_FEB8_6659_FD93)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    ((mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 32) as u32
}

impl Index {
    /// The place of the record with this hash of which `is` says that it is the one.
    pub(super) fn find(&self, hash: u32, is: impl Fn(u32) -> bool) -> Option<u32> {
        let mut at = self.home(hash)?;
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                return None;
            }
            let place = slot as u32 - 1;
            if (slot >> 32) as u32 == hash && is(place) {
                return Some(place);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    /// Asks for where a search begins.
    pub(super) fn ask_for(&self, hash: u32) {
        if let Some(slot) = self.home(hash).and_then(|home| self.slots.get(home)) {
            ask_for(slot);
        }
    }

    /// Names the record at `place`, which no entry names yet.
    pub(super) fn insert(&mut self, hash: u32, place: u32) {
        if self.len * 2 >= self.slots.len() {
            self.grow();
        }
        self.len += 1;
        self.put(u64::from(hash) << 32 | (u64::from(place) + 1));
    }

    /// Forgets the record at `place`. What follows in its run moves up, so that no mark of the removed one stays.
    pub(super) fn remove(&mut self, hash: u32, place: u32) {
        let gone = u64::from(hash) << 32 | (u64::from(place) + 1);
        let mask = self.slots.len() - 1;
        let mut hole = self.home(hash).expect("an index that names a record has slots");
        while self.slots[hole] != gone {
            assert!(self.slots[hole] != 0, "only what is named is removed");
            hole = (hole + 1) & mask;
        }
        self.len -= 1;
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let slot = self.slots[at];
            if slot == 0 {
                break;
            }
            let home = self.home((slot >> 32) as u32).expect("it has slots");
            // It may move up to the hole unless its home lies behind the hole.
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                self.slots[hole] = slot;
                hole = at;
            }
        }
        self.slots[hole] = 0;
    }

    /// How many records are named.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    fn home(&self, hash: u32) -> Option<usize> {
        let bits = self.slots.len().checked_ilog2()?;
        Some((u64::from(hash) >> (32 - bits)) as usize)
    }

    fn put(&mut self, slot: u64) {
        let mut at = self.home((slot >> 32) as u32).expect("the caller made room");
        while self.slots[at] != 0 {
            at = (at + 1) & (self.slots.len() - 1);
        }
        self.slots[at] = slot;
    }

    fn grow(&mut self) {
        let wider = vec![0; (self.slots.len() * 2).max(64)];
        for slot in std::mem::replace(&mut self.slots, wider) {
            if slot != 0 {
                self.put(slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_inserted_and_not_removed_though_hashes_collide() {
        let mut index = Index::default();
        let mut present = [false; 3_000];
        // Few different hashes: long runs, some of them around the end.
        let hash = |place: u32| {
            mix(u64::from(place % 97), 0) | if place.is_multiple_of(3) { 0xFFFF_0000 } else { 0 }
        };
        let mut dice = 7_u64;
        for step in 0..40_000 {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let place = (dice >> 33) as u32 % 3_000;
            let there = &mut present[place as usize];
            if *there {
                index.remove(hash(place), place);
            } else {
                index.insert(hash(place), place);
            }
            *there = !*there;
            if step % 1_000 == 0 {
                for (place, &there) in (0..).zip(&present) {
                    assert_eq!(index.find(hash(place), |found| found == place), there.then_some(place));
                }
            }
        }
        assert_eq!(index.len(), present.iter().filter(|there| **there).count());
    }
}
