//! What every handler shares, and the three things each does: prove who asks, submit, read what was written.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use bytes::{Bytes, BytesMut};
use grid_engine::command::{AccountMode, Command};
use grid_engine::state::Instrument;
use grid_engine::{AccountId, Fingerprint, InstrumentId, Nanos, Reject, Seq};
use http_body_util::BodyExt;
use parking_lot::Mutex;

use crate::answer::ApiError;
use crate::auth::Claim;
use crate::config::Limits;
use crate::door::{Answer, Door, DoorError, Outcome, View};
use crate::history::{History, HistoryError};
use crate::query::Query;
use crate::throttle::{Throttle, Verdict};
use crate::time;

/// The path as the client sent it, before its generation was taken off; the signature is over this one.
#[derive(Clone, Debug)]
pub(crate) struct RequestedPath(pub(crate) String);

/// Shared by all handlers of all listeners.
#[derive(Clone)]
pub struct App {
    inner: Arc<Inner>,
    metrics: Option<MetricsText>,
}

/// Makes the text that a Prometheus server reads. Called from the tier's runtime for each request: it must not wait.
pub type MetricsText = Arc<dyn Fn() -> String + Send + Sync>;

struct Inner {
    door: Arc<dyn Door>,
    view: Arc<dyn View>,
    history: History,
    limits: Limits,
    throttle: Throttle,
    /// The last command answered to each account, so that a read that follows finds it.
    marks: Mutex<HashMap<AccountId, Seq>>,
    /// When each key was last used, since this tier started.
    used: Mutex<HashMap<Fingerprint, Nanos>>,
}

impl App {
    /// Puts the tier together.
    #[must_use]
    pub fn new(door: Arc<dyn Door>, view: Arc<dyn View>, history: History, limits: Limits) -> Self {
        let throttle = Throttle::new(limits.requests_per_second, limits.burst);
        let inner =
            Inner { door, view, history, limits, throttle, marks: Mutex::default(), used: Mutex::default() };
        Self { inner: Arc::new(inner), metrics: None }
    }

    /// The same tier, which also answers `GET /metrics`. Anyone who reaches the listener reads it, so give it to one that operators
    /// reach, not the public.
    #[must_use]
    pub fn with_metrics(mut self, text: MetricsText) -> Self {
        self.metrics = Some(text);
        self
    }

    pub(crate) fn metrics(&self) -> Option<MetricsText> {
        self.metrics.clone()
    }

    pub(crate) fn view(&self) -> &dyn View {
        &*self.inner.view
    }

    pub(crate) fn history(&self) -> &History {
        &self.inner.history
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    pub(crate) fn key_used_at(&self, key: &Fingerprint) -> Option<Nanos> {
        self.inner.used.lock().get(key).copied()
    }

    /// Sends a command and waits until both the replica and the history have passed it, so that whatever this
    /// client reads next, here or on another connection, knows of it. Rejects are errors.
    pub(crate) async fn submit(&self, account: AccountId, command: Command) -> Result<Answer, ApiError> {
        let answer = self.submit_raw(account, command).await?;
        match answer.outcome {
            Outcome::Rejected { reject, .. } => Err(ApiError::rejected(reject)),
            _ => Ok(answer),
        }
    }

    /// The same, with rejects as answers.
    ///
    /// What was answered stays answered: where the reads are slow to catch up, the next read waits for them, and not
    /// knowing the outcome is a 500, which clients do not repeat by themselves, never a 503, which they do.
    pub(crate) async fn submit_raw(&self, account: AccountId, command: Command) -> Result<Answer, ApiError> {
        let pending = self.inner.door.submit(account, command);
        let answer = match tokio::time::timeout(self.inner.limits.answer_timeout, pending).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error @ DoorError::Busy { .. })) => return Err(ApiError::unavailable(error.to_string())),
            Ok(Err(error @ DoorError::Unreachable { .. })) => {
                return Err(unknown_outcome(&error.to_string()));
            }
            Err(_) => return Err(unknown_outcome("the venue did not answer in time")),
        };
        {
            let mut marks = self.inner.marks.lock();
            let mark = marks.entry(account).or_default();
            *mark = (*mark).max(answer.seq);
        }
        if let Err(error) = self.caught_up(account).await {
            tracing::warn!(seq = answer.seq.0, reason = %error.message, "a command was answered before reads know of it");
        }
        Ok(answer)
    }

    /// 403 in Auto Mode: placing, changing and cancelling orders is the venue's there (contract §3, rule 23).
    pub(crate) fn may_trade(&self, account: AccountId) -> Result<(), ApiError> {
        let mode = self
            .view()
            .look(|engine| engine.state().accounts.get(account.0 as usize).map(|found| found.mode));
        match mode {
            Some(AccountMode::Easy) => Err(ApiError::rejected(Reject::AutoModeTradingRestricted)),
            _ => Ok(()),
        }
    }

    /// Waits until reads show everything that was answered to this account, here or by another tier of this node.
    pub(crate) async fn caught_up(&self, account: AccountId) -> Result<(), ApiError> {
        let promised = self.inner.view.promised(account);
        let promised = tokio::time::timeout(self.inner.limits.promise_timeout, promised).await;
        let answered = self.inner.marks.lock().get(&account).copied();
        let mark = answered.unwrap_or_default().max(promised.unwrap_or_default());
        if mark == Seq::default() {
            return Ok(());
        }
        let both = async {
            self.inner.view.wait_for(mark).await;
            self.inner.history.wait_for(mark).await
        };
        match tokio::time::timeout(self.inner.limits.catch_up_timeout, both).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(ApiError::fault(error)),
            Err(_) => Err(ApiError::unavailable("reads have not caught up with your last command")),
        }
    }

    /// Looks at an instrument, or 404.
    pub(crate) fn instrument<R>(
        &self,
        id: Option<InstrumentId>,
        code: &'static str,
        look: impl FnOnce(&Instrument) -> R,
    ) -> Result<R, ApiError> {
        let found = id.and_then(|id| {
            self.view().look(|engine| engine.state().instruments.get(usize::from(id.0)).map(look))
        });
        found.ok_or_else(|| ApiError::not_found(code))
    }
}

impl From<HistoryError> for ApiError {
    fn from(error: HistoryError) -> Self {
        Self::fault(error)
    }
}

/// A request whose signature was verified, with its whole body.
pub(crate) struct Signed {
    /// Whose key signed.
    pub(crate) account: AccountId,
    /// That key.
    pub(crate) key: Fingerprint,
    /// The query string, parsed.
    pub(crate) query: Query,
    /// The raw body.
    pub(crate) body: Bytes,
}

impl FromRequest<App> for Signed {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let claim = Claim::read(&parts.headers, time::now().0 / grid_engine::units::SECOND)?;
        let key = app.view().look(|engine| {
            let state = engine.state();
            let key = state.signing_keys.get(&claim.fingerprint).filter(|key| key.active);
            key.map(|key| (key.account, key.public_key))
        });
        let (account, public_key) = key.ok_or_else(Claim::unknown_key)?;
        let path = match parts.extensions.get::<RequestedPath>() {
            Some(RequestedPath(path)) => path.clone(),
            None => parts.uri.path().to_owned(),
        };
        let body = read_body(body, app.limits()).await?;
        claim.verify(&public_key, parts.method.as_str(), &path, &body)?;
        let verdict = app.inner.throttle.take(claim.fingerprint, Instant::now());
        if let Some(slot) = parts.extensions.get::<RateSlot>() {
            *slot.0.lock() = Some(verdict);
        }
        if !verdict.allowed {
            let text = "too many requests with this key";
            let mut error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "RATE_LIMIT_EXCEEDED", text);
            error.retry_after_s = Some(verdict.wait_s);
            return Err(error);
        }
        app.inner.used.lock().insert(claim.fingerprint, time::now());
        let query = Query::parse(parts.uri.query().unwrap_or_default())?;
        parts.extensions.clear();
        app.caught_up(account).await?;
        Ok(Self { account, key: claim.fingerprint, query, body })
    }
}

impl Signed {
    /// The body as JSON of a known form. 400 names the place where it isn't.
    pub(crate) fn json<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T, ApiError> {
        serde_json::from_slice(&self.body).map_err(|error| ApiError::malformed(format!("body: {error}")))
    }
}

/// 500 for a command of which nobody knows whether it took effect.
fn unknown_outcome(reason: &str) -> ApiError {
    let text =
        format!("{reason}; it may have taken effect: look, or repeat an order with its client_order_id");
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "OUTCOME_UNKNOWN", text)
}

/// Where the throttle leaves its verdict for the headers of the answer.
#[derive(Clone, Default)]
pub(crate) struct RateSlot(Arc<Mutex<Option<Verdict>>>);

impl RateSlot {
    /// Adds the rate-limit headers to an answer (contract §5.13).
    pub(crate) fn describe(&self, headers: &mut axum::http::HeaderMap) {
        let Some(verdict) = *self.0.lock() else { return };
        let reset = time::now().0 / grid_engine::units::SECOND + verdict.wait_s;
        headers.insert("x-ratelimit-limit", HeaderValue::from(verdict.limit));
        headers.insert("x-ratelimit-remaining", HeaderValue::from(verdict.remaining));
        headers.insert("x-ratelimit-reset", HeaderValue::from(reset));
    }
}

/// 413 for a request that announces a larger body than any may have.
pub(crate) fn refuse_large(request: &mut Request<Body>, limits: &Limits) -> Result<(), ApiError> {
    let announced = request.headers().get(axum::http::header::CONTENT_LENGTH);
    let bytes = announced.and_then(|value| value.to_str().ok()).and_then(|text| text.parse::<u64>().ok());
    if bytes.is_some_and(|bytes| bytes > limits.body_bytes_max as u64) {
        discard(std::mem::take(request.body_mut()), limits);
        return Err(too_large(limits));
    }
    Ok(())
}

/// Reads a body whole, bounded in size and time. What is refused as too large is thrown away in the background, so
/// that a client that is still sending gets to read the answer.
async fn read_body(body: Body, limits: &Limits) -> Result<Bytes, ApiError> {
    let mut body = body;
    let deadline = tokio::time::Instant::now() + limits.body_timeout;
    let mut whole = BytesMut::new();
    loop {
        let frame = match tokio::time::timeout_at(deadline, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => return Ok(whole.freeze()),
            Ok(Some(Err(_))) => return Err(ApiError::malformed("the body ended early")),
            Err(_) => {
                let text = "the body did not arrive in time";
                return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "REQUEST_TIMEOUT", text));
            }
        };
        if let Ok(data) = frame.into_data() {
            if whole.len() + data.len() > limits.body_bytes_max {
                discard(body, limits);
                return Err(too_large(limits));
            }
            whole.extend_from_slice(&data);
        }
    }
}

fn too_large(limits: &Limits) -> ApiError {
    let text = format!("the body may have {} bytes", limits.body_bytes_max);
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", text)
}

fn discard(mut body: Body, limits: &Limits) {
    let (bytes_max, timeout) = (limits.discard_bytes_max, limits.body_timeout);
    tokio::spawn(tokio::time::timeout(timeout, async move {
        let mut seen = 0;
        while let Some(Ok(frame)) = body.frame().await {
            seen += frame.data_ref().map_or(0, Bytes::len);
            if seen > bytes_max {
                break;
            }
        }
    }));
}

/// A path parameter.
pub(crate) struct Name(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(text)) => Ok(Self(text)),
            Err(_) => Err(ApiError::not_found("NOT_FOUND")),
        }
    }
}
