//! Balances: trading, currency, consumption and issuance accounts, positions, lots (contract §5.7).
//!
//! Quantities of consumption are JSON numbers of Units, as in the contract's sample; trading and dollar balances are
//! decimal strings. Tokens that entered consumption are committed: `committed_balance` is all of them and
//! `uncommitted_balance` nothing; what no call in progress has reserved is `available_balance`.

use axum::extract::State;
use grid_engine::state::{Account, Holding, Lot, State as Venue};
use grid_engine::{AccountId, InstrumentId, LotId, Nanos, Qty};
use serde_json::{Value, json};

use super::markets::matches;
use crate::answer::{ApiError, Reply, data};
use crate::app::{App, Name, Signed};
use crate::decimal::{nanos_text, price_text, tokens_number};
use crate::ids::{self, Kind, USD};
use crate::page::{LIMIT_MAX, Page};
use crate::query::Query;
use crate::time::iso;

/// Adds a member only where there is a moment: unknown members are left out.
fn put_moment(row: &mut Value, name: &str, at: Nanos) {
    if !at.is_zero() {
        row[name] = iso(at).into();
    }
}

fn named(venue: &Venue, id: InstrumentId) -> (String, String) {
    venue.instrument(id).map(|found| (found.spec.symbol.clone(), found.spec.name.clone())).unwrap_or_default()
}

fn show_trading(venue: &Venue, account: &Account, id: InstrumentId, holding: &Holding) -> Value {
    let (symbol, name) = named(venue, id);
    let total = holding.available.plus(holding.held);
    let mut row = json!({
        "account_id": ids::trading_account(account.id, id),
        "user_id": ids::user(account.id),
        "market_id": ids::market(id),
        "market_name": format!("{}/USD", symbol.to_uppercase()),
        "instrument_id": ids::instrument(id),
        "instrument_symbol": symbol,
        "instrument_name": name,
        "status": "active",
        "total_balance": total.0.to_string(),
        "available_balance": holding.available.0.to_string(),
        "locked_balance": holding.held.0.to_string(),
        "reserved_balance": holding.held.0.to_string(),
    });
    if let Some(found) = venue.instrument(id)
        && let Some(last) = found.last_trade
    {
        row["last_trade_price"] = price_text(last.price, found.spec.market.tick).into();
    }
    put_moment(&mut row, "last_trading_activity_at", holding.updated_at);
    put_moment(&mut row, "created_at", holding.created_at);
    row["updated_at"] = iso(holding.updated_at).into();
    row
}

fn show_currency(account: &Account) -> Value {
    let total = account.usd_available.plus(account.usd_held);
    let mut row = json!({
        "account_id": ids::trading_account(account.id, USD),
        "user_id": ids::user(account.id),
        "currency": "usd",
        "total_balance": total.to_string(),
        "available_balance": account.usd_available.to_string(),
        "locked_balance": account.usd_held.to_string(),
        "status": "active",
    });
    put_moment(&mut row, "last_deposit_at", account.deposited_at);
    put_moment(&mut row, "last_withdrawal_at", account.withdrawn_at);
    put_moment(&mut row, "last_trading_activity_at", account.updated_at);
    put_moment(&mut row, "created_at", account.created_at);
    row["updated_at"] = iso(account.updated_at).into();
    row
}

/// The dollar account as `/trading-accounts` shows it: with an instrument id, which clients demand of every row.
fn show_currency_as_trading(account: &Account) -> Value {
    let mut row = show_currency(account);
    row["instrument_id"] = ids::instrument(USD).into();
    row["instrument_symbol"] = "usd".into();
    row["instrument_name"] = "US Dollar".into();
    row
}

fn show_consumption(venue: &Venue, account: &Account, id: InstrumentId, holding: &Holding) -> Value {
    let (symbol, name) = named(venue, id);
    let (free, reserved) = (holding.free_tokens().0, holding.reserved_tokens().0);
    let totals = &holding.totals;
    let used = totals.used.0.saturating_add(totals.expired.0);
    let mut row = json!({
        "account_id": ids::encode_pair(Kind::ConsumptionAccount, account.id, id),
        "user_id": ids::user(account.id),
        "instrument_id": ids::instrument(id),
        "instrument_symbol": symbol,
        "instrument_name": name,
        "status": "active",
        "available_balance": tokens_number(free),
        "uncommitted_balance": 0,
        "committed_balance": tokens_number(free + reserved),
        "total_balance": tokens_number(free + reserved),
        "reserved_balance": tokens_number(reserved),
        "total_deposits": totals.moved_in.0,
        "total_withdrawals": tokens_number(used),
        "total_commitments": totals.moved_in.0,
        "total_transfers_in": totals.moved_in.0,
        "total_transfers_out": totals.moved_out.0,
        "tokens_available": free,
        "tokens_used": totals.used.0,
        "tokens_expired": totals.expired.0,
    });
    let newest = holding.lots().iter().map(|lot| lot.opened_at).max().unwrap_or_default();
    for name in ["last_deposit_at", "last_commitment_at", "last_transfer_at"] {
        put_moment(&mut row, name, newest);
    }
    // Lots lie in the order of their deadlines; one that is over waits for calls in progress.
    put_moment(
        &mut row,
        "next_expires_at",
        holding.lots().front().and_then(|lot| lot.expires_at).unwrap_or_default(),
    );
    put_moment(&mut row, "created_at", holding.created_at);
    row["updated_at"] = iso(holding.updated_at).into();
    row
}

fn show_issuance(venue: &Venue, account: &Account, id: InstrumentId, holding: &Holding) -> Value {
    let supply = venue.supplies.get(account.id, id);
    let (symbol, name) = named(venue, id);
    let issued = supply.map_or(0, |supply| supply.issued.0);
    let moved = supply.map_or(Qty::ZERO, |supply| supply.moved_to_trading);
    let mut row = json!({
        "issuance_account_id": ids::encode_pair(Kind::IssuanceAccount, account.id, id),
        "user_id": ids::user(account.id),
        "instrument_id": ids::instrument(id),
        "instrument_symbol": symbol,
        "instrument_name": name,
        "status": "active",
        "total_balance": holding.issuance.0,
        "total_issued": tokens_number(issued),
        "total_deposits": tokens_number(issued),
        "total_transferred_to_trading": moved.0,
        "total_transfers": moved.0,
    });
    put_moment(&mut row, "created_at", holding.created_at);
    row["updated_at"] = iso(holding.updated_at.max(account.created_at)).into();
    row
}

/// Rows made of the caller's account.
fn rows_of(app: &App, account: AccountId, make: impl FnOnce(&Venue, &Account) -> Vec<Value>) -> Vec<Value> {
    app.view().look(|engine| {
        let venue = engine.state();
        venue.account(account).map(|account| make(venue, account)).unwrap_or_default()
    })
}

/// One row per instrument that the account ever touched.
fn per_holding(
    app: &App,
    account: AccountId,
    show: fn(&Venue, &Account, InstrumentId, &Holding) -> Value,
) -> Vec<Value> {
    rows_of(app, account, |venue, account| {
        venue.holdings.of(account.id).map(|(id, holding)| show(venue, account, id, holding)).collect()
    })
}

fn filtered(query: &Query, mut rows: Vec<Value>, id: &str) -> Vec<Value> {
    let canonical = |name: &str| -> Option<String> {
        query.get(name).map(|text| match name {
            "instrument_id" => ids::decode_instrument(text).map(ids::instrument).unwrap_or_default(),
            "market_id" => ids::decode_market(text).map(ids::market).unwrap_or_default(),
            _ => text.to_ascii_lowercase(),
        })
    };
    for (parameter, member) in
        [("instrument_id", "instrument_id"), ("market_id", "market_id"), ("account_id", id)]
    {
        if let Some(wanted) = canonical(parameter) {
            rows.retain(|row| row[member] == wanted.as_str());
        }
    }
    rows.retain(|row| matches(query, row, &["status", "currency", "instrument_symbol"]));
    rows
}

/// A page of account rows. Rows that lack a creation time sort first.
fn listed(query: &Query, rows: Vec<Value>, id: &str) -> Reply {
    let page = Page::parse(
        query,
        LIMIT_MAX,
        &[
            "created_at",
            "updated_at",
            "inserted_at",
            "total_balance",
            "available_balance",
            "instrument_symbol",
            "status",
        ],
    )?;
    page.of_rows(filtered(query, rows, id), id)
}

/// The row with an id, in whichever spelling the client sent it.
fn picked(rows: Vec<Value>, member: &str, text: &str, kinds: &[Kind]) -> Reply {
    let canonical =
        kinds.iter().find_map(|kind| ids::decode(*kind, text).map(|number| ids::encode(*kind, number)));
    let row = canonical.and_then(|id| rows.into_iter().find(|row| row[member] == id.as_str()));
    row.map_or_else(|| Err(ApiError::not_found("ACCOUNT_NOT_FOUND")), data)
}

fn trading_rows(app: &App, account: AccountId) -> Vec<Value> {
    let mut rows = rows_of(app, account, |_, account| vec![show_currency_as_trading(account)]);
    rows.extend(per_holding(app, account, show_trading));
    rows
}

/// `GET /trading-accounts`.
pub(super) async fn trading(State(app): State<App>, signed: Signed) -> Reply {
    listed(&signed.query, trading_rows(&app, signed.account), "account_id")
}

/// `GET /trading-accounts/{id}`.
pub(super) async fn trading_one(State(app): State<App>, Name(id): Name, signed: Signed) -> Reply {
    let kinds = [Kind::TradingAccount, Kind::CurrencyTradingAccount];
    picked(trading_rows(&app, signed.account), "account_id", &id, &kinds)
}

/// `GET /currency-trading-accounts`.
pub(super) async fn currency(State(app): State<App>, signed: Signed) -> Reply {
    let rows = rows_of(&app, signed.account, |_, account| vec![show_currency(account)]);
    listed(&signed.query, rows, "account_id")
}

/// `GET /currency-trading-accounts/{id}`.
pub(super) async fn currency_one(State(app): State<App>, Name(id): Name, signed: Signed) -> Reply {
    let rows = rows_of(&app, signed.account, |_, account| vec![show_currency(account)]);
    picked(rows, "account_id", &id, &[Kind::CurrencyTradingAccount])
}

/// `GET /consumption-accounts`.
pub(super) async fn consumption(State(app): State<App>, signed: Signed) -> Reply {
    listed(&signed.query, per_holding(&app, signed.account, show_consumption), "account_id")
}

/// `GET /consumption-accounts/{id}`.
pub(super) async fn consumption_one(State(app): State<App>, Name(id): Name, signed: Signed) -> Reply {
    let rows = per_holding(&app, signed.account, show_consumption);
    picked(rows, "account_id", &id, &[Kind::ConsumptionAccount])
}

/// `GET /issuance-accounts`: of a supplier, one per instrument that it supplies.
pub(super) async fn issuance(State(app): State<App>, signed: Signed) -> Reply {
    let rows = rows_of(&app, signed.account, |venue, account| {
        let blank = Holding::default();
        let supplies = venue.supplies.of(account.id);
        let held = |id| venue.holding(account.id, id).unwrap_or(&blank);
        supplies.map(|(id, _)| show_issuance(venue, account, id, held(id))).collect()
    });
    listed(&signed.query, rows, "issuance_account_id")
}

/// `GET /positions`: Units in trading with what they cost.
pub(super) async fn positions(State(app): State<App>, signed: Signed) -> Reply {
    let rows = per_holding(&app, signed.account, |venue, account, id, holding| {
        let (_, name) = named(venue, id);
        let quantity = holding.available.plus(holding.held);
        let cost: i128 = holding.tranches.iter().map(|tranche| i128::from(tranche.cost.0)).sum();
        let average = (!quantity.is_zero()).then(|| nanos_text(cost / i128::from(quantity.0)));
        let market = venue.instrument(id).and_then(|found| {
            let last = found.last_trade?;
            let tick = found.spec.market.tick;
            let value = last.price.notional(quantity, tick)?;
            Some((price_text(last.price, tick), value.to_string()))
        });
        let closed = quantity.is_zero();
        json!({
            "id": ids::encode_pair(Kind::Position, account.id, id),
            "user_account_id": ids::trading_account(account.id, id),
            "instrument_id": ids::instrument(id),
            "instrument_name": name,
            "status": if closed { "closed" } else { "open" },
            "quantity": quantity.0.to_string(),
            "average_cost": average,
            "total_cost": nanos_text(cost),
            "current_market_value": market.as_ref().map(|(_, value)| value),
            "last_trade_price": market.as_ref().map(|(price, _)| price),
            "opened_at": iso(holding.created_at),
            "closed_at": closed.then(|| iso(holding.updated_at)),
            "inserted_at": iso(holding.created_at),
        })
    });
    let page = Page::parse(&signed.query, LIMIT_MAX, &["inserted_at", "opened_at", "quantity", "status"])?;
    page.of_rows(filtered(&signed.query, rows, "id"), "id")
}

fn show_lot(venue: &Venue, id: InstrumentId, lot: &Lot) -> Value {
    let (symbol, _) = named(venue, id);
    let remaining = lot.free.0 + lot.reserved.0;
    let unit_price = nanos_text(i128::from(lot.cost.0) * 1_000_000 / i128::from(lot.tokens.0.max(1)));
    json!({
        "lot_id": ids::lot(lot.id),
        "instrument_id": ids::instrument(id),
        "instrument_symbol": symbol,
        "quantity": tokens_number(lot.tokens.0),
        "used": tokens_number(lot.drawn.0),
        "remaining": tokens_number(remaining),
        "purchase_price": unit_price,
        "currency": "usd",
        "purchased_at": iso(lot.opened_at),
        "expires_at": lot.expires_at.map(iso),
        "status": if remaining == 0 { "consumed" } else { "active" },
        "usage_history": [],
    })
}

async fn all_lots(app: &App, account: AccountId) -> Result<Vec<Value>, ApiError> {
    let mut rows = rows_of(app, account, |venue, account| {
        let lots = venue
            .holdings
            .of(account.id)
            .flat_map(|(id, holding)| holding.lots().iter().map(move |lot| (id, lot)));
        lots.map(|(id, lot)| show_lot(venue, id, lot)).collect()
    });
    for lot in app.history().lots_expired(account).await? {
        rows.push(json!({
            "lot_id": ids::lot(lot.lot),
            "instrument_id": ids::instrument(lot.instrument),
            "remaining": tokens_number(lot.tokens.0),
            "currency": "usd",
            "expires_at": iso(lot.at),
            "status": "expired",
            "usage_history": [],
        }));
    }
    Ok(rows)
}

/// `GET /accounts/lots`.
pub(super) async fn lots(State(app): State<App>, signed: Signed) -> Reply {
    let mut rows = all_lots(&app, signed.account).await?;
    match signed.query.get("status") {
        None | Some("all") => {}
        Some(status @ ("active" | "expired" | "consumed")) => rows.retain(|row| row["status"] == status),
        Some(_) => {
            let text = "status must be active, expired, consumed or all";
            return Err(ApiError::unprocessable("VALIDATION_ERROR", text));
        }
    }
    if let Some(text) = signed.query.get("instrument_id") {
        let wanted = ids::decode_instrument(text).map(ids::instrument).unwrap_or_default();
        rows.retain(|row| row["instrument_id"] == wanted.as_str());
    }
    let page = Page::parse(&signed.query, LIMIT_MAX, &["purchased_at", "expires_at", "status"])?;
    page.of_rows(rows, "lot_id")
}

/// `GET /accounts/lots/{id}`, with what was drawn from it.
pub(super) async fn lot(State(app): State<App>, Name(id): Name, signed: Signed) -> Reply {
    let not_found = || ApiError::not_found("LOT_NOT_FOUND");
    let number = ids::decode(Kind::Lot, &id).map(LotId).ok_or_else(not_found)?;
    let canonical = ids::lot(number);
    let rows = all_lots(&app, signed.account).await?;
    let mut row = rows.into_iter().find(|row| row["lot_id"] == canonical.as_str()).ok_or_else(not_found)?;
    let everything = (Nanos(0), Nanos(i64::MAX as u64));
    let usage = app.history().usage(signed.account, everything, 1_000).await?;
    let drawn = usage.iter().flat_map(|call| {
        let draws = call.draws.iter().filter(|draw| draw.lot == number);
        draws.map(|draw| {
            json!({ "request_id": format!("req_{:032x}", call.request), "tokens": draw.tokens.0, "used_at": iso(call.at) })
        })
    });
    row["usage_history"] = drawn.collect();
    data(row)
}
