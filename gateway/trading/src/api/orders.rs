//! `/orders` (contract §5.3).
//!
//! Choices where the contract leaves one: `max_slippage` is a percentage of the best opposite price (`"1.5"`), for
//! market orders only, because a limit order is bounded by its limit; `post_only` goes with `gtc`; `PUT` takes
//! `quantity` as the order's total, as it is shown, filled part included (a fill between the client's read and its
//! update leaves more open than it meant, by that fill); `self_trade_prevention` is one of `none`,
//! `cancel_newest`, `cancel_oldest`, `cancel_both`, `decrement`; `auto_transfer` true moves what is bought straight to
//! consumption, in Advanced Mode too.
//!
//! A repeated `client_order_id` never makes a second order: the same request answers the order it made, a different
//! one 422. "Same" is market, side, type, quantity, price and time in force.

use axum::extract::State;
use axum::http::StatusCode;
use grid_engine::command::{
    Command, MassCancelScope, NewOrder, OrderKind, OrderRef, SelfTrade, Side, TimeInForce,
};
use grid_engine::state::Instrument;
use grid_engine::{InstrumentId, Label, OrderId, Price, Qty, Reject, Usd};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sha2::Digest;

use super::{page_of, side, side_text, slice_by};
use crate::answer::{ApiError, Reply, data, data_as};
use crate::app::{App, Name, Signed};
use crate::decimal::{DecimalError, nanos_text, parse_percent, parse_price, parse_qty, price_text};
use crate::door::Outcome;
use crate::history::{OrderFilter, OrderRow};
use crate::ids::{self, Kind};
use crate::page::{Cursor, LIMIT_MAX_ORDERS, Page};
use crate::time::iso;

/// Longest client order id, in bytes.
const CLIENT_ORDER_ID_MAX: usize = grid_engine::limits::TEXT;

/// A decimal that may come as a JSON string or number; kept as its text so that no float touches it.
pub(super) fn amount(raw: &RawValue, name: &str) -> Result<String, ApiError> {
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'"') => {
            serde_json::from_str(text).map_err(|error| ApiError::malformed(format!("{name}: {error}")))
        }
        Some(b'-' | b'0'..=b'9') => Ok(text.into()),
        _ => Err(ApiError::malformed(format!("{name} must be a decimal string or a number"))),
    }
}

pub(super) fn quantity(raw: &RawValue) -> Result<Qty, ApiError> {
    parse_qty(&amount(raw, "quantity")?).map_err(|error| {
        let text = match error {
            DecimalError::OffStep => "quantity must be in whole units".into(),
            error => format!("quantity {error}"),
        };
        ApiError::unprocessable("INVALID_QUANTITY", text)
    })
}

fn price(raw: &RawValue, tick: Usd) -> Result<Price, ApiError> {
    parse_price(&amount(raw, "price")?, tick).map_err(|error| {
        let text = match error {
            DecimalError::OffStep => format!("price must be a multiple of the tick {tick}"),
            error => format!("price {error}"),
        };
        ApiError::unprocessable("INVALID_PRICE", text)
    })
}

fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::unprocessable("INVALID_ORDER", text)
}

#[derive(Deserialize)]
struct PlaceBody {
    market_id: String,
    side: String,
    #[serde(rename = "type")]
    kind: String,
    quantity: Box<RawValue>,
    #[serde(default)]
    price: Option<Box<RawValue>>,
    #[serde(default)]
    stop_price: Option<Box<RawValue>>,
    #[serde(default)]
    time_in_force: Option<String>,
    #[serde(default)]
    client_order_id: Option<String>,
    #[serde(default)]
    post_only: Option<bool>,
    #[serde(default)]
    reduce_only: Option<bool>,
    #[serde(default)]
    max_slippage: Option<Box<RawValue>>,
    #[serde(default)]
    self_trade_prevention: Option<String>,
    #[serde(default)]
    auto_transfer: Option<bool>,
}

/// `null` is absent, for members kept as their text too.
fn given(raw: &Option<Box<RawValue>>) -> Option<&RawValue> {
    raw.as_deref().filter(|raw| raw.get() != "null")
}

fn tif(text: Option<&str>) -> Result<TimeInForce, ApiError> {
    match text {
        None | Some("gtc") => Ok(TimeInForce::Gtc),
        Some("ioc") => Ok(TimeInForce::Ioc),
        Some("fok") => Ok(TimeInForce::Fok),
        Some("day") => Ok(TimeInForce::Day),
        Some(_) => Err(invalid("time_in_force must be gtc, ioc, fok or day")),
    }
}

fn self_trade(text: Option<&str>) -> Result<SelfTrade, ApiError> {
    match text {
        None | Some("none") => Ok(SelfTrade::Allow),
        Some("cancel_newest") => Ok(SelfTrade::CancelIncoming),
        Some("cancel_oldest") => Ok(SelfTrade::CancelResting),
        Some("cancel_both") => Ok(SelfTrade::CancelBoth),
        Some("decrement") => Ok(SelfTrade::Decrement),
        Some(_) => Err(invalid(
            "self_trade_prevention must be none, cancel_newest, cancel_oldest, cancel_both or decrement",
        )),
    }
}

/// The engine's order of a request body.
fn new_order(app: &App, body: &PlaceBody) -> Result<NewOrder, ApiError> {
    let market = ids::decode_market(&body.market_id);
    let (instrument, tick) =
        app.instrument(market, "MARKET_NOT_FOUND", |found| (found.id, found.spec.market.tick))?;
    let side = side(&body.side)?;
    let tif = tif(body.time_in_force.as_deref())?;
    let post_only = body.post_only.unwrap_or(false);
    if body.reduce_only.unwrap_or(false) {
        return Err(invalid("reduce_only is not offered: there are no short positions to reduce"));
    }
    let kind = match body.kind.as_str() {
        "limit" => {
            let raw = given(&body.price)
                .ok_or_else(|| ApiError::malformed("price is required for a limit order"))?;
            let price = price(raw, tick)?;
            if given(&body.max_slippage).is_some() {
                return Err(invalid(
                    "max_slippage is for market orders; a limit order is bounded by its price",
                ));
            }
            let tif = match (post_only, tif) {
                (false, tif) => tif,
                (true, TimeInForce::Gtc) => TimeInForce::PostOnly,
                (true, _) => return Err(invalid("post_only goes with time_in_force gtc")),
            };
            OrderKind::Limit { price, tif }
        }
        "market" => {
            if post_only {
                return Err(invalid("a market order can't be post_only"));
            }
            let slippage = given(&body.max_slippage)
                .map(|raw| {
                    let text = amount(raw, "max_slippage")?;
                    parse_percent(&text)
                        .map_err(|error| invalid(format!("max_slippage {error}; it is a percentage")))
                })
                .transpose()?;
            OrderKind::Market { max_slippage_bps: slippage, fill_or_kill: tif == TimeInForce::Fok }
        }
        "stop" | "stop_limit" => {
            return Err(invalid("stop orders are not offered yet; type must be limit or market"));
        }
        _ => return Err(invalid("type must be limit or market")),
    };
    if given(&body.stop_price).is_some() {
        return Err(invalid("stop_price goes with stop orders, which are not offered yet"));
    }
    let tag = body.client_order_id.clone().unwrap_or_default();
    if tag.len() > CLIENT_ORDER_ID_MAX || tag.chars().any(char::is_control) {
        let text =
            format!("client_order_id may have {CLIENT_ORDER_ID_MAX} bytes, without control characters");
        return Err(invalid(text));
    }
    Ok(NewOrder {
        instrument,
        side,
        kind,
        qty: quantity(&body.quantity)?,
        stp: self_trade(body.self_trade_prevention.as_deref())?,
        label: label_of(&tag),
        tag,
        to_consumption: side == Side::Buy && body.auto_transfer.unwrap_or(false),
    })
}

/// The engine's label of a client order id: the first half of its SHA-256; no id, no label.
fn label_of(tag: &str) -> Label {
    if tag.is_empty() {
        return Label(0);
    }
    let hash = sha2::Sha256::digest(tag.as_bytes());
    let (head, _) = hash.split_first_chunk::<16>().expect("SHA-256 has 32 bytes");
    Label(u128::from_be_bytes(*head).max(1))
}

/// `POST /orders`.
pub(super) async fn place(State(app): State<App>, signed: Signed) -> Reply {
    app.may_trade(signed.account)?;
    let body: PlaceBody = signed.json()?;
    let order = new_order(&app, &body)?;
    let answer = app.submit_raw(signed.account, Command::Place(order.clone())).await?;
    let id = match answer.outcome {
        Outcome::Order(order) => order,
        Outcome::Rejected { reject: Reject::DuplicateLabel, existing: earlier, .. } => {
            return repeated(&app, &signed, &order, earlier).await;
        }
        Outcome::Rejected { reject, .. } => return Err(ApiError::rejected(reject)),
        other => return Err(ApiError::fault(format!("an order was answered with {other:?}"))),
    };
    match app.history().order(signed.account, id).await? {
        Some(row) => data_as(StatusCode::CREATED, show(&app, &row)),
        // Accepted and durable, but the history is behind: what is known without it.
        None => data_as(
            StatusCode::CREATED,
            json!({
                "order_id": ids::order(id),
                "client_order_id": body.client_order_id,
                "market_id": ids::market(order.instrument),
                "side": side_text(order.side),
                "type": body.kind,
                "status": "pending",
                "quantity": order.qty.0.to_string(),
                "submitted_at": iso(answer.at),
            }),
        ),
    }
}

/// The answer to a client order id that was used before.
async fn repeated(app: &App, signed: &Signed, order: &NewOrder, earlier: OrderId) -> Reply {
    let row = app.history().order(signed.account, earlier).await?;
    // Of an order that is not all on record nobody can say whether it is the same.
    let Some(row) = row.filter(|row| !row.partly) else {
        return Err(ApiError::rejected(Reject::DuplicateLabel));
    };
    let (asked_price, tif_agrees) = match order.kind {
        OrderKind::Limit { price, tif } => (Some(price), row.tif == tif),
        // The record of a market order doesn't tell whether it was all or nothing.
        OrderKind::Market { .. } => (None, true),
    };
    let same = row.tag == order.tag
        && row.instrument == order.instrument
        && row.side == order.side
        && row.asked_qty == order.qty
        && row.asked_price == asked_price
        && tif_agrees;
    if same {
        data_as(StatusCode::CREATED, show(app, &row))
    } else {
        let text = "client_order_id was used before with a different order";
        Err(ApiError::unprocessable("DUPLICATE_CLIENT_ORDER_ID", text))
    }
}

/// `GET /orders`.
pub(super) async fn list(State(app): State<App>, signed: Signed) -> Reply {
    let query = &signed.query;
    let sorts = [
        "submitted_at",
        "created_at",
        "inserted_at",
        "updated_at",
        "closed_at",
        "price",
        "quantity",
        "filled_quantity",
        "status",
        "side",
    ];
    let page = Page::parse(query, LIMIT_MAX_ORDERS, &sorts)?;
    let (from, to) =
        query.range("start_datetime", "end_datetime", &["submitted_at", "created_at", "inserted_at"])?;
    let market = query.get("market_id").map(ids::decode_market);
    let instrument = query.get("instrument_id").map(ids::decode_instrument);
    let trader = query.get("trader_id").or_else(|| query.get("user_id"));
    let foreign = trader.is_some_and(|id| ids::decode(Kind::User, id) != Some(signed.account.0.into()));
    let statuses = query.get("status").map(statuses).transpose()?;
    let nothing = foreign
        || market == Some(None)
        || instrument == Some(None)
        || (market.is_some() && instrument.is_some() && market != instrument)
        || statuses.as_ref().is_some_and(Vec::is_empty);
    if nothing {
        return page.of_rows(Vec::new(), "order_id");
    }
    let filter = OrderFilter {
        instrument: market.or(instrument).flatten(),
        side: query.get("side").map(side).transpose()?,
        statuses: statuses.unwrap_or_default(),
        from,
        to,
    };
    let slice = slice_by(&page, Kind::Order)?;
    let rows = app.history().orders(signed.account, filter, page.order_by, slice).await?;
    page_of(&page, rows, |row| Cursor::at(&ids::order(row.id)), |row| show(&app, row))
}

/// The stored statuses that a filter names; `open` is every order that can still trade.
fn statuses(text: &str) -> Result<Vec<&'static str>, ApiError> {
    let mut found = Vec::new();
    for name in text.split(',') {
        match name.trim() {
            "active" => found.push("active"),
            "partially_filled" => found.push("partially_filled"),
            "open" => found.extend(["active", "partially_filled"]),
            "filled" => found.push("filled"),
            "cancelled" | "canceled" => found.push("cancelled"),
            "closed" => found.push("closed"),
            "expired" => found.push("expired"),
            // No order of this venue is ever in one of these.
            "pending" | "cancellation_pending" | "rejected" => {}
            _ => {
                return Err(ApiError::unprocessable(
                    "VALIDATION_ERROR",
                    "status is not one that orders have",
                ));
            }
        }
    }
    Ok(found)
}

/// The caller's order, or 404.
async fn own(app: &App, signed: &Signed, id: &str) -> Result<OrderRow, ApiError> {
    let not_found = || ApiError::not_found("ORDER_NOT_FOUND");
    let id = ids::decode(Kind::Order, id).ok_or_else(not_found)?;
    let row = app.history().order(signed.account, OrderId(id)).await?;
    row.ok_or_else(not_found)
}

/// `GET /orders/{id}`.
pub(super) async fn one(State(app): State<App>, Name(id): Name, signed: Signed) -> Reply {
    let row = own(&app, &signed, &id).await?;
    data(show(&app, &row))
}

#[derive(Deserialize)]
struct UpdateBody {
    #[serde(default)]
    price: Option<Box<RawValue>>,
    #[serde(default)]
    quantity: Option<Box<RawValue>>,
    #[serde(default)]
    stop_price: Option<Box<RawValue>>,
    #[serde(default)]
    time_in_force: Option<String>,
    #[serde(default)]
    self_trade_prevention: Option<String>,
}

/// `PUT /orders/{id}`.
pub(super) async fn update(State(app): State<App>, Name(id): Name, signed: Signed) -> Reply {
    app.may_trade(signed.account)?;
    let body: UpdateBody = signed.json()?;
    let (new_price, new_quantity) = (given(&body.price), given(&body.quantity));
    if new_price.is_none()
        && new_quantity.is_none()
        && body.time_in_force.is_none()
        && given(&body.stop_price).is_none()
    {
        return Err(ApiError::malformed("give at least one of price, quantity, stop_price, time_in_force"));
    }
    let row = own(&app, &signed, &id).await?;
    if given(&body.stop_price).is_some() {
        return Err(invalid("this is not a stop order"));
    }
    if let Some(wanted) = body.time_in_force.as_deref()
        && wanted != tif_text(row.tif)
    {
        tif(Some(wanted))?;
        return Err(invalid("time_in_force can't be changed; cancel and place a new order"));
    }
    let tick = app.instrument(Some(row.instrument), "MARKET_NOT_FOUND", |found| found.spec.market.tick)?;
    let price = new_price.map(|raw| price(raw, tick)).transpose()?.or(row.price);
    let total = new_quantity.map(quantity).transpose()?.unwrap_or(row.qty);
    if !row.is_open() {
        return Err(not_open(&row));
    }
    let price = price.ok_or_else(|| invalid("a market order can't be changed"))?;
    // The history may be a moment behind a fill; the replica is what the venue holds now.
    let filled = app.view().look(|engine| {
        let book = engine.state().book(row.instrument)?;
        book.order(row.id).map(|order| order.filled)
    });
    let filled = filled.unwrap_or(row.filled);
    let remaining = match total.checked_sub(filled) {
        Some(open) if !open.is_zero() => open,
        _ => {
            let text = format!(
                "quantity must be above the {} units filled so far; cancel to end the order",
                filled.0
            );
            return Err(ApiError::unprocessable("INVALID_QUANTITY", text));
        }
    };
    if Some(price) != row.price || total != row.qty {
        let command = Command::Replace {
            order: OrderRef::Id(row.id),
            qty: remaining,
            price,
            stp: self_trade(body.self_trade_prevention.as_deref())?,
            post_only: row.tif == TimeInForce::PostOnly,
        };
        let answer = app.submit_raw(signed.account, command).await?;
        if let Outcome::Rejected { reject, .. } = answer.outcome {
            return Err(after_reject(&app, &signed, &id, reject).await?);
        }
    }
    let row = own(&app, &signed, &id).await?;
    data(show(&app, &row))
}

/// `DELETE /orders/{id}`.
pub(super) async fn cancel(State(app): State<App>, Name(id): Name, signed: Signed) -> Reply {
    app.may_trade(signed.account)?;
    let row = own(&app, &signed, &id).await?;
    if !row.is_open() {
        return Err(not_open(&row));
    }
    let command = Command::Cancel { order: OrderRef::Id(row.id) };
    let answer = app.submit_raw(signed.account, command).await?;
    if let Outcome::Rejected { reject, .. } = answer.outcome {
        return Err(after_reject(&app, &signed, &id, reject).await?);
    }
    let row = own(&app, &signed, &id).await?;
    data(show(&app, &row))
}

/// An order that the engine no longer has open was filled or cancelled meanwhile: say which.
async fn after_reject(app: &App, signed: &Signed, id: &str, reject: Reject) -> Result<ApiError, ApiError> {
    if reject == Reject::UnknownOrder {
        let row = own(app, signed, id).await?;
        if !row.is_open() {
            return Ok(not_open(&row));
        }
    }
    Ok(ApiError::rejected(reject))
}

fn not_open(row: &OrderRow) -> ApiError {
    if row.status == "cancelled" {
        return ApiError::conflict("ORDER_ALREADY_CANCELLED", "the order is cancelled already");
    }
    ApiError::conflict("ORDER_NOT_CANCELLABLE", format!("the order is {}", row.status))
}

async fn cancel_where(app: &App, signed: &Signed, instrument: Option<InstrumentId>) -> Reply {
    app.may_trade(signed.account)?;
    let command = Command::MassCancel(MassCancelScope { instrument, ..MassCancelScope::default() });
    match app.submit(signed.account, command).await?.outcome {
        Outcome::MassCancelled { count } => data(json!({ "cancelled": count })),
        other => Err(ApiError::fault(format!("a mass cancel was answered with {other:?}"))),
    }
}

/// `DELETE /orders`.
pub(super) async fn cancel_all(State(app): State<App>, signed: Signed) -> Reply {
    let market = signed.query.get("market_id").map(ids::decode_market);
    let instrument = match market {
        None => None,
        Some(id) => Some(app.instrument(id, "MARKET_NOT_FOUND", |found| found.id)?),
    };
    cancel_where(&app, &signed, instrument).await
}

/// `DELETE /markets/{id}/orders`.
pub(super) async fn cancel_in_market(State(app): State<App>, Name(id): Name, signed: Signed) -> Reply {
    let instrument = app.instrument(ids::decode_market(&id), "MARKET_NOT_FOUND", |found| found.id)?;
    cancel_where(&app, &signed, Some(instrument)).await
}

/// `GET /orders/count`.
pub(super) async fn count(State(app): State<App>, signed: Signed) -> Reply {
    let mut by_market = std::collections::BTreeMap::<InstrumentId, u64>::new();
    app.view().look(|engine| {
        for (instrument, _) in engine.state().open_orders(signed.account) {
            *by_market.entry(instrument).or_default() += 1;
        }
    });
    let rows: Vec<Value> = by_market
        .iter()
        .map(|(instrument, count)| json!({ "market_id": ids::market(*instrument), "count": count }))
        .collect();
    data(json!({ "count": by_market.values().sum::<u64>(), "by_market": rows }))
}

const fn tif_text(tif: TimeInForce) -> &'static str {
    match tif {
        TimeInForce::Gtc | TimeInForce::PostOnly => "gtc",
        TimeInForce::Ioc => "ioc",
        TimeInForce::Fok => "fok",
        TimeInForce::Day => "day",
    }
}

/// The order object (contract §5.3). What is not on record is null.
fn show(app: &App, row: &OrderRow) -> Value {
    let named = app.instrument(Some(row.instrument), "", |found: &Instrument| {
        (found.spec.symbol.clone(), found.spec.name.clone(), found.spec.market.tick)
    });
    let (symbol, name, tick) = named.unwrap_or_default();
    let id = ids::order(row.id);
    let average = (!row.filled.is_zero() && !row.partly).then(|| {
        let filled = i128::from(row.filled.0);
        nanos_text((i128::from(row.value.0) + filled / 2) / filled)
    });
    json!({
        "order_id": id,
        "id": id,
        "client_order_id": if row.tag.is_empty() { Value::Null } else { row.tag.as_str().into() },
        "market_id": ids::market(row.instrument),
        "market_name": format!("{}/USD", symbol.to_uppercase()),
        "instrument_id": ids::instrument(row.instrument),
        "instrument_symbol": symbol,
        "instrument_name": name,
        "trader_id": ids::user(row.account),
        "side": side_text(row.side),
        "type": if row.price.is_some() { "limit" } else { "market" },
        "status": row.status,
        "quantity": row.qty.0.to_string(),
        "filled_quantity": (!row.end_missing).then_some(row.filled.0),
        "remaining_quantity": (!row.end_missing).then(|| row.qty.0.saturating_sub(row.filled.0)),
        "price": row.price.map(|price| price_text(price, tick)),
        "average_price": average,
        "stop_price": Value::Null,
        "fee": (!row.partly).then(|| row.fee.to_string()),
        "time_in_force": tif_text(row.tif),
        "post_only": row.tif == TimeInForce::PostOnly,
        "closure_reason": if row.end_missing { Some("not_recorded") } else { row.closure },
        "submitted_at": iso(row.submitted_at),
        "closed_at": row.closed_at.filter(|_| !row.end_missing).map(iso),
        "created_at": iso(row.submitted_at),
        "updated_at": iso(row.updated_at),
    })
}
