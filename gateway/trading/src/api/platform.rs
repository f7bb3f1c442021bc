//! Keys and settings: the Platform API (contract §5.11), signed like everything else for now instead of by OAuth.

use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use grid_engine::command::{AccountMode, AutoBuy, Command};
use grid_engine::{Fingerprint, KeyHash, Nanos};
use serde::Deserialize;
use serde_json::{Value, json};

use super::service::mode_text;
use crate::answer::{ApiError, Reply, data, data_as, nothing};
use crate::app::{App, Name, Signed};
use crate::auth::{base64_lenient, fingerprint_text};
use crate::ids::{self, Kind};
use crate::page::{LIMIT_MAX, Page};
use crate::time::{self, iso};

/// Longest name or label, in bytes.
const NAME_MAX: usize = grid_engine::limits::TEXT;

fn named(text: &str, what: &str) -> Result<String, ApiError> {
    if text.len() > NAME_MAX || text.chars().any(char::is_control) {
        let text = format!("{what} may have {NAME_MAX} bytes, without control characters");
        return Err(ApiError::unprocessable("VALIDATION_ERROR", text));
    }
    Ok(text.into())
}

/// The hash whose first 64 bits an id carries, among sorted hashes of one's own.
fn range_of(head: u64) -> std::ops::RangeInclusive<[u8; 32]> {
    let (mut low, mut high) = ([0; 32], [0xFF; 32]);
    low[..8].copy_from_slice(&head.to_be_bytes());
    high[..8].copy_from_slice(&head.to_be_bytes());
    low..=high
}

/// `GET /api-keys`.
pub(super) async fn api_keys(State(app): State<App>, signed: Signed) -> Reply {
    let now = time::now();
    let rows = app.view().look(|engine| -> Vec<Value> {
        let keys = engine.state().consumption_keys.iter().filter(|(_, key)| key.account == signed.account);
        keys.map(|(hash, key)| {
            json!({
                "id": ids::api_key(hash),
                "name": key.name,
                "key_prefix": key.prefix,
                "is_active": key.active && key.expires_at.is_none_or(|at| at > now),
                "expires_at": key.expires_at.map(iso),
                "created_at": iso(key.created_at),
            })
        })
        .collect()
    });
    let page = Page::parse(&signed.query, LIMIT_MAX, &["created_at", "inserted_at", "name"])?;
    page.of_rows(rows, "id")
}

#[derive(Deserialize)]
struct ApiKeyBody {
    api_key: ApiKeyFields,
}

#[derive(Deserialize)]
struct ApiKeyFields {
    name: String,
    #[serde(default)]
    expires_at: Option<String>,
}

/// `POST /api-keys`: the only answer that ever shows the key.
pub(super) async fn create_api_key(State(app): State<App>, signed: Signed) -> Reply {
    let body: ApiKeyBody = signed.json()?;
    let name = named(&body.api_key.name, "name")?;
    let expires_at = body
        .api_key
        .expires_at
        .as_deref()
        .map(|text| time::parse(text).ok_or_else(|| ApiError::malformed("expires_at is not ISO 8601")))
        .transpose()?;
    if expires_at.is_some_and(|at| at <= time::now()) {
        return Err(ApiError::unprocessable("VALIDATION_ERROR", "expires_at has passed"));
    }
    let secret = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    let (hash, prefix) = (KeyHash::of(&secret), secret[..8].to_owned());
    let command = Command::AddConsumptionKey { hash, prefix: prefix.clone(), name: name.clone(), expires_at };
    let answer = app.submit(signed.account, command).await?;
    let row = json!({
        "id": ids::api_key(&hash),
        "name": name,
        "key_prefix": prefix,
        "is_active": true,
        "expires_at": expires_at.map(iso),
        "created_at": iso(answer.at),
        "key": secret,
    });
    data_as(StatusCode::CREATED, row)
}

/// `DELETE /api-keys/{id}`. A revoked key stays in the list, inactive; revoking it again is 404.
pub(super) async fn revoke_api_key(State(app): State<App>, Name(id): Name, signed: Signed) -> Reply {
    let hash = ids::decode(Kind::ApiKey, &id).and_then(|head| {
        let range = range_of(head);
        app.view().look(|engine| {
            let keys = &engine.state().consumption_keys;
            let mut found = keys.range(KeyHash(*range.start())..=KeyHash(*range.end()));
            found.find(|(_, key)| key.account == signed.account && key.active).map(|(hash, _)| *hash)
        })
    });
    let hash = hash.ok_or_else(|| ApiError::not_found("KEY_NOT_FOUND"))?;
    app.submit(signed.account, Command::RevokeConsumptionKey { hash }).await?;
    nothing()
}

fn show_signing_key(
    app: &App,
    fingerprint: &Fingerprint,
    label: &str,
    public_key: &[u8; 32],
    active: bool,
    created_at: Nanos,
) -> Value {
    let id = ids::signing_key(fingerprint);
    json!({
        "id": id,
        "key_id": id,
        "label": label,
        "fingerprint_prefix": fingerprint_text(fingerprint)[..8],
        "public_key": base64::engine::general_purpose::STANDARD.encode(public_key),
        "is_active": active,
        "created_at": iso(created_at),
        "last_used_at": app.key_used_at(fingerprint).map(iso),
    })
}

/// `GET /signing-keys`.
pub(super) async fn signing_keys(State(app): State<App>, signed: Signed) -> Reply {
    let rows = app.view().look(|engine| -> Vec<Value> {
        let keys = engine.state().signing_keys.iter().filter(|(_, key)| key.account == signed.account);
        keys.map(|(fingerprint, key)| {
            show_signing_key(&app, fingerprint, &key.label, &key.public_key, key.active, key.created_at)
        })
        .collect()
    });
    let page = Page::parse(&signed.query, LIMIT_MAX, &["created_at", "inserted_at", "label"])?;
    page.of_rows(rows, "id")
}

#[derive(Deserialize)]
struct SigningKeyBody {
    signing_key: SigningKeyFields,
}

#[derive(Deserialize)]
struct SigningKeyFields {
    #[serde(default)]
    label: String,
    public_key: String,
}

/// `POST /signing-keys`.
pub(super) async fn create_signing_key(State(app): State<App>, signed: Signed) -> Reply {
    let body: SigningKeyBody = signed.json()?;
    let label = named(&body.signing_key.label, "label")?;
    let public_key: [u8; 32] = base64_lenient(&body.signing_key.public_key)
        .and_then(|bytes| bytes.try_into().ok())
        .filter(|bytes| ed25519_dalek::VerifyingKey::from_bytes(bytes).is_ok_and(|key| !key.is_weak()))
        .ok_or_else(|| {
            ApiError::unprocessable(
                "VALIDATION_ERROR",
                "public_key must be the Base64 of a 32-byte Ed25519 public key",
            )
        })?;
    let command = Command::AddSigningKey { public_key, label: label.clone() };
    let answer = app.submit(signed.account, command).await?;
    let fingerprint = Fingerprint::of(&public_key);
    let mut row = show_signing_key(&app, &fingerprint, &label, &public_key, true, answer.at);
    row["fingerprint"] = fingerprint_text(&fingerprint).into();
    data_as(StatusCode::CREATED, row)
}

/// `DELETE /signing-keys/{id}`; the id, or the fingerprint itself.
pub(super) async fn revoke_signing_key(State(app): State<App>, Name(id): Name, signed: Signed) -> Reply {
    let direct = base64_lenient(&id).and_then(|bytes| bytes.try_into().ok()).map(Fingerprint);
    let range = match (direct, ids::decode(Kind::SigningKey, &id)) {
        (Some(fingerprint), _) => Some(fingerprint.0..=fingerprint.0),
        (None, Some(head)) => Some(range_of(head)),
        (None, None) => None,
    };
    let fingerprint = range.and_then(|range| {
        app.view().look(|engine| {
            let keys = &engine.state().signing_keys;
            let mut found = keys.range(Fingerprint(*range.start())..=Fingerprint(*range.end()));
            found.find(|(_, key)| key.account == signed.account && key.active).map(|(found, _)| *found)
        })
    });
    let fingerprint = fingerprint.ok_or_else(|| ApiError::not_found("KEY_NOT_FOUND"))?;
    app.submit(signed.account, Command::RevokeSigningKey { fingerprint }).await?;
    nothing()
}

/// The caller's settings. What Auto Mode dictates is named in `mode_managed_fields`.
pub(super) fn show_settings(app: &App, signed: &Signed) -> Reply {
    let found = app.view().look(|engine| {
        let account = engine.state().account(signed.account)?;
        Some((account.mode, account.auto_buy, super::reload::members(&account.funding)))
    });
    let (mode, auto_buy, reload) = found.ok_or_else(|| ApiError::not_found("ACCOUNT_NOT_FOUND"))?;
    let easy = mode == AccountMode::Easy;
    let enabled = easy || auto_buy.enabled;
    let managed = if easy {
        json!(["auto_transfer_enabled", "auto_buy_enabled"])
    } else {
        json!(["auto_transfer_enabled"])
    };
    let mut settings = json!({
        "account_mode": mode_text(mode),
        "auto_transfer_enabled": easy,
        "auto_buy_enabled": enabled,
        "auto_buy_quantity": auto_buy.quantity.0,
        "auto_buy_trigger_threshold": auto_buy.trigger_threshold.0,
    });
    for (name, value) in reload {
        settings[name] = value;
    }
    settings["mode_managed_fields"] = managed;
    settings["auto_top_up_enabled"] = enabled.into();
    settings["auto_top_up_quantity"] = auto_buy.quantity.0.into();
    settings["auto_top_up_trigger_threshold"] = auto_buy.trigger_threshold.0.into();
    data(settings)
}

/// `GET /self/system-settings`.
pub(super) async fn settings(State(app): State<App>, signed: Signed) -> Reply {
    show_settings(&app, &signed)
}

#[derive(Deserialize)]
struct ModeBody {
    mode: String,
}

/// `POST /self/system-settings/account-mode`.
pub(super) async fn set_mode(State(app): State<App>, signed: Signed) -> Reply {
    let body: ModeBody = signed.json()?;
    let mode = match body.mode.as_str() {
        "easy" => AccountMode::Easy,
        "advanced" => AccountMode::Advanced,
        _ => {
            return Err(ApiError::unprocessable("VALIDATION_ERROR", "mode must be easy or advanced"));
        }
    };
    app.submit(signed.account, Command::SetMode { mode }).await?;
    nothing()
}

#[derive(Deserialize)]
struct AutoBuyBody {
    auto_buy_enabled: bool,
}

/// `PATCH /self/system-settings/auto-buy`.
pub(super) async fn set_auto_buy(State(app): State<App>, signed: Signed) -> Reply {
    let body: AutoBuyBody = signed.json()?;
    let found = app.view().look(|engine| {
        engine.state().account(signed.account).map(|account| (account.mode, account.auto_buy))
    });
    let (mode, auto_buy) = found.ok_or_else(|| ApiError::not_found("ACCOUNT_NOT_FOUND"))?;
    if mode == AccountMode::Easy {
        if !body.auto_buy_enabled {
            return Err(ApiError::forbidden("MODE_MANAGED_SETTING", "Auto Mode keeps auto-buy on."));
        }
    } else if auto_buy.enabled != body.auto_buy_enabled {
        let command = Command::SetAutoBuy(AutoBuy { enabled: body.auto_buy_enabled, ..auto_buy });
        app.submit(signed.account, command).await?;
    }
    show_settings(&app, &signed)
}
