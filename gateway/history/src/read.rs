//! Questions to the store.

use std::path::Path;

use grid_engine::command::{Side, TimeInForce};
use grid_engine::{AccountId, InstrumentId, LotId, Nanos, OrderId, Price, Qty, Seq, Tokens, TradeId, Usd};
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params, params_from_iter};

use super::write::{recorded, side_number, status};
use super::{History, HistoryError, MINUTE};

pub(super) fn open(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// An order over its whole life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderRow {
    /// Its id.
    pub id: OrderId,
    /// Whose.
    pub account: AccountId,
    /// Where.
    pub instrument: InstrumentId,
    /// Buy or sell.
    pub side: Side,
    /// Limit now; `None` for a market order.
    pub price: Option<Price>,
    /// How long it lives.
    pub tif: TimeInForce,
    /// The client's order id, or empty.
    pub tag: String,
    /// Quantity when it was placed.
    pub asked_qty: Qty,
    /// Limit when it was placed.
    pub asked_price: Option<Price>,
    /// Quantity now, filled part included.
    pub qty: Qty,
    /// Filled so far.
    pub filled: Qty,
    /// What the filled part traded for.
    pub value: Usd,
    /// Fees so far.
    pub fee: Usd,
    /// `active`, `partially_filled`, `filled`, `cancelled`, `closed` or `expired`.
    pub status: &'static str,
    /// Why it ended, in the contract's words, where the status alone doesn't say.
    pub closure: Option<&'static str>,
    /// When it was accepted.
    pub submitted_at: Nanos,
    /// When it last changed.
    pub updated_at: Nanos,
    /// When it ended.
    pub closed_at: Option<Nanos>,
    /// Some of its fills may not be recorded: what is filled is right, `value` and `fee` are not all of it, and what was
    /// asked for at first may not be known.
    pub partly: bool,
    /// Its end is not recorded: it is no longer open, and the rest is not known.
    pub end_missing: bool,
}

impl OrderRow {
    /// True while it can still trade.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.closed_at.is_none()
    }
}

/// One party's side of a trade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// 2 × trade, plus 1 for the maker.
    pub id: u64,
    /// The trade.
    pub trade: TradeId,
    /// Whose.
    pub account: AccountId,
    /// By which order.
    pub order: OrderId,
    /// Where.
    pub instrument: InstrumentId,
    /// This party's side.
    pub side: Side,
    /// At which price.
    pub price: Price,
    /// How many Units.
    pub qty: Qty,
    /// For how much.
    pub value: Usd,
    /// What this party paid the venue.
    pub fee: Usd,
    /// When.
    pub at: Nanos,
}

/// A public trade: no account and no order in it (contract §3.22).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tape {
    /// The trade.
    pub trade: TradeId,
    /// Where.
    pub instrument: InstrumentId,
    /// The incoming side.
    pub aggressor: Side,
    /// At which price.
    pub price: Price,
    /// How many Units.
    pub qty: Qty,
    /// For how much.
    pub value: Usd,
    /// When.
    pub at: Nanos,
}

/// A movement of Units between balances of one account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferRow {
    /// Its number.
    pub id: u64,
    /// Whose.
    pub account: AccountId,
    /// Of which instrument.
    pub instrument: InstrumentId,
    /// How many.
    pub qty: Qty,
    /// `to_consumption`, `to_trading`, `at_fill`, `swept` or `issuance`.
    pub movement: &'static str,
    /// When.
    pub at: Nanos,
}

/// One side of what a supplier had to pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChargeRow {
    /// Its number.
    pub id: u64,
    /// Of which instrument, where it was for one.
    pub instrument: Option<InstrumentId>,
    /// `breach`, `cover`, `cover_penalty` or `debt`.
    pub reason: &'static str,
    /// What the account got; negative where it paid.
    pub amount: Usd,
    /// What could not be paid, and is owed.
    pub owed: Usd,
    /// When.
    pub at: Nanos,
}

/// One issuance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IssuanceRow {
    /// Its number.
    pub id: u64,
    /// By whom.
    pub account: AccountId,
    /// Of which instrument.
    pub instrument: InstrumentId,
    /// How many.
    pub qty: Qty,
    /// When.
    pub at: Nanos,
}

/// Dollars that came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FundingRow {
    /// Whose.
    pub account: AccountId,
    /// How much; negative for a withdrawal, nothing for a reload that failed.
    pub amount: Usd,
    /// When.
    pub at: Nanos,
    /// `deposit`, `withdrawal`, `credit`, `reload`, `reload_declined` or `reload_unresolved`.
    pub kind: &'static str,
    /// The number of the reload, where it is one.
    pub reload: Option<u64>,
    /// The command that did it.
    pub seq: Seq,
}

/// By the store's numbers.
const FUNDING_KINDS: [&str; 6] =
    ["deposit", "withdrawal", "credit", "reload", "reload_declined", "reload_unresolved"];
/// Most rows of an account's dollars that are read at once.
const FUNDING_ROWS: i64 = 10_000;

/// A lot that reached its deadline with tokens left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LotExpiry {
    /// Which.
    pub lot: LotId,
    /// Of which instrument.
    pub instrument: InstrumentId,
    /// What was left.
    pub tokens: Tokens,
    /// When.
    pub at: Nanos,
}

/// Prices and volume of a window of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// First price.
    pub open: Price,
    /// Highest price.
    pub high: Price,
    /// Lowest price.
    pub low: Price,
    /// Last price.
    pub close: Price,
    /// Units traded.
    pub volume: Qty,
    /// Dollars traded.
    pub value: Usd,
    /// Trades.
    pub trades: u64,
}

impl Window {
    /// This window and a later one as one.
    const fn then(self, later: Self) -> Self {
        Self {
            open: self.open,
            high: if self.high.0 > later.high.0 { self.high } else { later.high },
            low: if self.low.0 < later.low.0 { self.low } else { later.low },
            close: later.close,
            volume: Qty(self.volume.0.saturating_add(later.volume.0)),
            value: Usd(self.value.0.saturating_add(later.value.0)),
            trades: self.trades + later.trades,
        }
    }
}

/// A window with its place in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candle {
    /// From, inclusive.
    pub start: Nanos,
    /// To, exclusive.
    pub end: Nanos,
    /// What traded in it.
    pub window: Window,
}

/// Where a page of rows lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// At most this many rows.
    pub limit: usize,
    /// Rows to pass over at the start.
    pub offset: usize,
    /// After the row with this number, or before it, or from the start.
    pub from: SliceFrom,
    /// Largest first.
    pub descending: bool,
}

/// Where a page starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SliceFrom {
    /// At the list's start.
    Start,
    /// After this row.
    After(u64),
    /// Before this row.
    Before(u64),
}

/// What is known of a market since some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// Nothing traded.
    Nothing,
    /// This traded.
    Traded(Window),
    /// Some of it is not recorded.
    Unknown,
}

impl Since {
    /// The window, where something traded and all of it is known.
    #[must_use]
    pub const fn window(self) -> Option<Window> {
        match self {
            Self::Traded(window) => Some(window),
            Self::Nothing | Self::Unknown => None,
        }
    }
}

/// Commands that the store could not hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last command before it.
    pub after: Seq,
    /// The last command in it.
    pub until: Seq,
    /// Not before this moment.
    pub after_at: Nanos,
    /// Not after this moment.
    pub until_at: Nanos,
}

/// A page of rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows<T> {
    /// In the order asked for.
    pub rows: Vec<T>,
    /// There are rows before the first.
    pub more_before: bool,
    /// There are rows after the last.
    pub more_after: bool,
}

/// Which orders.
#[derive(Clone, Debug, Default)]
pub struct OrderFilter {
    /// In this market.
    pub instrument: Option<InstrumentId>,
    /// On this side.
    pub side: Option<Side>,
    /// With one of these statuses; empty is no restriction.
    pub statuses: Vec<&'static str>,
    /// Submitted at or after.
    pub from: Option<Nanos>,
    /// Submitted at or before.
    pub to: Option<Nanos>,
}

/// Which fills.
#[derive(Clone, Debug, Default)]
pub struct FillFilter {
    /// In this market.
    pub instrument: Option<InstrumentId>,
    /// Of this trade.
    pub trade: Option<TradeId>,
    /// By this own order.
    pub order: Option<OrderId>,
    /// This own side.
    pub side: Option<Side>,
    /// Only the incoming (`true`) or resting side.
    pub taker: Option<bool>,
    /// At or after.
    pub from: Option<Nanos>,
    /// At or before.
    pub to: Option<Nanos>,
}

/// Which transfers.
#[derive(Clone, Debug, Default)]
pub struct TransferFilter {
    /// Of this instrument.
    pub instrument: Option<InstrumentId>,
}

/// Order statuses as the contract names them, in the store's numbering.
const STATUSES: [&str; 6] = ["active", "partially_filled", "filled", "cancelled", "closed", "expired"];
const MOVEMENTS: [&str; 5] = ["to_consumption", "to_trading", "at_fill", "swept", "issuance"];
const _: () = assert!(status::EXPIRED as usize == STATUSES.len() - 1, "a name per status");

/// Why a supplier had to pay, in the store's numbering.
const REASONS: [&str; 4] = ["breach", "cover", "cover_penalty", "debt"];

/// A closure as the contract's closure reason; a filled order has none.
const CLOSURES: [Option<&str>; 9] = [
    None,
    Some("cancelled"),
    Some("self_trade_prevention"),
    Some("partially_filled_no_liquidity"),
    Some("partially_filled_max_slippage"),
    Some("no_fill_no_liquidity"),
    Some("no_fill_max_slippage"),
    Some("expired"),
    Some("suspended"),
];

/// A growing WHERE clause with its values.
pub(crate) struct Where {
    pub(crate) sql: String,
    pub(crate) values: Vec<Value>,
}

impl Where {
    pub(crate) fn account(account: AccountId) -> Self {
        Self { sql: "account = ?1".into(), values: vec![i64::from(account.0).into()] }
    }

    pub(crate) fn and(&mut self, condition: &str, value: impl Into<Value>) {
        self.values.push(value.into());
        self.sql.push_str(" AND ");
        self.sql.push_str(&condition.replace('?', &format!("?{}", self.values.len())));
    }

    pub(crate) fn and_some(&mut self, condition: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.and(condition, value);
        }
    }
}

pub(crate) const fn int(value: u64) -> i64 {
    value as i64
}

/// A page of a table: rows matching `filter`, sorted by `(sort, id)`. `Ok(None)` where the cursor's row is not there.
fn page<T>(
    connection: &Connection,
    (table, columns): (&str, &str),
    mut filter: Where,
    sort: &str,
    slice: Slice,
    map: impl FnMut(&Row<'_>) -> Result<T, rusqlite::Error>,
) -> Result<Option<Rows<T>>, rusqlite::Error> {
    let backwards = matches!(slice.from, SliceFrom::Before(_));
    let downwards = slice.descending != backwards;
    if let SliceFrom::After(id) | SliceFrom::Before(id) = slice.from {
        let mut find = connection
            .prepare_cached(&format!("SELECT {sort} FROM {table} WHERE id = ?1 AND account = ?2"))?;
        let account = filter.values[0].clone();
        let key: Option<Value> = find.query_row(params![int(id), account], |row| row.get(0)).optional()?;
        let Some(key) = key else { return Ok(None) };
        filter.values.extend([key, int(id).into()]);
        let n = filter.values.len();
        let sign = if downwards { '<' } else { '>' };
        filter.sql.push_str(&format!(" AND ({sort}, id) {sign} (?{}, ?{n})", n - 1));
    }
    let direction = if downwards { "DESC" } else { "ASC" };
    let sql = format!(
        "SELECT {columns} FROM {table} WHERE {} ORDER BY {sort} {direction}, id {direction} LIMIT {} OFFSET {}",
        filter.sql,
        slice.limit + 1,
        if matches!(slice.from, SliceFrom::Start) { slice.offset } else { 0 },
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows =
        statement.query_map(params_from_iter(filter.values), map)?.collect::<Result<Vec<T>, _>>()?;
    let more = rows.len() > slice.limit;
    rows.truncate(slice.limit);
    if backwards {
        rows.reverse();
    }
    let (more_before, more_after) = match slice.from {
        SliceFrom::Start => (slice.offset > 0, more),
        SliceFrom::After(_) => (true, more),
        SliceFrom::Before(_) => (more, true),
    };
    Ok(Some(Rows { rows, more_before, more_after }))
}

pub(crate) fn unsigned(row: &Row<'_>, at: usize) -> Result<u64, rusqlite::Error> {
    row.get::<_, i64>(at).map(|value| value as u64)
}

fn side(number: i64) -> Side {
    if number == side_number(Side::Buy) { Side::Buy } else { Side::Sell }
}

const ORDER_COLUMNS: &str = "id, account, instrument, side, price, tif, tag, asked_qty, asked_price, qty, filled, value, fee, \
                             status, closure, submitted_at, updated_at, closed_at, recorded";

fn order_row(row: &Row<'_>) -> Result<OrderRow, rusqlite::Error> {
    let price = |at: usize| row.get::<_, Option<i64>>(at).map(|price| price.map(|ticks| Price(ticks as u64)));
    let tif = match row.get::<_, i64>(5)? {
        0 => TimeInForce::Gtc,
        1 => TimeInForce::Ioc,
        2 => TimeInForce::Fok,
        3 => TimeInForce::Day,
        _ => TimeInForce::PostOnly,
    };
    Ok(OrderRow {
        id: OrderId(unsigned(row, 0)?),
        account: AccountId(row.get(1)?),
        instrument: InstrumentId(row.get(2)?),
        side: side(row.get(3)?),
        price: price(4)?,
        tif,
        tag: row.get(6)?,
        asked_qty: Qty(unsigned(row, 7)?),
        asked_price: price(8)?,
        qty: Qty(unsigned(row, 9)?),
        filled: Qty(unsigned(row, 10)?),
        value: Usd(row.get(11)?),
        fee: Usd(row.get(12)?),
        status: STATUSES.get(row.get::<_, i64>(13)? as usize).copied().unwrap_or("closed"),
        closure: row.get::<_, Option<i64>>(14)?.and_then(|at| CLOSURES.get(at as usize).copied().flatten()),
        submitted_at: Nanos(unsigned(row, 15)?),
        updated_at: Nanos(unsigned(row, 16)?),
        closed_at: row.get::<_, Option<i64>>(17)?.map(|at| Nanos(at as u64)),
        partly: row.get::<_, i64>(18)? != recorded::WHOLE,
        end_missing: row.get::<_, i64>(18)? == recorded::END_MISSING,
    })
}

const FILL_COLUMNS: &str = "id, trade, account, order_id, instrument, side, price, qty, value, fee, at";

fn fill_row(row: &Row<'_>) -> Result<Fill, rusqlite::Error> {
    Ok(Fill {
        id: unsigned(row, 0)?,
        trade: TradeId(unsigned(row, 1)?),
        account: AccountId(row.get(2)?),
        order: OrderId(unsigned(row, 3)?),
        instrument: InstrumentId(row.get(4)?),
        side: side(row.get(5)?),
        price: Price(unsigned(row, 6)?),
        qty: Qty(unsigned(row, 7)?),
        value: Usd(row.get(8)?),
        fee: Usd(row.get(9)?),
        at: Nanos(unsigned(row, 10)?),
    })
}

impl History {
    /// One order of an account.
    pub async fn order(&self, account: AccountId, id: OrderId) -> Result<Option<OrderRow>, HistoryError> {
        self.query(move |connection| {
            connection
                .prepare_cached(&format!(
                    "SELECT {ORDER_COLUMNS} FROM orders WHERE id = ?1 AND account = ?2"
                ))?
                .query_row(params![int(id.0), account.0], order_row)
                .optional()
        })
        .await
    }

    /// Orders of an account. `sort` is one of the API's member names; `None` where the cursor's order isn't there.
    pub async fn orders(
        &self,
        account: AccountId,
        filter: OrderFilter,
        sort: &'static str,
        slice: Slice,
    ) -> Result<Option<Rows<OrderRow>>, HistoryError> {
        let sort = match sort {
            "updated_at" => "updated_at",
            "closed_at" => "COALESCE(closed_at, 0)",
            "price" => "COALESCE(price, 0)",
            "quantity" => "qty",
            "filled_quantity" => "filled",
            "status" => "status",
            "side" => "side",
            _ => "submitted_at",
        };
        let mut matching = Where::account(account);
        matching.and_some("instrument = ?", filter.instrument.map(|id| i64::from(id.0)));
        matching.and_some("side = ?", filter.side.map(side_number));
        matching.and_some("submitted_at >= ?", filter.from.map(|at| int(at.0)));
        matching.and_some("submitted_at <= ?", filter.to.map(|at| int(at.0)));
        if !filter.statuses.is_empty() {
            let numbers: Vec<String> = filter
                .statuses
                .iter()
                .filter_map(|name| STATUSES.iter().position(|status| status == name))
                .map(|number| number.to_string())
                .collect();
            matching.sql.push_str(&format!(" AND status IN ({})", numbers.join(",")));
        }
        self.query(move |connection| {
            page(connection, ("orders", ORDER_COLUMNS), matching, sort, slice, order_row)
        })
        .await
    }

    /// An account's own side of its trades.
    pub async fn fills(
        &self,
        account: AccountId,
        filter: FillFilter,
        sort: &'static str,
        slice: Slice,
    ) -> Result<Option<Rows<Fill>>, HistoryError> {
        let sort = match sort {
            "price" => "price",
            "quantity" => "qty",
            "total_value" => "value",
            _ => "at",
        };
        let mut matching = Where::account(account);
        matching.and_some("instrument = ?", filter.instrument.map(|id| i64::from(id.0)));
        matching.and_some("id IN (2 * ?, 2 * ? + 1)", filter.trade.map(|id| int(id.0)));
        matching.and_some("order_id = ?", filter.order.map(|id| int(id.0)));
        matching.and_some("side = ?", filter.side.map(side_number));
        matching.and_some("id % 2 = ?", filter.taker.map(|taker| i64::from(!taker)));
        matching.and_some("at >= ?", filter.from.map(|at| int(at.0)));
        matching.and_some("at <= ?", filter.to.map(|at| int(at.0)));
        self.query(move |connection| {
            page(connection, ("fills", FILL_COLUMNS), matching, sort, slice, fill_row)
        })
        .await
    }

    /// The last public trades of a market, newest first, with the next ones before `before`.
    pub async fn tape(
        &self,
        instrument: InstrumentId,
        limit: usize,
        before: Option<TradeId>,
    ) -> Result<Vec<Tape>, HistoryError> {
        self.query(move |connection| {
            connection
                .prepare_cached(
                    "SELECT trade, instrument, side, price, qty, value, at FROM fills
                     WHERE instrument = ?1 AND id % 2 = 0 AND id < ?2 ORDER BY at DESC, id DESC LIMIT ?3",
                )?
                .query_map(
                    params![instrument.0, before.map_or(i64::MAX, |trade| int(trade.0) * 2), limit as i64],
                    |row| {
                        Ok(Tape {
                            trade: TradeId(unsigned(row, 0)?),
                            instrument: InstrumentId(row.get(1)?),
                            aggressor: side(row.get(2)?),
                            price: Price(unsigned(row, 3)?),
                            qty: Qty(unsigned(row, 4)?),
                            value: Usd(row.get(5)?),
                            at: Nanos(unsigned(row, 6)?),
                        })
                    },
                )?
                .collect()
        })
        .await
    }

    /// The gaps, oldest first.
    pub async fn gaps(&self) -> Result<Vec<Gap>, HistoryError> {
        self.query(move |connection| {
            connection
                .prepare_cached(
                    "SELECT after_seq, until_seq, after_at, until_at FROM gaps ORDER BY after_seq",
                )?
                .query_map([], |row| {
                    Ok(Gap {
                        after: Seq(unsigned(row, 0)?),
                        until: Seq(unsigned(row, 1)?),
                        after_at: Nanos(unsigned(row, 2)?),
                        until_at: Nanos(unsigned(row, 3)?),
                    })
                })?
                .collect()
        })
        .await
    }

    /// Prices and volume of a market since the minute that holds a moment.
    pub async fn window(&self, instrument: InstrumentId, since: Nanos) -> Result<Since, HistoryError> {
        let everything = |_, _| (Nanos(0), Nanos(u64::MAX));
        let range = (Nanos(since.0 / MINUTE.0 * MINUTE.0), Nanos(i64::MAX as u64));
        let gaps = self.gaps().await?;
        if gaps.iter().any(|gap| gap.until_at >= range.0) {
            return Ok(Since::Unknown);
        }
        let candles = self.summed(instrument, range, everything, 0, 1).await?;
        Ok(candles.first().map_or(Since::Nothing, |candle| Since::Traded(candle.window)))
    }

    /// Candles of a market over `[from, to)` of whole minutes, oldest first, at most `limit` of them, newest kept.
    /// `bounds` says in which window of whole minutes a moment lies. Windows in which nothing traded have no candle, nor have
    /// those of which not everything is recorded.
    pub async fn candles(
        &self,
        instrument: InstrumentId,
        range: (Nanos, Nanos),
        bounds: fn(Nanos, u64) -> (Nanos, Nanos),
        step: u64,
        limit: usize,
    ) -> Result<Vec<Candle>, HistoryError> {
        let gaps = self.gaps().await?;
        let mut candles = self.summed(instrument, range, bounds, step, limit).await?;
        let torn = |candle: &Candle| {
            gaps.iter().any(|gap| gap.after_at < candle.end && candle.start <= gap.until_at)
        };
        candles.retain(|candle| !torn(candle));
        Ok(candles)
    }

    /// What is recorded of each window, whether or not that is all.
    async fn summed(
        &self,
        instrument: InstrumentId,
        (from, to): (Nanos, Nanos),
        bounds: fn(Nanos, u64) -> (Nanos, Nanos),
        step: u64,
        limit: usize,
    ) -> Result<Vec<Candle>, HistoryError> {
        self.query(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT minute, open, high, low, close, volume, value, trades FROM minutes
                 WHERE instrument = ?1 AND minute >= ?2 AND minute < ?3 ORDER BY minute DESC",
            )?;
            let mut rows = statement.query(params![
                instrument.0,
                int(from.0.div_ceil(MINUTE.0)),
                int(to.0.div_ceil(MINUTE.0))
            ])?;
            let mut candles: Vec<Candle> = Vec::new();
            while let Some(row) = rows.next()? {
                let at = Nanos(unsigned(row, 0)? * MINUTE.0);
                let minute = Window {
                    open: Price(unsigned(row, 1)?),
                    high: Price(unsigned(row, 2)?),
                    low: Price(unsigned(row, 3)?),
                    close: Price(unsigned(row, 4)?),
                    volume: Qty(unsigned(row, 5)?),
                    value: Usd(row.get(6)?),
                    trades: unsigned(row, 7)?,
                };
                let full = candles.len() == limit;
                match candles.last_mut() {
                    Some(candle) if at >= candle.start => candle.window = minute.then(candle.window),
                    _ if full => break,
                    _ => {
                        let (start, end) = bounds(at, step);
                        candles.push(Candle { start, end, window: minute });
                    }
                }
            }
            candles.reverse();
            Ok(candles)
        })
        .await
    }

    /// Transfers of an account, by their number.
    pub async fn transfers(
        &self,
        account: AccountId,
        filter: TransferFilter,
        slice: Slice,
    ) -> Result<Option<Rows<TransferRow>>, HistoryError> {
        let mut matching = Where::account(account);
        matching.and_some("instrument = ?", filter.instrument.map(|id| i64::from(id.0)));
        self.query(move |connection| {
            let columns = "id, account, instrument, qty, movement, at";
            page(connection, ("transfers", columns), matching, "at", slice, |row| {
                Ok(TransferRow {
                    id: unsigned(row, 0)?,
                    account: AccountId(row.get(1)?),
                    instrument: InstrumentId(row.get(2)?),
                    qty: Qty(unsigned(row, 3)?),
                    movement: MOVEMENTS.get(row.get::<_, i64>(4)? as usize).copied().unwrap_or("unknown"),
                    at: Nanos(unsigned(row, 5)?),
                })
            })
        })
        .await
    }

    /// What an account had to pay as a supplier, or was paid by one that failed, by number.
    pub async fn charges(
        &self,
        account: AccountId,
        slice: Slice,
    ) -> Result<Option<Rows<ChargeRow>>, HistoryError> {
        let matching = Where::account(account);
        self.query(move |connection| {
            let columns = "id, instrument, reason, amount, owed, at";
            page(connection, ("charges", columns), matching, "at", slice, |row| {
                Ok(ChargeRow {
                    id: unsigned(row, 0)?,
                    instrument: row.get::<_, Option<u16>>(1)?.map(InstrumentId),
                    reason: REASONS.get(row.get::<_, i64>(2)? as usize).copied().unwrap_or("unknown"),
                    amount: Usd(row.get(3)?),
                    owed: Usd(row.get(4)?),
                    at: Nanos(unsigned(row, 5)?),
                })
            })
        })
        .await
    }

    /// Issuances of a supplier, by their number.
    pub async fn issuances(
        &self,
        account: AccountId,
        instrument: Option<InstrumentId>,
        slice: Slice,
    ) -> Result<Option<Rows<IssuanceRow>>, HistoryError> {
        let mut matching = Where::account(account);
        matching.and_some("instrument = ?", instrument.map(|id| i64::from(id.0)));
        self.query(move |connection| {
            let columns = "id, account, instrument, qty, at";
            page(connection, ("issuances", columns), matching, "at", slice, |row| {
                Ok(IssuanceRow {
                    id: unsigned(row, 0)?,
                    account: AccountId(row.get(1)?),
                    instrument: InstrumentId(row.get(2)?),
                    qty: Qty(unsigned(row, 3)?),
                    at: Nanos(unsigned(row, 4)?),
                })
            })
        })
        .await
    }

    /// Deposits and withdrawals of an account, oldest first.
    pub async fn funding(&self, account: AccountId) -> Result<Vec<FundingRow>, HistoryError> {
        self.query(move |connection| {
            connection
                .prepare_cached(
                    "SELECT * FROM (SELECT account, amount, at, kind, reload, seq, item FROM funding
                     WHERE account = ?1 ORDER BY seq DESC, item DESC LIMIT ?2) ORDER BY seq, item",
                )?
                .query_map(params![account.0, FUNDING_ROWS], |row| {
                    let kind = row.get::<_, i64>(3)? as usize;
                    let reload: Option<i64> = row.get(4)?;
                    Ok(FundingRow {
                        account: AccountId(row.get(0)?),
                        amount: Usd(row.get(1)?),
                        at: Nanos(unsigned(row, 2)?),
                        kind: FUNDING_KINDS.get(kind).copied().unwrap_or("unknown"),
                        reload: reload.map(|number| number as u64),
                        seq: Seq(unsigned(row, 5)?),
                    })
                })?
                .collect()
        })
        .await
    }

    /// Lots of an account that reached their deadline with tokens left, oldest first.
    pub async fn lots_expired(&self, account: AccountId) -> Result<Vec<LotExpiry>, HistoryError> {
        self.query(move |connection| {
            connection
                .prepare_cached(
                    "SELECT id, instrument, tokens, at FROM lots_expired WHERE account = ?1 ORDER BY id",
                )?
                .query_map([account.0], |row| {
                    Ok(LotExpiry {
                        lot: LotId(unsigned(row, 0)?),
                        instrument: InstrumentId(row.get(1)?),
                        tokens: Tokens(unsigned(row, 2)?),
                        at: Nanos(unsigned(row, 3)?),
                    })
                })?
                .collect()
        })
        .await
    }
}
