//! Starts the real process, waits until it serves, and ends it whatever happens to the test.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ed25519_dalek::SigningKey;
use grid_client::{Client, Config, Report, Request};
use grid_engine::command::{AccountMode, Capabilities, Command as Entry};
use grid_engine::{KeyHash, Usd};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use crate::web::Signer;

/// Far above what anything takes; only a venue that hangs reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The ready file.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Ready {
    pub(crate) trading_url: String,
    pub(crate) inference_url: String,
    pub(crate) messages_url: String,
    pub(crate) platform_url: String,
    pub(crate) binary_addr: SocketAddr,
    pub(crate) accounts: BTreeMap<String, ReadyAccount>,
    pub(crate) instruments: Vec<ReadyInstrument>,
    pub(crate) suppliers: Vec<ReadySupplier>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ReadyAccount {
    pub(crate) account_id: String,
    pub(crate) consumption_key: String,
    pub(crate) private_key: String,
    pub(crate) fingerprint: String,
    pub(crate) mode: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ReadyInstrument {
    pub(crate) symbol: String,
    pub(crate) instrument_id: String,
    pub(crate) market_id: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ReadySupplier {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) control_url: String,
}

/// On a crowded machine a call may be late; no test here is about that, so none is let off its bill, nor punished, for it.
const UNTIMED: &str = "[sla]\nwindow_seconds = 0\nlate_is_free = false\ncover_penalty_bps = 0\n";

/// How to start a demo.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) maker: bool,
    pub(crate) suppliers: bool,
    /// 0 takes any free ports.
    pub(crate) port_base: u16,
    /// A configuration file's text.
    pub(crate) config: &'static str,
}

impl Default for Options {
    fn default() -> Self {
        Self { maker: true, suppliers: true, port_base: 0, config: "" }
    }
}

impl Options {
    /// The venue alone: no maker, no suppliers.
    pub(crate) fn bare() -> Self {
        Self { maker: false, suppliers: false, ..Self::default() }
    }

    /// Suppliers, and nobody else who trades by himself.
    pub(crate) fn quiet() -> Self {
        Self { maker: false, ..Self::default() }
    }
}

/// A directory for one venue: its data, its ready file, what it printed.
#[derive(Debug)]
pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("venue-").tempdir_in(env!("CARGO_TARGET_TMPDIR"));
        Self(dir.expect("the build directory takes directories"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    fn printed_bytes(&self) -> usize {
        std::fs::metadata(self.path().join("printed")).map_or(0, |file| file.len() as usize)
    }

    /// Everything that was printed there so far, the end of it.
    pub(crate) fn printed(&self) -> String {
        let text = std::fs::read(self.path().join("printed")).unwrap_or_default();
        let tail = &text[text.len().saturating_sub(8_000)..];
        String::from_utf8_lossy(tail).into_owned()
    }
}

/// A running venue. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Venue {
    pub(crate) ready: Ready,
    process: Process,
    place: Option<Place>,
}

/// The process with a guard that kills it, and clears its place, when this test process is gone, however that came
/// about.
#[derive(Debug)]
struct Process {
    child: Child,
    guard: Child,
    ended: Option<ExitStatus>,
}

impl Process {
    fn start(mut command: Command, place: &Place) -> Self {
        let child = command.spawn().expect("the grid binary starts");
        let guard = Command::new("sh")
            .args(["-c", "cat; kill -9 \"$0\" 2>/dev/null; rm -rf \"$1\"", &child.id().to_string()])
            .arg(place.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("sh starts");
        Self { child, guard, ended: None }
    }

    fn end_guard(&mut self) {
        let _ = self.guard.kill();
        let _ = self.guard.wait();
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the venue's process takes signals");
    }

    fn wait(&mut self) -> ExitStatus {
        if let Some(status) = self.ended {
            return status;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                self.ended = Some(status);
                self.end_guard();
                return status;
            }
            assert!(Instant::now() < deadline, "the venue did not end");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.end_guard();
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The `grid` binary.
pub(crate) fn grid() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_grid"));
    command.stdin(Stdio::null()).env_remove("RUST_LOG");
    command
}

impl Venue {
    /// A venue in a directory of its own.
    pub(crate) fn start(options: &Options) -> Self {
        let place = Place::new();
        let mut venue =
            Self::start_at(&place, options).unwrap_or_else(|printed| panic!("no venue:\n{printed}"));
        venue.place = Some(place);
        venue
    }

    /// A venue in this directory; what it printed, where it ended before it served.
    pub(crate) fn start_at(place: &Place, options: &Options) -> Result<Self, String> {
        Self::start_in(place, &place.data(), options)
    }

    /// Starts a venue here and pulls the plug as soon as it has printed these words, or becomes ready.
    pub(crate) fn kill_while_starting(place: &Place, options: &Options, words: &str) {
        let before = place.printed_bytes();
        let mut process = Self::spawn(place, &place.data(), options);
        let ready_file = place.path().join("ready.json");
        until("the first signs of a start", || {
            let text = std::fs::read(place.path().join("printed")).unwrap_or_default();
            let new = String::from_utf8_lossy(&text[before.min(text.len())..]).into_owned();
            assert!(process.child.try_wait().expect("our own child").is_none(), "it ended by itself: {new}");
            if new.contains(words) || ready_file.exists() { Ok(()) } else { Err(new) }
        });
        process.signal(Signal::KILL);
        process.wait();
    }

    /// The same with its data elsewhere.
    pub(crate) fn start_in(place: &Place, data: &Path, options: &Options) -> Result<Self, String> {
        let mut process = Self::spawn(place, data, options);
        let ready_file = place.path().join("ready.json");
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(text) = std::fs::read(&ready_file) {
                let ready = serde_json::from_slice(&text).expect("the ready file is written whole");
                return Ok(Self { ready, process, place: None });
            }
            if process.child.try_wait().expect("our own child").is_some() {
                process.wait();
                return Err(place.printed());
            }
            assert!(Instant::now() < deadline, "the venue does not become ready:\n{}", place.printed());
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    fn spawn(place: &Place, data: &Path, options: &Options) -> Process {
        let ready_file = place.path().join("ready.json");
        let _ = std::fs::remove_file(&ready_file);
        let printed = File::options().append(true).create(true).open(place.path().join("printed"));
        let printed = printed.expect("a file for what is printed");
        let mut command = grid();
        command.arg("demo").arg("--data-dir").arg(data).arg("--ready-file").arg(&ready_file);
        command.args(["--port-base", &options.port_base.to_string()]);
        if !options.maker {
            command.args(["--without", "maker"]);
        }
        if !options.suppliers {
            command.args(["--without", "suppliers"]);
        }
        let config = place.path().join("venue.toml");
        let untimed = if options.config.contains("[sla]") { "" } else { UNTIMED };
        std::fs::write(&config, format!("{}\n{untimed}", options.config)).expect("a configuration file");
        command.arg("--config").arg(config);
        command.stdout(printed.try_clone().expect("one more descriptor")).stderr(printed);
        Process::start(command, place)
    }

    /// What it printed, for failure messages; only of a venue that has its own directory.
    pub(crate) fn printed(&self) -> String {
        self.place.as_ref().map_or_else(String::new, Place::printed)
    }

    /// Its data directory, where it has its own.
    pub(crate) fn data(&self) -> PathBuf {
        self.place.as_ref().expect("a venue with a directory of its own").data()
    }

    /// The power fails.
    pub(crate) fn kill(mut self) -> Option<Place> {
        self.process.signal(Signal::KILL);
        self.process.wait();
        self.place.take()
    }

    /// Ctrl-C.
    pub(crate) fn interrupt(self) -> ExitStatus {
        self.end(Signal::INT).0
    }

    /// What a supervisor does; the directory survives.
    pub(crate) fn end(mut self, signal: Signal) -> (ExitStatus, Option<Place>) {
        self.process.signal(signal);
        (self.process.wait(), self.place.take())
    }

    /// Waits for the process to end by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.process.wait()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.process.child.try_wait().is_ok_and(|status| status.is_some())
    }

    pub(crate) fn account(&self, name: &str) -> Account {
        let ready = &self.ready.accounts[name];
        let seed = STANDARD.decode(&ready.private_key).expect("Base64");
        Account {
            seed: seed[..32].try_into().expect("a seed"),
            consumption_key: ready.consumption_key.clone(),
        }
    }

    pub(crate) fn signer(&self, account: &Account) -> Signer {
        Signer::new(&self.ready.trading_url, account.seed)
    }

    pub(crate) fn market(&self, symbol: &str) -> &ReadyInstrument {
        let found = self.ready.instruments.iter().find(|instrument| instrument.symbol == symbol);
        found.unwrap_or_else(|| panic!("{symbol} is in the ready file"))
    }

    /// The engine's number of an instrument: its place in the ready file.
    pub(crate) fn instrument(&self, symbol: &str) -> u16 {
        let at = self.ready.instruments.iter().position(|instrument| instrument.symbol == symbol);
        at.unwrap_or_else(|| panic!("{symbol} is in the ready file")) as u16
    }

    /// A session of its own for this account.
    pub(crate) fn client(&self, account: &Account) -> Client {
        self.client_with(account, |_| {})
    }

    pub(crate) fn client_with(&self, account: &Account, change: impl FnOnce(&mut Config)) -> Client {
        let mut config = Config::new(vec![self.ready.binary_addr], account.seed);
        change(&mut config);
        Client::connect(config).unwrap_or_else(|error| panic!("no session: {error}\n{}", self.printed()))
    }

    pub(crate) fn operator(&self) -> Operator {
        Operator {
            client: self.client(&self.account("operator")),
            trading_url: self.ready.trading_url.clone(),
        }
    }
}

/// Who can sign and consume.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) seed: [u8; 32],
    pub(crate) consumption_key: String,
}

impl Account {
    pub(crate) fn public_key(&self) -> [u8; 32] {
        SigningKey::from_bytes(&self.seed).verifying_key().to_bytes()
    }
}

/// The operator's session.
pub(crate) struct Operator {
    pub(crate) client: Client,
    trading_url: String,
}

impl Operator {
    pub(crate) fn command(&self, account: u32, command: &Entry) -> Report {
        let mut payload = Vec::new();
        command.encode(&mut payload);
        let done = self.client.call_blocking(Request::Directory { account, payload });
        done.unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// A new account with both kinds of key and this much money; gives its number too.
    pub(crate) fn open(&self, name: &str, mode: AccountMode, money: Usd) -> (u32, Account) {
        let account = Account {
            seed: rand::random(),
            consumption_key: URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()),
        };
        let open = Entry::OpenAccount { name: name.into(), mode, capabilities: Capabilities::default() };
        let id = self.command(self.client.account(), &open).id() as u32;
        self.command(id, &Entry::AddSigningKey { public_key: account.public_key(), label: name.into() });
        let add = Entry::AddConsumptionKey {
            hash: KeyHash::of(&account.consumption_key),
            prefix: account.consumption_key[..8].into(),
            name: name.into(),
            expires_at: None,
        };
        self.command(id, &add);
        if money > Usd::ZERO {
            self.command(id, &Entry::Deposit { amount: money });
        }
        // The HTTP tiers read a replica, which may be a moment behind.
        let signer = Signer::new(&self.trading_url, account.seed);
        until("the HTTP tiers know the account", || {
            let answer =
                signer.send("GET", "/currency-trading-accounts", b"").map_err(|error| error.to_string())?;
            let keys = signer.send("GET", "/api-keys", b"").map_err(|error| error.to_string())?;
            let known = answer.status == 200
                && crate::books::nanos(&answer.json()["data"][0]["total_balance"]) == i128::from(money.0)
                && keys.json()["data"].as_array().is_some_and(|keys| keys.len() == 1);
            if known { Ok(()) } else { Err(answer.text()) }
        });
        (id, account)
    }
}

/// A full demo that tests share, unless they break something.
pub(crate) fn shared() -> &'static Venue {
    static SHARED: LazyLock<Result<Venue, String>> = LazyLock::new(|| {
        let place = Place::new();
        let mut venue = Venue::start_at(&place, &Options::default())?;
        venue.place = Some(place);
        Ok(venue)
    });
    SHARED.as_ref().unwrap_or_else(|printed| panic!("no venue:\n{printed}"))
}

/// `grid inspect --replay --json` of a data directory: every block checked, every invariant proven.
pub(crate) fn inspect(data: &Path) -> serde_json::Value {
    let output = grid().args(["inspect", "--replay", "--json"]).arg(data).output().expect("grid starts");
    assert!(output.status.success(), "inspect: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Tries until it holds. For what follows by itself from what was done, with nobody to say when.
pub(crate) fn until<T>(what: &str, mut holds: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match holds() {
            Ok(value) => return value,
            Err(reason) => assert!(Instant::now() < deadline, "{what}: {reason}"),
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
