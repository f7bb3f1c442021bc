//! Foreign clients: official SDKs in an environment of their own under the build directory, made once for their pins.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const REQUIREMENTS: &str = include_str!("../clients/requirements.txt");
const LOCK: &str = include_str!("../clients/package-lock.json");

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

/// The same for a Node.js script.
pub(crate) fn node(script: &str, case: &Value) -> Value {
    let dir = once("node", LOCK, |dir| {
        for file in ["package.json", "package-lock.json"] {
            std::fs::copy(here().join(file), dir.join(file)).expect("a copy");
        }
        done(Command::new("npm").args(["ci", "--no-audit", "--no-fund", "--silent"]).current_dir(dir));
    });
    // Modules are looked for beside the script.
    let copy = dir.join(script);
    std::fs::copy(here().join(script), &copy).expect("a copy");
    told(Command::new("node").arg(copy), case)
}
