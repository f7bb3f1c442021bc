//! What may be asked, and the bytes that go to the supplier.
//!
//! The body is read once, borrowing; only fields with a rule are looked at. What goes on is the client's own bytes
//! with a few edits in place: the supplier's model name, `include_usage` for streams, and an output limit where the
//! client set none and the balance needs one. Whatever else is in the body goes through untouched.
//! What is looked at is `peek`'s, the range of each field `ranges`'s.

mod peek;
mod ranges;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use hyper::StatusCode;
use serde_json::Value;
use serde_json::value::RawValue;

use self::peek::{Messages, Peek, StreamOptions};
use self::ranges::whole;
pub(crate) use self::ranges::{SERVICE_TIERS, field_of};
use crate::needs::Needs;
use crate::reply::Refusal;

/// Largest output limit that is taken for a number of tokens and not for a mistake.
const OUTPUT_TOKENS_MAX: u64 = 100_000_000;
/// Choices of one call (contract §6.3).
const CHOICES_MAX: u64 = 128;
/// Allowed for an image, sound or file that the body only names, in tokens.
const MEDIA_TOKENS: u64 = 4_096;
/// So much of a prompt's first message tells which cache may hold it, in bytes; shorter ones are in none.
const PREFIX_BYTES: usize = 1_024;
/// What a template adds to any prompt, in tokens.
const TEMPLATE_TOKENS: u64 = 64;

/// A validated chat completion request.
#[derive(Clone, Debug)]
pub(crate) struct ChatRequest {
    pub(crate) body: Bytes,
    /// The instrument's symbol, in lower case.
    pub(crate) symbol: String,
    pub(crate) stream: bool,
    /// The client asked to see usage at the end of the stream.
    pub(crate) wants_usage: bool,
    /// The client's own output limit per choice, in tokens.
    pub(crate) output_limit: Option<u64>,
    pub(crate) choices: u64,
    /// What a supplier must be able to do.
    pub(crate) needs: Needs,
    /// Prompts with the same long beginning, or the same key of the client's, have the same one.
    pub(crate) affinity: Option<u64>,
    /// The client takes the answer of any supplier, not only of the first.
    pub(crate) fallbacks: bool,
    model: Range<usize>,
    /// Fields that speak to the venue, which suppliers don't get.
    ours: Vec<Range<usize>>,
    stream_options: Option<Range<usize>>,
    include_usage: Option<Range<usize>>,
    /// A `max_tokens: null` of the client, which a limit of ours replaces.
    max_tokens: Option<Range<usize>>,
    /// Just after the opening brace.
    inside: usize,
    media_tokens: u64,
}

impl ChatRequest {
    /// Reads and validates (contract §6.3): 400 for what is not JSON, 422 for a field out of its range.
    pub(crate) fn parse(body: Bytes) -> Result<Self, Refusal> {
        let text = std::str::from_utf8(&body).map_err(|_| malformed("the body is not UTF-8"))?;
        if !text.trim_ascii_start().starts_with('{') {
            return Err(malformed("the body must be a JSON object"));
        }
        let peek: Peek<'_> = serde_json::from_str(text).map_err(|error| described(&error))?;
        let span = |raw: &RawValue| {
            let start = raw.get().as_ptr() as usize - text.as_ptr() as usize;
            start..start + raw.get().len()
        };
        let model = peek
            .model
            .ok_or_else(|| Refusal::field("model", "model is required: the symbol of an instrument"))?;
        let symbol: String = serde_json::from_str(model.get())
            .map_err(|_| Refusal::field("model", "model must be a string: the symbol of an instrument"))?;
        match &peek.messages {
            None => return Err(Refusal::field("messages", "messages is required")),
            Some(Messages { count: 0, .. }) => {
                return Err(Refusal::field("messages", "messages must have at least one message"));
            }
            Some(Messages { bad_role: Some(at), .. }) => {
                return Err(Refusal::field(
                    "messages",
                    format!(
                        "messages[{at}].role must be system, developer, user, assistant, tool or function"
                    ),
                ));
            }
            Some(_) => {}
        }
        peek.check()?;
        let stream = peek.stream.is_some_and(|raw| raw.get() == "true");
        let options = StreamOptions::read(peek.stream_options)?;
        let output_limit = peek.output_limit()?;
        let choices = whole("n", peek.n, 1, CHOICES_MAX)?.unwrap_or(1);
        let media_tokens = media_tokens(&body);
        let needs = peek.needs(choices, &body);
        let affinity = peek.affinity();
        let fallbacks = peek.fallbacks()?;
        let ours = [("route", peek.route), ("provider", peek.provider)];
        let ours = without(text, ours.into_iter().filter_map(|(name, raw)| Some((name, span(raw?)))));
        Ok(Self {
            symbol: symbol.to_ascii_lowercase(),
            stream,
            wants_usage: stream && options.wanted,
            output_limit,
            choices,
            needs,
            affinity,
            fallbacks,
            ours,
            model: span(model),
            stream_options: peek.stream_options.map(&span),
            include_usage: options.include_usage.map(&span),
            max_tokens: peek.max_tokens.filter(|raw| raw.get() == "null").map(&span),
            inside: text.find('{').map_or(0, |at| at + 1),
            media_tokens,
            body,
        })
    }

    /// More prompt tokens than any supplier can count: a tokenizer makes at most one token of each byte of text, and
    /// the JSON around a message is longer than what a chat template puts around it.
    pub(crate) fn prompt_bound(&self) -> u64 {
        self.body.len() as u64 + TEMPLATE_TOKENS + self.media_tokens
    }

    /// The bytes for a supplier that calls the model `model`; `cap` limits the output where the client did not.
    pub(crate) fn rewritten(&self, model: &str, cap: Option<u64>) -> Bytes {
        let mut edits: Vec<(Range<usize>, Cow<'static, str>)> = Vec::with_capacity(3);
        edits.push((self.model.clone(), Value::from(model).to_string().into()));
        edits.extend(self.ours.iter().map(|at| (at.clone(), "".into())));
        let mut inserted = String::new();
        if self.stream {
            match (&self.include_usage, &self.stream_options) {
                (Some(at), _) => edits.push((at.clone(), "true".into())),
                (None, Some(at)) if &self.body[at.clone()] == b"null" => {
                    edits.push((at.clone(), "{\"include_usage\":true}".into()));
                }
                (None, Some(at)) => {
                    let inside = at.start + 1..at.start + 1;
                    let empty = self.body[inside.start..at.end - 1].trim_ascii().is_empty();
                    let text = if empty { "\"include_usage\":true" } else { "\"include_usage\":true," };
                    edits.push((inside, text.into()));
                }
                (None, None) => inserted.push_str("\"stream_options\":{\"include_usage\":true},"),
            }
        }
        if let Some(cap) = cap.filter(|_| self.output_limit.is_none()) {
            match &self.max_tokens {
                Some(at) => edits.push((at.clone(), cap.to_string().into())),
                None => inserted.push_str(&format!("\"max_tokens\":{cap},")),
            }
        }
        edits.push((self.inside..self.inside, inserted.into()));
        edits.sort_by_key(|(at, _)| (at.start, at.end));
        let mut out = Vec::with_capacity(self.body.len() + 128);
        let mut copied = 0;
        for (at, text) in edits {
            out.extend_from_slice(&self.body[copied..at.start]);
            out.extend_from_slice(text.as_bytes());
            copied = at.end;
        }
        out.extend_from_slice(&self.body[copied..]);
        Bytes::from(out)
    }
}

/// The ranges without which a body has none of these members, and is JSON all the same. A member whose name is
/// written with escapes stays where it is.
fn without<'a>(text: &str, members: impl Iterator<Item = (&'a str, Range<usize>)>) -> Vec<Range<usize>> {
    let named = members.filter_map(|(name, value)| {
        let before = text[..value.start].trim_ascii_end().strip_suffix(':')?.trim_ascii_end();
        let before = before.strip_suffix('"')?.strip_suffix(name)?.strip_suffix('"')?;
        Some(before.len()..value.end)
    });
    let mut named: Vec<Range<usize>> = named.collect();
    named.sort_by_key(|at| at.start);
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for mut at in named {
        let rest = &text[at.end..];
        match rest.trim_ascii_start().strip_prefix(',') {
            Some(rest) => at.end = text.len() - rest.len(),
            // The last one takes the comma before it along, and whoever has taken that one already.
            None => {
                let touches = |last: &Range<usize>| text[last.end..at.start].trim_ascii().is_empty();
                if ranges.last().is_some_and(touches) {
                    at.start = ranges.pop().map_or(at.start, |last| last.start);
                }
                let before = text[..at.start].trim_ascii_end();
                at.start = before.strip_suffix(',').map_or(at.start, str::len);
            }
        }
        ranges.push(at);
    }
    ranges
}

/// An allowance for images, sounds and files, whose tokens don't follow from the bytes of the body.
pub(crate) fn media_tokens(body: &[u8]) -> u64 {
    let kinds = ["\"image_url\"", "\"input_audio\"", "\"file\""];
    let parts = kinds.iter().map(|kind| memchr::memmem::find_iter(body, kind).count() as u64);
    MEDIA_TOKENS * parts.sum::<u64>()
}

fn malformed(message: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "invalid_json", message)
}

/// Says where, and never repeats what stands there.
fn described(error: &serde_json::Error) -> Refusal {
    let place = format!("line {} column {}", error.line(), error.column());
    if error.is_data() {
        let text = error.to_string();
        if text.starts_with("duplicate field") {
            return malformed(format!("a field is given twice ({place})"));
        }
        return Refusal::field(
            "messages",
            format!("messages must be an array of objects, each with a role ({place})"),
        );
    }
    malformed(format!("the body is not JSON ({place})"))
}
