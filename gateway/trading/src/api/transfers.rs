//! Units between trading and consumption (contract §5.8).

use axum::extract::State;
use axum::http::StatusCode;
use grid_engine::command::{Command, TransferDirection};
use grid_engine::{AccountId, InstrumentId, Qty};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{page_of, slice_by};
use crate::answer::{ApiError, Reply, respond};
use crate::app::{App, Signed};
use crate::door::Outcome;
use crate::history::{TransferFilter, TransferRow};
use crate::ids::{self, Kind};
use crate::page::{Cursor, LIMIT_MAX, Page};
use crate::time::iso;

/// A body that names an instrument and a quantity.
#[derive(Deserialize)]
pub(super) struct UnitsBody {
    instrument_id: String,
    quantity: Box<RawValue>,
    #[serde(default)]
    pub(super) trading_account_id: Option<String>,
}

impl UnitsBody {
    pub(super) fn read(&self, app: &App) -> Result<(InstrumentId, Qty), ApiError> {
        let id = ids::decode_instrument(&self.instrument_id);
        let instrument = app.instrument(id, "INSTRUMENT_NOT_FOUND", |found| found.id)?;
        Ok((instrument, super::orders::quantity(&self.quantity)?))
    }
}

async fn transfer(app: &App, signed: &Signed, direction: TransferDirection) -> Reply {
    let body: UnitsBody = signed.json()?;
    let (instrument, qty) = body.read(app)?;
    let command = Command::Transfer { instrument, qty, direction };
    match app.submit(signed.account, command).await?.outcome {
        Outcome::Done { created } => {
            let body = json!({ "status": "success", "transfer_id": ids::transfer(created) });
            Ok(respond(StatusCode::OK, &body))
        }
        other => Err(ApiError::fault(format!("a transfer was answered with {other:?}"))),
    }
}

/// `POST /transfers/trading-to-consumption`.
pub(super) async fn to_consumption(State(app): State<App>, signed: Signed) -> Reply {
    transfer(&app, &signed, TransferDirection::ToConsumption).await
}

/// `POST /transfers/consumption-to-trading`.
pub(super) async fn to_trading(State(app): State<App>, signed: Signed) -> Reply {
    transfer(&app, &signed, TransferDirection::ToTrading).await
}

fn trading(account: AccountId, instrument: InstrumentId) -> String {
    ids::trading_account(account, instrument)
}

fn show(app: &App, row: &TransferRow) -> Value {
    let id = ids::transfer(row.id);
    let consumption = ids::encode_pair(Kind::ConsumptionAccount, row.account, row.instrument);
    let (to, from) = match row.movement {
        "to_trading" => (trading(row.account, row.instrument), consumption),
        "issuance" => (
            trading(row.account, row.instrument),
            ids::encode_pair(Kind::IssuanceAccount, row.account, row.instrument),
        ),
        _ => (consumption, trading(row.account, row.instrument)),
    };
    let name = app.instrument(Some(row.instrument), "", |found| found.spec.name.clone());
    json!({
        "id": id,
        "transfer_id": id,
        "account_id": to,
        "sender_account_id": from,
        "instrument_id": ids::instrument(row.instrument),
        "instrument_name": name.unwrap_or_default(),
        "market_id": ids::market(row.instrument),
        "quantity": row.qty.0,
        "reason": row.movement,
        "transferred_at": iso(row.at),
        "inserted_at": iso(row.at),
        "updated_at": iso(row.at),
    })
}

/// `GET /transfer-histories`.
pub(super) async fn list(State(app): State<App>, signed: Signed) -> Reply {
    let query = &signed.query;
    let page = Page::parse(query, LIMIT_MAX, &["transferred_at", "inserted_at", "updated_at", "created_at"])?;
    let market = query.get("market_id").map(ids::decode_market);
    let instrument = query.get("instrument_id").map(ids::decode_instrument);
    if market == Some(None)
        || instrument == Some(None)
        || (market.is_some() && instrument.is_some() && market != instrument)
    {
        return page.of_rows(Vec::new(), "transfer_id");
    }
    let filter = TransferFilter { instrument: market.or(instrument).flatten() };
    let slice = slice_by(&page, Kind::Transfer)?;
    let rows = app.history().transfers(signed.account, filter, slice).await?;
    page_of(&page, rows, |row| Cursor::at(&ids::transfer(row.id)), |row| show(&app, row))
}
