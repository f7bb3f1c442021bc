//! Our schema and bytes as read by decoders that we did not write: PyPI `sbedecoder` and PyPI `sbe`,
//! in a virtual environment of their own under the build directory.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const PACKAGES: &[&str] = &["sbedecoder==0.1.10", "sbe==0.4.3"];

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// A Python with the pinned decoders; made once and kept while the pins stay.
fn python() -> PathBuf {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sbe-decoders");
    let (python, pins) = (home.join("bin/python"), home.join("pins"));
    if std::fs::read_to_string(&pins).ok() != Some(PACKAGES.join(" ")) {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home));
        run(Command::new(&python)
            .args(["-m", "pip", "install", "-q", "--disable-pip-version-check"])
            .args(PACKAGES));
        std::fs::write(&pins, PACKAGES.join(" ")).unwrap();
    }
    python
}

#[test]
fn two_foreign_decoders_read_every_golden_frame_as_we_meant_it() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = run(Command::new(python())
        .arg(here.join("tests/decoders.py"))
        .arg(here.join("schema/grid.xml"))
        .arg(here.join("golden")));
    let told = String::from_utf8_lossy(&output.stdout);
    let messages = std::fs::read_dir(here.join("golden")).unwrap().count() / 2;
    assert!(told.contains(&format!("{messages} messages agree")), "{told}");
}
