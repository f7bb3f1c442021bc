//! What is well with an account's calls and what is not (contract §5.10).

use grid_engine::AccountId;
use grid_history::time::{self, iso};
use serde_json::{Value, json};

use super::{broken, history};
use crate::reply::Refusal;
use crate::roster;
use crate::server::Tier;

/// `GET /v1/diagnostics`.
pub(super) async fn answer(tier: &Tier, account: AccountId) -> Result<Value, Refusal> {
    let (seq, usd, tokens, served) = tier.directory.read(|state| {
        let usd = state.account(account).map(|account| account.usd_available).unwrap_or_default();
        let all = state.instruments.iter();
        let held = all.filter_map(|one| state.holding(account, one.id));
        let tokens: u64 = held.map(|holding| holding.free_tokens().0).sum();
        let served = state.instruments.iter().any(|one| !roster::offers(state, one.id).is_empty());
        (state.seq, usd, tokens, served)
    });
    let receipts = history(tier, seq).await;
    let gaps = match &receipts {
        Ok(history) => history.gaps().await.map_err(broken)?,
        Err(_) => Vec::new(),
    };
    let check = |name: &str, ok: bool, code: &str, detail: String, next: &str| {
        json!({
            "name": name,
            "status": if ok { "ok" } else { "warn" },
            "code": (!ok).then_some(code),
            "detail": detail,
            "next_action": (!ok).then_some(next),
        })
    };
    let checks = [
        check("authentication", true, "", "the consumption key is good".into(), ""),
        check(
            "balance",
            usd.0 > 0 || tokens > 0,
            "no_balance",
            format!("{usd} USD and {tokens} tokens are free"),
            "deposit credits or buy Units",
        ),
        check(
            "suppliers",
            served,
            "no_supplier",
            match served {
                true => "suppliers are on the roster".into(),
                false => "nobody is on any roster just now".into(),
            },
            "try again shortly",
        ),
        check(
            "receipts",
            receipts.is_ok(),
            "receipts_behind",
            match receipts.is_ok() {
                true => "every call up to now has its receipt".into(),
                false => "receipts are behind the log".into(),
            },
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
    Ok(json!({"data": {
        "status": if warnings == 0 { "ok" } else { "warn" },
        "service": "consumption",
        "server_time": iso(time::now()),
        "checks": checks,
        "summary": match warnings {
            0 => "everything is in order".to_owned(),
            some => format!("{some} to look at"),
        },
    }}))
}
