//! Supplier credentials stand in the log, which many can read; so they stand there sealed.
//!
//! A sealed credential is 24 bytes of nonce and then XChaCha20-Poly1305 of the secret. Nonces are random; 192 bits
//! are enough for that to be safe for as many credentials as there will ever be.

use std::fmt;

use chacha20poly1305::aead::{Aead, KeyInit};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use sha2::{Digest, Sha256};

const NONCE_BYTES: usize = 24;

/// The venue's sealing key.
#[derive(Clone)]
pub struct VenueKey([u8; 32]);

impl fmt::Debug for VenueKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VenueKey(secret)")
    }
}

impl VenueKey {
    /// The key with these secret bytes.
    #[must_use]
    pub const fn new(secret: [u8; 32]) -> Self {
        Self(secret)
    }

    /// The secret, sealed; differs at every call.
    #[must_use]
    pub fn seal(&self, secret: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let sealed = self
            .cipher()
            .encrypt(&XNonce::from(nonce), secret)
            .expect("a credential is far below the cipher's limit");
        [nonce.as_slice(), &sealed].concat()
    }

    /// The secret that was sealed with this key.
    ///
    /// # Errors
    /// Bytes that are too short, altered, or sealed with another key.
    pub fn unseal(&self, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (nonce, sealed) =
            sealed.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::Truncated { len: sealed.len() })?;
        self.cipher().decrypt(&XNonce::from(*nonce), sealed).map_err(|_| SealError::NotAuthentic)
    }

    /// 32 secret bytes for another purpose, which this line names.
    pub(crate) fn derive(&self, purpose: &[u8]) -> [u8; 32] {
        Sha256::new().chain_update(purpose).chain_update(self.0).finalize().into()
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&self.0.into())
    }
}

/// Why sealed bytes can't be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Shorter than a nonce.
    #[error("{len} bytes are too few to be sealed")]
    Truncated {
        /// How many there are.
        len: usize,
    },
    /// Altered, or sealed with another key.
    #[error("not sealed with this key, or altered since")]
    NotAuthentic,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_only_with_the_same_key_and_unaltered() {
        let (key, other) = (VenueKey::new([7; 32]), VenueKey::new([8; 32]));
        let mut sealed = key.seal(b"sk-upstream");
        assert_ne!(sealed, key.seal(b"sk-upstream"));
        assert_eq!(key.unseal(&sealed).unwrap(), b"sk-upstream");
        assert_eq!(other.unseal(&sealed), Err(SealError::NotAuthentic));
        assert_eq!(key.unseal(&sealed[..9]), Err(SealError::Truncated { len: 9 }));
        *sealed.last_mut().unwrap() ^= 1;
        assert_eq!(key.unseal(&sealed), Err(SealError::NotAuthentic));
    }
}
