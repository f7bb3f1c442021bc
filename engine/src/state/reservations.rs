//! Tokens set aside for calls in progress: found by id in one step, by the caller's handle in about one, and in the
//! order in which they lapse.
//!
//! An id is the reservation's number with the slot that it lies in, as an order's is, so the id itself says where to look
//! and a later reservation still has the higher one. Slots are reused newest first; the room for draws stays with the slot.

use rkyv::with::Skip;

use super::derived::Derived;
use super::index::{Index, mix};
use crate::event::Draw;
use crate::ids::{AccountId, InstrumentId, ReservationId};
use crate::limits;
use crate::units::Nanos;

/// Tokens set aside for one call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Reservation {
    /// The call's handle.
    pub request: u128,
    /// Whose.
    pub account: AccountId,
    /// Of what.
    pub instrument: InstrumentId,
    /// Where its holding lies.
    pub(crate) holding: u32,
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Reservations {
    slots: Vec<Slot>,
    /// Reused newest first.
    free: Vec<u32>,
    /// The number of the last one made.
    last: u64,
    #[rkyv(with = Skip)]
    found: Derived<Found>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Slot {
    /// 0 while free.
    id: ReservationId,
    open: Reservation,
}

#[derive(Clone, Debug, Default)]
struct Found {
    by_request: Index,
    due: Due,
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
        for (place, slot) in (0..).zip(&self.slots) {
            if slot.id.0 != 0 {
                if slot_of(slot.id) != place as usize {
                    return Err(format!("{:?} lies where its id says, not at {place}", slot.id));
                }
                self.found.add(place, slot.id, &slot.open);
            }
        }
        self.check()
    }

    /// The first broken invariant in words.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut open = 0;
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
            if self.found.due.at(place as u32) != Some((slot.open.expires_at, slot.id)) {
                return Err(format!("{:?} lapses at its time", slot.id));
            }
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
        self.found.due.check(open)
    }
}

impl Found {
    fn add(&mut self, place: u32, id: ReservationId, open: &Reservation) {
        self.by_request.insert(hash(open.account, open.request), place);
        self.due.insert(place, open.expires_at, id);
    }
}

/// Open reservations by when they lapse and then by id: a heap of four children each, in which every reservation knows
/// its place, so that the one that is settled first can leave from the middle.
#[derive(Clone, Debug, Default)]
struct Due {
    heap: Vec<(Nanos, ReservationId)>,
    /// By slot: where in the heap. Nobody reads that of a free slot.
    places: Vec<u32>,
}

impl Due {
    fn first(&self) -> Option<(Nanos, ReservationId)> {
        self.heap.first().copied()
    }

    fn at(&self, slot: u32) -> Option<(Nanos, ReservationId)> {
        self.heap.get(*self.places.get(slot as usize)? as usize).copied()
    }

    fn insert(&mut self, slot: u32, at: Nanos, id: ReservationId) {
        if self.places.len() <= slot as usize {
            self.places.resize(slot as usize + 1, 0);
        }
        self.heap.push((at, id));
        self.rise(self.heap.len() - 1);
    }

    fn remove(&mut self, slot: u32) {
        let at = self.places[slot as usize] as usize;
        let last = self.heap.pop().expect("an open reservation is in the heap");
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

    fn put(&mut self, at: usize, entry: (Nanos, ReservationId)) {
        self.heap[at] = entry;
        self.places[slot_of(entry.1)] = at as u32;
    }

    fn check(&self, open: usize) -> Result<(), String> {
        let sorted = (1..self.heap.len()).all(|at| self.heap[(at - 1) / 4] < self.heap[at]);
        if !sorted || self.heap.len() != open {
            return Err(format!("{} of {open} reservations lapse in order", self.heap.len()));
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
