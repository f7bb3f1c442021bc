//! Receipts: what an account's calls came to, one by one, in pages and summed up (contract §6.7).
//!
//! Calls that are over are read from the history, calls in progress from the state. The state is looked at first, and the
//! history has to have come as far: so no call is missed on its way from one to the other, and none is told twice.

mod diagnostics;
mod filter;
mod list;
mod receipt;
mod summary;

use std::time::Duration;

use grid_engine::state::State;
use grid_engine::{AccountId, InstrumentId, KeyId, Seq};
use grid_history::{History, HistoryError, UsageRow, ids};
use hyper::StatusCode;
use serde_json::Value;

use crate::keys::Caller;
use crate::reply::Refusal;
use crate::server::Tier;

use filter::Query;

/// Answers a path below `/v1` that tells of calls; `None` for every other path.
pub(crate) fn is_path(path: &str) -> bool {
    path == "/v1/usage" || path == "/v1/diagnostics" || path.starts_with("/v1/usage/")
}

/// What such a path tells this caller.
pub(crate) async fn answer(
    tier: &Tier,
    caller: Caller,
    path: &str,
    query: Option<&str>,
) -> Result<Value, Refusal> {
    let query = Query::parse(query.unwrap_or_default());
    let shown = tier.directory.caught_up(caller.account);
    let _ = tokio::time::timeout(tier.config.clocks.settle, shown).await;
    match path.strip_prefix("/v1/usage/") {
        _ if path == "/v1/diagnostics" => diagnostics::answer(tier, caller.account).await,
        None => list::answer(tier, caller.account, &query).await,
        Some("summary") => summary::answer(tier, caller.account, &query).await,
        Some(name) => one(tier, caller.account, name).await,
    }
}

/// One receipt, with its breakdown.
async fn one(tier: &Tier, account: AccountId, name: &str) -> Result<Value, Refusal> {
    let unknown =
        || Refusal::new(StatusCode::NOT_FOUND, "receipt_not_found", "no call of this account has this id");
    let request = receipt::number(name).ok_or_else(unknown)?;
    let (seq, open) = tier.directory.read(|state| {
        let id = state.reservations.by_request(account, request);
        let open = id.and_then(|id| Some(UsageRow::in_progress(id, state.reservations.get(id)?)));
        (state.seq, open)
    });
    let row = match open {
        Some(open) => open,
        None => {
            let found = history(tier, seq).await?.usage_of(account, request).await;
            found.map_err(broken)?.ok_or_else(unknown)?
        }
    };
    let names = tier.directory.read(|state| Names::of(state, &row));
    Ok(receipt::whole(&row, &names))
}

/// An account's calls in progress that pass, and how far the log was then.
fn in_progress(tier: &Tier, account: AccountId, pass: impl Fn(&UsageRow) -> bool) -> (Seq, Vec<UsageRow>) {
    tier.directory.read(|state| {
        let mine = state.reservations.iter().filter(|(_, open)| open.account == account);
        let rows = mine.map(|(id, open)| UsageRow::in_progress(id, open)).filter(|row| pass(row));
        (state.seq, rows.collect())
    })
}

/// The history, once it has come as far as the log was.
async fn history(tier: &Tier, seq: Seq) -> Result<&History, Refusal> {
    let later = |message: &str| Refusal::unavailable("receipts_behind", message, Duration::from_secs(1));
    let history =
        tier.history.as_ref().ok_or_else(|| later("this node keeps no receipts; ask another one"))?;
    match tokio::time::timeout(tier.config.clocks.reserve, history.wait_for(seq)).await {
        Ok(Ok(())) => Ok(history),
        _ => Err(later("the receipts are a moment behind; try again shortly")),
    }
}

fn broken(error: HistoryError) -> Refusal {
    tracing::error!(%error, "receipts can't be read");
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the receipts could not be read")
}

/// What a receipt calls things by.
struct Names {
    symbol: String,
    key: Option<String>,
}

impl Names {
    fn of(state: &State, row: &UsageRow) -> Self {
        Self { symbol: symbol(state, row.instrument), key: key_name(state, row.key) }
    }
}

fn symbol(state: &State, instrument: InstrumentId) -> String {
    state.instrument(instrument).map(|one| one.spec.symbol.clone()).unwrap_or_default()
}

fn key_name(state: &State, key: KeyId) -> Option<String> {
    let place = (key.0 as usize).checked_sub(1)?;
    state.keys_by_id.get(place).map(|(_, hash)| ids::api_key(hash))
}
