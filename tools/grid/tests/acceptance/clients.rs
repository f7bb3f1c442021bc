//! Foreign clients: the official SDKs.

use std::path::Path;

use grid_clients::Clients;
use serde_json::Value;

fn clients() -> Clients {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    Clients::new(scripts, Path::new(env!("CARGO_TARGET_TMPDIR")).join("sdk-clients"))
}

/// A Python script, with the official SDK at hand.
pub(crate) fn python(script: &str, case: &Value) -> Value {
    clients().python(script, case)
}

/// A Node.js script, with the official SDK at hand.
pub(crate) fn node(script: &str, case: &Value) -> Value {
    clients().node(script, case)
}
