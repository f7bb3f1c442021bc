//! What may be asked, and the bytes that go to the supplier.
//!
//! The body is read once, borrowing; only fields with a rule are looked at. What goes on is the client's own bytes
//! with a few edits in place: the supplier's model name, `include_usage` for streams, and an output limit where the
//! client set none and the balance needs one. Whatever else is in the body goes through untouched.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use hyper::StatusCode;
use serde::Deserialize;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::reply::Refusal;

/// Largest output limit that is taken for a number of tokens and not for a mistake.
const OUTPUT_TOKENS_MAX: u64 = 100_000_000;
/// Choices of one call (contract §6.3).
const CHOICES_MAX: u64 = 128;
/// Allowed for an image, sound or file that the body only names, in tokens.
const MEDIA_TOKENS: u64 = 4_096;
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
    model: Range<usize>,
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
        Ok(Self {
            symbol: symbol.to_ascii_lowercase(),
            stream,
            wants_usage: stream && options.wanted,
            output_limit,
            choices,
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
        edits.sort_by_key(|(at, _)| at.start);
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

/// An allowance for images, sounds and files, whose tokens don't follow from the bytes of the body.
pub(crate) fn media_tokens(body: &[u8]) -> u64 {
    let kinds = ["\"image_url\"", "\"input_audio\"", "\"file\""];
    let parts = kinds.iter().map(|kind| memchr::memmem::find_iter(body, kind).count() as u64);
    MEDIA_TOKENS * parts.sum::<u64>()
}

/// The fields that have a rule. Whatever else is there is not even looked at.
#[derive(Deserialize)]
struct Peek<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    model: Option<&'a RawValue>,
    messages: Option<Messages>,
    #[serde(borrow, default, deserialize_with = "present")]
    stream: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    stream_options: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    max_tokens: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    max_completion_tokens: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    n: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    temperature: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    top_p: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    frequency_penalty: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    presence_penalty: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    stop: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    logprobs: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    top_logprobs: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    logit_bias: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    response_format: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    tools: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    tool_choice: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    parallel_tool_calls: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    seed: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    service_tier: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    reasoning_effort: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    verbosity: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    prediction: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    web_search_options: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    prompt_cache_key: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    prompt_cache_retention: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    safety_identifier: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    store: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    user: Option<&'a RawValue>,
}

/// `Some` even where the value is null, so that an edit replaces it instead of repeating the key.
fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

impl Peek<'_> {
    fn check(&self) -> Result<(), Refusal> {
        boolean("stream", self.stream)?;
        boolean("logprobs", self.logprobs)?;
        boolean("parallel_tool_calls", self.parallel_tool_calls)?;
        boolean("store", self.store)?;
        number("temperature", self.temperature, 0.0, 2.0)?;
        number("top_p", self.top_p, 0.0, 1.0)?;
        number("frequency_penalty", self.frequency_penalty, -2.0, 2.0)?;
        number("presence_penalty", self.presence_penalty, -2.0, 2.0)?;
        whole("top_logprobs", self.top_logprobs, 0, 20)?;
        if given(self.seed).is_some_and(|raw| serde_json::from_str::<i64>(raw).is_err()) {
            return Err(Refusal::field("seed", "seed must be a whole number"));
        }
        one_of("service_tier", self.service_tier, &["auto", "default", "flex", "scale", "priority"])?;
        one_of(
            "reasoning_effort",
            self.reasoning_effort,
            &["none", "minimal", "low", "medium", "high", "xhigh"],
        )?;
        one_of("verbosity", self.verbosity, &["low", "medium", "high"])?;
        one_of("prompt_cache_retention", self.prompt_cache_retention, &["in-memory", "24h"])?;
        for (param, raw) in [
            ("prompt_cache_key", self.prompt_cache_key),
            ("safety_identifier", self.safety_identifier),
            ("user", self.user),
        ] {
            if given(raw).is_some_and(|raw| !raw.starts_with('"')) {
                return Err(Refusal::field(param, format!("{param} must be a string")));
            }
        }
        for (param, raw) in [("prediction", self.prediction), ("web_search_options", self.web_search_options)]
        {
            if given(raw).is_some_and(|raw| !raw.starts_with('{')) {
                return Err(Refusal::field(param, format!("{param} must be an object")));
            }
        }
        self.check_stop()?;
        self.check_bias()?;
        self.check_format()?;
        self.check_tools()
    }

    fn output_limit(&self) -> Result<Option<u64>, Refusal> {
        let old = whole("max_tokens", self.max_tokens, 1, OUTPUT_TOKENS_MAX)?;
        let new = whole("max_completion_tokens", self.max_completion_tokens, 1, OUTPUT_TOKENS_MAX)?;
        // Suppliers differ in which of the two they heed, so the larger one is what may come.
        Ok(old.max(new))
    }

    fn check_stop(&self) -> Result<(), Refusal> {
        let Some(raw) = given(self.stop) else {
            return Ok(());
        };
        let fits = match serde_json::from_str::<Value>(raw) {
            Ok(Value::String(_)) => true,
            Ok(Value::Array(stops)) => stops.len() <= 4 && stops.iter().all(Value::is_string),
            _ => false,
        };
        if fits { Ok(()) } else { Err(Refusal::field("stop", "stop must be a string or up to 4 strings")) }
    }

    fn check_bias(&self) -> Result<(), Refusal> {
        let Some(raw) = given(self.logit_bias) else {
            return Ok(());
        };
        let fits = matches!(serde_json::from_str::<Value>(raw), Ok(Value::Object(biases))
            if biases.values().all(|bias| bias.as_f64().is_some_and(|bias| (-100.0..=100.0).contains(&bias))));
        if fits {
            Ok(())
        } else {
            Err(Refusal::field("logit_bias", "logit_bias must map tokens to numbers from -100 to 100"))
        }
    }

    fn check_format(&self) -> Result<(), Refusal> {
        #[derive(Deserialize)]
        struct Format {
            r#type: String,
            json_schema: Option<Schema>,
        }
        #[derive(Deserialize)]
        struct Schema {
            name: String,
            #[serde(rename = "schema")]
            _schema: Option<serde_json::Map<String, Value>>,
        }
        let Some(raw) = given(self.response_format) else {
            return Ok(());
        };
        let refusal = |text: &str| Err(Refusal::field("response_format", text));
        match serde_json::from_str::<Format>(raw) {
            Err(_) => {
                refusal("response_format must be an object with a type, and json_schema one with a name")
            }
            Ok(Format { r#type, json_schema }) => match (r#type.as_str(), json_schema) {
                ("text" | "json_object", _) => Ok(()),
                ("json_schema", Some(Schema { name, .. })) if is_name(&name) => Ok(()),
                ("json_schema", _) => {
                    refusal("json_schema needs a name of 1 to 64 letters, digits, dashes and underscores")
                }
                _ => refusal("response_format.type must be text, json_object or json_schema"),
            },
        }
    }

    fn check_tools(&self) -> Result<(), Refusal> {
        #[derive(Deserialize)]
        struct Tool {
            r#type: String,
            function: Option<Function>,
        }
        #[derive(Deserialize)]
        struct Function {
            name: String,
            #[serde(rename = "parameters")]
            _parameters: Option<serde_json::Map<String, Value>>,
        }
        if let Some(raw) = given(self.tools) {
            let tools: Vec<Tool> = serde_json::from_str(raw).map_err(|_| {
                Refusal::field(
                    "tools",
                    "tools must be an array of {type: \"function\", function: {name, ...}}",
                )
            })?;
            for (at, tool) in tools.iter().enumerate() {
                let named = tool.function.as_ref().is_some_and(|function| is_name(&function.name));
                if tool.r#type != "function" || !named {
                    return Err(Refusal::field(
                        "tools",
                        format!(
                            "tools[{at}] must be a function with a name of 1 to 64 letters, digits, dashes and underscores"
                        ),
                    ));
                }
            }
        }
        let Some(raw) = given(self.tool_choice) else {
            return Ok(());
        };
        let fits = match serde_json::from_str::<Value>(raw) {
            Ok(Value::String(choice)) => matches!(choice.as_str(), "none" | "auto" | "required"),
            Ok(Value::Object(choice)) => match choice.get("type").and_then(Value::as_str) {
                Some("function") => {
                    choice.get("function").is_some_and(|function| function["name"].is_string())
                }
                other => other.is_some(),
            },
            _ => false,
        };
        if fits {
            Ok(())
        } else {
            Err(Refusal::field("tool_choice", "tool_choice must be none, auto, required or a named function"))
        }
    }
}

fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// What stream options say, and where.
struct StreamOptions<'a> {
    wanted: bool,
    include_usage: Option<&'a RawValue>,
}

impl<'a> StreamOptions<'a> {
    fn read(raw: Option<&'a RawValue>) -> Result<Self, Refusal> {
        #[derive(Deserialize)]
        struct Options<'a> {
            #[serde(borrow, default, deserialize_with = "present")]
            include_usage: Option<&'a RawValue>,
        }
        let Some(raw) = given(raw) else {
            return Ok(Self { wanted: false, include_usage: None });
        };
        let refusal =
            || Refusal::field("stream_options", "stream_options must be an object; include_usage a boolean");
        let options: Options<'a> = serde_json::from_str(raw).map_err(|_| refusal())?;
        if !raw.starts_with('{') {
            return Err(refusal());
        }
        boolean("stream_options", options.include_usage)?;
        Ok(Self {
            wanted: options.include_usage.is_some_and(|raw| raw.get() == "true"),
            include_usage: options.include_usage,
        })
    }
}

/// How many messages there are, and the first whose role is none.
struct Messages {
    count: usize,
    bad_role: Option<usize>,
}

impl<'de> Deserialize<'de> for Messages {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Message<'a> {
            #[serde(borrow)]
            role: Option<Role<'a>>,
            #[serde(rename = "content")]
            _content: Option<IgnoredAny>,
        }
        #[derive(Deserialize)]
        struct Role<'a>(#[serde(borrow)] Cow<'a, str>);
        struct Count;
        impl<'de> Visitor<'de> for Count {
            type Value = Messages;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an array of messages")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Messages, A::Error> {
                let mut messages = Messages { count: 0, bad_role: None };
                while let Some(message) = items.next_element::<Message<'de>>()? {
                    let known = message.role.is_some_and(|role| {
                        matches!(
                            role.0.as_ref(),
                            "system" | "developer" | "user" | "assistant" | "tool" | "function"
                        )
                    });
                    if !known && messages.bad_role.is_none() {
                        messages.bad_role = Some(messages.count);
                    }
                    messages.count += 1;
                }
                Ok(messages)
            }
        }
        from.deserialize_seq(Count)
    }
}

/// The text of a value that is there and not null.
fn given(raw: Option<&RawValue>) -> Option<&str> {
    raw.map(RawValue::get).filter(|text| *text != "null")
}

fn boolean(param: &'static str, raw: Option<&RawValue>) -> Result<(), Refusal> {
    match given(raw) {
        None | Some("true" | "false") => Ok(()),
        Some(_) => Err(Refusal::field(param, format!("{param} must be true or false"))),
    }
}

fn number(param: &'static str, raw: Option<&RawValue>, min: f64, max: f64) -> Result<(), Refusal> {
    let Some(raw) = given(raw) else {
        return Ok(());
    };
    match serde_json::from_str::<f64>(raw) {
        Ok(value) if (min..=max).contains(&value) => Ok(()),
        _ => Err(Refusal::field(param, format!("{param} must be a number from {min} to {max}"))),
    }
}

fn whole(param: &'static str, raw: Option<&RawValue>, min: u64, max: u64) -> Result<Option<u64>, Refusal> {
    let Some(raw) = given(raw) else {
        return Ok(None);
    };
    match serde_json::from_str::<u64>(raw) {
        Ok(value) if (min..=max).contains(&value) => Ok(Some(value)),
        _ => Err(Refusal::field(param, format!("{param} must be a whole number from {min} to {max}"))),
    }
}

fn one_of(param: &'static str, raw: Option<&RawValue>, words: &[&str]) -> Result<(), Refusal> {
    let Some(raw) = given(raw) else {
        return Ok(());
    };
    match serde_json::from_str::<String>(raw) {
        Ok(word) if words.contains(&word.as_str()) => Ok(()),
        _ => Err(Refusal::field(param, format!("{param} must be one of {}", words.join(", ")))),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(extra: &str) -> Result<ChatRequest, Refusal> {
        let body =
            format!(r#"{{"model":"Text-Prime","messages":[{{"role":"user","content":"hi"}}]{extra}}}"#);
        ChatRequest::parse(Bytes::from(body))
    }

    #[test]
    fn every_field_of_the_contract_has_its_range() {
        let good = [
            "",
            r#","temperature":0"#,
            r#","temperature":2"#,
            r#","temperature":null"#,
            r#","top_p":1,"n":128,"stream":false"#,
            r#","stop":"a""#,
            r#","stop":["a","b","c","d"]"#,
            r#","logprobs":true,"top_logprobs":20"#,
            r#","logit_bias":{"50256":-100}"#,
            r#","response_format":{"type":"json_object"}"#,
            r#","response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{}}}"#,
            r#","tools":[{"type":"function","function":{"name":"f","parameters":{}}}],"tool_choice":"auto""#,
            r#","tools":[],"tool_choice":{"type":"function","function":{"name":"f"}}"#,
            r#","frequency_penalty":-2,"presence_penalty":2,"seed":-5"#,
            r#","service_tier":"flex","reasoning_effort":"xhigh","verbosity":"low""#,
            r#","prompt_cache_retention":"24h","prompt_cache_key":"k","user":"u","store":true"#,
            r#","stream_options":null,"max_tokens":null"#,
            r#","route":"fallback","provider":{"allow_fallbacks":true},"brand_new":[1,{"a":2}]"#,
        ];
        for extra in good {
            assert!(parse(extra).is_ok(), "{extra}: {:?}", parse(extra).err());
        }
        let bad = [
            (r#","temperature":2.1"#, "temperature"),
            (r#","temperature":-0.1"#, "temperature"),
            (r#","temperature":"warm""#, "temperature"),
            (r#","top_p":1.5"#, "top_p"),
            (r#","n":0"#, "n"),
            (r#","n":129"#, "n"),
            (r#","n":1.5"#, "n"),
            (r#","max_tokens":0"#, "max_tokens"),
            (r#","max_tokens":-1"#, "max_tokens"),
            (r#","max_completion_tokens":1e30"#, "max_completion_tokens"),
            (r#","max_completion_tokens":18446744073709551615"#, "max_completion_tokens"),
            (r#","stream":"yes""#, "stream"),
            (r#","stream_options":3"#, "stream_options"),
            (r#","stream_options":[true]"#, "stream_options"),
            (r#","stream_options":{"include_usage":1}"#, "stream_options"),
            (r#","stop":["a","b","c","d","e"]"#, "stop"),
            (r#","stop":7"#, "stop"),
            (r#","logprobs":1"#, "logprobs"),
            (r#","top_logprobs":21"#, "top_logprobs"),
            (r#","logit_bias":{"1":101}"#, "logit_bias"),
            (r#","response_format":"json""#, "response_format"),
            (r#","response_format":{"type":"yaml"}"#, "response_format"),
            (r#","response_format":{"type":"json_schema"}"#, "response_format"),
            (r#","tools":{}"#, "tools"),
            (r#","tools":[{"type":"function"}]"#, "tools"),
            (r#","tools":[{"type":"function","function":{"name":"has space"}}]"#, "tools"),
            (r#","tools":[{"type":"banana","function":{"name":"f"}}]"#, "tools"),
            (r#","tool_choice":"maybe""#, "tool_choice"),
            (r#","tool_choice":{"type":"function"}"#, "tool_choice"),
            (r#","parallel_tool_calls":"no""#, "parallel_tool_calls"),
            (r#","frequency_penalty":3"#, "frequency_penalty"),
            (r#","presence_penalty":-3"#, "presence_penalty"),
            (r#","seed":"s""#, "seed"),
            (r#","service_tier":"gold""#, "service_tier"),
            (r#","reasoning_effort":"extreme""#, "reasoning_effort"),
            (r#","verbosity":"loud""#, "verbosity"),
            (r#","prompt_cache_retention":"48h""#, "prompt_cache_retention"),
            (r#","prediction":"x""#, "prediction"),
            (r#","user":5"#, "user"),
            (r#","store":"x""#, "store"),
        ];
        for (extra, param) in bad {
            let refusal = parse(extra).expect_err(extra);
            assert_eq!((refusal.status.as_u16(), refusal.param), (422, Some(param)), "{extra}");
        }
    }

    #[test]
    fn what_is_not_a_request_is_400_and_what_lacks_a_field_422() {
        for (body, status) in [
            ("", 400),
            ("{", 400),
            ("[]", 400),
            ("null", 400),
            ("\"text\"", 400),
            ("{\"model\":\"a\",\"messages\":[]} trailing", 400),
            ("{\"model\":\"a\",\"model\":\"b\",\"messages\":[{\"role\":\"user\"}]}", 400),
            ("{}", 422),
            ("{\"model\":\"a\"}", 422),
            ("{\"model\":7,\"messages\":[{\"role\":\"user\"}]}", 422),
            ("{\"model\":\"a\",\"messages\":[]}", 422),
            ("{\"model\":\"a\",\"messages\":\"hi\"}", 422),
            ("{\"model\":\"a\",\"messages\":[\"hi\"]}", 422),
            ("{\"model\":\"a\",\"messages\":[{\"role\":\"king\"}]}", 422),
            ("{\"model\":\"a\",\"messages\":[{\"content\":\"x\"}]}", 422),
        ] {
            let refusal = ChatRequest::parse(Bytes::from(body)).expect_err(body);
            assert_eq!(refusal.status.as_u16(), status, "{body}");
        }
        let refusal = ChatRequest::parse(Bytes::from_static(b"{\"model\":\"\xff\"}")).unwrap_err();
        assert_eq!(refusal.status.as_u16(), 400);
        let deep = format!("{{\"model\":\"a\",\"x\":{}", "[".repeat(100_000));
        assert_eq!(ChatRequest::parse(deep.into()).unwrap_err().status.as_u16(), 400);
    }

    #[test]
    fn only_the_named_edits_change_the_bytes() {
        let body = |extra: &str| {
            format!(
                r#" {{ "x":1, "model" : "Text-Prime", "messages":[{{"role":"user","content":"h\u0069 \"model\""}}]{extra}, "z": 1.50 }}"#
            )
        };
        let rewritten = |extra: &str, cap| {
            let request = ChatRequest::parse(body(extra).into()).unwrap();
            String::from_utf8(request.rewritten("qwen/\"next\"", cap).to_vec()).unwrap()
        };
        let expect = |extra: &str, inserted: &str| {
            body(extra).replace("\"Text-Prime\"", r#""qwen/\"next\"""#).replacen(
                " {",
                &format!(" {{{inserted}"),
                1,
            )
        };
        let asked = r#""stream_options":{"include_usage":true},"#;
        assert_eq!(rewritten("", None), expect("", ""));
        assert_eq!(rewritten("", Some(9)), expect("", "\"max_tokens\":9,"));
        assert_eq!(rewritten(r#","max_tokens":5"#, Some(9)), expect(r#","max_tokens":5"#, ""));
        assert_eq!(rewritten(r#","max_tokens":null"#, Some(9)), expect(r#","max_tokens":9"#, ""));
        assert_eq!(rewritten(r#","stream":true"#, None), expect(r#","stream":true"#, asked));
        for (given, sent) in [
            ("null", r#"{"include_usage":true}"#),
            ("{ }", r#"{"include_usage":true }"#),
            (r#"{"include_usage": false, "a":1}"#, r#"{"include_usage": true, "a":1}"#),
            (r#"{"a":1}"#, r#"{"include_usage":true,"a":1}"#),
        ] {
            let options = |value: &str| format!(r#","stream":true,"stream_options":{value}"#);
            assert_eq!(rewritten(&options(given), None), expect(&options(sent), ""), "{given}");
        }
    }

    #[test]
    fn the_prompt_bound_is_above_every_count() {
        for text in ["", "hello", "\u{1f680}\u{1f680}", "a b c d e f", "x\ny", "信息"] {
            let body = serde_json::json!({"model": "m", "messages": [{"role": "user", "content": text}]})
                .to_string();
            let bound = ChatRequest::parse(body.into()).unwrap().prompt_bound();
            assert!(bound > crate::tokens::count(text) + 4 && bound > crate::tokens::words(text));
        }
    }

    #[test]
    fn the_client_s_wish_for_usage_is_remembered() {
        for (extra, wants) in [
            (r#","stream":true"#, false),
            (r#","stream":true,"stream_options":{"include_usage":true}"#, true),
            (r#","stream":true,"stream_options":{"include_usage":false}"#, false),
            (r#","stream_options":{"include_usage":true}"#, false),
        ] {
            assert_eq!(parse(extra).unwrap().wants_usage, wants, "{extra}");
        }
    }
}
