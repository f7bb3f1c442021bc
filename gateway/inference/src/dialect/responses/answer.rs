//! A supplier's chat chunks as a Responses answer: the numbered events of a stream, or one response.
//!
//! Each block is an item of the output: reasoning, a message, a function call. Whatever a stream has told is in the
//! response that ends it once more, so it is kept, within the bounds of a whole answer.

use bytes::Bytes;
use serde_json::{Value, json};

use super::request::Wishes;
use crate::dialect::blocks::{Blocks, Kind, Step};
use crate::dialect::heard::{self, Details, Finish, Heard};
use crate::dialect::members::{array, quoted};
use crate::dialect::{Untold, event};
use crate::meter::Bill;
use crate::reply::Refusal;

/// Tells one answer.
#[derive(Debug)]
pub(crate) struct Teller {
    wishes: Wishes,
    number: u128,
    model: Option<String>,
    created: u64,
    service_tier: Option<&'static str>,
    started: bool,
    blocks: Blocks,
    /// Items that are complete, as JSON.
    done: Vec<String>,
    open: Option<Item>,
    /// Log probabilities that came with text not told yet.
    logprobs: Vec<Value>,
    finish: Option<Finish>,
    details: Details,
    events: u64,
}

/// The item that is told now.
#[derive(Debug)]
struct Item {
    kind: Kind,
    id: String,
    text: String,
    logprobs: Vec<Value>,
}

/// How a response stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status<'a> {
    InProgress,
    Over(Bill),
    Failed(&'a Refusal),
}

impl Teller {
    pub(crate) fn new(wishes: Wishes, number: u128, bytes_max: usize) -> Self {
        Self {
            wishes,
            number,
            model: None,
            created: 0,
            service_tier: None,
            started: false,
            blocks: Blocks::new(number, bytes_max),
            done: Vec::new(),
            open: None,
            logprobs: Vec::new(),
            finish: None,
            details: Details::default(),
            events: 0,
        }
    }

    /// This model delivers.
    pub(crate) fn served_by(&mut self, model: &str) {
        self.model = Some(model.to_owned());
    }

    pub(crate) fn hear(&mut self, chunk: &[u8]) -> Result<Bytes, Untold> {
        let heard = heard::read(chunk)?;
        let mut out = String::new();
        let steps = self.note(heard)?;
        if !self.started {
            self.started = true;
            for name in ["response.created", "response.in_progress"] {
                let response = self.response(Status::InProgress);
                self.event(&mut out, name, &format!(r#","response":{response}"#));
            }
        }
        self.told(steps, &mut out);
        Ok(Bytes::from(out))
    }

    pub(crate) fn end(&mut self, bill: Bill) -> Bytes {
        let (mut steps, mut out) = (Vec::new(), String::new());
        if let Err(Untold(why)) = self.blocks.finish(&mut steps) {
            return self.broke(&Refusal::new(hyper::StatusCode::BAD_GATEWAY, "supplier_failed", why));
        }
        self.told(steps, &mut out);
        let name = if self.incomplete().is_some() { "response.incomplete" } else { "response.completed" };
        let response = self.response(Status::Over(bill));
        self.event(&mut out, name, &format!(r#","response":{response}"#));
        Bytes::from(out)
    }

    pub(crate) fn broke(&mut self, refusal: &Refusal) -> Bytes {
        let mut out = String::new();
        if let Some(item) = self.open.take() {
            let item = item.json(self.wishes.summary, "incomplete");
            self.done.push(item);
        }
        let response = self.response(Status::Failed(refusal));
        self.event(&mut out, "response.failed", &format!(r#","response":{response}"#));
        Bytes::from(out)
    }

    pub(crate) fn whole(&mut self, answer: &[u8], bill: Bill) -> Result<Bytes, Untold> {
        let mut steps = self.note(heard::read(answer)?)?;
        self.blocks.finish(&mut steps)?;
        self.told(steps, &mut String::new());
        Ok(Bytes::from(self.response(Status::Over(bill))))
    }

    fn note(&mut self, heard: Heard) -> Result<Vec<Step>, Untold> {
        self.service_tier = heard.service_tier.or(self.service_tier);
        self.created = self.created.max(heard.created);
        self.finish = heard.finish.or(self.finish);
        self.details = heard.details.unwrap_or(self.details);
        self.logprobs.extend(heard.logprobs);
        let mut steps = Vec::new();
        for piece in heard.pieces {
            self.blocks.hear(piece, &mut steps)?;
        }
        Ok(steps)
    }

    // -- events ----------------------------------------------------------------------------------------------------

    fn event(&mut self, out: &mut String, name: &str, members: &str) {
        let data = format!(r#"{{"type":"{name}","sequence_number":{}{members}}}"#, self.events);
        self.events += 1;
        event(out, name, &data);
    }

    fn told(&mut self, steps: Vec<Step>, out: &mut String) {
        for step in steps {
            match step {
                Step::Start(kind) => self.start(kind, out),
                Step::Piece(text) => self.piece(text, out),
                Step::Stop => self.stop(out),
            }
        }
    }

    fn start(&mut self, kind: Kind, out: &mut String) {
        let prefix = match kind {
            Kind::Reasoning => "rs",
            Kind::Text | Kind::Refusal => "msg",
            Kind::Tool { .. } => "fc",
        };
        let at = self.done.len();
        let id = format!("{prefix}_{:032x}_{at}", self.number);
        let item = Item { kind, id, text: String::new(), logprobs: Vec::new() };
        let added = item.empty();
        self.event(out, "response.output_item.added", &format!(r#","output_index":{at},"item":{added}"#));
        if let Some((name, index)) = item.part_events(self.wishes.summary) {
            let part = item.part(self.wishes.summary);
            let place = place(&item.id, at);
            self.event(out, &format!("{name}.added"), &format!(r#"{place},"{index}":0,"part":{part}"#));
        }
        self.open = Some(item);
    }

    fn piece(&mut self, text: String, out: &mut String) {
        let at = self.done.len();
        let Some(mut item) = self.open.take() else { return };
        let (name, index) = item.delta_events(self.wishes.summary);
        let mut members = place(&item.id, at);
        if !index.is_empty() {
            members.push_str(&format!(r#","{index}":0"#));
        }
        members.push_str(&format!(r#","delta":{}"#, quoted(&text)));
        if item.kind == Kind::Text {
            let logprobs = std::mem::take(&mut self.logprobs);
            members.push_str(&format!(r#","logprobs":{}"#, Value::Array(logprobs.clone())));
            item.logprobs.extend(logprobs);
        }
        self.event(out, &format!("{name}.delta"), &members);
        item.text.push_str(&text);
        self.open = Some(item);
    }

    fn stop(&mut self, out: &mut String) {
        let at = self.done.len();
        let Some(item) = self.open.take() else { return };
        let summary = self.wishes.summary;
        let (name, index) = item.delta_events(summary);
        let place = place(&item.id, at);
        let mut members = place.clone();
        if !index.is_empty() {
            members.push_str(&format!(r#","{index}":0"#));
        }
        let text = quoted(&item.text);
        members.push_str(&match &item.kind {
            Kind::Reasoning => format!(r#","text":{text}"#),
            Kind::Text => {
                format!(r#","text":{text},"logprobs":{}"#, Value::Array(item.logprobs.clone()))
            }
            Kind::Refusal => format!(r#","refusal":{text}"#),
            Kind::Tool { name, .. } => format!(r#","name":{},"arguments":{text}"#, quoted(name)),
        });
        self.event(out, &format!("{name}.done"), &members);
        if let Some((name, index)) = item.part_events(summary) {
            let part = item.part(summary);
            self.event(out, &format!("{name}.done"), &format!(r#"{place},"{index}":0,"part":{part}"#));
        }
        let done = item.json(summary, "completed");
        self.event(out, "response.output_item.done", &format!(r#","output_index":{at},"item":{done}"#));
        self.done.push(done);
    }

    // -- the response ----------------------------------------------------------------------------------------------

    fn incomplete(&self) -> Option<&'static str> {
        match self.finish {
            Some(Finish::Length) => Some("max_output_tokens"),
            Some(Finish::Filter) => Some("content_filter"),
            _ => None,
        }
    }

    fn response(&self, status: Status<'_>) -> String {
        let incomplete = if matches!(status, Status::Over(_)) { self.incomplete() } else { None };
        let word = match status {
            Status::InProgress => "in_progress",
            Status::Failed(_) => "failed",
            Status::Over(_) if incomplete.is_some() => "incomplete",
            Status::Over(_) => "completed",
        };
        let error = match status {
            Status::Failed(refusal) => json!({"code": "server_error", "message": refusal.message}),
            _ => Value::Null,
        };
        let usage = match status {
            Status::Over(bill) => self.usage(bill),
            _ => Value::Null,
        };
        format!(
            r#"{{"id":"resp_{:032x}","object":"response","created_at":{},"status":"{word}","error":{error},"incomplete_details":{},"model":{},"output":{},"service_tier":{},"usage":{usage}{}}}"#,
            self.number,
            self.created,
            incomplete.map_or(Value::Null, |reason| json!({"reason": reason})),
            quoted(self.model.as_deref().unwrap_or(&self.wishes.model)),
            array(&self.done),
            json!(self.service_tier.unwrap_or("default")),
            self.wishes.echo,
        )
    }

    fn usage(&self, bill: Bill) -> Value {
        let details = if bill.estimated { Details::default() } else { self.details };
        json!({
            "input_tokens": bill.prompt,
            "input_tokens_details": {"cached_tokens": details.cached.min(bill.prompt), "cache_write_tokens": 0},
            "output_tokens": bill.completion,
            "output_tokens_details": {"reasoning_tokens": details.reasoning.min(bill.completion)},
            "total_tokens": bill.prompt.saturating_add(bill.completion),
        })
    }
}

fn place(id: &str, at: usize) -> String {
    format!(r#","item_id":"{id}","output_index":{at}"#)
}

impl Item {
    /// Names of the events of its one part, and of the part's index; a function call has none.
    fn part_events(&self, summary: bool) -> Option<(&'static str, &'static str)> {
        match self.kind {
            Kind::Reasoning if summary => Some(("response.reasoning_summary_part", "summary_index")),
            Kind::Tool { .. } => None,
            _ => Some(("response.content_part", "content_index")),
        }
    }

    fn delta_events(&self, summary: bool) -> (&'static str, &'static str) {
        match self.kind {
            Kind::Reasoning if summary => ("response.reasoning_summary_text", "summary_index"),
            Kind::Reasoning => ("response.reasoning_text", "content_index"),
            Kind::Text => ("response.output_text", "content_index"),
            Kind::Refusal => ("response.refusal", "content_index"),
            Kind::Tool { .. } => ("response.function_call_arguments", ""),
        }
    }

    fn part(&self, summary: bool) -> String {
        let text = quoted(&self.text);
        match self.kind {
            Kind::Reasoning if summary => format!(r#"{{"type":"summary_text","text":{text}}}"#),
            Kind::Reasoning => format!(r#"{{"type":"reasoning_text","text":{text}}}"#),
            Kind::Refusal => format!(r#"{{"type":"refusal","refusal":{text}}}"#),
            _ => format!(
                r#"{{"type":"output_text","text":{text},"annotations":[],"logprobs":{}}}"#,
                Value::Array(self.logprobs.clone())
            ),
        }
    }

    fn empty(&self) -> String {
        self.with("", "in_progress", &self.text)
    }

    fn json(&self, summary: bool, status: &str) -> String {
        self.with(&self.part(summary), status, &self.text)
    }

    fn with(&self, part: &str, status: &str, text: &str) -> String {
        let id = &self.id;
        match &self.kind {
            Kind::Reasoning => {
                let (summary, content) =
                    if part.starts_with(r#"{"type":"summary_text""#) { (part, "") } else { ("", part) };
                format!(
                    r#"{{"id":"{id}","type":"reasoning","status":"{status}","summary":[{summary}],"content":[{content}]}}"#
                )
            }
            Kind::Text | Kind::Refusal => format!(
                r#"{{"id":"{id}","type":"message","status":"{status}","role":"assistant","content":[{part}]}}"#
            ),
            Kind::Tool { id: call, name } => format!(
                r#"{{"id":"{id}","type":"function_call","status":"{status}","call_id":{},"name":{},"arguments":{}}}"#,
                quoted(call),
                quoted(name),
                quoted(text)
            ),
        }
    }
}

#[cfg(test)]
mod tests;
