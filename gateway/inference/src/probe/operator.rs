//! `POST /operator/probe`: an operator has a supplier tried at once and reads what came of it. The request ends with its
//! client: whoever hangs up ends the probe.

use std::sync::Arc;

use grid_engine::AccountId;
use hyper::{Response, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::Unprobed;
use crate::reply::{Out, Refusal, json_response};
use crate::server::Tier;

/// Whom to try, in what.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// The supplier's account.
    supplier: u32,
    /// An instrument's symbol.
    instrument: String,
}

/// The report as JSON; 200 whether or not it was passed.
pub(crate) async fn answer(tier: &Arc<Tier>, body: &[u8]) -> Result<Response<Out>, Refusal> {
    let wanted: Wanted = serde_json::from_slice(body).map_err(|error| {
        Refusal::new(StatusCode::BAD_REQUEST, "invalid_body", format!("the body names no probe: {error}"))
    })?;
    let symbol = wanted.instrument.to_ascii_lowercase();
    let instrument = tier.directory.read(|state| state.symbols.get(&symbol).copied());
    let instrument = instrument.ok_or_else(|| refusal(Unprobed::UnknownInstrument))?;
    let made = tier.desk.probe(tier, AccountId(wanted.supplier), instrument, tier.config.probing).await;
    made.map(|report| json_response(StatusCode::OK, &json!(report))).map_err(refusal)
}

fn refusal(why: Unprobed) -> Refusal {
    let (status, code) = match why {
        Unprobed::UnknownInstrument => (StatusCode::NOT_FOUND, "unknown_instrument"),
        Unprobed::NoOffer => (StatusCode::NOT_FOUND, "no_offer"),
        Unprobed::Sealed => (StatusCode::CONFLICT, "sealed_credential"),
        Unprobed::Busy => (StatusCode::CONFLICT, "busy"),
    };
    Refusal::new(status, code, why.to_string())
}
