//! One attempt at one supplier, up to its first content.
//!
//! Nothing that a supplier sends before its first content reaches the client, so until then any failure can be
//! repaired elsewhere. What each answer means:
//!
//! | the supplier | means |
//! |---|---|
//! | can't be connected to, closes, takes too long | failed: try another |
//! | 200 with content | the one that delivers |
//! | 200 and then an error event, another content type, no JSON, nothing | failed: try another |
//! | 429, 503 with `Retry-After` | busy: leave it alone that long, try another |
//! | 400, 422 that say a field is not supported | unable: another model may be able |
//! | other 400, 413, 422 | the request is at fault: its answer goes to the client |
//! | anything else (401, 402, 404 are our contract with it, not the client's) | failed: try another |
//!
//! A supplier whose base URL ends in `/messages` speaks Anthropic Messages there. Its answers are chat chunks by the
//! time anybody else sees them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT,
};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::time::{Instant, timeout, timeout_at};

use crate::answer;
use crate::config::{Clocks, Limits};
use crate::connect::Counting;
use crate::dialect::supplier::{self, Listener};
use crate::patience::{self, Allowance};
use crate::pool::{Answer, NoAnswer, Pool};
use crate::sse::{Event, Splitter};
use crate::stats::Stats;

/// Events that a supplier may send before its first content.
const LIFECYCLE_EVENTS: usize = 64;
/// Of a supplier's error, so much is read, in bytes.
const ERROR_BYTES: usize = 64 << 10;

/// Connections to all suppliers.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    pool: Arc<Pool>,
    clocks: Clocks,
    answer_bytes: usize,
    event_bytes: usize,
}

/// The version of Messages that suppliers are asked in.
const MESSAGES_VERSION: HeaderValue = HeaderValue::from_static("2023-06-01");

/// What a supplier speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// OpenAI chat completions.
    Chat,
    /// Anthropic Messages.
    Messages,
}

impl Speaks {
    /// What is spoken at this address.
    pub(crate) fn at(base_url: &str) -> Self {
        if base_url.trim_end_matches('/').ends_with("/messages") { Self::Messages } else { Self::Chat }
    }
}

/// What to send, and where.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    pub(crate) base_url: &'a str,
    pub(crate) credential: &'a [u8],
    pub(crate) body: Bytes,
    pub(crate) stream: bool,
    /// What the client's own limit lets one choice have, in tokens; 0 where it names none.
    pub(crate) output_limit: u64,
    pub(crate) request: &'a str,
    /// It may take so long to the first content of a stream.
    pub(crate) first_content: Duration,
    /// The attempt must be over, or its stream begun, by then.
    pub(crate) until: Instant,
}

/// A supplier that has begun to deliver.
#[derive(Debug)]
pub(crate) enum Opened {
    /// The events up to and with the first content, and the rest to come.
    Stream { held: Vec<Event>, rest: Events },
    /// A whole answer.
    Whole(Bytes),
}

/// Why an attempt delivered nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The supplier's fault or the network's: another one may do better.
    Failed(Fault, &'static str),
    /// It has too much to do, for so long if it says so.
    Busy(Option<Duration>),
    /// The client's fault.
    Refused { status: StatusCode, message: String, param: Option<String> },
    /// It can't do what this field asks for; another model may.
    Unable { param: String, message: String },
}

/// What kind of failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It answered with an error of its own.
    Refused,
    /// It does not know our credential, or the model that it offers.
    Unwilling,
    /// Nothing came within the time that is waited for the first content.
    Slow,
    /// It fell silent in the middle of an answer.
    Stalled,
    /// The connection ended in the middle of an answer.
    Cut,
    /// What came is not what the protocol says.
    Malformed,
    /// No connection could be made.
    Unreachable,
}

impl From<Fault> for grid_engine::sla::Fault {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Refused | Fault::Unwilling => Self::Refused,
            Fault::Slow => Self::Slow,
            Fault::Stalled => Self::Stalled,
            Fault::Cut => Self::Cut,
            Fault::Malformed => Self::Malformed,
            Fault::Unreachable => Self::Unreachable,
        }
    }
}

impl Fault {
    /// Whether the same supplier may do better a moment later. Whoever was too slow has had the call's time already, and
    /// what is malformed stays so.
    pub(crate) fn may_pass(self) -> bool {
        matches!(self, Self::Refused | Self::Cut | Self::Unreachable)
    }
}

impl Upstream {
    pub(crate) fn new(clocks: Clocks, limits: &Limits, stats: Arc<Stats>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(clocks.connect));
        connector.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_webpki_roots()
            .https_or_http()
            .enable_http1()
            .wrap_connector(Counting::new(connector, stats));
        Self {
            pool: Pool::new(connector),
            clocks,
            answer_bytes: limits.answer_bytes,
            event_bytes: limits.event_bytes,
        }
    }

    /// Sends the request and waits for the first content. Dropping the future cancels the request at the supplier.
    /// Beside it: what the supplier says is left of its own limit.
    pub(crate) async fn open(&self, order: Order<'_>) -> Result<(Opened, Option<Allowance>), Failure> {
        let clock = if order.stream {
            order.first_content
        } else {
            self.clocks.whole_answer
                + Duration::from_secs(order.output_limit / crate::config::SLOWEST_TOKENS_PER_SECOND)
        };
        let until = order.until.min(Instant::now() + clock);
        let (stream, speaks) = (order.stream, Speaks::at(order.base_url));
        let attempt = async {
            let response =
                self.pool.request(order.base_url, request(&order)?).await.map_err(|why| match why {
                    NoAnswer::Connect => Failure::Failed(Fault::Unreachable, "connect"),
                    NoAnswer::Transport => Failure::Failed(Fault::Cut, "transport"),
                })?;
            let response = self.accepted(response).await?;
            let allowance = patience::allowance(response.headers());
            let opened = if stream {
                self.first_content(response, speaks).await
            } else {
                self.whole(response, speaks).await
            };
            Ok((opened?, allowance))
        };
        let late = if stream { "no content in time" } else { "no answer in time" };
        timeout_at(until, attempt).await.unwrap_or(Err(Failure::Failed(Fault::Slow, late)))
    }

    /// Whether a GET at this URL is answered with a 200 in time.
    pub(crate) async fn answers(&self, url: &str, patience: Duration) -> bool {
        let Ok(uri) = url.parse::<Uri>() else {
            return false;
        };
        let mut request = Request::new(Full::default());
        *request.uri_mut() = uri;
        let answered = timeout(patience, self.pool.request(url, request)).await;
        matches!(answered, Ok(Ok(answer)) if answer.status() == StatusCode::OK)
    }

    async fn accepted(&self, response: Response<Answer>) -> Result<Response<Answer>, Failure> {
        let status = response.status();
        let after = patience::asked(response.headers());
        match status.as_u16() {
            200 => Ok(response),
            400 | 413 | 422 => Err(self.refused(status, response).await),
            429 => Err(Failure::Busy(after)),
            503 if after.is_some() => Err(Failure::Busy(after)),
            300..=399 => Err(Failure::Failed(Fault::Malformed, "redirect")),
            401..=403 => Err(Failure::Failed(Fault::Unwilling, "credential refused")),
            404 => Err(Failure::Failed(Fault::Unwilling, "model unknown there")),
            _ => Err(Failure::Failed(Fault::Refused, "status")),
        }
    }

    /// What the supplier finds wrong with the request; it goes to the client and nowhere else.
    async fn refused(&self, status: StatusCode, response: Response<Answer>) -> Failure {
        let read = collect(response.into_body(), ERROR_BYTES);
        let body = timeout(self.clocks.idle, read).await;
        let body = body.ok().and_then(Result::ok).unwrap_or_default();
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let message = ["/error/message", "/errors/detail", "/message", "/detail", "/error"]
            .iter()
            .find_map(|path| value.pointer(path)?.as_str());
        let message = message.unwrap_or(crate::anonymous::REFUSED).to_owned();
        let code = value.pointer("/error/code").and_then(serde_json::Value::as_str).unwrap_or_default();
        let unable = code.starts_with("unsupported") || message.to_ascii_lowercase().contains("not support");
        let param = value.pointer("/error/param").and_then(serde_json::Value::as_str).map(str::to_owned);
        match param {
            Some(param) if unable => Failure::Unable { param, message },
            param => Failure::Refused { status, message, param },
        }
    }

    async fn first_content(&self, response: Response<Answer>, speaks: Speaks) -> Result<Opened, Failure> {
        if !is_type(&response, "text/event-stream") || is_encoded(&response) {
            return Err(Failure::Failed(Fault::Malformed, "not an event stream"));
        }
        let mut rest = Events {
            body: response.into_body(),
            splitter: Splitter::new(self.event_bytes),
            ended: false,
            listener: (speaks == Speaks::Messages).then(|| Box::new(Listener::new(now()))),
            heard: VecDeque::new(),
        };
        let mut held = Vec::new();
        while let Some(event) = rest.next().await? {
            let Some(data) = event.data.clone() else {
                continue;
            };
            if data.as_ref() == b"[DONE]" {
                break;
            }
            let said = answer::read(&data).map_err(|_| Failure::Failed(Fault::Malformed, "not JSON"))?;
            if said.error.is_some() {
                return Err(Failure::Failed(Fault::Refused, "error event"));
            }
            held.push(event);
            if said.is_content() {
                return Ok(Opened::Stream { held, rest });
            }
            if held.len() >= LIFECYCLE_EVENTS {
                return Err(Failure::Failed(Fault::Malformed, "too many events without content"));
            }
        }
        Err(Failure::Failed(Fault::Cut, "ended without content"))
    }

    async fn whole(&self, response: Response<Answer>, speaks: Speaks) -> Result<Opened, Failure> {
        if !is_type(&response, "application/json") || is_encoded(&response) {
            return Err(Failure::Failed(Fault::Malformed, "not JSON"));
        }
        let mut body = collect(response.into_body(), self.answer_bytes).await?;
        if speaks == Speaks::Messages {
            body =
                supplier::whole(&body, now()).map_err(|_| Failure::Failed(Fault::Malformed, "no message"))?;
        }
        let said = answer::read(&body).map_err(|_| Failure::Failed(Fault::Malformed, "not JSON"))?;
        if said.error.is_some() || !said.choices {
            return Err(Failure::Failed(Fault::Malformed, "no choices"));
        }
        Ok(Opened::Whole(body))
    }
}

/// The request is built from nothing: none of the client's headers go to a supplier, its key least of all.
fn request(order: &Order<'_>) -> Result<Request<Full<Bytes>>, Failure> {
    let speaks = Speaks::at(order.base_url);
    let base = order.base_url.trim_end_matches('/');
    let url = match speaks {
        Speaks::Chat => format!("{base}/chat/completions"),
        Speaks::Messages => base.to_owned(),
    };
    let uri: Uri = url.parse().map_err(|_| Failure::Failed(Fault::Unreachable, "base URL"))?;
    let accept = if order.stream { "text/event-stream" } else { "application/json" };
    let mut request = Request::new(Full::new(order.body.clone()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static(accept));
    headers.insert(USER_AGENT, HeaderValue::from_static("grid/1"));
    if let Ok(value) = HeaderValue::from_str(order.request) {
        headers.insert("x-request-id", value);
    }
    if speaks == Speaks::Messages {
        headers.insert("anthropic-version", MESSAGES_VERSION);
    }
    if !order.credential.is_empty() {
        let (name, prefix) = match speaks {
            Speaks::Chat => (AUTHORIZATION, b"Bearer ".as_slice()),
            Speaks::Messages => (HeaderName::from_static("x-api-key"), b"".as_slice()),
        };
        let value = [prefix, order.credential].concat();
        let mut value =
            HeaderValue::from_bytes(&value).map_err(|_| Failure::Failed(Fault::Refused, "credential"))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(request)
}

fn is_type<B>(response: &Response<B>, wanted: &str) -> bool {
    let given = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    given.is_some_and(|given| {
        let kind = given.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case(wanted)
    })
}

/// We ask for no compression, so an encoded answer is one that we can't meter.
fn is_encoded<B>(response: &Response<B>) -> bool {
    let encoding = response.headers().get(CONTENT_ENCODING);
    encoding.is_some_and(|value| value.as_bytes() != b"identity")
}

async fn collect(mut body: Answer, limit: usize) -> Result<Bytes, Failure> {
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Failure::Failed(Fault::Cut, "transport"))?;
        if let Some(data) = frame.data_ref() {
            if all.len() + data.len() > limit {
                return Err(Failure::Failed(Fault::Malformed, "answer too large"));
            }
            all.extend_from_slice(data);
        }
    }
    Ok(all.freeze())
}

/// The events of a stream as they come.
#[derive(Debug)]
pub(crate) struct Events {
    body: Answer,
    splitter: Splitter,
    ended: bool,
    /// Turns events into chunks, where the supplier sends none.
    listener: Option<Box<Listener>>,
    /// Chunks that it made of the last event.
    heard: VecDeque<Event>,
}

impl Events {
    /// The next event; `None` at the end. May be dropped and called again: nothing is lost.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, Failure> {
        loop {
            if let Some(chunk) = self.heard.pop_front() {
                return Ok(Some(chunk));
            }
            if let Some(event) =
                self.splitter.next().map_err(|_| Failure::Failed(Fault::Malformed, "event too long"))?
            {
                match self.listen(event)? {
                    Some(event) => return Ok(Some(event)),
                    None => continue,
                }
            }
            if self.ended {
                return Ok(None);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.splitter.push(data);
                    }
                }
                Some(Err(_)) => return Err(Failure::Failed(Fault::Cut, "transport")),
                None => {
                    self.ended = true;
                    if let Some(event) = self.splitter.finish()
                        && let Some(event) = self.listen(event)?
                    {
                        return Ok(Some(event));
                    }
                }
            }
        }
    }

    /// The event itself where it is a chunk already; else its chunks come out of `heard`.
    fn listen(&mut self, event: Event) -> Result<Option<Event>, Failure> {
        let Some(listener) = &mut self.listener else {
            return Ok(Some(event));
        };
        let Some(data) = &event.data else {
            return Ok(Some(event));
        };
        let chunks = listener.hear(data).map_err(|_| Failure::Failed(Fault::Malformed, "not JSON"))?;
        self.heard.extend(chunks.into_iter().map(|data| {
            let raw = [b"data: ".as_slice(), &data, b"\n\n"].concat();
            Event { raw: Bytes::from(raw), data: Some(data) }
        }));
        Ok(None)
    }
}

/// Unix seconds, for answers that don't say when they began.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
