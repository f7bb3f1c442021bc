//! Answers of our own: errors in the envelopes that clients understand, and the body type of every response.
//!
//! OpenAI's clients read `error.message`, `type`, `param` and `code`; the venue's own read `errors.detail`; Anthropic's
//! read `type: "error"`. The first two share one body. Statuses are chosen so that clients retry what can succeed and
//! nothing else (408, 409, 429 and all of 5xx are retried by the usual clients).

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde_json::json;
use tokio::sync::mpsc;

use crate::allowance::Quota;

/// The longest that the usual clients wait because they were told to.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// The body of a response: known bytes, or a stream.
#[derive(Debug)]
pub(crate) enum Out {
    Whole(Option<Bytes>),
    Stream(mpsc::Receiver<Bytes>),
}

impl Out {
    pub(crate) fn empty() -> Self {
        Self::Whole(None)
    }
}

impl Body for Out {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(events) => {
                events.poll_recv(cx).map(|event| event.map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// Whose clients listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Surface {
    OpenAi,
    Anthropic,
}

/// A "no" to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// Stable word for programs.
    pub(crate) code: &'static str,
    /// For people; says what to change.
    pub(crate) message: String,
    /// The field to blame.
    pub(crate) param: Option<&'static str>,
    /// When to come back.
    pub(crate) retry_after: Option<Duration>,
    /// The limit that was reached, or that comes next.
    pub(crate) quota: Option<Quota>,
    /// Close the connection after it.
    pub(crate) close: bool,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            param: None,
            retry_after: None,
            quota: None,
            close: false,
        }
    }

    /// 422 for a field out of its range.
    pub(crate) fn field(param: &'static str, message: impl Into<String>) -> Self {
        Self { param: Some(param), ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_value", message) }
    }

    /// 503 that clears by itself.
    pub(crate) fn unavailable(code: &'static str, message: impl Into<String>, after: Duration) -> Self {
        Self { retry_after: Some(after), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message) }
    }

    pub(crate) fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    fn openai_type(&self) -> &'static str {
        match self.status.as_u16() {
            401 => "authentication_error",
            402 => "insufficient_quota",
            403 => "permission_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            400..=499 => "invalid_request_error",
            _ => "server_error",
        }
    }

    fn anthropic_type(&self) -> &'static str {
        match self.status.as_u16() {
            401 => "authentication_error",
            402 => "billing_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            503 => "overloaded_error",
            400..=499 => "invalid_request_error",
            _ => "api_error",
        }
    }

    /// The error object that OpenAI's clients read, as part of a body or of a stream's last event.
    pub(crate) fn openai_body(&self) -> serde_json::Value {
        json!({
            "error": {"message": self.message, "type": self.openai_type(), "param": self.param, "code": self.code},
            "errors": {"detail": self.message},
        })
    }

    /// The same for Anthropic's clients.
    pub(crate) fn anthropic_body(&self, request: &str) -> serde_json::Value {
        json!({
            "type": "error",
            "error": {"type": self.anthropic_type(), "message": self.message},
            "errors": {"detail": self.message},
            "request_id": request,
        })
    }

    pub(crate) fn response(&self, surface: Surface, request: &str) -> Response<Out> {
        let body = match surface {
            Surface::OpenAi => self.openai_body(),
            Surface::Anthropic => self.anthropic_body(request),
        };
        let mut response = json_response(self.status, &body);
        let headers = response.headers_mut();
        if let Some(after) = self.retry_after {
            let seconds = after.as_millis().div_ceil(1_000).max(1);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds as u64));
            headers.insert(
                HeaderName::from_static("retry-after-ms"),
                HeaderValue::from(after.as_millis() as u64),
            );
        }
        if let Some(quota) = self.quota {
            quota.tell(surface, headers);
        }
        // A client would rather wait its own seconds than ours when ours are many.
        let soon = self.retry_after.is_some_and(|after| after <= WAIT_MAX);
        let again = soon && self.status != StatusCode::PAYMENT_REQUIRED;
        headers.insert(
            HeaderName::from_static("x-should-retry"),
            HeaderValue::from_static(if again { "true" } else { "false" }),
        );
        if self.close {
            headers.insert(hyper::header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// A JSON answer.
pub(crate) fn json_response(status: StatusCode, body: &serde_json::Value) -> Response<Out> {
    bytes_response(status, Bytes::from(body.to_string()))
}

/// An answer of JSON bytes.
pub(crate) fn bytes_response(status: StatusCode, body: Bytes) -> Response<Out> {
    let mut response = Response::new(Out::Whole(Some(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
