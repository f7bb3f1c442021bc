//! What suppliers had to pay for falling short, as their own and their consumers' transfers of dollars.

use axum::extract::State;
use serde_json::{Value, json};

use super::{page_of, slice_by};
use crate::answer::Reply;
use crate::app::{App, Signed};
use crate::history::ChargeRow;
use crate::ids::{self, Kind};
use crate::page::{Cursor, LIMIT_MAX, Page};
use crate::time::iso;

/// Nobody is told who was on the other side.
fn show(row: &ChargeRow) -> Value {
    json!({
        "id": ids::encode(Kind::Charge, row.id),
        "instrument_id": row.instrument.map(ids::instrument),
        "reason": row.reason,
        "direction": if row.id.is_multiple_of(2) { "paid" } else { "received" },
        "amount_usd": row.amount.to_string(),
        "owed_usd": row.owed.to_string(),
        "created_at": iso(row.at),
    })
}

/// `GET /charges`.
pub(super) async fn list(State(app): State<App>, signed: Signed) -> Reply {
    let page = Page::parse(&signed.query, LIMIT_MAX, &["created_at", "inserted_at"])?;
    let slice = slice_by(&page, Kind::Charge)?;
    let rows = app.history().charges(signed.account, slice).await?;
    page_of(&page, rows, |row| Cursor::at(&ids::encode(Kind::Charge, row.id)), show)
}
