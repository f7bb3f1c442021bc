//! What is on offer: the models of `/v1/models`, and the published catalogue of instruments.
//!
//! One shape serves OpenAI's clients and Anthropic's: each reads its own members and leaves the other's alone.

use grid_engine::command::Side;
use grid_engine::instrument::InstrumentStatus;
use grid_engine::state::{Instrument, State};
use grid_engine::units::DAY;
use grid_engine::{InstrumentId, Nanos};
use serde_json::{Value, json};

use crate::anonymous::model_name;
use crate::needs::Need;
use crate::roster::{self, Roster};
use crate::server::Tier;

/// Delivery goes on while an instrument is halted; one in preview can't be had yet.
pub(crate) fn is_offered(instrument: &Instrument) -> bool {
    instrument.spec.status != InstrumentStatus::Preview
}

/// For how long a model that delivered is told of (contract §6.6).
const DELIVERED_DAYS: u64 = 30;

/// Which models have delivered which instrument of late; `None` where no history is kept, or it can't be read.
pub(crate) async fn delivered(tier: &Tier) -> Option<Vec<(InstrumentId, String)>> {
    let now = tier.directory.read(|state| state.now);
    let since = Nanos(now.0.saturating_sub(DELIVERED_DAYS * DAY));
    match tier.history.as_ref()?.models_delivered(since).await {
        Ok(delivered) => Some(delivered),
        Err(error) => {
            tracing::error!(%error, "the models that delivered can't be read");
            None
        }
    }
}

/// The list, in both shapes.
pub(crate) fn list(models: &[Value]) -> Value {
    let id = |model: Option<&Value>| model.map(|model| model["id"].clone());
    json!({"object": "list", "data": models,
        "has_more": false, "first_id": id(models.first()), "last_id": id(models.last())})
}

/// One instrument as a model, in both shapes; with the models on offer, and those that have [delivered].
pub(crate) fn model(
    state: &State,
    instrument: &Instrument,
    roster: &Roster,
    delivered: Option<&[(InstrumentId, String)]>,
) -> Value {
    let spec = &instrument.spec;
    let quality = &spec.quality;
    let best = state
        .book(instrument.id)
        .and_then(|book| book.best(Side::Sell))
        .map(|level| level.price)
        .or(instrument.last_trade.map(|trade| trade.price));
    let pricing = best.and_then(|price| {
        let unit = price.notional(grid_engine::Qty(1), spec.market.tick)?;
        let token = per_token(unit.0);
        Some(json!({"currency": "USD", "unit": unit.to_string(), "prompt": token, "completion": token}))
    });
    let floor = |value: u32| (value > 0).then_some(value);
    let candidates = roster::offers(state, instrument.id);
    let able = roster.abilities(&candidates);
    let can = |need: Need| able.iter().any(|one| one == need);
    let mut parameters: Vec<&str> =
        able.iter().map(Need::field).filter(|field| *field != "messages").collect();
    parameters.dedup();
    let mut models: Vec<&str> = candidates.iter().map(|one| model_name(&one.model)).collect();
    models.sort_unstable();
    models.dedup();
    let delivered: Option<Vec<&str>> = delivered.map(|delivered| {
        let ours = delivered.iter().filter(|(of, _)| *of == instrument.id);
        let mut models: Vec<&str> = ours.map(|(_, model)| model_name(model)).collect();
        models.sort_unstable();
        models.dedup();
        models
    });
    let created = instrument.created_at.0 / 1_000_000_000;
    json!({
        "id": spec.symbol,
        "object": "model",
        "type": "model",
        "created": created,
        "created_at": timestamp(created),
        "owned_by": "grid",
        "display_name": spec.name,
        "description": spec.description,
        "status": match spec.status {
            InstrumentStatus::Preview => "preview",
            InstrumentStatus::Live => "live",
            InstrumentStatus::Halted => "halted",
        },
        "context_length": floor(quality.context_floor),
        "max_output_tokens": floor(quality.output_floor),
        "max_input_tokens": floor(quality.context_floor),
        "max_tokens": floor(quality.output_floor),
        "capabilities": {
            "streaming": true,
            "tools": can(Need::Tools),
            "parallel_tool_calls": can(Need::ParallelToolCalls),
            "json_mode": can(Need::JsonObject),
            "json_schema": can(Need::JsonSchema),
            "logprobs": can(Need::Logprobs),
            "reasoning": can(Need::ReasoningEffort),
            "vision": can(Need::Images),
            "web_search": can(Need::WebSearch),
        },
        "supported_parameters": parameters,
        "models": models,
        "delivered_models": delivered,
        "pricing": pricing,
    })
}

/// The instrument for the catalogue: the model, and what is promised of it.
pub(crate) fn instrument(
    state: &State,
    instrument: &Instrument,
    roster: &Roster,
    delivered: Option<&[(InstrumentId, String)]>,
) -> Value {
    let quality = &instrument.spec.quality;
    let floor = |value: u32| (value > 0).then_some(value);
    let mut entry = model(state, instrument, roster, delivered);
    entry["symbol"] = entry["id"].clone();
    entry["specification"] = json!({
        "index": quality.index,
        "score_floor": floor(quality.score_floor),
        "tokens_per_second_floor": floor(quality.tokens_per_second_floor),
        "ttft_ceiling_ms": floor(quality.ttft_ceiling_ms),
        "context_floor": floor(quality.context_floor),
        "output_floor": floor(quality.output_floor),
    });
    entry
}

/// A Unit's price in nano-dollars as decimal dollars per token: 810,000,000 is `0.00000081`.
fn per_token(unit_nanos: i64) -> String {
    let digits = format!("{unit_nanos:016}");
    let (whole, part) = digits.split_at(digits.len() - 15);
    let part = part.trim_end_matches('0');
    if part.is_empty() { whole.to_owned() } else { format!("{whole}.{part}") }
}

/// Seconds since 1970 as RFC 3339.
fn timestamp(seconds: u64) -> String {
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    // Days from 0000-03-01, in eras of 400 years, so that leap days come last.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + later;
    format!("{year:04}-{month:02}-{date:02}T{:02}:{:02}:{:02}Z", time / 3_600, time / 60 % 60, time % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_per_token_has_no_rounding() {
        for (nanos, text) in
            [(810_000_000, "0.00000081"), (1, "0.000000000000001"), (2_000_000_000_000_000, "2"), (0, "0")]
        {
            assert_eq!(per_token(nanos), text);
        }
    }

    #[test]
    fn timestamps_know_their_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_210_096, "2024-02-29T12:34:56Z"),
            (1_790_000_001, "2026-09-21T14:13:21Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(timestamp(seconds), text);
        }
    }
}
