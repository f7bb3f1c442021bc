//! What suppliers issue and owe (contract §5.9).

use axum::extract::State;
use axum::http::StatusCode;
use grid_engine::command::Command;
use grid_engine::state::{Instrument, Supply};
use grid_engine::{InstrumentId, Qty};
use serde_json::{Value, json};

use super::transfers::UnitsBody;
use super::{page_of, slice_by};
use crate::answer::{ApiError, Reply, data, data_as, respond};
use crate::app::{App, Signed};
use crate::decimal::tokens_number;
use crate::door::Outcome;
use crate::history::IssuanceRow;
use crate::ids::{self, Kind};
use crate::page::{Cursor, LIMIT_MAX, Page};
use crate::time::iso;

fn show(row: &IssuanceRow) -> Value {
    json!({
        "id": ids::encode(Kind::SupplyIssuance, row.id),
        "issuance_account_id": ids::encode_pair(Kind::IssuanceAccount, row.account, row.instrument),
        "instrument_id": ids::instrument(row.instrument),
        "quantity": row.qty.0,
        "status": "completed",
        "created_at": iso(row.at),
    })
}

/// `GET /supply-issuances`.
pub(super) async fn list(State(app): State<App>, signed: Signed) -> Reply {
    let query = &signed.query;
    let page = Page::parse(query, LIMIT_MAX, &["created_at", "inserted_at"])?;
    let instrument = query.get("instrument_id").map(ids::decode_instrument);
    if instrument == Some(None) || query.get("status").is_some_and(|status| status != "completed") {
        return page.of_rows(Vec::new(), "id");
    }
    let slice = slice_by(&page, Kind::SupplyIssuance)?;
    let rows = app.history().issuances(signed.account, instrument.flatten(), slice).await?;
    page_of(&page, rows, |row| Cursor::at(&ids::encode(Kind::SupplyIssuance, row.id)), show)
}

/// `POST /supply-issuances`.
pub(super) async fn issue(State(app): State<App>, signed: Signed) -> Reply {
    let body: UnitsBody = signed.json()?;
    let (instrument, qty) = body.read(&app)?;
    let answer = app.submit(signed.account, Command::Issue { instrument, qty }).await?;
    match answer.outcome {
        Outcome::Done { created } => {
            let row = IssuanceRow { id: created, account: signed.account, instrument, qty, at: answer.at };
            data_as(StatusCode::CREATED, show(&row))
        }
        other => Err(ApiError::fault(format!("an issuance was answered with {other:?}"))),
    }
}

/// The caller's supply per instrument, as rows; 403 for who is no supplier.
fn supply_rows(
    app: &App,
    signed: &Signed,
    show: impl Fn(InstrumentId, &Instrument, &Supply, Qty) -> Value,
) -> Result<Vec<Value>, ApiError> {
    let rows = app.view().look(|engine| {
        let venue = engine.state();
        venue.suppliers.get(&signed.account)?;
        let rows = venue.supplies.of(signed.account).filter_map(|(id, supply)| {
            let waiting = venue.holding(signed.account, id).map_or(Qty::ZERO, |holding| holding.issuance);
            venue.instrument(id).map(|found| show(id, found, supply, waiting))
        });
        Some(rows.collect())
    });
    rows.ok_or_else(|| ApiError::rejected(grid_engine::Reject::NotASupplier))
}

/// `GET /supply-issuances/summary`.
pub(super) async fn summary(State(app): State<App>, signed: Signed) -> Reply {
    data(supply_rows(&app, &signed, |id, found, supply, waiting| {
        json!({
            "instrument_id": ids::instrument(id),
            "instrument_symbol": found.spec.symbol,
            "instrument_name": found.spec.name,
            "total_issued": tokens_number(supply.issued.0),
            "units_available": waiting.0,
            "units_transferred_to_trading": supply.moved_to_trading.0,
        })
    })?)
}

/// `POST /issuance-accounts/transfer`.
pub(super) async fn transfer(State(app): State<App>, signed: Signed) -> Reply {
    let body: UnitsBody = signed.json()?;
    let (instrument, qty) = body.read(&app)?;
    if let Some(account) = body.trading_account_id.as_deref()
        && ids::decode_pair(Kind::TradingAccount, account) != Some((signed.account, instrument))
    {
        return Err(ApiError::not_found("ACCOUNT_NOT_FOUND"));
    }
    match app.submit(signed.account, Command::TransferIssuance { instrument, qty }).await?.outcome {
        Outcome::Done { created } => {
            let body = json!({ "status": "accepted", "transfer_id": ids::transfer(created) });
            Ok(respond(StatusCode::ACCEPTED, &body))
        }
        other => Err(ApiError::fault(format!("a transfer was answered with {other:?}"))),
    }
}
