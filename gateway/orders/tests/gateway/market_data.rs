//! The book as subscribers hear it.

use std::collections::BTreeMap;

use grid_engine::SessionId;
use grid_orders::{Config, Rate};
use grid_wire::{self as wire, BookFlags, Message, Side};

use crate::client::Client;
use crate::start;
use crate::venue::{Venue, key};

#[derive(Default)]
pub(crate) struct Image {
    pub(crate) levels: BTreeMap<(Side, u64), (u64, u32)>,
    pub(crate) channel_seq: u64,
    pub(crate) gaps: u32,
    pub(crate) trades: Vec<u64>,
}

impl Image {
    pub(crate) fn hear(&mut self, message: &Message<'_>) {
        match message {
            Message::BookSnapshot(m, levels) => {
                if m.flags.has(BookFlags::FIRST) {
                    self.levels.clear();
                    self.gaps += u32::from(m.flags.has(BookFlags::GAP));
                }
                self.channel_seq = m.channel_seq;
                self.apply(levels.iter());
            }
            Message::BookIncrement(m, levels) => {
                assert!(
                    m.channel_seq == self.channel_seq || m.channel_seq == self.channel_seq + 1,
                    "no event missing"
                );
                self.channel_seq = m.channel_seq;
                self.apply(levels.iter());
            }
            Message::TradePrint(m) => {
                self.channel_seq = m.channel_seq;
                self.trades.push(m.trade_id);
            }
            _ => {}
        }
    }

    pub(crate) fn apply(&mut self, levels: impl Iterator<Item = wire::Level>) {
        for level in levels {
            match level.qty {
                0 => self.levels.remove(&(level.side, level.price)),
                qty => self.levels.insert((level.side, level.price), (qty, level.orders)),
            };
        }
    }
}

pub(crate) fn truth(venue: &Venue) -> BTreeMap<(Side, u64), (u64, u32)> {
    let engine = venue.engine.read().unwrap();
    let book = engine.state().book(grid_engine::InstrumentId(0)).unwrap();
    let side = |engine_side, side| {
        book.levels(engine_side).map(move |level| ((side, level.price.0), (level.qty.0, level.orders)))
    };
    side(grid_engine::command::Side::Buy, Side::Buy)
        .chain(side(grid_engine::command::Side::Sell, Side::Sell))
        .collect()
}

pub(crate) fn trade_randomly(client: &mut Client, seed: u64, count: u64) {
    let mut state = seed;
    let mut draw = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for _ in 0..count {
        let side = if draw(2) == 0 { Side::Buy } else { Side::Sell };
        client.order(side, 90 + draw(20), 1 + draw(3));
    }
}

#[test]
fn snapshot_and_increments_keep_the_exact_book_for_early_and_late_subscribers() {
    let (venue, gateway) = start(Config::default());
    let mut trader = Client::login(gateway.address(), &key(2), 20);
    let mut early = Client::login(gateway.address(), &key(3), 30);
    early.send(|out| wire::MarketDataSubscribe { request_id: 5, instrument: 0, depth: 0 }.encode(out));
    let mut image = Image::default();
    let first = early.next();
    assert!(matches!(first, Message::BookSnapshot(m, levels) if m.request_id == 5 && levels.is_empty()));
    image.hear(&first);
    trade_randomly(&mut trader, 1, 500);
    let mut late = Client::login(gateway.address(), &key(4), 40);
    late.send(|out| wire::MarketDataSubscribe { request_id: 6, instrument: 0, depth: 0 }.encode(out));
    trade_randomly(&mut trader, 2, 500);
    venue.until(|state| state.sessions[&SessionId(20)].last_client_seq == 1_000);
    let truth = truth(&venue);
    assert!(!truth.is_empty());
    let mut late_image = Image::default();
    for (client, image) in [(&mut early, &mut image), (&mut late, &mut late_image)] {
        // A last order on its own level marks the end.
        while image.levels != truth {
            image.hear(&client.next());
        }
    }
    let trades = venue.engine.read().unwrap().state().counters.trade;
    assert!(
        trades > 0 && image.trades.len() as u64 == trades,
        "every trade once: {} of {trades}",
        image.trades.len()
    );
    for (instrument, depth, code) in
        [(999, 0, wire::MarketDataCode::UnknownInstrument), (1, 60_000, wire::MarketDataCode::Depth)]
    {
        early.send(|out| wire::MarketDataSubscribe { request_id: 7, instrument, depth }.encode(out));
        assert!(matches!(early.next(), Message::MarketDataReject(m) if m.code == code));
    }
    early.send(|out| wire::MarketDataUnsubscribe { request_id: 8, instrument: 0 }.encode(out));
    assert!(matches!(early.next(), Message::MarketDataUnsubscribed(m) if m.request_id == 8));
    early.send(|out| wire::MarketDataUnsubscribe { request_id: 9, instrument: 0 }.encode(out));
    assert!(
        matches!(early.next(), Message::MarketDataReject(m) if m.code == wire::MarketDataCode::NotSubscribed)
    );
}

#[test]
fn a_reader_who_does_not_read_is_conflated_and_slows_nobody() {
    let requests = Rate { per_second: 1_000_000, burst: 1_000_000 };
    let (venue, gateway) = start(Config { conflate_above: 16 * 1024, requests, ..Config::default() });
    let mut sleeper = Client::login(gateway.address(), &key(3), 30);
    sleeper.send(|out| wire::MarketDataSubscribe { request_id: 1, instrument: 0, depth: 0 }.encode(out));
    let mut image = Image::default();
    image.hear(&sleeper.next());
    let mut trader = Client::login(gateway.address(), &key(2), 20);
    let mut rounds = 0;
    // Enough to fill the kernel's buffers and then the gateway's own.
    for _ in 0..60 {
        trade_randomly(&mut trader, 7 + rounds, 2_000);
        rounds += 1;
        let wanted = rounds * 2_000;
        while answered(&mut trader) < wanted {}
    }
    let truth = truth(&venue);
    while image.levels != truth || image.gaps == 0 {
        image.hear(&sleeper.next());
    }
    assert!(image.gaps >= 1);
}

/// The client sequence of the next answer, fills passed over.
fn answered(client: &mut Client) -> u64 {
    loop {
        match client.next() {
            Message::ExecutionReport(report) if report.client_seq > 0 => return report.client_seq,
            Message::CommandReject(reject) => return reject.client_seq,
            _ => {}
        }
    }
}
