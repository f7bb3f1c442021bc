//! The log form of orders entered, changed and cancelled, written and read by hand: nearly every command is one of them, and a
//! general coder spends more on each than its way through the rest of a block takes.
//!
//! The form is postcard's, byte for byte; a test compares both over random commands. What is not here goes the general way, and so does
//! everything that does not read as it should, so that one place alone says what is wrong with it.

use crate::command::{Command, Entry, NewOrder, OrderKind, OrderRef, SelfTrade, Side, TimeInForce};
use crate::ids::{AccountId, InstrumentId, Label, OrderId, SessionId};
use crate::units::{Price, Qty};

/// No form here is longer; a power of two, so that a place in it needs no check.
const ROOM: usize = 128;

/// Appends the form of an entry, if it is one of those known here.
#[inline]
pub(crate) fn append(entry: &Entry, out: &mut Vec<u8>) -> bool {
    let mut pen = Pen { room: [0; ROOM], at: 0 };
    pen.session(entry.session);
    pen.varint(entry.client_seq);
    pen.varint(entry.account.0.into());
    match &entry.command {
        Command::Place(new) if new.tag.is_empty() => {
            pen.byte(0);
            pen.new_order(new);
        }
        Command::Cancel { order } => {
            pen.byte(1);
            pen.order(*order);
        }
        Command::Replace { order, qty, price, stp, post_only } => {
            pen.byte(2);
            pen.order(*order);
            pen.varint(qty.0);
            pen.varint(price.0);
            pen.byte(*stp as u8);
            pen.byte((*post_only).into());
        }
        _ => return false,
    }
    out.extend_from_slice(&pen.room[..pen.at]);
    true
}

/// Reads an entry that is one of those known here, whole and nothing after it.
#[inline]
pub(crate) fn read(bytes: &[u8]) -> Option<Entry> {
    let mut eye = Eye(bytes);
    let session = eye.session()?;
    let client_seq = eye.varint()?;
    let account = AccountId(eye.varint()?.try_into().ok()?);
    let command = match eye.byte()? {
        0 => Command::Place(eye.new_order()?),
        1 => Command::Cancel { order: eye.order()? },
        2 => Command::Replace {
            order: eye.order()?,
            qty: Qty(eye.varint()?),
            price: Price(eye.varint()?),
            stp: eye.self_trade()?,
            post_only: eye.flag()?,
        },
        _ => return None,
    };
    if !eye.0.is_empty() {
        return None;
    }
    Some(Entry { session, client_seq, account, command })
}

/// Writes.
struct Pen {
    room: [u8; ROOM],
    at: usize,
}

impl Pen {
    #[inline(always)]
    fn byte(&mut self, byte: u8) {
        self.room[self.at % ROOM] = byte;
        self.at += 1;
    }

    #[inline(always)]
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.byte(number as u8 | 0x80);
            number >>= 7;
        }
        self.byte(number as u8);
    }

    #[inline(always)]
    fn session(&mut self, id: SessionId) {
        if id == SessionId::VENUE {
            return self.byte(0);
        }
        self.byte(16);
        self.room[1..17].copy_from_slice(&id.0.to_le_bytes());
        self.at = 17;
    }

    #[inline(always)]
    fn label(&mut self, Label(mut label): Label) {
        while label > u64::MAX.into() {
            self.byte(label as u8 | 0x80);
            label >>= 7;
        }
        self.varint(label as u64);
    }

    #[inline(always)]
    fn order(&mut self, order: OrderRef) {
        match order {
            OrderRef::Id(id) => {
                self.byte(0);
                self.varint(id.0);
            }
            OrderRef::Label(label) => {
                self.byte(1);
                self.label(label);
            }
        }
    }

    #[inline(always)]
    fn new_order(&mut self, new: &NewOrder) {
        self.varint(new.instrument.0.into());
        self.byte(new.side as u8);
        match new.kind {
            OrderKind::Limit { price, tif } => {
                self.byte(0);
                self.varint(price.0);
                self.byte(tif as u8);
            }
            OrderKind::Market { max_slippage_bps, fill_or_kill } => {
                self.byte(1);
                self.byte(max_slippage_bps.is_some().into());
                if let Some(bps) = max_slippage_bps {
                    self.varint(bps.into());
                }
                self.byte(fill_or_kill.into());
            }
        }
        self.varint(new.qty.0);
        self.byte(new.stp as u8);
        self.label(new.label);
        // Of a tag without bytes.
        self.byte(0);
        self.byte(new.to_consumption.into());
    }
}

/// Reads what is left. `None` for whatever is not plain here.
struct Eye<'a>(&'a [u8]);

impl Eye<'_> {
    #[inline(always)]
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    /// Up to nine bytes: one that takes ten is left to others.
    #[inline(always)]
    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    #[inline(always)]
    fn session(&mut self) -> Option<SessionId> {
        match self.byte()? {
            0 => Some(SessionId::VENUE),
            16 => {
                let (bytes, rest) = self.0.split_first_chunk()?;
                self.0 = rest;
                Some(SessionId(u128::from_le_bytes(*bytes))).filter(|id| *id != SessionId::VENUE)
            }
            _ => None,
        }
    }

    #[inline(always)]
    fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    #[inline(always)]
    fn self_trade(&mut self) -> Option<SelfTrade> {
        Some(match self.byte()? {
            0 => SelfTrade::Allow,
            1 => SelfTrade::CancelIncoming,
            2 => SelfTrade::CancelResting,
            3 => SelfTrade::CancelBoth,
            4 => SelfTrade::Decrement,
            _ => return None,
        })
    }

    /// One that fits 63 bits: a longer one is a hash, and comes with a tag.
    #[inline(always)]
    fn label(&mut self) -> Option<Label> {
        self.varint().map(|label| Label(label.into()))
    }

    #[inline(always)]
    fn order(&mut self) -> Option<OrderRef> {
        match self.byte()? {
            0 => Some(OrderRef::Id(OrderId(self.varint()?))),
            1 => Some(OrderRef::Label(self.label()?)),
            _ => None,
        }
    }

    #[inline(always)]
    fn new_order(&mut self) -> Option<NewOrder> {
        let instrument = InstrumentId(self.varint()?.try_into().ok()?);
        let side = match self.byte()? {
            0 => Side::Buy,
            1 => Side::Sell,
            _ => return None,
        };
        let kind = match self.byte()? {
            0 => OrderKind::Limit {
                price: Price(self.varint()?),
                tif: match self.byte()? {
                    0 => TimeInForce::Gtc,
                    1 => TimeInForce::Ioc,
                    2 => TimeInForce::Fok,
                    3 => TimeInForce::Day,
                    4 => TimeInForce::PostOnly,
                    _ => return None,
                },
            },
            1 => {
                let limited = self.flag()?;
                let max_slippage_bps = if limited { Some(self.varint()?.try_into().ok()?) } else { None };
                OrderKind::Market { max_slippage_bps, fill_or_kill: self.flag()? }
            }
            _ => return None,
        };
        let (qty, stp, label) = (Qty(self.varint()?), self.self_trade()?, self.label()?);
        if self.byte()? != 0 {
            return None;
        }
        let to_consumption = self.flag()?;
        Some(NewOrder { instrument, side, kind, qty, stp, label, tag: String::new(), to_consumption })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SplitMix64.
    struct Dice(u64);

    impl Dice {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^ (z >> 31)
        }

        fn below(&mut self, end: usize) -> usize {
            (self.next() % end as u64) as usize
        }

        /// Of any size, the ends of all widths more often than by chance.
        fn number(&mut self) -> u64 {
            let bits = self.below(65) as u32;
            let number = self.next().checked_shr(64 - bits).unwrap_or(0);
            [number, 0, 127, 128, u64::MAX >> 1, u64::MAX]
                [self.below(20).min(5) * usize::from(self.below(4) == 0)]
        }

        fn wide(&mut self) -> u128 {
            match self.below(4) {
                0 => 0,
                1 => u128::MAX,
                2 => self.number().into(),
                _ => u128::from(self.next()) << 64 | u128::from(self.next()),
            }
        }

        fn entry(&mut self) -> Entry {
            let stps = [
                SelfTrade::Allow,
                SelfTrade::CancelIncoming,
                SelfTrade::CancelResting,
                SelfTrade::CancelBoth,
                SelfTrade::Decrement,
            ];
            let tifs = [
                TimeInForce::Gtc,
                TimeInForce::Ioc,
                TimeInForce::Fok,
                TimeInForce::Day,
                TimeInForce::PostOnly,
            ];
            let (stp, tif) = (stps[self.below(5)], tifs[self.below(5)]);
            let (qty, price) = (Qty(self.number()), Price(self.number()));
            let (yes, flag) = (self.below(2) == 0, self.below(2) == 0);
            let order = match self.below(2) {
                0 => OrderRef::Id(OrderId(self.number())),
                _ => OrderRef::Label(Label(self.wide())),
            };
            let bps = self.number() as u16;
            let command = match self.below(8) {
                0 => Command::Cancel { order },
                1 | 2 => Command::Replace { order, qty, price, stp, post_only: flag },
                3 => Command::Tick,
                _ => Command::Place(NewOrder {
                    instrument: InstrumentId(self.number() as u16),
                    side: if yes { Side::Buy } else { Side::Sell },
                    kind: match self.below(3) {
                        0 => OrderKind::Market { max_slippage_bps: yes.then_some(bps), fill_or_kill: flag },
                        _ => OrderKind::Limit { price, tif },
                    },
                    qty,
                    stp,
                    label: Label(self.wide()),
                    tag: "t".repeat(self.below(3) / 2),
                    to_consumption: flag,
                }),
            };
            let (session, client_seq) = (SessionId(self.wide()), self.number());
            Entry { session, client_seq, account: AccountId(self.number() as u32), command }
        }
    }

    #[test]
    fn by_hand_or_not_the_bytes_are_the_same_and_mean_the_same() {
        let seed = 1;
        let mut dice = Dice(seed);
        let (mut written, mut seen) = (0, 0);
        for nth in 0..100_000 {
            let entry = dice.entry();
            let general = postcard::to_allocvec(&entry).expect("it has a log form");
            let mut out = b"before".to_vec();
            if append(&entry, &mut out) {
                written += 1;
                assert_eq!(out[6..], general, "seed {seed} entry {nth}: {entry:?}");
            } else {
                assert_eq!(out, b"before", "seed {seed} entry {nth}");
            }
            if let Some(read) = read(&general) {
                seen += 1;
                assert_eq!(read, entry, "seed {seed} entry {nth}");
            }
        }
        assert!(written > 70_000 && seen > 20_000, "{written} written, {seen} read");
    }

    #[test]
    fn what_is_damaged_is_read_as_the_general_way_reads_it_or_not_at_all() {
        let seed = 2;
        let mut dice = Dice(seed);
        for nth in 0..200_000 {
            let mut bytes = postcard::to_allocvec(&dice.entry()).expect("it has a log form");
            match dice.below(3) {
                0 => bytes.truncate(dice.below(bytes.len())),
                1 => bytes.push(dice.next() as u8),
                _ => {
                    let at = dice.below(bytes.len());
                    bytes[at] = dice.next() as u8;
                }
            }
            if let Some(read) = read(&bytes) {
                let general = postcard::take_from_bytes::<Entry>(&bytes);
                let (entry, rest) = general.expect("what is plain here is plain there");
                assert_eq!((read, 0), (entry, rest.len()), "seed {seed} entry {nth}: {bytes:?}");
            }
        }
    }
}
