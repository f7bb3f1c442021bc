//! Who is connected, by number. A connection's number holds its place in an array, so looking one up is an index and a
//! comparison; and the number itself is never used twice, so an event, an outcome or a log entry that names a
//! connection that is gone finds nobody.
//!
//! Whoever works on a connection while the rest of the loop works too takes it out (a pointer) and puts it back.

use crate::connection::Connection;

/// Bits of a number that say the place; the rest counts.
const PLACE_BITS: u32 = 20;
const PLACE_MASK: u64 = (1 << PLACE_BITS) - 1;

/// All connections of the gateway.
pub(crate) struct Table {
    places: Vec<Place>,
    /// Places whose connection is gone, reused newest first.
    free: Vec<u32>,
    /// Numbers given out; never goes back.
    count: u64,
}

#[derive(Default)]
struct Place {
    /// Whose it is; zero while it is free.
    id: u64,
    client: Option<Box<Connection>>,
}

impl Table {
    /// Nobody yet. Numbers are compared with those of earlier runs and of other nodes, which the state may still hold;
    /// so `start` is to be drawn at random, and each gateway counts from somewhere else.
    pub(crate) fn counting_from(start: u64) -> Self {
        // Half of the numbers are left to be counted.
        let count = start >> (PLACE_BITS + 1);
        Self { places: Vec::new(), free: Vec::new(), count }
    }

    /// A number and a place for a new connection, to be filled by [`Self::put`].
    pub(crate) fn reserve(&mut self) -> u64 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::default());
            (self.places.len() - 1) as u32
        });
        // Never 0 or 1, which are the listener's and the waker's.
        self.count += 1;
        let id = self.count << PLACE_BITS | u64::from(place);
        self.places[place as usize].id = id;
        id
    }

    fn place(&self, id: u64) -> Option<&Place> {
        self.places.get((id & PLACE_MASK) as usize).filter(|place| place.id == id)
    }

    fn place_mut(&mut self, id: u64) -> Option<&mut Place> {
        self.places.get_mut((id & PLACE_MASK) as usize).filter(|place| place.id == id)
    }

    pub(crate) fn get(&self, id: u64) -> Option<&Connection> {
        self.place(id)?.client.as_deref()
    }

    pub(crate) fn get_mut(&mut self, id: u64) -> Option<&mut Connection> {
        self.place_mut(id)?.client.as_deref_mut()
    }

    /// Takes a connection out; its place stays its own.
    pub(crate) fn take(&mut self, id: u64) -> Option<Box<Connection>> {
        self.place_mut(id)?.client.take()
    }

    /// Puts one back that was taken out, or that is new.
    pub(crate) fn put(&mut self, id: u64, client: Box<Connection>) {
        if let Some(place) = self.place_mut(id) {
            place.client = Some(client);
        }
    }

    /// The connection is gone for good: its place is another's.
    pub(crate) fn release(&mut self, id: u64) {
        if let Some(place) = self.place_mut(id) {
            *place = Place::default();
            self.free.push((id & PLACE_MASK) as u32);
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Connection)> {
        self.places.iter().filter_map(|place| Some((place.id, place.client.as_deref()?)))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut Connection)> {
        self.places.iter_mut().filter_map(|place| Some((place.id, place.client.as_deref_mut()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_finds_its_own_connection_or_nobody() {
        let mut table = Table::counting_from(u64::MAX);
        let (first, second) = (table.reserve(), table.reserve());
        assert!(first > 1 && second > 1 && first != second);
        assert_eq!(table.len(), 2);
        table.release(first);
        table.release(first);
        assert_eq!(table.len(), 1, "released once");
        let third = table.reserve();
        assert_eq!(third & PLACE_MASK, first & PLACE_MASK, "the place is used again, the number is not");
        assert_ne!(third, first);
        assert!(
            table.place(first).is_none() && table.place(third).is_some() && table.place(second).is_some()
        );
        assert!(table.get(third).is_none(), "reserved, and not there yet");
    }
}
