//! A request as it stands: the fields that have a rule, borrowed from the body. Whatever else is there is not even
//! looked at.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::{SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::ranges::{boolean, given, varies, whole};
use super::{OUTPUT_TOKENS_MAX, PREFIX_BYTES};
use crate::choice;
use crate::needs::{Need, Needs};
use crate::reply::Refusal;

/// The fields that have a rule. Whatever else is there is not even looked at.
#[derive(Deserialize)]
pub(super) struct Peek<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) model: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) messages: Option<Messages<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) stream: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) stream_options: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) max_tokens: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) max_completion_tokens: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) n: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) temperature: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) top_p: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) frequency_penalty: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) presence_penalty: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) stop: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) logprobs: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) top_logprobs: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) logit_bias: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) response_format: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) tools: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) tool_choice: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) parallel_tool_calls: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) seed: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) service_tier: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) reasoning_effort: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) verbosity: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) prediction: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) web_search_options: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) prompt_cache_key: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) prompt_cache_retention: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) safety_identifier: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) store: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) user: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) functions: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) function_call: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) modalities: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) metadata: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) audio: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) route: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) provider: Option<&'a RawValue>,
}

/// `Some` even where the value is null, so that an edit replaces it instead of repeating the key.
fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

impl Peek<'_> {
    pub(super) fn output_limit(&self) -> Result<Option<u64>, Refusal> {
        let old = whole("max_tokens", self.max_tokens, 1, OUTPUT_TOKENS_MAX)?;
        let new = whole("max_completion_tokens", self.max_completion_tokens, 1, OUTPUT_TOKENS_MAX)?;
        // Suppliers differ in which of the two they heed, so the larger one is what may come.
        Ok(old.max(new))
    }

    /// What not every supplier can do.
    pub(super) fn needs(&self, choices: u64, body: &[u8]) -> Needs {
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

    pub(super) fn affinity(&self) -> Option<u64> {
        let key = given(self.prompt_cache_key).map(str::as_bytes);
        let first = || self.messages.as_ref()?.first?.get().as_bytes().get(..PREFIX_BYTES);
        key.or_else(first).map(choice::hash)
    }

    pub(super) fn fallbacks(&self) -> Result<bool, Refusal> {
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
}

/// Whether the messages have a part of this type.
fn has_part(body: &[u8], kind: &str) -> bool {
    memchr::memmem::find_iter(body, kind).any(|at| {
        let before = body[..at].trim_ascii_end().strip_suffix(b":");
        before.is_some_and(|before| before.trim_ascii_end().ends_with(b"\"type\""))
    })
}

/// What stream options say, and where.
pub(super) struct StreamOptions<'a> {
    pub(super) wanted: bool,
    pub(super) include_usage: Option<&'a RawValue>,
}

impl<'a> StreamOptions<'a> {
    pub(super) fn read(raw: Option<&'a RawValue>) -> Result<Self, Refusal> {
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
pub(super) struct Messages<'a> {
    pub(super) count: usize,
    pub(super) bad_role: Option<usize>,
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
