//! Markets, their data, and instruments (contract §5.4, §5.5). An instrument and its one market share a number.

use axum::extract::State;
use grid_engine::command::Side;
use grid_engine::instrument::{InstrumentStatus, Movement};
use grid_engine::state::{Instrument, State as Venue};
use grid_engine::units::{DAY, SECOND, TOKENS_PER_UNIT};
use grid_engine::{InstrumentId, Nanos, Price, TradeId, Usd};
use serde_json::{Value, json};

use super::side_text;
use crate::answer::{ApiError, Reply, data};
use crate::app::{App, Name, Signed};
use crate::decimal::{nanos_text, price_text};
use crate::history::{Since, Window};
use crate::ids::{self, Kind, USD};
use crate::page::{Cursor, LIMIT_MAX, Page, Position};
use crate::time::{self, iso, iso_or_null};

/// Most windows in one answer of price histories.
const CANDLES_MAX: usize = 1_000;

fn market_of(app: &App, id: &str) -> Result<InstrumentId, ApiError> {
    app.instrument(ids::decode_market(id), "MARKET_NOT_FOUND", |found| found.id)
}

const fn status_text(status: InstrumentStatus) -> &'static str {
    match status {
        InstrumentStatus::Live => "active",
        InstrumentStatus::Preview => "inactive",
        InstrumentStatus::Halted => "suspended",
    }
}

fn show_market(instrument: &Instrument) -> Value {
    let terms = &instrument.spec.market;
    let id = ids::instrument(instrument.id);
    let description = &instrument.spec.description;
    json!({
        "market_id": ids::market(instrument.id),
        "name": format!("{}/USD", instrument.spec.symbol.to_uppercase()),
        "description": if description.is_empty() { Value::Null } else { description.as_str().into() },
        "market_type": "spot",
        "status": status_text(instrument.spec.status),
        "associated_instruments": [id],
        "instruments": [{
            "instrument_id": id,
            "instrument_type": "ai_commodity",
            "symbol": instrument.spec.symbol,
            "name": instrument.spec.name,
        }],
        "order_controls": {
            "tick_size": terms.tick.to_string(),
            "lot_size": terms.lot.0.to_string(),
            "min_order_size": terms.min_qty.0.to_string(),
            "max_order_size": terms.max_qty.0.to_string(),
            "max_price": price_text(terms.max_price, terms.tick),
            "maker_fee_bps": terms.maker_fee_bps,
            "taker_fee_bps": terms.taker_fee_bps,
        },
        "created_at": iso(instrument.created_at),
        "updated_at": iso(instrument.updated_at),
    })
}

/// `GET /markets`.
pub(super) async fn list(State(app): State<App>, signed: Signed) -> Reply {
    let query = &signed.query;
    let page = Page::parse(query, LIMIT_MAX, &["created_at", "updated_at", "name", "status"])?;
    let rows = app
        .view()
        .look(|engine| -> Vec<Value> { engine.state().instruments.iter().map(show_market).collect() });
    let rows = rows
        .into_iter()
        .filter(|row| matches(query, row, &["status", "market_type", "name"]))
        .filter(|row| {
            query.get("market_id").is_none_or(|id| {
                ids::decode_market(id).map(ids::market).as_deref() == row["market_id"].as_str()
            })
        })
        .filter(|row| {
            query.get("instrument_id").is_none_or(|id| {
                ids::decode_instrument(id).map(ids::instrument).as_deref()
                    == row["associated_instruments"][0].as_str()
            })
        })
        .collect();
    page.of_rows(rows, "market_id")
}

/// True when every one of these members that the query names has the value that it names.
pub(super) fn matches(query: &crate::query::Query, row: &Value, members: &[&str]) -> bool {
    members.iter().all(|member| {
        query.get(member).is_none_or(|wanted| {
            row[*member].as_str().is_some_and(|value| value.eq_ignore_ascii_case(wanted))
        })
    })
}

/// `GET /markets/{id}`.
pub(super) async fn one(State(app): State<App>, Name(id): Name, _signed: Signed) -> Reply {
    data(app.instrument(ids::decode_market(&id), "MARKET_NOT_FOUND", show_market)?)
}

fn day_ago() -> Nanos {
    Nanos(time::now().0.saturating_sub(DAY))
}

/// Difference of two prices in dollars, and in percent of the first with two decimals.
fn change(window: &Window, tick: Usd) -> (String, String) {
    let ticks = i128::from(window.close.0) - i128::from(window.open.0);
    let hundredths = if window.open.is_zero() { 0 } else { ticks * 10_000 / i128::from(window.open.0) };
    (nanos_text(ticks * i128::from(tick.0)), nanos_text(hundredths * 10_000_000))
}

/// Units and dollars traded; `None` where that is not all on record.
const fn volume(since: Since) -> Option<(u64, Usd)> {
    match since {
        Since::Nothing => Some((0, Usd(0))),
        Since::Traded(window) => Some((window.volume.0, window.value)),
        Since::Unknown => None,
    }
}

/// `GET /markets/{id}/ticker`.
pub(super) async fn ticker(State(app): State<App>, Name(id): Name, _signed: Signed) -> Reply {
    let market = market_of(&app, &id)?;
    let window = app.history().window(market, day_ago()).await?;
    let (instrument, bid, ask) = app.view().look(|engine| {
        let state = engine.state();
        let best = |side| state.book(market).and_then(|book| book.best(side)).map(|level| level.price);
        (state.instrument(market).cloned(), best(Side::Buy), best(Side::Sell))
    });
    let instrument = instrument.ok_or_else(|| ApiError::not_found("MARKET_NOT_FOUND"))?;
    let tick = instrument.spec.market.tick;
    let text = |price: Option<Price>| price.map(|price| price_text(price, tick));
    let mut row = json!({
        "market_id": ids::market(market),
        "symbol": instrument.spec.symbol,
        "last_price": text(instrument.last_trade.map(|trade| trade.price)),
        "last_trade_quantity": instrument.last_trade.map(|trade| trade.qty.0),
        "last_trade_timestamp": instrument.last_trade.map(|trade| iso(trade.at)),
        "highest_bid": text(bid),
        "lowest_ask": text(ask),
        "bid": text(bid),
        "ask": text(ask),
        "volume_24h": volume(window).map(|(units, _)| units),
        "quote_volume_24h": volume(window).map(|(_, value)| value.to_string()),
        "timestamp": iso(time::now()),
    });
    if let Some(window) = window.window() {
        let (difference, percent) = change(&window, tick);
        row["high_24h"] = price_text(window.high, tick).into();
        row["low_24h"] = price_text(window.low, tick).into();
        row["price_change_24h"] = difference.into();
        row["price_change_percent_24h"] = percent.into();
    }
    data(row)
}

/// `GET /markets/{id}/orderbook`.
pub(super) async fn orderbook(State(app): State<App>, Name(id): Name, signed: Signed) -> Reply {
    let market = market_of(&app, &id)?;
    let depth = match signed.query.get("depth").or_else(|| signed.query.get("limit")) {
        None => 20,
        Some(text) => text.parse().map_err(|_| ApiError::malformed("depth is not a whole number"))?,
    };
    if !(1..=100).contains(&depth) {
        return Err(ApiError::unprocessable("VALIDATION_ERROR", "depth must be between 1 and 100"));
    }
    let book = app.view().look(|engine| {
        let state = engine.state();
        let (Some(book), Some(instrument)) = (state.book(market), state.instrument(market)) else {
            return Value::Null;
        };
        let tick = instrument.spec.market.tick;
        let levels = |side: Side| -> Vec<Value> {
            let mut total = 0u64;
            let mut show = |level: grid_engine::book::Level| {
                total = total.saturating_add(level.qty.0);
                json!({
                    "price": price_text(level.price, tick),
                    "quantity": level.qty.0,
                    "total": total,
                    "order_count": level.orders,
                })
            };
            book.levels(side).take(depth).map(&mut show).collect()
        };
        json!({ "market_id": ids::market(market), "buy": levels(Side::Buy), "sell": levels(Side::Sell), "sequence": state.seq.0 })
    });
    data(book)
}

/// `GET /markets/{id}/trades`, newest first.
pub(super) async fn trades(State(app): State<App>, Name(id): Name, signed: Signed) -> Reply {
    let market = market_of(&app, &id)?;
    let page = Page::parse(&signed.query, LIMIT_MAX, &["execution_timestamp"])?;
    let before = match &page.from {
        Position::Start => None,
        Position::After(cursor) => Some(
            ids::decode(Kind::Trade, &cursor.id)
                .map(TradeId)
                .ok_or_else(|| ApiError::malformed("the cursor names no trade"))?,
        ),
        Position::Before(_) => {
            return Err(ApiError::malformed("public trades are read from the newest on, with next"));
        }
    };
    let (symbol, tick) = app.instrument(Some(market), "MARKET_NOT_FOUND", |found| {
        (found.spec.symbol.clone(), found.spec.market.tick)
    })?;
    let mut tape = app.history().tape(market, page.limit + 1, before).await?;
    let more = tape.len() > page.limit;
    tape.truncate(page.limit);
    let last = tape.last().map(|trade| Cursor::at(&ids::trade(trade.trade)));
    let rows = tape.iter().map(|trade| {
        json!({
            "trade_id": ids::trade(trade.trade),
            "market_id": ids::market(trade.instrument),
            "instrument_id": ids::instrument(trade.instrument),
            "instrument_symbol": symbol,
            "price": price_text(trade.price, tick),
            "quantity": trade.qty.0,
            "total_value": trade.value.to_string(),
            "side": side_text(trade.aggressor),
            "status": "settled",
            "execution_timestamp": iso(trade.at),
            "settlement_timestamp": iso(trade.at),
        })
    });
    Ok(page.reply(rows.collect(), false, more, None, last))
}

/// `GET /markets/{id}/stats`.
pub(super) async fn stats(State(app): State<App>, Name(id): Name, _signed: Signed) -> Reply {
    let market = market_of(&app, &id)?;
    let (tick, last) = app.instrument(Some(market), "MARKET_NOT_FOUND", |found| {
        (found.spec.market.tick, found.last_trade.map(|trade| trade.price))
    })?;
    let window = app.history().window(market, day_ago()).await?;
    let traded = volume(window);
    let window = window.window();
    let changed = window.map(|window| change(&window, tick));
    let text = |price: Option<Price>| price.map(|price| price_text(price, tick));
    data(json!({
        "market_id": ids::market(market),
        "current_price": text(last),
        "price_change_24h": changed.as_ref().map(|(difference, _)| difference),
        "price_change_24h_percent": changed.as_ref().map(|(_, percent)| percent),
        "high_24h": text(window.map(|window| window.high)),
        "low_24h": text(window.map(|window| window.low)),
        "volume_24h": traded.map(|(units, _)| units),
        "volume_24h_tokens": traded.map(|(units, _)| units.saturating_mul(TOKENS_PER_UNIT)),
        "volume_24h_value": traded.map(|(_, value)| value.to_string()),
    }))
}

/// The window of a fixed length that holds a moment. Weeks begin on Monday; 1970-01-01 was a Thursday.
fn fixed(at: Nanos, step: u64) -> (Nanos, Nanos) {
    let shift = if step == 7 * DAY { 3 * DAY } else { 0 };
    let start = ((at.0 + shift) / step * step).saturating_sub(shift);
    (Nanos(start), Nanos(start + step))
}

fn calendar_month(at: Nanos, _step: u64) -> (Nanos, Nanos) {
    time::month(at)
}

/// `GET /price-histories`.
pub(super) async fn price_histories(State(app): State<App>, signed: Signed) -> Reply {
    let query = &signed.query;
    let id = query.get("market_id").ok_or_else(|| ApiError::malformed("market_id is required"))?;
    let market = market_of(&app, id)?;
    let resolution = query.get("resolution").unwrap_or("1h");
    let minute = 60 * SECOND;
    let step = match resolution {
        "1m" => minute,
        "5m" => 5 * minute,
        "15m" => 15 * minute,
        "30m" => 30 * minute,
        "1h" => 60 * minute,
        "4h" => 240 * minute,
        "1d" => DAY,
        "1w" => 7 * DAY,
        "1M" => 0,
        _ => {
            let text = "resolution must be 1m, 5m, 15m, 30m, 1h, 4h, 1d, 1w or 1M";
            return Err(ApiError::unprocessable("VALIDATION_ERROR", text));
        }
    };
    let (from, to) = query.range("from", "to", &["period_start", "time"])?;
    let bounds: fn(Nanos, u64) -> (Nanos, Nanos) = if step == 0 { calendar_month } else { fixed };
    let (from, to) = (from.unwrap_or_default(), to.unwrap_or(Nanos(i64::MAX as u64)));
    // A window counts when it begins in the range, and then whole.
    let from = match bounds(from, step) {
        (start, _) if start == from => start,
        (_, end) => end,
    };
    let to = if to.0 > 4_000_000_000 * SECOND { to } else { bounds(to, step).1 };
    let tick = app.instrument(Some(market), "MARKET_NOT_FOUND", |found| found.spec.market.tick)?;
    let limit = match query.get("limit").or_else(|| query.get("page_size")) {
        None => CANDLES_MAX,
        Some(text) => {
            let limit: usize =
                text.parse().map_err(|_| ApiError::malformed("limit is not a whole number"))?;
            limit.clamp(1, CANDLES_MAX)
        }
    };
    let candles = app.history().candles(market, (from, to), bounds, step, limit).await?;
    let rows: Vec<Value> = candles
        .iter()
        .map(|candle| {
            let window = &candle.window;
            json!({
                "market_id": ids::market(market),
                "resolution": resolution,
                "period_start": iso(candle.start),
                "period_end": iso(candle.end),
                "time": iso(candle.start),
                "open": price_text(window.open, tick),
                "high": price_text(window.high, tick),
                "low": price_text(window.low, tick),
                "close": price_text(window.close, tick),
                "volume": window.volume.0,
                "quote_volume": window.value.to_string(),
                "trade_count": window.trades,
                "num_trades": window.trades,
            })
        })
        .collect();
    data(rows)
}

/// The models that may fill an instrument now: those that suppliers on the roster offer for it.
fn qualifying_models(venue: &Venue, instrument: InstrumentId) -> Vec<String> {
    let offers = venue.suppliers.iter().filter(|(id, _)| !venue.is_suspended(**id, instrument));
    let models = offers
        .flat_map(|(_, supplier)| &supplier.profile.offers)
        .filter(|offer| offer.instrument == instrument)
        .map(|offer| offer.model.clone());
    models.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}

/// The instrument record (contract §2.6).
fn show_instrument(venue: &Venue, instrument: &Instrument, since: Since) -> Value {
    let window = since.window();
    let (spec, quality, terms) = (&instrument.spec, &instrument.spec.quality, &instrument.spec.market);
    let service = match spec.symbol.split('-').next() {
        Some("code") => "code_generation",
        Some("agent") => "agentic_generation",
        _ => "text_generation",
    };
    let price = |price: Option<Price>| price.map(|price| price_text(price, terms.tick));
    json!({
        "instrument_id": ids::instrument(instrument.id),
        "symbol": spec.symbol,
        "name": spec.name,
        "instrument_type": "ai_commodity",
        "description": if spec.description.is_empty() { Value::Null } else { spec.description.as_str().into() },
        "status": if spec.status == InstrumentStatus::Live { "active" } else { "inactive" },
        "precision": 0,
        "is_active": spec.status == InstrumentStatus::Live,
        "market_id": ids::market(instrument.id),
        "basic_info": { "service_type": service },
        "ai_specs": {
            "context_window": quality.context_floor,
            "token_throughput": quality.tokens_per_second_floor,
            "tokens_per_unit": TOKENS_PER_UNIT,
            "unit_definition": "1,000,000 tokens, input and output counted alike",
            "qualifying_models": qualifying_models(venue, instrument.id),
            "max_output_length": quality.output_floor,
        },
        "sla_requirements": {
            "availability_target": Value::Null,
            "max_latency_ms": quality.ttft_ceiling_ms,
            "quality_score_min": quality.score_floor,
            "quality_index": quality.index,
        },
        "delivery": {
            "movement": match spec.delivery.movement {
                Movement::AtFill => "at_fill",
                Movement::Swept => "swept",
            },
            "window_seconds": spec.delivery.window.map(|window| window.0 / SECOND),
        },
        "trading_params": {
            "min_quantity": terms.min_qty.0,
            "max_quantity": terms.max_qty.0,
            "quantity_increment": terms.lot.0,
        },
        "last_trade_price": price(instrument.last_trade.map(|trade| trade.price)),
        "last_trade_at": instrument.last_trade.map(|trade| iso(trade.at)),
        "last_quote_at": last_quote_at(venue, instrument.id),
        "price_range_24h_high": price(window.map(|window| window.high)),
        "price_range_24h_low": price(window.map(|window| window.low)),
        "volume_24h": volume(since).map(|(units, _)| units.to_string()),
        "total_volume": instrument.volume.0.to_string(),
        "total_trades": instrument.trades,
        "total_quotes": venue.book(instrument.id).map_or(0, grid_engine::book::BookView::len),
        "created_at": iso(instrument.created_at),
        "updated_at": iso(instrument.updated_at),
    })
}

/// When the newest order at the touch was entered or changed.
fn last_quote_at(venue: &Venue, instrument: InstrumentId) -> Value {
    let Some(book) = venue.book(instrument) else {
        return Value::Null;
    };
    let touch = [Side::Buy, Side::Sell].into_iter().filter_map(|side| book.best(side));
    let newest = touch.flat_map(|level| book.orders_at(level)).map(|order| order.updated_at).max();
    iso_or_null(newest.unwrap_or_default())
}

/// US dollars as an instrument of their own; not in the list unless asked for by type.
fn show_usd() -> Value {
    json!({
        "instrument_id": ids::instrument(USD),
        "symbol": "usd",
        "name": "US Dollar",
        "instrument_type": "currency",
        "description": Value::Null,
        "status": "active",
        "precision": 9,
        "is_active": true,
        "basic_info": { "currency_code": "USD", "precision": 9 },
    })
}

async fn full_record(app: &App, id: InstrumentId) -> Result<Value, ApiError> {
    let window = app.history().window(id, day_ago()).await?;
    let shown = app.view().look(|engine| {
        let venue = engine.state();
        venue.instrument(id).map(|found| show_instrument(venue, found, window))
    });
    shown.ok_or_else(|| ApiError::not_found("INSTRUMENT_NOT_FOUND"))
}

/// `GET /instruments`.
pub(super) async fn instruments(State(app): State<App>, signed: Signed) -> Reply {
    let query = &signed.query;
    let page = Page::parse(query, LIMIT_MAX, &["created_at", "updated_at", "symbol", "name", "status"])?;
    let kind = query.get("instrument_type").unwrap_or("ai_commodity");
    let mut rows = Vec::new();
    match kind {
        "ai_commodity" => {
            let all = app.view().look(|engine| -> Vec<InstrumentId> {
                engine.state().instruments.iter().map(|found| found.id).collect()
            });
            for id in all {
                rows.push(full_record(&app, id).await?);
            }
        }
        "currency" => rows.push(show_usd()),
        "token" => {}
        _ => {
            let text = "instrument_type must be ai_commodity, currency or token";
            return Err(ApiError::unprocessable("VALIDATION_ERROR", text));
        }
    }
    rows.retain(|row| matches(query, row, &["symbol", "status", "name"]));
    page.of_rows(rows, "instrument_id")
}

/// `GET /instruments/{id}`.
pub(super) async fn instrument(State(app): State<App>, Name(id): Name, _signed: Signed) -> Reply {
    match ids::decode_instrument(&id) {
        Some(USD) => data(show_usd()),
        Some(id) => data(full_record(&app, id).await?),
        None => Err(ApiError::not_found("INSTRUMENT_NOT_FOUND")),
    }
}

/// `GET /instruments/by-symbol/{symbol}`.
pub(super) async fn instrument_by_symbol(
    State(app): State<App>,
    Name(symbol): Name,
    _signed: Signed,
) -> Reply {
    if symbol.eq_ignore_ascii_case("usd") {
        return data(show_usd());
    }
    let id = app.view().look(|engine| engine.state().instrument_by_symbol(&symbol).map(|found| found.id));
    match id {
        Some(id) => data(full_record(&app, id).await?),
        None => Err(ApiError::not_found("INSTRUMENT_NOT_FOUND")),
    }
}
