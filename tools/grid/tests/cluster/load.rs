//! The clients: sessions that trade with each other through `grid-client`, whatever happens to the nodes, and write down
//! each request and each word they were told, with the moment, as JSON lines for the checker.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use grid_client::{Client, ClientError, Config, Event, Report, Request};
use grid_engine::command::{AccountMode, Capabilities, Command, SupplierProfile};
use grid_engine::{InstrumentId, Qty, Usd};
use grid_wire::Closure;
use serde_json::{Value, json};

use crate::harness::{Cluster, PATIENCE, until};

mod asks;
mod told;

use asks::Asker;
use told::told;

/// Requests that one session has in flight.
const IN_FLIGHT: u64 = 8;
/// Units of the first instrument that each account issues at first.
pub(crate) const ISSUED: u64 = 500_000;
/// A breath between batches, so that a long test does not make a log that takes long to judge.
const BREATH: Duration = Duration::from_millis(25);

/// Numbers that repeat under a seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// An account with a key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    pub(crate) number: u32,
    pub(crate) seed: [u8; 32],
}

/// What the operator does for the load.
pub(crate) struct Operator {
    pub(crate) client: Client,
}

impl Operator {
    pub(crate) fn of(cluster: &Cluster) -> Self {
        let config = Config::new(cluster.binary_addrs(), cluster.operator_seed());
        Self { client: Client::connect(config).expect("the operator's session") }
    }

    /// One whose commands wait so long for the next leader.
    pub(crate) fn patient(cluster: &Cluster, patience: Duration) -> Self {
        let mut config = Config::new(cluster.binary_addrs(), cluster.operator_seed());
        (config.call_timeout, config.connect_timeout) = (patience, patience);
        Self { client: Client::connect(config).expect("the operator's session") }
    }

    pub(crate) fn command(&self, account: u32, command: &Command) -> Report {
        let mut payload = Vec::new();
        command.encode(&mut payload);
        let done = self.client.call_blocking(Request::Directory { account, payload });
        done.unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// A new account with a key and money.
    pub(crate) fn open(&self, name: &str, money: Usd) -> Account {
        let seed: [u8; 32] = rand::random();
        let capabilities = Capabilities::default();
        let open = Command::OpenAccount { name: name.into(), mode: AccountMode::Advanced, capabilities };
        let number = self.command(self.client.account(), &open).id() as u32;
        let public_key = SigningKey::from_bytes(&seed).verifying_key().to_bytes();
        self.command(number, &Command::AddSigningKey { public_key, label: name.into() });
        self.command(number, &Command::Deposit { amount: money });
        Account { number, seed }
    }

    /// Makes the account a supplier with Units to sell.
    pub(crate) fn stock(
        &self,
        account: Account,
        instrument: InstrumentId,
        profile: SupplierProfile,
        units: u64,
    ) {
        self.command(account.number, &Command::RegisterSupplier(Box::new(profile)));
        self.command(account.number, &Command::SetCapacity { instrument, capacity: Qty(units * 2) });
        self.command(account.number, &Command::Issue { instrument, qty: Qty(units) });
        self.command(account.number, &Command::TransferIssuance { instrument, qty: Qty(units) });
    }
}

/// What the sessions share with the test.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    answered: AtomicU64,
    /// Asks closed because their owner was suspended.
    suspended: AtomicU64,
    heard: Mutex<Heard>,
    news: Condvar,
}

/// The last connection of each session, and the first answer after it.
#[derive(Default)]
struct Heard {
    connected: Vec<(Instant, SocketAddr)>,
    first_answers: Vec<Option<Instant>>,
}

/// Sessions that trade until they are told to stop.
pub(crate) struct Load {
    shared: Arc<Shared>,
    accounts: Vec<Account>,
    sessions: Vec<JoinHandle<PathBuf>>,
}

impl Load {
    /// Opens accounts and starts `sessions` sessions on them, two to each.
    pub(crate) fn start(cluster: &Cluster, sessions: usize) -> Self {
        let operator = Operator::of(cluster);
        let accounts: Vec<_> = (0..sessions.div_ceil(2))
            .map(|nth| {
                let account = operator.open(&format!("trader {nth}"), Usd::dollars(2_000));
                let name = format!("trader {nth}");
                let profile = SupplierProfile { name, ..SupplierProfile::default() };
                operator.stock(account, InstrumentId(0), profile, ISSUED);
                account
            })
            .collect();
        operator.client.close();
        let shared = Arc::new(Shared::default());
        let began = Instant::now();
        let sessions = (0..sessions)
            .map(|nth| {
                let mut config = Config::new(cluster.binary_addrs(), accounts[nth / 2].seed);
                // A request waits for the next leader as long as it takes.
                config.call_timeout = PATIENCE;
                config.connect_timeout = PATIENCE;
                let mut heard = shared.heard.lock().expect("no panic holds it");
                heard.connected.push((began, SocketAddr::from(([0, 0, 0, 0], 0))));
                heard.first_answers.push(None);
                drop(heard);
                let trader = Trader {
                    nth,
                    shared: Arc::clone(&shared),
                    book: Book::open(&cluster.scratch().join(format!("session-{nth}.jsonl")), began),
                };
                std::thread::spawn(move || trader.live(config))
            })
            .collect();
        Self { shared, accounts, sessions }
    }

    /// Whose sessions they are.
    pub(crate) fn accounts(&self) -> &[Account] {
        &self.accounts
    }

    /// Waits until somebody was told that an ask was closed because its owner was suspended.
    pub(crate) fn until_suspended(&self, cluster: &Cluster) {
        until("an ask that a suspension closes", || {
            let some = self.shared.suspended.load(Ordering::Acquire) > 0;
            if some { Ok(()) } else { Err(cluster.all_printed()) }
        });
    }

    /// Answers to anybody so far.
    pub(crate) fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Acquire)
    }

    /// Waits until so many more requests were answered.
    pub(crate) fn go_on(&self, answers: u64, cluster: &Cluster) {
        let goal = self.answered() + answers;
        until("answers to the load", || {
            if self.answered() >= goal { Ok(()) } else { Err(cluster.all_printed()) }
        });
    }

    /// Waits until some session has logged in at another node than this after `since`, and was answered there; gives
    /// both moments.
    pub(crate) fn first_answer(
        &self,
        since: Instant,
        not_at: SocketAddr,
        cluster: &Cluster,
    ) -> (Instant, Instant) {
        let first = |heard: &Heard| {
            let both = heard.connected.iter().zip(&heard.first_answers);
            let moved = both.filter(|((at, address), _)| *at > since && *address != not_at);
            moved
                .filter_map(|((at, _), answer)| answer.map(|answer| (*at, answer)))
                .min_by_key(|(_, answer)| *answer)
        };
        let heard = self.shared.heard.lock().expect("no panic holds it");
        let waited = self.shared.news.wait_timeout_while(heard, PATIENCE, |heard| first(heard).is_none());
        let (heard, _) = waited.expect("no panic holds it");
        first(&heard)
            .unwrap_or_else(|| panic!("nobody was answered by a new leader\n{}", cluster.all_printed()))
    }

    /// Ends the sessions after their last answers; gives their logs.
    pub(crate) fn stop(self) -> Vec<PathBuf> {
        self.shared.stop.store(true, Ordering::Release);
        self.sessions
            .into_iter()
            .map(|session| session.join().expect("a session that lived through it all"))
            .collect()
    }
}

/// One session's log.
struct Book {
    path: PathBuf,
    file: Mutex<BufWriter<File>>,
    began: Instant,
}

impl Book {
    fn open(path: &Path, began: Instant) -> Self {
        let file = File::create(path).expect("a log in the test's directory");
        Self { path: path.to_owned(), file: Mutex::new(BufWriter::new(file)), began }
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    fn write(&self, line: &Value) {
        let mut file = self.file.lock().expect("no panic holds it");
        writeln!(file, "{line}").expect("a log in the test's directory");
    }
}

struct Trader {
    nth: usize,
    shared: Arc<Shared>,
    book: Book,
}

impl Trader {
    fn live(self, config: Config) -> PathBuf {
        let client = Client::connect(config).unwrap_or_else(|error| panic!("session {}: {error}", self.nth));
        self.book.write(&json!({
            "what": "session", "session": format!("{:x}", client.session()), "account": client.account(),
        }));
        let events = client.events();
        std::thread::scope(|scope| {
            scope.spawn(|| self.listen(events));
            self.trade(&client);
            client.close();
        });
        self.book.path
    }

    /// Writes down every report and every connection.
    fn listen(&self, mut events: tokio::sync::broadcast::Receiver<Event>) {
        loop {
            match events.blocking_recv() {
                Ok(Event::Report(report)) => {
                    if matches!(report, Report::Execution(execution) if execution.closure == Closure::Suspended)
                    {
                        self.shared.suspended.fetch_add(1, Ordering::AcqRel);
                    }
                    let told = told(&report);
                    self.book.write(&json!({ "what": "report", "at": self.book.now(), "report": told }));
                }
                Ok(Event::Connected { address, .. }) => {
                    self.book.write(&json!({
                        "what": "connected", "at": self.book.now(), "address": address.to_string(),
                    }));
                    let mut heard = self.shared.heard.lock().expect("no panic holds it");
                    heard.connected[self.nth] = (Instant::now(), address);
                    heard.first_answers[self.nth] = None;
                }
                Ok(Event::ReportsLost { from, until }) => panic!("reports {from} to {until} are lost"),
                Ok(_) => {}
                Err(tokio::sync::broadcast::error::RecvError::Closed) => break,
                Err(error) => panic!("session {}: {error}", self.nth),
            }
        }
    }

    fn trade(&self, client: &Client) {
        let mut dice = Dice(0x9E37_79B9_7F4A_7C15 ^ (self.nth as u64 + 1));
        let (mut asker, mut n) = (Asker::new(self.nth), 0_u64);
        while !self.shared.stop.load(Ordering::Acquire) {
            let batch: Vec<_> = (0..1 + dice.below(IN_FLIGHT))
                .map(|_| {
                    n += 1;
                    let (request, said) = asker.ask(&mut dice);
                    self.book
                        .write(&json!({ "what": "sent", "n": n, "at": self.book.now(), "command": said }));
                    (n, client.submit(request))
                })
                .collect();
            for (n, pending) in batch {
                let answer = pending.wait();
                let at = self.book.now();
                let report = match answer {
                    Ok(report) => report,
                    Err(ClientError::Rejected(reject)) => Report::Reject(reject),
                    Err(error) => panic!("session {}: request {n}: {error}", self.nth),
                };
                self.book.write(&json!({
                    "what": "answered", "n": n, "at": at, "client_seq": report.client_seq(),
                    "log_seq": report.log_seq(), "answer": told(&report),
                }));
                self.count();
            }
            std::thread::park_timeout(BREATH);
        }
    }

    fn count(&self) {
        self.shared.answered.fetch_add(1, Ordering::AcqRel);
        let mut heard = self.shared.heard.lock().expect("no panic holds it");
        if heard.first_answers[self.nth].is_none() {
            heard.first_answers[self.nth] = Some(Instant::now());
            self.shared.news.notify_all();
        }
    }
}
