//! Auto-Reload settings (contract §5.11): dollars as decimal strings, what a request leaves out stays as it is. And the
//! statement of what moved an account's dollars, which the contract has no page for.

use axum::extract::State;
use grid_engine::Usd;
use grid_engine::command::Command;
use grid_engine::funding::AutoReload;
use grid_engine::limits::{RELOAD_MAX, RELOAD_MIN};
use grid_engine::state::Funding;
use serde_json::{Map, Value, json};

use super::platform::show_settings;
use crate::answer::{ApiError, Reply};
use crate::app::{App, Signed};
use crate::decimal::parse_scaled;
use crate::page::{LIMIT_MAX, Page};
use crate::time::iso;

/// Smallest part of a dollar that can be charged, in nano-dollars.
const CENT: i64 = 10_000_000;

/// The members of the settings. Before anything was set, amounts are null, and there is no status to tell.
pub(super) fn members(funding: &Funding) -> Vec<(&'static str, Value)> {
    let AutoReload { enabled, threshold, amount, monthly_limit } = funding.auto_reload;
    let set = !amount.is_zero();
    let text = |sum: Usd| if set { json!(sum.to_string()) } else { Value::Null };
    let mut members = vec![
        ("auto_reload_enabled", enabled.into()),
        ("auto_reload_threshold_usd", text(threshold)),
        ("auto_reload_amount_usd", text(amount)),
        ("auto_reload_monthly_limit_usd", monthly_limit.map(|sum| sum.to_string()).into()),
    ];
    if set {
        let status = match (&funding.pending, funding.stopped) {
            (Some(_), _) => "replenishing".to_owned(),
            (None, Some(failure)) => failure.to_string(),
            (None, None) if enabled => "ready".to_owned(),
            (None, None) => "off".to_owned(),
        };
        members.push(("auto_reload_status", status.into()));
    }
    members
}

/// `PATCH /self/system-settings/auto_reload`.
pub(super) async fn set(State(app): State<App>, signed: Signed) -> Reply {
    let body: Map<String, Value> = signed.json()?;
    let found = app
        .view()
        .look(|engine| engine.state().account(signed.account).map(|account| account.funding.auto_reload));
    let now = found.ok_or_else(|| ApiError::not_found("ACCOUNT_NOT_FOUND"))?;
    let wanted = changed(now, &body)?;
    check(&wanted)?;
    app.submit(signed.account, Command::SetAutoReload(wanted)).await?;
    show_settings(&app, &signed)
}

fn changed(now: AutoReload, body: &Map<String, Value>) -> Result<AutoReload, ApiError> {
    let mut wanted = now;
    let mut any = false;
    for (name, value) in body {
        match name.as_str() {
            "auto_reload_enabled" => {
                wanted.enabled =
                    value.as_bool().ok_or_else(|| ApiError::malformed("auto_reload_enabled is a boolean"))?;
            }
            "auto_reload_threshold_usd" => wanted.threshold = dollars(name, value)?,
            "auto_reload_amount_usd" => wanted.amount = dollars(name, value)?,
            "auto_reload_monthly_limit_usd" if value.is_null() => wanted.monthly_limit = None,
            "auto_reload_monthly_limit_usd" => wanted.monthly_limit = Some(dollars(name, value)?),
            _ => continue,
        }
        any = true;
    }
    if any { Ok(wanted) } else { Err(ApiError::malformed("the body names no auto_reload_ setting")) }
}

fn dollars(name: &str, value: &Value) -> Result<Usd, ApiError> {
    let text = value.as_str().ok_or_else(|| ApiError::malformed(format!("{name} is a decimal string")))?;
    let nanos = parse_scaled(text, 9).map_err(|_| {
        ApiError::malformed(format!("{name} is dollars as a decimal string with at most nine places"))
    })?;
    let usd = i64::try_from(nanos).ok().filter(|nanos| *nanos >= 0).map(Usd);
    usd.ok_or_else(|| ApiError::unprocessable("VALIDATION_ERROR", format!("{name} is out of range")))
}

/// What the engine would refuse, in words.
fn check(wanted: &AutoReload) -> Result<(), ApiError> {
    let AutoReload { enabled, threshold, amount, monthly_limit } = *wanted;
    let no = |text: String| Err(ApiError::unprocessable("VALIDATION_ERROR", text));
    if !enabled {
        return Ok(());
    }
    if !(RELOAD_MIN..=RELOAD_MAX).contains(&amount) || amount.0 % CENT != 0 {
        return no(format!("auto_reload_amount_usd is from {RELOAD_MIN} to {RELOAD_MAX}, in whole cents"));
    }
    if threshold.is_zero() {
        return no("auto_reload_threshold_usd is above zero".into());
    }
    if monthly_limit.is_some_and(|limit| limit < amount) {
        return no("auto_reload_monthly_limit_usd is not below auto_reload_amount_usd".into());
    }
    Ok(())
}

/// `GET /funding-histories`: what moved the account's dollars other than trades, and reloads that came to nothing.
pub(super) async fn statement(State(app): State<App>, signed: Signed) -> Reply {
    let mut items = std::collections::BTreeMap::<u64, u64>::new();
    let rows = app.history().funding(signed.account).await?.into_iter().map(|row| {
        let item = items.entry(row.seq.0).or_default();
        *item += 1;
        let mut shown = json!({
            "id": format!("funding_{:012x}{item:02x}", row.seq.0),
            "kind": row.kind,
            "currency": "usd",
            "amount": row.amount.to_string(),
            "inserted_at": iso(row.at),
        });
        if let Some(number) = row.reload {
            shown["reload"] = number.into();
        }
        shown
    });
    let rows: Vec<Value> = rows.collect();
    let page = Page::parse(&signed.query, LIMIT_MAX, &["inserted_at", "kind"])?;
    page.of_rows(rows, "id")
}
