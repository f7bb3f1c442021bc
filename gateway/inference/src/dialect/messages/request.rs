//! A Messages request as a chat completion request.
//!
//! | Messages | chat completions |
//! |---|---|
//! | `system`, a message of role `system` | a `system` message |
//! | text, image, document (PDF or text), search result | content parts |
//! | `tool_use` / `tool_result` | `tool_calls` / a `tool` message; a failed one's text begins with "Error: " |
//! | `thinking` blocks | `reasoning_content` of their message |
//! | `max_tokens`, `stop_sequences`, `temperature`, `top_p`, `top_k`, `stream` | `max_tokens`, `stop`, the same names |
//! | `thinking`, `output_config.effort` | `reasoning_effort` |
//! | `output_config.format`, `output_format` | `response_format` |
//! | `tools`, `tool_choice`, `disable_parallel_tool_use` | `tools`, `tool_choice`, `parallel_tool_calls` |
//! | `metadata.user_id`; its other members | `user`; `metadata` |
//! | `service_tier` `standard_only` | `default` |
//! | `cache_control` | nothing: suppliers cache prefixes by themselves, and `usage` says how much came from there |
//! | `context_management` | nothing: no edit is made, and none is reported |
//!
//! A 400 names what a chat completion can't say: tools that run at the model's maker, files kept there, citations,
//! redacted thinking, an answer begun by the client. Any other field is passed on as it is.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::dialect::members::{Members, Writer, array, bad, is_text, items, quoted, text};
use crate::reply::Refusal;

/// Thinking budgets below these are low and medium effort, in tokens.
const LOW_BELOW: u64 = 4_096;
const MEDIUM_BELOW: u64 = 16_384;
/// Stop sequences that a chat completion can carry (contract §6.3).
const STOPS_MAX: usize = 4;

/// What the answer has to know of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wishes {
    /// The model as it was asked for.
    pub(crate) model: String,
    /// Thinking is shown.
    pub(crate) thinking: bool,
    /// Edits of the context were asked for, so the answer says which were made.
    pub(crate) edits: bool,
    pub(crate) stops: Vec<String>,
}

/// What a request is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum For {
    Answer,
    /// `count_tokens`, which knows no output limit.
    Count,
}

/// The chat completion request that says the same.
pub(crate) fn read(body: &[u8], purpose: For) -> Result<(Bytes, Wishes), Refusal> {
    let mut asked = Members::body(body)?;
    let mut chat = Writer::object();
    let model = asked.take("model").ok_or_else(|| bad("model", "model: Field required"))?;
    let symbol = text(model).ok_or_else(|| bad("model", "model: Input should be a valid string"))?;
    chat.raw("model", model.get());
    let mut wishes = Wishes { model: symbol.into_owned(), thinking: false, edits: false, stops: Vec::new() };

    let messages = asked.take("messages").ok_or_else(|| bad("messages", "messages: Field required"))?;
    chat.raw("messages", &conversation(asked.take("system"), messages)?);
    match (asked.take("max_tokens"), purpose) {
        (Some(limit), _) => {
            if !limit.get().parse::<u64>().is_ok_and(|limit| limit > 0) {
                return Err(bad("max_tokens", "max_tokens: Input should be a whole number, at least 1"));
            }
            chat.raw("max_tokens", limit.get());
        }
        (None, For::Answer) => return Err(bad("max_tokens", "max_tokens: Field required")),
        (None, For::Count) => {}
    }
    wishes.stops = stops(&mut asked, &mut chat)?;
    for same in ["stream", "temperature", "top_p", "top_k"] {
        chat.carry(same, asked.take(same));
    }
    tools(&mut asked, &mut chat)?;
    wishes.thinking = effort(&mut asked, &mut chat)?;
    match asked.take_text("service_tier").as_deref() {
        None => {}
        Some("standard_only") => drop(chat.text("service_tier", "default")),
        Some(other) => drop(chat.text("service_tier", other)),
    }
    if let Some(metadata) = asked.take("metadata") {
        let mut metadata = Members::read(metadata, "metadata", "metadata")?;
        chat.carry("user", metadata.take("user_id"));
        let mut others = metadata.rest().peekable();
        if others.peek().is_some() {
            let mut kept = Writer::object();
            kept.pass_on(others, "metadata")?;
            chat.raw("metadata", &kept.end());
        }
    }
    wishes.edits = asked.take("context_management").is_some();
    let _hint = asked.take("cache_control");
    for (name, instead) in [
        ("container", "code runs at no supplier"),
        ("mcp_servers", "connect to MCP servers from your side and offer their tools in `tools`"),
        ("inference_geo", "no supplier promises a place"),
    ] {
        if asked.take(name).is_some_and(|raw| raw.get() != "[]") {
            return Err(cannot(name, instead));
        }
    }
    chat.pass_on(asked.rest(), "body")?;
    Ok((Bytes::from(chat.end()), wishes))
}

fn cannot(what: &str, why: &str) -> Refusal {
    Refusal { code: "unsupported_value", ..bad("body", format!("{what}: not offered here: {why}")) }
}

fn stops(asked: &mut Members<'_>, chat: &mut Writer) -> Result<Vec<String>, Refusal> {
    let Some(raw) = asked.take("stop_sequences") else {
        return Ok(Vec::new());
    };
    let stops: Vec<String> = serde_json::from_str(raw.get())
        .map_err(|_| bad("stop_sequences", "stop_sequences: Input should be a list of strings"))?;
    if stops.len() > STOPS_MAX {
        return Err(bad("stop_sequences", format!("stop_sequences: at most {STOPS_MAX} are offered here")));
    }
    if !stops.is_empty() {
        chat.raw("stop", raw.get());
    }
    Ok(stops)
}

// -- the conversation ----------------------------------------------------------------------------------------------

fn conversation(system: Option<&RawValue>, messages: &RawValue) -> Result<String, Refusal> {
    let mut turns: Vec<String> = Vec::new();
    if let Some(system) = system {
        turns.extend(instruction(system, "system")?);
    }
    let messages =
        items(messages).ok_or_else(|| bad("messages", "messages: Input should be a list of messages"))?;
    if messages.is_empty() {
        return Err(bad("messages", "messages: at least one message is required"));
    }
    let last = messages.len() - 1;
    for (at, message) in messages.into_iter().enumerate() {
        let place = format!("messages.{at}");
        let mut message = Members::read(message, "messages", &place)?;
        let role = message.take_text("role").unwrap_or_default();
        let content = message
            .take("content")
            .ok_or_else(|| bad("messages", format!("{place}.content: Field required")))?;
        match role.as_ref() {
            "user" => user(content, &place, &mut turns)?,
            "assistant" if at == last => {
                return Err(bad(
                    "messages",
                    "an answer that the client has begun can't be continued here: the conversation must end with a user message",
                ));
            }
            "assistant" => turns.push(assistant(content, &place)?),
            "system" => turns.extend(instruction(content, &place)?),
            _ => {
                return Err(bad("messages", format!("{place}.role: Input should be 'user' or 'assistant'")));
            }
        }
        if let Some((name, _)) = message.rest().next() {
            return Err(bad("messages", format!("{place}.{name}: Extra inputs are not permitted")));
        }
    }
    Ok(array(&turns))
}

/// A system prompt; nothing where it is empty.
fn instruction(content: &RawValue, place: &str) -> Result<Option<String>, Refusal> {
    let content = if is_text(content) {
        content.get().to_owned()
    } else {
        let mut texts = Vec::new();
        for (at, mut block) in blocks(content, place)?.into_iter().enumerate() {
            match block.take_text("type").as_deref() {
                Some("text") => texts.push(plain_text(block, &format!("{place}.{at}"))?.into_owned()),
                _ => return Err(bad("system", format!("{place}.{at}: only text can be an instruction"))),
            }
        }
        quoted(&texts.join("\n\n"))
    };
    Ok((content != "\"\"").then(|| format!(r#"{{"role":"system","content":{content}}}"#)))
}

/// Results of tools come first, as their own messages: they answer the calls of the turn before.
fn user(content: &RawValue, place: &str, turns: &mut Vec<String>) -> Result<(), Refusal> {
    if is_text(content) {
        turns.push(format!(r#"{{"role":"user","content":{}}}"#, content.get()));
        return Ok(());
    }
    let mut parts = Vec::new();
    for (at, mut block) in blocks(content, place)?.into_iter().enumerate() {
        let place = format!("{place}.content.{at}");
        let kind = block.take_text("type").unwrap_or_default();
        if kind == "tool_result" {
            turns.push(tool_result(block, &place, &mut parts)?);
        } else {
            parts.push(part(&kind, block, &place)?);
        }
    }
    if !parts.is_empty() {
        turns.push(format!(r#"{{"role":"user","content":{}}}"#, array(&parts)));
    }
    Ok(())
}

/// A chat completion's tool message is text, so pictures in a result go to the user's message that follows.
fn tool_result(mut block: Members<'_>, place: &str, parts: &mut Vec<String>) -> Result<String, Refusal> {
    let id = block
        .take("tool_use_id")
        .ok_or_else(|| bad("messages", format!("{place}.tool_use_id: Field required")))?;
    let failed = block.take("is_error").is_some_and(|raw| raw.get() == "true");
    let mut texts: Vec<Cow<'_, str>> = Vec::new();
    if let Some(content) = block.take("content") {
        if let Some(content) = text(content) {
            texts.push(content);
        } else {
            for (at, mut block) in blocks(content, place)?.into_iter().enumerate() {
                let place = format!("{place}.content.{at}");
                match block.take_text("type").unwrap_or_default().as_ref() {
                    "text" => texts.push(plain_text(block, &place)?),
                    kind => parts.push(part(kind, block, &place)?),
                }
            }
        }
    }
    known(block, place)?;
    let said = texts.join("\n");
    let said = if failed { format!("Error: {said}") } else { said };
    Ok(format!(r#"{{"role":"tool","tool_call_id":{},"content":{}}}"#, id.get(), quoted(&said)))
}

/// A part of a user's message.
fn part(kind: &str, mut block: Members<'_>, place: &str) -> Result<String, Refusal> {
    match kind {
        "text" => Ok(text_part(&plain_text(block, place)?)),
        "image" => {
            let source = source(&mut block, place)?;
            known(block, place)?;
            let url = match source {
                Source::Data { kind, data } => format!("data:{kind};base64,{data}"),
                Source::Url(url) => url.into_owned(),
                Source::Text(_) => return Err(bad("messages", format!("{place}: an image can't be text"))),
            };
            Ok(format!(r#"{{"type":"image_url","image_url":{{"url":{}}}}}"#, quoted(&url)))
        }
        "document" => document(block, place),
        "search_result" => {
            let (title, source) = (block.take_text("title"), block.take_text("source"));
            let mut texts: Vec<Cow<'_, str>> = title.into_iter().chain(source).collect();
            if let Some(content) = block.take("content") {
                for mut block in blocks(content, place)? {
                    block.take("type");
                    texts.push(plain_text(block, place)?);
                }
            }
            known(block, place)?;
            Ok(text_part(&texts.join("\n")))
        }
        "tool_use" | "thinking" => {
            Err(bad("messages", format!("{place}: a {kind} block belongs to an assistant's message")))
        }
        other => Err(cannot(&format!("{place}: {other} blocks"), "suppliers know no such content")),
    }
}

fn document(mut block: Members<'_>, place: &str) -> Result<String, Refusal> {
    let source = source(&mut block, place)?;
    let (title, context) = (block.take_text("title"), block.take_text("context"));
    known(block, place)?;
    match source {
        Source::Text(content) => {
            let texts: Vec<Cow<'_, str>> = title.into_iter().chain(context).chain([content]).collect();
            Ok(text_part(&texts.join("\n")))
        }
        Source::Data { kind, data } => {
            if context.is_some() {
                return Err(cannot(&format!("{place}.context"), "put it into a text block"));
            }
            Ok(format!(
                r#"{{"type":"file","file":{{"filename":{},"file_data":{}}}}}"#,
                quoted(title.as_deref().unwrap_or("document.pdf")),
                quoted(&format!("data:{kind};base64,{data}"))
            ))
        }
        Source::Url(_) => Err(cannot(&format!("{place}.source.url"), "send the document itself")),
    }
}

/// Where an image or a document is.
enum Source<'a> {
    Data { kind: Cow<'a, str>, data: Cow<'a, str> },
    Url(Cow<'a, str>),
    Text(Cow<'a, str>),
}

fn source<'a>(block: &mut Members<'a>, place: &str) -> Result<Source<'a>, Refusal> {
    let missing = || bad("messages", format!("{place}.source: Field required"));
    let mut source = Members::read(block.take("source").ok_or_else(missing)?, "messages", place)?;
    let kind = source.take_text("type").unwrap_or_default();
    let mut take = |name: &str| {
        source
            .take_text(name)
            .ok_or_else(|| bad("messages", format!("{place}.source.{name}: Field required")))
    };
    match kind.as_ref() {
        "base64" => Ok(Source::Data { kind: take("media_type")?, data: take("data")? }),
        "url" => Ok(Source::Url(take("url")?)),
        "text" => Ok(Source::Text(take("data")?)),
        "content" => {
            let content = source.take("content").ok_or_else(missing)?;
            if let Some(content) = text(content) {
                return Ok(Source::Text(content));
            }
            let mut texts = Vec::new();
            for mut block in blocks(content, place)? {
                match block.take_text("type").as_deref() {
                    Some("text") => texts.push(plain_text(block, place)?),
                    _ => return Err(cannot(&format!("{place}.source.content"), "only text is")),
                }
            }
            Ok(Source::Text(texts.join("\n").into()))
        }
        "file" => Err(cannot(&format!("{place}.source"), "no files are kept; send the content itself")),
        _ => Err(missing()),
    }
}

fn assistant(content: &RawValue, place: &str) -> Result<String, Refusal> {
    let mut turn = Writer::object();
    turn.text("role", "assistant");
    if is_text(content) {
        turn.raw("content", content.get());
        return Ok(turn.end());
    }
    let (mut said, mut thought, mut calls) = (String::new(), String::new(), Vec::new());
    for (at, mut block) in blocks(content, place)?.into_iter().enumerate() {
        let place = format!("{place}.content.{at}");
        let kind = block.take_text("type").unwrap_or_default();
        match kind.as_ref() {
            "text" => said.push_str(&plain_text(block, &place)?),
            "thinking" => {
                thought.push_str(&block.take_text("thinking").unwrap_or_default());
                // Ours is empty, another service's is of no use to a supplier here.
                block.take("signature");
                known(block, &place)?;
            }
            "tool_use" => {
                let mut need = |name: &str| {
                    block.take(name).ok_or_else(|| bad("messages", format!("{place}.{name}: Field required")))
                };
                let (id, name, input) = (need("id")?, need("name")?, need("input")?);
                block.take("caller");
                known(block, &place)?;
                calls.push(format!(
                    r#"{{"id":{},"type":"function","function":{{"name":{},"arguments":{}}}}}"#,
                    id.get(),
                    name.get(),
                    quoted(input.get())
                ));
            }
            other => {
                return Err(cannot(&format!("{place}: {other} blocks"), "suppliers know no such content"));
            }
        }
    }
    if said.is_empty() && !calls.is_empty() {
        turn.raw("content", "null");
    } else {
        turn.text("content", &said);
    }
    if !thought.is_empty() {
        turn.text("reasoning_content", &thought);
    }
    if !calls.is_empty() {
        turn.raw("tool_calls", &array(&calls));
    }
    Ok(turn.end())
}

fn blocks<'a>(content: &'a RawValue, place: &str) -> Result<Vec<Members<'a>>, Refusal> {
    let items = items(content).ok_or_else(|| {
        bad("messages", format!("{place}.content: Input should be a string or a list of blocks"))
    })?;
    items.into_iter().map(|block| Members::read(block, "messages", place)).collect()
}

fn plain_text<'a>(mut block: Members<'a>, place: &str) -> Result<Cow<'a, str>, Refusal> {
    let said =
        block.take_text("text").ok_or_else(|| bad("messages", format!("{place}.text: Field required")))?;
    known(block, place)?;
    Ok(said)
}

fn text_part(said: &str) -> String {
    format!(r#"{{"type":"text","text":{}}}"#, quoted(said))
}

/// Of a block that was read, only what changes nothing may be left.
fn known(mut block: Members<'_>, place: &str) -> Result<(), Refusal> {
    block.take("cache_control");
    if let Some(raw) = block.take("citations") {
        // An assistant's own citations come back as a list; asking for new ones is an object.
        let asks = Members::read(raw, "messages", place)
            .is_ok_and(|mut ask| ask.take("enabled").is_some_and(|on| on.get() == "true"));
        if asks {
            return Err(cannot(&format!("{place}.citations"), "suppliers mark no sources"));
        }
    }
    match block.rest().find(|(_, value)| value.get() != "null") {
        Some((name, _)) => Err(bad("messages", format!("{place}.{name}: Extra inputs are not permitted"))),
        None => Ok(()),
    }
}

// -- tools ---------------------------------------------------------------------------------------------------------

fn tools(asked: &mut Members<'_>, chat: &mut Writer) -> Result<(), Refusal> {
    if let Some(raw) = asked.take("tools") {
        let tools = items(raw).ok_or_else(|| bad("tools", "tools: Input should be a list"))?;
        let mut functions = Vec::new();
        for (at, tool) in tools.into_iter().enumerate() {
            functions.push(function(Members::read(tool, "tools", &format!("tools.{at}"))?, at)?);
        }
        if !functions.is_empty() {
            chat.raw("tools", &array(&functions));
        }
    }
    let Some(raw) = asked.take("tool_choice") else {
        return Ok(());
    };
    let mut choice = Members::read(raw, "tool_choice", "tool_choice")?;
    match choice.take_text("type").unwrap_or_default().as_ref() {
        "auto" => chat.text("tool_choice", "auto"),
        "any" => chat.text("tool_choice", "required"),
        "none" => chat.text("tool_choice", "none"),
        "tool" => {
            let name =
                choice.take("name").ok_or_else(|| bad("tool_choice", "tool_choice.name: Field required"))?;
            let name = name.get();
            chat.raw("tool_choice", &format!(r#"{{"type":"function","function":{{"name":{name}}}}}"#))
        }
        _ => return Err(bad("tool_choice", "tool_choice.type: Input should be auto, any, tool or none")),
    };
    if let Some(alone) = choice.take("disable_parallel_tool_use") {
        chat.raw("parallel_tool_calls", if alone.get() == "true" { "false" } else { "true" });
    }
    match choice.rest().next() {
        Some((name, _)) => {
            Err(bad("tool_choice", format!("tool_choice.{name}: Extra inputs are not permitted")))
        }
        None => Ok(()),
    }
}

fn function(mut tool: Members<'_>, at: usize) -> Result<String, Refusal> {
    let kind = tool.take_text("type");
    if let Some(kind) = kind.as_deref().filter(|kind| *kind != "custom") {
        return Err(cannot(
            &format!("tools.{at}: {kind}"),
            "only tools with an input_schema of their own can be offered to any model",
        ));
    }
    let name = tool.take("name").ok_or_else(|| bad("tools", format!("tools.{at}.name: Field required")))?;
    let mut function = Writer::object();
    function.raw("name", name.get());
    let examples = tool.take("input_examples").filter(|raw| raw.get() != "[]");
    match (tool.take("description"), examples) {
        (Some(description), None) => {
            function.raw("description", description.get());
        }
        (None, None) => {}
        (description, Some(examples)) => {
            let description = description.and_then(text).unwrap_or_default();
            function.text("description", &format!("{description}\n\nExamples of input: {}", examples.get()));
        }
    }
    let schema = tool
        .take("input_schema")
        .ok_or_else(|| bad("tools", format!("tools.{at}.input_schema: Field required")))?;
    function.raw("parameters", schema.get());
    function.carry("strict", tool.take("strict"));
    if tool.take("defer_loading").is_some_and(|raw| raw.get() == "true") {
        return Err(cannot(&format!("tools.{at}.defer_loading"), "no supplier searches tools"));
    }
    if tool.take("allowed_callers").is_some_and(|raw| raw.get().replace(' ', "") != r#"["direct"]"#) {
        return Err(cannot(&format!("tools.{at}.allowed_callers"), "only the model itself calls tools"));
    }
    // Hints: input is streamed as eagerly as the supplier sends it, and prefixes are cached anyway.
    tool.take("eager_input_streaming");
    tool.take("cache_control");
    let mut whole = Writer::object();
    whole.text("type", "function").raw("function", &function.end());
    whole.pass_on(tool.rest(), "tools")?;
    Ok(whole.end())
}

// -- thinking and format -------------------------------------------------------------------------------------------

/// How hard to think, and the answer's format. Returns whether thinking is shown.
fn effort(asked: &mut Members<'_>, chat: &mut Writer) -> Result<bool, Refusal> {
    let (mut effort, mut shown) = (None, false);
    if let Some(raw) = asked.take("thinking") {
        let mut thinking = Members::read(raw, "thinking", "thinking")?;
        let display = thinking.take_text("display");
        shown = display.as_deref() != Some("omitted");
        match thinking.take_text("type").unwrap_or_default().as_ref() {
            "disabled" => (effort, shown) = (Some("none"), false),
            "enabled" => {
                let budget = thinking.take("budget_tokens").and_then(|raw| raw.get().parse::<u64>().ok());
                effort = Some(match budget {
                    None => {
                        return Err(bad(
                            "thinking",
                            "thinking.budget_tokens: Input should be a whole number",
                        ));
                    }
                    Some(budget) if budget < LOW_BELOW => "low",
                    Some(budget) if budget < MEDIUM_BELOW => "medium",
                    Some(_) => "high",
                });
            }
            // The model decides how much, and when.
            "adaptive" | "between_tools" => {}
            _ => return Err(bad("thinking", "thinking.type: Input should be enabled, adaptive or disabled")),
        }
        if let Some((name, _)) = thinking.rest().next() {
            return Err(bad("thinking", format!("thinking.{name}: Extra inputs are not permitted")));
        }
    }
    let mut format = asked.take("output_format");
    if let Some(raw) = asked.take("output_config") {
        let mut config = Members::read(raw, "output_config", "output_config")?;
        effort = match config.take_text("effort").as_deref() {
            _ if effort == Some("none") => effort,
            Some("low") => Some("low"),
            Some("medium") => Some("medium"),
            Some("high") => Some("high"),
            Some("xhigh" | "max") => Some("xhigh"),
            None => effort,
            Some(_) => {
                let words = "output_config.effort: Input should be low, medium, high, xhigh or max";
                return Err(bad("output_config", words));
            }
        };
        format = config.take("format").or(format);
        if let Some((name, _)) = config.rest().next() {
            return Err(cannot(&format!("output_config.{name}"), "suppliers know no such setting"));
        }
    }
    if let Some(effort) = effort {
        chat.text("reasoning_effort", effort);
    }
    if let Some(raw) = format {
        let mut format = Members::read(raw, "output_config", "output_config.format")?;
        let kind = format.take_text("type").unwrap_or_default();
        let schema = format.take("schema").filter(|_| kind == "json_schema").ok_or_else(|| {
            bad("output_config", "output_config.format: Input should be a json_schema with a schema")
        })?;
        let schema = schema.get();
        chat.raw(
            "response_format",
            &format!(
                r#"{{"type":"json_schema","json_schema":{{"name":"output","strict":true,"schema":{schema}}}}}"#
            ),
        );
    }
    Ok(shown)
}

#[cfg(test)]
mod tests;
