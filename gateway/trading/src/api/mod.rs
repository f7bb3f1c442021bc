//! The paths of contract §5 and their handlers, one room per resource.

mod accounts;
mod attestations;
mod charges;
mod consumption;
mod liability;
mod markets;
mod orders;
mod platform;
mod reload;
mod service;
mod supply;
mod trades;
mod transfers;

use axum::Router;
use axum::routing::{delete, get, patch, post};
use grid_engine::command::Side;

use crate::answer::ApiError;
use crate::app::App;
use crate::history::{Rows, Slice, SliceFrom};
use crate::ids::{self, Kind};
use crate::page::{Cursor, Page, Position};
use crate::server::{unknown_method, unknown_path};

/// Every path of the Trading and the Platform API; one router serves both hosts.
pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route("/health", get(service::health))
        .route("/me", get(service::me))
        .route("/account/limits", get(service::limits))
        .route("/diagnostics", get(service::diagnostics))
        .route("/orders", get(orders::list).post(orders::place).delete(orders::cancel_all))
        .route("/orders/count", get(orders::count))
        .route("/orders/{id}", get(orders::one).put(orders::update).delete(orders::cancel))
        .route("/markets", get(markets::list))
        .route("/markets/{id}", get(markets::one))
        .route("/markets/{id}/orders", delete(orders::cancel_in_market))
        .route("/markets/{id}/ticker", get(markets::ticker))
        .route("/markets/{id}/orderbook", get(markets::orderbook))
        .route("/markets/{id}/trades", get(markets::trades))
        .route("/markets/{id}/stats", get(markets::stats))
        .route("/price-histories", get(markets::price_histories))
        .route("/price_histories", get(markets::price_histories))
        .route("/instruments", get(markets::instruments))
        .route("/instruments/{id}", get(markets::instrument))
        .route("/instruments/by-symbol/{symbol}", get(markets::instrument_by_symbol))
        .route("/trades", get(trades::list))
        .route("/trades/{id}", get(trades::one))
        .route("/trading-accounts", get(accounts::trading))
        .route("/trading-accounts/{id}", get(accounts::trading_one))
        .route("/currency-trading-accounts", get(accounts::currency))
        .route("/currency-trading-accounts/{id}", get(accounts::currency_one))
        .route("/consumption-accounts", get(accounts::consumption))
        .route("/consumption-accounts/{id}", get(accounts::consumption_one))
        .route("/issuance-accounts", get(accounts::issuance))
        .route("/issuance-accounts/transfer", post(supply::transfer))
        .route("/positions", get(accounts::positions))
        .route("/consumption/stats", get(consumption::stats))
        .route("/accounts/lots", get(accounts::lots))
        .route("/accounts/lots/{id}", get(accounts::lot))
        .route("/transfers/trading-to-consumption", post(transfers::to_consumption))
        .route("/transfers/consumption-to-trading", post(transfers::to_trading))
        .route("/transfer-histories", get(transfers::list))
        .route("/transfers/histories", get(transfers::list))
        .route("/supply-issuances", get(supply::list).post(supply::issue))
        .route("/supply-issuances/summary", get(supply::summary))
        .route("/supplier-liability", get(liability::list))
        .route("/supplier-liability/{id}", get(liability::one))
        .route("/charges", get(charges::list))
        .route("/attestations", get(attestations::list).post(attestations::submit))
        .route("/api-keys", get(platform::api_keys).post(platform::create_api_key))
        .route("/api-keys/{id}", delete(platform::revoke_api_key))
        .route("/signing-keys", get(platform::signing_keys).post(platform::create_signing_key))
        .route("/signing-keys/{id}", delete(platform::revoke_signing_key))
        .route("/self/system-settings", get(platform::settings))
        .route("/self/system-settings/account-mode", post(platform::set_mode))
        .route("/self/system-settings/auto-buy", patch(platform::set_auto_buy))
        .route("/self/system-settings/auto_reload", patch(reload::set))
        .route("/funding-histories", get(reload::statement))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .with_state(app)
}

/// Buy or sell, as the API spells it.
const fn side_text(side: Side) -> &'static str {
    match side {
        Side::Buy => "buy",
        Side::Sell => "sell",
    }
}

/// Reads a side.
fn side(text: &str) -> Result<Side, ApiError> {
    match text {
        "buy" => Ok(Side::Buy),
        "sell" => Ok(Side::Sell),
        _ => Err(ApiError::unprocessable("VALIDATION_ERROR", "side must be buy or sell")),
    }
}

/// The page's place in a table of the history; `row` gives the number of the row that a cursor names.
fn slice(page: &Page, row: impl Fn(&Cursor) -> Option<u64>) -> Result<Slice, ApiError> {
    let find = |cursor: &Cursor| row(cursor).ok_or_else(stale_cursor);
    let from = match &page.from {
        Position::Start => SliceFrom::Start,
        Position::After(cursor) => SliceFrom::After(find(cursor)?),
        Position::Before(cursor) => SliceFrom::Before(find(cursor)?),
    };
    Ok(Slice { limit: page.limit, offset: page.offset, from, descending: page.descending })
}

/// A slice whose cursors name rows by one kind of id.
fn slice_by(page: &Page, kind: Kind) -> Result<Slice, ApiError> {
    slice(page, |cursor| ids::decode(kind, &cursor.id))
}

/// Rows of the history as a page of the API.
fn page_of<T>(
    page: &Page,
    rows: Option<Rows<T>>,
    cursor: impl Fn(&T) -> Cursor,
    show: impl Fn(&T) -> serde_json::Value,
) -> crate::answer::Reply {
    let rows = rows.ok_or_else(stale_cursor)?;
    let (first, last) = (rows.rows.first().map(&cursor), rows.rows.last().map(&cursor));
    let shown = rows.rows.iter().map(show).collect();
    Ok(page.reply(shown, rows.more_before, rows.more_after, first, last))
}

fn stale_cursor() -> ApiError {
    ApiError::malformed("the cursor names no row of this list")
}
