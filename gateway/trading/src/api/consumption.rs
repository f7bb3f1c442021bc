//! What an account used, day by day (contract §8).

use axum::extract::State;
use grid_engine::state::State as Venue;
use grid_engine::units::DAY;
use grid_engine::{KeyId, Nanos};
use serde_json::{Value, json};

use crate::answer::{ApiError, Reply, data};
use crate::app::{App, Signed};
use crate::history::{UsageFilter, UsageSum};
use crate::ids;
use crate::time::{self, iso};

/// `GET /consumption/stats`. Both ends of the period are required; it is told as it stands, not every 15 minutes.
pub(super) async fn stats(State(app): State<App>, signed: Signed) -> Reply {
    let query = &signed.query;
    let required =
        || ApiError::unprocessable("VALIDATION_ERROR", "date needs both a start (>=) and an end (<)");
    let (start, last) = query.range("start_date", "end_date", &["date"])?;
    let start = start.ok_or_else(required)?;
    // The range is told with its last moment; the period ends behind it.
    let end = Nanos(last.ok_or_else(required)?.0.saturating_add(1));
    let tomorrow = (time::now().0 / DAY + 2) * DAY;
    if end.0 > tomorrow || start > end {
        let text = "the period must not end after tomorrow, nor before it begins";
        return Err(ApiError::unprocessable("VALIDATION_ERROR", text));
    }
    let instrument = query.get("instrument_id").map(ids::decode_instrument);
    let key = query.get("api_key_id").map(|text| {
        app.view().look(|engine| key_of(engine.state(), text).filter(|(of, _)| *of == signed.account))
    });
    let sums = match (instrument, key) {
        (Some(None), _) | (_, Some(None)) => Vec::new(),
        (instrument, key) => {
            let filter = UsageFilter {
                from: Some(start),
                to: Some(end),
                settled: Some(true),
                instrument: instrument.flatten(),
                key: key.flatten().map(|(_, key)| key),
                ..UsageFilter::default()
            };
            app.history().usage_sums(signed.account, filter).await?
        }
    };
    let total = |of: fn(&UsageSum) -> u64| sums.iter().map(of).sum::<u64>();
    let used = |sum: &UsageSum| sum.prompt_tokens + sum.completion_tokens;
    let series: Vec<Value> = app.view().look(|engine| {
        let keys = &engine.state().keys_by_id;
        let named =
            |key: KeyId| keys.get((key.0 as usize).wrapping_sub(1)).map(|(_, hash)| ids::api_key(hash));
        let rows = sums.iter().map(|sum| {
            json!({
                "date": iso(Nanos(sum.day * DAY))[..10],
                "instrument_id": ids::instrument(sum.instrument),
                "api_key_id": named(sum.key),
                "request_count": sum.requests,
                "tokens_allocated": sum.billed,
                "tokens_used": used(sum),
            })
        });
        rows.collect()
    });
    data(json!({
        "resolution": "day",
        "period_start": iso(start),
        "period_end": iso(end),
        "time_series": series,
        "summary": {
            "total_requests": total(|sum| sum.requests),
            "total_tokens_allocated": total(|sum| sum.billed),
            "total_tokens_used": sums.iter().map(used).sum::<u64>(),
        },
    }))
}

fn key_of(state: &Venue, text: &str) -> Option<(grid_engine::AccountId, KeyId)> {
    let head = ids::decode(ids::Kind::ApiKey, text)?;
    let mut least = [0; 32];
    least[..8].copy_from_slice(&head.to_be_bytes());
    let (hash, key) = state.consumption_keys.range(grid_engine::KeyHash(least)..).next()?;
    (ids::head(&hash.0) == head).then_some((key.account, key.id))
}
