//! One receipt as JSON: the contract's members in the contract's order, then how the call was routed.
//!
//! Money is decimal text, worked out in integers. A price per token is the exact quotient to eighteen places, rounded
//! half up. Of suppliers a receipt says only how the one that delivered came to do it, never who it was.

use grid_engine::command::{Cover, Surface};
use grid_engine::event::Draw;
use grid_engine::{TradeId, Usd};
use grid_history::time::{iso, iso_or_null};
use grid_history::{Stage, UsageRow};
use serde_json::{Value, json};

use super::Names;
use crate::anonymous::model_name;

/// The rules by which tokens were counted and billed; a change of rules gets a new name.
const POLICY: &str = "v1";

/// The number of a call's public handle.
pub(super) fn number(name: &str) -> Option<u128> {
    let digits = name.strip_prefix("req_").unwrap_or(name);
    let hex = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if hex { u128::from_str_radix(digits, 16).ok() } else { None }
}

/// A call's public handle.
pub(super) fn name(request: u128) -> String {
    format!("req_{request:032x}")
}

/// How a call stands, and how its cost does.
pub(super) fn statuses(row: &UsageRow) -> (&'static str, &'static str) {
    match row.stage {
        Stage::Open => ("pending", "pending"),
        Stage::Settled if row.unpriced.is_zero() => ("reconciled", "reconciled"),
        Stage::Settled => ("reconciled", "unpriced"),
        Stage::Released | Stage::Lapsed => ("error", "cancelled"),
    }
}

/// A receipt with its breakdown.
pub(super) fn whole(row: &UsageRow, names: &Names) -> Value {
    let breakdown = row.draws.iter().map(lot).collect();
    receipt(row, names, Some(breakdown))
}

/// A receipt as a list shows it.
pub(super) fn short(row: &UsageRow, names: &Names) -> Value {
    receipt(row, names, None)
}

fn receipt(row: &UsageRow, names: &Names, breakdown: Option<Vec<Value>>) -> Value {
    let (status, cost_status) = statuses(row);
    let settled = row.stage == Stage::Settled;
    let amount = match row.stage {
        Stage::Open => None,
        // Nothing of it has a known price.
        Stage::Settled if row.unpriced == row.billed && !row.billed.is_zero() => None,
        _ => Some(row.cost),
    };
    let effective =
        amount.filter(|_| cost_status == "reconciled").and_then(|cost| per_token(cost, row.billed.0));
    let mut cost = json!({
        "amount": amount.map(|usd| usd.to_string()),
        "currency": "USD",
        "status": cost_status,
        "effective_price_per_token": effective,
        "metering_policy_version": POLICY,
        "reconciled_at": iso_or_null(if settled { row.at } else { grid_engine::Nanos::ZERO }),
    });
    if let Some(rows) = breakdown {
        cost["breakdown"] = rows.into();
    }
    json!({
        "request_id": name(row.request),
        "status": status,
        "requested_model": names.symbol,
        "serving_model": row.model.as_deref().map(model_name),
        "endpoint": match row.surface {
            Surface::ChatCompletions => "/v1/chat/completions",
            Surface::Messages => "/v1/messages",
            Surface::Responses => "/v1/responses",
        },
        "api_key_id": names.key,
        "created_at": iso(row.reserved_at),
        "usage": {
            "input_tokens": row.usage.prompt_tokens.0,
            "output_tokens": row.usage.completion_tokens.0,
            "total_tokens": row.tokens(),
        },
        "cost": cost,
        "timing": {
            // An answer that came whole does not show when it began.
            "ttft_ms": (settled && row.usage.ttft_us > 0).then(|| millis(row.usage.ttft_us)),
            "tokens_per_second": settled.then(|| pace(row)).flatten(),
            "duration_ms": settled.then(|| millis(row.usage.duration_us)),
        },
        "route": route(row),
    })
}

/// Tokens of one lot. What the consumer issued itself was never bought, so it has no price.
fn lot(draw: &Draw) -> Value {
    let bought = draw.trade != TradeId::default();
    json!({
        "acquisition_price_per_token": bought.then(|| per_token(draw.cost, draw.tokens.0)).flatten(),
        "tokens": draw.tokens.0,
        "subtotal": bought.then(|| draw.cost.to_string()),
    })
}

/// How the supplier came to be the one.
fn route(row: &UsageRow) -> Value {
    if row.stage != Stage::Settled {
        let reason = match row.stage {
            Stage::Open => "in progress",
            Stage::Lapsed => "nobody settled the call in time; nothing was billed",
            _ => "nobody delivered; nothing was billed",
        };
        return json!({"cover": Value::Null, "attempts": Value::Null, "counted_by": Value::Null,
            "partial": Value::Null, "reason": reason});
    }
    let (cover, reason) = match row.usage.cover {
        Cover::Issuer => ("issuer", "an issuer of the tokens delivered"),
        Cover::Failed => ("failed", "the issuers of the tokens failed, so another supplier delivered"),
        Cover::Unable => (
            "unable",
            "an issuer of the tokens could not be asked for this, through no failure of its own, so another supplier \
             delivered",
        ),
    };
    json!({
        "cover": cover,
        "attempts": (row.usage.attempts > 0).then_some(row.usage.attempts),
        "counted_by": if row.usage.estimated { "venue" } else { "supplier" },
        "partial": row.usage.partial,
        "reason": reason,
    })
}

fn millis(micros: u32) -> u32 {
    (micros + 500) / 1_000
}

/// Tokens of the completion per second after the first one came, to a tenth.
fn pace(row: &UsageRow) -> Option<Value> {
    let span = u64::from(row.usage.duration_us.checked_sub(row.usage.ttft_us)?);
    let tenths = row.usage.completion_tokens.0.saturating_mul(10_000_000).checked_div(span)?;
    // A tenth is exact enough as a double up to 2^53 tenths, far above any supplier.
    Some(json!(tenths as f64 / 10.0))
}

/// Dollars per token as decimal text.
pub(super) fn per_token(cost: Usd, tokens: u64) -> Option<String> {
    /// Nine more places than a nano-dollar has.
    const FINER: u128 = 1_000_000_000;
    let tokens = u128::from(tokens);
    if tokens == 0 || cost.0 < 0 {
        return None;
    }
    let scaled = (cost.0.unsigned_abs() as u128 * FINER * 2 + tokens) / (tokens * 2);
    let (whole, part) = (scaled / (FINER * FINER), scaled % (FINER * FINER));
    if part == 0 {
        return Some(whole.to_string());
    }
    let digits = format!("{part:018}");
    Some(format!("{whole}.{}", digits.trim_end_matches('0')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use grid_engine::command::Usage;
    use grid_engine::state::Reservation;
    use grid_engine::{AccountId, KeyId, LotId, Nanos, ReservationId, SECOND, Tokens};

    fn settled() -> UsageRow {
        let mut row = UsageRow::in_progress(ReservationId(1), &Reservation::default());
        row.request = 0x5f2c;
        row.key = KeyId(1);
        row.stage = Stage::Settled;
        row.reserved_at = Nanos(1_785_578_402 * SECOND);
        row.at = Nanos(1_785_578_405 * SECOND);
        row.model = Some("qwen-next-80b".into());
        row.usage = Usage {
            prompt_tokens: Tokens(21),
            completion_tokens: Tokens(9),
            ttft_us: 310_000,
            duration_us: 412_000,
            attempts: 1,
            ..Usage::default()
        };
        row.billed = Tokens(30);
        row.cost = Usd(24_300);
        row.draws = vec![draw(1, 30, 24_300)];
        row
    }

    fn draw(trade: u64, tokens: u64, cost: i64) -> Draw {
        Draw {
            lot: LotId(1),
            issuer: AccountId(2),
            trade: TradeId(trade),
            tokens: Tokens(tokens),
            cost: Usd(cost),
        }
    }

    fn names() -> Names {
        Names { symbol: "text-prime".into(), key: Some("key_31".into()) }
    }

    #[test]
    fn the_contracts_sample_is_told_to_the_byte() {
        let mut told = whole(&settled(), &names());
        told.as_object_mut().unwrap().shift_remove("route");
        assert_eq!(
            told.to_string(),
            r#"{"request_id":"req_00000000000000000000000000005f2c","status":"reconciled","requested_model":"text-prime","serving_model":"qwen-next-80b","endpoint":"/v1/chat/completions","api_key_id":"key_31","created_at":"2026-08-01T10:00:02Z","usage":{"input_tokens":21,"output_tokens":9,"total_tokens":30},"cost":{"amount":"0.0000243","currency":"USD","status":"reconciled","effective_price_per_token":"0.00000081","metering_policy_version":"v1","reconciled_at":"2026-08-01T10:00:05Z","breakdown":[{"acquisition_price_per_token":"0.00000081","tokens":30,"subtotal":"0.0000243"}]},"timing":{"ttft_ms":310,"tokens_per_second":88.2,"duration_ms":412}}"#
        );
    }

    #[test]
    fn lots_without_a_price_have_nulls_and_make_the_cost_unpriced() {
        let mut row = settled();
        row.draws = vec![draw(0, 10, 0), draw(4, 20, 16_200)];
        (row.unpriced, row.cost) = (Tokens(10), Usd(16_200));
        let cost = &whole(&row, &names())["cost"];
        assert_eq!((&cost["status"], &cost["amount"]), (&json!("unpriced"), &json!("0.0000162")));
        assert_eq!(cost["effective_price_per_token"], Value::Null);
        assert_eq!(
            cost["breakdown"][0],
            json!({"acquisition_price_per_token": null, "tokens": 10, "subtotal": null})
        );
        row.unpriced = Tokens(30);
        assert_eq!(whole(&row, &names())["cost"]["amount"], Value::Null);
    }

    #[test]
    fn a_call_in_progress_or_failed_costs_nothing_yet_or_ever() {
        let mut row = UsageRow::in_progress(ReservationId(1), &Reservation::default());
        let told = whole(&row, &names());
        assert_eq!((&told["status"], &told["cost"]["status"]), (&json!("pending"), &json!("pending")));
        assert_eq!((&told["cost"]["amount"], &told["timing"]["ttft_ms"]), (&Value::Null, &Value::Null));
        row.stage = Stage::Lapsed;
        let told = whole(&row, &names());
        assert_eq!((&told["status"], &told["cost"]["status"]), (&json!("error"), &json!("cancelled")));
        assert_eq!(told["cost"]["amount"], "0");
    }

    #[test]
    fn prices_per_token_are_exact_to_eighteen_places() {
        for (cost, tokens, expected) in [
            (24_300, 30, Some("0.00000081")),
            (1, 3, Some("0.000000000333333333")),
            (2, 3, Some("0.000000000666666667")),
            (3_000_000_000, 1, Some("3")),
            (0, 7, Some("0")),
            (1, 0, None),
        ] {
            assert_eq!(per_token(Usd(cost), tokens).as_deref(), expected, "{cost} / {tokens}");
        }
    }

    #[test]
    fn handles_are_read_in_any_case_and_nothing_else_is_one() {
        assert_eq!(number(&name(77)), Some(77));
        assert_eq!(number(&name(u128::MAX).to_uppercase().replace("REQ_", "req_")), Some(u128::MAX));
        for text in ["", "req_", "req_12", "req_+0000000000000000000000000000012", "summary"] {
            assert_eq!(number(text), None, "{text}");
        }
    }
}
