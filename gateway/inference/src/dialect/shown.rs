//! What a client sees of a supplier's chat completion that passes untranslated.
//!
//! Who delivered is the venue's business (contract §4.4, "no supplier name leaked"), and houses sign their answers in many
//! places: a member `provider`, ids of their own form, a fingerprint, times of their queues, comments between events. No list of
//! what is to be taken out is ever complete, so these are the lists of what may pass:
//!
//! | part | members |
//! |---|---|
//! | the answer, each chunk | `choices`, `usage`, `service_tier` with a word of contract §6.3, `obfuscation` |
//! | a choice | [`CHOICE`] |
//! | its `message` or `delta` | [`MESSAGE`]: what is said, and what a client has to send back for the talk to go on |
//! | `usage` | the billed counts, [`USAGE`] as the supplier says them, [`DETAILS`] |
//!
//! `id`, `object`, `created` and `model` are the venue's own and the same in every chunk, and there is no `system_fingerprint`.
//! A request's unknown fields go to suppliers as they came; this is about answers only.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use serde_json::value::RawValue;

use super::Untold;
use super::members::{Members, Writer, array, items, quoted, text};
use crate::answer::{FINISHES, Said};
use crate::meter::Bill;
use crate::request::SERVICE_TIERS;

/// What passes of a choice. `stop_reason` says which stop sequence came.
const CHOICE: [&str; 6] = ["index", "message", "delta", "finish_reason", "logprobs", "stop_reason"];
/// What passes of what was said.
const MESSAGE: [&str; 10] = [
    "role",
    "content",
    "reasoning_content",
    "reasoning",
    "reasoning_details",
    "refusal",
    "tool_calls",
    "function_call",
    "annotations",
    "audio",
];
/// What passes of usage beside the counts that are billed (contract §6.4).
const USAGE: &str = "estimated_cost";
/// What passes of the two counts' details.
const DETAILS: [&str; 8] = [
    "cached_tokens",
    "cache_write_tokens",
    "audio_tokens",
    "text_tokens",
    "image_tokens",
    "reasoning_tokens",
    "accepted_prediction_tokens",
    "rejected_prediction_tokens",
];

/// What passes as the tier of service.
pub(super) fn service_tier(word: &str) -> Option<&'static str> {
    SERVICE_TIERS.into_iter().find(|known| *known == word)
}

/// Shows one call's answer.
#[derive(Debug)]
pub(crate) struct Shown {
    number: u128,
    model: String,
    wants_usage: bool,
    /// How each chunk begins, once one has said when the answer did.
    head: String,
    /// What the last usage said that is not billed.
    usage: Extras,
}

/// Members of a usage beside its counts.
#[derive(Debug, Default)]
struct Extras(Vec<(&'static str, String)>);

impl Shown {
    /// The answer of the call `number`; with `wants_usage` its stream ends with its bill.
    pub(crate) fn new(number: u128, wants_usage: bool) -> Self {
        Self { number, model: String::new(), wants_usage, head: String::new(), usage: Extras::default() }
    }

    /// This model delivers.
    pub(crate) fn served_by(&mut self, model: &str) {
        self.model = model.to_owned();
    }

    /// A chunk, and what was heard of it, as the client sees it: nothing where it has no choice.
    pub(crate) fn chunk(&mut self, json: &[u8], said: &Said<'_>, out: &mut BytesMut) {
        if self.head.is_empty() {
            self.head = self.head_of("chat.completion.chunk", said.created);
        }
        if let Some(plain) = &said.plain {
            let extras = [("service_tier", plain.service_tier), ("obfuscation", plain.obfuscation)];
            let extras = extras.into_iter().filter_map(|(name, text)| Some((name, text?)));
            let extras =
                extras.filter(|(name, text)| *name != "service_tier" || service_tier(text).is_some());
            self.open(plain.choices, out);
            for (name, text) in extras {
                // A text without escapes, as it was read.
                for part in [",\"", name, "\":\"", text, "\""] {
                    out.extend_from_slice(part.as_bytes());
                }
            }
            return self.close(out);
        }
        let Some(mut members) = Members::any(json) else { return };
        if let Some(usage) = members.take("usage") {
            self.usage = Extras::of(usage);
        }
        let shown = choices(&mut members);
        if shown.is_empty() {
            return;
        }
        self.open(&on_a_line(&array(&shown)), out);
        let mut rest = String::new();
        for (name, json) in extras(&mut members) {
            for part in [",\"", name, "\":", &json] {
                rest.push_str(part);
            }
        }
        out.extend_from_slice(on_a_line(&rest).as_bytes());
        self.close(out);
    }

    /// The end of a stream that was billed like this.
    pub(crate) fn end(&self, bill: Bill) -> Bytes {
        let mut out = String::new();
        if self.wants_usage {
            let head =
                if self.head.is_empty() { &self.head_of("chat.completion.chunk", 0) } else { &self.head };
            let usage = on_a_line(&self.usage.with(bill)).into_owned();
            for part in ["data: ", head, ",\"choices\":[],\"usage\":", &usage, "}\n\n"] {
                out.push_str(part);
            }
        }
        out.push_str("data: [DONE]\n\n");
        Bytes::from(out)
    }

    /// A whole answer that was billed like this.
    pub(crate) fn whole(&self, json: &[u8], bill: Bill) -> Result<Bytes, Untold> {
        let mut members = Members::any(json).ok_or(Untold("not JSON"))?;
        let created = members.take("created").and_then(|raw| raw.get().parse().ok()).unwrap_or(0);
        let usage = members.take("usage").map(Extras::of).unwrap_or_default();
        let mut out = self.head_of("chat.completion", created);
        let choices = array(&choices(&mut members));
        for part in [",\"choices\":", &choices, ",\"usage\":", &usage.with(bill)] {
            out.push_str(part);
        }
        for (name, json) in extras(&mut members) {
            for part in [",\"", name, "\":", &json] {
                out.push_str(part);
            }
        }
        out.push('}');
        Ok(Bytes::from(out))
    }

    fn head_of(&self, object: &str, created: u64) -> String {
        let (number, model) = (self.number, quoted(&self.model));
        format!(
            r#"{{"id":"chatcmpl-{number:032x}","object":"{object}","created":{created},"model":{model},"system_fingerprint":null"#
        )
    }

    fn open(&self, choices: &str, out: &mut BytesMut) {
        for part in ["data: ", &self.head, ",\"choices\":", choices] {
            out.extend_from_slice(part.as_bytes());
        }
    }

    fn close(&self, out: &mut BytesMut) {
        let usage = if self.wants_usage { ",\"usage\":null}\n\n" } else { "}\n\n" };
        out.extend_from_slice(usage.as_bytes());
    }
}

/// What passes of an answer beside its choices and its usage.
fn extras<'a>(members: &mut Members<'a>) -> impl Iterator<Item = (&'static str, Cow<'a, str>)> {
    let tier = members.take_text("service_tier").and_then(|word| service_tier(&word));
    let padding = members.take_text("obfuscation").map(|text| quoted(&text));
    let tier = tier.map(|word| ("service_tier", Cow::Owned(quoted(word))));
    tier.into_iter().chain(padding.map(|text| ("obfuscation", Cow::Owned(text))))
}

fn choices(members: &mut Members<'_>) -> Vec<String> {
    let all = members.take("choices").and_then(items).unwrap_or_default();
    all.into_iter().filter_map(choice).collect()
}

fn choice(raw: &RawValue) -> Option<String> {
    let mut out = Writer::object();
    for (name, value) in passing(raw, &CHOICE)? {
        match name {
            "message" | "delta" => {
                let said = passing(value, &MESSAGE).map(|said| {
                    let mut out = Writer::object();
                    for (name, value) in said {
                        out.raw(name, value.get());
                    }
                    out.end()
                });
                out.raw(name, said.as_deref().unwrap_or(value.get()));
            }
            "finish_reason" => match text(value) {
                Some(word) => drop(out.text(name, finish(&word))),
                None => drop(out.raw(name, "null")),
            },
            _ => drop(out.raw(name, value.get())),
        }
    }
    Some(out.end())
}

/// The members of an object that may pass, in their order; `None` where it is no object.
fn passing<'a>(raw: &'a RawValue, list: &[&'static str]) -> Option<Vec<(&'static str, &'a RawValue)>> {
    let members = Members::any(raw.get().as_bytes())?;
    let known = |name: &str| list.iter().copied().find(|known| *known == name);
    Some(members.rest().filter_map(|(name, value)| Some((known(&name)?, value))).collect())
}

/// A reason to stop in the contract's words (§6.4).
fn finish(word: &str) -> &'static str {
    match word {
        "max_tokens" => "length",
        word => FINISHES.into_iter().find(|known| *known == word).unwrap_or("stop"),
    }
}

impl Extras {
    fn of(usage: &RawValue) -> Self {
        let details = ["prompt_tokens_details", "completion_tokens_details"];
        let list = [USAGE, details[0], details[1]];
        let members = passing(usage, &list).unwrap_or_default().into_iter();
        Self(
            members
                .filter_map(|(name, value)| {
                    if !details.contains(&name) {
                        let number = value.get().parse::<f64>().is_ok() || value.get() == "null";
                        return number.then(|| (name, value.get().to_owned()));
                    }
                    let mut out = Writer::object();
                    for (name, count) in passing(value, &DETAILS)? {
                        out.raw(name, count.get().parse::<u64>().map_or("null", |_| count.get()));
                    }
                    Some((name, out.end()))
                })
                .collect(),
        )
    }

    /// The usage that was billed; where the supplier's count was not believed, nothing else of it is either.
    fn with(&self, bill: Bill) -> String {
        let mut out = Writer::object();
        out.raw("prompt_tokens", &bill.prompt.to_string());
        out.raw("completion_tokens", &bill.completion.to_string());
        out.raw("total_tokens", &bill.prompt.saturating_add(bill.completion).to_string());
        for (name, json) in self.0.iter().filter(|_| !bill.estimated) {
            out.raw(name, json);
        }
        out.end()
    }
}

/// JSON without line ends, of which an event's data can have none; outside of its strings, where none is, they are only space.
fn on_a_line(json: &str) -> Cow<'_, str> {
    if json.contains(['\n', '\r']) {
        Cow::Owned(json.replace(['\n', '\r'], " "))
    } else {
        Cow::Borrowed(json)
    }
}

#[cfg(test)]
mod tests;
