//! What a supplier's JSON says: texts to be counted, reasons to stop, usage, errors.
//!
//! Three readings of each: one pass for the usual chunk (`lean`), a typed one that borrows, for what suppliers send all
//! day, and a lenient walk over a `Value` for odd shapes, so that an unusual field never turns a good answer into a failure.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::lean;

/// Token counts as a supplier reported them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reported {
    pub(crate) prompt: u64,
    pub(crate) completion: u64,
}

/// What one event, or one whole answer, says.
#[derive(Debug, Default)]
pub(crate) struct Said<'a> {
    pub(crate) created: u64,
    /// Generated text by choice, in order.
    pub(crate) texts: Vec<(u64, Cow<'a, str>)>,
    /// A choice gave its reason to stop.
    pub(crate) finished: bool,
    /// Whether there is any choice.
    pub(crate) choices: bool,
    pub(crate) usage: Option<Reported>,
    /// Some member is called `usage`, null or not.
    pub(crate) has_usage_key: bool,
    /// It is neither null nor anything that could be read.
    pub(crate) odd_usage: bool,
    /// An error instead of an answer, as JSON.
    pub(crate) error: Option<Cow<'a, str>>,
    /// The parts of a chunk that has nothing else.
    pub(crate) plain: Option<Plain<'a>>,
}

/// A chunk of the usual form, in which nothing is that nobody knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plain<'a> {
    /// The array of choices, as it came, on one line.
    pub(crate) choices: &'a str,
    /// Texts without escapes.
    pub(crate) service_tier: Option<&'a str>,
    pub(crate) obfuscation: Option<&'a str>,
}

/// Reasons to stop (contract §6.4), and the one of the older function calls.
pub(crate) const FINISHES: [&str; 5] = ["stop", "length", "tool_calls", "content_filter", "function_call"];

impl Said<'_> {
    /// Whether the client has got something of the completion with this: text, a reason to stop, or the bill.
    pub(crate) fn is_content(&self) -> bool {
        self.finished || self.usage.is_some() || self.texts.iter().any(|(_, text)| !text.is_empty())
    }
}

/// Not JSON, or not an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a JSON object")]
pub(crate) struct NotJson;

/// Reads a chunk of a stream (`delta`) or a whole answer (`message`).
pub(crate) fn read(json: &[u8]) -> Result<Said<'_>, NotJson> {
    lean::read(json).map_or_else(|| careful(json), Ok)
}

/// The same of any form.
pub(crate) fn careful(json: &[u8]) -> Result<Said<'_>, NotJson> {
    match serde_json::from_slice::<Chunk<'_>>(json) {
        Ok(chunk) => Ok(chunk.said()),
        Err(error) if error.is_data() => lenient(json),
        Err(_) => Err(NotJson),
    }
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(default)]
    created: u64,
    #[serde(borrow, default)]
    choices: Vec<Choice<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    x_groq: Option<Extra<'a>>,
}

#[derive(Deserialize)]
struct Extra<'a> {
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    index: u64,
    #[serde(borrow, alias = "message")]
    delta: Option<Delta<'a>>,
    #[serde(borrow)]
    finish_reason: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow)]
    content: Option<Text<'a>>,
    #[serde(borrow)]
    reasoning_content: Option<Text<'a>>,
    #[serde(borrow)]
    reasoning: Option<Text<'a>>,
    #[serde(borrow)]
    refusal: Option<Text<'a>>,
    #[serde(borrow)]
    tool_calls: Option<Vec<Tool<'a>>>,
    #[serde(borrow)]
    function_call: Option<Function<'a>>,
}

#[derive(Deserialize)]
struct Tool<'a> {
    #[serde(borrow)]
    function: Option<Function<'a>>,
}

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    arguments: Option<Text<'a>>,
}

/// `Some` even where the value is null, so that a present key can be told from an absent one.
fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

impl<'a> Chunk<'a> {
    fn said(self) -> Said<'a> {
        let mut said = Said {
            created: self.created,
            choices: !self.choices.is_empty(),
            has_usage_key: self.usage.is_some(),
            error: self.error.map(|raw| Cow::Borrowed(raw.get())),
            ..Said::default()
        };
        let usage = self.usage.and_then(reported_raw);
        said.odd_usage = usage.is_none() && self.usage.is_some_and(|raw| raw.get() != "null");
        said.usage = usage.or_else(|| self.x_groq?.usage.and_then(reported_raw));
        for choice in self.choices {
            said.finished |= choice.finish_reason.is_some();
            let Some(delta) = choice.delta else { continue };
            let tools = delta.tool_calls.unwrap_or_default();
            let functions = tools.into_iter().filter_map(|tool| tool.function).chain(delta.function_call);
            let called = functions.flat_map(|function| [function.name, function.arguments]);
            let texts = [delta.reasoning_content, delta.reasoning, delta.content, delta.refusal]
                .into_iter()
                .chain(called)
                .flatten();
            said.texts.extend(texts.map(|text| (choice.index, text.0)));
        }
        said
    }
}

fn reported_raw(raw: &RawValue) -> Option<Reported> {
    reported(&serde_json::from_str(raw.get()).ok()?)
}

/// OpenAI's names first, then Anthropic's; a count that is no whole number is no count.
fn reported(usage: &Value) -> Option<Reported> {
    let count = |names: [&str; 2]| names.iter().find_map(|name| usage.get(name)?.as_u64());
    let completion = count(["completion_tokens", "output_tokens"]);
    let prompt = count(["prompt_tokens", "input_tokens"]);
    match (prompt, completion) {
        (Some(prompt), completion) => Some(Reported {
            prompt,
            completion: completion.or_else(|| usage.get("total_tokens")?.as_u64()?.checked_sub(prompt))?,
        }),
        (None, _) => None,
    }
}

fn lenient<'a>(json: &[u8]) -> Result<Said<'a>, NotJson> {
    let value: Value = serde_json::from_slice(json).map_err(|_| NotJson)?;
    if !value.is_object() {
        return Err(NotJson);
    }
    let mut said = Said {
        created: value["created"].as_u64().unwrap_or(0),
        usage: reported(&value["usage"]).or_else(|| reported(&value["x_groq"]["usage"])),
        has_usage_key: value.get("usage").is_some(),
        odd_usage: !value["usage"].is_null() && reported(&value["usage"]).is_none(),
        error: value.get("error").filter(|error| !error.is_null()).map(|error| Cow::Owned(error.to_string())),
        ..Said::default()
    };
    for (at, choice) in value["choices"].as_array().into_iter().flatten().enumerate() {
        said.choices = true;
        said.finished |= !choice["finish_reason"].is_null();
        let index = choice["index"].as_u64().unwrap_or(at as u64);
        for part in ["delta", "message"] {
            strings(&choice[part], &mut |text| {
                said.texts.push((index, Cow::Owned(text.to_owned())));
            });
        }
    }
    Ok(said)
}

/// Every string that stands for generated text, skipping names of kinds.
pub(crate) fn strings(value: &Value, each: &mut dyn FnMut(&str)) {
    match value {
        Value::String(text) => each(text),
        Value::Array(items) => items.iter().for_each(|item| strings(item, each)),
        Value::Object(members) => {
            for (name, member) in members {
                if !matches!(name.as_str(), "role" | "type" | "id" | "tool_call_id" | "detail") {
                    strings(member, each);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_found_wherever_suppliers_put_it() {
        let both = Some(Reported { prompt: 3, completion: 4 });
        for (json, usage) in [
            (r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}"#, both),
            (r#"{"choices":[{"delta":{}}],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#, both),
            (r#"{"choices":[],"x_groq":{"usage":{"prompt_tokens":3,"completion_tokens":4}}}"#, both),
            (r#"{"usage":{"prompt_tokens":1},"usage":{"prompt_tokens":3,"completion_tokens":4}}"#, both),
            (r#"{"usage":{"prompt_tokens":3,"total_tokens":7}}"#, both),
            (r#"{"usage":{"input_tokens":3,"output_tokens":4}}"#, both),
            (r#"{"choices":[],"usage":null}"#, None),
            (r#"{"choices":[],"usage":{"prompt_tokens":-3,"completion_tokens":4}}"#, None),
            (r#"{"choices":[],"usage":{"prompt_tokens":3.5,"completion_tokens":"4"}}"#, None),
            (r#"{"choices":[],"usage":"none"}"#, None),
            (
                r#"{"choices":[{"delta":{"content":"\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":9}"}}]}"#,
                None,
            ),
        ] {
            assert_eq!(read(json.as_bytes()).unwrap().usage, usage, "{json}");
        }
        for (json, odd) in [
            (r#"{"choices":[],"usage":null}"#, false),
            (r#"{"choices":[]}"#, false),
            (r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#, false),
            (r#"{"choices":[],"usage":{"prompt_tokens":-3,"completion_tokens":4}}"#, true),
            (r#"{"choices":[],"usage":"none"}"#, true),
            (r#"{"choices":"odd","usage":"none"}"#, true),
        ] {
            assert_eq!(read(json.as_bytes()).unwrap().odd_usage, odd, "{json}");
        }
    }

    #[test]
    fn every_kind_of_generated_text_is_collected() {
        let json = r#"{"choices":[{"index":1,"delta":{"role":"assistant","content":"a\n","reasoning_content":"b",
            "refusal":null,"tool_calls":[{"index":0,"id":"call_1","type":"function",
            "function":{"name":"c","arguments":"d"}}]},"finish_reason":null}]}"#;
        let said = read(json.as_bytes()).unwrap();
        let texts: Vec<&str> = said.texts.iter().map(|(_, text)| text.as_ref()).collect();
        assert_eq!(texts, ["b", "a\n", "c", "d"]);
        assert!(said.texts.iter().all(|(choice, _)| *choice == 1));
        assert!(said.is_content() && !said.finished);
    }

    #[test]
    fn odd_shapes_are_read_leniently_and_broken_ones_refused() {
        let odd = r#"{"choices":[{"delta":{"content":[{"type":"text","text":"hello"}]}}],"created":1.5}"#;
        assert_eq!(read(odd.as_bytes()).unwrap().texts, [(0, Cow::Borrowed("hello"))]);
        for broken in ["", "{", "not json", "[]", "{\"a\":1}}"] {
            assert_eq!(read(broken.as_bytes()).err(), Some(NotJson), "{broken}");
        }
    }

    #[test]
    fn a_role_alone_is_no_content() {
        for (json, content) in [
            (r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#, false),
            (r#"{"choices":[]}"#, false),
            (r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#, true),
            (r#"{"choices":[{"delta":{"content":"x"}}]}"#, true),
        ] {
            assert_eq!(read(json.as_bytes()).unwrap().is_content(), content, "{json}");
        }
        let said = read(br#"{"error":{"message":"no"}}"#).unwrap();
        assert_eq!(said.error.as_deref(), Some(r#"{"message":"no"}"#));
    }
}
