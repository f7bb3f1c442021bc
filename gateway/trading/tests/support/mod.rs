//! A venue in one process behind the tier's two traits: a real engine, no journal, every command committed at once.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of the support")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer, SigningKey};
use grid_engine::command::{
    AccountMode, Capabilities, Command, NewOrder, OrderKind, SelfTrade, Side, SupplierProfile, TimeInForce,
};
use grid_engine::event::ReportBody;
use grid_engine::instrument::{
    DeliveryTerms, InstrumentSpec, InstrumentStatus, MarketTerms, Movement, QualityTerms,
};
use grid_engine::{
    AccountId, Engine, Entry, Event, Fingerprint, InstrumentId, Label, Nanos, OrderId, Price, Qty, Seq,
    SessionId, Usd,
};
use grid_trading::auth::{fingerprint_text, signed_message};
use grid_trading::history::{Applied, Resumption};
use grid_trading::{
    Answer, App, Door, DoorError, Feed, History, Limits, Outcome, Pending, RunningTier, View, serve,
};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

const SESSION: SessionId = SessionId(7);
pub const OPERATOR: AccountId = AccountId(1);

struct Core {
    engine: Engine,
    feed: Option<Feed>,
    client_seq: u64,
}

pub struct Venue {
    core: Mutex<Core>,
    applied: watch::Sender<u64>,
    /// Commands that came through the door.
    pub commands: AtomicU64,
}

impl Venue {
    fn apply(&self, core: &mut Core, entry: &Entry) -> (Seq, Nanos, Vec<Event>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
        let at = Nanos(now.max(core.engine.state().now.0));
        self.apply_at(core, at, entry)
    }

    fn apply_at(&self, core: &mut Core, at: Nanos, entry: &Entry) -> (Seq, Nanos, Vec<Event>) {
        let seq = core.engine.state().seq.next();
        let mut events = Vec::new();
        core.engine.apply(seq, at, entry, &mut events);
        core.engine.check_invariants().expect("every command keeps the invariants");
        if let Some(feed) = &core.feed {
            feed.push(vec![Applied { seq, at, events: events.clone() }]).expect("the writer lives");
        }
        self.applied.send_replace(seq.0);
        (seq, at, events)
    }

    /// Log time goes on to this moment, and what falls due until then is done.
    pub fn pass_to(&self, moment: Nanos) {
        let mut core = self.core.lock();
        self.apply_at(&mut core, moment, &Entry::venue(Command::Tick));
    }

    pub fn run(&self, account: AccountId, command: Command) -> Answer {
        let mut core = self.core.lock();
        core.client_seq += 1;
        let client_seq = core.client_seq;
        let entry = Entry { session: SESSION, client_seq, account, command };
        let (seq, at, events) = self.apply(&mut core, &entry);
        let told = events.into_iter().filter_map(|event| event.report(seq, at));
        let body = told.map(|(_, report)| report).find(|report| report.client_seq == client_seq);
        let outcome = match body.expect("every command is answered").body {
            ReportBody::Order(report) => Outcome::Order(report.order),
            ReportBody::Rejected { reject, order, .. } => Outcome::Rejected { reject, existing: order },
            ReportBody::MassCancelled { count } => Outcome::MassCancelled { count },
            ReportBody::Done { created } => Outcome::Done { created },
            ReportBody::Reserved { .. }
            | ReportBody::Settled { .. }
            | ReportBody::Quoted { .. }
            | ReportBody::QuoteRefused { .. }
            | ReportBody::QuotesPulled { .. } => Outcome::Other,
        };
        Answer { seq, at, outcome }
    }

    /// Runs a command that must not be refused; the id that it made.
    pub fn done(&self, account: AccountId, command: Command) -> u64 {
        match self.run(account, command).outcome {
            Outcome::Done { created } => created,
            other => panic!("done, not {other:?}"),
        }
    }

    pub fn place(&self, account: AccountId, side: Side, price: u64, qty: u64) -> OrderId {
        let order = NewOrder {
            instrument: InstrumentId(0),
            side,
            kind: OrderKind::Limit { price: Price(price), tif: TimeInForce::Gtc },
            qty: Qty(qty),
            stp: SelfTrade::Allow,
            label: Label(0),
            tag: String::new(),
            to_consumption: false,
        };
        match self.run(account, Command::Place(order)).outcome {
            Outcome::Order(order) => order,
            other => panic!("an order, not {other:?}"),
        }
    }

    /// From now on the history hears of nothing.
    pub fn stop_telling(&self) -> Feed {
        self.core.lock().feed.take().expect("the history hears of everything")
    }

    /// The history goes on from the state as it is, and hears of everything again.
    pub fn tell_again(&self, feed: Feed) {
        let mut core = self.core.lock();
        feed.resume(Resumption::at(&core.engine)).expect("the writer lives");
        core.feed = Some(feed);
    }

    pub fn look<R>(&self, look: impl FnOnce(&Engine) -> R) -> R {
        look(&self.core.lock().engine)
    }
}

impl Door for Venue {
    fn submit(&self, account: AccountId, command: Command) -> Pending<'_, Result<Answer, DoorError>> {
        self.commands.fetch_add(1, Ordering::Relaxed);
        // As over the wire: what is not encodable could never arrive.
        let mut bytes = Vec::new();
        command.encode(&mut bytes);
        let command = Command::decode(&bytes).expect("a command survives its log form");
        Box::pin(async move { Ok(self.run(account, command)) })
    }
}

impl View for Venue {
    fn promised(&self, _: AccountId) -> Pending<'_, Seq> {
        Box::pin(std::future::ready(Seq(0)))
    }

    fn read(&self, reader: &mut dyn FnMut(&Engine)) {
        reader(&self.core.lock().engine);
    }

    fn applied(&self) -> Seq {
        Seq(*self.applied.borrow())
    }

    fn wait_for(&self, seq: Seq) -> Pending<'_, ()> {
        let mut applied = self.applied.subscribe();
        Box::pin(async move {
            let _ = applied.wait_for(|at| *at >= seq.0).await;
        })
    }
}

/// A participant: an account with a registered key.
#[derive(Clone)]
pub struct User {
    pub account: AccountId,
    pub key: SigningKey,
}

impl User {
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.key.verifying_key().as_bytes())
    }
}

/// Everything that a test needs; dropping it removes the files.
pub struct Fixture {
    pub venue: Arc<Venue>,
    pub history: History,
    pub tier: RunningTier,
    pub trader: User,
    pub supplier: User,
    pub easy: User,
    /// Its own directory, removed at the end.
    pub directory: tempfile::TempDir,
}

pub fn spec(symbol: &str, name: &str, status: InstrumentStatus) -> InstrumentSpec {
    InstrumentSpec {
        symbol: symbol.into(),
        name: name.into(),
        description: String::new(),
        quality: QualityTerms {
            index: "AA Intelligence".into(),
            score_floor: 38,
            tokens_per_second_floor: 40,
            ttft_ceiling_ms: 4_620,
            context_floor: 128_000,
            output_floor: 128_000,
        },
        market: MarketTerms {
            tick: Usd(10_000_000),
            lot: Qty(1),
            min_qty: Qty(1),
            max_qty: Qty(10_000),
            max_price: Price(1_000_000),
            maker_fee_bps: 0,
            taker_fee_bps: 0,
        },
        delivery: DeliveryTerms { window: None, movement: Movement::AtFill },
        status,
    }
}

/// A venue with two instruments (the second in preview), a funded trader, a supplier with 1,000 Units to sell, and an
/// account in Auto Mode.
pub async fn fixture() -> Fixture {
    fixture_with(Limits::default()).await
}

pub async fn fixture_with(limits: Limits) -> Fixture {
    let directory = tempfile::tempdir().expect("a directory");
    let (history, feed, _writer) = History::open(&directory.path().join("history.db")).expect("a store");
    let core = Core { engine: Engine::new(), feed: Some(feed), client_seq: 0 };
    let venue =
        Arc::new(Venue { core: Mutex::new(core), applied: watch::channel(0).0, commands: AtomicU64::new(0) });
    let operator = User { account: OPERATOR, key: SigningKey::from_bytes(&[9; 32]) };
    {
        let mut core = venue.core.lock();
        let operator_key = *operator.key.verifying_key().as_bytes();
        venue.apply(&mut core, &Entry::venue(Command::Genesis { operator_key }));
        let open = Command::OpenSession { session: SESSION, key: operator.fingerprint() };
        venue.apply(&mut core, &Entry::venue(open));
    }
    let user = |name: &str, mode: AccountMode, seed: u8| -> User {
        let open = Command::OpenAccount { name: name.into(), mode, capabilities: Capabilities::default() };
        let account = AccountId(venue.done(OPERATOR, open) as u32);
        let key = SigningKey::from_bytes(&[seed; 32]);
        let public_key = *key.verifying_key().as_bytes();
        venue.done(account, Command::AddSigningKey { public_key, label: name.into() });
        User { account, key }
    };
    for (symbol, name, status) in [
        ("text-prime", "Text Prime", InstrumentStatus::Live),
        ("code-max", "Code Max", InstrumentStatus::Preview),
    ] {
        venue.done(OPERATOR, Command::DefineInstrument(Box::new(spec(symbol, name, status))));
    }
    let trader = user("trader", AccountMode::Advanced, 1);
    let supplier = user("supplier", AccountMode::Advanced, 2);
    let easy = user("easy", AccountMode::Easy, 3);
    for who in [&trader, &easy] {
        venue.done(who.account, Command::Deposit { amount: Usd::dollars(100) });
    }
    let (id, instrument) = (supplier.account, InstrumentId(0));
    venue.done(
        id,
        Command::RegisterSupplier(Box::new(SupplierProfile {
            name: "Acme".into(),
            ..SupplierProfile::default()
        })),
    );
    venue.done(id, Command::SetCapacity { instrument, capacity: Qty(2_000) });
    venue.done(id, Command::Issue { instrument, qty: Qty(1_000) });
    venue.done(id, Command::TransferIssuance { instrument, qty: Qty(1_000) });
    let app = App::new(venue.clone(), venue.clone(), history.clone(), limits);
    let tier = serve("127.0.0.1:0".parse().expect("an address"), app).await.expect("a free port");
    venue.commands.store(0, Ordering::Relaxed);
    history.wait_for(venue.applied()).await.expect("the writer lives");
    Fixture { venue, history, tier, trader, supplier, easy, directory }
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Response {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Status and `errors.detail`.
    pub fn error(&self) -> (u16, String) {
        (self.status, self.json()["errors"]["detail"].as_str().unwrap_or_default().to_owned())
    }
}

pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// The three headers of a signed request.
pub fn signature(
    user: &User,
    timestamp: &str,
    method: &str,
    path: &str,
    body: &[u8],
) -> Vec<(String, String)> {
    let message = signed_message(timestamp, method, path, body);
    vec![
        ("x-thegrid-signature".into(), STANDARD.encode(user.key.sign(&message).to_bytes())),
        ("x-thegrid-timestamp".into(), timestamp.into()),
        ("x-thegrid-fingerprint".into(), fingerprint_text(&user.fingerprint())),
    ]
}

/// Sends raw bytes and reads until the venue closes.
pub async fn raw(fixture: &Fixture, bytes: &[u8]) -> String {
    raw_at(fixture.tier.addr, bytes).await
}

async fn raw_at(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).await.expect("the tier listens");
    // The venue may answer and close before all of it is sent; that is the point of some tests.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

pub fn parse(text: &str) -> Response {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("an HTTP answer, not {text:?}"));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    Response { status: status.expect("a status line"), headers, body: body.to_owned() }
}

pub async fn request(
    fixture: &Fixture,
    method: &str,
    target: &str,
    headers: &[(String, String)],
    body: &[u8],
) -> Response {
    request_at(fixture.tier.addr, method, target, headers, body).await
}

pub async fn request_at(
    addr: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(String, String)],
    body: &[u8],
) -> Response {
    let length = body.len();
    let mut bytes = format!(
        "{method} {target} HTTP/1.1\r\nhost: venue\r\nconnection: close\r\ncontent-length: {length}\r\n"
    )
    .into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    parse(&raw_at(addr, &bytes).await)
}

/// A signed request; the query is not part of what is signed.
/// A signed request, made once the history knows everything that others have done at the venue's own door.
pub async fn signed(fixture: &Fixture, user: &User, method: &str, target: &str, body: &str) -> Response {
    // A broken store is some tests' point; there is nothing to wait for then.
    let _ = fixture.history.wait_for(View::applied(&*fixture.venue)).await;
    signed_at(fixture.tier.addr, user, method, target, body).await
}

pub async fn signed_at(addr: SocketAddr, user: &User, method: &str, target: &str, body: &str) -> Response {
    let path = target.split('?').next().unwrap_or_default();
    let headers = signature(user, &unix_now().to_string(), method, path, body.as_bytes());
    request_at(addr, method, target, &headers, body.as_bytes()).await
}

pub async fn get(fixture: &Fixture, user: &User, target: &str) -> Response {
    signed(fixture, user, "GET", target, "").await
}

/// Replaces what differs from run to run by what it is.
pub fn masked(value: &Value) -> Value {
    match value {
        Value::String(text) => mask_text(text).into(),
        Value::Array(items) => items.iter().map(masked).collect(),
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), masked(value))).collect(),
        other => other.clone(),
    }
}

fn mask_text(text: &str) -> String {
    if text.len() >= 20 && text.ends_with('Z') && text.as_bytes()[10] == b'T' {
        return "<time>".into();
    }
    match text.rsplit_once('_') {
        Some((prefix, uuid)) if uuid.len() == 36 && uuid.matches('-').count() == 4 => format!("<{prefix}>"),
        _ => text.into(),
    }
}
