//! Calls that are over: from events to rows, and from rows to what a receipt says (contract §6.7).
//!
//! A call has one row, written when it ends, and is named by its reservation. Whoever wants those in progress too finds
//! them in the state, as [`UsageRow::in_progress`].

use grid_engine::command::{Cover, Surface, Usage};
use grid_engine::event::{Draw, UsageRecord};
use grid_engine::state::Reservation;
use grid_engine::units::DAY;
use grid_engine::{
    AccountId, Engine, InstrumentId, KeyId, LotId, Nanos, ReservationId, Tokens, TradeId, Usd,
};
use rusqlite::{Connection, Row, Transaction, params, params_from_iter};

use crate::read::{Where, int, unsigned};
use crate::{History, HistoryError};

type Sql<T> = Result<T, rusqlite::Error>;

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its tokens are set aside.
    Open,
    /// Settled: it was delivered and billed.
    Settled,
    /// Given back: nobody delivered, or not what was asked for.
    Released,
    /// Its reservation ended by itself: nobody settled it in time.
    Lapsed,
}

/// One call of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRow {
    /// Its reservation.
    pub id: ReservationId,
    /// The call's handle.
    pub request: u128,
    /// Who pays.
    pub account: AccountId,
    /// For what.
    pub instrument: InstrumentId,
    /// The consumption key that it came with.
    pub key: KeyId,
    /// Where it came in.
    pub surface: Surface,
    /// Where it stands.
    pub stage: Stage,
    /// What was delivered and by whom; nothing unless settled.
    pub usage: Usage,
    /// What the supplier called the model that served, when it did.
    pub model: Option<String>,
    /// Tokens billed.
    pub billed: Tokens,
    /// Tokens delivered that nobody pays for.
    pub unbilled: Tokens,
    /// Of the billed ones those that were never bought, because their consumer issued them itself.
    pub unpriced: Tokens,
    /// What the billed tokens had cost.
    pub cost: Usd,
    /// When its tokens were set aside.
    pub reserved_at: Nanos,
    /// When it ended; 0 while it is open.
    pub at: Nanos,
    /// From which lots; empty in lists.
    pub draws: Vec<Draw>,
}

impl UsageRow {
    /// A call in progress, from the state.
    #[must_use]
    pub fn in_progress(id: ReservationId, open: &Reservation) -> Self {
        Self {
            id,
            request: open.request,
            account: open.account,
            instrument: open.instrument,
            key: open.key,
            surface: open.surface,
            stage: Stage::Open,
            usage: Usage::default(),
            model: None,
            billed: Tokens::ZERO,
            unbilled: Tokens::ZERO,
            unpriced: Tokens::ZERO,
            cost: Usd::ZERO,
            reserved_at: open.reserved_at,
            at: Nanos::ZERO,
            draws: Vec::new(),
        }
    }

    /// Tokens delivered, prompt included.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.usage.prompt_tokens.0.saturating_add(self.usage.completion_tokens.0)
    }
}

/// Which calls of an account; `None` is no restriction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageFilter {
    /// Begun at this time or later.
    pub from: Option<Nanos>,
    /// Begun before this time.
    pub to: Option<Nanos>,
    /// Only those settled, or only those not.
    pub settled: Option<bool>,
    /// Only those whose tokens all had a price, or only those with some that had none.
    pub priced: Option<bool>,
    /// Only of this instrument.
    pub instrument: Option<InstrumentId>,
    /// Only with this key.
    pub key: Option<KeyId>,
}

/// A page of calls: at most `limit` beyond a place, in an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsagePage {
    /// By tokens delivered rather than by when they began.
    pub by_tokens: bool,
    /// Largest first.
    pub descending: bool,
    /// Beyond this row: what it is ordered by, and its id.
    pub after: Option<(u64, u64)>,
    /// At most this many.
    pub limit: usize,
}

/// Calls that are over, of one day, instrument and key together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageSum {
    /// The UTC day on which they began, in days since 1970.
    pub day: u64,
    /// Of this instrument.
    pub instrument: InstrumentId,
    /// With this key.
    pub key: KeyId,
    /// How many.
    pub requests: u64,
    /// Of them those that were not billed.
    pub cancelled: u64,
    /// Of them those with tokens that have no price.
    pub unpriced: u64,
    /// Tokens of prompts.
    pub prompt_tokens: u64,
    /// Tokens of completions.
    pub completion_tokens: u64,
    /// Tokens billed.
    pub billed: u64,
    /// Tokens billed that have no price.
    pub unpriced_tokens: u64,
    /// What the billed tokens had cost.
    pub cost: Usd,
}

// -- writing -------------------------------------------------------------------------------------------------------

const SETTLED: i64 = 0;
const RELEASED: i64 = 1;
const LAPSED: i64 = 2;

/// A settled call.
pub(crate) fn used(tx: &Transaction<'_>, at: i64, record: &UsageRecord) -> Sql<()> {
    let usage = record.usage;
    let call = UsageRow {
        id: record.reservation,
        request: record.request,
        account: record.account,
        instrument: record.instrument,
        key: record.key,
        surface: record.surface,
        stage: Stage::Settled,
        usage,
        model: None,
        billed: record.billed,
        unbilled: record.unbilled,
        unpriced: Tokens::ZERO,
        cost: record.cost,
        reserved_at: record.reserved_at,
        at: Nanos::ZERO,
        draws: Vec::new(),
    };
    ended(tx, at, &call)?;
    // When a model last delivered, so that asking for it need not look at calls.
    tx.prepare_cached(
        "INSERT INTO delivered SELECT ?1, model, ?4 FROM offers WHERE supplier = ?2 AND offer = ?3 \
         ON CONFLICT (instrument, model) DO UPDATE SET at = excluded.at",
    )?
    .execute(params![record.instrument.0, usage.supplier.0, usage.offer, at])
    .map(drop)
}

/// A call that ended at this moment. What it drew comes apart, and what its model is called is looked up.
pub(crate) fn ended(tx: &Transaction<'_>, at: i64, call: &UsageRow) -> Sql<()> {
    let stage = match call.stage {
        Stage::Settled => SETTLED,
        Stage::Lapsed => LAPSED,
        Stage::Open | Stage::Released => RELEASED,
    };
    let usage = &call.usage;
    tx.prepare_cached(
        "INSERT INTO usage VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, \
         (SELECT model FROM offers WHERE supplier = ?8 AND offer = ?9 AND ?7 = 0), \
         ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, 0, ?21, ?22, ?23)",
    )?
    .execute(params![
        call.id.0 as i64,
        call.request.to_be_bytes(),
        call.account.0,
        call.instrument.0,
        call.key.0,
        surface_number(call.surface),
        stage,
        usage.supplier.0,
        usage.offer,
        usage.prompt_tokens.0 as i64,
        usage.completion_tokens.0 as i64,
        usage.ttft_us,
        usage.duration_us,
        usage.estimated,
        usage.partial,
        usage.distrusted,
        cover_number(usage.cover),
        usage.attempts,
        call.billed.0 as i64,
        call.unbilled.0 as i64,
        call.cost.0,
        call.reserved_at.0 as i64,
        at
    ])
    .map(drop)
}

/// What a settled call drew from one lot.
pub(crate) fn drawn(tx: &Transaction<'_>, reservation: ReservationId, item: u32, draw: &Draw) -> Sql<()> {
    tx.prepare_cached("INSERT INTO draws VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?.execute(params![
        reservation.0 as i64,
        item,
        draw.lot.0 as i64,
        draw.issuer.0,
        draw.trade.0 as i64,
        draw.tokens.0 as i64,
        draw.cost.0
    ])?;
    if draw.trade == TradeId::default() {
        tx.prepare_cached("UPDATE usage SET unpriced = unpriced + ?2 WHERE id = ?1")?
            .execute(params![reservation.0 as i64, draw.tokens.0 as i64])?;
    }
    Ok(())
}

/// What a supplier's models are called from now on.
pub(crate) fn offers(tx: &Transaction<'_>, supplier: AccountId, models: &[String]) -> Sql<()> {
    tx.prepare_cached("DELETE FROM offers WHERE supplier = ?1")?.execute([supplier.0])?;
    for (offer, model) in models.iter().enumerate() {
        tx.prepare_cached("INSERT INTO offers VALUES (?1, ?2, ?3)")?.execute(params![
            supplier.0,
            offer as i64,
            model
        ])?;
    }
    Ok(())
}

/// What every supplier's models are called in this state.
pub(crate) fn offers_of(engine: &Engine) -> Vec<(AccountId, Vec<String>)> {
    let suppliers = engine.state().suppliers.iter();
    suppliers
        .map(|(id, supplier)| {
            (*id, supplier.profile.offers.iter().map(|offer| offer.model.clone()).collect())
        })
        .collect()
}

const fn surface_number(surface: Surface) -> i64 {
    match surface {
        Surface::ChatCompletions => 0,
        Surface::Messages => 1,
        Surface::Responses => 2,
    }
}

const fn cover_number(cover: Cover) -> i64 {
    match cover {
        Cover::Issuer => 0,
        Cover::Failed => 1,
        Cover::Unable => 2,
    }
}

// -- reading -------------------------------------------------------------------------------------------------------

const COLUMNS: &str = "id, request, account, instrument, key, surface, ended, supplier, model, prompt_tokens, \
     completion_tokens, ttft_us, duration_us, estimated, partial, distrusted, cover, attempts, billed, unbilled, \
     unpriced, cost, reserved_at, at";

fn row(row: &Row<'_>) -> Sql<UsageRow> {
    Ok(UsageRow {
        id: ReservationId(unsigned(row, 0)?),
        request: u128::from_be_bytes(row.get(1)?),
        account: AccountId(row.get(2)?),
        instrument: InstrumentId(row.get(3)?),
        key: KeyId(row.get(4)?),
        surface: match row.get::<_, i64>(5)? {
            1 => Surface::Messages,
            2 => Surface::Responses,
            _ => Surface::ChatCompletions,
        },
        stage: match row.get::<_, i64>(6)? {
            SETTLED => Stage::Settled,
            LAPSED => Stage::Lapsed,
            _ => Stage::Released,
        },
        usage: Usage {
            supplier: AccountId(row.get(7)?),
            prompt_tokens: Tokens(unsigned(row, 9)?),
            completion_tokens: Tokens(unsigned(row, 10)?),
            ttft_us: row.get(11)?,
            duration_us: row.get(12)?,
            estimated: row.get(13)?,
            partial: row.get(14)?,
            distrusted: row.get(15)?,
            cover: match row.get::<_, i64>(16)? {
                1 => Cover::Failed,
                2 => Cover::Unable,
                _ => Cover::Issuer,
            },
            attempts: row.get(17)?,
            ..Usage::default()
        },
        model: row.get(8)?,
        billed: Tokens(unsigned(row, 18)?),
        unbilled: Tokens(unsigned(row, 19)?),
        unpriced: Tokens(unsigned(row, 20)?),
        cost: Usd(row.get(21)?),
        reserved_at: Nanos(unsigned(row, 22)?),
        at: Nanos(unsigned(row, 23)?),
        draws: Vec::new(),
    })
}

fn with_draws(connection: &Connection, rows: &mut [UsageRow]) -> Sql<()> {
    let mut draws = connection.prepare_cached(
        "SELECT lot, issuer, trade, tokens, cost FROM draws WHERE usage = ?1 ORDER BY item",
    )?;
    for row in rows {
        let found = draws.query_map([int(row.id.0)], |row| {
            Ok(Draw {
                lot: LotId(unsigned(row, 0)?),
                issuer: AccountId(row.get(1)?),
                trade: TradeId(unsigned(row, 2)?),
                tokens: Tokens(unsigned(row, 3)?),
                cost: Usd(row.get(4)?),
            })
        })?;
        row.draws = found.collect::<Result<_, _>>()?;
    }
    Ok(())
}

fn matching(account: AccountId, filter: &UsageFilter) -> Where {
    let mut matching = Where::account(account);
    let time = |at: Nanos| int(at.0.min(i64::MAX as u64));
    matching.and_some("reserved_at >= ?", filter.from.map(time));
    matching.and_some("reserved_at < ?", filter.to.map(time));
    matching.and_some("(ended = 0) = ?", filter.settled.map(i64::from));
    matching.and_some("(unpriced = 0) = ?", filter.priced.map(i64::from));
    matching.and_some("instrument = ?", filter.instrument.map(|id| i64::from(id.0)));
    matching.and_some("key = ?", filter.key.map(|key| i64::from(key.0)));
    matching
}

impl History {
    /// The call with this handle, once it is over, with its draws. Where a handle was used again the latest.
    pub async fn usage_of(
        &self,
        account: AccountId,
        request: u128,
    ) -> Result<Option<UsageRow>, HistoryError> {
        self.query(move |connection| {
            let sql = format!(
                "SELECT {COLUMNS} FROM usage WHERE account = ?1 AND request = ?2 ORDER BY id DESC LIMIT 1"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let mut rows = statement
                .query_map(params![account.0, request.to_be_bytes()], row)?
                .collect::<Sql<Vec<UsageRow>>>()?;
            with_draws(connection, &mut rows)?;
            Ok(rows.pop())
        })
        .await
    }

    /// Which models have delivered which instrument at this moment or later, by name.
    pub async fn models_delivered(&self, since: Nanos) -> Result<Vec<(InstrumentId, String)>, HistoryError> {
        self.query(move |connection| {
            let sql = "SELECT instrument, model FROM delivered WHERE at >= ?1 ORDER BY instrument, model";
            let mut statement = connection.prepare_cached(sql)?;
            let found =
                statement.query_map([int(since.0)], |row| Ok((InstrumentId(row.get(0)?), row.get(1)?)))?;
            found.collect()
        })
        .await
    }

    /// An account's settled calls begun in `[from, to)`, newest first, at most `limit`, with their draws.
    pub async fn usage(
        &self,
        account: AccountId,
        (from, to): (Nanos, Nanos),
        limit: usize,
    ) -> Result<Vec<UsageRow>, HistoryError> {
        let filter =
            UsageFilter { from: Some(from), to: Some(to), settled: Some(true), ..UsageFilter::default() };
        let page = UsagePage { by_tokens: false, descending: true, after: None, limit };
        self.query(move |connection| {
            let mut rows = page_of(connection, account, &filter, page)?;
            with_draws(connection, &mut rows)?;
            Ok(rows)
        })
        .await
    }

    /// A page of an account's calls that are over, without their draws.
    pub async fn usage_page(
        &self,
        account: AccountId,
        filter: UsageFilter,
        page: UsagePage,
    ) -> Result<Vec<UsageRow>, HistoryError> {
        self.query(move |connection| page_of(connection, account, &filter, page)).await
    }

    /// An account's calls that are over, summed up by day, instrument and key, in that order.
    pub async fn usage_sums(
        &self,
        account: AccountId,
        filter: UsageFilter,
    ) -> Result<Vec<UsageSum>, HistoryError> {
        self.query(move |connection| {
            let matching = matching(account, &filter);
            let sql = format!(
                "SELECT reserved_at / {DAY} AS day, instrument, key, COUNT(*), SUM(ended <> 0), SUM(unpriced > 0), \
                 SUM(prompt_tokens), SUM(completion_tokens), SUM(billed), SUM(unpriced), SUM(cost) \
                 FROM usage WHERE {} GROUP BY day, instrument, key ORDER BY day, instrument, key",
                matching.sql
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let sums = statement.query_map(params_from_iter(matching.values), |row| {
                Ok(UsageSum {
                    day: unsigned(row, 0)?,
                    instrument: InstrumentId(row.get(1)?),
                    key: KeyId(row.get(2)?),
                    requests: unsigned(row, 3)?,
                    cancelled: unsigned(row, 4)?,
                    unpriced: unsigned(row, 5)?,
                    prompt_tokens: unsigned(row, 6)?,
                    completion_tokens: unsigned(row, 7)?,
                    billed: unsigned(row, 8)?,
                    unpriced_tokens: unsigned(row, 9)?,
                    cost: Usd(row.get(10)?),
                })
            })?;
            sums.collect()
        })
        .await
    }
}

fn page_of(
    connection: &Connection,
    account: AccountId,
    filter: &UsageFilter,
    page: UsagePage,
) -> Sql<Vec<UsageRow>> {
    let mut matching = matching(account, filter);
    let sort = if page.by_tokens { "(prompt_tokens + completion_tokens)" } else { "reserved_at" };
    let (sign, direction) = if page.descending { ('<', "DESC") } else { ('>', "ASC") };
    if let Some((value, id)) = page.after {
        matching.values.extend([int(value).into(), int(id).into()]);
        let n = matching.values.len();
        matching.sql.push_str(&format!(" AND ({sort}, id) {sign} (?{}, ?{n})", n - 1));
    }
    let sql = format!(
        "SELECT {COLUMNS} FROM usage WHERE {} ORDER BY {sort} {direction}, id {direction} LIMIT {}",
        matching.sql, page.limit
    );
    let mut statement = connection.prepare_cached(&sql)?;
    statement.query_map(params_from_iter(matching.values), row)?.collect()
}
