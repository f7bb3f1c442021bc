//! What a login signs. Each transcript starts with its own domain string and holds the server's
//! nonce, so a signature proves that the key's owner wanted this login, on this connection, now.
//! Not here: keys and curves; the gateway verifies (strictly), the client signs.

use crate::messages::{Establish, Negotiate};

/// Start of a negotiation transcript.
pub const NEGOTIATE_DOMAIN: &[u8] = b"grid/negotiate/v1\0";
/// Start of an establishment transcript.
pub const ESTABLISH_DOMAIN: &[u8] = b"grid/establish/v1\0";
/// How far a login's timestamp may be from the venue's clock, nanoseconds.
pub const LOGIN_WINDOW_NS: u64 = 5_000_000_000;

/// The bytes that a [`Negotiate`] signs: domain, server nonce, client nonce, session, fingerprint,
/// timestamp, schema version, flow types; numbers little-endian.
pub fn negotiate_transcript(server_nonce: &[u8; 32], message: &Negotiate) -> Vec<u8> {
    let mut out = Vec::with_capacity(160);
    out.extend_from_slice(NEGOTIATE_DOMAIN);
    out.extend_from_slice(server_nonce);
    out.extend_from_slice(&message.client_nonce);
    out.extend_from_slice(&message.session.to_le_bytes());
    out.extend_from_slice(&message.fingerprint);
    out.extend_from_slice(&message.timestamp.to_le_bytes());
    out.extend_from_slice(&message.schema_version.to_le_bytes());
    out.extend_from_slice(&[message.client_flow as u8, message.server_flow as u8]);
    out
}

/// The bytes that an [`Establish`] signs: domain, server nonce, client nonce, session,
/// fingerprint, timestamp, schema version, keep-alive, wanted sequence, policy and grace; numbers
/// little-endian.
pub fn establish_transcript(server_nonce: &[u8; 32], message: &Establish) -> Vec<u8> {
    let mut out = Vec::with_capacity(176);
    out.extend_from_slice(ESTABLISH_DOMAIN);
    out.extend_from_slice(server_nonce);
    out.extend_from_slice(&message.client_nonce);
    out.extend_from_slice(&message.session.to_le_bytes());
    out.extend_from_slice(&message.fingerprint);
    out.extend_from_slice(&message.timestamp.to_le_bytes());
    out.extend_from_slice(&message.schema_version.to_le_bytes());
    out.extend_from_slice(&message.keep_alive_ms.to_le_bytes());
    out.extend_from_slice(&message.next_seq.to_le_bytes());
    out.push(message.cancel_policy as u8);
    out.extend_from_slice(&message.grace_ms.to_le_bytes());
    out
}

/// Whether a login's timestamp is close enough to the venue's clock; both nanoseconds UTC.
pub fn is_fresh(timestamp: u64, now: u64) -> bool {
    timestamp.abs_diff(now) <= LOGIN_WINDOW_NS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signed_field_changes_the_transcript() {
        let nonce = [7; 32];
        let base = Establish::default();
        let changed = [
            Establish { session: 1, ..base },
            Establish { client_nonce: [1; 32], ..base },
            Establish { fingerprint: [1; 32], ..base },
            Establish { timestamp: 1, ..base },
            Establish { next_seq: 1, ..base },
            Establish { keep_alive_ms: 1, ..base },
            Establish { grace_ms: 1, ..base },
            Establish { schema_version: 1, ..base },
            Establish { cancel_policy: crate::CancelPolicy::CancelAfterGrace, ..base },
        ];
        for message in changed {
            assert_ne!(establish_transcript(&nonce, &message), establish_transcript(&nonce, &base));
        }
        assert_ne!(establish_transcript(&[8; 32], &base), establish_transcript(&nonce, &base));
        let base = Negotiate::default();
        let changed = [
            Negotiate { session: 1, ..base },
            Negotiate { client_nonce: [1; 32], ..base },
            Negotiate { fingerprint: [1; 32], ..base },
            Negotiate { timestamp: 1, ..base },
            Negotiate { schema_version: 1, ..base },
            Negotiate { client_flow: crate::Flow::Idempotent, ..base },
            Negotiate { server_flow: crate::Flow::Recoverable, ..base },
        ];
        for message in changed {
            assert_ne!(negotiate_transcript(&nonce, &message), negotiate_transcript(&nonce, &base));
        }
    }

    #[test]
    fn a_timestamp_is_fresh_up_to_five_seconds_either_way() {
        let now = 1_000_000_000_000;
        assert!(is_fresh(now + LOGIN_WINDOW_NS, now) && is_fresh(now - LOGIN_WINDOW_NS, now));
        assert!(!is_fresh(now + LOGIN_WINDOW_NS + 1, now) && !is_fresh(now - LOGIN_WINDOW_NS - 1, now));
        assert!(!is_fresh(now / 1_000_000, now), "milliseconds are not nanoseconds");
    }
}
