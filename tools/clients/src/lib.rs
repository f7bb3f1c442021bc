//! Foreign clients for the tests: official SDKs, unmodified, in an environment of their own under the build directory that is
//! made once for its pins.
//!
//! A folder of scripts holds `requirements.txt` for Python, `package.json` and `package-lock.json` for Node.js. A script gets
//! its case as JSON in the environment variable `CASE` and prints one JSON line last. What goes wrong ends the test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The clients of one folder of scripts.
#[derive(Clone, Debug)]
pub struct Clients {
    scripts: PathBuf,
    home: PathBuf,
}

impl Clients {
    /// Scripts and pins lie in `scripts`; environments are kept in `home`, which tests take from `CARGO_TARGET_TMPDIR`.
    pub fn new(scripts: impl Into<PathBuf>, home: impl Into<PathBuf>) -> Self {
        Self { scripts: scripts.into(), home: home.into() }
    }

    /// Runs a Python script with a case.
    #[must_use]
    pub fn python(&self, script: &str, case: &Value) -> Value {
        let dir = self.python_home();
        told(Command::new(dir.join("bin/python")).arg(self.scripts.join(script)), case)
    }

    /// A virtual environment with what `requirements.txt` names.
    #[must_use]
    pub fn python_home(&self) -> PathBuf {
        let pins = self.scripts.join("requirements.txt");
        self.once("python", &read(&pins), |dir| {
            done(Command::new("python3").args(["-m", "venv"]).arg(dir));
            let install = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "-r"];
            done(Command::new(dir.join("bin/python")).args(install).arg(&pins));
        })
    }

    /// Runs a Node.js script with a case.
    #[must_use]
    pub fn node(&self, script: &str, case: &Value) -> Value {
        let dir = self.node_home("node", "");
        // Modules are looked for beside the script.
        let copy = dir.join(script);
        std::fs::copy(self.scripts.join(script), &copy).expect("a copy");
        told(Command::new("node").arg(copy), case)
    }

    /// A folder with what the lock file in `within`, a folder among the scripts or nothing, names.
    #[must_use]
    pub fn node_home(&self, name: &str, within: &str) -> PathBuf {
        let from = self.scripts.join(within);
        self.once(name, &read(&from.join("package-lock.json")), |dir| {
            for file in ["package.json", "package-lock.json"] {
                std::fs::copy(from.join(file), dir.join(file)).expect("a copy");
            }
            done(Command::new("npm").args(["ci", "--no-audit", "--no-fund", "--silent"]).current_dir(dir));
        })
    }

    /// Makes something unless it is there with these pins; one process at a time.
    fn once(&self, name: &str, pins: &str, make: impl FnOnce(&Path)) -> PathBuf {
        std::fs::create_dir_all(&self.home).expect("a directory under the build directory");
        let lock = File::create(self.home.join(format!("{name}.lock"))).expect("a lock file");
        lock.lock().expect("file locks");
        let (dir, pinned) = (self.home.join(name), self.home.join(format!("{name}.pins")));
        if std::fs::read_to_string(&pinned).ok().as_deref() != Some(pins) {
            let _ = std::fs::remove_dir_all(&dir);
            std::fs::create_dir_all(&dir).expect("an empty directory");
            make(&dir);
            std::fs::write(&pinned, pins).expect("a small file");
        }
        dir
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Runs a client to its end, which must be a good one.
///
/// # Panics
/// If it cannot be started or fails; with what it printed.
pub fn done(command: &mut Command) -> Output {
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

fn told(command: &mut Command, case: &Value) -> Value {
    let output = done(command.env("CASE", case.to_string()));
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{command:?} printed {text}: {error}"))
}
