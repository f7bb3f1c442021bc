//! Tokens set aside for calls in progress: found by id in one step, by the caller's handle in about one, and in the
//! order in which they lapse.
//!
//! An id is the reservation's number with the slot that it lies in, as an order's is, so the id itself says where to look
//! and a later reservation still has the higher one. Slots are reused newest first; the room for draws stays with the slot.

use std::collections::BTreeMap;

use rkyv::with::Skip;
use rkyv::{Archive, Deserialize as Thaw, Serialize as Freeze};

use super::derived::Derived;
use super::index::{Index, mix};
use crate::command::Surface;
use crate::event::Draw;
use crate::ids::{AccountId, InstrumentId, KeyId, ReservationId};
use crate::limits;
use crate::units::Nanos;

/// Tokens set aside for one call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
pub struct Reservation {
    /// The call's handle.
    pub request: u128,
    /// Whose.
    pub account: AccountId,
    /// Of what.
    pub instrument: InstrumentId,
    /// Where its holding lies.
    pub(crate) holding: u32,
    /// The consumption key of the call.
    pub key: KeyId,
    /// Where the call came in.
    pub surface: Surface,
    /// When it was made.
    pub reserved_at: Nanos,
    /// When it lapses.
    pub expires_at: Nanos,
    /// From which lots, in the order in which they are drawn down. `cost` is filled in when settled.
    pub draws: Vec<Draw>,
}

/// The bits of an id that name the slot.
const SLOT_BITS: u32 = 24;
const LAST_NUMBER: u64 = (1 << 39) - 1;

const _: () = assert!(limits::RESERVATIONS < 1 << SLOT_BITS);

/// Open reservations.
///
/// Invariants: an occupied slot lies at the place that its id names; `free` names all others; no two have the same
/// account and request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
pub struct Reservations {
    slots: Vec<Slot>,
    /// Reused newest first.
    free: Vec<u32>,
    /// The number of the last one made.
    last: u64,
    #[rkyv(with = Skip)]
    found: Derived<Found>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
struct Slot {
    /// 0 while free.
    id: ReservationId,
    open: Reservation,
}

#[derive(Clone, Debug, Default)]
struct Found {
    by_request: Index,
    due: Due,
    /// None lapses before; what ended may have left it too early, never too late.
    quiet_until: Nanos,
}

fn hash(account: AccountId, request: u128) -> u32 {
    mix(request as u64 ^ u64::from(account.0), (request >> 64) as u64)
}

const fn slot_of(id: ReservationId) -> usize {
    (id.0 & ((1 << SLOT_BITS) - 1)) as usize
}

impl Reservations {
    /// An open reservation.
    #[must_use]
    pub fn get(&self, id: ReservationId) -> Option<&Reservation> {
        self.slots.get(slot_of(id)).filter(|slot| slot.id == id && id.0 != 0).map(|slot| &slot.open)
    }

    /// The open reservation of an account under the handle of its call.
    #[must_use]
    pub fn by_request(&self, account: AccountId, request: u128) -> Option<ReservationId> {
        let is = |place: u32| {
            let open = &self.slots[place as usize].open;
            open.request == request && open.account == account
        };
        let place = self.found.by_request.find(hash(account, request), is)?;
        Some(self.slots[place as usize].id)
    }

    /// All that are open, by where they lie.
    pub fn iter(&self) -> impl Iterator<Item = (ReservationId, &Reservation)> {
        self.slots.iter().filter(|slot| slot.id.0 != 0).map(|slot| (slot.id, &slot.open))
    }

    /// How many are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// True when none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The one that lapses first, and when. Of those due together the oldest.
    #[must_use]
    pub fn first_due(&self) -> Option<(Nanos, ReservationId)> {
        self.found.due.first()
    }

    /// False when none lapses by then, for certain.
    #[inline]
    pub(crate) fn may_be_due(&self, at: Nanos) -> bool {
        self.found.quiet_until <= at
    }

    /// Whoever has ended all that lapsed says so.
    pub(crate) fn settle(&mut self) {
        self.found.quiet_until = self.first_due().map_or(Nanos(u64::MAX), |(due, _)| due);
    }

    /// True while another one fits the venue's limit and the numbers of ids.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.len() < limits::RESERVATIONS && self.last < LAST_NUMBER
    }

    /// Opens a reservation, for which the caller has seen that there is room and that its handle is new. `make` fills in
    /// one that has no draws but room for some.
    pub fn open(&mut self, make: impl FnOnce(&mut Reservation)) -> ReservationId {
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        self.last += 1;
        let id = ReservationId(self.last << SLOT_BITS | u64::from(place));
        let slot = &mut self.slots[place as usize];
        slot.id = id;
        slot.open.draws.clear();
        make(&mut slot.open);
        self.found.add(place, id, &slot.open);
        id
    }

    /// Ends a reservation. What it was can be looked at until the next one is opened; the room for its draws stays.
    pub(crate) fn end(&mut self, id: ReservationId) -> Option<&mut Reservation> {
        self.get(id)?;
        let slot = &mut self.slots[slot_of(id)];
        let place = slot_of(id) as u32;
        self.found.by_request.remove(hash(slot.open.account, slot.open.request), place);
        self.found.due.remove(place);
        slot.id = ReservationId::default();
        self.free.push(place);
        Some(&mut slot.open)
    }

    /// Works out again what is derived, after the rest was read from a snapshot.
    pub(crate) fn rebuild(&mut self) -> Result<(), String> {
        self.found = Derived::default();
        let mut open = Vec::with_capacity(self.len());
        for (place, slot) in (0..).zip(&self.slots) {
            if slot.id.0 != 0 {
                if slot_of(slot.id) != place as usize {
                    return Err(format!("{:?} lies where its id says, not at {place}", slot.id));
                }
                open.push((slot.open.expires_at, slot.id, place));
            }
        }
        // Whoever comes in the order of time waits in the queue.
        open.sort_unstable();
        for (_, id, place) in open {
            self.found.add(place, id, &self.slots[place as usize].open);
        }
        self.check()
    }

    /// The first broken invariant in words.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (mut open, mut due) = (0, BTreeMap::new());
        for (place, slot) in self.slots.iter().enumerate() {
            if slot.id.0 == 0 {
                continue;
            }
            open += 1;
            if slot_of(slot.id) != place || slot.id.0 >> SLOT_BITS > self.last {
                return Err(format!("{:?} lies where its id says, not at {place}", slot.id));
            }
            if self.by_request(slot.open.account, slot.open.request) != Some(slot.id) {
                return Err(format!("{:?} has its handle", slot.id));
            }
            due.insert(place as u32, (slot.open.expires_at, slot.id));
        }
        let mut free = self.free.clone();
        free.sort_unstable();
        free.dedup();
        let all_free = free.iter().all(|&at| self.slots.get(at as usize).is_some_and(|slot| slot.id.0 == 0));
        if !all_free || free.len() != self.free.len() || free.len() + open != self.slots.len() {
            return Err(format!("{open} reservations are open, and all other slots are free once"));
        }
        if self.found.by_request.len() != open {
            return Err(format!("{} handles name {open} reservations", self.found.by_request.len()));
        }
        self.found.due.check(&due)
    }
}

impl Found {
    fn add(&mut self, place: u32, id: ReservationId, open: &Reservation) {
        self.by_request.insert(hash(open.account, open.request), place);
        self.due.insert(place, open.expires_at, id);
        self.quiet_until = self.quiet_until.min(open.expires_at);
    }
}

/// No slot: an end of the queue.
const NONE: u32 = u32::MAX;
/// In place of what is before: the reservation waits in the heap, and what is behind says where.
const IN_HEAP: u32 = u32::MAX - 1;

/// Open reservations by when they lapse and then by id.
///
/// Most calls are given the same time, so most lapse in the order in which they came: those wait in a linked queue, which
/// any of them leaves in one step. Whoever lapses before the last of the queue waits in a heap of four children each, in
/// which every reservation knows its place.
#[derive(Clone, Debug)]
struct Due {
    /// By slot; nobody reads that of a free one.
    waiting: Vec<Waiting>,
    first: u32,
    last: u32,
    /// Time and then id, as one number, which is compared without a branch.
    heap: Vec<u128>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Waiting {
    at: Nanos,
    id: ReservationId,
    before: u32,
    behind: u32,
}

impl Waiting {
    fn key(&self) -> u128 {
        u128::from(self.at.0) << 64 | u128::from(self.id.0)
    }
}

impl Default for Due {
    fn default() -> Self {
        Self { waiting: Vec::new(), first: NONE, last: NONE, heap: Vec::new() }
    }
}

impl Due {
    fn first(&self) -> Option<(Nanos, ReservationId)> {
        let queued = self.waiting.get(self.first as usize).map(Waiting::key);
        let key = match (queued, self.heap.first()) {
            (Some(queued), Some(&heaped)) => queued.min(heaped),
            (Some(queued), None) => queued,
            (None, heaped) => *heaped?,
        };
        Some((Nanos((key >> 64) as u64), ReservationId(key as u64)))
    }

    fn insert(&mut self, slot: u32, at: Nanos, id: ReservationId) {
        if self.waiting.len() <= slot as usize {
            self.waiting.resize(slot as usize + 1, Waiting::default());
        }
        let entry = Waiting { at, id, before: self.last, behind: NONE };
        match self.waiting.get_mut(self.last as usize) {
            Some(last) if last.key() > entry.key() => {
                self.waiting[slot as usize] = Waiting { before: IN_HEAP, ..entry };
                self.heap.push(entry.key());
                self.rise(self.heap.len() - 1);
                return;
            }
            Some(last) => last.behind = slot,
            None => self.first = slot,
        }
        self.last = slot;
        self.waiting[slot as usize] = entry;
    }

    fn remove(&mut self, slot: u32) {
        let Waiting { before, behind, .. } = self.waiting[slot as usize];
        if before == IN_HEAP {
            return self.remove_from_heap(behind as usize);
        }
        match self.waiting.get_mut(before as usize) {
            Some(entry) => entry.behind = behind,
            None => self.first = behind,
        }
        match self.waiting.get_mut(behind as usize) {
            Some(entry) => entry.before = before,
            None => self.last = before,
        }
    }

    fn remove_from_heap(&mut self, at: usize) {
        let last = self.heap.pop().expect("what waits in the heap is there");
        if at == self.heap.len() {
            return;
        }
        self.heap[at] = last;
        if at > 0 && last < self.heap[(at - 1) / 4] {
            self.rise(at);
        } else {
            self.sink(at);
        }
    }

    fn rise(&mut self, mut at: usize) {
        let moving = self.heap[at];
        while at > 0 {
            let parent = (at - 1) / 4;
            if self.heap[parent] <= moving {
                break;
            }
            self.put(at, self.heap[parent]);
            at = parent;
        }
        self.put(at, moving);
    }

    fn sink(&mut self, mut at: usize) {
        let moving = self.heap[at];
        loop {
            let first = at * 4 + 1;
            let children = first..(first + 4).min(self.heap.len());
            let Some(least) = children.min_by_key(|&child| self.heap[child]) else {
                break;
            };
            if moving <= self.heap[least] {
                break;
            }
            self.put(at, self.heap[least]);
            at = least;
        }
        self.put(at, moving);
    }

    fn put(&mut self, at: usize, key: u128) {
        self.heap[at] = key;
        self.waiting[slot_of(ReservationId(key as u64))].behind = at as u32;
    }

    /// The first broken invariant in words; `open` are the open reservations by slot.
    fn check(&self, open: &BTreeMap<u32, (Nanos, ReservationId)>) -> Result<(), String> {
        let (mut queued, mut at, mut before) = (0, self.first, NONE);
        while at != NONE {
            let entry = self.waiting[at as usize];
            let in_order = before == NONE || self.waiting[before as usize].key() < entry.key();
            if open.get(&at) != Some(&(entry.at, entry.id)) || entry.before != before || !in_order {
                return Err(format!("the queue of reservations is linked in the order of time: {entry:?}"));
            }
            (queued, before, at) = (queued + 1, at, entry.behind);
        }
        for (place, &key) in self.heap.iter().enumerate() {
            let slot = slot_of(ReservationId(key as u64)) as u32;
            let entry = self.waiting[slot as usize];
            let knows = entry.before == IN_HEAP && entry.behind as usize == place && entry.key() == key;
            let above = place == 0 || self.heap[(place - 1) / 4] < key;
            if open.get(&slot) != Some(&(entry.at, entry.id)) || !knows || !above {
                return Err(format!(
                    "a reservation knows its place in the heap, below what is due before: {entry:?}"
                ));
            }
        }
        if before != self.last || queued + self.heap.len() != open.len() {
            return Err(format!("{queued} and {} of {} reservations wait", self.heap.len(), open.len()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(reservation: &mut Reservation, request: u64, expires_at: u64) {
        reservation.account = AccountId(3);
        reservation.request = u128::from(request);
        reservation.expires_at = Nanos(expires_at);
    }

    #[test]
    fn reservations_lapse_by_time_and_then_by_age_whatever_ended_between() {
        let mut reservations = Reservations::default();
        let mut open = std::collections::BTreeSet::new();
        let mut dice = 11_u64;
        for request in 0..5_000 {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let expires_at = request / 2 + (dice >> 40) % 50;
            let id = reservations.open(|new| fill(new, request, expires_at));
            open.insert((Nanos(expires_at), id));
            if dice >> 33 & 3 != 0 {
                let nth = (dice >> 35) as usize % open.len();
                let out = *open.iter().nth(nth).unwrap();
                open.remove(&out);
                assert!(reservations.end(out.1).is_some() && reservations.end(out.1).is_none());
            }
            assert_eq!(reservations.first_due(), open.first().copied());
            if request % 100 == 0 {
                reservations.check().unwrap();
            }
        }
        while let Some(first) = reservations.first_due() {
            assert_eq!(open.pop_first(), Some(first));
            reservations.end(first.1);
        }
        assert!(open.is_empty() && reservations.is_empty());
    }

    #[test]
    fn a_later_reservation_has_the_higher_id_though_it_takes_the_slot_left_last() {
        let mut reservations = Reservations::default();
        let ids: Vec<_> = (0..3).map(|nth| reservations.open(|new| fill(new, nth, 9))).collect();
        reservations.end(ids[0]);
        reservations.end(ids[1]);
        let next = reservations.open(|new| fill(new, 7, 9));
        assert!(next > ids[2] && slot_of(next) == slot_of(ids[1]));
        assert_eq!((reservations.get(ids[1]), reservations.by_request(AccountId(3), 1)), (None, None));
        assert_eq!(reservations.by_request(AccountId(3), 7), Some(next));
    }
}
