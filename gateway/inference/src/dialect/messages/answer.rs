//! A supplier's chat chunks as a Messages answer: the named events of a stream, or one message.
//!
//! `message_start` goes out with the first chunk, before anybody knows how long the prompt is, so its counts are 0
//! there. The counts of `message_delta` are the billed ones, for input and output; the
//! client's libraries overwrite the first with the last. Thinking that nobody asked to see is not shown, and a `ping`
//! now and then says that it goes on.

use bytes::Bytes;
use serde_json::{Value, json};

use super::request::Wishes;
use crate::dialect::blocks::{Blocks, Kind, Step};
use crate::dialect::heard::{self, Details, Finish, Heard, Piece};
use crate::dialect::members::quoted;
use crate::dialect::{Untold, event};
use crate::meter::Bill;
use crate::reply::Refusal;

/// After so many pieces of hidden thinking, a ping.
const HIDDEN_PER_PING: u64 = 32;
const PING: &str = "event: ping\ndata: {\"type\": \"ping\"}\n\n";

/// Tells one answer.
#[derive(Debug)]
pub(crate) struct Teller {
    wishes: Wishes,
    id: String,
    model: Option<String>,
    started: bool,
    blocks: Blocks,
    /// Blocks that have begun.
    begun: usize,
    kind: Option<Kind>,
    finish: Option<Finish>,
    stop_sequence: Option<String>,
    details: Details,
    hidden: u64,
}

impl Teller {
    pub(crate) fn new(wishes: Wishes, number: u128, bytes_max: usize) -> Self {
        Self {
            wishes,
            id: format!("msg_{number:032x}"),
            model: None,
            started: false,
            blocks: Blocks::new(number, bytes_max),
            begun: 0,
            kind: None,
            finish: None,
            stop_sequence: None,
            details: Details::default(),
            hidden: 0,
        }
    }

    /// This model delivers.
    pub(crate) fn served_by(&mut self, model: &str) {
        self.model = Some(model.to_owned());
    }

    pub(crate) fn hear(&mut self, chunk: &[u8]) -> Result<Bytes, Untold> {
        let heard = heard::read(chunk)?;
        let mut out = String::new();
        let (mut steps, mut hidden) = (Vec::new(), false);
        for piece in self.note(heard) {
            hidden |= !self.shows(&piece);
            if self.shows(&piece) {
                self.blocks.hear(piece, &mut steps)?;
            }
        }
        if !self.started {
            self.started = true;
            let message = self.message("[]", None, &json!({"input_tokens": 0, "output_tokens": 0}));
            event(&mut out, "message_start", &format!(r#"{{"type":"message_start","message":{message}}}"#));
            out.push_str(PING);
        } else if hidden {
            self.hidden += 1;
            if self.hidden.is_multiple_of(HIDDEN_PER_PING) {
                out.push_str(PING);
            }
        }
        self.told(steps, &mut out);
        Ok(Bytes::from(out))
    }

    pub(crate) fn still_here(&self) -> Bytes {
        Bytes::from_static(if self.started { PING.as_bytes() } else { b": keep-alive\n\n" })
    }

    pub(crate) fn end(&mut self, bill: Bill) -> Bytes {
        let mut steps = Vec::new();
        let mut out = String::new();
        if let Err(Untold(why)) = self.blocks.finish(&mut steps) {
            let refusal = Refusal::new(hyper::StatusCode::BAD_GATEWAY, "supplier_failed", why);
            return error_event(&refusal, "");
        }
        self.told(steps, &mut out);
        let delta = json!({"stop_reason": self.stop_reason(), "stop_sequence": self.stopped_by()});
        let mut data = json!({"type": "message_delta", "delta": delta, "usage": self.usage(bill)});
        if self.wishes.edits {
            data["context_management"] = json!({"applied_edits": []});
        }
        event(&mut out, "message_delta", &data.to_string());
        event(&mut out, "message_stop", r#"{"type":"message_stop"}"#);
        Bytes::from(out)
    }

    pub(crate) fn whole(&mut self, answer: &[u8], bill: Bill) -> Result<Bytes, Untold> {
        let heard = heard::read(answer)?;
        let mut steps = Vec::new();
        for piece in self.note(heard) {
            if self.shows(&piece) {
                self.blocks.hear(piece, &mut steps)?;
            }
        }
        self.blocks.finish(&mut steps)?;
        let content = content(steps);
        let stop = Some(self.stop_reason());
        Ok(Bytes::from(self.message(&content, stop, &self.usage(bill))))
    }

    fn shows(&self, piece: &Piece) -> bool {
        self.wishes.thinking || !matches!(piece, Piece::Reasoning(_))
    }

    fn note(&mut self, heard: Heard) -> Vec<Piece> {
        self.finish = heard.finish.or(self.finish);
        self.stop_sequence = heard.stop_sequence.or_else(|| self.stop_sequence.take());
        self.details = heard.details.unwrap_or(self.details);
        heard.pieces
    }

    fn told(&mut self, steps: Vec<Step>, out: &mut String) {
        for step in steps {
            match step {
                Step::Start(kind) => {
                    let block = match &kind {
                        Kind::Reasoning => r#"{"type":"thinking","thinking":"","signature":""}"#.to_owned(),
                        Kind::Text | Kind::Refusal => r#"{"type":"text","text":""}"#.to_owned(),
                        Kind::Tool { id, name } => format!(
                            r#"{{"type":"tool_use","id":{},"name":{},"input":{{}}}}"#,
                            quoted(id),
                            quoted(name)
                        ),
                    };
                    let at = self.begun;
                    self.begun += 1;
                    self.kind = Some(kind);
                    let data =
                        format!(r#"{{"type":"content_block_start","index":{at},"content_block":{block}}}"#);
                    event(out, "content_block_start", &data);
                }
                Step::Piece(text) => {
                    let (kind, name) = match self.kind {
                        Some(Kind::Reasoning) => ("thinking_delta", "thinking"),
                        Some(Kind::Tool { .. }) => ("input_json_delta", "partial_json"),
                        _ => ("text_delta", "text"),
                    };
                    let (at, text) = (self.begun - 1, quoted(&text));
                    let data = format!(
                        r#"{{"type":"content_block_delta","index":{at},"delta":{{"type":"{kind}","{name}":{text}}}}}"#
                    );
                    event(out, "content_block_delta", &data);
                }
                Step::Stop => {
                    let at = self.begun - 1;
                    event(
                        out,
                        "content_block_stop",
                        &format!(r#"{{"type":"content_block_stop","index":{at}}}"#),
                    );
                }
            }
        }
    }

    fn message(&self, content: &str, stop: Option<&str>, usage: &Value) -> String {
        let stopped_by = if stop.is_some() { self.stopped_by() } else { None };
        let edits = if self.wishes.edits && stop.is_some() {
            r#","context_management":{"applied_edits":[]}"#
        } else {
            ""
        };
        format!(
            r#"{{"id":"{}","type":"message","role":"assistant","model":{},"content":{content},"stop_reason":{},"stop_sequence":{},"usage":{usage}{edits}}}"#,
            self.id,
            quoted(self.model.as_deref().unwrap_or(&self.wishes.model)),
            json!(stop),
            json!(stopped_by),
        )
    }

    /// A supplier that calls a tool and says "stop" has called a tool.
    fn stop_reason(&self) -> &'static str {
        match self.finish {
            Some(Finish::Length) => "max_tokens",
            Some(Finish::Filter) => "refusal",
            _ if self.blocks.has_tools() => "tool_use",
            _ if self.stopped_by().is_some() => "stop_sequence",
            _ => "end_turn",
        }
    }

    /// The client's stop sequence that ended the answer, where the supplier says so.
    fn stopped_by(&self) -> Option<&str> {
        let said = self.stop_sequence.as_deref()?;
        self.wishes.stops.iter().map(String::as_str).find(|stop| *stop == said)
    }

    fn usage(&self, bill: Bill) -> Value {
        let cached = if bill.estimated { 0 } else { self.details.cached.min(bill.prompt) };
        json!({
            "input_tokens": bill.prompt - cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
            "output_tokens": bill.completion,
        })
    }
}

/// The blocks of a whole message.
fn content(steps: Vec<Step>) -> String {
    let mut blocks = Vec::new();
    let mut open: Option<(Kind, String)> = None;
    for step in steps {
        match step {
            Step::Start(kind) => open = Some((kind, String::new())),
            Step::Piece(piece) => {
                if let Some((_, text)) = &mut open {
                    text.push_str(&piece);
                }
            }
            Step::Stop => blocks.extend(open.take().map(|(kind, text)| block(&kind, &text))),
        }
    }
    crate::dialect::members::array(&blocks)
}

fn block(kind: &Kind, text: &str) -> String {
    match kind {
        Kind::Reasoning => format!(r#"{{"type":"thinking","thinking":{},"signature":""}}"#, quoted(text)),
        Kind::Text | Kind::Refusal => format!(r#"{{"type":"text","text":{}}}"#, quoted(text)),
        Kind::Tool { id, name } => {
            let input = match text.trim_ascii() {
                "" => "{}".to_owned(),
                object if object.starts_with('{') && is_json(object) => object.to_owned(),
                // What Anthropic advises for input that is no object: the text as it came, under this name.
                other => json!({"INVALID_JSON": other}).to_string(),
            };
            format!(r#"{{"type":"tool_use","id":{},"name":{},"input":{input}}}"#, quoted(id), quoted(name))
        }
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// The event that ends a stream that broke.
pub(crate) fn error_event(refusal: &Refusal, request: &str) -> Bytes {
    let mut out = String::new();
    event(&mut out, "error", &refusal.anthropic_body(request).to_string());
    Bytes::from(out)
}

#[cfg(test)]
mod tests;
