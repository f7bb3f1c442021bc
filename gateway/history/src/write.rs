//! Events to rows, in one transaction with the log position.

use std::path::Path;

use grid_engine::command::{Side, TimeInForce};
use grid_engine::event::{
    Charge, ChargeReason, Closure, Moved, OrderClosed, OrderOpened, OrderReplaced, Trade,
};
use grid_engine::funding::ReloadFailure;
use grid_engine::state::Reservation;
use grid_engine::{AccountId, Engine, Event, Nanos, Seq, Usd};
use rusqlite::{Connection, Transaction, params};

use super::{Applied, HistoryError, Resumption, Stage, UsageRow, calls};

/// Quantities are Units, money nano-dollars, prices ticks, times nanoseconds; ids are the engine's numbers.
/// `fills` has two rows per trade, one for each party: id = 2 × trade + (1 for the maker). `minutes` sums the tape up,
/// so that a day's volume and any candle is read from at most a row per minute. `gaps` names the commands that the store
/// could not hear of, and `orders.recorded` which orders lived through one (see [`recorded`]). `usage` has a row per call
/// that is over, named by its reservation and so in the order in which calls began; `offers` what each supplier's models
/// are called just now. `charges` has two rows per charge: id = 2 × charge + (1 for the side that got it).
const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS position (
  one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL, at INTEGER NOT NULL);
INSERT OR IGNORE INTO position VALUES (1, 0, 0);
CREATE TABLE IF NOT EXISTS gaps (
  after_seq INTEGER PRIMARY KEY, until_seq INTEGER NOT NULL, after_at INTEGER NOT NULL, until_at INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS orders (
  id INTEGER PRIMARY KEY, account INTEGER NOT NULL, instrument INTEGER NOT NULL, side INTEGER NOT NULL,
  price INTEGER, tif INTEGER NOT NULL, tag TEXT NOT NULL,
  asked_qty INTEGER NOT NULL, asked_price INTEGER,
  qty INTEGER NOT NULL, filled INTEGER NOT NULL, value INTEGER NOT NULL, fee INTEGER NOT NULL,
  status INTEGER NOT NULL, closure INTEGER,
  submitted_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, closed_at INTEGER,
  recorded INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS orders_by_account ON orders (account, submitted_at, id);
CREATE INDEX IF NOT EXISTS orders_open ON orders (account, submitted_at, id) WHERE closed_at IS NULL;
CREATE TABLE IF NOT EXISTS fills (
  id INTEGER PRIMARY KEY, trade INTEGER NOT NULL, account INTEGER NOT NULL, order_id INTEGER NOT NULL,
  instrument INTEGER NOT NULL, side INTEGER NOT NULL, price INTEGER NOT NULL, qty INTEGER NOT NULL,
  value INTEGER NOT NULL, fee INTEGER NOT NULL, at INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS fills_by_account ON fills (account, at, id);
CREATE INDEX IF NOT EXISTS fills_by_order ON fills (order_id);
CREATE INDEX IF NOT EXISTS tape ON fills (instrument, at) WHERE id % 2 = 0;
CREATE TABLE IF NOT EXISTS minutes (
  instrument INTEGER NOT NULL, minute INTEGER NOT NULL, open INTEGER NOT NULL, high INTEGER NOT NULL,
  low INTEGER NOT NULL, close INTEGER NOT NULL, volume INTEGER NOT NULL, value INTEGER NOT NULL, trades INTEGER NOT NULL,
  PRIMARY KEY (instrument, minute)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS transfers (
  id INTEGER PRIMARY KEY, account INTEGER NOT NULL, instrument INTEGER NOT NULL, qty INTEGER NOT NULL,
  movement INTEGER NOT NULL, at INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS transfers_by_account ON transfers (account, id);
CREATE TABLE IF NOT EXISTS issuances (
  id INTEGER PRIMARY KEY, account INTEGER NOT NULL, instrument INTEGER NOT NULL, qty INTEGER NOT NULL, at INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS issuances_by_account ON issuances (account, id);
CREATE TABLE IF NOT EXISTS charges (
  id INTEGER PRIMARY KEY, account INTEGER NOT NULL, instrument INTEGER, reason INTEGER NOT NULL,
  amount INTEGER NOT NULL, owed INTEGER NOT NULL, at INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS charges_by_account ON charges (account, id);
CREATE TABLE IF NOT EXISTS funding (
  seq INTEGER NOT NULL, item INTEGER NOT NULL, account INTEGER NOT NULL, amount INTEGER NOT NULL, at INTEGER NOT NULL,
  kind INTEGER NOT NULL, reload INTEGER,
  PRIMARY KEY (seq, item)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS funding_by_account ON funding (account, seq);
CREATE TABLE IF NOT EXISTS usage (
  id INTEGER PRIMARY KEY, request BLOB NOT NULL, account INTEGER NOT NULL, instrument INTEGER NOT NULL,
  key INTEGER NOT NULL, surface INTEGER NOT NULL, ended INTEGER NOT NULL, supplier INTEGER NOT NULL, model TEXT,
  prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, ttft_us INTEGER NOT NULL,
  duration_us INTEGER NOT NULL, estimated INTEGER NOT NULL, partial INTEGER NOT NULL, distrusted INTEGER NOT NULL,
  cover INTEGER NOT NULL, attempts INTEGER NOT NULL, billed INTEGER NOT NULL, unbilled INTEGER NOT NULL,
  unpriced INTEGER NOT NULL, cost INTEGER NOT NULL, reserved_at INTEGER NOT NULL, at INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS usage_by_account ON usage (account, reserved_at, id);
CREATE INDEX IF NOT EXISTS usage_by_request ON usage (account, request);
CREATE TABLE IF NOT EXISTS offers (
  supplier INTEGER NOT NULL, offer INTEGER NOT NULL, model TEXT NOT NULL, PRIMARY KEY (supplier, offer)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS delivered (
  instrument INTEGER NOT NULL, model TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (instrument, model)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS draws (
  usage INTEGER NOT NULL, item INTEGER NOT NULL, lot INTEGER NOT NULL, issuer INTEGER NOT NULL, trade INTEGER NOT NULL,
  tokens INTEGER NOT NULL, cost INTEGER NOT NULL, PRIMARY KEY (usage, item)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lots_expired (
  id INTEGER PRIMARY KEY, account INTEGER NOT NULL, instrument INTEGER NOT NULL, tokens INTEGER NOT NULL, at INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS lots_expired_by_account ON lots_expired (account, id);
";

/// Of the tables above. A store of another version is thrown away and rebuilt from the log.
const VERSION: i64 = 6;

/// How much of an order's life is in the store.
pub(super) mod recorded {
    /// All of it.
    pub(crate) const WHOLE: i64 = 0;
    /// Some of its fills may lie in a gap: what is filled is right, for how much is not known.
    pub(crate) const PARTLY: i64 = 1;
    /// It ended in a gap: how, when, and how much of it traded is not known.
    pub(crate) const END_MISSING: i64 = 2;
}

/// Number of an order's status in the store.
pub(super) mod status {
    pub(crate) const ACTIVE: i64 = 0;
    pub(crate) const PARTIALLY_FILLED: i64 = 1;
    pub(crate) const FILLED: i64 = 2;
    pub(crate) const CANCELLED: i64 = 3;
    pub(crate) const CLOSED: i64 = 4;
    pub(crate) const EXPIRED: i64 = 5;
}

/// What moved dollars in or out, as the store numbers it; reloads that came to nothing moved none.
pub(super) mod funding {
    pub(crate) const DEPOSIT: i64 = 0;
    pub(crate) const WITHDRAWAL: i64 = 1;
    pub(crate) const CREDIT: i64 = 2;
    pub(crate) const RELOAD: i64 = 3;
    pub(crate) const RELOAD_DECLINED: i64 = 4;
    pub(crate) const RELOAD_UNRESOLVED: i64 = 5;
}

/// A time in force as the store numbers it.
pub(super) const fn tif_number(tif: TimeInForce) -> i64 {
    match tif {
        TimeInForce::Gtc => 0,
        TimeInForce::Ioc => 1,
        TimeInForce::Fok => 2,
        TimeInForce::Day => 3,
        TimeInForce::PostOnly => 4,
    }
}

/// A side as the store numbers it.
pub(super) const fn side_number(side: Side) -> i64 {
    match side {
        Side::Buy => 0,
        Side::Sell => 1,
    }
}

/// Why a supplier had to pay, as the store numbers it.
const fn reason_number(reason: ChargeReason) -> i64 {
    match reason {
        ChargeReason::Breach => 0,
        ChargeReason::Cover => 1,
        ChargeReason::CoverPenalty => 2,
        ChargeReason::Debt => 3,
    }
}

/// A movement as the store numbers it.
const fn movement_number(movement: Moved) -> i64 {
    match movement {
        Moved::ToConsumption => 0,
        Moved::ToTrading => 1,
        Moved::AtFill => 2,
        Moved::Swept => 3,
        Moved::Issuance => 4,
    }
}

const fn status_of(reason: Closure) -> i64 {
    match reason {
        Closure::Filled => status::FILLED,
        Closure::Cancelled | Closure::SelfTrade | Closure::Suspended => status::CANCELLED,
        Closure::Expired => status::EXPIRED,
        Closure::PartiallyFilledNoLiquidity
        | Closure::PartiallyFilledMaxSlippage
        | Closure::NoFillNoLiquidity
        | Closure::NoFillMaxSlippage => status::CLOSED,
    }
}

/// The store, to write. Invariant: rows are exactly those of the commands up to `applied`, except for the gaps noted.
pub(super) struct Store {
    connection: Connection,
    applied: Seq,
    /// The stamp of that command.
    at: Nanos,
}

impl Store {
    pub(super) fn open(path: &Path) -> Result<Self, HistoryError> {
        let mut connection = Connection::open(path)?;
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let tables: i64 = connection.query_row("SELECT COUNT(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if tables > 0 && version != VERSION {
            tracing::warn!(version, path = %path.display(), "a history of another version is thrown away and built anew");
            drop(connection);
            for suffix in ["", "-wal", "-shm"] {
                let mut file = path.as_os_str().to_owned();
                file.push(suffix);
                match std::fs::remove_file(&file) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                    _ => {}
                }
            }
            connection = Connection::open(path)?;
        }
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "user_version", VERSION)?;
        // The log is the truth: after a power failure the store may be behind, and catches up from it.
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.set_prepared_statement_cache_capacity(64);
        connection.execute_batch(SCHEMA)?;
        let (seq, at): (i64, i64) =
            connection.query_row("SELECT seq, at FROM position", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(Self { connection, applied: Seq(seq as u64), at: Nanos(at as u64) })
    }

    pub(super) const fn applied(&self) -> Seq {
        self.applied
    }

    /// Stores commands in log order. Those stored already are skipped.
    pub(super) fn append(&mut self, commands: &[Applied]) -> Result<Seq, HistoryError> {
        let transaction = self.connection.transaction()?;
        let (mut applied, mut at) = (self.applied, self.at);
        for command in commands {
            if command.seq <= applied {
                continue;
            }
            if command.seq != applied.next() {
                return Err(HistoryError::Gap { stored: applied.0, found: command.seq.0 });
            }
            for (item, event) in command.events.iter().enumerate() {
                store_event(&transaction, command, item as i64, event)?;
            }
            (applied, at) = (command.seq, command.at);
        }
        move_to(&transaction, applied, at)?;
        transaction.commit()?;
        (self.applied, self.at) = (applied, at);
        Ok(applied)
    }

    /// Goes on after commands that nobody can tell of any more. Orders that were open before or are open after are put
    /// right from the state; of what came and went in between nothing is known.
    pub(super) fn resume(&mut self, resumption: &Resumption) -> Result<Seq, HistoryError> {
        let Resumption { seq, at, open, offers } = resumption;
        if *seq <= self.applied {
            return Ok(self.applied);
        }
        let transaction = self.connection.transaction()?;
        transaction.execute(
            "INSERT INTO gaps VALUES (?1, ?2, ?3, ?4)",
            params![self.applied.0 as i64, seq.0 as i64, self.at.0 as i64, at.0 as i64],
        )?;
        transaction.execute("DELETE FROM offers", [])?;
        for (supplier, models) in offers {
            calls::offers(&transaction, *supplier, models)?;
        }
        transaction.execute_batch("CREATE TEMP TABLE still_open (id INTEGER PRIMARY KEY)")?;
        for resting in open {
            transaction
                .prepare_cached("INSERT INTO still_open VALUES (?1)")?
                .execute([resting.order.id.0 as i64])?;
            correct(&transaction, resting)?;
        }
        transaction.execute(
            "UPDATE orders SET status = ?1, closed_at = ?2, updated_at = ?2, recorded = ?3
             WHERE closed_at IS NULL AND id NOT IN (SELECT id FROM still_open)",
            params![status::CLOSED, at.0 as i64, recorded::END_MISSING],
        )?;
        transaction.flush_prepared_statement_cache();
        transaction.execute_batch("DROP TABLE still_open")?;
        move_to(&transaction, *seq, *at)?;
        transaction.commit()?;
        (self.applied, self.at) = (*seq, *at);
        Ok(*seq)
    }
}

fn move_to(tx: &Transaction<'_>, seq: Seq, at: Nanos) -> Result<(), rusqlite::Error> {
    tx.prepare_cached("UPDATE position SET seq = ?1, at = ?2")?
        .execute(params![seq.0 as i64, at.0 as i64])
        .map(drop)
}

/// An order that rests in a book.
#[derive(Clone, Debug)]
pub(super) struct Resting {
    instrument: grid_engine::InstrumentId,
    order: grid_engine::book::Order,
}

/// All orders that rest.
pub(super) fn resting(engine: &Engine) -> Vec<Resting> {
    let state = engine.state();
    let mut open = Vec::new();
    for instrument in &state.instruments {
        let Some(book) = state.book(instrument.id) else { continue };
        for side in [Side::Buy, Side::Sell] {
            open.extend(book.queue(side).map(|order| Resting { instrument: instrument.id, order }));
        }
    }
    open
}

/// Takes the word of the state for an order that was open at the end of a gap.
fn correct(tx: &Transaction<'_>, resting: &Resting) -> Result<(), rusqlite::Error> {
    let order = &resting.order;
    let status = if order.filled.is_zero() { status::ACTIVE } else { status::PARTIALLY_FILLED };
    let (id, price, filled) = (order.id.0 as i64, order.price.0 as i64, order.filled.0 as i64);
    let qty = filled.saturating_add(order.remaining.0 as i64);
    let updated = order.updated_at.0 as i64;
    let known = tx
        .prepare_cached(
            "UPDATE orders SET price = ?2, qty = ?3, status = ?5, updated_at = ?6,
             recorded = CASE WHEN filled = ?4 THEN recorded ELSE ?7 END, filled = ?4 WHERE id = ?1",
        )?
        .execute(params![id, price, qty, filled, status, updated, recorded::PARTLY])?;
    if known > 0 {
        return Ok(());
    }
    // It was placed in the gap: what its client called it, and asked for at first, is not in the state.
    tx.prepare_cached(
        "INSERT INTO orders VALUES (?1, ?2, ?3, ?4, ?5, ?6, '', ?7, ?5, ?7, ?8, 0, 0, ?9, NULL, ?10, ?11, NULL, ?12)",
    )?
    .execute(params![
        id,
        order.account.0,
        resting.instrument.0,
        side_number(order.side),
        price,
        tif_number(order.tif),
        qty,
        filled,
        status,
        order.submitted_at.0 as i64,
        updated,
        recorded::PARTLY,
    ])
    .map(drop)
}

fn store_event(
    tx: &Transaction<'_>,
    command: &Applied,
    item: i64,
    event: &Event,
) -> Result<(), rusqlite::Error> {
    let at = command.at.0 as i64;
    match event {
        Event::OrderOpened(order) => opened(tx, at, order),
        Event::OrderReplaced(OrderReplaced { order, .. }) => tx
            .prepare_cached("UPDATE orders SET price = ?2, qty = filled + ?3, updated_at = ?4 WHERE id = ?1")?
            .execute(params![order.id.0 as i64, order.price().0 as i64, order.remaining().0 as i64, at])
            .map(drop),
        Event::Traded(trade) => traded(tx, at, trade),
        Event::OrderClosed(OrderClosed { order, reason, .. }) => tx
            .prepare_cached(
                "UPDATE orders SET status = ?2, closure = ?3, closed_at = ?4, updated_at = ?4 WHERE id = ?1",
            )?
            .execute(params![order.id.0 as i64, status_of(*reason), *reason as i64, at])
            .map(drop),
        Event::Moved { account, instrument, qty, movement, transfer } => tx
            .prepare_cached("INSERT INTO transfers VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
            .execute(params![
                *transfer as i64,
                account.0,
                instrument.0,
                qty.0 as i64,
                movement_number(*movement),
                at
            ])
            .map(drop),
        Event::Issued { account, instrument, qty, issuance } => tx
            .prepare_cached("INSERT INTO issuances VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![*issuance as i64, account.0, instrument.0, qty.0 as i64, at])
            .map(drop),
        Event::Funded { account, amount } => {
            let kind = if amount.0 < 0 { funding::WITHDRAWAL } else { funding::DEPOSIT };
            funded(tx, command, item, *account, (kind, *amount, None))
        }
        Event::Credited { account, amount } => {
            funded(tx, command, item, *account, (funding::CREDIT, *amount, None))
        }
        Event::Reloaded { account, amount, reload } => {
            funded(tx, command, item, *account, (funding::RELOAD, *amount, Some(*reload)))
        }
        Event::ReloadFailed { account, reload, reason } => {
            let kind = match reason {
                ReloadFailure::Declined => funding::RELOAD_DECLINED,
                ReloadFailure::Unresolved => funding::RELOAD_UNRESOLVED,
            };
            funded(tx, command, item, *account, (kind, Usd::ZERO, Some(*reload)))
        }
        Event::Charged(charge) => charged(tx, at, charge),
        Event::Used(record) => calls::used(tx, at, record),
        Event::Drawn { reservation, item, draw } => calls::drawn(tx, *reservation, *item, draw),
        Event::ReservationEnded {
            reservation,
            account,
            request,
            instrument,
            key,
            surface,
            reserved_at,
            lapsed,
        } => {
            let mut open = Reservation::default();
            open.request = *request;
            open.account = *account;
            open.instrument = *instrument;
            open.key = *key;
            open.surface = *surface;
            open.reserved_at = *reserved_at;
            let stage = if *lapsed { Stage::Lapsed } else { Stage::Released };
            calls::ended(tx, at, &UsageRow { stage, ..UsageRow::in_progress(*reservation, &open) })
        }
        Event::OffersChanged { supplier, models } => calls::offers(tx, *supplier, models),
        Event::LotExpired { lot, account, instrument, tokens } => tx
            .prepare_cached("INSERT INTO lots_expired VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![lot.0 as i64, account.0, instrument.0, tokens.0 as i64, at])
            .map(drop),
        Event::ReloadDue { .. }
        | Event::Report { .. }
        | Event::Repeated { .. }
        | Event::SessionOpened { .. }
        | Event::SessionEstablished { .. }
        | Event::Level { .. }
        | Event::DirectoryChanged
        | Event::WindowClosed(_)
        | Event::StandingChanged { .. } => Ok(()),
    }
}

fn funded(
    tx: &Transaction<'_>,
    command: &Applied,
    item: i64,
    account: AccountId,
    (kind, amount, reload): (i64, Usd, Option<u64>),
) -> Result<(), rusqlite::Error> {
    let (seq, at) = (command.seq.0 as i64, command.at.0 as i64);
    tx.prepare_cached("INSERT INTO funding VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
        .execute(params![seq, item, account.0, amount.0, at, kind, reload.map(|reload| reload as i64)])
        .map(drop)
}

fn opened(tx: &Transaction<'_>, at: i64, opened: &OrderOpened) -> Result<(), rusqlite::Error> {
    let order = &opened.order;
    // A market order has none.
    let price = Some(order.price()).filter(|price| !price.is_zero()).map(|price| price.0 as i64);
    tx.prepare_cached(
        "INSERT INTO orders VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?5, ?8, 0, 0, 0, ?9, NULL, ?10, ?10, NULL, 0)",
    )?
    .execute(params![
        order.id.0 as i64,
        order.account.0,
        order.instrument.0,
        side_number(order.side),
        price,
        tif_number(opened.tif),
        opened.tag.as_deref().map_or("", String::as_str),
        order.remaining().0 as i64,
        status::ACTIVE,
        at
    ])
    .map(drop)
}

fn traded(tx: &Transaction<'_>, at: i64, trade: &Trade) -> Result<(), rusqlite::Error> {
    let parties = [
        (0, trade.taker, trade.taker_order, trade.aggressor, trade.taker_fee),
        (1, trade.maker, trade.maker_order, trade.aggressor.opposite(), trade.maker_fee),
    ];
    tx.prepare_cached(
        "INSERT INTO minutes VALUES (?1, ?2, ?3, ?3, ?3, ?3, ?4, ?5, 1) ON CONFLICT DO UPDATE SET
         high = MAX(high, excluded.high), low = MIN(low, excluded.low), close = excluded.close,
         volume = volume + excluded.volume, value = value + excluded.value, trades = trades + 1",
    )?
    .execute(params![
        trade.instrument.0,
        at / super::MINUTE.0 as i64,
        trade.price.0 as i64,
        trade.qty.0 as i64,
        trade.value.0
    ])?;
    for (maker, account, order, side, fee) in parties {
        tx.prepare_cached("INSERT INTO fills VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)")?
            .execute(params![
                trade.trade.0 as i64 * 2 + maker,
                trade.trade.0 as i64,
                account.0,
                order.0 as i64,
                trade.instrument.0,
                side_number(side),
                trade.price.0 as i64,
                trade.qty.0 as i64,
                trade.value.0,
                fee.0,
                at
            ])?;
        tx.prepare_cached(
            "UPDATE orders SET filled = filled + ?2, value = value + ?3, fee = fee + ?4, status = ?5, updated_at = ?6
             WHERE id = ?1",
        )?
        .execute(params![
            order.0 as i64,
            trade.qty.0 as i64,
            trade.value.0,
            fee.0,
            status::PARTIALLY_FILLED,
            at
        ])?;
    }
    Ok(())
}

/// Both sides of a charge, each for its account.
fn charged(tx: &Transaction<'_>, at: i64, charge: &Charge) -> Result<(), rusqlite::Error> {
    let mut insert = tx.prepare_cached("INSERT INTO charges VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
    let (instrument, reason) = (charge.instrument.map(|id| id.0), reason_number(charge.reason));
    for (side, account, amount) in [(0, charge.from, -charge.paid.0), (1, charge.to, charge.paid.0)] {
        let id = charge.charge as i64 * 2 + side;
        insert.execute(params![id, account.0, instrument, reason, amount, charge.owed.0, at])?;
    }
    Ok(())
}
