//! The binary sessions, each under a number of two bytes that a resting order can carry.
//!
//! A session's id is sixteen bytes that its client chose, so it is looked up in an ordered map, where nobody can craft
//! collisions; the sessions of the last commands are remembered, which spares most commands the map.

use std::collections::BTreeMap;
use std::ops::Index;

use rkyv::with::Skip;
use rkyv::{Archive, Deserialize as Thaw, Serialize as Freeze};

use super::Session;
use super::derived::Derived;
use crate::ids::{AccountId, SessionId};

/// Where a session lies; good for as long as the session lasts or an order of its rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Freeze, Thaw)]
#[repr(transparent)]
pub struct SessionIndex(pub u16);

impl SessionIndex {
    /// The venue's own session: nobody hears what is told to it.
    pub const VENUE: Self = Self(u16::MAX);
}

/// All sessions.
///
/// Invariants: `by_id` names exactly the slots that hold a session or the name of one that was forgotten while orders
/// of its rest; all others are in `free`. So a number is given to another session only when no order names it, and a
/// client that comes back under an id whose orders rest hears of them again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
pub struct Sessions {
    slots: Vec<Slot>,
    by_id: BTreeMap<SessionId, u16>,
    /// Reused newest first.
    free: Vec<u16>,
    open: u32,
    #[rkyv(with = Skip)]
    recent: Derived<Recent>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
struct Slot {
    id: SessionId,
    /// Open orders that came through it.
    orders: u32,
    /// `None` once forgotten.
    session: Option<Session>,
}

/// Where the sessions of the last commands were found. A hint: what lies there is compared with what is looked for.
#[derive(Clone, Debug)]
struct Recent(Box<[u16]>);

impl Recent {
    const BITS: u32 = 12;

    fn place(id: SessionId) -> usize {
        let folded = (id.0 as u64) ^ ((id.0 >> 64) as u64).rotate_left(29);
        (folded.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - Self::BITS)) as usize
    }
}

impl Default for Recent {
    fn default() -> Self {
        Self(vec![u16::MAX; 1 << Self::BITS].into())
    }
}

impl Sessions {
    /// A session, unless it was never opened or is forgotten.
    #[must_use]
    pub fn get(&self, id: &SessionId) -> Option<&Session> {
        self.at(self.find(*id)?)
    }

    /// True while the session lasts.
    #[must_use]
    pub fn contains_key(&self, id: &SessionId) -> bool {
        self.get(id).is_some()
    }

    /// All that last, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&SessionId, &Session)> {
        self.by_id.iter().filter_map(|(id, &at)| Some((id, self.slots[usize::from(at)].session.as_ref()?)))
    }

    /// How many last.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.open as usize
    }

    /// True when there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// Where a session lies, or lay when it was forgotten with orders in the books.
    #[must_use]
    pub fn find(&self, id: SessionId) -> Option<SessionIndex> {
        self.by_id.get(&id).map(|&at| SessionIndex(at))
    }

    /// The session's id; the venue's for an index that was never given out.
    #[must_use]
    pub fn id(&self, index: SessionIndex) -> SessionId {
        self.slots.get(usize::from(index.0)).map_or(SessionId::VENUE, |slot| slot.id)
    }

    /// The session at an index, unless it is the venue's or forgotten.
    #[must_use]
    pub fn at(&self, index: SessionIndex) -> Option<&Session> {
        self.slots.get(usize::from(index.0))?.session.as_ref()
    }

    /// As [`Self::at`], to change.
    pub(crate) fn at_mut(&mut self, index: SessionIndex) -> Option<&mut Session> {
        self.slots.get_mut(usize::from(index.0))?.session.as_mut()
    }

    /// The session at an index with its id.
    #[inline]
    pub(crate) fn named_mut(&mut self, index: SessionIndex) -> Option<(SessionId, &mut Session)> {
        let slot = self.slots.get_mut(usize::from(index.0))?;
        Some((slot.id, slot.session.as_mut()?))
    }

    /// Moves the high-water mark of a command's session to the command: where the session lies, and whose it is. `None`, and nothing
    /// changed, where there is no such session or a number as high as this one came before.
    #[inline(always)]
    pub(crate) fn admit(&mut self, id: SessionId, client_seq: u64) -> Option<(SessionIndex, AccountId)> {
        let at = self.seek(id)?;
        let session = self.slots[usize::from(at)].session.as_mut()?;
        if client_seq <= session.last_client_seq {
            return None;
        }
        session.last_client_seq = client_seq;
        session.reports.ask_for_next();
        Some((SessionIndex(at), session.account))
    }

    /// As [`Self::get`], of the session of the command in progress.
    pub(crate) fn known(&mut self, id: SessionId) -> Option<&Session> {
        let at = self.seek(id)?;
        self.at(SessionIndex(at))
    }

    /// Where the session of the command in progress lies: looks first where it lay the last time.
    #[inline(always)]
    fn seek(&mut self, id: SessionId) -> Option<u16> {
        let hint = self.recent.0.0[Recent::place(id)];
        match self.slots.get(usize::from(hint)) {
            Some(slot) if slot.id == id => Some(hint),
            _ => self.locate(id),
        }
    }

    /// As [`Self::seek`], of one that lay elsewhere.
    #[inline(never)]
    fn locate(&mut self, id: SessionId) -> Option<u16> {
        let SessionIndex(found) = self.find(id)?;
        self.recent.0.0[Recent::place(id)] = found;
        Some(found)
    }

    /// Adds a session under its id, at the index that open orders of an earlier one of that id name. `None` where
    /// no number is left.
    pub(crate) fn open(&mut self, id: SessionId, session: Session) -> Option<SessionIndex> {
        let index = match self.by_id.get(&id) {
            Some(&at) => at,
            None => self.allocate(id)?,
        };
        let slot = &mut self.slots[usize::from(index)];
        assert!(slot.session.is_none(), "a session is opened once");
        slot.session = Some(session);
        self.open += 1;
        Some(SessionIndex(index))
    }

    fn allocate(&mut self, id: SessionId) -> Option<u16> {
        let slot = Slot { id, orders: 0, session: None };
        let index = match self.free.pop() {
            Some(at) => {
                self.slots[usize::from(at)] = slot;
                at
            }
            None => {
                let at = u16::try_from(self.slots.len()).ok().filter(|at| *at != SessionIndex::VENUE.0)?;
                self.slots.push(slot);
                at
            }
        };
        self.by_id.insert(id, index);
        Some(index)
    }

    /// Forgets a session and everything it kept; its number stays taken while orders name it.
    pub(crate) fn forget(&mut self, id: SessionId) -> Option<Session> {
        let index = self.find(id)?;
        let session = self.slots[usize::from(index.0)].session.take()?;
        self.open -= 1;
        self.give_up_if_unnamed(index);
        Some(session)
    }

    /// An order that came through the session rests from now on.
    pub(crate) fn order_rests(&mut self, index: SessionIndex) {
        if let Some(slot) = self.slots.get_mut(usize::from(index.0)) {
            slot.orders += 1;
        }
    }

    /// An order that came through the session rests no longer.
    pub(crate) fn order_leaves(&mut self, index: SessionIndex) {
        let Some(slot) = self.slots.get_mut(usize::from(index.0)) else {
            return;
        };
        slot.orders -= 1;
        if slot.orders == 0 && slot.session.is_none() {
            self.give_up_if_unnamed(index);
        }
    }

    fn give_up_if_unnamed(&mut self, index: SessionIndex) {
        let slot = &mut self.slots[usize::from(index.0)];
        if slot.orders == 0 {
            self.by_id.remove(&slot.id);
            slot.id = SessionId::VENUE;
            self.free.push(index.0);
        }
    }

    /// The first broken invariant in words; `orders` are the open orders by the session that they came through.
    pub(crate) fn check(&self, orders: &BTreeMap<SessionId, u32>) -> Result<(), String> {
        for (id, &at) in &self.by_id {
            let slot = &self.slots[usize::from(at)];
            let open = orders.get(id).copied().unwrap_or(0);
            if slot.id != *id || slot.orders != open {
                return Err(format!("{id:?} lies at {at} with its {open} open orders, not {}", slot.orders));
            }
            if slot.session.is_none() && open == 0 {
                return Err(format!("{id:?} is kept only while it lasts or orders name it"));
            }
        }
        if let Some(id) = orders.keys().find(|id| **id != SessionId::VENUE && !self.by_id.contains_key(id)) {
            return Err(format!("the session of every open order has its number: {id:?}"));
        }
        let open = self.slots.iter().filter(|slot| slot.session.is_some()).count();
        if open != self.len() || self.by_id.len() + self.free.len() != self.slots.len() {
            return Err(format!("{open} sessions are open, {} counted", self.open));
        }
        Ok(())
    }
}

impl Index<&SessionId> for Sessions {
    type Output = Session;

    fn index(&self, id: &SessionId) -> &Session {
        self.get(id).unwrap_or_else(|| panic!("{id:?} lasts"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session {
            account: AccountId(1),
            last_client_seq: 0,
            next_report: 1,
            reports: Default::default(),
            connection: None,
            cancel_on_disconnect: None,
            cancels_at: None,
            ends_at: None,
            quotes: Default::default(),
            guard: Default::default(),
        }
    }

    #[test]
    fn a_number_is_given_anew_only_when_no_order_names_it() {
        let mut sessions = Sessions::default();
        let first = sessions.open(SessionId(7), session()).unwrap();
        sessions.order_rests(first);
        assert!(sessions.forget(SessionId(7)).is_some());
        let second = sessions.open(SessionId(8), session()).unwrap();
        assert_ne!(first, second);
        assert_eq!((sessions.id(first), sessions.at(first)), (SessionId(7), None));

        sessions.order_leaves(first);
        assert_eq!(sessions.open(SessionId(9), session()), Some(first));
        assert_eq!(sessions.len(), 2);
        sessions.check(&BTreeMap::new()).unwrap();
    }

    #[test]
    fn a_client_that_comes_back_gets_the_number_that_its_orders_name() {
        let mut sessions = Sessions::default();
        let first = sessions.open(SessionId(7), session()).unwrap();
        sessions.order_rests(first);
        sessions.forget(SessionId(7));
        assert_eq!(sessions.open(SessionId(7), session()), Some(first));
        sessions.check(&BTreeMap::from([(SessionId(7), 1)])).unwrap();
    }

    #[test]
    fn the_last_place_of_a_session_is_only_a_hint() {
        let mut sessions = Sessions::default();
        let index = sessions.open(SessionId(7), session()).unwrap();
        assert_eq!(sessions.admit(SessionId(7), 1), Some((index, AccountId(1))));
        assert_eq!(sessions.admit(SessionId(7), 1), None, "the number came before");
        sessions.forget(SessionId(7));
        assert_eq!(sessions.admit(SessionId(7), 2), None);
        assert_eq!(sessions.open(SessionId(8), session()), Some(index));
        assert_eq!(sessions.admit(SessionId(7), 2), None);
        assert_eq!(sessions.admit(SessionId(8), 1), Some((index, AccountId(1))));
        assert_eq!(sessions.admit(SessionId::VENUE, 3), None, "nothing is admitted for the venue itself");
    }

    #[test]
    fn every_number_but_the_venue_s_can_be_given_out() {
        let mut sessions = Sessions::default();
        for id in 1..=u128::from(u16::MAX) {
            assert!(sessions.open(SessionId(id), session()).is_some());
        }
        assert_eq!(sessions.open(SessionId(1 << 100), session()), None);
    }
}
