//! Market data: one depth image per instrument, kept from committed level changes, and what each kind of
//! subscriber must be told. Knows no sockets: it fills byte buffers.
//!
//! Subscribers of one instrument with the same depth form a class and get the same bytes, encoded once. A limited
//! class is told the difference between what it saw and the new top of the book, so its levels stay exactly right.

use std::collections::BTreeMap;

use grid_engine::command::Side;
use grid_engine::event::Trade;
use grid_engine::{Nanos, Seq, State};
use grid_wire as wire;
use grid_wire::{BookFlags, Level};

use crate::depth::Depth;

/// Levels of one part of a snapshot, and changes of one increment; keeps frames below their limit.
const LEVELS_PER_FRAME: usize = 500;

/// What is resting in one instrument, as the world may know it.
#[derive(Debug, Default)]
struct Image {
    bids: Depth,
    asks: Depth,
    /// Counts matching events since the gateway started.
    channel_seq: u64,
    log_seq: u64,
    match_time: u64,
    last_price: u64,
    /// What each limited class saw last, best first, bids then asks.
    classes: BTreeMap<u16, Vec<Level>>,
    /// Somebody is told of the whole book.
    whole: bool,
}

/// Changes of one matching event, collected until it is over.
#[derive(Debug, Default)]
struct Pending {
    instrument: u16,
    log_seq: u64,
    match_time: u64,
    levels: Vec<Level>,
    trades: Vec<Trade>,
}

/// All images, and the event under way.
#[derive(Debug, Default)]
pub(crate) struct Market {
    /// By instrument.
    images: Vec<Option<Image>>,
    /// Events up to here are in the images already.
    since: Seq,
    /// One for each instrument that the event touched, and behind them spare ones, so that nothing is allocated for an
    /// event.
    pending: Vec<Pending>,
    touched: usize,
    bytes: Vec<u8>,
}

impl Market {
    /// The books as a replica holds them.
    pub(crate) fn of(state: &State) -> Self {
        let mut market = Self { since: state.seq, ..Self::default() };
        for instrument in &state.instruments {
            let mut image = Image { log_seq: state.seq.0, match_time: state.now.0, ..Image::default() };
            image.last_price = instrument.last_trade.map_or(0, |trade| trade.price.0);
            if let Some(book) = state.book(instrument.id) {
                image.bids = book.levels(Side::Buy).map(|l| (l.price.0, (l.qty.0, l.orders))).collect();
                image.asks = book.levels(Side::Sell).map(|l| (l.price.0, (l.qty.0, l.orders))).collect();
            }
            *market.place(instrument.id.0) = Some(image);
        }
        market
    }

    fn place(&mut self, instrument: u16) -> &mut Option<Image> {
        let index = usize::from(instrument);
        if self.images.len() <= index {
            self.images.resize_with(index + 1, || None);
        }
        &mut self.images[index]
    }

    fn image(&mut self, instrument: u16) -> Option<&mut Image> {
        self.images.get_mut(usize::from(instrument))?.as_mut()
    }

    /// Makes room for instruments that the state knows and we do not yet.
    pub(crate) fn learn(&mut self, state: &State) {
        for instrument in &state.instruments {
            self.place(instrument.id.0).get_or_insert_default();
        }
    }

    /// Whether the instrument is known.
    pub(crate) fn knows(&self, instrument: u16) -> bool {
        self.images.get(usize::from(instrument)).is_some_and(Option::is_some)
    }

    /// A level changed.
    pub(crate) fn level(&mut self, seq: Seq, at: Nanos, instrument: u16, level: Level) {
        if seq <= self.since {
            return;
        }
        // Where nobody watches there is nothing to be told of the event when it is over.
        match self.images.get_mut(usize::from(instrument)) {
            Some(Some(image)) if !image.is_watched() => {
                image.begin(seq.0, at.0);
                image.set(&level);
            }
            _ => self.pending_of(seq, at, instrument).levels.push(level),
        }
    }

    /// Two orders traded.
    pub(crate) fn trade(&mut self, seq: Seq, at: Nanos, trade: Trade) {
        if seq <= self.since {
            return;
        }
        match self.images.get_mut(usize::from(trade.instrument.0)) {
            Some(Some(image)) if !image.is_watched() => {
                image.begin(seq.0, at.0);
                image.last_price = trade.price.0;
            }
            _ => self.pending_of(seq, at, trade.instrument.0).trades.push(trade),
        }
    }

    fn pending_of(&mut self, seq: Seq, at: Nanos, instrument: u16) -> &mut Pending {
        let known = self.pending[..self.touched].iter().position(|pending| pending.instrument == instrument);
        let index = known.unwrap_or_else(|| {
            if self.touched == self.pending.len() {
                self.pending.push(Pending::default());
            }
            self.touched += 1;
            self.touched - 1
        });
        let pending = &mut self.pending[index];
        (pending.instrument, pending.log_seq, pending.match_time) = (instrument, seq.0, at.0);
        pending
    }

    /// Somebody is to be told of the event when it is over.
    #[inline]
    pub(crate) fn has_news(&self) -> bool {
        self.touched > 0
    }

    /// The matching event is over: brings the images up to date and calls `tell` once for each class of each
    /// instrument it touched, with the bytes for that class. A book that nobody watches costs its levels only.
    pub(crate) fn finish(&mut self, mut tell: impl FnMut(u16, u16, &[u8])) {
        for index in 0..std::mem::take(&mut self.touched) {
            let mut event = std::mem::take(&mut self.pending[index]);
            let mut bytes = std::mem::take(&mut self.bytes);
            let instrument = event.instrument;
            let image = self.place(instrument).get_or_insert_default();
            image.apply(&event);
            if image.whole {
                bytes.clear();
                encode_event(image, instrument, &event, &event.levels, &mut bytes);
                tell(instrument, 0, &bytes);
            }
            let mut classes = std::mem::take(&mut image.classes);
            for (&depth, seen) in &mut classes {
                let top = image.top(depth);
                let changes = difference(seen, &top);
                bytes.clear();
                encode_event(image, instrument, &event, &changes, &mut bytes);
                *seen = top;
                if !bytes.is_empty() {
                    tell(instrument, depth, &bytes);
                }
            }
            image.classes = classes;
            event.levels.clear();
            event.trades.clear();
            self.pending[index] = event;
            self.bytes = bytes;
        }
    }

    /// The image for a new member of a class, or for one that fell behind.
    pub(crate) fn snapshot(
        &mut self,
        instrument: u16,
        depth: u16,
        request_id: u64,
        gap: bool,
        out: &mut Vec<u8>,
    ) {
        let Some(image) = self.image(instrument) else {
            return;
        };
        let levels = image.top(depth);
        match depth {
            0 => image.whole = true,
            depth => drop(image.classes.insert(depth, levels.clone())),
        }
        let parts = levels.len().div_ceil(LEVELS_PER_FRAME).max(1);
        for part in 0..parts {
            let from = part * LEVELS_PER_FRAME;
            let until = (from + LEVELS_PER_FRAME).min(levels.len());
            wire::BookSnapshot {
                request_id,
                channel_seq: image.channel_seq,
                log_seq: image.log_seq,
                match_time: image.match_time,
                last_price: image.last_price,
                instrument,
                flags: BookFlags::none()
                    .with(BookFlags::FIRST, part == 0)
                    .with(BookFlags::LAST, part + 1 == parts)
                    .with(BookFlags::END_OF_EVENT, part + 1 == parts)
                    .with(BookFlags::GAP, gap),
            }
            .encode(&levels[from..until], out);
        }
    }

    /// Nobody of that class is left.
    pub(crate) fn forget_class(&mut self, instrument: u16, depth: u16) {
        if let Some(image) = self.image(instrument) {
            match depth {
                0 => image.whole = false,
                depth => drop(image.classes.remove(&depth)),
            }
            if !image.is_watched() {
                image.bids.loosen();
                image.asks.loosen();
            }
        }
    }
}

impl Image {
    /// Somebody is to be told of each event.
    fn is_watched(&self) -> bool {
        self.whole || !self.classes.is_empty()
    }

    /// Something of this command is to be noted; each command that touches the book is one event.
    fn begin(&mut self, log_seq: u64, match_time: u64) {
        self.channel_seq += u64::from(self.log_seq != log_seq);
        (self.log_seq, self.match_time) = (log_seq, match_time);
    }

    fn set(&mut self, level: &Level) {
        let side = match level.side {
            wire::Side::Buy => &mut self.bids,
            wire::Side::Sell => &mut self.asks,
        };
        side.set(level.price, level.qty, level.orders);
    }

    fn apply(&mut self, event: &Pending) {
        self.begin(event.log_seq, event.match_time);
        if let Some(trade) = event.trades.last() {
            self.last_price = trade.price.0;
        }
        event.levels.iter().for_each(|level| self.set(level));
    }

    /// The best levels of both sides, bids first; all of them for depth zero.
    fn top(&mut self, depth: u16) -> Vec<Level> {
        let count = if depth == 0 { usize::MAX } else { usize::from(depth) };
        let level =
            |side| move |(&price, &(qty, orders)): (&u64, &(u64, u32))| Level { price, qty, orders, side };
        let bids = self.bids.sorted().iter().rev().take(count).map(level(wire::Side::Buy));
        bids.chain(self.asks.sorted().iter().take(count).map(level(wire::Side::Sell))).collect()
    }
}

/// What turns `old` into `new`: levels gone, then levels new or changed.
fn difference(old: &[Level], new: &[Level]) -> Vec<Level> {
    let key = |level: &Level| (level.side, level.price);
    let before: BTreeMap<_, _> = old.iter().map(|level| (key(level), level)).collect();
    let after: BTreeMap<_, _> = new.iter().map(|level| (key(level), level)).collect();
    let gone = old.iter().filter(|level| !after.contains_key(&key(level)));
    let changed = new.iter().filter(|level| before.get(&key(level)) != Some(level));
    gone.map(|level| Level { qty: 0, orders: 0, ..*level }).chain(changed.copied()).collect()
}

fn encode_event(image: &Image, instrument: u16, event: &Pending, changes: &[Level], out: &mut Vec<u8>) {
    let end = |last| BookFlags::none().with(BookFlags::END_OF_EVENT, last);
    let (channel_seq, log_seq, match_time) = (image.channel_seq, event.log_seq, event.match_time);
    for (index, trade) in event.trades.iter().enumerate() {
        wire::TradePrint {
            channel_seq,
            log_seq,
            match_time,
            trade_id: trade.trade.0,
            price: trade.price.0,
            qty: trade.qty.0,
            instrument,
            aggressor: crate::reports::side(trade.aggressor),
            flags: end(changes.is_empty() && index + 1 == event.trades.len()),
        }
        .encode(out);
    }
    let parts = changes.len().div_ceil(LEVELS_PER_FRAME);
    for (index, part) in changes.chunks(LEVELS_PER_FRAME).enumerate() {
        let flags = end(index + 1 == parts);
        wire::BookIncrement { channel_seq, log_seq, match_time, instrument, flags }.encode(part, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(side: wire::Side, price: u64, qty: u64) -> Level {
        Level { price, qty, orders: 1, side }
    }

    /// Applies what a subscriber hears to what it holds.
    fn hear(bytes: &[u8], held: &mut BTreeMap<(wire::Side, u64), u64>) -> bool {
        let (mut at, mut ended) = (0, false);
        while let Some((frame, length)) = wire::scan(&bytes[at..], wire::MAX_FRAME_LEN).unwrap() {
            at += length;
            let (flags, levels) = match wire::Message::decode(&frame).unwrap() {
                wire::Message::BookIncrement(m, levels) => (m.flags, levels.iter().collect()),
                wire::Message::TradePrint(m) => (m.flags, Vec::new()),
                wire::Message::BookSnapshot(m, levels) => {
                    if m.flags.has(BookFlags::FIRST) {
                        held.clear();
                    }
                    (m.flags, levels.iter().collect())
                }
                other => panic!("{other:?}"),
            };
            for level in levels {
                match level.qty {
                    0 => held.remove(&(level.side, level.price)),
                    qty => held.insert((level.side, level.price), qty),
                };
            }
            assert!(!ended, "nothing follows the end of an event");
            ended = flags.has(BookFlags::END_OF_EVENT);
        }
        ended
    }

    #[test]
    fn a_book_that_nobody_watched_is_numbered_and_whole_for_whoever_comes() {
        let book = |market: &mut Market| {
            let mut bytes = Vec::new();
            market.snapshot(3, 0, 1, false, &mut bytes);
            bytes
        };
        let (mut watched, mut alone) = (Market::default(), Market::default());
        for market in [&mut watched, &mut alone] {
            *market.place(3) = Some(Image::default());
        }
        book(&mut watched);
        for seq in 1..50 {
            for market in [&mut watched, &mut alone] {
                // Several changes of one command are one event.
                for price in [seq % 7, seq % 5] {
                    market.level(Seq(seq), Nanos(seq), 3, level(wire::Side::Buy, 1 + price, seq % 3));
                }
                market.finish(|_, _, _| {});
            }
        }
        assert_eq!(book(&mut alone), book(&mut watched));
    }

    #[test]
    fn every_depth_class_holds_exactly_its_levels_after_every_event() {
        for seed in 1..20_u64 {
            let mut state = seed;
            let mut draw = |below: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) % below
            };
            let mut market = Market::default();
            *market.place(3) = Some(Image::default());
            let mut held: BTreeMap<u16, BTreeMap<_, u64>> = BTreeMap::new();
            let mut truth: BTreeMap<(wire::Side, u64), u64> = BTreeMap::new();
            for depth in [0, 1, 2, 5] {
                let mut bytes = Vec::new();
                market.snapshot(3, depth, 1, false, &mut bytes);
                assert!(hear(&bytes, held.entry(depth).or_default()));
            }
            for seq in 1..400 {
                for _ in 0..=draw(4) {
                    let (side, price) = match draw(2) {
                        0 => (wire::Side::Buy, 1 + draw(20)),
                        _ => (wire::Side::Sell, 21 + draw(20)),
                    };
                    let qty = draw(3);
                    match qty {
                        0 => truth.remove(&(side, price)),
                        qty => truth.insert((side, price), qty),
                    };
                    market.level(Seq(seq), Nanos(seq), 3, level(side, price, qty));
                }
                market.finish(|instrument, depth, bytes| {
                    assert_eq!(instrument, 3);
                    assert!(
                        hear(bytes, held.get_mut(&depth).unwrap()),
                        "an event ends with its last message"
                    );
                });
                for (depth, held) in &held {
                    let count = if *depth == 0 { usize::MAX } else { usize::from(*depth) };
                    let of = |wanted| truth.iter().filter(move |((side, _), _)| *side == wanted);
                    let expected: BTreeMap<_, _> = of(wire::Side::Buy)
                        .rev()
                        .take(count)
                        .chain(of(wire::Side::Sell).take(count))
                        .map(|(key, qty)| (*key, *qty))
                        .collect();
                    assert_eq!(*held, expected, "seed {seed} seq {seq} depth {depth}");
                }
            }
        }
    }

    #[test]
    fn events_that_the_first_image_holds_already_change_nothing() {
        let mut market = Market { since: Seq(10), ..Market::default() };
        market.place(0).get_or_insert_default().whole = true;
        market.level(Seq(10), Nanos(1), 0, level(wire::Side::Buy, 5, 5));
        market.finish(|_, _, _| panic!("nothing to tell"));
        market.level(Seq(11), Nanos(1), 0, level(wire::Side::Buy, 5, 5));
        let mut told = 0;
        market.finish(|_, _, _| told += 1);
        assert_eq!(told, 1);
    }
}
