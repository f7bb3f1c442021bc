//! Who is asking: Ed25519 over the exact bytes of the request (contract §5.1).
//!
//! Signed are timestamp, upper-case method, the path that was really requested (without its query) and the raw body,
//! one after the other with nothing between. A request is checked in the order: headers there → clock → key known and
//! active → body read → signature; so that nobody without a registered key makes the venue read a body.

use crate::answer::ApiError;
use axum::http::HeaderMap;
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ed25519_dalek::{Signature, VerifyingKey};
use grid_engine::Fingerprint;

/// Header with the Base64 of the 64-byte signature.
pub const SIGNATURE: &str = "x-thegrid-signature";
/// Header with Unix seconds.
pub const TIMESTAMP: &str = "x-thegrid-timestamp";
/// Header with the Base64 of SHA-256 of the public key.
pub const FINGERPRINT: &str = "x-thegrid-fingerprint";
/// How far a client's clock may be off, either way, in seconds.
pub const WINDOW_S: u64 = 30;

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Reads Base64, padded or not, in the standard or the URL-safe alphabet.
#[must_use]
pub fn base64_lenient(text: &str) -> Option<Vec<u8>> {
    let text = text.trim().replace('-', "+").replace('_', "/");
    LENIENT.decode(text.trim_end_matches('=')).ok()
}

/// Base64 of a fingerprint without padding, as clients show and send it.
#[must_use]
pub fn fingerprint_text(fingerprint: &Fingerprint) -> String {
    base64::engine::general_purpose::STANDARD_NO_PAD.encode(fingerprint.0)
}

/// What the three headers say, before anything was proven.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    timestamp: String,
    /// Which key signed.
    pub(crate) fingerprint: Fingerprint,
    signature: Signature,
}

impl Claim {
    /// Reads the headers and checks the clock.
    pub(crate) fn read(headers: &HeaderMap, now_s: u64) -> Result<Self, ApiError> {
        let one = |name: &str| -> Result<&str, ApiError> {
            let mut values = headers.get_all(name).iter();
            match (values.next(), values.next()) {
                (Some(value), None) => value.to_str().ok().filter(|text| !text.is_empty()),
                _ => None,
            }
            .ok_or_else(|| {
                ApiError::unauthorized("INVALID_SIGNATURE", &format!("header {name} is required once"))
            })
        };
        let (signature, timestamp, fingerprint) = (one(SIGNATURE)?, one(TIMESTAMP)?, one(FINGERPRINT)?);
        let seconds = Some(timestamp)
            .filter(|text| text.len() <= 20 && text.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|text| text.parse::<u64>().ok())
            .ok_or_else(|| {
                ApiError::unauthorized("EXPIRED_TIMESTAMP", "timestamp must be Unix time in whole seconds")
            })?;
        if seconds.abs_diff(now_s) > WINDOW_S {
            let text = "timestamp must be Unix seconds within 30 seconds of server time";
            return Err(ApiError::unauthorized("EXPIRED_TIMESTAMP", text));
        }
        let fingerprint = base64_lenient(fingerprint)
            .and_then(|bytes| bytes.try_into().ok())
            .map(Fingerprint)
            .ok_or_else(Self::unknown_key)?;
        let signature = base64_lenient(signature)
            .and_then(|bytes| Signature::from_slice(&bytes).ok())
            .ok_or_else(Self::bad_signature)?;
        Ok(Self { timestamp: timestamp.into(), fingerprint, signature })
    }

    /// Checks the signature over the request as it came.
    pub(crate) fn verify(
        &self,
        public_key: &[u8; 32],
        method: &str,
        path: &str,
        body: &[u8],
    ) -> Result<(), ApiError> {
        let message = signed_message(&self.timestamp, method, path, body);
        VerifyingKey::from_bytes(public_key)
            .and_then(|key| key.verify_strict(&message, &self.signature))
            .map_err(|_| Self::bad_signature())
    }

    /// 401 for a key that is not registered, or revoked.
    #[must_use]
    pub(crate) fn unknown_key() -> ApiError {
        ApiError::unauthorized("INVALID_API_KEY", "Unknown or revoked fingerprint")
    }

    fn bad_signature() -> ApiError {
        ApiError::unauthorized("INVALID_SIGNATURE", "Signature verification failed")
    }
}

/// The bytes that are signed.
#[must_use]
pub fn signed_message(timestamp: &str, method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(timestamp.len() + method.len() + path.len() + body.len());
    for part in [timestamp.as_bytes(), method.as_bytes(), path.as_bytes(), body] {
        message.extend_from_slice(part);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer, SigningKey};

    const NOW: u64 = 1_790_000_000;

    fn headers(values: &[(&'static str, String)]) -> HeaderMap {
        values
            .iter()
            .map(|(name, value)| {
                (axum::http::HeaderName::from_static(name), value.parse().expect("a header value"))
            })
            .collect()
    }

    fn signed(
        seed: u8,
        timestamp: &str,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> [(&'static str, String); 3] {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let signature = key.sign(&signed_message(timestamp, method, path, body));
        [
            (SIGNATURE, base64::engine::general_purpose::STANDARD.encode(signature.to_bytes())),
            (TIMESTAMP, timestamp.into()),
            (FINGERPRINT, fingerprint_text(&Fingerprint::of(key.verifying_key().as_bytes()))),
        ]
    }

    #[test]
    fn published_vectors_are_reproduced_and_verify() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../vectors/signatures.json")).expect("the vectors are JSON");
        for vector in vectors["vectors"].as_array().expect("a list") {
            let text = |name: &str| vector[name].as_str().expect("text").to_owned();
            let seed: [u8; 32] =
                base64_lenient(&text("private_key")).expect("Base64").try_into().expect("a seed");
            let key = SigningKey::from_bytes(&seed);
            let message =
                signed_message(&text("timestamp"), &text("method"), &text("path"), text("body").as_bytes());
            assert_eq!(String::from_utf8(message.clone()).expect("text"), text("message"));
            let signature = base64::engine::general_purpose::STANDARD.encode(key.sign(&message).to_bytes());
            assert_eq!(signature, text("signature"), "{}", text("name"));
            let public = key.verifying_key();
            assert_eq!(fingerprint_text(&Fingerprint::of(public.as_bytes())), text("fingerprint"));
            let map = headers(&[
                (SIGNATURE, text("signature")),
                (TIMESTAMP, text("timestamp")),
                (FINGERPRINT, text("fingerprint")),
            ]);
            let now = text("timestamp").parse().expect("seconds");
            let claim = Claim::read(&map, now).expect("well-formed headers");
            claim
                .verify(public.as_bytes(), &text("method"), &text("path"), text("body").as_bytes())
                .expect("the vector verifies");
        }
    }

    #[test]
    fn the_clock_may_be_thirty_seconds_off_and_no_more() {
        for (timestamp, ok) in [
            (NOW - 31, false),
            (NOW - 30, true),
            (NOW, true),
            (NOW + 30, true),
            (NOW + 31, false),
            (NOW * 1_000, false),
        ] {
            let map = headers(&signed(1, &timestamp.to_string(), "GET", "/v1/orders", b""));
            assert_eq!(Claim::read(&map, NOW).is_ok(), ok, "{timestamp}");
        }
    }

    #[test]
    fn headers_are_read_leniently_but_each_exactly_once() {
        let good = signed(1, &NOW.to_string(), "GET", "/v1/me", b"");
        let key = *SigningKey::from_bytes(&[1; 32]).verifying_key().as_bytes();
        let variants: [fn(&str) -> String; 4] = [
            str::to_owned,
            |text| text.trim_end_matches('=').into(),
            |text| text.replace('+', "-").replace('/', "_"),
            |text| format!("{}==", text.trim_end_matches('=')),
        ];
        for variant in variants {
            let map = headers(&[
                (SIGNATURE, variant(&good[0].1)),
                good[1].clone(),
                (FINGERPRINT, variant(&good[2].1)),
            ]);
            let claim = Claim::read(&map, NOW).expect("a lenient form");
            claim.verify(&key, "GET", "/v1/me", b"").expect("the same signature");
        }
        for missing in 0..3 {
            let some: Vec<_> =
                good.iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, h)| h.clone()).collect();
            assert_eq!(Claim::read(&headers(&some), NOW).err().map(|error| error.status.as_u16()), Some(401));
        }
        let mut twice = headers(&good);
        twice.append(TIMESTAMP, NOW.into());
        assert!(Claim::read(&twice, NOW).is_err(), "an ambiguous header is refused");
        for (at, text) in
            [(0, "AAAA"), (0, "not base64!"), (1, "-5"), (1, "1.7e9"), (1, ""), (2, "AAAA"), (2, "ü")]
        {
            let mut bad = good.to_vec();
            bad[at].1 = text.into();
            assert_eq!(
                Claim::read(&headers(&bad), NOW).err().map(|error| error.status.as_u16()),
                Some(401),
                "{text}"
            );
        }
    }

    #[test]
    fn a_signature_covers_every_byte_of_the_request() {
        let key = *SigningKey::from_bytes(&[1; 32]).verifying_key().as_bytes();
        let map = headers(&signed(1, &NOW.to_string(), "POST", "/v1/orders", br#"{"a": 1}"#));
        let claim = Claim::read(&map, NOW).expect("well-formed");
        claim.verify(&key, "POST", "/v1/orders", br#"{"a": 1}"#).expect("as signed");
        let other = *SigningKey::from_bytes(&[2; 32]).verifying_key().as_bytes();
        let table: [(&[u8; 32], &str, &str, &[u8]); 6] = [
            (&key, "PUT", "/v1/orders", br#"{"a": 1}"#),
            (&key, "post", "/v1/orders", br#"{"a": 1}"#),
            (&key, "POST", "/v1/trading/orders", br#"{"a": 1}"#),
            (&key, "POST", "/v1/orders", br#"{"a":1}"#),
            (&key, "POST", "/v1/orders", b""),
            (&other, "POST", "/v1/orders", br#"{"a": 1}"#),
        ];
        for (key, method, path, body) in table {
            let error = claim.verify(key, method, path, body).expect_err("something differs");
            assert_eq!(
                (error.status.as_u16(), error.detail.as_str()),
                (401, "Signature verification failed")
            );
        }
    }
}
