//! Fresh keys, in the forms in which clients need them.

use crate::Outcome;
use crate::secrets::{Seed, consumption_key, fingerprint_text};
use base64::Engine as _;

/// Prints one JSON object; the secrets exist nowhere else.
#[allow(clippy::unnecessary_wraps)] // every subcommand has the same shape
pub(crate) fn run() -> Outcome {
    let seed = Seed::generate();
    let keys = serde_json::json!({
        "private_key": String::from(seed),
        "public_key": base64::engine::general_purpose::STANDARD.encode(seed.public_key()),
        "fingerprint": fingerprint_text(seed.fingerprint()),
        "consumption_key": consumption_key(),
    });
    println!("{keys:#}");
    Ok(())
}
