//! Who is calling: consumption keys as bearer or `x-api-key`, and how many calls each may have at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use grid_engine::state::State;
use grid_engine::{AccountId, Fingerprint, KeyHash, KeyId, Nanos};
use hyper::header::AUTHORIZATION;
use hyper::{HeaderMap, StatusCode};
use parking_lot::Mutex;

use crate::allowance::Quota;
use crate::config::KeyLimits;
use crate::reply::Refusal;

/// Longest secret that is looked at, in bytes.
const SECRET_BYTES_MAX: usize = 512;

/// The caller's key and account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) key: KeyHash,
    /// The same, as the log knows it.
    pub(crate) id: KeyId,
    pub(crate) account: AccountId,
    /// What is left of the account's calls of today, where they are limited.
    pub(crate) quota: Option<Quota>,
}

/// The secret that a request carries, if any; `x-api-key` before bearer.
pub(crate) fn secret(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    if let Some(key) = text("x-api-key") {
        return Some(key.trim());
    }
    let (scheme, rest) = text(AUTHORIZATION.as_str())?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| rest.trim())
}

/// The caller that a secret stands for.
pub(crate) fn authenticate(state: &State, secret: Option<&str>) -> Result<Caller, Refusal> {
    let refusal = |text: &str| Refusal::new(StatusCode::UNAUTHORIZED, "invalid_api_key", text);
    let secret = secret.filter(|secret| !secret.is_empty()).ok_or_else(|| {
        refusal("no consumption key: send it as `Authorization: Bearer <key>` or `x-api-key: <key>`")
    })?;
    if secret.len() > SECRET_BYTES_MAX {
        return Err(refusal("unknown consumption key"));
    }
    let key = KeyHash::of(secret);
    match known(state, key) {
        Some(found) => found,
        None if is_trading_key(state, secret) => {
            Err(refusal("this is a trading key; inference takes a consumption key"))
        }
        None => Err(refusal("unknown consumption key")),
    }
}

/// The caller with this key, where there is one; a refusal where it is good no more.
pub(crate) fn known(state: &State, key: KeyHash) -> Option<Result<Caller, Refusal>> {
    let refusal = |text: &str| Refusal::new(StatusCode::UNAUTHORIZED, "invalid_api_key", text);
    Some(match state.consumption_keys.get(&key)? {
        known if !known.active => Err(refusal("this consumption key was revoked")),
        known if known.expires_at.is_some_and(|at| at <= now().max(state.now)) => {
            Err(refusal("this consumption key has expired"))
        }
        known => {
            let quota = Quota::of_day(state, known.account);
            Ok(Caller { key, id: known.id, account: known.account, quota })
        }
    })
}

fn is_trading_key(state: &State, secret: &str) -> bool {
    let mut bytes = [0; 32];
    let hex = secret.as_bytes();
    if hex.len() != 64 || !hex.iter().all(u8::is_ascii_hexdigit) {
        return false;
    }
    for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
        let text = std::str::from_utf8(pair).unwrap_or("00");
        *byte = u8::from_str_radix(text, 16).unwrap_or(0);
    }
    state.signing_keys.contains_key(&Fingerprint(bytes))
}

fn now() -> Nanos {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// Calls in progress and recent ones, by key. Only keys that exist get in, so it is as bounded as they are.
#[derive(Debug)]
pub(crate) struct Turnstile {
    limits: KeyLimits,
    keys: Mutex<HashMap<KeyHash, Use>>,
}

#[derive(Debug)]
struct Use {
    in_flight: u32,
    /// When the next call would be due if calls came evenly; ahead of now by what was used of the burst.
    due: Instant,
}

/// A call in progress; dropping it makes room.
#[derive(Debug)]
pub(crate) struct Permit {
    turnstile: Arc<Turnstile>,
    key: KeyHash,
}

impl Turnstile {
    pub(crate) fn new(limits: KeyLimits) -> Arc<Self> {
        Arc::new(Self { limits, keys: Mutex::default() })
    }

    /// Room for one more call of this key, or 429.
    pub(crate) fn enter(self: &Arc<Self>, key: KeyHash) -> Result<Permit, Refusal> {
        let limits = self.limits;
        let now = Instant::now();
        let mut keys = self.keys.lock();
        let used = keys.entry(key).or_insert(Use { in_flight: 0, due: now });
        if used.in_flight >= limits.concurrent {
            return Err(too_many("too many calls of this key in progress", Duration::from_secs(1)));
        }
        if limits.per_second > 0 {
            let interval = Duration::from_secs(1) / limits.per_second;
            let allowance = interval * limits.burst.saturating_sub(1);
            let due = used.due.max(now);
            let early = due.duration_since(now);
            if early > allowance {
                return Err(too_many("too many calls of this key", early - allowance));
            }
            used.due = due + interval;
        }
        used.in_flight += 1;
        Ok(Permit { turnstile: Arc::clone(self), key })
    }
}

fn too_many(message: &str, after: Duration) -> Refusal {
    Refusal {
        retry_after: Some(after),
        ..Refusal::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", message)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut keys = self.turnstile.keys.lock();
        if let Some(used) = keys.get_mut(&self.key) {
            used.in_flight -= 1;
            if used.in_flight == 0 && used.due <= Instant::now() {
                keys.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_its_calls_at_once_and_its_burst_and_no_more() {
        let turnstile = Turnstile::new(KeyLimits { concurrent: 2, per_second: 0, burst: 0 });
        let (key, other) = (KeyHash([1; 32]), KeyHash([2; 32]));
        let one = turnstile.enter(key).unwrap();
        let _two = turnstile.enter(key).unwrap();
        assert_eq!(turnstile.enter(key).unwrap_err().status.as_u16(), 429);
        let _other = turnstile.enter(other).unwrap();
        drop(one);
        assert!(turnstile.enter(key).is_ok());

        let slow = Turnstile::new(KeyLimits { concurrent: 9, per_second: 1, burst: 3 });
        for _ in 0..3 {
            drop(slow.enter(key).unwrap());
        }
        let refusal = slow.enter(key).unwrap_err();
        assert!(refusal.retry_after.unwrap() <= Duration::from_secs(1));
    }

    #[test]
    fn unused_keys_are_forgotten() {
        let turnstile = Turnstile::new(KeyLimits::default());
        drop(turnstile.enter(KeyHash([1; 32])).unwrap());
        assert!(turnstile.keys.lock().is_empty());
    }

    #[test]
    fn secrets_come_as_bearer_or_api_key() {
        for (name, value, expected) in [
            ("authorization", "Bearer abc", Some("abc")),
            ("authorization", "bearer  abc ", Some("abc")),
            ("authorization", "Basic abc", None),
            ("authorization", "abc", None),
            ("x-api-key", "abc", Some("abc")),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            assert_eq!(secret(&headers), expected, "{name}: {value}");
        }
    }
}
