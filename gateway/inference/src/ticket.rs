//! A ticket sends a call on to another node of the venue, which takes it instead of a key (contract §6.2).
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 1 | version, 1 |
//! | 1 | 16 | the call's number, big-endian: its public handle, and the number of its reservation |
//! | 17 | 4 | the account, big-endian |
//! | 21 | 32 | the hash of the consumption key |
//! | 53 | 8 | issued, milliseconds since 1970, big-endian |
//! | 61 | 8 | expires, likewise |
//! | 69 | 32 | SHA-256 of the body |
//! | 101 | 64 | Ed25519 over a line that names the purpose, method and path, over the node it is for, and over all of the above |
//!
//! It is written in Base64 for URLs, without padding. The signing key follows from the venue's key, so every node that
//! can open the suppliers' credentials can check it, and nobody else can make one.
//!
//! **Single use.** A ticket is good at one node alone, which remembers the numbers of those that it took until they
//! expire, and takes none that are older than itself. So nothing has to be agreed between nodes. Should it all the same
//! come twice while the first call is open, the engine refuses the second reservation under the same number. A ticket
//! that is never used costs nothing: nothing is reserved before it is taken.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, Signer, SigningKey};
use grid_engine::{AccountId, KeyHash};
use hyper::StatusCode;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::time::Duration;

use crate::reply::Refusal;
use crate::seal::VenueKey;

const VERSION: u8 = 1;
const SIGNED_BYTES: usize = 101;
const BYTES: usize = SIGNED_BYTES + 64;
/// What a signature is for; a version of its own for every other method or path there may be.
const PURPOSE: &[u8] = b"grid ticket 1\nPOST /v1/chat/completions\n";
/// What makes the signing key differ from every other use of the venue's key.
const KEY_PURPOSE: &[u8] = b"grid ticket signing key 1\n";

/// What a ticket says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) request: u128,
    pub(crate) account: AccountId,
    pub(crate) key: KeyHash,
    /// Milliseconds since 1970.
    pub(crate) issued_ms: u64,
    /// Milliseconds since 1970.
    pub(crate) expires_ms: u64,
    /// SHA-256 of the body.
    pub(crate) body: [u8; 32],
}

/// The hash of a body, as tickets hold it.
pub(crate) fn body_hash(body: &[u8]) -> [u8; 32] {
    Sha256::digest(body).into()
}

impl Ticket {
    fn signed(&self) -> [u8; SIGNED_BYTES] {
        let mut bytes = [0; SIGNED_BYTES];
        let mut at = 0;
        let mut put = |part: &[u8]| {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        };
        put(&[VERSION]);
        put(&self.request.to_be_bytes());
        put(&self.account.0.to_be_bytes());
        put(&self.key.0);
        put(&self.issued_ms.to_be_bytes());
        put(&self.expires_ms.to_be_bytes());
        put(&self.body);
        bytes
    }

    fn unsigned(bytes: &[u8; SIGNED_BYTES]) -> Option<Self> {
        let part = |from: usize, len: usize| &bytes[from..from + len];
        let number = |from: usize| Some(u64::from_be_bytes(part(from, 8).try_into().ok()?));
        (bytes[0] == VERSION).then_some(())?;
        Some(Self {
            request: u128::from_be_bytes(part(1, 16).try_into().ok()?),
            account: AccountId(u32::from_be_bytes(part(17, 4).try_into().ok()?)),
            key: KeyHash(part(21, 32).try_into().ok()?),
            issued_ms: number(53)?,
            expires_ms: number(61)?,
            body: part(69, 32).try_into().ok()?,
        })
    }
}

/// Why a ticket is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Void {
    /// Not signed by the venue for this node, this method and this path, or altered since.
    Forged,
    /// Its time is over, or it is older than the node.
    Expired,
    /// It was taken before.
    Used,
    /// It came with another body than the one it was issued for.
    OtherBody,
    /// The node remembers as many tickets as it can.
    Full,
}

impl Void {
    /// What the client is told. Where another ticket would do, it is told to start over.
    pub(crate) fn refusal(self) -> Refusal {
        let no = |code, message: &str| Refusal::new(StatusCode::UNAUTHORIZED, code, message);
        match self {
            Self::Forged => {
                no("ticket_invalid", "the token in the URL is not one of this venue for this node")
            }
            Self::Expired => Refusal {
                retry_after: Some(Duration::ZERO),
                ..no(
                    "ticket_expired",
                    "the token in the URL has expired: send the request to the first address again",
                )
            },
            Self::Used => {
                no("ticket_used", "the token in the URL was used already; each is good for one call")
            }
            Self::OtherBody => no("ticket_body", "the token in the URL was issued for another body"),
            Self::Full => Refusal::unavailable(
                "busy",
                "this node takes no more tokens just now",
                Duration::from_secs(1),
            ),
        }
    }
}

/// Makes and checks tickets.
pub(crate) struct Office {
    key: SigningKey,
    /// When this node began, in milliseconds since 1970.
    began_ms: u64,
    /// Tickets remembered at most.
    kept: usize,
    taken: Mutex<Taken>,
}

/// Numbers of tickets that were taken and have not expired: by number, and by the moment they may be forgotten.
#[derive(Default)]
struct Taken {
    numbers: BTreeSet<u128>,
    expiring: BTreeSet<(u64, u128)>,
}

impl Office {
    pub(crate) fn new(venue: &VenueKey, began_ms: u64, kept: usize) -> Self {
        let key = SigningKey::from_bytes(&venue.derive(KEY_PURPOSE));
        Self { key, began_ms, kept, taken: Mutex::default() }
    }

    /// The token for a node.
    pub(crate) fn issue(&self, ticket: &Ticket, node: &str) -> String {
        let signed = ticket.signed();
        let signature = self.key.sign(&message(node, &signed));
        URL_SAFE_NO_PAD.encode([&signed[..], &signature.to_bytes()].concat())
    }

    /// What a token says, where it is one of ours for this node and still good.
    pub(crate) fn read(&self, token: &str, node: &str, now_ms: u64) -> Result<Ticket, Void> {
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| Void::Forged)?;
        let bytes: &[u8; BYTES] = bytes.as_slice().try_into().map_err(|_| Void::Forged)?;
        let (signed, signature) = bytes.split_first_chunk::<SIGNED_BYTES>().ok_or(Void::Forged)?;
        let signature = Signature::from_slice(signature).map_err(|_| Void::Forged)?;
        let known = self.key.verifying_key().verify_strict(&message(node, signed), &signature);
        known.map_err(|_| Void::Forged)?;
        let ticket = Ticket::unsigned(signed).ok_or(Void::Forged)?;
        // Whoever was up before this node was may know it as used.
        if now_ms >= ticket.expires_ms || ticket.issued_ms < self.began_ms {
            return Err(Void::Expired);
        }
        Ok(ticket)
    }

    /// Takes a ticket that was read, with the body that came with it.
    pub(crate) fn take(&self, ticket: &Ticket, body: &[u8], now_ms: u64) -> Result<(), Void> {
        if body_hash(body) != ticket.body {
            return Err(Void::OtherBody);
        }
        let mut taken = self.taken.lock();
        while let Some((expires, number)) = taken.expiring.first().copied().filter(|(at, _)| *at <= now_ms) {
            taken.expiring.remove(&(expires, number));
            taken.numbers.remove(&number);
        }
        if taken.numbers.contains(&ticket.request) {
            return Err(Void::Used);
        }
        if now_ms >= ticket.expires_ms {
            return Err(Void::Expired);
        }
        if taken.numbers.len() >= self.kept {
            return Err(Void::Full);
        }
        taken.numbers.insert(ticket.request);
        taken.expiring.insert((ticket.expires_ms, ticket.request));
        Ok(())
    }
}

fn message(node: &str, signed: &[u8; SIGNED_BYTES]) -> Vec<u8> {
    [PURPOSE, node.trim_end_matches('/').as_bytes(), b"\n", signed].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str = "http://two.example/v1";
    const BODY: &[u8] = b"{}";

    fn office(began_ms: u64, kept: usize) -> Office {
        Office::new(&VenueKey::new([7; 32]), began_ms, kept)
    }

    fn ticket(request: u128) -> Ticket {
        Ticket {
            request,
            account: AccountId(5),
            key: KeyHash([3; 32]),
            issued_ms: 1_000,
            expires_ms: 2_000,
            body: body_hash(BODY),
        }
    }

    #[test]
    fn a_ticket_says_what_it_said_when_it_was_issued() {
        let (front, hop) = (office(900, 8), office(500, 8));
        let token = front.issue(&ticket(7), NODE);
        assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{token}");
        assert_eq!(hop.read(&token, NODE, 1_999), Ok(ticket(7)));
        assert_eq!(hop.read(&token, &format!("{NODE}/"), 1_000), Ok(ticket(7)));
    }

    #[test]
    fn what_is_not_ours_for_this_node_and_this_moment_is_void() {
        let hop = office(500, 8);
        let token = office(900, 8).issue(&ticket(7), NODE);
        let stranger = Office::new(&VenueKey::new([8; 32]), 500, 8).issue(&ticket(7), NODE);
        for (what, token, node, now, void) in [
            ("another key", stranger.as_str(), NODE, 1_500, Void::Forged),
            ("another node", &token, "http://three.example/v1", 1_500, Void::Forged),
            ("nothing", "", NODE, 1_500, Void::Forged),
            ("cut", &token[..token.len() - 4], NODE, 1_500, Void::Forged),
            ("longer", &format!("{token}AAAA"), NODE, 1_500, Void::Forged),
            ("not Base64", "***", NODE, 1_500, Void::Forged),
            ("its last moment", &token, NODE, 2_000, Void::Expired),
        ] {
            assert_eq!(hop.read(token, node, now), Err(void), "{what}");
        }
        assert_eq!(office(1_001, 8).read(&token, NODE, 1_500), Err(Void::Expired), "older than the node");
        let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            let altered = URL_SAFE_NO_PAD.encode(altered);
            assert_eq!(hop.read(&altered, NODE, 1_500), Err(Void::Forged), "byte {at}");
        }
    }

    #[test]
    fn each_is_good_once_and_with_its_own_body() {
        let hop = office(500, 8);
        assert_eq!(hop.take(&ticket(7), b"{ }", 1_500), Err(Void::OtherBody));
        assert_eq!(hop.take(&ticket(7), BODY, 1_500), Ok(()));
        assert_eq!(hop.take(&ticket(7), BODY, 1_999), Err(Void::Used));
        assert_eq!(hop.take(&ticket(8), BODY, 1_999), Ok(()));
        assert_eq!(hop.take(&ticket(9), BODY, 2_000), Err(Void::Expired));
        assert_eq!(hop.take(&ticket(7), BODY, 2_000), Err(Void::Expired), "forgotten, and good for nothing");
        assert!(hop.taken.lock().numbers.is_empty());
    }

    #[test]
    fn a_node_remembers_so_many_and_refuses_more_until_some_expire() {
        let hop = office(500, 2);
        let later = Ticket { expires_ms: 3_000, ..ticket(3) };
        assert_eq!(hop.take(&ticket(1), BODY, 1_500), Ok(()));
        assert_eq!(hop.take(&ticket(2), BODY, 1_500), Ok(()));
        assert_eq!(hop.take(&later, BODY, 1_500), Err(Void::Full));
        assert_eq!(hop.take(&ticket(1), BODY, 1_500), Err(Void::Used));
        assert_eq!(hop.take(&later, BODY, 2_000), Ok(()));
    }
}
