//! Decides the whole answer to a request before anything is sent: which pieces, and why it ends.
//! Pure, so that the same request to the same supplier always gets the same answer.

use serde_json::{Value, json};

use crate::lapses::{self, Lapses};
use crate::words::{self, Draw};

/// Why a request is refused as malformed: the text and, where one is to blame, the field.
pub(crate) type Malformed = (String, Option<&'static str>);

/// One token of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Piece {
    /// Thought, and shown beside the answer.
    Reasoning(String),
    Text(String),
    /// The start of a tool call; `at` is its place among those of the answer.
    Call {
        at: usize,
        id: String,
        function: String,
    },
    Arguments {
        at: usize,
        text: String,
    },
}

/// One of the `n` answers.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub(crate) pieces: Vec<Piece>,
    /// Unless it does not say.
    pub(crate) finish_reason: Option<&'static str>,
}

impl Choice {
    /// The `message` of an answer that is not streamed.
    pub(crate) fn message(&self) -> Value {
        let (mut thought, mut text, mut calls) = (String::new(), String::new(), Vec::new());
        for piece in &self.pieces {
            match piece {
                Piece::Reasoning(word) => thought.push_str(word),
                Piece::Text(word) => text.push_str(word),
                Piece::Call { id, function, .. } => calls.push((id, function, String::new())),
                Piece::Arguments { at, text } => calls[*at].2.push_str(text),
            }
        }
        let mut message = json!({"role": "assistant", "content": text, "refusal": null});
        if !thought.is_empty() {
            message["reasoning_content"] = thought.into();
        }
        if !calls.is_empty() {
            let call = |(id, function, arguments): &(_, _, _)| {
                json!({"id": id, "type": "function",
                    "function": {"name": function, "arguments": arguments}})
            };
            message["content"] = Value::Null;
            message["tool_calls"] = calls.iter().map(call).collect();
        }
        message
    }

    /// The log probabilities of the text, in which `top` alternatives stand beside each token.
    pub(crate) fn logprobs(&self, top: u64) -> Value {
        let texts = self.pieces.iter().filter_map(|piece| match piece {
            Piece::Text(word) => Some(logprob(word, top)),
            _ => None,
        });
        json!({"content": texts.collect::<Vec<_>>(), "refusal": null})
    }

    /// Tokens of the reasoning.
    fn reasoning(&self) -> u64 {
        self.pieces.iter().filter(|piece| matches!(piece, Piece::Reasoning(_))).count() as u64
    }
}

/// What a token says of its own likelihood. Made up, and always the same.
pub(crate) fn logprob(word: &str, top: u64) -> Value {
    let of = |text: &str| {
        let likely = -((words::hash(text.as_bytes()) % 400) as f64) / 100.0;
        json!({"token": text, "logprob": likely, "bytes": text.as_bytes()})
    };
    let mut told = of(word);
    let others = (1..top).map(|rank| of(&format!("{word}{rank}")));
    told["top_logprobs"] = (top > 0).then(|| of(word)).into_iter().chain(others).collect();
    told
}

/// What the supplier understood and is going to say.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) model: String,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    /// Alternatives beside each token, where log probabilities are asked for.
    pub(crate) logprobs: Option<u64>,
    /// The tier that was asked for, as the answer repeats it.
    pub(crate) service_tier: Option<String>,
    /// Prompts with the same key are prefixes of one another.
    pub(crate) cache_key: Option<String>,
    pub(crate) prompt_tokens: u64,
    pub(crate) choices: Vec<Choice>,
}

impl Plan {
    pub(crate) fn completion_tokens(&self) -> u64 {
        self.choices.iter().map(|c| c.pieces.len() as u64).sum()
    }

    pub(crate) fn reasoning_tokens(&self) -> u64 {
        self.choices.iter().map(Choice::reasoning).sum()
    }
}

/// The field of the request that the supplier can't honour, if any.
pub(crate) fn beyond<'a>(unable: &'a [String], request: &Value) -> Option<&'a str> {
    let asks = |field: &&String| match &request[field.as_str()] {
        Value::Null | Value::Bool(false) => false,
        // One choice is what everybody gives.
        value => !(field.as_str() == "n" && value == 1),
    };
    unable.iter().find(asks).map(String::as_str)
}

/// The prompt tokens of a request's `messages` under the counting rule: the words of all their text.
#[must_use]
pub fn prompt_tokens(messages: &Value) -> u64 {
    let messages = messages.as_array().map(Vec::as_slice).unwrap_or_default();
    messages.iter().map(|m| text_of(m).split_whitespace().count() as u64).sum()
}

/// The text of one message, its parts separated by a newline.
fn text_of(message: &Value) -> String {
    match &message["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|p| p["text"].as_str()).collect::<Vec<_>>().join("\n"),
        _ => String::new(),
    }
}

pub(crate) fn plan(supplier: &str, seed: u64, request: &Value, lapses: &Lapses) -> Result<Plan, Malformed> {
    let model = request["model"].as_str().ok_or_else(|| bad("model must be a string", "model"))?.to_owned();
    let messages = request["messages"].as_array().filter(|m| !m.is_empty());
    let messages =
        messages.ok_or_else(|| bad("messages must be an array of at least one message", "messages"))?;
    if messages.iter().any(|m| !m["role"].is_string()) {
        return Err(bad("every message needs a role", "messages"));
    }
    let limit = match number(request, "max_completion_tokens")? {
        Some(limit) => Some(limit),
        None => number(request, "max_tokens")?,
    };
    if limit == Some(0) {
        return Err(bad("max_tokens must be at least 1", "max_tokens"));
    }
    let n = number(request, "n")?.unwrap_or(1);
    if !(1..=128).contains(&n) {
        return Err(bad("n must be from 1 to 128", "n"));
    }
    if lapses.output_max.zip(limit).is_some_and(|(most, asked)| asked > most) {
        return Err(bad("max_tokens is more than this model can give", "max_tokens"));
    }
    let prompt = prompt_tokens(&request["messages"]);
    if lapses.context_max.is_some_and(|most| prompt > most) {
        return Err(bad("the prompt is longer than this model's context", "messages"));
    }
    let limit = limit.filter(|_| !lapses.ignore_limit);
    let prompt_hash = words::hash(request["messages"].to_string().as_bytes());
    let exact = exact_tokens(request)?;
    let choices = (0..n).map(|index| {
        let draw = Draw::new(&[seed, prompt_hash, request["seed"].as_u64().unwrap_or(0), index]);
        choice(supplier, request, messages, draw, exact, limit, lapses)
    });
    Ok(Plan {
        stream: request["stream"].as_bool().unwrap_or(false),
        include_usage: request["stream_options"]["include_usage"].as_bool().unwrap_or(false),
        logprobs: request["logprobs"]
            .as_bool()
            .filter(|asked| *asked)
            .map(|_| request["top_logprobs"].as_u64().unwrap_or(0)),
        service_tier: request["service_tier"].as_str().map(str::to_owned),
        cache_key: request["prompt_cache_key"].as_str().map(str::to_owned),
        prompt_tokens: prompt,
        choices: choices.collect(),
        model,
    })
}

fn choice(
    supplier: &str,
    request: &Value,
    messages: &[Value],
    mut draw: Draw,
    exact: Option<u64>,
    limit: Option<u64>,
    lapses: &Lapses,
) -> Choice {
    let thought = words::answer(supplier, effort(request), draw);
    let mut pieces: Vec<Piece> = words::pieces(&thought).into_iter().map(Piece::Reasoning).collect();
    let functions = demanded_tools(request, messages, lapses);
    if !functions.is_empty() {
        for (at, function) in functions.into_iter().enumerate() {
            pieces.extend(tool_call(at, function, &mut draw, lapses));
        }
        return cut(pieces, limit, "tool_calls", lapses);
    }
    let natural = 24 + draw.below(72);
    let natural = match request["verbosity"].as_str() {
        Some("low") => natural / 2,
        Some("high") => natural * 2,
        _ => natural,
    };
    let text = match request["response_format"]["type"].as_str().filter(|_| !lapses.ignore_format) {
        Some("json_object") => {
            let said = words::answer(supplier, natural, draw);
            words::spaced(&json!({"simulated": true, "supplier": supplier, "text": said}))
        }
        Some("json_schema") => {
            let schema = &request["response_format"]["json_schema"]["schema"];
            words::spaced(&words::fitting(schema, schema, "simulated", 16))
        }
        _ => {
            let last = messages.last().map(text_of).unwrap_or_default();
            let known = lapses::recalled(&last, lapses.remembers);
            known.unwrap_or_else(|| words::answer(supplier, exact.unwrap_or(natural), draw))
        }
    };
    let text = before_stop(&text, &request["stop"]);
    pieces.extend(words::pieces(text).into_iter().map(Piece::Text));
    cut(pieces, limit, "stop", lapses)
}

/// How many words of thought an effort buys.
fn effort(request: &Value) -> u64 {
    match request["reasoning_effort"].as_str() {
        None | Some("none") => 0,
        Some("minimal") => 4,
        Some("low") => 8,
        Some("medium") => 16,
        Some("high") => 32,
        Some(_) => 64,
    }
}

/// The tools that the answer must call: the one named or required by `tool_choice`; with `auto`, those whose names the
/// last user message mentions, or the first where it mentions a "tool". More than one only where calls may be parallel.
fn demanded_tools<'a>(request: &'a Value, messages: &[Value], lapses: &Lapses) -> Vec<&'a Value> {
    let Some(tools) = request["tools"].as_array().filter(|t| !t.is_empty() && !lapses.ignore_tools) else {
        return Vec::new();
    };
    let named = |name: &str| tools.iter().map(|t| &t["function"]).find(|f| f["name"] == name);
    let mut demanded: Vec<&Value> = match &request["tool_choice"] {
        Value::Object(choice) => {
            let name = choice.get("function").and_then(|function| function["name"].as_str());
            name.and_then(named).into_iter().collect()
        }
        Value::String(choice) if choice == "none" => Vec::new(),
        choice => {
            let last = messages.last().filter(|m| m["role"] == "user");
            let said = last.map(|message| text_of(message).to_lowercase()).unwrap_or_default();
            let mentioned = |f: &&Value| f["name"].as_str().is_some_and(|n| said.contains(&n.to_lowercase()));
            let by_name: Vec<&Value> = tools.iter().map(|t| &t["function"]).filter(mentioned).collect();
            let any = choice == "required" || said.contains("tool");
            if by_name.is_empty() && any { vec![&tools[0]["function"]] } else { by_name }
        }
    };
    if (request["parallel_tool_calls"] == false && !lapses.ignore_parallel) || lapses.one_call_only {
        demanded.truncate(1);
    }
    demanded
}

fn tool_call(at: usize, function: &Value, draw: &mut Draw, lapses: &Lapses) -> Vec<Piece> {
    let parameters = &function["parameters"];
    let arguments = match lapses.odd_arguments {
        true => lapses::odd_arguments(),
        false => words::fitting(parameters, parameters, "simulated", 16),
    };
    let arguments = words::spaced(&arguments);
    let name = function["name"].as_str().unwrap_or_default().to_owned();
    let call = Piece::Call { at, id: format!("call_{:016x}", draw.next()), function: name };
    let arguments = words::pieces(&arguments).into_iter().map(|text| Piece::Arguments { at, text });
    std::iter::once(call).chain(arguments).collect()
}

fn cut(mut pieces: Vec<Piece>, limit: Option<u64>, reason: &'static str, lapses: &Lapses) -> Choice {
    let told = |reason| (!lapses.omit_finish).then_some(reason);
    match limit {
        Some(limit) if limit < pieces.len() as u64 => {
            pieces.truncate(limit as usize);
            Choice { pieces, finish_reason: told("length") }
        }
        _ => Choice { pieces, finish_reason: told(reason) },
    }
}

fn before_stop<'a>(text: &'a str, stop: &Value) -> &'a str {
    let stops = match stop {
        Value::String(one) => vec![one.as_str()],
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let first = stops.iter().filter(|s| !s.is_empty()).filter_map(|s| text.find(s)).min();
    &text[..first.unwrap_or(text.len())]
}

fn exact_tokens(request: &Value) -> Result<Option<u64>, Malformed> {
    let wanted = &request["metadata"]["simulate_completion_tokens"];
    let tokens = match wanted {
        Value::Null => return Ok(None),
        Value::String(text) => text.parse().ok(),
        other => other.as_u64(),
    };
    let tokens = tokens.filter(|t| *t <= 1_000_000);
    tokens.map(Some).ok_or_else(|| bad("simulate_completion_tokens must be from 0 to 1000000", "metadata"))
}

fn number(request: &Value, field: &'static str) -> Result<Option<u64>, Malformed> {
    match &request[field] {
        Value::Null => Ok(None),
        value => value.as_u64().map(Some).ok_or_else(|| bad("must be a whole number", field)),
    }
}

fn bad(text: &str, field: &'static str) -> Malformed {
    (text.to_owned(), Some(field))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(request: Value) -> Choice {
        plan("swift", 7, &request, &Lapses::default()).expect("a good request").choices.remove(0)
    }

    fn ask(extra: Value) -> Value {
        let mut request =
            json!({"model": "m", "messages": [{"role": "user", "content": "say four short words"}]});
        request.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        request
    }

    #[test]
    fn exact_counts_are_met_and_limits_cut_them() {
        for (extra, tokens, finish) in [
            (json!({"metadata": {"simulate_completion_tokens": "10"}}), 10, "stop"),
            (json!({"metadata": {"simulate_completion_tokens": 1500}}), 1500, "stop"),
            (json!({"metadata": {"simulate_completion_tokens": "10"}, "max_tokens": 10}), 10, "stop"),
            (json!({"metadata": {"simulate_completion_tokens": "10"}, "max_tokens": 4}), 4, "length"),
            (json!({"max_completion_tokens": 2, "max_tokens": 9}), 2, "length"),
        ] {
            let choice = said(ask(extra.clone()));
            assert_eq!((choice.pieces.len(), choice.finish_reason), (tokens, Some(finish)), "{extra}");
        }
    }

    #[test]
    fn the_same_request_gets_the_same_answer_and_every_choice_its_own() {
        let request = ask(json!({"n": 2}));
        let (one, two) = (
            plan("swift", 7, &request, &Lapses::default()).unwrap(),
            plan("swift", 7, &request, &Lapses::default()).unwrap(),
        );
        assert_eq!(one.choices[0].pieces, two.choices[0].pieces);
        assert_ne!(one.choices[0].pieces, one.choices[1].pieces);
        assert_eq!(one.prompt_tokens, 4);
    }

    #[test]
    fn a_stop_sequence_ends_the_text_before_it() {
        let message = said(ask(json!({"stop": ["made", "never"]}))).message();
        assert_eq!(message["content"], "Simulated supplier swift ");
    }

    #[test]
    fn tools_are_called_when_demanded_named_or_mentioned() {
        let tools = json!([
            {"type": "function", "function": {"name": "sum", "parameters": {"type": "object",
                "properties": {"a": {"type": "integer"}}}}},
            {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object",
                "properties": {"city": {"type": "string"}}}}}]);
        let named = json!({"type": "function", "function": {"name": "get_weather"}});
        for (choice, prompt, called) in [
            (json!("required"), "hello", Some("sum")),
            (json!("none"), "use get_weather", None),
            (named, "hello", Some("get_weather")),
            (json!("auto"), "please Get_Weather in Rome", Some("get_weather")),
            (Value::Null, "use a tool", Some("sum")),
            (Value::Null, "hello", None),
        ] {
            let message = said(json!({"model": "m", "tools": tools, "tool_choice": choice,
                "messages": [{"role": "user", "content": prompt}]}))
            .message();
            assert_eq!(message["tool_calls"][0]["function"]["name"].as_str(), called, "{choice} {prompt}");
            if let Some(arguments) = message["tool_calls"][0]["function"]["arguments"].as_str() {
                assert!(serde_json::from_str::<Value>(arguments).unwrap().is_object());
            }
        }
    }

    #[test]
    fn several_tools_are_called_at_once_unless_that_is_forbidden() {
        let tool =
            |name| json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}}});
        let tools = [tool("sum"), tool("get_weather"), tool("unused")];
        for (parallel, called) in [(json!(true), 2), (Value::Null, 2), (json!(false), 1)] {
            let message = said(json!({"model": "m", "tools": tools, "parallel_tool_calls": parallel,
                "messages": [{"role": "user", "content": "use sum and get_weather"}]}))
            .message();
            assert_eq!(message["tool_calls"].as_array().unwrap().len(), called, "{parallel}");
            assert_ne!(message["tool_calls"][0]["id"], message["tool_calls"][1]["id"]);
        }
    }

    #[test]
    fn reasoning_and_log_probabilities_come_where_they_are_asked_for() {
        let choice = said(ask(json!({"reasoning_effort": "low", "max_tokens": 20})));
        assert_eq!(choice.reasoning(), 8);
        assert_eq!(choice.pieces.len(), 20);
        let message = choice.message();
        assert!(message["reasoning_content"].as_str().unwrap().split_whitespace().count() == 8);
        let told = choice.logprobs(3);
        assert_eq!(told["content"].as_array().unwrap().len(), 12);
        assert_eq!(told["content"][0]["top_logprobs"].as_array().unwrap().len(), 3);
        assert_eq!(said(ask(json!({"reasoning_effort": "none"}))).reasoning(), 0);
    }

    #[test]
    fn json_mode_answers_with_json() {
        let message = said(ask(json!({"response_format": {"type": "json_object"}}))).message();
        let value: Value = serde_json::from_str(message["content"].as_str().unwrap()).unwrap();
        assert_eq!(value["simulated"], true);
        let schema = json!({"type": "object", "properties": {"title": {"type": "string"}}});
        let format = json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}});
        let message = said(ask(format)).message();
        let value: Value = serde_json::from_str(message["content"].as_str().unwrap()).unwrap();
        assert_eq!(value, json!({"title": "simulated"}));
    }

    #[test]
    fn malformed_requests_name_the_field() {
        for (extra, field) in [
            (json!({"messages": []}), "messages"),
            (json!({"messages": [{"content": "x"}]}), "messages"),
            (json!({"model": 3}), "model"),
            (json!({"n": 0}), "n"),
            (json!({"max_tokens": 0}), "max_tokens"),
            (json!({"max_tokens": -1}), "max_tokens"),
            (json!({"metadata": {"simulate_completion_tokens": "many"}}), "metadata"),
        ] {
            assert_eq!(
                plan("s", 1, &ask(extra.clone()), &Lapses::default()).unwrap_err().1,
                Some(field),
                "{extra}"
            );
        }
    }
}
