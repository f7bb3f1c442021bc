//! Sockets and routes. Everything that a client can send is bounded here, in size, count and time.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use grid_engine::command::AccountMode;
use grid_engine::sla::Fault;
use grid_engine::state::State;
use grid_engine::{AccountId, InstrumentId, KeyHash};
use grid_history::History;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{ALLOW, EXPECT, HeaderValue};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::timeout;

use crate::call::{self, Call};
use crate::catalogue::{self, is_offered};
use crate::config::Config;
use crate::dialect::messages::request::For;
use crate::dialect::{self, Dialect};
use crate::dispatch::Hops;
use crate::door::{Deps, Directory};
use crate::faults::Faults;
use crate::hold::Bureau;
use crate::insist::Insist;
use crate::keys::{self, Caller, Permit, Turnstile};
use crate::meter;
use crate::needs::{Need, Needs};
use crate::patience;
use crate::probe::{self, Desk};
use crate::receipts;
use crate::reply::{Out, Refusal, Surface, json_response};
use crate::roster::{self, Roster};
use crate::stats::{One, Snapshot, Stats, bump, drop_one};
use crate::ticket::{self, Ticket, Void};
use crate::tokens;
use crate::trace::Trace;
use crate::upstream::Upstream;

/// Where chat completions are asked for.
const CHAT: &str = "/v1/chat/completions";
/// Of a refused body so much is still read, so that the client gets to see why, in bytes.
const SPARED_BYTES: usize = 64 << 20;
/// For so long.
const SPARED_TIME: Duration = Duration::from_secs(5);

/// What all connections share.
pub(crate) struct Tier {
    pub(crate) config: Config,
    pub(crate) directory: Arc<dyn Directory>,
    pub(crate) bureau: Bureau,
    pub(crate) stats: Arc<Stats>,
    pub(crate) roster: Arc<Roster>,
    pub(crate) upstream: Upstream,
    pub(crate) desk: Desk,
    pub(crate) hops: Arc<Hops>,
    /// Calls that are over; `None` where none is kept.
    pub(crate) history: Option<History>,
    faults: Faults,
    turnstile: Arc<Turnstile>,
    calls: Arc<Semaphore>,
}

impl Tier {
    /// Tells the venue that an attempt at a supplier failed. Nobody waits for it.
    pub(crate) fn report(&self, instrument: InstrumentId, supplier: AccountId, fault: Fault) {
        self.faults.report(instrument, supplier, fault);
    }
}

/// A call's place in the counts, for as long as it lasts.
pub(crate) struct InFlight {
    stats: Arc<Stats>,
    _key: Permit,
    _call: OwnedSemaphorePermit,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        drop_one(&self.stats.in_flight);
    }
}

/// A tier that serves until it is shut down or dropped.
#[derive(Debug)]
pub struct RunningTier {
    /// Where OpenAI clients connect.
    pub inference_addr: SocketAddr,
    /// Where Anthropic clients connect.
    pub messages_addr: Option<SocketAddr>,
    stats: Arc<Stats>,
    stop: watch::Sender<bool>,
    patience: Duration,
}

impl RunningTier {
    /// Base URL for an OpenAI client, ending in `/v1`.
    #[must_use]
    pub fn inference_url(&self) -> String {
        format!("http://{}/v1", self.inference_addr)
    }

    /// Base URL for an Anthropic client, ending in `/v1`: its own listener, or else the same.
    #[must_use]
    pub fn messages_url(&self) -> String {
        format!("http://{}/v1", self.messages_addr.unwrap_or(self.inference_addr))
    }

    /// The counters now.
    #[must_use]
    pub fn stats(&self) -> Snapshot {
        self.stats.snapshot()
    }

    /// Takes no more calls and waits, within bounds, until those in progress have ended and are settled.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        let ended = async {
            loop {
                let now = self.stats.snapshot();
                if now.in_flight == 0 && now.open == 0 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = timeout(self.patience, ended).await;
    }
}

impl Drop for RunningTier {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

/// Binds the listeners and serves in tasks of the current runtime.
///
/// # Errors
/// An address that can't be bound.
pub async fn serve(config: Config, deps: Deps) -> io::Result<RunningTier> {
    let inference = TcpListener::bind(config.inference_addr).await?;
    let messages = match config.messages_addr {
        Some(addr) => Some(TcpListener::bind(addr).await?),
        None => None,
    };
    let stats = Arc::new(Stats::default());
    let (stop, stopped) = watch::channel(false);
    let running = RunningTier {
        inference_addr: inference.local_addr()?,
        messages_addr: messages.as_ref().map(TcpListener::local_addr).transpose()?,
        stats: Arc::clone(&stats),
        stop,
        patience: config.clocks.shutdown,
    };
    let upstream = Upstream::new(config.clocks, &config.limits, Arc::clone(&stats));
    let hops = Hops::new(&config.dispatch, running.inference_url(), &config.venue_key);
    hops.watch(&upstream, config.dispatch.check);
    let faults = Faults::new(Arc::clone(&deps.door), Arc::clone(&stats));
    let tier = Arc::new(Tier {
        bureau: Bureau {
            door: deps.door,
            promises: deps.directory.promises().clone(),
            stats: Arc::clone(&stats),
            metering: config.metering,
            life: config.clocks.reservation,
        },
        directory: deps.directory,
        roster: Roster::new(config.routing, config.lacks.clone(), Arc::clone(&stats)),
        desk: Desk::default(),
        upstream,
        hops,
        history: deps.history,
        faults,
        stats,
        turnstile: Turnstile::new(config.limits.key),
        calls: Arc::new(Semaphore::new(config.limits.calls)),
        config,
    });
    drop(tokio::task::spawn_blocking(tokens::warm));
    if let Some(pauses) = tier.config.probing.suspended {
        tokio::spawn(probe::runner::run(Arc::clone(&tier), pauses, stopped.clone()));
    }
    let connections = Arc::new(Semaphore::new(tier.config.limits.connections));
    for (listener, surface) in [(Some(inference), Surface::OpenAi), (messages, Surface::Anthropic)] {
        if let Some(listener) = listener {
            let (tier, connections) = (Arc::clone(&tier), Arc::clone(&connections));
            tokio::spawn(accept(tier, listener, surface, connections, stopped.clone()));
        }
    }
    Ok(running)
}

async fn accept(
    tier: Arc<Tier>,
    listener: TcpListener,
    surface: Surface,
    connections: Arc<Semaphore>,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        let Ok(room) = Arc::clone(&connections).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            biased;
            _ = stopped.wait_for(|stop| *stop) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, _)) => {
                tokio::spawn(connection(Arc::clone(&tier), socket, surface, room, stopped.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

async fn connection(
    tier: Arc<Tier>,
    socket: TcpStream,
    surface: Surface,
    _room: OwnedSemaphorePermit,
    mut stopped: watch::Receiver<bool>,
) {
    let _ = socket.set_nodelay(true);
    let _one = One::of(Arc::clone(&tier.stats), |stats| &stats.connections);
    let limits = &tier.config.limits;
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(tier.config.clocks.head_read)
        .max_headers(limits.headers)
        .max_buf_size(limits.head_bytes.max(8_192));
    let service = service_fn(|request| {
        let tier = Arc::clone(&tier);
        async move { Ok::<_, Infallible>(handle(tier, surface, request).await) }
    });
    let serving = builder.serve_connection(TokioIo::new(socket), service);
    let mut serving = std::pin::pin!(serving);
    let stop = async {
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    let ended = tokio::select! {
        ended = &mut serving => Some(ended),
        () = stop => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

async fn handle(tier: Arc<Tier>, surface: Surface, request: Request<Incoming>) -> Response<Out> {
    let ticket = (request.uri().path() == CHAT).then(|| tier.hops.ticket(request.uri().query())).flatten();
    let number: u128 = match ticket {
        Some(Ok(ticket)) => ticket.request,
        _ => rand::random(),
    };
    let name = format!("req_{number:032x}");
    let head = request.method() == Method::HEAD;
    let (parts, body) = request.into_parts();
    let trace = if is_operator(&tier, &parts.headers) { Trace::on() } else { Trace::default() };
    let asked = Asked { tier, surface, number, name: &name, parts, ticket, trace: trace.clone() };
    let mut response = match asked.route(body).await {
        Ok(response) => response,
        Err((refusal, surface)) => refusal.response(surface, &name),
    };
    if head {
        *response.body_mut() = Out::empty();
    }
    if let Ok(value) = HeaderValue::from_str(&name) {
        let headers = response.headers_mut();
        for header in ["x-grid-request-id", "x-request-id", "request-id"] {
            headers.insert(header, value.clone());
        }
        if let Some(route) = trace.read().and_then(|route| HeaderValue::try_from(route).ok()) {
            headers.insert("x-grid-route", route);
        }
    }
    response
}

/// Whether the request carries the operator's secret.
fn is_operator(tier: &Tier, headers: &HeaderMap) -> bool {
    let told = || headers.get("x-grid-operator")?.to_str().ok().map(KeyHash::of);
    tier.config.operator.is_some_and(|operator| told() == Some(operator))
}

/// One request, with its body apart.
struct Asked<'a> {
    tier: Arc<Tier>,
    surface: Surface,
    number: u128,
    name: &'a str,
    parts: hyper::http::request::Parts,
    /// With it another node sent the client here.
    ticket: Option<Result<Ticket, Void>>,
    /// Kept where an operator asks.
    trace: Trace,
}

type Answer = Result<Response<Out>, (Refusal, Surface)>;

impl Asked<'_> {
    async fn route(self, body: Incoming) -> Answer {
        let path = self.parts.uri.path().to_owned();
        let path = path.strip_prefix("/api/v1").map_or_else(|| path.clone(), |rest| format!("/v1{rest}"));
        let path = if path.len() > 1 { path.trim_end_matches('/') } else { &path };
        let surface = self.surface;
        let reading = matches!(self.parts.method, Method::GET | Method::HEAD);
        let answered = match path {
            "/v1/chat/completions" | "/v1/messages" | "/v1/responses"
                if self.parts.method == Method::POST =>
            {
                let dialect = match path {
                    "/v1/messages" => Dialect::Messages,
                    "/v1/responses" => Dialect::Responses,
                    _ => Dialect::Chat,
                };
                let answered = self.converse(body, dialect).await;
                return answered.map_err(|refusal| (refusal, dialect.surface()));
            }
            "/v1/messages/count_tokens" if self.parts.method == Method::POST => {
                return self.count(body).await.map_err(|refusal| (refusal, Surface::Anthropic));
            }
            "/operator/probe"
                if self.parts.method == Method::POST && is_operator(&self.tier, &self.parts.headers) =>
            {
                let probed = async { probe::operator::answer(&self.tier, &self.body(body).await?).await };
                return probed.await.map_err(|refusal| (refusal, surface));
            }
            "/v1/messages" | "/v1/messages/count_tokens" => Err((method("POST"), Surface::Anthropic)),
            "/" | "/v1" | "/api" if reading => Ok(json_response(
                StatusCode::OK,
                &json!({"object": "grid.inference", "endpoints":
                    ["/v1/models", "/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/usage", "/v1/diagnostics", "/health"]}),
            )),
            "/health" | "/v1/health" if reading => {
                Ok(json_response(StatusCode::OK, &json!({"status": "ok"})))
            }
            "/operator/stats" if reading && is_operator(&self.tier, &self.parts.headers) => {
                Ok(json_response(StatusCode::OK, &json!(self.tier.stats.snapshot())))
            }
            _ if reading && receipts::is_path(path) => {
                self.receipts(path).await.map_err(|refusal| (refusal, surface))
            }
            "/instruments.json" if reading => Ok(self.instruments().await),
            "/v1/models" if reading => self.models().await.map_err(|refusal| (refusal, surface)),
            "/v1/chat/completions" | "/v1/responses" => Err((method("POST"), Surface::OpenAi)),
            _ if path.starts_with("/v1/responses/") => Err((
                Refusal::new(
                    StatusCode::NOT_FOUND,
                    "not_found",
                    "responses are not stored here, so none can be read, cancelled or deleted later",
                ),
                Surface::OpenAi,
            )),
            "/" | "/v1" | "/health" | "/v1/models" => Err((method("GET"), surface)),
            _ if receipts::is_path(path) => Err((method("GET"), surface)),
            _ if path.starts_with("/v1/v1") => Err((
                Refusal::new(
                    StatusCode::NOT_FOUND,
                    "not_found",
                    "the path has /v1 twice: give your client the base URL without it, or once",
                ),
                surface,
            )),
            _ => match path.strip_prefix("/v1/models/") {
                Some(symbol) if reading => self.model(symbol).await.map_err(|refusal| (refusal, surface)),
                _ => Err((Refusal::new(StatusCode::NOT_FOUND, "not_found", "no such path"), surface)),
            },
        };
        if answered.is_err() {
            spare(&self.parts.headers, body);
        }
        answered.map(|mut response| {
            if self.parts.method != Method::GET && response.status() == StatusCode::METHOD_NOT_ALLOWED {
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            }
            response
        })
    }

    fn caller(&self) -> Result<Caller, Refusal> {
        let Some(ticket) = self.ticket else {
            let secret = keys::secret(&self.parts.headers);
            return self.tier.directory.read(|state| keys::authenticate(state, secret));
        };
        // A ticket is enough by itself, whatever else is in the headers.
        let ticket = ticket.map_err(Void::refusal)?;
        let known = self.tier.directory.read(|state| keys::known(state, ticket.key));
        let caller = known.unwrap_or_else(|| Err(Void::Forged.refusal()))?;
        if caller.account == ticket.account { Ok(caller) } else { Err(Void::Forged.refusal()) }
    }

    /// What the caller's own calls came to. A ticket is for one call, and opens none of this.
    async fn receipts(&self, path: &str) -> Result<Response<Out>, Refusal> {
        let secret = keys::secret(&self.parts.headers);
        let caller = self.tier.directory.read(|state| keys::authenticate(state, secret))?;
        let told = receipts::answer(&self.tier, caller, path, self.parts.uri.query()).await?;
        Ok(json_response(StatusCode::OK, &told))
    }

    /// Everybody may look at what is offered; a key that is sent must be a good one all the same.
    async fn models(&self) -> Result<Response<Out>, Refusal> {
        if keys::secret(&self.parts.headers).is_some() {
            self.caller()?;
        }
        let delivered = catalogue::delivered(&self.tier).await;
        let models: Vec<Value> = self.tier.directory.read(|state| {
            let listed = state.instruments.iter().filter(|one| is_offered(one));
            listed.map(|one| catalogue::model(state, one, &self.tier.roster, delivered.as_deref())).collect()
        });
        Ok(json_response(StatusCode::OK, &catalogue::list(&models)))
    }

    async fn instruments(&self) -> Response<Out> {
        let delivered = catalogue::delivered(&self.tier).await;
        let instruments: Vec<Value> = self.tier.directory.read(|state| {
            let all = state.instruments.iter();
            all.map(|one| catalogue::instrument(state, one, &self.tier.roster, delivered.as_deref()))
                .collect()
        });
        json_response(StatusCode::OK, &json!({"instruments": instruments}))
    }

    async fn model(&self, symbol: &str) -> Result<Response<Out>, Refusal> {
        if keys::secret(&self.parts.headers).is_some() {
            self.caller()?;
        }
        let delivered = catalogue::delivered(&self.tier).await;
        let found = self.tier.directory.read(|state| {
            let id = state.symbols.get(&symbol.to_ascii_lowercase())?;
            let instrument = state.instruments.get(usize::from(id.0))?;
            is_offered(instrument)
                .then(|| catalogue::model(state, instrument, &self.tier.roster, delivered.as_deref()))
        });
        found.map(|model| json_response(StatusCode::OK, &model)).ok_or_else(unknown_instrument)
    }

    /// Who calls, and that there is room for one more call.
    fn admit(&self, body: &Incoming) -> Result<(Caller, InFlight), Refusal> {
        self.caller().and_then(|caller| {
            let permit = self.tier.turnstile.enter(caller.key)?;
            let room = Arc::clone(&self.tier.calls).try_acquire_owned().map_err(|_| {
                Refusal::unavailable("busy", "too many calls in progress", Duration::from_secs(1))
            })?;
            let length = body.size_hint().lower();
            if length > self.tier.config.limits.body_bytes as u64 {
                return Err(too_large(self.tier.config.limits.body_bytes));
            }
            let stats = Arc::clone(&self.tier.stats);
            bump(&stats.in_flight);
            Ok((caller, InFlight { stats, _key: permit, _call: room }))
        })
    }

    /// The body of an admitted call.
    async fn admitted(&self, body: Incoming) -> Result<(Caller, InFlight, Bytes), Refusal> {
        match self.admit(&body) {
            Ok((caller, in_flight)) => Ok((caller, in_flight, self.body(body).await?)),
            Err(refusal) => {
                spare(&self.parts.headers, body);
                Err(refusal)
            }
        }
    }

    /// How long a prompt is, by our own count: no supplier is asked, and nothing is billed.
    async fn count(self, body: Incoming) -> Result<Response<Out>, Refusal> {
        let (_, _in_flight, body) = self.admitted(body).await?;
        let (chat, wishes) = dialect::messages::request::read(&body, For::Count)?;
        let symbol = wishes.model.to_ascii_lowercase();
        if self.tier.directory.read(|state| !state.symbols.contains_key(&symbol)) {
            return Err(unknown_instrument());
        }
        let counted = tokio::task::spawn_blocking(move || meter::prompt_tokens(&chat)).await;
        let tokens = counted.map_err(|_| {
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the tokens could not be counted")
        })?;
        Ok(json_response(StatusCode::OK, &json!({"input_tokens": tokens})))
    }

    /// A call in any dialect.
    async fn converse(self, body: Incoming, dialect: Dialect) -> Result<Response<Out>, Refusal> {
        let (caller, in_flight, body) = self.admitted(body).await?;
        let tier = self.tier;
        let sent_on = match self.ticket {
            Some(Ok(ticket)) => {
                tier.hops.take(&ticket, &body).map_err(Void::refusal)?;
                None
            }
            _ if dialect == Dialect::Chat => {
                let hop = tier.hops.pick(&self.parts.headers, self.number);
                hop.map(|hop| (hop.to_owned(), ticket::body_hash(&body)))
            }
            _ => None,
        };
        let (chat, teller) = dialect.read(body, self.number, tier.config.limits.answer_bytes)?;
        let known = tier.directory.read(|state| {
            let id = *state.symbols.get(&chat.symbol)?;
            let instrument = state.instruments.get(usize::from(id.0))?;
            let output = u64::from(instrument.spec.quality.output_floor);
            let mut offers = roster::offers(state, id);
            if tier.config.probing.required {
                offers.retain(|one| probe::runner::is_proven(state, one.supplier, id));
            }
            Some((id, output, offers))
        });
        let (instrument, output_floor, mut candidates) = known.ok_or_else(unknown_instrument)?;
        bump(&tier.stats.calls);
        if candidates.is_empty() {
            return Err(Refusal::unavailable(
                "no_supplier",
                "no supplier is on the roster of this instrument",
                Duration::from_secs(5),
            ));
        }
        let unable = tier
            .roster
            .able(&mut candidates, chat.needs)
            .map_err(|lacks| unsupported(&chat.symbol, lacks))?;
        tier.roster.ready(&candidates).map_err(|wait| {
            Refusal::unavailable("no_supplier", "every supplier of this instrument is failing or full", wait)
        })?;
        if let Some((node, body)) = sent_on {
            let empty = tier.directory.read(|state| has_nothing(state, caller.account, instrument));
            if empty {
                let message = "no tokens of this instrument in consumption";
                return Err(Refusal::new(StatusCode::PAYMENT_REQUIRED, "insufficient_tokens", message));
            }
            let ticket = Ticket {
                request: self.number,
                account: caller.account,
                key: caller.key,
                issued_ms: 0,
                expires_ms: 0,
                body,
            };
            if let Some(answer) = tier.hops.send(&node, ticket) {
                bump(&tier.stats.dispatched);
                return Ok(answer);
            }
        }
        let call = Call {
            name: self.name.to_owned(),
            request: self.number,
            account: caller.account,
            key: caller.id,
            surface: dialect.logged(),
            instrument,
            output_default: if output_floor > 0 { output_floor } else { tier.config.routing.output_tokens },
            candidates,
            unable,
            issuers: Vec::new(),
            chat,
            patience: patience::of_client(&self.parts.headers),
            trace: self.trace.clone(),
            _in_flight: in_flight,
        };
        let (head, mut answer) = oneshot::channel();
        // Up to its head the call runs here, and what comes after it in a task of its own; so does the orderly end of a
        // call whose client leaves.
        let mut call = Insist::on(call::run(tier, call, teller, head));
        let mut over = false;
        let answered = poll_fn(|cx| {
            over = over || Pin::new(&mut call).poll(cx).is_ready();
            Pin::new(&mut answer).poll(cx)
        });
        let mut response = answered.await.unwrap_or_else(|_| {
            Err(Refusal::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "the call ended by a fault of ours; nothing was billed",
            ))
        })?;
        if let Some(quota) = caller.quota {
            quota.after_one().tell(dialect.surface(), response.headers_mut());
        }
        Ok(response)
    }

    /// The body, within its size and time.
    async fn body(&self, mut body: Incoming) -> Result<Bytes, Refusal> {
        let limit = self.tier.config.limits.body_bytes;
        let mut all = BytesMut::new();
        let read = async {
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|_| {
                    Refusal::new(StatusCode::BAD_REQUEST, "incomplete_body", "the body ended early").closing()
                })?;
                if let Some(data) = frame.data_ref() {
                    if all.len() + data.len() > limit {
                        return Err(too_large(limit));
                    }
                    all.extend_from_slice(data);
                }
            }
            Ok(())
        };
        match timeout(self.tier.config.clocks.body_read, read).await {
            Ok(Ok(())) => Ok(all.freeze()),
            Ok(Err(refusal)) => {
                spare(&self.parts.headers, body);
                Err(refusal)
            }
            Err(_) => {
                let message = "the body took too long to arrive";
                Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message).closing())
            }
        }
    }
}

/// Whether a call could not be paid whatever it asks for: what the node would say that it is sent to.
fn has_nothing(state: &State, account: AccountId, instrument: InstrumentId) -> bool {
    let buys = state.account(account).is_some_and(|account| account.mode == AccountMode::Easy);
    !buys && state.holding(account, instrument).is_none_or(|holding| holding.free_tokens().0 == 0)
}

fn method(allowed: &str) -> Refusal {
    let message = format!("this path takes {allowed}");
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

fn too_large(limit: usize) -> Refusal {
    let message = format!("the body is larger than {limit} bytes");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message).closing()
}

fn unknown_instrument() -> Refusal {
    Refusal {
        param: Some("model"),
        ..Refusal::new(
            StatusCode::NOT_FOUND,
            "model_not_found",
            "unknown instrument: `model` takes an instrument's symbol, see /v1/models",
        )
    }
}

/// Reads on for a moment after a refusal, because a socket that is closed with unread bytes loses the answer too.
/// A client that waits for `100 Continue` has sent nothing yet.
fn spare(headers: &HeaderMap, mut body: Incoming) {
    if body.is_end_stream() || headers.contains_key(EXPECT) {
        return;
    }
    tokio::spawn(async move {
        let read = async {
            let mut seen = 0;
            while let Some(Ok(frame)) = body.frame().await {
                seen += frame.data_ref().map_or(0, Bytes::len);
                if seen > SPARED_BYTES {
                    return;
                }
            }
        };
        let _ = timeout(SPARED_TIME, read).await;
    });
}

/// 400 for a request that nobody on the roster can honour.
fn unsupported(symbol: &str, lacks: Needs) -> Refusal {
    let words: Vec<&str> = lacks.iter().map(Need::word).collect();
    let message = format!("no supplier of {symbol} can honour this just now: {}", words.join(", "));
    Refusal {
        param: lacks.iter().next().map(Need::field),
        ..Refusal::new(StatusCode::BAD_REQUEST, "unsupported_parameter", message)
    }
}
