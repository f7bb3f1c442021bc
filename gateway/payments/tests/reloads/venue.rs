//! A venue of the real engine in memory, whose log is checked after each command and whose answers can be lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use grid_engine::command::{AccountMode, Capabilities, Command, Entry};
use grid_engine::event::{Event, ReportBody};
use grid_engine::funding::{AutoReload, PaymentMethod};
use grid_engine::state::{Funding, State};
use grid_engine::{AccountId, Engine, Fingerprint, Nanos, Reject, SECOND, Seq, SessionId, Usd};
use grid_payments::{EnterError, Pending, Venue};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::stand_in::PATIENCE;

const KEY: [u8; 32] = [255; 32];
const SESSION: SessionId = SessionId(1);
/// 2026-01-01 10:00:00 UTC.
const START: Nanos = Nanos(1_767_261_600 * SECOND);

pub(crate) struct Market {
    log: Mutex<Log>,
    changed: watch::Sender<()>,
    /// Another node acts.
    rests: AtomicBool,
    /// How often a worker has asked whether it acts.
    asked: AtomicU64,
}

struct Log {
    engine: Engine,
    entries: Vec<(Nanos, Entry)>,
    now: Nanos,
    client_seq: u64,
    events: Vec<Event>,
    /// So many outcomes are lost before they arrive; the sender hears of it.
    lose: u64,
    /// Of so many the answer is lost.
    lose_answers: u64,
}

impl Log {
    fn apply(&mut self, entry: Entry) -> Vec<Event> {
        let mut events = Vec::new();
        self.now.0 += 1;
        let seq = Seq(self.entries.len() as u64 + 1);
        self.engine.apply(seq, self.now, &entry, &mut events);
        self.entries.push((self.now, entry));
        self.engine.check_invariants().expect("every invariant holds after every command");
        self.events.extend(events.iter().cloned());
        events
    }
}

impl Market {
    /// With one account that has a dollar.
    pub(crate) fn open() -> (Arc<Self>, AccountId) {
        let log = Log {
            engine: Engine::new(),
            entries: Vec::new(),
            now: START,
            client_seq: 0,
            events: Vec::new(),
            lose: 0,
            lose_answers: 0,
        };
        let market = Arc::new(Self {
            log: Mutex::new(log),
            changed: watch::channel(()).0,
            rests: AtomicBool::new(false),
            asked: AtomicU64::new(0),
        });
        let key = Fingerprint::of(&KEY);
        for command in [
            Command::Genesis { operator_key: KEY },
            Command::OpenSession { session: SESSION, key },
            Command::Establish { session: SESSION, key, cancel_on_disconnect: None, connection: 1 },
        ] {
            market.log.lock().apply(Entry::venue(command));
        }
        let account = market.join();
        (market, account)
    }

    pub(crate) fn join(&self) -> AccountId {
        let (name, mode) = ("consumer".into(), AccountMode::Easy);
        let open = Command::OpenAccount { name, mode, capabilities: Capabilities::default() };
        let account = AccountId(self.done(AccountId(1), open) as u32);
        self.done(account, Command::Deposit { amount: Usd::dollars(1) });
        account
    }

    pub(crate) fn done(&self, account: AccountId, command: Command) -> u64 {
        match self.ask(account, command).expect("the operator may") {
            ReportBody::Done { created } => created,
            other => panic!("{other:?}"),
        }
    }

    fn ask(&self, account: AccountId, command: Command) -> Result<ReportBody, Reject> {
        let mut log = self.log.lock();
        log.client_seq += 1;
        let client_seq = log.client_seq;
        let events = log.apply(Entry { session: SESSION, client_seq, account, command });
        let (seq, at) = (log.engine.state().seq, log.now);
        drop(log);
        self.changed.send_replace(());
        let told = events.into_iter().filter_map(|event| event.report(seq, at));
        let answer = told.map(|(_, report)| report).find(|report| report.client_seq == client_seq);
        match answer.expect("every command is answered").body {
            ReportBody::Rejected { reject, .. } => Err(reject),
            body => Ok(body),
        }
    }

    pub(crate) fn card(&self, account: AccountId) {
        let method = PaymentMethod { customer: format!("cus_{}", account.0), method: "pm_card".into() };
        self.done(account, Command::SetPaymentMethod(Some(Box::new(method))));
    }

    /// Below $5, by $20.
    pub(crate) fn auto_reload(&self, account: AccountId, monthly_limit: Option<i64>) {
        self.done(
            account,
            Command::SetAutoReload(AutoReload {
                enabled: true,
                threshold: Usd::dollars(5),
                amount: Usd::dollars(20),
                monthly_limit: monthly_limit.map(Usd::dollars),
            }),
        );
    }

    /// Whether another node acts from now on.
    pub(crate) fn rest(&self, rests: bool) {
        self.rests.store(rests, Ordering::SeqCst);
        self.changed.send_replace(());
    }

    /// Returns once a worker has looked at all that there was until now.
    pub(crate) async fn looked_at(&self) {
        self.changed.send_replace(());
        let asked = self.asked.load(Ordering::SeqCst);
        while self.asked.load(Ordering::SeqCst) == asked {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) fn lose_outcomes(&self, count: u64) {
        self.log.lock().lose = count;
    }

    pub(crate) fn lose_answers(&self, count: u64) {
        self.log.lock().lose_answers = count;
    }

    pub(crate) fn pass(&self, seconds: u64) {
        let mut log = self.log.lock();
        log.now.0 += seconds * SECOND;
        log.apply(Entry::venue(Command::Tick));
        drop(log);
        self.changed.send_replace(());
    }

    pub(crate) fn funding(&self, account: AccountId) -> Funding {
        self.log.lock().engine.state().accounts[account.0 as usize].funding.clone()
    }

    pub(crate) fn dollars(&self, account: AccountId) -> Usd {
        self.log.lock().engine.state().accounts[account.0 as usize].usd_available
    }

    pub(crate) fn saw(&self, what: impl Fn(&Event) -> bool) -> usize {
        self.log.lock().events.iter().filter(|event| what(event)).count()
    }

    /// Returns once the state fulfils the condition.
    pub(crate) async fn until(&self, what: &str, mut condition: impl FnMut(&State) -> bool) {
        let mut changed = self.changed.subscribe();
        let met = async {
            while !condition(self.log.lock().engine.state()) {
                changed.changed().await.expect("the venue lives");
            }
        };
        assert!(tokio::time::timeout(PATIENCE, met).await.is_ok(), "waited in vain until {what}");
    }

    /// The engine as it comes back after the machine was lost: from its log alone.
    pub(crate) fn restart(&self) {
        let mut log = self.log.lock();
        let mut engine = Engine::new();
        for (at, (stamp, entry)) in log.entries.iter().enumerate() {
            let mut bytes = Vec::new();
            entry.encode(&mut bytes);
            let entry = Entry::decode(&bytes).expect("what was written can be read");
            engine.apply(Seq(at as u64 + 1), *stamp, &entry, &mut Vec::new());
        }
        assert_eq!(engine.state_hash(), log.engine.state_hash());
        log.engine = Engine::restore(&engine.snapshot()).expect("a snapshot can be read");
    }
}

impl Venue for Market {
    fn look(&self, look: &mut dyn FnMut(&State)) {
        look(self.log.lock().engine.state());
    }

    fn enter(&self, account: AccountId, command: Command) -> Pending<Result<(), EnterError>> {
        let lost = |count: &mut u64| std::mem::replace(count, count.saturating_sub(1)) > 0;
        let unavailable = || Err(EnterError::Unavailable("lost".into()));
        let entered = if lost(&mut self.log.lock().lose) {
            unavailable()
        } else {
            let answer = self.ask(account, command).map(drop).map_err(EnterError::Rejected);
            if lost(&mut self.log.lock().lose_answers) { unavailable() } else { answer }
        };
        self.changed.send_replace(());
        Box::pin(std::future::ready(entered))
    }

    fn acts(&self) -> bool {
        self.asked.fetch_add(1, Ordering::SeqCst);
        !self.rests.load(Ordering::SeqCst)
    }

    fn news(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn now(&self) -> Nanos {
        self.log.lock().now
    }
}
