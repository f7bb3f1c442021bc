//! Pages of receipts: those in progress and those that are over in one order, cut by cursors.
//!
//! A cursor says where the last row stood, not where it is to be found: a call that settles between two pages keeps its
//! place in the order of time.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use grid_engine::AccountId;
use grid_history::{UsagePage, UsageRow};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::filter::{Query, Wanted};
use super::receipt;
use super::{Names, broken, history, in_progress};
use crate::reply::Refusal;
use crate::server::Tier;

const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: usize = 100;

/// Where a row stands in the order asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Cursor {
    /// The call's public handle.
    id: String,
    /// What the order goes by: nanoseconds, or tokens.
    by: u64,
    /// Its reservation, between equals.
    row: u64,
}

impl Cursor {
    fn read(param: &'static str, text: &str) -> Result<(u64, u64), Refusal> {
        let cursor = STANDARD.decode(text).ok().and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok());
        let cursor =
            cursor.ok_or_else(|| Refusal::field(param, "the cursor is not one that this venue gave out"))?;
        Ok((cursor.by, cursor.row))
    }
}

/// `GET /v1/usage`.
pub(super) async fn answer(tier: &Tier, account: AccountId, query: &Query) -> Result<Value, Refusal> {
    let wanted = tier.directory.read(|state| Wanted::read(query, state, account))?;
    let by_tokens = query.word("order_by", &["inserted_at", "total_tokens"])? == Some("total_tokens");
    let descending = query.word("order_direction", &["asc", "desc"])? != Some("asc");
    let limit = match query.get("limit") {
        None => LIMIT_DEFAULT,
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=LIMIT_MAX).contains(limit))
            .ok_or_else(|| Refusal::field("limit", format!("limit must be between 1 and {LIMIT_MAX}")))?,
    };
    let (after, backwards) = match (query.get("next"), query.get("prev")) {
        (Some(_), Some(_)) => return Err(Refusal::field("prev", "next and prev exclude each other")),
        (Some(text), None) => (Some(Cursor::read("next", text)?), false),
        (None, Some(text)) => (Some(Cursor::read("prev", text)?), true),
        (None, None) => (None, false),
    };
    // One more than wanted, to know whether there is more.
    let page = UsagePage { by_tokens, descending: descending != backwards, after, limit: limit + 1 };
    let mut rows = rows(tier, account, &wanted, page).await?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    if backwards {
        rows.reverse();
    }
    let names: Vec<Names> =
        tier.directory.read(|state| rows.iter().map(|row| Names::of(state, row)).collect());
    let shown: Vec<Value> = rows.iter().zip(&names).map(|(row, names)| receipt::short(row, names)).collect();
    let (before, behind) = if backwards { (more, true) } else { (after.is_some(), more) };
    let cursor = |row: Option<&UsageRow>, there: bool| {
        let (by, row, request) = row.filter(|_| there).map(|row| {
            let (by, id) = place(row, by_tokens);
            (by, id, row.request)
        })?;
        let text = serde_json::to_string(&Cursor { id: receipt::name(request), by, row }).ok()?;
        Some(STANDARD.encode(text))
    };
    Ok(json!({
        "data": shown,
        "paging": {
            "has_more": if backwards { before } else { behind },
            "next_cursor": cursor(rows.last(), behind),
            "prev_cursor": cursor(rows.first(), before),
        },
    }))
}

fn place(row: &UsageRow, by_tokens: bool) -> (u64, u64) {
    (if by_tokens { row.tokens() } else { row.reserved_at.0 }, row.id.0)
}

async fn rows(
    tier: &Tier,
    account: AccountId,
    wanted: &Wanted,
    page: UsagePage,
) -> Result<Vec<UsageRow>, Refusal> {
    let place = |row: &UsageRow| place(row, page.by_tokens);
    let beyond = |row: &UsageRow| {
        page.after.is_none_or(|after| if page.descending { place(row) < after } else { place(row) > after })
    };
    let (seq, mut rows) = in_progress(tier, account, |row| wanted.passes(row) && beyond(row));
    if let Some(filter) = wanted.over {
        let over = history(tier, seq).await?.usage_page(account, filter, page).await.map_err(broken)?;
        // A call that ended since is told as it ended.
        rows.retain(|open| over.iter().all(|row| row.id != open.id));
        rows.extend(over);
    }
    rows.sort_by(|one, other| {
        let order = place(one).cmp(&place(other));
        if page.descending { order.reverse() } else { order }
    });
    rows.truncate(page.limit);
    Ok(rows)
}
