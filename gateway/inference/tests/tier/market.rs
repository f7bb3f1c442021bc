//! The tier on the real engine: what a call costs, who is paid, and that everything adds up at the end.

use std::pin::Pin;
use std::sync::Arc;

use grid_engine::command::{
    AccountMode, Capabilities, Command, Entry, NewOrder, Offer, OrderKind, SelfTrade, Side, SupplierProfile,
    TimeInForce, Usage,
};
use grid_engine::event::{Draw, Event, ReportBody, UsageRecord};
use grid_engine::instrument::{
    DeliveryTerms, InstrumentSpec, InstrumentStatus, MarketTerms, Movement, QualityTerms,
};
use grid_engine::sla::Fault;
use grid_engine::state::State;
use grid_engine::{
    AccountId, Engine, Fingerprint, InstrumentId, KeyHash, Label, Nanos, Price, Qty, Reject, ReservationId,
    SECOND, Seq, SessionId, Tokens, Usd,
};
use grid_history::{Applied, Feed, History, Writer};
use grid_inference::{
    Config, Deps, Directory, Door, DoorError, Ended, Pending, Reserved, RunningTier, Wanted,
};
use grid_replicator::Promises;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::watch;

use crate::support::*;

const OPERATOR_KEY: [u8; 32] = [255; 32];
const SESSION: SessionId = SessionId(1);
pub(crate) const INSTRUMENT: InstrumentId = InstrumentId(0);

/// An engine with a log that is only counted.
pub(crate) struct Market(Mutex<Log>, Kept, Promises);

/// What happened, as receipts are read from.
struct Kept {
    history: History,
    _writer: Writer,
    _directory: tempfile::TempDir,
}

struct Log {
    engine: Engine,
    seq: Seq,
    client_seq: u64,
    /// The calendar is so far ahead of the log.
    later: Nanos,
    used: Vec<UsageRecord>,
    drawn: Vec<Draw>,
    applied: Vec<Applied>,
    feed: Feed,
    /// Answers to reports of faults that are still to be lost.
    lose_answers: u32,
    /// Told of every command.
    changed: watch::Sender<()>,
}

impl Log {
    fn apply(&mut self, entry: &Entry) -> Vec<Event> {
        let mut events = Vec::new();
        self.seq = self.seq.next();
        let at = Nanos(1_767_261_600 * SECOND + self.later.0 + self.seq.0);
        self.engine.apply(self.seq, at, entry, &mut events);
        self.engine.check_invariants().expect("every invariant holds after every command");
        for event in &events {
            match event {
                Event::Used(record) => self.used.push(*record),
                Event::Drawn { draw, .. } => self.drawn.push(*draw),
                _ => {}
            }
        }
        let applied = Applied { seq: self.seq, at, events: events.clone() };
        self.feed.push(vec![applied.clone()]).expect("the history lives");
        self.applied.push(applied);
        self.changed.send_replace(());
        events
    }
}

impl Market {
    /// A consumer with dollars, up to three suppliers with asks at 81, 90 and 85 cents a Unit, and a book between them.
    pub(crate) fn open<const N: usize>(mode: AccountMode, dollars: i64, upstreams: [&str; N]) -> Arc<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let (history, feed, writer) =
            History::open(&directory.path().join("history.sqlite")).expect("a history");
        let log = Log {
            engine: Engine::new(),
            seq: Seq::ZERO,
            client_seq: 0,
            later: Nanos::ZERO,
            changed: watch::channel(()).0,
            used: Vec::new(),
            drawn: Vec::new(),
            applied: Vec::new(),
            feed,
            lose_answers: 0,
        };
        let market = Self(
            Mutex::new(log),
            Kept { history, _writer: writer, _directory: directory },
            Promises::default(),
        );
        let key = Fingerprint::of(&OPERATOR_KEY);
        for command in [
            Command::Genesis { operator_key: OPERATOR_KEY },
            Command::OpenSession { session: SESSION, key },
            Command::Establish { session: SESSION, key, cancel_on_disconnect: None, connection: 1 },
        ] {
            market.0.lock().apply(&Entry::venue(command));
        }
        let operator = market.0.lock().engine.state().signing_keys[&key].account;
        market.done(operator, Command::DefineInstrument(Box::new(spec())));
        let consumer = market.account("consumer", mode);
        market.done(
            consumer,
            Command::AddConsumptionKey {
                hash: KeyHash::of(KEY),
                prefix: "sk-or-v1".into(),
                name: "test".into(),
                expires_at: None,
            },
        );
        if dollars > 0 {
            let amount = Usd::dollars(dollars);
            market.done(consumer, Command::Deposit { amount });
        }
        for (url, price) in upstreams.into_iter().zip([81, 90, 85]) {
            let supplier = market.account("supplier", AccountMode::Advanced);
            let profile = SupplierProfile {
                base_url: url.to_owned(),
                offers: vec![Offer { instrument: INSTRUMENT, model: "served".into() }],
                ..SupplierProfile::default()
            };
            let (instrument, qty) = (INSTRUMENT, Qty(2));
            let order = NewOrder {
                instrument,
                side: Side::Sell,
                kind: OrderKind::Limit { price: Price(price), tif: TimeInForce::Gtc },
                qty,
                stp: SelfTrade::Allow,
                label: Label(0),
                tag: String::new(),
                to_consumption: false,
            };
            market.done(supplier, Command::RegisterSupplier(Box::new(profile)));
            market.done(supplier, Command::SetCapacity { instrument, capacity: qty });
            market.done(supplier, Command::Issue { instrument, qty });
            market.done(supplier, Command::TransferIssuance { instrument, qty });
            market.ask(supplier, Command::Place(order)).expect("an ask rests");
        }
        Arc::new(market)
    }

    fn account(&self, name: &str, mode: AccountMode) -> AccountId {
        let open = Command::OpenAccount { name: name.into(), mode, capabilities: Capabilities::default() };
        AccountId(self.done(AccountId(1), open) as u32)
    }

    pub(crate) fn done(&self, account: AccountId, command: Command) -> u64 {
        match self.ask(account, command).expect("the operator may") {
            ReportBody::Done { created } => created,
            other => panic!("{other:?}"),
        }
    }

    /// The answer to a command.
    pub(crate) fn ask(&self, account: AccountId, command: Command) -> Result<ReportBody, DoorError> {
        let mut log = self.0.lock();
        log.client_seq += 1;
        let client_seq = log.client_seq;
        let events = log.apply(&Entry { session: SESSION, client_seq, account, command });
        let (seq, at) = (log.seq, log.engine.state().now);
        let told = events.into_iter().filter_map(|event| event.report(seq, at));
        let answer = told.map(|(_, report)| report).find(|report| report.client_seq == client_seq);
        match answer.expect("every command is answered").body {
            ReportBody::Rejected { reject, .. } => Err(DoorError::Rejected(reject)),
            body => Ok(body),
        }
    }

    pub(crate) fn used(&self) -> Vec<UsageRecord> {
        self.0.lock().used.clone()
    }

    /// Everything that happened so far.
    pub(crate) fn applied(&self) -> Vec<Applied> {
        self.0.lock().applied.clone()
    }

    fn first_draw(&self) -> Draw {
        self.0.lock().drawn[0]
    }

    pub(crate) fn state<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(self.0.lock().engine.state())
    }

    pub(crate) async fn tier(self: &Arc<Self>) -> RunningTier {
        self.tier_with(self.1.history.clone()).await
    }

    /// A tier that reads receipts from another history.
    pub(crate) async fn tier_with(self: &Arc<Self>, history: History) -> RunningTier {
        self.tier_of(history, |_| {}).await
    }

    /// A tier that is configured otherwise.
    pub(crate) async fn tier_set(self: &Arc<Self>, change: impl FnOnce(&mut Config)) -> RunningTier {
        self.tier_of(self.1.history.clone(), change).await
    }

    async fn tier_of(self: &Arc<Self>, history: History, change: impl FnOnce(&mut Config)) -> RunningTier {
        let door = Arc::new(MarketDoor(Arc::clone(self)));
        let deps = Deps { door: Arc::clone(&door) as Arc<dyn Door>, directory: door, history: Some(history) };
        tier_at(deps, change).await
    }

    /// So many answers to reports of faults get lost; the reports do not.
    pub(crate) fn lose_answers(&self, count: u32) {
        self.0.lock().lose_answers = count;
    }

    /// So many seconds go by.
    pub(crate) fn pass(&self, seconds: u64) {
        let mut log = self.0.lock();
        log.later = Nanos(log.later.0 + seconds * SECOND);
        log.apply(&Entry::venue(Command::Tick));
    }
}

struct MarketDoor(Arc<Market>);

impl MarketDoor {
    fn ended(&self, account: AccountId, last: Command) -> Result<Ended, DoorError> {
        match self.0.ask(account, last) {
            Ok(_) => Ok(Ended::Now(Seq(0))),
            Err(DoorError::Rejected(Reject::UnknownReservation)) => Ok(Ended::Before(Seq(0))),
            Err(error) => Err(error),
        }
    }
}

impl Door for MarketDoor {
    fn reserve(&self, wanted: Wanted) -> Pending<Reserved> {
        let Wanted { account, key, instrument, tokens, request, surface, valid_for } = wanted;
        let command = Command::Reserve { instrument, tokens, request, valid_for, key, surface };
        let answer = self.0.ask(account, command).map(|body| match body {
            ReportBody::Reserved { reservation, tokens, bought, spent, issuers } => {
                Reserved { reservation, tokens, bought, spent, issuers: issuers.to_vec() }
            }
            other => panic!("{other:?}"),
        });
        Box::pin(std::future::ready(answer))
    }

    fn settle(&self, account: AccountId, reservation: ReservationId, usage: Usage) -> Pending<Ended> {
        Box::pin(std::future::ready(self.ended(account, Command::Settle { reservation, usage })))
    }

    fn report_fault(&self, instrument: InstrumentId, supplier: AccountId, fault: Fault) -> Pending<()> {
        let command = Command::ReportFault { instrument, supplier, fault };
        let mut answer = self.0.ask(AccountId(1), command).map(drop);
        let lose = &mut self.0.0.lock().lose_answers;
        if *lose > 0 {
            *lose -= 1;
            answer = Err(DoorError::Unanswered("the answer was lost".into()));
        }
        Box::pin(std::future::ready(answer))
    }

    fn report_probe(&self, instrument: InstrumentId, supplier: AccountId, passed: bool) -> Pending<()> {
        let command = Command::ReportProbe { instrument, supplier, passed };
        let answer = self.0.ask(AccountId(1), command).map(drop);
        Box::pin(std::future::ready(answer))
    }

    fn release(&self, account: AccountId, reservation: ReservationId, supplier: AccountId) -> Pending<Ended> {
        Box::pin(std::future::ready(self.ended(account, Command::Release { reservation, supplier })))
    }
}

impl Directory for MarketDoor {
    fn news(&self) -> watch::Receiver<()> {
        self.0.0.lock().changed.subscribe()
    }

    fn promises(&self) -> &Promises {
        &self.0.2
    }

    fn reach(&self, _: Seq) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }

    fn look(&self, look: &mut dyn FnMut(&State)) {
        look(self.0.0.lock().engine.state());
    }
}

fn spec() -> InstrumentSpec {
    InstrumentSpec {
        symbol: "text-prime".into(),
        name: "Text Prime".into(),
        description: String::new(),
        quality: QualityTerms { output_floor: 128_000, ..QualityTerms::default() },
        market: MarketTerms {
            tick: Usd(10_000_000),
            lot: Qty(1),
            min_qty: Qty(1),
            max_qty: Qty(10_000),
            max_price: Price(100_000),
            maker_fee_bps: 0,
            taker_fee_bps: 0,
        },
        delivery: DeliveryTerms { window: None, movement: Movement::AtFill },
        status: InstrumentStatus::Live,
    }
}

pub(crate) const CONSUMER_ID: AccountId = AccountId(2);

#[tokio::test]
async fn a_call_in_auto_mode_buys_on_the_book_and_its_issuer_delivers_and_is_paid() {
    let events = steps(&good_stream(&["the market", " price", " is open"], 5, 5));
    let (cheap, dear) = (
        Upstream::always(Script::events(events.clone())).await,
        Upstream::always(Script::events(events)).await,
    );
    let market = Market::open(AccountMode::Easy, 25, [&cheap.url, &dear.url]);
    let tier = market.tier().await;
    let caller = Caller::new(&tier);
    let priced = caller.get("/v1/models/text-prime").await.json();
    assert_eq!(priced["pricing"]["unit"], "0.81");
    for _ in 0..10 {
        let answer = caller.chat(&ask_stream()).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    assert_eq!((cheap.got().len(), dear.got().len()), (10, 0), "the issuer of the tokens delivers");
    let used = market.used();
    let billed: u64 = used.iter().map(|record| record.billed.0).sum();
    assert_eq!(billed, 100, "to the token");
    assert!(used.iter().all(|record| record.unbilled.is_zero() && record.cost == Usd(8_100)));
    market.state(|state| {
        assert!(state.reservations.is_empty());
        let holding = state.holding(CONSUMER_ID, INSTRUMENT).unwrap();
        assert_eq!(holding.totals.used, Tokens(100));
        assert_eq!(holding.reserved_tokens(), Tokens(0));
        let supply = state.supplies.iter().next().unwrap();
        assert_eq!((supply.earned, supply.calls), (Usd(81_000), 10));
    });
}

#[tokio::test]
async fn an_account_without_dollars_or_tokens_gets_402_and_one_that_runs_dry_a_shorter_answer() {
    let good = Upstream::always(Script::json(&whole("the market", usage(5, 2)))).await;
    let urls = [good.url.as_str(), good.url.as_str()];
    let poor = Market::open(AccountMode::Easy, 0, urls);
    let tier = poor.tier().await;
    let answer = Caller::new(&tier).chat(&ask(json!({}))).await;
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (402, &json!("insufficient_funds")));

    let trader = Market::open(AccountMode::Advanced, 25, urls);
    let tier = trader.tier().await;
    let answer = Caller::new(&tier).chat(&ask(json!({}))).await;
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (402, &json!("insufficient_tokens")));
    assert!(good.got().is_empty());

    // One Unit is all that a dollar buys; 128,000 tokens of output no longer fit once eight calls hold theirs.
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let mut script = Script::json(&whole("the market", usage(5, 2)));
    script.steps.insert(0, Step::Gate(Arc::clone(&gate)));
    let slow = Upstream::always(script).await;
    let single = Market::open(AccountMode::Easy, 1, [&slow.url, &slow.url]);
    let tier = Arc::new(single.tier().await);
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let tier = Arc::clone(&tier);
            tokio::spawn(async move { Caller::new(&tier).chat(&ask(json!({}))).await.status })
        })
        .collect();
    slow.until_requests(8).await;
    assert_eq!(Caller::new(&tier).chat(&ask(json!({}))).await.status, 402);
    gate.add_permits(8);
    for call in calls {
        assert_eq!(call.await.unwrap(), 200);
    }
    let capped = slow.got().iter().filter(|got| got.json().get("max_tokens").is_some()).count();
    assert_eq!(capped, 1, "the last that fits is capped");
    single.state(|state| {
        assert!(state.reservations.is_empty());
        let holding = state.holding(CONSUMER_ID, INSTRUMENT).unwrap();
        assert_eq!(holding.totals.used, Tokens(7 * 8));
    });
}

#[tokio::test]
async fn a_failing_issuer_is_replaced_and_its_failure_billed_to_nobody() {
    let (bad, good) = (
        Upstream::always(Script::status(500)).await,
        Upstream::always(Script::json(&whole("the market", usage(5, 2)))).await,
    );
    let market = Market::open(AccountMode::Easy, 25, [&bad.url, &good.url]);
    let tier = market.tier().await;
    let caller = Caller::new(&tier);
    assert_eq!(caller.chat(&ask(json!({}))).await.status, 200);
    let record = market.used().remove(0);
    let suppliers: Vec<AccountId> = market.state(|state| state.suppliers.keys().copied().collect());
    assert_eq!((record.usage.supplier, market.first_draw().issuer), (suppliers[1], suppliers[0]));

    market.state(|state| assert!(state.reservations.is_empty()));
    let nobody = Market::open(AccountMode::Easy, 25, [&bad.url, &bad.url]);
    let tier = nobody.tier().await;
    assert_eq!(Caller::new(&tier).chat(&ask(json!({}))).await.status, 503);
    let failures = || nobody.state(|state| state.supplies.iter().map(|supply| supply.failures).sum::<u64>());
    let told = async {
        while failures() < 2 {
            tokio::task::yield_now().await;
        }
    };
    let told = tokio::time::timeout(std::time::Duration::from_secs(30), told).await;
    assert!(told.is_ok(), "every failed attempt is told: {}", failures());
    nobody.state(|state| {
        assert!(state.reservations.is_empty());
        assert_eq!(state.holding(CONSUMER_ID, INSTRUMENT).unwrap().free_tokens(), Tokens(1_000_000));
    });
}

#[tokio::test]
async fn where_the_issuer_fails_the_supplier_with_the_lowest_ask_delivers_and_the_record_says_why() {
    let bad = Upstream::always(Script::status(500)).await;
    let good = Upstream::always(Script::json(&whole("the market price", usage(5, 3)))).await;
    let market = Market::open(AccountMode::Easy, 25, [&bad.url, &good.url, &good.url]);
    let tier = market.tier().await;
    assert_eq!(Caller::new(&tier).chat(&ask(json!({}))).await.status, 200);
    let usage = market.used().remove(0).usage;
    let suppliers: Vec<AccountId> = market.state(|state| state.suppliers.keys().copied().collect());
    assert_eq!((usage.supplier, usage.cover), (suppliers[2], grid_engine::command::Cover::Failed));
    assert_eq!(market.first_draw().issuer, suppliers[0]);
}
