//! The server: one thread, two listeners (the API and its control), and the routes.

use std::collections::HashSet;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::answer::{self, Plan};
use crate::faults::Faults;
use crate::messages;
use crate::stats::{Books, OpenCall, Outcome};
use crate::stream::{Envelope, Pace, Speaks, SseBody, WholeBody, usage};
use crate::words::Draw;
use crate::{RunningSupplier, SupplierConfig};

/// Prompts whose prefix is remembered.
const PROMPTS_KEPT: usize = 10_000;
/// A fatal alert: the handshake failed.
const TLS_ALERT: [u8; 7] = [21, 3, 1, 0, 2, 2, 40];
/// Requests above this are answered 413.
const BODY_BYTES_MAX: usize = 64 << 20;

type Reply = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// What the server's thread and the handle outside share.
#[derive(Debug)]
pub(crate) struct Shared {
    config: SupplierConfig,
    pub(crate) books: Books,
    faults: watch::Sender<Faults>,
    requests: AtomicU64,
    /// Cache keys of prompts that were answered here.
    prompts: Mutex<HashSet<String>>,
    listening: Mutex<bool>,
    listening_changed: Condvar,
}

impl Shared {
    /// Replaces the faults and returns once the listener has followed (at the latest after five seconds).
    pub(crate) fn set_faults(&self, faults: Faults) {
        let want = !faults.refuse;
        self.faults.send_replace(faults);
        let listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        let follow =
            self.listening_changed.wait_timeout_while(listening, Duration::from_secs(5), |now| *now != want);
        drop(follow);
    }

    /// Whether a prompt with this key came before; it is remembered.
    fn knows(&self, key: Option<&String>) -> bool {
        let Some(key) = key else { return false };
        let mut prompts = self.prompts.lock().unwrap_or_else(PoisonError::into_inner);
        if prompts.len() >= PROMPTS_KEPT {
            prompts.clear();
        }
        !prompts.insert(key.clone())
    }

    fn set_listening(&self, now: bool) {
        *self.listening.lock().unwrap_or_else(PoisonError::into_inner) = now;
        self.listening_changed.notify_all();
    }

    /// The faults of the next chat request; where they were set for a number of requests, one is used up.
    fn take_faults(&self) -> (u64, Faults) {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let mut draw = Draw::new(&[self.config.seed, number]);
        let draw = [draw.unit(), draw.unit(), draw.unit()];
        let mut taken = Faults::default();
        self.faults.send_if_modified(|faults| {
            taken = faults.decide(draw);
            match &mut faults.next_requests {
                Some(left) => {
                    *left = left.saturating_sub(1);
                    if *left == 0 {
                        *faults = Faults::default();
                    }
                    true
                }
                None => false,
            }
        });
        (number, taken)
    }
}

pub(crate) fn start(config: SupplierConfig) -> io::Result<RunningSupplier> {
    let (api, control) = (StdListener::bind(config.addr)?, StdListener::bind(config.control_addr)?);
    let (addr, control_addr) = (api.local_addr()?, control.local_addr()?);
    let (faults, _) = watch::channel(config.faults.clone());
    let name = config.name.clone();
    let shared = Arc::new(Shared {
        config,
        books: Books::default(),
        faults,
        requests: AtomicU64::new(0),
        prompts: Mutex::default(),
        listening: Mutex::new(true),
        listening_changed: Condvar::new(),
    });
    let (stop, stopped) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let inside = Arc::clone(&shared);
    let thread = std::thread::Builder::new().name(format!("supplier-{name}")).spawn(move || {
        let served = runtime.block_on(async move {
            tokio::select! {
                result = serve_api(Arc::clone(&inside), api, addr) => result,
                result = serve_control(inside, control) => result,
                _ = stopped => Ok(()),
            }
        });
        if let Err(error) = served {
            tracing::error!(%error, "simulated supplier stopped");
        }
    })?;
    Ok(RunningSupplier {
        name,
        url: format!("http://{addr}/v1"),
        control_url: format!("http://{control_addr}/control"),
        shared,
        stop: Some(stop),
        thread: Some(thread),
    })
}

fn adopt(listener: StdListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Accepts while the supplier does not refuse; to refuse is to have no listener at all.
async fn serve_api(shared: Arc<Shared>, first: StdListener, addr: SocketAddr) -> io::Result<()> {
    let mut faults = shared.faults.subscribe();
    let mut listener = Some(adopt(first)?);
    loop {
        if faults.borrow_and_update().refuse {
            listener = None;
            shared.set_listening(false);
            if faults.wait_for(|f| !f.refuse).await.is_err() {
                return Ok(());
            }
        }
        let open = match listener.take() {
            Some(open) => open,
            None => TcpListener::bind(addr).await?,
        };
        shared.set_listening(true);
        tokio::select! {
            accepted = open.accept() => match accepted {
                Ok((socket, _)) => serve_connection(Arc::clone(&shared), socket, false),
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            },
            _ = faults.changed() => {}
        }
        listener = Some(open);
    }
}

async fn serve_control(shared: Arc<Shared>, listener: StdListener) -> io::Result<()> {
    let listener = adopt(listener)?;
    loop {
        let (socket, _) = listener.accept().await?;
        serve_connection(Arc::clone(&shared), socket, true);
    }
}

fn serve_connection(shared: Arc<Shared>, socket: tokio::net::TcpStream, control: bool) {
    let _ = socket.set_nodelay(true);
    let broken = !control && shared.faults.borrow().tls_alert;
    tokio::spawn(async move {
        if broken {
            let mut socket = socket;
            let _ = socket.read(&mut [0; 1024]).await;
            let _ = socket.write_all(&TLS_ALERT).await;
            return;
        }
        let service = service_fn(move |request| {
            let shared = Arc::clone(&shared);
            async move {
                if control {
                    Ok(control_route(&shared, request).await)
                } else {
                    api_route(shared, request).await
                }
            }
        });
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(socket), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "connection ended");
        }
    });
}

async fn control_route(shared: &Shared, request: Request<Incoming>) -> Reply {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/control") => json_reply(200, &json!(*shared.faults.borrow())),
        (&Method::GET, "/stats") => json_reply(200, &json!(shared.books.stats())),
        (&Method::GET, "/calls") => json_reply(200, &json!(shared.books.calls())),
        (&Method::POST, "/control") => {
            let Ok(body) = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await else {
                return error_reply(400, "the body could not be read", None);
            };
            match serde_json::from_slice::<Faults>(&body.to_bytes()) {
                Ok(faults) => {
                    shared.faults.send_replace(faults.clone());
                    while *shared.listening.lock().unwrap_or_else(PoisonError::into_inner) == faults.refuse {
                        tokio::task::yield_now().await;
                    }
                    json_reply(200, &json!(faults))
                }
                Err(error) => error_reply(400, &error.to_string(), None),
            }
        }
        _ => error_reply(404, "the control address has /control, /stats and /calls", None),
    }
}

async fn api_route(shared: Arc<Shared>, request: Request<Incoming>) -> io::Result<Reply> {
    if shared.faults.borrow().refuse {
        return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "the simulated supplier refuses"));
    }
    let path = request.uri().path().to_owned();
    if path == "/health" {
        return Ok(json_reply(200, &json!({"status": "ok", "simulated": true})));
    }
    if !authorized(&shared.config, &request) {
        return Ok(error_reply(401, "this supplier wants its own key", None));
    }
    let models = &shared.config.models;
    let model =
        |id: &String| json!({"id": id, "object": "model", "created": 0, "owned_by": shared.config.name});
    match (request.method(), path.as_str()) {
        (&Method::POST, "/v1/chat/completions") => chat(shared, request, Speaks::Chat).await,
        (&Method::POST, "/v1/messages") => chat(shared, request, Speaks::Messages).await,
        (&Method::GET, "/v1/models") => {
            let data: Vec<Value> = models.iter().map(model).collect();
            Ok(json_reply(200, &json!({"object": "list", "data": data})))
        }
        (&Method::GET, path) => {
            let known = path.strip_prefix("/v1/models/").and_then(|id| models.iter().find(|m| *m == id));
            Ok(known.map_or_else(
                || error_reply(404, "no such path or model", None),
                |id| json_reply(200, &model(id)),
            ))
        }
        _ => Ok(error_reply(404, "no such path", None)),
    }
}

fn authorized(config: &SupplierConfig, request: &Request<Incoming>) -> bool {
    let Some(key) = &config.api_key else { return true };
    let given = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok());
    let bearer = given(AUTHORIZATION.as_str()).and_then(|v| v.strip_prefix("Bearer "));
    bearer.or_else(|| given("x-api-key")) == Some(key)
}

async fn chat(shared: Arc<Shared>, request: Request<Incoming>, speaks: Speaks) -> io::Result<Reply> {
    let start = Instant::now();
    let named = request.headers().get("x-request-id").and_then(|name| name.to_str().ok()).map(str::to_owned);
    let Ok(body) = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await else {
        return Ok(error_reply(413, "the body is too large or broke off", None));
    };
    let Ok(request) = serde_json::from_slice::<Value>(&body.to_bytes()) else {
        return Ok(error_reply(400, "the body is not JSON", None));
    };
    let lapses = shared.faults.borrow().lapses.clone();
    let understood = match speaks {
        Speaks::Chat => Ok(request),
        Speaks::Messages => messages::read(&request),
    };
    let planned = understood.and_then(|request| {
        answer::plan(&shared.config.name, shared.config.seed, &request, &lapses).map(|plan| (plan, request))
    });
    let (plan, request) = match planned {
        Ok(planned) => planned,
        Err(_) if lapses.bad_request_status.is_some() => {
            return Ok(error_reply(lapses.bad_request_status.unwrap_or(500), "simulated failure", None));
        }
        Err((text, field)) => return Ok(error_reply(400, &text, field)),
    };
    if !shared.config.models.contains(&plan.model) {
        return Ok(error_reply(404, &format!("the model {} does not exist here", plan.model), Some("model")));
    }
    let (number, faults) = shared.take_faults();
    let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let id = format!("chatcmpl-sim-{}-{number}", shared.config.name.replace(' ', "-"));
    let ids = (id.clone(), named);
    let mut call = OpenCall::begin(Arc::clone(&shared), ids, plan.model.clone(), plan.prompt_tokens);
    if faults.stall_before_headers_ms > 0 {
        tokio::time::sleep(Duration::from_millis(faults.stall_before_headers_ms)).await;
    }
    if let Some(status) = faults.status {
        call.close(Outcome::Refused);
        return Ok(with_headers(failure(status, &faults), &faults));
    }
    if let Some(field) = answer::beyond(&faults.unable, &request) {
        call.close(Outcome::Refused);
        return Ok(with_headers(unsupported(field), &faults));
    }
    let cached = shared.knows(plan.cache_key.as_ref());
    let pace = Pace {
        start,
        ttft: lapses.ttft_ms.map_or(shared.config.ttft, Duration::from_millis),
        tokens_per_second: lapses.tokens_per_second.unwrap_or(shared.config.tokens_per_second),
    };
    let envelope = Envelope { id, created, model: plan.model.clone(), speaks };
    if faults.invalid_json {
        call.close(Outcome::Refused);
        return Ok(garbage(plan.stream));
    }
    if plan.stream {
        let body = SseBody::new(envelope, plan, faults.clone(), pace, call, cached);
        return Ok(with_headers(reply(200, "text/event-stream", body.boxed_unsync()), &faults));
    }
    let answer = whole(envelope, plan, &faults, pace, call, cached).await?;
    Ok(with_headers(answer, &faults))
}

/// The answer that is not streamed: ready only when its last token is.
async fn whole(
    env: Envelope,
    plan: Plan,
    faults: &Faults,
    pace: Pace,
    call: OpenCall,
    cached: bool,
) -> io::Result<Reply> {
    let tokens = plan.completion_tokens();
    let longest = plan.choices.iter().map(|c| c.pieces.len() as u64).max().unwrap_or(0);
    tokio::time::sleep_until(pace.due(longest)).await;
    if faults.stall_after_tokens.is_some() {
        tokio::time::sleep(Duration::from_millis(faults.stall_ms)).await;
    }
    let choices: Vec<Value> = (plan.choices.iter().enumerate())
        .map(|(index, choice)| {
            json!({"index": index, "message": choice.message(),
                "logprobs": plan.logprobs.map(|top| choice.logprobs(top)),
                "finish_reason": choice.finish_reason})
        })
        .collect();
    let mut answer = json!({"id": env.id, "object": "chat.completion", "created": env.created, "model": env.model,
        "system_fingerprint": null, "choices": choices});
    if let Some(tier) = &plan.service_tier {
        answer["service_tier"] = json!(tier);
    }
    let counts = (!faults.omit_usage).then(|| usage(&plan, faults, cached));
    if env.speaks == Speaks::Messages {
        answer = messages::whole(&env, &plan, counts);
    } else if let Some(counts) = counts {
        answer["usage"] = counts;
    }
    let bytes = Bytes::from(answer.to_string());
    Ok(reply(200, "application/json", WholeBody::new(bytes, tokens, faults, call).boxed_unsync()))
}

/// The answer with the headers, and the content type, that the faults ask for.
fn with_headers(mut reply: Reply, faults: &Faults) -> Reply {
    let kind = faults.content_type.as_ref().map(|kind| ("content-type", kind));
    for (name, value) in faults.headers.iter().map(|(name, value)| (name.as_str(), value)).chain(kind) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            reply.headers_mut().insert(name, value);
        }
    }
    reply
}

fn failure(status: u16, faults: &Faults) -> Reply {
    let mut reply = error_reply(status, "simulated failure", None);
    if let Some(seconds) = faults.retry_after_s {
        reply.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    reply
}

fn unsupported(field: &str) -> Reply {
    let message = format!("{field} is not supported by this model");
    json_reply(
        400,
        &json!({"error": {"message": message, "type": "invalid_request_error", "param": field,
            "code": "unsupported_parameter"}}),
    )
}

fn garbage(stream: bool) -> Reply {
    let (kind, text) = match stream {
        true => ("text/event-stream", "data: {\"id\": \"chatcmpl-sim\", \"choices\": [{\n\ndata: <html>\n\n"),
        false => ("application/json", "{\"id\": \"chatcmpl-sim\", \"choices\": [{"),
    };
    reply(200, kind, full(text.to_owned()))
}

fn full(text: String) -> UnsyncBoxBody<Bytes, io::Error> {
    Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync()
}

fn reply(status: u16, kind: &'static str, body: UnsyncBoxBody<Bytes, io::Error>) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    reply
}

fn json_reply(status: u16, value: &Value) -> Reply {
    reply(status, "application/json", full(value.to_string()))
}

fn error_reply(status: u16, text: &str, field: Option<&str>) -> Reply {
    let kind = match status {
        401 => "authentication_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    };
    let code = match status {
        401 => "invalid_api_key",
        404 => "model_not_found",
        429 => "rate_limit_exceeded",
        400..=499 => "invalid_request",
        _ => "simulated_fault",
    };
    json_reply(
        status,
        &json!({"type": "error", "error": {"message": text, "type": kind, "param": field, "code": code}}),
    )
}
