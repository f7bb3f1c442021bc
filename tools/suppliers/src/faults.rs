//! What can go wrong with a supplier, as one plain record, so that a test reads as the list of its troubles.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::lapses::Lapses;

/// A supplier's troubles. The default is perfect health.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Nobody listens: new connections are refused by the system, open ones are closed without an answer.
    pub refuse: bool,
    /// Answer every chat request with this HTTP status and an error body (429, 500, 503 ...).
    pub status: Option<u16>,
    /// `Retry-After` beside `status`, in seconds.
    pub retry_after_s: Option<u32>,
    /// More headers of every chat answer, good or bad: rate limits, waits.
    pub headers: BTreeMap<String, String>,
    /// Request fields that it can't honour: a request that has one is 400 `unsupported_parameter`.
    pub unable: Vec<String>,
    /// A content type that says something else than what the answer is.
    pub content_type: Option<String>,
    /// A TLS alert for an answer to whatever a connection says first: what a broken handshake looks like.
    pub tls_alert: bool,
    /// Wait this long before the status line, in milliseconds.
    pub stall_before_headers_ms: u64,
    /// Go silent once this many tokens were sent (0: after the headers), for `stall_ms`.
    pub stall_after_tokens: Option<u32>,
    /// How long a stall in the stream, or one drawn by `stall_rate`, lasts, in milliseconds.
    pub stall_ms: u64,
    /// Close the socket once this many tokens were sent; without streaming, in the middle of the body.
    pub die_after_tokens: Option<u32>,
    /// Close the socket in the middle of an event once this many tokens were streamed.
    pub cut_after_tokens: Option<u32>,
    /// Every answer leaves in pieces of so many bytes, wherever that cuts it ...
    pub piece_bytes: Option<usize>,
    /// ... with this long between two of them, in milliseconds.
    pub piece_pause_ms: u64,
    /// How the events of a stream are written.
    pub framing: Framing,
    /// End a stream without its `[DONE]`.
    pub omit_done: bool,
    /// Send an event with an `error` key once this many tokens were streamed, then end.
    pub error_event_after_tokens: Option<u32>,
    /// Both reported token counts are multiplied by this; 1.0 is honest.
    pub usage_factor: f64,
    /// Report this instead of a usage, whatever it is.
    pub usage: Option<Value>,
    /// Report no usage at all.
    pub omit_usage: bool,
    /// Answer 200 with a body, or a first event, that is not JSON.
    pub invalid_json: bool,
    /// Share of requests answered 500, from 0 to 1, drawn from the seed.
    pub error_rate: f64,
    /// Share of requests that stall before the headers for `stall_ms`.
    pub stall_rate: f64,
    /// Share of requests whose socket is closed in the middle of the answer.
    pub die_mid_stream_rate: f64,
    /// How the model itself falls short.
    pub lapses: Lapses,
    /// All of this holds for so many chat requests, then health returns; `None` holds until changed.
    pub next_requests: Option<u32>,
}

/// How events are written; a client must understand all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    /// One `data: ` line and `\n`.
    #[default]
    Plain,
    /// Lines end in `\r\n`.
    Crlf,
    /// A comment before every event.
    Comments,
    /// The JSON of an event over many `data:` lines.
    ManyLines,
}

impl Framing {
    /// An event with this data.
    pub(crate) fn event(self, data: &str, pretty: impl FnOnce() -> String) -> String {
        match self {
            Self::Plain => format!("data: {data}\n\n"),
            Self::Crlf => format!("data: {data}\r\n\r\n"),
            Self::Comments => format!(": keep alive\n\ndata:{data}\n\n"),
            Self::ManyLines => {
                let lines: Vec<String> = pretty().lines().map(|line| format!("data: {line}\n")).collect();
                lines.concat() + "\n"
            }
        }
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            refuse: false,
            status: None,
            retry_after_s: None,
            headers: BTreeMap::new(),
            unable: Vec::new(),
            content_type: None,
            tls_alert: false,
            stall_before_headers_ms: 0,
            stall_after_tokens: None,
            stall_ms: 3_600_000,
            die_after_tokens: None,
            cut_after_tokens: None,
            piece_bytes: None,
            piece_pause_ms: 0,
            framing: Framing::Plain,
            omit_done: false,
            error_event_after_tokens: None,
            usage: None,
            usage_factor: 1.0,
            omit_usage: false,
            invalid_json: false,
            error_rate: 0.0,
            stall_rate: 0.0,
            die_mid_stream_rate: 0.0,
            lapses: Lapses::default(),
            next_requests: None,
        }
    }
}

impl Faults {
    /// The faults of one request: rates become certainties by `draw`, three independent numbers in [0, 1).
    pub(crate) fn decide(&self, draw: [f64; 3]) -> Self {
        let mut faults = self.clone();
        if draw[0] < self.error_rate {
            faults.status = Some(500);
        }
        if draw[1] < self.stall_rate {
            faults.stall_before_headers_ms = self.stall_ms;
        }
        if draw[2] < self.die_mid_stream_rate && faults.die_after_tokens.is_none() {
            faults.die_after_tokens = Some(3);
        }
        faults
    }

    /// A token count as this supplier reports it.
    pub(crate) fn reported(&self, tokens: u64) -> u64 {
        (tokens as f64 * self.usage_factor).round() as u64
    }
}
