//! Foreign clients: the official SDKs, and Anthropic's coding agent.

use std::path::Path;
use std::process::Command;

use grid_clients::{Clients, done};
use serde_json::Value;

fn clients() -> Clients {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    Clients::new(scripts, Path::new(env!("CARGO_TARGET_TMPDIR")).join("inference-clients"))
}

/// Runs a Python script of the clients' folder with a case, and reads the JSON line that it prints last.
pub(crate) fn python(script: &str, case: &Value) -> Value {
    clients().python(script, case)
}

/// Runs a Node.js script in the same way.
pub(crate) fn node(script: &str, case: &Value) -> Value {
    clients().node(script, case)
}

/// Asks Anthropic's coding agent, and reads what it prints. It runs in a home of its own and knows nobody but the tier.
pub(crate) fn agent(prompt: &str, base_url: &str, key: &str) -> String {
    let dir = clients().node_home("agent", "agent");
    let home = dir.join("home");
    let _ = std::fs::remove_dir_all(&home);
    std::fs::create_dir_all(&home).expect("an empty directory");
    let output = done(
        Command::new(dir.join("node_modules/.bin/claude"))
            .args(["-p", prompt])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &home)
            .env("ANTHROPIC_BASE_URL", base_url)
            .env("ANTHROPIC_AUTH_TOKEN", key)
            .env("ANTHROPIC_MODEL", "text-prime")
            .env("ANTHROPIC_DEFAULT_HAIKU_MODEL", "text-prime")
            .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
            .current_dir(&home)
            .stdin(std::process::Stdio::null()),
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
