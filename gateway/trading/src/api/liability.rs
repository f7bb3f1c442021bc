//! What suppliers owe and how well they serve (contract §5.9; the fields are ours, since none are published).
//!
//! A supplier sees itself. The operator may name another supplier, or `all`, and so reads beside each row whose it is.

use axum::extract::State;
use grid_engine::state::{Closed, Figures, Instrument, Service, Standing, State as Venue, Supply};
use grid_engine::{AccountId, InstrumentId, UsdTotal};
use serde_json::{Value, json};

use crate::answer::{ApiError, Reply, data};
use crate::app::{App, Name, Signed};
use crate::decimal::tokens_number;
use crate::ids::{self, Kind};
use crate::time::iso;

fn show_figures(figures: &Figures) -> Value {
    let broken = figures.broken;
    let terms = [
        ("ttft", broken.ttft),
        ("tokens_per_second", broken.pace),
        ("errors", broken.errors),
        ("uptime", broken.uptime),
    ];
    let broken: Vec<&str> = terms.into_iter().filter(|(_, broken)| *broken).map(|(name, _)| name).collect();
    json!({
        "calls": figures.calls,
        "faults": figures.faults,
        "distrusted": figures.lies,
        "error_rate_bps": figures.error_bps,
        "uptime_bps": figures.uptime_bps,
        "ttft_ms": figures.ttft_us.div_ceil(1_000),
        "tokens_per_second": figures.tokens_per_second,
        "late": figures.late,
        "slow": figures.slow,
        "value_usd": figures.value.to_string(),
        "broken_terms": broken,
    })
}

fn show_standing(standing: Standing) -> Value {
    match standing {
        Standing::Active => json!({ "status": "active", "reasons": [], "since": Value::Null }),
        Standing::Suspended { since, why } => {
            let reasons = [("breach", why.breach), ("quality", why.quality)];
            let reasons: Vec<&str> =
                reasons.into_iter().filter(|(_, holds)| *holds).map(|(name, _)| name).collect();
            json!({ "status": "suspended", "reasons": reasons, "since": iso(since) })
        }
    }
}

fn show_service(service: Option<&Service>, found: &Instrument) -> Value {
    let Some(service) = service.filter(|_| !found.sla.window.is_zero()) else {
        return Value::Null;
    };
    let closed = |closed: &Closed| {
        let mut row = show_figures(&closed.figures);
        row["closed_at"] = iso(closed.at).into();
        row["penalty_usd"] = closed.penalty.to_string().into();
        row
    };
    let mut window = show_figures(&service.window.figures(&found.sla));
    window["ends_at"] = found.window_ends.map_or(Value::Null, |at| iso(at).into());
    json!({
        "window": window,
        "last_window": service.last.as_ref().map_or(Value::Null, closed),
        "breaches_in_a_row": service.breaches,
        "breaches_total": service.breaches_total,
        "breaches_until_suspension": found.sla.breaches_to_suspend,
    })
}

fn show(venue: &Venue, supplier: AccountId, id: InstrumentId, found: &Instrument, supply: &Supply) -> Value {
    json!({
        "supplier_id": ids::user(supplier),
        "instrument_id": ids::instrument(id),
        "instrument_symbol": found.spec.symbol,
        "instrument_name": found.spec.name,
        "capacity": supply.capacity.0,
        "total_issued": tokens_number(supply.issued.0),
        "total_delivered": tokens_number(supply.delivered.0),
        "total_expired": tokens_number(supply.expired.0),
        "outstanding": tokens_number(supply.liability().0),
        "issued_tokens": supply.issued.0,
        "delivered_tokens": supply.delivered.0,
        "expired_tokens": supply.expired.0,
        "outstanding_tokens": supply.liability().0,
        "escrow_usd": supply.escrow.to_string(),
        "earned_usd": supply.earned.to_string(),
        "collateral_usd": supply.collateral.to_string(),
        "collateral_per_unit_usd": found.sla.collateral_per_unit.to_string(),
        "penalties_usd": supply.penalties.to_string(),
        // Of the supplier, whatever the instrument.
        "owed_usd": UsdTotal(venue.owed_by(supplier)).to_string(),
        "covered_tokens": supply.covered.0,
        "cover_cost_usd": supply.cover_cost.to_string(),
        "calls": supply.calls,
        "failures": supply.failures,
        "standing": show_standing(supply.standing),
        "service": show_service(venue.services.get(supplier, id), found),
    })
}

/// Whose liabilities the caller may see; 403 for who is neither a supplier nor the operator.
fn visible(venue: &Venue, signed: &Signed) -> Result<Vec<AccountId>, ApiError> {
    let operator = venue.account(signed.account).is_some_and(|account| account.capabilities.operator);
    match signed.query.get("supplier_id") {
        Some("all") if operator => Ok(venue.suppliers.keys().copied().collect()),
        Some(id) => {
            let number = ids::decode(Kind::User, id).and_then(|number| u32::try_from(number).ok());
            let known = number.map(AccountId).filter(|id| venue.suppliers.contains_key(id));
            let visible = known.filter(|id| operator || *id == signed.account);
            visible.map(|id| vec![id]).ok_or_else(|| ApiError::not_found("SUPPLIER_NOT_FOUND"))
        }
        None if venue.suppliers.contains_key(&signed.account) => Ok(vec![signed.account]),
        None => Err(ApiError::rejected(grid_engine::Reject::NotASupplier)),
    }
}

fn rows(app: &App, signed: &Signed, wanted: Option<InstrumentId>) -> Result<Vec<Value>, ApiError> {
    app.view().look(|engine| {
        let venue = engine.state();
        let suppliers = visible(venue, signed)?;
        let rows = suppliers.into_iter().flat_map(|supplier| {
            let mine = venue.supplies.of(supplier);
            let mine = mine.filter(move |(id, _)| wanted.is_none_or(|wanted| *id == wanted));
            mine.filter_map(move |(id, supply)| {
                venue.instrument(id).map(|found| show(venue, supplier, id, found, supply))
            })
        });
        Ok(rows.collect())
    })
}

/// `GET /supplier-liability`.
pub(super) async fn list(State(app): State<App>, signed: Signed) -> Reply {
    data(rows(&app, &signed, None)?)
}

/// `GET /supplier-liability/{instrument_id}`. The operator names a supplier where there are several.
pub(super) async fn one(State(app): State<App>, Name(id): Name, signed: Signed) -> Reply {
    let wanted = app.instrument(ids::decode_instrument(&id), "INSTRUMENT_NOT_FOUND", |found| found.id)?;
    let row = rows(&app, &signed, Some(wanted))?.into_iter().next();
    row.map_or_else(|| Err(ApiError::not_found("INSTRUMENT_NOT_FOUND")), data)
}
