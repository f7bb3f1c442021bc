//! The store keeps what happened exactly once: over restarts, over repeats, and it refuses a gap.

use grid_engine::command::{Side, TimeInForce};
use grid_engine::event::{OrderClosed, OrderOpened, Subject, Trade};
use grid_engine::{AccountId, Event, InstrumentId, Nanos, OrderId, Price, Qty, Seq, TradeId, Usd};
use grid_history::{Applied, FillFilter, History, HistoryError, OrderFilter, Since, Slice, SliceFrom};

const MAKER: AccountId = AccountId(2);
const TAKER: AccountId = AccountId(3);
const FIRST: Slice = Slice { limit: 100, offset: 0, from: SliceFrom::Start, descending: false };

fn opened(order: u64, account: AccountId, side: Side, qty: u64) -> Event {
    let order = subject(order, account, side, (qty, 0));
    Event::OrderOpened(OrderOpened::untold(order, TimeInForce::Gtc))
}

fn subject(order: u64, account: AccountId, side: Side, (remaining, filled): (u64, u64)) -> Subject {
    let whose = (OrderId(order), account);
    Subject::new(whose, (InstrumentId(0), side), Price(81), Qty(remaining), Qty(filled))
}

/// A maker's ask at 1, a taker's bid at 2 that trades with it, an empty command at 3.
fn story() -> Vec<Applied> {
    let trade = Trade {
        trade: TradeId(1),
        instrument: InstrumentId(0),
        price: Price(81),
        qty: Qty(2),
        value: Usd(1_620_000_000),
        aggressor: Side::Buy,
        taker_order: OrderId(2),
        taker: TAKER,
        taker_fee: Usd(1),
        maker_order: OrderId(1),
        maker: MAKER,
        maker_fee: Usd(0),
    };
    let closed = Event::OrderClosed(OrderClosed::filled(subject(2, TAKER, Side::Buy, (0, 2))));
    let command = |seq: u64, events: Vec<Event>| Applied { seq: Seq(seq), at: Nanos(seq * 1_000), events };
    vec![
        command(1, vec![opened(1, MAKER, Side::Sell, 5)]),
        command(2, vec![opened(2, TAKER, Side::Buy, 2), Event::Traded(trade), closed]),
        command(3, Vec::new()),
    ]
}

async fn check(history: &History) {
    let orders = history
        .orders(MAKER, OrderFilter::default(), "submitted_at", FIRST)
        .await
        .expect("a read")
        .expect("a page");
    assert_eq!(orders.rows.len(), 1);
    let order = &orders.rows[0];
    assert_eq!((order.status, order.filled, order.value), ("partially_filled", Qty(2), Usd(1_620_000_000)));
    let order = history.order(TAKER, OrderId(2)).await.expect("a read").expect("the taker's");
    assert_eq!((order.status, order.fee, order.closed_at), ("filled", Usd(1), Some(Nanos(2_000))));
    for account in [MAKER, TAKER] {
        let fills = history
            .fills(account, FillFilter::default(), "at", FIRST)
            .await
            .expect("a read")
            .expect("a page");
        assert_eq!(fills.rows.len(), 1, "each side once");
    }
    assert_eq!(history.tape(InstrumentId(0), 10, None).await.expect("a read").len(), 1);
}

#[tokio::test]
async fn a_restart_goes_on_where_it_stood_and_skips_what_it_has() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("history.db");
    let (history, feed, writer) = History::open(&path).expect("a store");
    assert_eq!(feed.stored(), Seq(0));
    feed.push(story()[..2].to_vec()).expect("the writer lives");
    history.wait_for(Seq(2)).await.expect("stored");
    drop(feed);
    writer.join().expect("no error");
    drop(history);
    let (history, feed, writer) = History::open(&path).expect("the same store");
    assert_eq!((feed.stored(), history.applied()), (Seq(2), Seq(2)));
    feed.push(story()).expect("the writer lives");
    feed.push(story()).expect("the writer lives");
    drop(feed);
    writer.join().expect("no error");
    assert_eq!(history.applied(), Seq(3));
    check(&history).await;
    assert!(matches!(history.wait_for(Seq(4)).await, Err(HistoryError::Stopped)), "nothing more will come");
}

#[tokio::test]
async fn a_gap_is_refused_and_nothing_of_its_batch_is_stored() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("history.db");
    let (history, feed, writer) = History::open(&path).expect("a store");
    let mut commands = story();
    commands.remove(1);
    feed.push(commands).expect("the writer lives");
    drop(feed);
    assert!(matches!(writer.join(), Err(HistoryError::Gap { stored: 1, found: 3 })));
    assert_eq!(history.applied(), Seq(0));
    let (history, feed, _writer) = History::open(&path).expect("the same store");
    feed.push(story()).expect("the writer lives");
    history.wait_for(Seq(3)).await.expect("stored");
    check(&history).await;
}

#[tokio::test]
async fn a_store_of_another_version_is_built_anew() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("history.db");
    let (_, feed, writer) = History::open(&path).expect("a store");
    feed.push(story()).expect("the writer lives");
    drop(feed);
    writer.join().expect("no error");
    let connection = rusqlite::Connection::open(&path).expect("a database");
    connection.pragma_update(None, "user_version", 99).expect("written");
    drop(connection);
    let (history, feed, _writer) = History::open(&path).expect("a store");
    assert_eq!(feed.stored(), Seq(0), "it wants everything again");
    feed.push(story()).expect("the writer lives");
    history.wait_for(Seq(3)).await.expect("stored");
    check(&history).await;
}

#[tokio::test]
async fn a_day_s_window_and_a_candle_sum_the_tape_up() {
    let directory = tempfile::tempdir().expect("a directory");
    let (history, feed, writer) = History::open(&directory.path().join("history.db")).expect("a store");
    let minute = 60_000_000_000;
    let prices = [(0, 50), (minute - 1, 70), (minute, 40), (3 * minute, 60)];
    let mut commands = Vec::new();
    for (at, (moment, price)) in prices.into_iter().enumerate() {
        let Event::Traded(trade) = story()[1].events[1] else { panic!("the story has a trade") };
        let trade = Trade { trade: TradeId(at as u64 + 1), price: Price(price), ..trade };
        commands.push(Applied {
            seq: Seq(at as u64 + 1),
            at: Nanos(moment),
            events: vec![Event::Traded(trade)],
        });
    }
    feed.push(commands).expect("the writer lives");
    drop(feed);
    writer.join().expect("no error");
    let two_minutes = |at: Nanos, _| (Nanos(at.0 / 120_000_000_000 * 120_000_000_000), Nanos(0));
    let all = (Nanos(0), Nanos(i64::MAX as u64));
    let candles = history.candles(InstrumentId(0), all, two_minutes, 0, 10).await.expect("a read");
    let shape: Vec<[u64; 6]> = candles
        .iter()
        .map(|candle| {
            let window = candle.window;
            [window.open.0, window.high.0, window.low.0, window.close.0, window.volume.0, window.trades]
        })
        .collect();
    assert_eq!(shape, [[50, 70, 40, 40, 6, 3], [60, 60, 60, 60, 2, 1]]);
    let newest = history.candles(InstrumentId(0), all, two_minutes, 0, 1).await.expect("a read");
    assert_eq!(newest, candles[1..]);
    let window =
        history.window(InstrumentId(0), Nanos(minute + 5)).await.expect("a read").window().expect("trades");
    assert_eq!((window.open, window.close, window.trades), (Price(40), Price(60), 2));
    assert_eq!(history.window(InstrumentId(0), Nanos(4 * minute)).await.expect("a read"), Since::Nothing);
}

#[tokio::test]
async fn many_readers_and_the_writer_do_not_wait_for_each_other() {
    let directory = tempfile::tempdir().expect("a directory");
    let (history, feed, writer) = History::open(&directory.path().join("history.db")).expect("a store");
    let orders = 20_000;
    let pushing = std::thread::spawn(move || {
        for seq in 1..=orders {
            let events = vec![opened(seq, MAKER, Side::Sell, 1)];
            feed.push(vec![Applied { seq: Seq(seq), at: Nanos(seq), events }]).expect("the writer lives");
        }
    });
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let history = history.clone();
            tokio::spawn(async move {
                let mut seen = 0;
                while seen < orders {
                    seen = history.applied().0;
                    let newest = Slice { limit: 1, descending: true, ..FIRST };
                    let page = history.orders(MAKER, OrderFilter::default(), "submitted_at", newest).await;
                    let rows = page.expect("a read").expect("a page").rows;
                    assert!(rows.first().map_or(0, |row| row.id.0) >= seen, "what was announced can be read");
                }
            })
        })
        .collect();
    for reader in readers {
        reader.await.expect("no reader failed");
    }
    pushing.join().expect("the pusher is done");
    writer.join().expect("no error");
}
