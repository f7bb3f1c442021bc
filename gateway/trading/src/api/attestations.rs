//! Quality attestations (design §4): benchmark providers hand them in signed, and whoever may see them gets all that is
//! needed to check them again.

use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use grid_engine::command::Command;
use grid_engine::sla::Attestation;
use grid_engine::state::{Attested, Instrument, SigningKey};
use grid_engine::{AccountId, Fingerprint, Nanos, Reject};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answer::{ApiError, Reply, data, data_as};
use crate::app::{App, Signed};
use crate::auth::base64_lenient;
use crate::ids::{self, Kind};
use crate::time::iso;

/// A statement as its signer hands it in.
#[derive(Deserialize)]
struct Body {
    supplier_id: String,
    instrument_id: String,
    model: String,
    score: u32,
    /// Nanoseconds since 1970 in UTC, since the signature covers them.
    valid_until_ns: u64,
    /// Of the key that signed, as at registration; the key of this request where none is named.
    #[serde(default)]
    fingerprint: Option<String>,
    /// Base64 of the 64 bytes.
    signature: String,
}

fn show(attested: &Attested, found: &Instrument, key: Option<&SigningKey>) -> Value {
    let said = &attested.statement;
    json!({
        "supplier_id": ids::user(said.supplier),
        "supplier_number": said.supplier.0,
        "instrument_id": ids::instrument(said.instrument),
        "instrument_symbol": found.spec.symbol,
        "model": said.model,
        "index": found.spec.quality.index,
        "score": said.score,
        "score_floor": found.spec.quality.score_floor,
        "valid_until": iso(said.valid_until),
        "valid_until_ns": said.valid_until.0,
        "attested_by": ids::user(attested.by),
        "attested_at": iso(attested.at),
        "statement": said.statement(&found.spec.symbol, &found.spec.quality.index),
        "public_key": key.map(|key| BASE64.encode(key.public_key)),
        "signature": BASE64.encode(&said.signature),
    })
}

/// `POST /attestations`. The venue checks the signature; it is looked at here first, so that what is not signed at all costs
/// nobody a place in the log.
pub(super) async fn submit(State(app): State<App>, signed: Signed) -> Reply {
    let body: Body = signed.json()?;
    let supplier = ids::decode(Kind::User, &body.supplier_id).and_then(|number| u32::try_from(number).ok());
    let supplier = AccountId(supplier.ok_or_else(|| ApiError::not_found("SUPPLIER_NOT_FOUND"))?);
    let instrument = ids::decode_instrument(&body.instrument_id);
    let (instrument, symbol, index) = app.instrument(instrument, "INSTRUMENT_NOT_FOUND", |found| {
        (found.id, found.spec.symbol.clone(), found.spec.quality.index.clone())
    })?;
    let signature = base64_lenient(&body.signature);
    let signature = signature.ok_or_else(|| ApiError::rejected(Reject::BadSignature))?;
    let key = match &body.fingerprint {
        Some(text) => fingerprint(text).ok_or_else(|| ApiError::rejected(Reject::UnknownKey))?,
        None => signed.key,
    };
    let statement = Attestation {
        supplier,
        instrument,
        model: body.model,
        score: body.score,
        valid_until: Nanos(body.valid_until_ns),
        key,
        signature,
    };
    let known = app.view().look(|engine| {
        let key = engine.state().signing_keys.get(&key);
        key.filter(|key| key.account == signed.account && key.active).map(|key| key.public_key)
    });
    let public_key = known.ok_or_else(|| ApiError::rejected(Reject::UnknownKey))?;
    if !statement.is_signed_by(&public_key, &symbol, &index) {
        return Err(ApiError::rejected(Reject::BadSignature));
    }
    let place = (supplier, instrument, statement.model.clone());
    app.submit(signed.account, Command::Attest(Box::new(statement))).await?;
    let shown = app.view().look(|engine| {
        let venue = engine.state();
        let attested = venue.attestations.get(&place)?;
        let key = venue.signing_keys.get(&attested.statement.key);
        Some(show(attested, venue.instrument(instrument)?, key))
    });
    let shown = shown.ok_or_else(|| ApiError::fault("an accepted attestation is in the state"))?;
    data_as(StatusCode::CREATED, shown)
}

fn fingerprint(text: &str) -> Option<Fingerprint> {
    base64_lenient(text)?.try_into().ok().map(Fingerprint)
}

/// `GET /attestations`: the operator's and the benchmark providers' view of all, a supplier's of its own.
pub(super) async fn list(State(app): State<App>, signed: Signed) -> Reply {
    let rows = app.view().look(|engine| {
        let venue = engine.state();
        let caller = venue.account(signed.account);
        let all = caller.is_some_and(|account| account.capabilities.operator || account.benchmark);
        let may = all || venue.suppliers.contains_key(&signed.account);
        let mine = |supplier: AccountId| all || supplier == signed.account;
        let rows = venue.attestations.values().filter(|one| mine(one.statement.supplier)).filter_map(|one| {
            let found = venue.instrument(one.statement.instrument)?;
            Some(show(one, found, venue.signing_keys.get(&one.statement.key)))
        });
        may.then(|| rows.collect::<Vec<_>>())
    });
    data(rows.ok_or_else(|| ApiError::rejected(Reject::NotASupplier))?)
}
