//! The maker at the real door of the real engine: what stands while it is at work, and what becomes of it when it is filled too
//! much, loses its connection, or stops.

#[path = "../../../gateway/orders/tests/gateway/venue.rs"]
#[allow(dead_code, reason = "each test crate uses its own part")]
mod venue;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use grid_client::{Client, Report};
use grid_engine::{AccountId, InstrumentId, OrderId, State};
use grid_maker::{Maker, MakerConfig, MakerStats, Quote};
use grid_orders::Gateway;
use grid_wire::{NewOrder, OrderType, QuoteProtection, Side, TimeInForce};

use venue::{Queue, Venue, key};

const MAKER: AccountId = AccountId(2);

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn open(venue: &Arc<Venue>, listener: TcpListener) -> Gateway {
    Gateway::start(listener, grid_orders::Config::default(), Queue(Arc::clone(venue)), Arc::clone(venue))
        .unwrap()
}

fn start(venue: &Arc<Venue>) -> Gateway {
    open(venue, listener())
}

fn connect(gateway: &Gateway, account: u8) -> Client {
    let config = grid_client::Config::new(vec![gateway.address()], key(account).to_bytes());
    Client::connect(config).expect("a session")
}

/// Two instruments, three levels each, in quick steps.
fn config(protection: QuoteProtection) -> MakerConfig {
    let quotes = (0..2).map(|instrument| Quote::around(instrument, 1_000, 500_000)).collect();
    MakerConfig { quotes, interval: Duration::from_millis(2), protection, ..MakerConfig::default() }
}

fn fills(fills: u32) -> QuoteProtection {
    QuoteProtection { window_us: 1_000_000, fills, ..QuoteProtection::default() }
}

/// The maker's orders of an instrument: side, price, open Units, the quote's number.
fn standing(state: &State, instrument: u16) -> Vec<(OrderId, Side, u64, u64, u8)> {
    let book = state.book(InstrumentId(instrument)).expect("an instrument");
    [(grid_engine::command::Side::Buy, Side::Buy), (grid_engine::command::Side::Sell, Side::Sell)]
        .into_iter()
        .flat_map(|(side, told)| book.queue(side).map(move |order| (order, told)))
        .filter(|(order, _)| order.account == MAKER)
        .map(|(order, side)| (order.id, side, order.price.0, order.remaining.0, order.quote))
        .collect()
}

/// Three levels on both sides of both instruments.
fn quoted(state: &State) -> bool {
    (0..2).all(|instrument| standing(state, instrument).len() == 6)
}

/// Waits until the maker says so.
fn until(maker: &Maker, wanted: impl Fn(&MakerStats) -> bool) -> MakerStats {
    let begun = std::time::Instant::now();
    loop {
        let stats = maker.stats();
        if wanted(&stats) {
            return stats;
        }
        assert!(begun.elapsed().as_secs() < 60 && stats.stopped.is_none(), "never came to be: {stats:?}");
        std::thread::yield_now();
    }
}

fn buy(client: &Client, instrument: u16, qty: u64) {
    let order = NewOrder {
        instrument,
        side: Side::Buy,
        order_type: OrderType::Market,
        time_in_force: TimeInForce::Ioc,
        qty,
        ..NewOrder::default()
    };
    assert!(matches!(client.call_blocking(order), Ok(Report::Execution(_))));
}

#[test]
fn it_moves_its_quotes_puts_back_what_was_filled_and_leaves_nothing_behind() {
    let venue = Venue::new();
    let gateway = start(&venue);
    let earlier = connect(&gateway, 2);
    earlier.call_blocking(NewOrder { price: 1, qty: 1, ..NewOrder::default() }).unwrap();
    let maker = Maker::start(connect(&gateway, 2), config(QuoteProtection::default())).unwrap();
    venue.until(quoted);
    let first = standing(venue.engine.read().unwrap().state(), 0);
    assert!(first.iter().all(|(_, _, _, qty, quote)| *qty == 5 && (1..=3).contains(quote)), "{first:?}");
    let buyer = connect(&gateway, 3);
    buy(&buyer, 0, 7);
    until(&maker, |stats| stats.instruments[0].sold == 7);
    venue.until(|state| quoted(state) && standing(state, 0).iter().all(|order| order.3 == 5));
    // The reference wanders, and what was not filled moves along as the same orders.
    let bids = |state: &State| -> Vec<_> {
        standing(state, 0).into_iter().filter(|order| order.1 == Side::Buy).collect()
    };
    let before = bids(venue.engine.read().unwrap().state());
    venue.until(|state| {
        let now = bids(state);
        now.len() == 3 && (before.iter().zip(&now)).all(|(old, new)| old.0 == new.0 && old.2 != new.2)
    });
    let stats = until(&maker, |stats| stats.instruments.iter().all(|fills| fills.resting == 6));
    assert_eq!((stats.pulled, stats.refused), (0, 0));
    assert_eq!(stats.instruments[0].units, 500_000 - 7);
    let stopped = maker.stop();
    assert_eq!(stopped.stopped, None);
    assert!(stopped.requests <= stopped.steps, "one message a step at most");
    let engine = venue.engine.read().unwrap();
    assert!(engine.state().account(MAKER).unwrap().orders.is_empty(), "what an earlier life left too");
    engine.check_invariants().unwrap();
}

#[test]
fn quotes_that_are_filled_too_much_are_pulled_and_come_back_after_a_rest() {
    let venue = Venue::new();
    let gateway = start(&venue);
    // Log time stands still in this venue: all fills are of one window.
    let maker = Maker::start(connect(&gateway, 2), config(fills(3))).unwrap();
    venue.until(quoted);
    let buyer = connect(&gateway, 3);
    for round in 1..=3 {
        // One order through all three levels.
        buy(&buyer, 1, 15);
        let stats = until(&maker, |stats| stats.pulled == round);
        assert_eq!(stats.stopped, None);
        venue.until(quoted);
    }
    let stats = until(&maker, |stats| stats.instruments[1].sold == 45);
    assert_eq!((stats.instruments[1].count, stats.instruments[0].count), (9, 0));
    let stopped = maker.stop();
    assert_eq!(stopped.stopped, None);
    assert!(venue.engine.read().unwrap().state().account(MAKER).unwrap().orders.is_empty());
}

#[test]
fn a_maker_that_loses_its_connection_finds_its_quotes_where_it_left_them() {
    let venue = Venue::new();
    let (gateway, next) = (start(&venue), listener());
    let addresses = vec![gateway.address(), next.local_addr().unwrap()];
    let client = Client::connect(grid_client::Config::new(addresses, key(2).to_bytes())).unwrap();
    let maker = Maker::start(client, config(fills(1_000))).unwrap();
    venue.until(quoted);
    gateway.stop();
    assert!(quoted(venue.engine.read().unwrap().state()), "it asked for no cancel-on-disconnect");
    let steps = maker.stats().steps;
    let gateway = open(&venue, next);
    until(&maker, |stats| stats.steps > steps + 20);
    venue.until(quoted);
    buy(&connect(&gateway, 3), 0, 2);
    let stats = until(&maker, |stats| stats.instruments[0].sold == 2);
    assert_eq!((stats.pulled, stats.stopped), (0, None));
    drop(maker);
    venue.until(|state| state.account(MAKER).is_some_and(|account| account.orders.is_empty()));
}
