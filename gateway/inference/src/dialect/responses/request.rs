//! A Responses request as a chat completion request.
//!
//! | Responses | chat completions |
//! |---|---|
//! | `instructions` | a `system` message before all others |
//! | `input` as text, messages, `function_call`, `function_call_output` | messages, `tool_calls`, `tool` messages |
//! | `reasoning` items | `reasoning_content` of the message that follows |
//! | `input_text`, `input_image`, `input_file`, `input_audio` | content parts |
//! | `max_output_tokens`, `text.format`, `text.verbosity` | `max_tokens`, `response_format`, `verbosity` |
//! | `reasoning.effort`, `top_logprobs` | `reasoning_effort`, `logprobs` and `top_logprobs` |
//! | function tools, `tool_choice` | the same, one level deeper |
//! | `temperature`, `top_p`, `stream`, `parallel_tool_calls`, `user`, `metadata`, `service_tier`, `prompt_cache_*`, `safety_identifier` | the same names |
//!
//! A 400 names what needs a memory (`store: true`, `previous_response_id`, `conversation`, `background`, references to
//! items and files) or tools that run at the model's maker. Any other field is passed on as it is.

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::dialect::members::{Members, Writer, array, bad, is_text, items, quoted, text};
use crate::reply::Refusal;

/// What the answer repeats of the request, in the order in which it does, with the value where nothing was said.
const ECHOED: [(&str, &str); 17] = [
    ("background", "false"),
    ("instructions", "null"),
    ("max_output_tokens", "null"),
    ("max_tool_calls", "null"),
    ("parallel_tool_calls", "true"),
    ("previous_response_id", "null"),
    ("prompt_cache_key", "null"),
    ("reasoning", r#"{"effort":null,"summary":null}"#),
    ("safety_identifier", "null"),
    ("temperature", "1.0"),
    ("text", r#"{"format":{"type":"text"}}"#),
    ("tool_choice", "\"auto\""),
    ("tools", "[]"),
    ("top_logprobs", "0"),
    ("top_p", "1.0"),
    ("user", "null"),
    ("metadata", "{}"),
];
/// What may be included because it comes anyway, or because nothing here could have it.
const INCLUDED: [&str; 5] = [
    "reasoning.encrypted_content",
    "web_search_call.action.sources",
    "file_search_call.results",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
];

/// What the answer has to know of the request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wishes {
    /// The model as it was asked for.
    pub(crate) model: String,
    /// Reasoning is told as a summary.
    pub(crate) summary: bool,
    /// Members that the answer repeats, as JSON, each with a comma before it.
    pub(crate) echo: String,
}

/// The chat completion request that says the same.
pub(crate) fn read(body: &[u8]) -> Result<(Bytes, Wishes), Refusal> {
    let mut asked = Members::body(body)?;
    let echo = echo(&mut Members::body(body)?);
    let mut chat = Writer::object();
    let model =
        asked.take("model").ok_or_else(|| bad("model", "model is required: the symbol of an instrument"))?;
    let symbol =
        text(model).ok_or_else(|| bad("model", "model must be a string: the symbol of an instrument"))?;
    let mut wishes = Wishes { model: symbol.into_owned(), summary: false, echo };
    chat.raw("model", model.get());
    let input = asked.take("input").ok_or_else(|| bad("input", "input is required"))?;
    chat.raw("messages", &conversation(asked.take("instructions"), input)?);
    stateless(&mut asked)?;
    if let Some(limit) = asked.take("max_output_tokens") {
        if !limit.get().parse::<u64>().is_ok_and(|limit| limit > 0) {
            return Err(bad("max_output_tokens", "max_output_tokens must be a whole number, at least 1"));
        }
        chat.raw("max_tokens", limit.get());
    }
    for same in [
        "stream",
        "temperature",
        "top_p",
        "parallel_tool_calls",
        "user",
        "metadata",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
    ] {
        chat.carry(same, asked.take(same));
    }
    if let Some(kept) = asked.take("prompt_cache_retention") {
        // The one value has two spellings.
        let kept = if kept.get() == "\"in_memory\"" { "\"in-memory\"" } else { kept.get() };
        chat.raw("prompt_cache_retention", kept);
    }
    wishes.summary = reasoning(&mut asked, &mut chat)?;
    format(&mut asked, &mut chat)?;
    logprobs(&mut asked, &mut chat)?;
    tools(&mut asked, &mut chat)?;
    // It limits tools that run at the model's maker; there are none.
    asked.take("max_tool_calls");
    chat.pass_on(asked.rest(), "body")?;
    Ok((Bytes::from(chat.end()), wishes))
}

fn echo(asked: &mut Members<'_>) -> String {
    let mut echo = String::new();
    for (name, unsaid) in ECHOED {
        let said = asked.take(name).map_or(unsaid, RawValue::get);
        echo.push_str(&format!(r#","{name}":{said}"#));
    }
    echo.push_str(r#","store":false,"truncation":"disabled""#);
    echo
}

/// 400 for what can't be done here, though others do it.
fn cannot(param: &'static str, message: impl Into<String>) -> Refusal {
    Refusal { code: "unsupported_value", ..bad(param, message) }
}

/// Nothing is remembered, so whatever needs a memory is refused.
fn stateless(asked: &mut Members<'_>) -> Result<(), Refusal> {
    for (name, idle, instead) in [
        ("store", "false", "nothing is stored here; leave store out or set it to false"),
        ("previous_response_id", "", "nothing is stored here; send the conversation's items in input"),
        ("conversation", "", "nothing is stored here; send the conversation's items in input"),
        ("background", "false", "calls run while you wait for them; leave background out"),
        ("prompt", "", "no prompts are stored here; send instructions and input"),
        ("truncation", "\"disabled\"", "input is never cut short; leave truncation out"),
        ("context_management", "[]", "the context is taken as it is; leave context_management out"),
        ("moderation", "", "no moderation is offered; leave it out"),
    ] {
        if asked.take(name).is_some_and(|raw| raw.get() != idle) {
            return Err(cannot(name, instead));
        }
    }
    if let Some(raw) = asked.take("stream_options") {
        let mut options = Members::read(raw, "stream_options", "stream_options")?;
        if options.take("include_obfuscation").is_some_and(|raw| raw.get() != "false") {
            return Err(cannot("stream_options", "streams are not padded; leave include_obfuscation out"));
        }
        if let Some((name, _)) = options.rest().next() {
            return Err(cannot("stream_options", format!("stream_options.{name} is not known here")));
        }
    }
    Ok(())
}

// -- the conversation ----------------------------------------------------------------------------------------------

/// An assistant's turn while its items come in: text, calls and reasoning are one message of a chat.
#[derive(Default)]
struct Turn {
    said: Option<String>,
    thought: String,
    calls: Vec<String>,
}

impl Turn {
    fn end(&mut self, turns: &mut Vec<String>) {
        let Self { said, thought, calls } = std::mem::take(self);
        if said.is_none() && calls.is_empty() {
            // Reasoning that led to nothing says nothing to the next turn.
            return;
        }
        let mut turn = Writer::object();
        turn.text("role", "assistant");
        match said {
            Some(said) => turn.text("content", &said),
            None => turn.raw("content", "null"),
        };
        if !thought.is_empty() {
            turn.text("reasoning_content", &thought);
        }
        if !calls.is_empty() {
            turn.raw("tool_calls", &array(&calls));
        }
        turns.push(turn.end());
    }
}

fn conversation(instructions: Option<&RawValue>, input: &RawValue) -> Result<String, Refusal> {
    let mut turns = Vec::new();
    if let Some(instructions) = instructions {
        if !is_text(instructions) {
            return Err(bad("instructions", "instructions must be a string"));
        }
        turns.push(format!(r#"{{"role":"system","content":{}}}"#, instructions.get()));
    }
    if is_text(input) {
        turns.push(format!(r#"{{"role":"user","content":{}}}"#, input.get()));
        return Ok(array(&turns));
    }
    let items = items(input).ok_or_else(|| bad("input", "input must be a string or an array of items"))?;
    if items.is_empty() {
        return Err(bad("input", "input must have at least one item"));
    }
    let mut turn = Turn::default();
    for (at, item) in items.into_iter().enumerate() {
        let place = format!("input[{at}]");
        item_of(Members::read(item, "input", &place)?, &place, &mut turn, &mut turns)?;
    }
    turn.end(&mut turns);
    Ok(array(&turns))
}

fn item_of(
    mut item: Members<'_>,
    place: &str,
    turn: &mut Turn,
    turns: &mut Vec<String>,
) -> Result<(), Refusal> {
    let kind = item.take_text("type").unwrap_or_else(|| "message".into());
    // Where an item was once stored, and whether it was whole, says nothing to a model.
    item.take("id");
    item.take("status");
    match kind.as_ref() {
        "message" => {
            let role = item.take_text("role").unwrap_or_default();
            let content =
                item.take("content").ok_or_else(|| bad("input", format!("{place}.content is required")))?;
            item.take("phase");
            match role.as_ref() {
                "assistant" => {
                    let said = spoken(content, place)?;
                    if turn.said.is_some() || !turn.calls.is_empty() {
                        turn.end(turns);
                    }
                    turn.said = Some(said);
                }
                "user" | "system" | "developer" => {
                    turn.end(turns);
                    let content = content_of(content, place)?;
                    turns.push(format!(r#"{{"role":"{role}","content":{content}}}"#));
                }
                _ => {
                    return Err(bad(
                        "input",
                        format!("{place}.role must be user, assistant, system or developer"),
                    ));
                }
            }
        }
        "reasoning" => {
            let (content, summary) = (item.take("content"), item.take("summary"));
            let sealed = item.take("encrypted_content").is_some_and(|raw| raw.get() != "\"\"");
            let mut thought = String::new();
            for raw in [content, summary].into_iter().flatten() {
                if thought.is_empty() {
                    thought = texts(raw, place)?;
                }
            }
            if sealed && thought.is_empty() {
                let message = format!("{place} is sealed by another service; leave it out");
                return Err(cannot("input", message));
            }
            if turn.said.is_some() || !turn.calls.is_empty() {
                turn.end(turns);
            }
            turn.thought.push_str(&thought);
        }
        "function_call" => {
            let mut need = |name: &str| {
                item.take(name).ok_or_else(|| bad("input", format!("{place}.{name} is required")))
            };
            let (id, name, arguments) = (need("call_id")?, need("name")?, need("arguments")?);
            item.take("caller");
            turn.calls.push(format!(
                r#"{{"id":{},"type":"function","function":{{"name":{},"arguments":{}}}}}"#,
                id.get(),
                name.get(),
                arguments.get()
            ));
        }
        "function_call_output" => {
            turn.end(turns);
            let mut need = |name: &str| {
                item.take(name).ok_or_else(|| bad("input", format!("{place}.{name} is required")))
            };
            let (id, output) = (need("call_id")?, need("output")?);
            item.take("caller");
            let output =
                if is_text(output) { output.get().to_owned() } else { quoted(&texts(output, place)?) };
            turns.push(format!(r#"{{"role":"tool","tool_call_id":{},"content":{output}}}"#, id.get()));
        }
        "item_reference" => {
            return Err(cannot("input", format!("{place}: nothing is stored here; send the item itself")));
        }
        other => {
            return Err(cannot("input", format!("{place}: items of type {other} are not offered here")));
        }
    }
    nothing_left(item, place)
}

fn nothing_left(mut item: Members<'_>, place: &str) -> Result<(), Refusal> {
    // What OpenAI's own libraries write into an answer's items, which come back as they are.
    for theirs in ["parsed", "parsed_arguments"] {
        item.take(theirs);
    }
    match item.rest().find(|(_, value)| value.get() != "null") {
        Some((name, _)) => Err(cannot("input", format!("{place}.{name} is not known here"))),
        None => Ok(()),
    }
}

/// What an assistant said before.
fn spoken(content: &RawValue, place: &str) -> Result<String, Refusal> {
    match text(content) {
        Some(text) => Ok(text.into_owned()),
        None => texts(content, place),
    }
}

/// The texts of parts that have nothing else that matters.
fn texts(content: &RawValue, place: &str) -> Result<String, Refusal> {
    let parts = items(content)
        .ok_or_else(|| bad("input", format!("{place} must have a string or an array of parts")))?;
    let mut said = String::new();
    for (at, part) in parts.into_iter().enumerate() {
        let place = format!("{place}.content[{at}]");
        let mut part = Members::read(part, "input", &place)?;
        let kind = part.take_text("type").unwrap_or_default();
        let name = match kind.as_ref() {
            "output_text" | "input_text" | "text" | "summary_text" | "reasoning_text" => "text",
            "refusal" => "refusal",
            other => return Err(cannot("input", format!("{place}: {other} can't stand here"))),
        };
        let text = part.take_text(name).ok_or_else(|| bad("input", format!("{place}.{name} is required")))?;
        said.push_str(&text);
        // What a service noted about its own text.
        part.take("annotations");
        part.take("logprobs");
        nothing_left(part, &place)?;
    }
    Ok(said)
}

fn content_of(content: &RawValue, place: &str) -> Result<String, Refusal> {
    if is_text(content) {
        return Ok(content.get().to_owned());
    }
    let parts = items(content)
        .ok_or_else(|| bad("input", format!("{place}.content must be a string or an array of parts")))?;
    let mut out = Vec::new();
    for (at, part) in parts.into_iter().enumerate() {
        let place = format!("{place}.content[{at}]");
        out.push(part_of(Members::read(part, "input", &place)?, &place)?);
    }
    Ok(array(&out))
}

fn part_of(mut part: Members<'_>, place: &str) -> Result<String, Refusal> {
    let kind = part.take_text("type").unwrap_or_default();
    let missing = |name: &str| bad("input", format!("{place}.{name} is required"));
    let no_files = || cannot("input", format!("{place}: no files are kept here; send the content itself"));
    let written = match kind.as_ref() {
        "input_text" | "output_text" | "text" => {
            let text = part.take("text").filter(|raw| is_text(raw)).ok_or_else(|| missing("text"))?;
            part.take("annotations");
            part.take("logprobs");
            format!(r#"{{"type":"text","text":{}}}"#, text.get())
        }
        "input_image" => {
            if part.take("file_id").is_some() {
                return Err(no_files());
            }
            let url = part.take("image_url").ok_or_else(|| missing("image_url"))?;
            let mut image = Writer::object();
            image.raw("url", url.get()).carry("detail", part.take("detail"));
            format!(r#"{{"type":"image_url","image_url":{}}}"#, image.end())
        }
        "input_file" => {
            if part.take("file_id").is_some() || part.take("file_url").is_some() {
                return Err(no_files());
            }
            let data = part.take("file_data").ok_or_else(|| missing("file_data"))?;
            let mut file = Writer::object();
            file.carry("filename", part.take("filename")).raw("file_data", data.get());
            part.take("detail");
            format!(r#"{{"type":"file","file":{}}}"#, file.end())
        }
        "input_audio" => {
            let audio = part.take("input_audio").ok_or_else(|| missing("input_audio"))?;
            format!(r#"{{"type":"input_audio","input_audio":{}}}"#, audio.get())
        }
        other => return Err(cannot("input", format!("{place}: parts of type {other} are not offered here"))),
    };
    nothing_left(part, place)?;
    Ok(written)
}

// -- settings ------------------------------------------------------------------------------------------------------

/// How hard to think. Returns whether what was thought is told as a summary.
fn reasoning(asked: &mut Members<'_>, chat: &mut Writer) -> Result<bool, Refusal> {
    let Some(raw) = asked.take("reasoning") else {
        return Ok(false);
    };
    let mut reasoning = Members::read(raw, "reasoning", "reasoning")?;
    chat.carry("reasoning_effort", reasoning.take("effort"));
    let summary = reasoning.take("summary");
    let summary = summary.or(reasoning.take("generate_summary"));
    if let Some((name, _)) = reasoning.rest().find(|(_, value)| value.get() != "null") {
        return Err(cannot("reasoning", format!("reasoning.{name} is not known here")));
    }
    Ok(summary.is_some())
}

fn format(asked: &mut Members<'_>, chat: &mut Writer) -> Result<(), Refusal> {
    let Some(raw) = asked.take("text") else {
        return Ok(());
    };
    let mut settings = Members::read(raw, "text", "text")?;
    chat.carry("verbosity", settings.take("verbosity"));
    if let Some(raw) = settings.take("format") {
        let mut format = Members::read(raw, "text", "text.format")?;
        match format.take_text("type").unwrap_or_default().as_ref() {
            // What a supplier does anyway.
            "text" => {}
            "json_object" => drop(chat.raw("response_format", r#"{"type":"json_object"}"#)),
            "json_schema" => {
                let mut schema = Writer::object();
                schema.pass_on(format.rest(), "text")?;
                let schema = schema.end();
                chat.raw("response_format", &format!(r#"{{"type":"json_schema","json_schema":{schema}}}"#));
            }
            _ => return Err(bad("text", "text.format.type must be text, json_object or json_schema")),
        }
    }
    match settings.rest().next() {
        Some((name, _)) => Err(cannot("text", format!("text.{name} is not known here"))),
        None => Ok(()),
    }
}

/// They come where they are asked for in either way.
fn logprobs(asked: &mut Members<'_>, chat: &mut Writer) -> Result<(), Refusal> {
    let top = asked.take("top_logprobs");
    let mut wanted = top.is_some_and(|raw| raw.get() != "0");
    if let Some(raw) = asked.take("include") {
        let include: Vec<String> = serde_json::from_str(raw.get())
            .map_err(|_| bad("include", "include must be an array of strings"))?;
        for one in include {
            if one == "message.output_text.logprobs" {
                wanted = true;
            } else if !INCLUDED.contains(&one.as_str()) {
                return Err(cannot("include", format!("{one} can't be included here")));
            }
        }
    }
    if wanted {
        chat.raw("logprobs", "true").carry("top_logprobs", top);
    }
    Ok(())
}

fn tools(asked: &mut Members<'_>, chat: &mut Writer) -> Result<(), Refusal> {
    if let Some(raw) = asked.take("tools") {
        let tools = items(raw).ok_or_else(|| bad("tools", "tools must be an array"))?;
        let mut functions = Vec::new();
        for (at, tool) in tools.into_iter().enumerate() {
            let mut tool = Members::read(tool, "tools", &format!("tools[{at}]"))?;
            let kind = tool.take_text("type").unwrap_or_default();
            if kind != "function" {
                let message =
                    format!("tools[{at}]: only functions that you run yourself are offered here, not {kind}");
                return Err(cannot("tools", message));
            }
            if tool.take("defer_loading").is_some_and(|raw| raw.get() == "true") {
                return Err(cannot("tools", format!("tools[{at}]: no supplier searches tools")));
            }
            let mut function = Writer::object();
            for name in ["name", "description", "parameters", "strict"] {
                function.carry(name, tool.take(name));
            }
            function.pass_on(tool.rest(), "tools")?;
            functions.push(format!(r#"{{"type":"function","function":{}}}"#, function.end()));
        }
        if !functions.is_empty() {
            chat.raw("tools", &array(&functions));
        }
    }
    let Some(raw) = asked.take("tool_choice") else {
        return Ok(());
    };
    if is_text(raw) {
        chat.raw("tool_choice", raw.get());
        return Ok(());
    }
    let mut choice = Members::read(raw, "tool_choice", "tool_choice")?;
    let named = |choice: &mut Members<'_>| {
        let kind = choice.take_text("type").unwrap_or_default();
        if kind != "function" {
            return Err(cannot("tool_choice", format!("tool_choice: {kind} tools are not offered here")));
        }
        let name = choice.take("name").ok_or_else(|| bad("tool_choice", "tool_choice.name is required"))?;
        Ok(format!(r#"{{"type":"function","function":{{"name":{}}}}}"#, name.get()))
    };
    if text_is(raw, "allowed_tools") {
        choice.take("type");
        let mode = choice.take_text("mode").unwrap_or_else(|| "auto".into());
        let allowed = choice.take("tools").and_then(items).unwrap_or_default();
        let mut tools = Vec::new();
        for tool in allowed {
            tools.push(named(&mut Members::read(tool, "tool_choice", "tool_choice.tools")?)?);
        }
        let (mode, tools) = (quoted(&mode), array(&tools));
        chat.raw(
            "tool_choice",
            &format!(r#"{{"type":"allowed_tools","allowed_tools":{{"mode":{mode},"tools":{tools}}}}}"#),
        );
    } else {
        chat.raw("tool_choice", &named(&mut choice)?);
    }
    match choice.rest().next() {
        Some((name, _)) => Err(cannot("tool_choice", format!("tool_choice.{name} is not known here"))),
        None => Ok(()),
    }
}

/// Whether an object is of this type.
fn text_is(raw: &RawValue, kind: &str) -> bool {
    serde_json::from_str::<Members<'_>>(raw.get())
        .is_ok_and(|mut members| members.take_text("type").as_deref() == Some(kind))
}

#[cfg(test)]
mod tests;
