//! A venue, suppliers and clients for the tests: the venue is a ledger in memory that writes down every command, the
//! suppliers are real HTTP servers that follow a script, and the client is a plain HTTP client.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use grid_engine::command::{Offer, SupplierProfile, Usage};
use grid_engine::instrument::{
    DeliveryTerms, InstrumentSpec, InstrumentStatus, MarketTerms, Movement, QualityTerms,
};
use grid_engine::sla::{Fault, SlaTerms};
use grid_engine::state::{Account, ConsumptionKey, Instrument, State, Supplier};
use grid_engine::{
    AccountId, InstrumentId, KeyHash, KeyId, Nanos, Price, Qty, ReservationId, Seq, Tokens, Usd,
};
use grid_inference::{
    Clocks, Config, Deps, Directory, Door, DoorError, Ended, Pending, Reserved, RunningTier, VenueKey,
    Wanted, serve,
};
use grid_replicator::Promises;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

/// The consumption key of the test's one consumer.
pub(crate) const KEY: &str = "sk-or-v1-consumer";
/// Its account.
pub(crate) const CONSUMER: AccountId = AccountId(1);
/// The upstream credential of every test supplier.
pub(crate) const CREDENTIAL: &str = "sk-upstream";
/// How long a test waits for what must happen; far longer than it ever takes.
const PATIENCE: Duration = Duration::from_secs(30);

// -- the venue -----------------------------------------------------------------------------------------------------

/// What the venue was asked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Asked {
    Reserve { tokens: u64, request: u128 },
    Settle { reservation: u64, usage: Usage },
    Release { reservation: u64, supplier: u32 },
}

/// How the venue answers.
#[derive(Default)]
pub(crate) struct Ways {
    /// Answers to the next reservations, before the default: a yes.
    pub(crate) reserve: VecDeque<DoorError>,
    /// Reservations are answered only while this is false.
    pub(crate) hold_reservations: bool,
    /// Settlements are executed only while this is false.
    pub(crate) hold_settlements: bool,
    /// So many settlements and releases are executed, but their answer is lost.
    pub(crate) lose_answers: u32,
    /// So many settlements and releases are lost before they arrive.
    pub(crate) lose_commands: u32,
    /// The next reservation is made, but its answer is lost.
    pub(crate) lose_reservation: bool,
    /// Issuers in the answers.
    pub(crate) issuers: Vec<AccountId>,
}

#[derive(Default)]
struct Ledger {
    asked: Vec<Asked>,
    open: BTreeMap<u64, u64>,
    next: u64,
    ways: Ways,
    faults: Vec<(u32, Fault)>,
}

/// The venue.
pub(crate) struct Venue {
    state: Mutex<State>,
    ledger: Mutex<Ledger>,
    changed: watch::Sender<()>,
    promises: Promises,
}

impl Venue {
    pub(crate) fn new() -> Arc<Self> {
        let mut state = State::default();
        for id in 0..=1 {
            state.accounts.push(account(id));
        }
        state.consumption_keys.insert(KeyHash::of(KEY), key(CONSUMER));
        for (id, symbol) in ["text-prime", "text-standard"].into_iter().enumerate() {
            let id = InstrumentId(id as u16);
            state.symbols.insert(symbol.to_owned(), id);
            state.instruments.push(instrument(id, symbol));
        }
        Arc::new(Self {
            state: Mutex::new(state),
            ledger: Mutex::default(),
            changed: watch::channel(()).0,
            promises: Promises::default(),
        })
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock());
    }

    pub(crate) fn ways(&self, change: impl FnOnce(&mut Ways)) {
        change(&mut self.ledger.lock().ways);
        self.changed.send_replace(());
    }

    /// Puts a supplier of `text-prime` on the roster.
    pub(crate) fn supplier(&self, id: u32, base_url: &str) {
        let sealed = venue_key().seal(CREDENTIAL.as_bytes());
        self.change(|state| {
            let profile = SupplierProfile {
                name: format!("supplier {id}"),
                base_url: base_url.to_owned(),
                sealed_credential: sealed,
                offers: vec![Offer { instrument: InstrumentId(0), model: format!("model-of-{id}") }],
                suspended: false,
            };
            state.suppliers.insert(AccountId(id), Supplier { profile });
        });
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.ledger.lock().asked.clone()
    }

    pub(crate) fn open(&self) -> usize {
        self.ledger.lock().open.len()
    }

    pub(crate) fn usages(&self) -> Vec<Usage> {
        let asked = self.asked().into_iter();
        asked
            .filter_map(|one| match one {
                Asked::Settle { usage, .. } => Some(usage),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn releases(&self) -> Vec<u32> {
        let asked = self.asked().into_iter();
        asked
            .filter_map(|one| match one {
                Asked::Release { supplier, .. } => Some(supplier),
                _ => None,
            })
            .collect()
    }

    /// Which suppliers failed, and how, as reported.
    pub(crate) fn faults(&self) -> Vec<(u32, Fault)> {
        self.ledger.lock().faults.clone()
    }

    /// Whether every refusal in `ways.reserve` was given.
    pub(crate) fn is_out_of_refusals(&self) -> bool {
        self.ledger.lock().ways.reserve.is_empty()
    }

    /// Returns once what was asked fulfils the condition.
    pub(crate) async fn until(&self, what: &str, mut condition: impl FnMut(&[Asked]) -> bool) {
        let mut changed = self.changed.subscribe();
        let met = async {
            while !condition(&self.asked()) {
                changed.changed().await.expect("the venue lives");
            }
        };
        let met = tokio::time::timeout(PATIENCE, met).await;
        assert!(met.is_ok(), "waited in vain until {what}; asked so far: {:?}", self.asked());
    }

    /// Returns once there is as many a last word as a reservation, and the tier has heard the answer to each.
    pub(crate) async fn until_settled(&self) {
        self.until("every reservation has ended", |asked| {
            let reserved = asked.iter().filter(|one| matches!(one, Asked::Reserve { .. })).count();
            reserved > 0 && self.open() == 0
        })
        .await;
        let heard = tokio::time::timeout(PATIENCE, self.promises.settled(CONSUMER.0.into())).await;
        assert!(heard.is_ok(), "a last word was never answered");
    }

    /// Every reservation was settled or released exactly once.
    pub(crate) fn assert_each_ended_once(&self) {
        let ledger = self.ledger.lock();
        assert!(ledger.open.is_empty(), "open reservations: {:?}", ledger.open);
        let mut ends = BTreeMap::<u64, u32>::new();
        for asked in &ledger.asked {
            match asked {
                Asked::Settle { reservation, .. } | Asked::Release { reservation, .. } => {
                    *ends.entry(*reservation).or_default() += 1;
                }
                Asked::Reserve { .. } => {}
            }
        }
        assert!(ends.values().all(|times| *times == 1), "{ends:?}");
        assert_eq!(ends.len() as u64, ledger.next);
    }

    fn end(&self, asked: Asked, reservation: u64) -> Result<Ended, DoorError> {
        let mut ledger = self.ledger.lock();
        if ledger.ways.lose_commands > 0 {
            ledger.ways.lose_commands -= 1;
            return Err(DoorError::Unavailable("the command was lost".into()));
        }
        let known = ledger.open.remove(&reservation).is_some();
        if known {
            ledger.asked.push(asked);
        }
        if ledger.ways.lose_answers > 0 {
            ledger.ways.lose_answers -= 1;
            return Err(DoorError::Unanswered("the answer was lost".into()));
        }
        drop(ledger);
        self.changed.send_replace(());
        Ok(if known { Ended::Now(Seq(0)) } else { Ended::Before(Seq(0)) })
    }
}

/// The venue as a door and a directory.
pub(crate) struct TestDoor(pub(crate) Arc<Venue>);

impl Door for TestDoor {
    fn reserve(&self, wanted: Wanted) -> Pending<Reserved> {
        let Wanted { account, instrument, tokens, request, valid_for, .. } = wanted;
        assert_eq!((account, instrument), (CONSUMER, InstrumentId(0)));
        assert!(valid_for > Nanos::ZERO);
        let venue = Arc::clone(&self.0);
        Box::pin(async move {
            let mut changed = venue.changed.subscribe();
            while venue.ledger.lock().ways.hold_reservations {
                changed.changed().await.expect("the venue lives");
            }
            let mut ledger = venue.ledger.lock();
            if let Some(error) = ledger.ways.reserve.pop_front() {
                venue.changed.send_replace(());
                return Err(error);
            }
            ledger.next += 1;
            let reservation = venue.state.lock().reservations.open(|new| {
                new.account = account;
                new.instrument = instrument;
                new.request = request;
            });
            ledger.open.insert(reservation.0, tokens.0);
            ledger.asked.push(Asked::Reserve { tokens: tokens.0, request });
            let issuers = ledger.ways.issuers.clone();
            let lost = std::mem::take(&mut ledger.ways.lose_reservation);
            drop(ledger);
            venue.changed.send_replace(());
            if lost {
                return Err(DoorError::Unanswered("the answer was lost".into()));
            }
            Ok(Reserved { reservation, tokens, bought: Qty(0), spent: Usd(0), issuers })
        })
    }

    fn settle(&self, _account: AccountId, reservation: ReservationId, usage: Usage) -> Pending<Ended> {
        let venue = Arc::clone(&self.0);
        Box::pin(async move {
            let mut changed = venue.changed.subscribe();
            while venue.ledger.lock().ways.hold_settlements {
                changed.changed().await.expect("the venue lives");
            }
            let reservation = reservation.0;
            venue.end(Asked::Settle { reservation, usage }, reservation)
        })
    }

    fn report_fault(&self, _: InstrumentId, supplier: AccountId, fault: Fault) -> Pending<()> {
        self.0.ledger.lock().faults.push((supplier.0, fault));
        self.0.changed.send_replace(());
        Box::pin(std::future::ready(Ok(())))
    }

    fn report_probe(&self, _: InstrumentId, _: AccountId, _: bool) -> Pending<()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn release(
        &self,
        _account: AccountId,
        reservation: ReservationId,
        supplier: AccountId,
    ) -> Pending<Ended> {
        let venue = Arc::clone(&self.0);
        Box::pin(async move {
            let (reservation, supplier) = (reservation.0, supplier.0);
            venue.end(Asked::Release { reservation, supplier }, reservation)
        })
    }
}

impl Directory for TestDoor {
    fn news(&self) -> watch::Receiver<()> {
        // Nothing changes by itself here.
        watch::channel(()).1
    }

    fn promises(&self) -> &Promises {
        &self.0.promises
    }

    fn reach(&self, _: Seq) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }

    fn look(&self, look: &mut dyn FnMut(&State)) {
        look(&self.0.state.lock());
    }
}

fn account(id: u32) -> Account {
    Account {
        id: AccountId(id),
        name: String::new(),
        mode: grid_engine::command::AccountMode::Advanced,
        capabilities: Default::default(),
        auto_buy: Default::default(),
        usd_available: Usd(0),
        usd_held: Usd(0),
        orders: Default::default(),
        labels: BTreeMap::new(),
        tags: BTreeMap::new(),
        tags_by_age: VecDeque::new(),
        created_at: Nanos(0),
        updated_at: Nanos(0),
        deposited_at: Nanos(0),
        withdrawn_at: Nanos(0),
        watched: Default::default(),
        open_calls: 0,
        funding: Default::default(),
        benchmark: false,
    }
}

/// An active key of an account.
pub(crate) fn key(account: AccountId) -> ConsumptionKey {
    ConsumptionKey {
        id: KeyId(1),
        account,
        prefix: "sk-or-v1".into(),
        name: "test".into(),
        active: true,
        expires_at: None,
        created_at: Nanos(0),
    }
}

fn instrument(id: InstrumentId, symbol: &str) -> Instrument {
    Instrument {
        id,
        spec: InstrumentSpec {
            symbol: symbol.to_owned(),
            name: symbol.to_owned(),
            description: String::new(),
            quality: QualityTerms { output_floor: 4_000, context_floor: 128_000, ..QualityTerms::default() },
            market: MarketTerms {
                tick: Usd(10_000_000),
                lot: Qty(1),
                min_qty: Qty(1),
                max_qty: Qty(1_000),
                max_price: Price(100_000),
                maker_fee_bps: 0,
                taker_fee_bps: 0,
            },
            delivery: DeliveryTerms { window: None, movement: Movement::AtFill },
            status: InstrumentStatus::Live,
        },
        last_trade: None,
        trades: 0,
        volume: Qty(0),
        issued: Tokens(0),
        delivered: Tokens(0),
        expired: Tokens(0),
        sla: SlaTerms::NONE,
        window_ends: None,
        managed: None,
        created_at: Nanos(1_790_000_000_000_000_000),
        updated_at: Nanos(0),
    }
}

pub(crate) fn venue_key() -> VenueKey {
    VenueKey::new([9; 32])
}

/// A tier in front of the venue. The clocks for suppliers are short where a test lets them run out.
pub(crate) async fn tier(venue: &Arc<Venue>, change: impl FnOnce(&mut Config)) -> RunningTier {
    let door = Arc::new(TestDoor(Arc::clone(venue)));
    tier_at(Deps { door: Arc::clone(&door) as Arc<dyn Door>, directory: door, history: None }, change).await
}

/// A tier in front of any venue.
pub(crate) async fn tier_at(deps: Deps, change: impl FnOnce(&mut Config)) -> RunningTier {
    let mut config = Config {
        venue_key: venue_key(),
        messages_addr: Some(([127, 0, 0, 1], 0).into()),
        clocks: Clocks { first_content: Duration::from_secs(20), ..Clocks::default() },
        ..Config::default()
    };
    change(&mut config);
    serve(config, deps).await.expect("loopback is there")
}

// -- suppliers -----------------------------------------------------------------------------------------------------

/// One step of an answer's body.
#[derive(Clone)]
pub(crate) enum Step {
    /// Send these bytes, in a piece of their own.
    Send(Bytes),
    /// Wait until the test says go on, once.
    Gate(Arc<tokio::sync::Semaphore>),
    /// Send nothing more and keep the connection.
    Silence,
    /// Drop the connection in the middle.
    Die,
}

/// An answer of a scripted supplier.
#[derive(Clone)]
pub(crate) struct Script {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) steps: Vec<Step>,
    /// Say nothing at all, not even a head.
    pub(crate) mute: bool,
}

impl Script {
    pub(crate) fn new(status: u16, kind: &str, steps: Vec<Step>) -> Self {
        Self { status, headers: vec![("content-type", kind.to_owned())], steps, mute: false }
    }

    pub(crate) fn json(value: &Value) -> Self {
        Self::new(200, "application/json", vec![send(&value.to_string())])
    }

    pub(crate) fn status(status: u16) -> Self {
        let body = json!({"error": {"message": "upstream says no", "type": "x"}}).to_string();
        Self::new(status, "application/json", vec![send(&body)])
    }

    pub(crate) fn events(steps: Vec<Step>) -> Self {
        Self::new(200, "text/event-stream", steps)
    }

    pub(crate) fn mute() -> Self {
        Self { mute: true, ..Self::events(Vec::new()) }
    }
}

pub(crate) fn send(text: &str) -> Step {
    Step::Send(Bytes::copy_from_slice(text.as_bytes()))
}

/// A request as a supplier got it.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) path: String,
    pub(crate) body: Bytes,
}

impl Got {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("suppliers get JSON")
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Seen {
    requests: usize,
    ended: usize,
}

/// A scripted supplier.
pub(crate) struct Upstream {
    pub(crate) url: String,
    got: Arc<Mutex<Vec<Got>>>,
    seen: watch::Sender<Seen>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Upstream {
    /// Answers every request by the script; the number of the request, from 0, goes in.
    pub(crate) async fn start(script: impl Fn(usize, &Got) -> Script + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let got = Arc::new(Mutex::new(Vec::new()));
        let (seen, _) = watch::channel(Seen::default());
        let script = Arc::new(script);
        let (inner_got, inner_seen) = (Arc::clone(&got), seen.clone());
        let server = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let _ = socket.set_nodelay(true);
                let (got, seen, script) = (Arc::clone(&inner_got), inner_seen.clone(), Arc::clone(&script));
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        answer(request, Arc::clone(&got), seen.clone(), Arc::clone(&script))
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service)
                        .await;
                });
            }
        });
        Self { url, got, seen, server }
    }

    pub(crate) async fn always(script: Script) -> Self {
        Self::start(move |_, _| script.clone()).await
    }

    /// Base URL where nobody listens.
    pub(crate) async fn nobody() -> String {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        format!("http://{}/v1", listener.local_addr().unwrap())
    }

    pub(crate) fn got(&self) -> Vec<Got> {
        self.got.lock().clone()
    }

    /// Returns once so many requests have come.
    pub(crate) async fn until_requests(&self, count: usize) {
        self.until("requests", |seen| seen.requests >= count).await;
    }

    /// Returns once so many answers have ended, by their script or because nobody wants them any more.
    pub(crate) async fn until_ended(&self, count: usize) {
        self.until("ends", |seen| seen.ended >= count).await;
    }

    async fn until(&self, what: &str, condition: impl Fn(&Seen) -> bool) {
        let mut seen = self.seen.subscribe();
        let met = tokio::time::timeout(PATIENCE, seen.wait_for(|seen| condition(seen))).await;
        assert!(met.is_ok(), "waited in vain for {what}");
    }
}

/// Counts the end of an answer, whichever way it comes.
struct Over(watch::Sender<Seen>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.send_modify(|seen| seen.ended += 1);
    }
}

async fn answer(
    request: Request<Incoming>,
    got: Arc<Mutex<Vec<Got>>>,
    seen: watch::Sender<Seen>,
    script: Arc<impl Fn(usize, &Got) -> Script>,
) -> Result<Response<Played>, Infallible> {
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else { std::future::pending().await };
    let one = Got { headers: parts.headers, path: parts.uri.path().to_owned(), body: body.to_bytes() };
    let number = {
        let mut got = got.lock();
        got.push(one.clone());
        got.len() - 1
    };
    let script = script(number, &one);
    seen.send_modify(|seen| seen.requests += 1);
    let ended = Over(seen);
    if script.mute {
        let _ended = ended;
        return std::future::pending().await;
    }
    let (give, take) = mpsc::channel(1);
    let steps = script.steps;
    tokio::spawn(async move {
        let _ended = ended;
        for step in steps {
            let sent = match step {
                Step::Send(bytes) => give.send(Some(bytes)).await,
                Step::Die => give.send(None).await,
                Step::Gate(gate) => {
                    tokio::select! {
                        pass = gate.acquire() => pass.expect("gates stay").forget(),
                        () = give.closed() => return,
                    }
                    Ok(())
                }
                Step::Silence => {
                    give.closed().await;
                    return;
                }
            };
            if sent.is_err() {
                return;
            }
        }
    });
    let mut response = Response::new(Played(take));
    *response.status_mut() = script.status.try_into().unwrap();
    for (name, value) in script.headers {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    Ok(response)
}

/// A body that plays a script.
struct Played(mpsc::Receiver<Option<Bytes>>);

impl Body for Played {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(cx).map(|step| {
            step.map(|bytes| match bytes {
                Some(bytes) => Ok(Frame::data(bytes)),
                None => Err(io::Error::other("the script says die")),
            })
        })
    }
}

// -- what suppliers say --------------------------------------------------------------------------------------------

pub(crate) fn chunk(extra: Value) -> String {
    let mut chunk = json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_790_000_001,
        "model": "served-model", "choices": []});
    chunk.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    format!("data: {chunk}\n\n")
}

pub(crate) fn role() -> String {
    chunk(
        json!({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": null}]}),
    )
}

pub(crate) fn delta(text: &str) -> String {
    chunk(json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]}))
}

pub(crate) fn finish() -> String {
    chunk(json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}))
}

pub(crate) fn usage(prompt: u64, completion: u64) -> Value {
    json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion})
}

pub(crate) fn usage_chunk(prompt: u64, completion: u64) -> String {
    chunk(json!({"usage": usage(prompt, completion)}))
}

pub(crate) const DONE: &str = "data: [DONE]\n\n";

/// The whole of a good stream: role, these texts, the reason to stop, usage, the end.
pub(crate) fn good_stream(texts: &[&str], prompt: u64, completion: u64) -> Vec<String> {
    let mut events = vec![role()];
    events.extend(texts.iter().map(|text| delta(text)));
    events.extend([finish(), usage_chunk(prompt, completion), DONE.to_owned()]);
    events
}

pub(crate) fn steps(events: &[String]) -> Vec<Step> {
    events.iter().map(|event| send(event)).collect()
}

pub(crate) fn whole(text: &str, usage: Value) -> Value {
    json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 1_790_000_001, "model": "served-model",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop",
        "logprobs": null}], "usage": usage})
}

// -- the client ----------------------------------------------------------------------------------------------------

/// A plain HTTP client.
pub(crate) struct Caller {
    client: Client<HttpConnector, Full<Bytes>>,
    base: String,
}

/// An answer as a client got it.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) text: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// What this answer's client sees of what supplier 2 sent it, which is an answer or the event of one.
    pub(crate) fn shown(&self, sent: &str) -> Value {
        let mut sent: Value = serde_json::from_str(sent.strip_prefix("data: ").unwrap_or(sent)).unwrap();
        let call = self.header("x-grid-request-id").and_then(|name| name.strip_prefix("req_"));
        sent["id"] = json!(format!("chatcmpl-{}", call.expect("a request's id")));
        sent["model"] = json!("model-of-2");
        sent["system_fingerprint"] = Value::Null;
        sent
    }

    /// The stream's events but the last, which says that it is over.
    pub(crate) fn chunks(&self) -> Vec<Value> {
        let mut events = self.events();
        assert_eq!(events.pop().as_deref(), Some("[DONE]"));
        events.iter().map(|event| serde_json::from_str(event).unwrap()).collect()
    }

    /// The data of the stream's events.
    pub(crate) fn events(&self) -> Vec<String> {
        let lines = self.text.lines().filter_map(|line| line.strip_prefix("data: "));
        lines.map(str::to_owned).collect()
    }
}

impl Caller {
    pub(crate) fn new(tier: &RunningTier) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            base: format!("http://{}", tier.inference_addr),
        }
    }

    /// A client of no tier in particular.
    pub(crate) fn anywhere() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self { client: Client::builder(TokioExecutor::new()).build(connector), base: String::new() }
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> hyper::http::request::Builder {
        Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("content-type", "application/json")
    }

    pub(crate) async fn open(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let answered = tokio::time::timeout(PATIENCE, self.client.request(request)).await;
        answered.expect("an answer in time").expect("an answer")
    }

    pub(crate) async fn read(response: Response<Incoming>) -> Reply {
        let (parts, body) = response.into_parts();
        let body = tokio::time::timeout(PATIENCE, body.collect()).await.expect("a body in time");
        Reply {
            status: parts.status.as_u16(),
            headers: parts.headers,
            text: String::from_utf8(body.expect("a whole body").to_bytes().to_vec()).unwrap(),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        let request = self.request("GET", path).body(Full::default()).unwrap();
        Self::read(self.open(request).await).await
    }

    pub(crate) async fn post(&self, path: &str, key: Option<&str>, body: &str) -> Reply {
        Self::read(self.open(self.chat_request(path, key, body)).await).await
    }

    pub(crate) fn chat_request(&self, path: &str, key: Option<&str>, body: &str) -> Request<Full<Bytes>> {
        let mut builder = self.request("POST", path);
        if let Some(key) = key {
            builder = builder.header("authorization", format!("Bearer {key}"));
        }
        builder.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap()
    }

    pub(crate) async fn chat(&self, body: &Value) -> Reply {
        self.post("/v1/chat/completions", Some(KEY), &body.to_string()).await
    }

    /// A stream that is read piece by piece.
    pub(crate) async fn stream(&self, body: &Value) -> Stream {
        let request = self.chat_request("/v1/chat/completions", Some(KEY), &body.to_string());
        let response = self.open(request).await;
        assert_eq!(response.status(), 200);
        Stream { body: response.into_body(), text: String::new() }
    }
}

/// A stream as it comes.
pub(crate) struct Stream {
    body: Incoming,
    pub(crate) text: String,
}

impl Stream {
    /// Reads until the text so far contains this.
    pub(crate) async fn until(&mut self, wanted: &str) {
        while !self.text.contains(wanted) {
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("more in time");
            let frame =
                frame.unwrap_or_else(|| panic!("ended without {wanted}: {}", self.text)).expect("more");
            self.text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
        }
    }
}

/// A request of five words in one message.
pub(crate) fn ask(extra: Value) -> Value {
    let mut body = json!({"model": "text-prime", "messages": [{"role": "user", "content": "give the market price now"}]});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

pub(crate) fn ask_stream() -> Value {
    ask(json!({"stream": true}))
}
