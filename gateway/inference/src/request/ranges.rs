//! The ranges of contract §6.3: every field that has one is checked here, and the first that is out of it is named.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::peek::Peek;

/// Every field of contract §6.3 that suppliers get.
const FIELDS: [&str; 32] = [
    "model",
    "messages",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "n",
    "stream",
    "stream_options",
    "stop",
    "logprobs",
    "top_logprobs",
    "logit_bias",
    "response_format",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "frequency_penalty",
    "presence_penalty",
    "seed",
    "service_tier",
    "reasoning_effort",
    "verbosity",
    "prediction",
    "web_search_options",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "store",
    "metadata",
    "modalities",
    "audio",
];

/// The tiers of service (contract §6.3).
pub(crate) const SERVICE_TIERS: [&str; 5] = ["auto", "default", "flex", "scale", "priority"];

/// The field that a supplier means by `tools[0].function.name`, where the contract has it.
pub(crate) fn field_of(param: &str) -> Option<&'static str> {
    let name = param.split(['.', '[']).next().unwrap_or_default();
    FIELDS.into_iter().find(|field| *field == name)
}
use crate::reply::Refusal;

impl Peek<'_> {
    /// 422 for the first field that is out of its range.
    pub(super) fn check(&self) -> Result<(), Refusal> {
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
        one_of("service_tier", self.service_tier, &SERVICE_TIERS)?;
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

/// The text of a value that is there and not null.
pub(super) fn given(raw: Option<&RawValue>) -> Option<&str> {
    raw.map(RawValue::get).filter(|text| *text != "null")
}

pub(super) fn boolean(param: &'static str, raw: Option<&RawValue>) -> Result<(), Refusal> {
    match given(raw) {
        None | Some("true" | "false") => Ok(()),
        Some(_) => Err(Refusal::field(param, format!("{param} must be true or false"))),
    }
}

pub(super) fn number(param: &'static str, raw: Option<&RawValue>, min: f64, max: f64) -> Result<(), Refusal> {
    let Some(raw) = given(raw) else {
        return Ok(());
    };
    match serde_json::from_str::<f64>(raw) {
        Ok(value) if (min..=max).contains(&value) => Ok(()),
        _ => Err(Refusal::field(param, format!("{param} must be a number from {min} to {max}"))),
    }
}

/// Whether a number is given that is not what everybody does anyway.
pub(super) fn varies(raw: Option<&RawValue>, usual: f64) -> bool {
    given(raw).and_then(|raw| raw.parse::<f64>().ok()).is_some_and(|value| (value - usual).abs() > 0.0)
}

pub(super) fn whole(
    param: &'static str,
    raw: Option<&RawValue>,
    min: u64,
    max: u64,
) -> Result<Option<u64>, Refusal> {
    let Some(raw) = given(raw) else {
        return Ok(None);
    };
    match serde_json::from_str::<u64>(raw) {
        Ok(value) if (min..=max).contains(&value) => Ok(Some(value)),
        _ => Err(Refusal::field(param, format!("{param} must be a whole number from {min} to {max}"))),
    }
}

pub(super) fn one_of(param: &'static str, raw: Option<&RawValue>, words: &[&str]) -> Result<(), Refusal> {
    let Some(raw) = given(raw) else {
        return Ok(());
    };
    match serde_json::from_str::<String>(raw) {
        Ok(word) if words.contains(&word.as_str()) => Ok(()),
        _ => Err(Refusal::field(param, format!("{param} must be one of {}", words.join(", ")))),
    }
}
