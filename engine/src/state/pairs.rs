//! What belongs to an account and an instrument together, in one array that never shrinks.
//!
//! A record keeps its place for ever, so whoever has found it once may keep the place.

use std::ops;

use rkyv::with::Skip;
use rkyv::{Archive, Deserialize as Thaw, Serialize as Freeze};

use super::derived::Derived;
use super::index::{Index, mix};
use crate::ids::{AccountId, InstrumentId};
use crate::prefetch::ask_for;
use crate::units::Nanos;

/// A record of an account and an instrument.
pub trait Pair {
    /// An empty one, made now.
    fn new(account: AccountId, instrument: InstrumentId, now: Nanos) -> Self;

    /// Whose and of what.
    fn pair(&self) -> (AccountId, InstrumentId);
}

/// Records by account and instrument.
///
/// Invariant: at most one for each account and instrument.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
pub struct Pairs<T> {
    records: Vec<T>,
    #[rkyv(with = Skip)]
    found: Derived<Found>,
}

#[derive(Clone, Debug, Default)]
struct Found {
    index: Index,
    /// Per account in the order of the instruments.
    lists: Vec<Vec<(InstrumentId, u32)>>,
    /// Per account which of its records was used last, and where that lies: what most commands ask for again.
    recent: Vec<(InstrumentId, u32)>,
}

impl<T> Default for Pairs<T> {
    fn default() -> Self {
        Self { records: Vec::new(), found: Derived::default() }
    }
}

/// No place.
const NOWHERE: u32 = u32::MAX;

fn hash(account: AccountId, instrument: InstrumentId) -> u32 {
    mix(u64::from(account.0) << 16 | u64::from(instrument.0), 0)
}

impl<T: Pair> Pairs<T> {
    /// The record of an account and an instrument, if they ever had one.
    #[must_use]
    #[inline]
    pub fn get(&self, account: AccountId, instrument: InstrumentId) -> Option<&T> {
        self.place(account, instrument).map(|place| &self.records[place as usize])
    }

    /// An account's records, by instrument.
    pub fn of(&self, account: AccountId) -> impl Iterator<Item = (InstrumentId, &T)> {
        let list = self.found.lists.get(account.0 as usize).map_or(&[][..], Vec::as_slice);
        list.iter().map(|&(instrument, place)| (instrument, &self.records[place as usize]))
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.records.iter()
    }

    /// The record of an account and an instrument, made now if there is none.
    #[inline]
    pub fn open(&mut self, account: AccountId, instrument: InstrumentId, now: Nanos) -> &mut T {
        let place = self.place_or_new(account, instrument, now);
        &mut self.records[place as usize]
    }

    /// Asks for the record of an account and an instrument.
    pub(crate) fn ask_for(&self, account: AccountId, instrument: InstrumentId) {
        let asked = |place: u32| {
            ask_for(&self.records[place as usize]);
            true
        };
        let _ = self.found.index.find(hash(account, instrument), asked);
    }

    /// Asks for the record that an account's last command used.
    #[inline(always)]
    pub(crate) fn ask_for_recent(&self, account: AccountId) {
        if let Some(&(_, place)) = self.found.recent.get(account.0 as usize)
            && let Some(record) = self.records.get(place as usize)
        {
            ask_for(record);
        }
    }

    /// Asks for what says where that record lies.
    pub(crate) fn ask_for_place(&self, account: AccountId, instrument: InstrumentId) {
        self.found.index.ask_for(hash(account, instrument));
    }

    /// Where the record of an account and an instrument lies.
    #[inline(always)]
    pub(crate) fn place(&self, account: AccountId, instrument: InstrumentId) -> Option<u32> {
        match self.found.recent.get(account.0 as usize) {
            Some(&(last, place)) if last == instrument && place != NOWHERE => Some(place),
            _ => self.look_up(account, instrument),
        }
    }

    #[inline(never)]
    fn look_up(&self, account: AccountId, instrument: InstrumentId) -> Option<u32> {
        let is = |place: u32| self.records[place as usize].pair() == (account, instrument);
        self.found.index.find(hash(account, instrument), is)
    }

    /// As [`Self::place`], of a record made now if there is none.
    #[inline]
    pub(crate) fn place_or_new(&mut self, account: AccountId, instrument: InstrumentId, now: Nanos) -> u32 {
        match self.found.recent.get_mut(account.0 as usize) {
            Some(&mut (last, place)) if last == instrument && place != NOWHERE => return place,
            _ => {}
        }
        self.place_beyond(account, instrument, now)
    }

    /// As [`Self::place_or_new`], of another record than the account's last one.
    #[inline(never)]
    fn place_beyond(&mut self, account: AccountId, instrument: InstrumentId, now: Nanos) -> u32 {
        if let Some(place) = self.look_up(account, instrument) {
            self.found.recent[account.0 as usize] = (instrument, place);
            return place;
        }
        let place = u32::try_from(self.records.len()).expect("memory ends before 32 bits of records do");
        self.records.push(T::new(account, instrument, now));
        self.found.add(account, instrument, place);
        place
    }

    /// Works out again what is derived, after the records were read from a snapshot.
    pub(crate) fn rebuild(&mut self) -> Result<(), String> {
        self.found = Derived::default();
        for place in 0..self.records.len() {
            let (account, instrument) = self.records[place].pair();
            if self.place(account, instrument).is_some() {
                return Err(format!("{account:?} has one record of {instrument:?}"));
            }
            self.found.add(account, instrument, u32::try_from(place).map_err(|error| error.to_string())?);
        }
        Ok(())
    }

    /// The first broken invariant in words.
    pub(crate) fn check(&self) -> Result<(), String> {
        for (place, record) in (0..).zip(&self.records) {
            let (account, instrument) = record.pair();
            let found = (self.place(account, instrument), self.look_up(account, instrument));
            if found != (Some(place), Some(place)) {
                return Err(format!("the record of {account:?} and {instrument:?} is found at {place}"));
            }
        }
        let listed: usize = self.found.lists.iter().map(Vec::len).sum();
        let sorted = self.found.lists.iter().all(|list| list.is_sorted());
        if listed != self.records.len() || self.found.index.len() != listed || !sorted {
            return Err(format!("{listed} of {} records are listed in order", self.records.len()));
        }
        Ok(())
    }
}

impl Found {
    fn add(&mut self, account: AccountId, instrument: InstrumentId, place: u32) {
        self.index.insert(hash(account, instrument), place);
        let nth = account.0 as usize;
        if self.lists.len() <= nth {
            self.lists.resize_with(nth + 1, Vec::new);
            self.recent.resize(nth + 1, (InstrumentId::default(), NOWHERE));
        }
        self.recent[nth] = (instrument, place);
        let list = &mut self.lists[nth];
        let at = list.partition_point(|&(earlier, _)| earlier < instrument);
        list.insert(at, (instrument, place));
    }
}

impl<T> ops::Index<u32> for Pairs<T> {
    type Output = T;

    fn index(&self, place: u32) -> &T {
        &self.records[place as usize]
    }
}

impl<T> ops::IndexMut<u32> for Pairs<T> {
    fn index_mut(&mut self, place: u32) -> &mut T {
        &mut self.records[place as usize]
    }
}
