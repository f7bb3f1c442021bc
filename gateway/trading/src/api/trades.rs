//! `/trades`: the caller's own fills (contract §5.6).

use axum::extract::State;
use grid_engine::{OrderId, TradeId};
use serde_json::{Value, json};

use super::{page_of, side, side_text, slice};
use crate::answer::{ApiError, Reply, data};
use crate::app::{App, Name, Signed};
use crate::decimal::price_text;
use crate::history::{Fill, FillFilter, Slice, SliceFrom};
use crate::ids::{self, Kind};
use crate::page::{Cursor, LIMIT_MAX, Page};
use crate::time::iso;
use grid_engine::command::Side;

fn show(app: &App, fill: &Fill) -> Value {
    let named = app.instrument(Some(fill.instrument), "", |found| {
        (found.spec.symbol.clone(), found.spec.name.clone(), found.spec.market.tick)
    });
    let (symbol, name, tick) = named.unwrap_or_default();
    let id = ids::trade(fill.trade);
    json!({
        "trade_id": id,
        "id": id,
        "market_id": ids::market(fill.instrument),
        "market_name": format!("{}/USD", symbol.to_uppercase()),
        "instrument_id": ids::instrument(fill.instrument),
        "instrument_symbol": symbol,
        "instrument_name": name,
        "price": price_text(fill.price, tick),
        "quantity": fill.qty.0,
        "total_value": fill.value.to_string(),
        "fee": fill.fee.to_string(),
        "side": side_text(fill.side),
        "status": "settled",
        "order_id": ids::order(fill.order),
        "trading_account_id": ids::trading_account(fill.account, fill.instrument),
        "execution_timestamp": iso(fill.at),
        "settlement_timestamp": iso(fill.at),
    })
}

fn cursor(fill: &Fill) -> Cursor {
    Cursor {
        id: ids::trade(fill.trade),
        side: Some(if fill.id.is_multiple_of(2) { "taker" } else { "maker" }.into()),
    }
}

/// The row that a cursor names. Of a cursor without a side, the maker's row: later of the two.
fn row_of(cursor: &Cursor) -> Option<u64> {
    let trade = ids::decode(Kind::Trade, &cursor.id)?;
    let maker = u64::from(cursor.side.as_deref() != Some("taker"));
    trade.checked_mul(2)?.checked_add(maker)
}

/// `GET /trades`. A trade is settled in the moment in which it is executed, so `status` other than `settled` and
/// `executed` finds nothing.
pub(super) async fn list(State(app): State<App>, signed: Signed) -> Reply {
    let query = &signed.query;
    let page = Page::parse(
        query,
        LIMIT_MAX,
        &["execution_timestamp", "created_at", "inserted_at", "price", "quantity", "total_value"],
    )?;
    let (from, to) = query.range("start_datetime", "end_datetime", &["execution_timestamp"])?;
    let market = query.get("market_id").map(ids::decode_market);
    let instrument = query.get("instrument_id").map(ids::decode_instrument);
    let order = |name: &str| query.get(name).map(|id| ids::decode(Kind::Order, id).map(OrderId));
    let trade = query.get("trade_id").map(|id| ids::decode(Kind::Trade, id).map(TradeId));
    let mut filter = FillFilter {
        instrument: market.or(instrument).flatten(),
        trade: trade.flatten(),
        side: query.get("side").map(side).transpose()?,
        from,
        to,
        ..FillFilter::default()
    };
    let mut impossible = market == Some(None)
        || instrument == Some(None)
        || (market.is_some() && instrument.is_some() && market != instrument)
        || trade == Some(None)
        || query.get("status").is_some_and(|status| !matches!(status, "settled" | "executed"));
    for (name, side, taker) in [
        ("order_id", None, None),
        ("buyer_order_id", Some(Side::Buy), None),
        ("seller_order_id", Some(Side::Sell), None),
        ("triggering_order_id", None, Some(true)),
    ] {
        let Some(id) = order(name) else { continue };
        impossible |= id.is_none()
            || filter.order.is_some_and(|other| Some(other) != id)
            || (side.is_some() && filter.side.is_some() && filter.side != side);
        filter.order = id;
        filter.side = filter.side.or(side);
        filter.taker = filter.taker.or(taker);
    }
    if impossible {
        return page.of_rows(Vec::new(), "trade_id");
    }
    let slice = slice(&page, row_of)?;
    let rows = app.history().fills(signed.account, filter, page.order_by, slice).await?;
    page_of(&page, rows, cursor, |fill| show(&app, fill))
}

/// `GET /trades/{id}`; of a trade with oneself the incoming side.
pub(super) async fn one(State(app): State<App>, Name(id): Name, signed: Signed) -> Reply {
    let not_found = || ApiError::not_found("TRADE_NOT_FOUND");
    let trade = ids::decode(Kind::Trade, &id).ok_or_else(not_found)?;
    let filter = FillFilter { trade: Some(TradeId(trade)), ..FillFilter::default() };
    let first = Slice { limit: 1, offset: 0, from: SliceFrom::Start, descending: false };
    let rows = app.history().fills(signed.account, filter, "execution_timestamp", first).await?;
    let fill = rows.and_then(|rows| rows.rows.into_iter().next()).ok_or_else(not_found)?;
    data(show(&app, &fill))
}
