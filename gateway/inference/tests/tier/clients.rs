//! Foreign clients: official SDKs in an environment of their own under the build directory, made once for their pins.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const REQUIREMENTS: &str = include_str!("../clients/requirements.txt");
const LOCK: &str = include_str!("../clients/package-lock.json");
const AGENT_LOCK: &str = include_str!("../clients/agent/package-lock.json");

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

fn done(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| {
        panic!("{command:?}: {error} (the tests need python3 with venv, and Node.js with npm)")
    });
    assert!(
        output.status.success(),
        "{command:?} failed\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Makes something unless it is there with these pins; one at a time.
fn once(name: &str, pins: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("inference-clients");
    std::fs::create_dir_all(&home).expect("a directory under the build directory");
    let lock = File::create(home.join(format!("{name}.lock"))).expect("a lock file");
    lock.lock().expect("file locks");
    let (dir, pinned) = (home.join(name), home.join(format!("{name}.pins")));
    if std::fs::read_to_string(&pinned).ok().as_deref() != Some(pins) {
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).expect("an empty directory");
        make(&dir);
        std::fs::write(&pinned, pins).expect("a small file");
    }
    dir
}

fn told(command: &mut Command, case: &Value) -> Value {
    let output = done(command.env("CASE", case.to_string()));
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{command:?} printed {text}: {error}"))
}

/// Runs a Python script of the clients' folder with a case, and reads the JSON line that it prints last.
pub(crate) fn python(script: &str, case: &Value) -> Value {
    let dir = once("python", REQUIREMENTS, |dir| {
        done(Command::new("python3").args(["-m", "venv"]).arg(dir));
        let install = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "-r"];
        done(Command::new(dir.join("bin/python")).args(install).arg(here().join("requirements.txt")));
    });
    told(Command::new(dir.join("bin/python")).arg(here().join(script)), case)
}

/// Installs what a folder's lock file names.
fn installed(from: &Path, to: &Path) {
    for file in ["package.json", "package-lock.json"] {
        std::fs::copy(from.join(file), to.join(file)).expect("a copy");
    }
    done(Command::new("npm").args(["ci", "--no-audit", "--no-fund", "--silent"]).current_dir(to));
}

/// Asks Anthropic's coding agent, and reads what it prints. It runs in a home of its own and knows nobody but the tier.
pub(crate) fn agent(prompt: &str, base_url: &str, key: &str) -> String {
    let dir = once("agent", AGENT_LOCK, |dir| installed(&here().join("agent"), dir));
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

/// Runs a Node.js script in the same way.
pub(crate) fn node(script: &str, case: &Value) -> Value {
    let dir = once("node", LOCK, |dir| installed(&here(), dir));
    // Modules are looked for beside the script.
    let copy = dir.join(script);
    std::fs::copy(here().join(script), &copy).expect("a copy");
    told(Command::new("node").arg(copy), case)
}
