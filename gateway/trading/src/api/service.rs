//! Health, the caller, its limits and what is wrong with either (contract §5.10).

use axum::extract::State;
use grid_engine::command::AccountMode;
use serde_json::{Value, json};

use crate::answer::{ApiError, Reply, data};
use crate::app::{App, Signed};
use crate::ids;
use crate::time::{self, iso};

/// `GET /health`, for everybody.
pub(super) async fn health(State(_): State<App>) -> Reply {
    data(json!({ "status": "ok", "service": "trading" }))
}

/// A mode as the API spells it.
pub(super) const fn mode_text(mode: AccountMode) -> &'static str {
    match mode {
        AccountMode::Easy => "easy",
        AccountMode::Advanced => "advanced",
    }
}

/// `GET /me`. This venue keeps no mail addresses and waits for no terms, so nothing is unverified.
pub(super) async fn me(State(app): State<App>, signed: Signed) -> Reply {
    let row = app.view().look(|engine| {
        let venue = engine.state();
        let account = venue.account(signed.account)?;
        let mut capabilities = vec!["consume"];
        if account.mode == AccountMode::Advanced {
            capabilities.push("trade");
        }
        if venue.suppliers.contains_key(&account.id) {
            capabilities.push("supply");
        }
        if account.capabilities.operator {
            capabilities.push("operate");
        }
        Some(json!({
            "user_id": ids::user(account.id),
            "email": Value::Null,
            "name": account.name,
            "email_verified": true,
            "accepted_terms": true,
            "account_mode": mode_text(account.mode),
            "capabilities": capabilities,
            "created_at": iso(account.created_at),
        }))
    });
    row.map_or_else(|| Err(ApiError::not_found("ACCOUNT_NOT_FOUND")), data)
}

/// `GET /account/limits`.
pub(super) async fn limits(State(app): State<App>, signed: Signed) -> Reply {
    let market = match signed.query.get("market_id") {
        None => Value::Null,
        Some(id) => {
            app.instrument(ids::decode_market(id), "MARKET_NOT_FOUND", |found| ids::market(found.id))?.into()
        }
    };
    let (rate, burst) = (app.limits().requests_per_second, app.limits().burst);
    data(json!({
        "market_id": market,
        "order_rate_limits": {
            "scope": "user_market",
            "max_orders_per_second": rate,
            "max_orders_per_minute": u64::from(rate) * 60,
            "burst_capacity": burst,
            "window_seconds": 1,
        },
        "response_headers": {
            "limit": "X-RateLimit-Limit",
            "remaining": "X-RateLimit-Remaining",
            "retry_after": "Retry-After",
        },
    }))
}

/// `GET /diagnostics`.
pub(super) async fn diagnostics(State(app): State<App>, signed: Signed) -> Reply {
    let (applied, stored) = (app.view().applied(), app.history().applied());
    let behind = applied.0.saturating_sub(stored.0);
    let gaps = app.history().gaps().await?;
    let (mode, usd) = app
        .view()
        .look(|engine| {
            engine.state().account(signed.account).map(|account| (account.mode, account.usd_available))
        })
        .ok_or_else(|| ApiError::not_found("ACCOUNT_NOT_FOUND"))?;
    let check = |name: &str, ok: bool, code: &str, detail: String, next: &str| {
        json!({
            "name": name,
            "status": if ok { "ok" } else { "warn" },
            "code": if ok { Value::Null } else { code.into() },
            "detail": detail,
            "next_action": if ok { Value::Null } else { next.into() },
        })
    };
    let checks = [
        check("authentication", true, "", "the signature was verified".into(), ""),
        check(
            "trading",
            mode == AccountMode::Advanced,
            "auto_mode_trading_restricted",
            format!("the account is in {} mode", mode_text(mode)),
            "switch to advanced mode to place orders",
        ),
        check("credits", usd.0 > 0, "no_credits", format!("{usd} USD available"), "deposit credits"),
        check(
            "history",
            behind < 10_000,
            "history_behind",
            format!("history is {behind} commands behind position {}", applied.0),
            "repeat the read shortly",
        ),
        check(
            "record",
            gaps.is_empty(),
            "history_incomplete",
            match gaps.last() {
                None => "everything since the first command is on record here".into(),
                Some(gap) => format!(
                    "what happened between {} and {} is not on record at this node",
                    iso(gap.after_at),
                    iso(gap.until_at)
                ),
            },
            "read it at another node",
        ),
    ];
    let warnings = checks.iter().filter(|check| check["status"] != "ok").count();
    data(json!({
        "status": if warnings == 0 { "ok" } else { "warn" },
        "service": "trading",
        "server_time": iso(time::now()),
        "checks": checks,
        "summary": if warnings == 0 { "everything is in order".into() } else { format!("{warnings} to look at") },
    }))
}
