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
use serde::de::{SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::choice;
use crate::needs::{Need, Needs};
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

/// Whether the messages have a part of this type.
fn has_part(body: &[u8], kind: &str) -> bool {
    memchr::memmem::find_iter(body, kind).any(|at| {
        let before = body[..at].trim_ascii_end().strip_suffix(b":");
        before.is_some_and(|before| before.trim_ascii_end().ends_with(b"\"type\""))
    })
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
    #[serde(borrow)]
    messages: Option<Messages<'a>>,
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
    #[serde(borrow, default, deserialize_with = "present")]
    functions: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    function_call: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    modalities: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    metadata: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    audio: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    route: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    provider: Option<&'a RawValue>,
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
        for (param, raw) in [
            ("prediction", self.prediction),
            ("web_search_options", self.web_search_options),
            ("metadata", self.metadata),
            ("audio", self.audio),
            ("provider", self.provider),
        ] {
            if given(raw).is_some_and(|raw| !raw.starts_with('{')) {
                return Err(Refusal::field(param, format!("{param} must be an object")));
            }
        }
        if given(self.top_logprobs).is_some() && given(self.logprobs) != Some("true") {
            return Err(Refusal::field("top_logprobs", "top_logprobs needs logprobs to be true"));
        }
        if given(self.route).is_some_and(|raw| !raw.starts_with('"')) {
            return Err(Refusal::field("route", "route must be a string"));
        }
        let strings = |raw| serde_json::from_str::<Vec<String>>(raw).is_ok();
        if given(self.modalities).is_some_and(|raw| !strings(raw)) {
            return Err(Refusal::field("modalities", "modalities must be an array of strings"));
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

    /// What not every supplier can do.
    fn needs(&self, choices: u64, body: &[u8]) -> Needs {
        let is = |raw, word| given(raw) == Some(word);
        let set = |raw| given(raw).is_some();
        let filled = |raw| {
            let inside = given(raw).and_then(|text| text.get(1..text.len() - 1));
            inside.is_some_and(|inside| !inside.trim_ascii().is_empty())
        };
        let has = |raw, word| given(raw).is_some_and(|text: &str| text.contains(word));
        let tools = filled(self.tools) || filled(self.functions);
        let free = |raw| matches!(given(raw), None | Some("\"auto\"" | "\"none\""));
        Needs::default()
            .with(Need::Tools, tools)
            .with(Need::ToolChoice, tools && !(free(self.tool_choice) && free(self.function_call)))
            .with(Need::ParallelToolCalls, tools && set(self.parallel_tool_calls))
            .with(Need::JsonObject, has(self.response_format, "\"json_object\""))
            .with(Need::JsonSchema, has(self.response_format, "\"json_schema\""))
            .with(Need::Logprobs, is(self.logprobs, "true"))
            .with(Need::LogitBias, filled(self.logit_bias))
            .with(Need::Choices, choices > 1)
            .with(Need::Seed, set(self.seed))
            .with(Need::Stop, filled(self.stop))
            .with(Need::Sampling, varies(self.temperature, 1.0) || varies(self.top_p, 1.0))
            .with(Need::Penalties, varies(self.frequency_penalty, 0.0) || varies(self.presence_penalty, 0.0))
            .with(Need::ReasoningEffort, set(self.reasoning_effort))
            .with(Need::Verbosity, set(self.verbosity))
            .with(Need::Prediction, set(self.prediction))
            .with(Need::WebSearch, set(self.web_search_options))
            .with(
                Need::ServiceTier,
                !matches!(given(self.service_tier), None | Some("\"auto\"" | "\"default\"")),
            )
            .with(Need::CacheRetention, is(self.prompt_cache_retention, "\"24h\""))
            .with(Need::Images, has_part(body, "\"image_url\""))
            .with(Need::AudioIn, has_part(body, "\"input_audio\""))
            .with(Need::AudioOut, has(self.modalities, "\"audio\""))
            .with(Need::Files, has_part(body, "\"file\""))
            .with(Need::Store, is(self.store, "true"))
    }

    fn affinity(&self) -> Option<u64> {
        let key = given(self.prompt_cache_key).map(str::as_bytes);
        let first = || self.messages.as_ref()?.first?.get().as_bytes().get(..PREFIX_BYTES);
        key.or_else(first).map(choice::hash)
    }

    fn fallbacks(&self) -> Result<bool, Refusal> {
        #[derive(Deserialize)]
        struct Provider {
            allow_fallbacks: Option<bool>,
        }
        let Some(raw) = given(self.provider) else {
            return Ok(true);
        };
        let provider: Provider = serde_json::from_str(raw)
            .map_err(|_| Refusal::field("provider", "provider.allow_fallbacks must be true or false"))?;
        Ok(provider.allow_fallbacks.unwrap_or(true))
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

/// How many messages there are, the first whose role is none, and what the first one says.
struct Messages<'a> {
    count: usize,
    bad_role: Option<usize>,
    first: Option<&'a RawValue>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Messages<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Message<'a> {
            #[serde(borrow)]
            role: Option<Role<'a>>,
            #[serde(borrow)]
            content: Option<&'a RawValue>,
        }
        #[derive(Deserialize)]
        struct Role<'a>(#[serde(borrow)] Cow<'a, str>);
        struct Count;
        impl<'de> Visitor<'de> for Count {
            type Value = Messages<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an array of messages")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Messages<'de>, A::Error> {
                let mut messages = Messages { count: 0, bad_role: None, first: None };
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
                    if messages.count == 0 {
                        messages.first = message.content;
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

/// Whether a number is given that is not what everybody does anyway.
fn varies(raw: Option<&RawValue>, usual: f64) -> bool {
    given(raw).and_then(|raw| raw.parse::<f64>().ok()).is_some_and(|value| (value - usual).abs() > 0.0)
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
            r#","modalities":["text"],"metadata":{"a":"b"},"audio":null,"provider":{"order":["x"]}"#,
            r#","parallel_tool_calls":true,"prediction":{"type":"content","content":"x"},"web_search_options":{}"#,
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
            (r#","top_logprobs":2"#, "top_logprobs"),
            (r#","logprobs":false,"top_logprobs":2"#, "top_logprobs"),
            (r#","modalities":"text""#, "modalities"),
            (r#","metadata":[]"#, "metadata"),
            (r#","audio":"loud""#, "audio"),
            (r#","route":5"#, "route"),
            (r#","provider":"acme""#, "provider"),
            (r#","provider":{"allow_fallbacks":"no"}"#, "provider"),
            (r#","web_search_options":true"#, "web_search_options"),
            (r#","prompt_cache_key":7"#, "prompt_cache_key"),
            (r#","safety_identifier":[]"#, "safety_identifier"),
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
    fn what_a_supplier_must_be_able_to_do_follows_from_the_fields() {
        let tool = r#""tools":[{"type":"function","function":{"name":"f"}}]"#;
        let image =
            r#""messages":[{"role":"user","content":[{"type" : "image_url","image_url":{"url":"x"}}]}]"#;
        for (extra, needs) in [
            (String::new(), vec![]),
            (r#","temperature":1,"top_p":null,"n":1,"logprobs":false,"tools":[ ],"logit_bias":{}"#.into(), vec![]),
            (r#","service_tier":"auto","prompt_cache_retention":"in-memory","presence_penalty":0"#.into(), vec![]),
            (format!(",{tool}"), vec![Need::Tools]),
            (format!(",{tool},\"tool_choice\":\"auto\""), vec![Need::Tools]),
            (
                format!(",{tool},\"tool_choice\":\"required\",\"parallel_tool_calls\":false"),
                vec![Need::Tools, Need::ToolChoice, Need::ParallelToolCalls],
            ),
            (r#","response_format":{"type":"json_object"}"#.into(), vec![Need::JsonObject]),
            (
                r#","response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{}}}"#.into(),
                vec![Need::JsonSchema],
            ),
            (r#","logprobs":true,"top_logprobs":3,"n":2"#.into(), vec![Need::Logprobs, Need::Choices]),
            (r#","logit_bias":{"1":5},"seed":0,"stop":"x""#.into(), vec![Need::LogitBias, Need::Seed, Need::Stop]),
            (r#","temperature":0,"frequency_penalty":1"#.into(), vec![Need::Sampling, Need::Penalties]),
            (
                r#","reasoning_effort":"none","verbosity":"low","prediction":{},"web_search_options":{}"#.into(),
                vec![Need::ReasoningEffort, Need::Verbosity, Need::Prediction, Need::WebSearch],
            ),
            (
                r#","service_tier":"flex","prompt_cache_retention":"24h","store":true,"modalities":["text","audio"]"#
                    .into(),
                vec![Need::ServiceTier, Need::CacheRetention, Need::AudioOut, Need::Store],
            ),
        ] {
            assert_eq!(parse(&extra).unwrap().needs, needs.iter().copied().collect(), "{extra}");
        }
        let body = format!(r#"{{"model":"m",{image}}}"#);
        let needs = ChatRequest::parse(body.into()).unwrap().needs;
        assert_eq!(needs, [Need::Images].into_iter().collect());
        let only_named = r#","tools":[{"type":"function","function":{"name":"f","parameters":{"properties":{"file":{}}}}}]"#;
        assert_eq!(parse(only_named).unwrap().needs, [Need::Tools].into_iter().collect());
    }

    #[test]
    fn fields_that_speak_to_the_venue_stay_here() {
        for (given, sent) in [
            (r#","route":"fallback","x":1"#, r#","x":1"#),
            (r#","provider" : {"allow_fallbacks":false} "#, r#" "#),
            (r#","route":"fallback","provider":{"a":[1,"}"]},"z":2"#, r#","z":2"#),
            (r#","provider":{},"z":2,"route":"fallback""#, r#","z":2"#),
            (r#", "route":"fallback" , "provider":{}"#, r#""#),
        ] {
            let request = parse(given).unwrap();
            let sent = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}]{sent}}}"#);
            let rewritten = request.rewritten("m", None);
            assert_eq!(std::str::from_utf8(&rewritten).unwrap(), sent, "{given}");
        }
        let first = r#"{"route":"fallback", "model":"a","messages":[{"role":"user","content":"x"}]}"#;
        let rewritten = ChatRequest::parse(first.into()).unwrap().rewritten("m", Some(5));
        assert_eq!(
            rewritten,
            r#"{"max_tokens":5, "model":"m","messages":[{"role":"user","content":"x"}]}"#.as_bytes()
        );
        assert!(!parse(r#","provider":{"allow_fallbacks":false}"#).unwrap().fallbacks);
        assert!(parse(r#","provider":{"order":[]}"#).unwrap().fallbacks);
    }

    #[test]
    fn prompts_that_begin_alike_belong_together() {
        let affinity = |extra: &str| parse(extra).unwrap().affinity;
        assert_eq!(affinity(r#","prompt_cache_key":"k""#), affinity(r#","prompt_cache_key":"k","seed":2"#));
        assert_ne!(affinity(r#","prompt_cache_key":"j""#), affinity(r#","prompt_cache_key":"k""#));
        assert_eq!((affinity(""), affinity(r#","prompt_cache_key":null"#)), (None, None));
        let long = |end: &str| {
            let text = "system ".repeat(200);
            let body = format!(
                r#"{{"model":"m","messages":[{{"role":"system","content":"{text}{end}"}},{{"role":"user","content":"{end}"}}]}}"#
            );
            ChatRequest::parse(body.into()).unwrap().affinity
        };
        assert!(long("x").is_some());
        assert_eq!(long("x"), long("y"));
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
