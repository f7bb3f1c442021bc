//! A chat completion request as a Messages request.
//!
//! | chat completions | Messages |
//! |---|---|
//! | `system` and `developer` messages at the beginning | `system` |
//! | text, `image_url`, PDF `file` | text, image, document blocks |
//! | `tool_calls` / `tool` messages | `tool_use` / `tool_result` blocks |
//! | the larger of `max_tokens` and `max_completion_tokens` | `max_tokens` |
//! | `stop`, `temperature` up to 1, `top_p`, `top_k`, `stream` | `stop_sequences`, the same names |
//! | function tools, `tool_choice`, `parallel_tool_calls` | `tools`, `tool_choice` |
//! | `response_format` `json_schema` | `output_config.format` |
//! | `reasoning_effort` | `thinking`, `output_config.effort` |
//! | `safety_identifier` or `user` | `metadata.user_id` |
//! | `prompt_cache_key`, `prompt_cache_retention` | `cache_control`: its own prefix is cached |
//! | `service_tier` `auto`, `default` | `auto`, `standard_only` |
//! | `stream_options`, `route`, `provider` | nothing: usage always comes, and the venue itself routes |
//!
//! All else steers the call to another supplier, fields that nobody knows included: this one would refuse them.

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::dialect::members::{Members, Writer, array, is_text, items, quoted, text};

/// A supplier that speaks Messages can't be asked this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} can't be said in Messages")]
pub(crate) struct Unasked(pub(crate) String);

impl Unasked {
    /// The field that it is about, or a part of it.
    pub(crate) fn field(&self) -> &str {
        self.0.split([' ', ':']).next().unwrap_or_default()
    }
}

fn unasked<T>(what: impl Into<String>) -> Result<T, Unasked> {
    Err(Unasked(what.into()))
}

/// The Messages request that says the same to the model `model`; `output` is the limit where the request names none.
pub(crate) fn write(chat: &[u8], model: &str, output: u64) -> Result<Bytes, Unasked> {
    let mut chat = Members::body(chat).map_err(|_| Unasked("the body".into()))?;
    let mut asked = Writer::object();
    chat.take("model");
    asked.text("model", model);
    let limits = ["max_tokens", "max_completion_tokens"];
    let limits = limits.map(|name| chat.take(name).and_then(|raw| raw.get().parse::<u64>().ok()));
    asked.raw("max_tokens", &limits.into_iter().flatten().max().unwrap_or(output).to_string());
    conversation(chat.take("messages"), &mut asked)?;
    for same in ["stream", "top_p", "top_k"] {
        asked.carry(same, chat.take(same));
    }
    if let Some(temperature) = chat.take("temperature") {
        if temperature.get().parse::<f64>().is_ok_and(|heat| heat > 1.0) {
            return unasked("temperature above 1");
        }
        asked.raw("temperature", temperature.get());
    }
    if let Some(stop) = chat.take("stop") {
        let one = format!("[{}]", stop.get());
        asked.raw("stop_sequences", if is_text(stop) { &one } else { stop.get() });
    }
    tools(&mut chat, &mut asked)?;
    effort_and_format(&mut chat, &mut asked)?;
    let user = chat.take("user");
    if let Some(user) = chat.take("safety_identifier").or(user) {
        asked.raw("metadata", &format!(r#"{{"user_id":{}}}"#, user.get()));
    }
    let cached = [chat.take("prompt_cache_key"), chat.take("prompt_cache_retention")];
    if cached.iter().any(Option::is_some) {
        asked.raw("cache_control", r#"{"type":"ephemeral"}"#);
    }
    match chat.take_text("service_tier").as_deref() {
        None => {}
        Some("auto") => drop(asked.text("service_tier", "auto")),
        Some("default") => drop(asked.text("service_tier", "standard_only")),
        Some(other) => return unasked(format!("service_tier {other}")),
    }
    for ours in ["stream_options", "route", "provider"] {
        chat.take(ours);
    }
    // Values that ask for what happens anyway.
    let idle = |name: &str, value: &str| {
        matches!(
            (name, value),
            ("n", "1")
                | ("logprobs" | "store", "false")
                | ("top_logprobs" | "frequency_penalty" | "presence_penalty", "0" | "0.0")
                | ("logit_bias" | "metadata", "{}")
                | ("modalities", r#"["text"]"#)
                | ("verbosity", r#""medium""#)
        )
    };
    match chat.rest().find(|(name, value)| value.get() != "null" && !idle(name, value.get())) {
        Some((name, _)) => unasked(name),
        None => Ok(Bytes::from(asked.end())),
    }
}

// -- the conversation ----------------------------------------------------------------------------------------------

fn conversation(messages: Option<&RawValue>, asked: &mut Writer) -> Result<(), Unasked> {
    let messages = messages.and_then(items).ok_or_else(|| Unasked("messages".into()))?;
    let (mut system, mut turns) = (Vec::new(), Vec::new());
    // Results of the tools that one turn called belong into one message.
    let mut results: Vec<String> = Vec::new();
    for (at, message) in messages.into_iter().enumerate() {
        let place = format!("messages[{at}]");
        let mut message = read(message, &place)?;
        let role = message.take_text("role").unwrap_or_default();
        let content = message.take("content");
        if role != "tool" {
            flush(&mut results, &mut turns);
        }
        match role.as_ref() {
            "system" | "developer" if turns.is_empty() => {
                system.push(said(content, &place)?);
            }
            "user" => turns.push(format!(r#"{{"role":"user","content":{}}}"#, user(content, &place)?)),
            "assistant" => {
                let blocks = assistant(content, message.take("tool_calls"), &place)?;
                if !blocks.is_empty() {
                    turns.push(format!(r#"{{"role":"assistant","content":{}}}"#, array(&blocks)));
                }
            }
            "tool" => {
                let id = message.take("tool_call_id").ok_or_else(|| Unasked(place.clone()))?;
                results.push(format!(
                    r#"{{"type":"tool_result","tool_use_id":{},"content":{}}}"#,
                    id.get(),
                    quoted(&said(content, &place)?)
                ));
            }
            other => return unasked(format!("{place}: a message of role {other} there")),
        }
        if let Some((name, _)) = message.rest().find(|(_, value)| value.get() != "null") {
            return unasked(format!("{place}.{name}"));
        }
    }
    flush(&mut results, &mut turns);
    if !system.is_empty() {
        asked.text("system", &system.join("\n\n"));
    }
    asked.raw("messages", &array(&turns));
    Ok(())
}

fn flush(results: &mut Vec<String>, turns: &mut Vec<String>) {
    if !results.is_empty() {
        let results = std::mem::take(results);
        turns.push(format!(r#"{{"role":"user","content":{}}}"#, array(&results)));
    }
}

fn read<'a>(raw: &'a RawValue, place: &str) -> Result<Members<'a>, Unasked> {
    Members::read(raw, "messages", place).map_err(|_| Unasked(place.into()))
}

/// A content that is text, whole or in parts.
fn said(content: Option<&RawValue>, place: &str) -> Result<String, Unasked> {
    let Some(content) = content else {
        return Ok(String::new());
    };
    if let Some(text) = text(content) {
        return Ok(text.into_owned());
    }
    let mut all = String::new();
    for part in items(content).ok_or_else(|| Unasked(place.into()))? {
        let mut part = read(part, place)?;
        let name = match part.take_text("type").as_deref() {
            Some("text") => "text",
            Some("refusal") => "refusal",
            _ => return unasked(format!("{place}: content other than text")),
        };
        all.push_str(&part.take_text(name).ok_or_else(|| Unasked(place.into()))?);
    }
    Ok(all)
}

fn user(content: Option<&RawValue>, place: &str) -> Result<String, Unasked> {
    let content = content.ok_or_else(|| Unasked(place.into()))?;
    if is_text(content) {
        return Ok(content.get().to_owned());
    }
    let mut blocks = Vec::new();
    for part in items(content).ok_or_else(|| Unasked(place.into()))? {
        let mut part = read(part, place)?;
        let missing = || Unasked(place.into());
        blocks.push(match part.take_text("type").unwrap_or_default().as_ref() {
            "text" => {
                format!(r#"{{"type":"text","text":{}}}"#, part.take("text").ok_or_else(missing)?.get())
            }
            "image_url" => {
                let mut image = read(part.take("image_url").ok_or_else(missing)?, place)?;
                if image.take_text("detail").is_some_and(|detail| detail != "auto") {
                    return unasked(format!("{place}: the detail of an image"));
                }
                let url = image.take_text("url").ok_or_else(missing)?;
                let source = match data_url(&url) {
                    Some((kind, data)) => base64(kind, data),
                    None => format!(r#"{{"type":"url","url":{}}}"#, quoted(&url)),
                };
                format!(r#"{{"type":"image","source":{source}}}"#)
            }
            "file" => {
                let mut file = read(part.take("file").ok_or_else(missing)?, place)?;
                let data = file.take_text("file_data");
                let Some((kind @ "application/pdf", data)) = data.as_deref().and_then(data_url) else {
                    return unasked(format!("{place}: a file that is no PDF of its own"));
                };
                let mut block = Writer::object();
                block.text("type", "document").carry("title", file.take("filename"));
                block.raw("source", &base64(kind, data));
                block.end()
            }
            other => return unasked(format!("{place}: content of type {other}")),
        });
    }
    Ok(array(&blocks))
}

fn data_url(url: &str) -> Option<(&str, &str)> {
    url.strip_prefix("data:")?.split_once(";base64,")
}

fn base64(kind: &str, data: &str) -> String {
    format!(r#"{{"type":"base64","media_type":{},"data":{}}}"#, quoted(kind), quoted(data))
}

fn assistant(
    content: Option<&RawValue>,
    calls: Option<&RawValue>,
    place: &str,
) -> Result<Vec<String>, Unasked> {
    let mut blocks = Vec::new();
    let said = said(content, place)?;
    if !said.is_empty() {
        blocks.push(format!(r#"{{"type":"text","text":{}}}"#, quoted(&said)));
    }
    for call in calls.and_then(items).unwrap_or_default() {
        let mut call = read(call, place)?;
        let missing = || Unasked(format!("{place}.tool_calls"));
        let mut function = read(call.take("function").ok_or_else(missing)?, place)?;
        let (id, name) = (call.take("id").ok_or_else(missing)?, function.take("name").ok_or_else(missing)?);
        let arguments = function.take_text("arguments").unwrap_or_default();
        let input = match arguments.trim_ascii() {
            "" => "{}",
            object if serde_json::from_str::<Members<'_>>(object).is_ok() => object,
            _ => return unasked(format!("{place}: arguments that are no JSON object")),
        };
        blocks.push(format!(
            r#"{{"type":"tool_use","id":{},"name":{},"input":{input}}}"#,
            id.get(),
            name.get()
        ));
    }
    Ok(blocks)
}

// -- settings ------------------------------------------------------------------------------------------------------

fn tools(chat: &mut Members<'_>, asked: &mut Writer) -> Result<(), Unasked> {
    let missing = || Unasked("tools".into());
    if let Some(raw) = chat.take("tools") {
        let mut tools = Vec::new();
        for tool in items(raw).ok_or_else(missing)? {
            let mut tool = read(tool, "tools")?;
            let mut function = read(tool.take("function").ok_or_else(missing)?, "tools")?;
            let mut written = Writer::object();
            written.raw("name", function.take("name").ok_or_else(missing)?.get());
            written.carry("description", function.take("description"));
            let schema = function.take("parameters").map(RawValue::get);
            written.raw("input_schema", schema.unwrap_or(r#"{"type":"object","properties":{}}"#));
            written.carry("strict", function.take("strict"));
            tools.push(written.end());
        }
        if !tools.is_empty() {
            asked.raw("tools", &array(&tools));
        }
    }
    let alone = chat.take("parallel_tool_calls").is_some_and(|raw| raw.get() == "false");
    let mut choice = Writer::object();
    match chat.take("tool_choice") {
        None if !alone => return Ok(()),
        None => drop(choice.text("type", "auto")),
        Some(raw) => match text(raw).as_deref() {
            Some("none") => drop(choice.text("type", "none")),
            Some("auto") => drop(choice.text("type", "auto")),
            Some("required") => drop(choice.text("type", "any")),
            _ => {
                let mut named = read(raw, "tool_choice")?;
                let function = named.take("function").ok_or_else(|| Unasked("tool_choice".into()))?;
                let name = read(function, "tool_choice")?.take("name");
                choice.text("type", "tool").carry("name", name);
            }
        },
    }
    if alone {
        choice.raw("disable_parallel_tool_use", "true");
    }
    asked.raw("tool_choice", &choice.end());
    Ok(())
}

fn effort_and_format(chat: &mut Members<'_>, asked: &mut Writer) -> Result<(), Unasked> {
    let mut config = Writer::object();
    let effort = chat.take_text("reasoning_effort");
    match effort.as_deref() {
        None => {}
        Some("none") => drop(asked.raw("thinking", r#"{"type":"disabled"}"#)),
        Some(effort) => {
            asked.raw("thinking", r#"{"type":"adaptive"}"#);
            config.text("effort", if effort == "minimal" { "low" } else { effort });
        }
    }
    let mut configured = effort.is_some_and(|effort| effort != "none");
    if let Some(raw) = chat.take("response_format") {
        let mut format = read(raw, "response_format")?;
        match format.take_text("type").as_deref() {
            Some("text") => {}
            Some("json_schema") => {
                let missing = || Unasked("response_format without a schema".into());
                let mut schema = read(format.take("json_schema").ok_or_else(missing)?, "response_format")?;
                let schema = schema.take("schema").ok_or_else(missing)?.get();
                config.raw("format", &format!(r#"{{"type":"json_schema","schema":{schema}}}"#));
                configured = true;
            }
            _ => return unasked("response_format json_object"),
        }
    }
    if configured {
        asked.raw("output_config", &config.end());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
