//! Every resting order of the venue, in one array of 64-byte records: a cache line each.
//!
//! An order's id holds the slot where its record lies, so one array access finds it. Links are slots too: `prev` and
//! `next` within the price level, `own_prev` and `own_next` within the account's list of open orders.
//! ```text
//! level:    head ─next─► ─next─► tail ─next─► NONE      and head.prev is the tail: no level stores it
//! account:  first ─own_next─► ... last                  in order of acceptance, which is the order of ids
//! free:     newest freed ─next─► ... ─next─► NONE       the next order takes the newest freed slot
//! ```
//! Records lie in chunks that are never moved, so the array grows without copying a single order. What is free and in
//! which order is state like the records themselves: it decides the ids of later orders.

use rkyv::rancor::{Fallible, Source};
use rkyv::{Archive, Deserialize as Thaw, Serialize as Freeze};
use zerocopy::{FromZeros, Immutable, IntoBytes};

use crate::command::{Side, TimeInForce};
use crate::ids::{Label, OrderId};

/// No slot: end of a list.
pub(crate) const NONE: u32 = u32::MAX;

/// Records that lie together.
const CHUNK: usize = 1 << 14;

type Chunk = [Record; CHUNK];

/// One resting order, as narrow as it can be stored. A free slot is all zeros but for its `next`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromZeros, IntoBytes, Immutable, Archive, Freeze, Thaw,
)]
#[repr(C, align(64))]
pub(crate) struct Record {
    /// Its id; 0 marks a free slot.
    pub(crate) id: u64,
    pub(crate) submitted_at: u64,
    pub(crate) updated_at: u64,
    pub(crate) price: u32,
    pub(crate) remaining: u32,
    pub(crate) filled: u32,
    pub(crate) prev: u32,
    pub(crate) next: u32,
    pub(crate) own_prev: u32,
    pub(crate) own_next: u32,
    pub(crate) account: u32,
    /// Where the session's name is.
    pub(crate) session: u16,
    pub(crate) instrument: u16,
    /// See [`Terms`].
    pub(crate) terms: u32,
}

const _: () = assert!(size_of::<Record>() == 64 && align_of::<Record>() == 64, "an order is one cache line");

/// What an order agreed to, packed into the 32 bits of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) side: Side,
    pub(crate) tif: TimeInForce,
    pub(crate) to_consumption: bool,
    /// The label beside the record is this order's.
    pub(crate) labelled: bool,
    /// Of a quote its number, else 0. A quote has no label.
    pub(crate) quote: u8,
    pub(crate) maker_fee_bps: u16,
    pub(crate) taker_fee_bps: u16,
}

impl Terms {
    const FEE_BITS: u32 = 10;
    const FEE_MASK: u32 = (1 << Self::FEE_BITS) - 1;

    #[inline(always)]
    pub(crate) const fn pack(self) -> u32 {
        let tif = match self.tif {
            TimeInForce::Gtc => 0,
            TimeInForce::Day => 1,
            TimeInForce::PostOnly => 2,
            TimeInForce::Ioc => 3,
            TimeInForce::Fok => 4,
        };
        self.maker_fee_bps as u32
            | (self.taker_fee_bps as u32) << Self::FEE_BITS
            | (matches!(self.side, Side::Sell) as u32) << 20
            | (self.to_consumption as u32) << 21
            | (self.labelled as u32) << 22
            | tif << 23
            | (self.quote as u32) << 26
    }

    #[inline(always)]
    pub(crate) const fn unpack(bits: u32) -> Self {
        Self {
            side: if bits & 1 << 20 == 0 { Side::Buy } else { Side::Sell },
            tif: match bits >> 23 & 7 {
                0 => TimeInForce::Gtc,
                1 => TimeInForce::Day,
                2 => TimeInForce::PostOnly,
                3 => TimeInForce::Ioc,
                _ => TimeInForce::Fok,
            },
            to_consumption: bits & 1 << 21 != 0,
            labelled: bits & 1 << 22 != 0,
            quote: (bits >> 26) as u8,
            maker_fee_bps: (bits & Self::FEE_MASK) as u16,
            taker_fee_bps: (bits >> Self::FEE_BITS & Self::FEE_MASK) as u16,
        }
    }
}

const _: () = assert!(crate::limits::FEE_BPS as u32 <= Terms::FEE_MASK, "every fee fits its bits");
const _: () = assert!(crate::limits::QUOTE_NUMBERS < 1 << 6, "every number of a quote fits its bits");

impl Terms {
    /// What a bid holds dollars for: it may come to pay either.
    #[inline]
    pub(crate) fn highest_fee_bps(self) -> u16 {
        self.maker_fee_bps.max(self.taker_fee_bps)
    }
}

impl Record {
    #[inline]
    pub(crate) const fn terms(&self) -> Terms {
        Terms::unpack(self.terms)
    }

    #[inline]
    pub(crate) const fn is_labelled(&self) -> bool {
        self.terms & 1 << 22 != 0
    }

    /// Of a quote its number, else 0.
    #[inline]
    pub(crate) const fn quote(&self) -> u8 {
        (self.terms >> 26) as u8
    }

    #[inline]
    pub(crate) const fn side(&self) -> Side {
        if self.terms & 1 << 20 == 0 { Side::Buy } else { Side::Sell }
    }
}

/// All records, and which slots are free.
#[derive(Debug, Archive, Freeze, Thaw)]
pub(crate) struct Slab {
    #[rkyv(with = Flat)]
    records: Records,
    /// The newest freed slot.
    free: u32,
    live: u32,
    /// By slot, as far as labels were ever used.
    labels: Vec<u128>,
}

impl Default for Slab {
    fn default() -> Self {
        Self { records: Records::default(), free: NONE, live: 0, labels: Vec::new() }
    }
}

impl Slab {
    /// How many orders rest.
    pub(crate) const fn live(&self) -> usize {
        self.live as usize
    }

    /// True when no further order can rest.
    pub(crate) const fn is_full(&self) -> bool {
        self.free == NONE && self.records.len >= OrderId::NO_SLOT
    }

    /// A slot for an order to come: the newest freed one.
    ///
    /// # Panics
    /// When the slab is full, which the caller has excluded.
    #[inline]
    pub(crate) fn take_slot(&mut self) -> u32 {
        self.live += 1;
        if self.free == NONE {
            assert!(self.records.len < OrderId::NO_SLOT, "the caller asked whether there is room");
            return self.records.grow();
        }
        let slot = self.free;
        self.free = self.at(slot).next;
        slot
    }

    /// Gives a slot back.
    #[inline]
    pub(crate) fn give_slot(&mut self, slot: u32) {
        let free = self.free;
        *self.at_mut(slot) = Record { next: free, ..Record::default() };
        self.free = slot;
        self.live -= 1;
    }

    #[inline(always)]
    pub(crate) fn at(&self, slot: u32) -> &Record {
        &self.records.chunks[slot as usize / CHUNK][slot as usize % CHUNK]
    }

    #[inline(always)]
    pub(crate) fn at_mut(&mut self, slot: u32) -> &mut Record {
        &mut self.records.chunks[slot as usize / CHUNK][slot as usize % CHUNK]
    }

    /// The record in any slot, if there is such a slot.
    pub(crate) fn get(&self, slot: u32) -> Option<&Record> {
        (slot < self.records.len).then(|| self.at(slot))
    }

    /// The slot and the record of an order that rests.
    #[inline(always)]
    pub(crate) fn find(&self, id: OrderId) -> Option<(u32, &Record)> {
        let slot = id.slot()?;
        let record = &self.records.chunks.get(slot as usize / CHUNK)?[slot as usize % CHUNK];
        (record.id == id.0).then_some((slot, record))
    }

    /// The records alone.
    #[inline(always)]
    pub(crate) fn orders(&mut self) -> Orders<'_> {
        Orders(&mut self.records.chunks)
    }

    /// The label of the order in this slot.
    #[inline]
    pub(crate) fn label(&self, slot: u32, labelled: bool) -> Label {
        if labelled { Label(self.labels[slot as usize]) } else { Label::default() }
    }

    pub(crate) fn set_label(&mut self, slot: u32, label: Label) {
        let slot = slot as usize;
        if self.labels.len() <= slot {
            self.labels.resize(slot + 1, 0);
        }
        self.labels[slot] = label.0;
    }

    /// All orders, by slot.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Record)> {
        (0..).zip(self.records.iter()).filter(|(_, record)| record.id != 0)
    }

    /// The first broken promise about free slots and ids, in words.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (mut free, mut at) = (0, self.free);
        while at != NONE {
            if at >= self.records.len || self.at(at).id != 0 || free >= self.records.len {
                return Err(format!("slot {at} of the free list is free"));
            }
            free += 1;
            at = self.at(at).next;
        }
        let mut live = 0;
        for (slot, record) in self.iter() {
            if OrderId(record.id).slot() != Some(slot) {
                return Err(format!("the id {:#x} names slot {slot}", record.id));
            }
            if matches!(record.terms().tif, TimeInForce::Ioc | TimeInForce::Fok) || record.terms >> 23 & 7 > 4
            {
                return Err(format!("an order that rests may rest: {record:?}"));
            }
            if record.terms().labelled && self.labels.len() <= slot as usize {
                return Err(format!("slot {slot} has the label that it names"));
            }
            live += 1;
        }
        if live != self.live || live + free != self.records.len {
            return Err(format!("{live} orders and {free} free slots are {} slots", self.records.len));
        }
        Ok(())
    }
}

impl Clone for Slab {
    fn clone(&self) -> Self {
        let mut records = Records::default();
        for (chunk, from) in self.records.chunks.iter().enumerate() {
            records.add_chunk();
            records.chunks[chunk].copy_from_slice(&**from);
        }
        records.len = self.records.len;
        Self { records, free: self.free, live: self.live, labels: self.labels.clone() }
    }
}

impl PartialEq for Slab {
    fn eq(&self, other: &Self) -> bool {
        (self.free, self.records.len) == (other.free, other.records.len)
            && self.labels == other.labels
            && self.records.iter().eq(other.records.iter())
    }
}

impl Eq for Slab {}

impl std::hash::Hash for Slab {
    fn hash<H: std::hash::Hasher>(&self, hasher: &mut H) {
        self.free.hash(hasher);
        self.records.len.hash(hasher);
        for part in self.records.parts() {
            hasher.write(part.as_bytes());
        }
        self.labels.hash(hasher);
    }
}

/// The records, to change. While this lasts there come no more of them, so the compiler knows a slot that was looked at once.
pub(crate) struct Orders<'a>(&'a mut [Box<Chunk>]);

impl Orders<'_> {
    #[inline(always)]
    pub(crate) fn at(&mut self, slot: u32) -> &mut Record {
        &mut self.0[slot as usize / CHUNK][slot as usize % CHUNK]
    }
}

/// Records in chunks; the slots below `len` have been used at some time.
#[derive(Debug, Default)]
struct Records {
    chunks: Vec<Box<Chunk>>,
    len: u32,
}

impl Records {
    fn grow(&mut self) -> u32 {
        let slot = self.len;
        if slot as usize == self.chunks.len() * CHUNK {
            self.add_chunk();
        }
        self.len += 1;
        slot
    }

    #[cold]
    fn add_chunk(&mut self) {
        let chunk =
            Chunk::new_box_zeroed().expect("the machine has memory for the orders that its limits allow");
        self.chunks.push(chunk);
    }

    /// The used part of each chunk.
    fn parts(&self) -> impl Iterator<Item = &[Record]> {
        let len = self.len as usize;
        self.chunks.iter().enumerate().map(move |(nth, chunk)| &chunk[..CHUNK.min(len - nth * CHUNK)])
    }

    fn iter(&self) -> RecordIter<'_> {
        RecordIter { records: self, next: 0 }
    }
}

/// Every used slot's record. Its length is known, which is what the snapshot's writer asks for.
#[derive(Clone)]
struct RecordIter<'a> {
    records: &'a Records,
    next: u32,
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = &'a Record;

    fn next(&mut self) -> Option<&'a Record> {
        if self.next == self.records.len {
            return None;
        }
        let slot = self.next as usize;
        self.next += 1;
        Some(&self.records.chunks[slot / CHUNK][slot % CHUNK])
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.records.len - self.next) as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for RecordIter<'_> {}

/// Writes the chunks as one vector.
struct Flat;

impl rkyv::with::ArchiveWith<Records> for Flat {
    type Archived = rkyv::vec::ArchivedVec<ArchivedRecord>;
    type Resolver = rkyv::vec::VecResolver;

    fn resolve_with(field: &Records, resolver: Self::Resolver, out: rkyv::Place<Self::Archived>) {
        rkyv::vec::ArchivedVec::resolve_from_len(field.len as usize, resolver, out);
    }
}

impl<S> rkyv::with::SerializeWith<Records, S> for Flat
where
    S: Fallible + rkyv::ser::Allocator + rkyv::ser::Writer + ?Sized,
    S::Error: Source,
{
    fn serialize_with(field: &Records, serializer: &mut S) -> Result<Self::Resolver, S::Error> {
        rkyv::vec::ArchivedVec::serialize_from_iter::<Record, _, _>(field.iter(), serializer)
    }
}

impl<D> rkyv::with::DeserializeWith<rkyv::vec::ArchivedVec<ArchivedRecord>, Records, D> for Flat
where
    D: Fallible + ?Sized,
{
    fn deserialize_with(
        field: &rkyv::vec::ArchivedVec<ArchivedRecord>,
        deserializer: &mut D,
    ) -> Result<Records, D::Error> {
        use rkyv::Deserialize;
        let mut records = Records::default();
        for archived in field.as_slice() {
            let slot = records.grow() as usize;
            records.chunks[slot / CHUNK][slot % CHUNK] = archived.deserialize(deserializer)?;
        }
        Ok(records)
    }
}
