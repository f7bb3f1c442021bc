//! Keys that the venue keeps for itself and, in a demo, for its participants: one file that only its owner may read.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use ed25519_dalek::SigningKey;
use grid_engine::Fingerprint;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Everything in the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Secrets {
    /// Seals supplier credentials; Base64 of 32 bytes.
    pub(crate) venue_key: Seed,
    /// The operator's signing key.
    pub(crate) operator: Seed,
    /// The HTTP tiers' signing key.
    pub(crate) tier: Seed,
    /// Participants of a demo, by name.
    #[serde(default)]
    pub(crate) participants: BTreeMap<String, Participant>,
}

/// What a participant needs to trade and to consume.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Participant {
    /// Signs requests and logins.
    pub(crate) private_key: Seed,
    /// Bearer key for inference.
    pub(crate) consumption_key: String,
}

impl Participant {
    pub(crate) fn generate() -> Self {
        Self { private_key: Seed::generate(), consumption_key: consumption_key() }
    }
}

/// 32 secret bytes, written as Base64.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Seed(pub(crate) [u8; 32]);

impl Seed {
    pub(crate) fn generate() -> Self {
        Self(rand::random())
    }

    pub(crate) fn public_key(self) -> [u8; 32] {
        SigningKey::from_bytes(&self.0).verifying_key().to_bytes()
    }

    pub(crate) fn fingerprint(self) -> Fingerprint {
        Fingerprint::of(&self.public_key())
    }
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(secret)")
    }
}

impl From<Seed> for String {
    fn from(seed: Seed) -> Self {
        STANDARD.encode(seed.0)
    }
}

impl TryFrom<String> for Seed {
    type Error = String;

    /// 32 bytes, or 64 of which the first 32 are the seed (contract §5.1).
    fn try_from(text: String) -> Result<Self, String> {
        let bytes = STANDARD.decode(text.trim()).map_err(|error| format!("a key is Base64: {error}"))?;
        match bytes.len() {
            32 | 64 => Ok(Self(bytes[..32].try_into().expect("32 bytes"))),
            other => Err(format!("a key has 32 or 64 bytes, not {other}")),
        }
    }
}

/// A fingerprint as clients send it: Base64 without padding.
pub(crate) fn fingerprint_text(fingerprint: Fingerprint) -> String {
    STANDARD_NO_PAD.encode(fingerprint.0)
}

/// A fresh consumption key: 256 random bits, 43 characters (contract §6.1).
pub(crate) fn consumption_key() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

impl Secrets {
    /// What the inference tier knows its operator by, where no other word is configured. It follows from the operator's
    /// key and tells nothing of it.
    pub(crate) fn operator_word(&self) -> String {
        let hash =
            Sha256::new().chain_update(b"grid operator word 1").chain_update(self.operator.0).finalize();
        URL_SAFE_NO_PAD.encode(hash)
    }

    pub(crate) fn generate() -> Self {
        Self {
            venue_key: Seed::generate(),
            operator: Seed::generate(),
            tier: Seed::generate(),
            participants: BTreeMap::new(),
        }
    }

    /// The file's keys; fresh ones, written to it, when there is none yet.
    pub(crate) fn open(path: &Path) -> std::io::Result<Self> {
        match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| std::io::Error::other(format!("{} is damaged: {error}", path.display()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let secrets = Self::generate();
                secrets.save(path)?;
                Ok(secrets)
            }
            Err(error) => Err(error),
        }
    }

    /// Replaces the file as a whole, so that a crash leaves the old or the new one.
    pub(crate) fn save(&self, path: &Path) -> std::io::Result<()> {
        let aside = path.with_extension("new");
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        std::fs::rename(&aside, path)
    }

    /// The participant of that name, made up on first use; the caller saves.
    pub(crate) fn participant(&mut self, name: &str) -> &Participant {
        self.participants.entry(name.to_owned()).or_insert_with(Participant::generate)
    }
}
