//! Decides the whole answer to a request before anything is sent: which pieces, and why it ends.
//! Pure, so that the same request to the same supplier always gets the same answer.

use serde_json::{Value, json};

use crate::words::{self, Draw};

/// Why a request is refused as malformed: the text and, where one is to blame, the field.
pub(crate) type Malformed = (String, Option<&'static str>);

/// One token of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Piece {
    Text(String),
    /// The start of the one tool call that an answer can hold.
    Call {
        id: String,
        function: String,
    },
    Arguments(String),
}

/// One of the `n` answers.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub(crate) pieces: Vec<Piece>,
    pub(crate) finish_reason: &'static str,
}

impl Choice {
    /// The `message` of an answer that is not streamed.
    pub(crate) fn message(&self) -> Value {
        let (mut text, mut arguments, mut call) = (String::new(), String::new(), None);
        for piece in &self.pieces {
            match piece {
                Piece::Text(word) => text.push_str(word),
                Piece::Arguments(word) => arguments.push_str(word),
                Piece::Call { id, function } => call = Some((id, function)),
            }
        }
        match call {
            None => json!({"role": "assistant", "content": text, "refusal": null}),
            Some((id, function)) => {
                json!({"role": "assistant", "content": null, "refusal": null, "tool_calls": [
                {"id": id, "type": "function", "function": {"name": function, "arguments": arguments}}]})
            }
        }
    }
}

/// What the supplier understood and is going to say.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) model: String,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    pub(crate) prompt_tokens: u64,
    pub(crate) choices: Vec<Choice>,
}

impl Plan {
    pub(crate) fn completion_tokens(&self) -> u64 {
        self.choices.iter().map(|c| c.pieces.len() as u64).sum()
    }
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

pub(crate) fn plan(supplier: &str, seed: u64, request: &Value) -> Result<Plan, Malformed> {
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
    let prompt_hash = words::hash(request["messages"].to_string().as_bytes());
    let exact = exact_tokens(request)?;
    let choices = (0..n).map(|index| {
        let draw = Draw::new(&[seed, prompt_hash, request["seed"].as_u64().unwrap_or(0), index]);
        choice(supplier, request, messages, draw, exact, limit)
    });
    Ok(Plan {
        stream: request["stream"].as_bool().unwrap_or(false),
        include_usage: request["stream_options"]["include_usage"].as_bool().unwrap_or(false),
        prompt_tokens: prompt_tokens(&request["messages"]),
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
) -> Choice {
    if let Some(function) = demanded_tool(request, messages) {
        return cut(tool_call(function, &mut draw), limit, "tool_calls");
    }
    let natural = 24 + draw.below(72);
    let text = match request["response_format"]["type"].as_str() {
        Some("json_object") => {
            let said = words::answer(supplier, natural, draw);
            words::spaced(&json!({"simulated": true, "supplier": supplier, "text": said}))
        }
        Some("json_schema") => {
            let schema = &request["response_format"]["json_schema"]["schema"];
            words::spaced(&words::fitting(schema, schema, "simulated", 16))
        }
        _ => words::answer(supplier, exact.unwrap_or(natural), draw),
    };
    let text = before_stop(&text, &request["stop"]);
    cut(words::pieces(text).into_iter().map(Piece::Text).collect(), limit, "stop")
}

/// The tool that the answer must call: the one named or required by `tool_choice`; with `auto`, the one whose name
/// the last user message mentions, or the first where it mentions a "tool".
fn demanded_tool<'a>(request: &'a Value, messages: &[Value]) -> Option<&'a Value> {
    let tools = request["tools"].as_array().filter(|t| !t.is_empty())?;
    let named = |name: &str| tools.iter().map(|t| &t["function"]).find(|f| f["name"] == name);
    match &request["tool_choice"] {
        Value::Object(choice) => named(choice.get("function")?["name"].as_str()?),
        Value::String(choice) if choice == "none" => None,
        Value::String(choice) if choice == "required" => Some(&tools[0]["function"]),
        _ => {
            let last = messages.last().filter(|m| m["role"] == "user")?;
            let said = text_of(last).to_lowercase();
            let mentioned = |f: &&Value| f["name"].as_str().is_some_and(|n| said.contains(&n.to_lowercase()));
            let by_name = tools.iter().map(|t| &t["function"]).find(mentioned);
            by_name.or_else(|| said.contains("tool").then_some(&tools[0]["function"]))
        }
    }
}

fn tool_call(function: &Value, draw: &mut Draw) -> Vec<Piece> {
    let parameters = &function["parameters"];
    let arguments = words::spaced(&words::fitting(parameters, parameters, "simulated", 16));
    let name = function["name"].as_str().unwrap_or_default().to_owned();
    let call = Piece::Call { id: format!("call_{:016x}", draw.next()), function: name };
    std::iter::once(call).chain(words::pieces(&arguments).into_iter().map(Piece::Arguments)).collect()
}

fn cut(mut pieces: Vec<Piece>, limit: Option<u64>, finish_reason: &'static str) -> Choice {
    match limit {
        Some(limit) if limit < pieces.len() as u64 => {
            pieces.truncate(limit as usize);
            Choice { pieces, finish_reason: "length" }
        }
        _ => Choice { pieces, finish_reason },
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
        plan("swift", 7, &request).expect("a good request").choices.remove(0)
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
            assert_eq!((choice.pieces.len(), choice.finish_reason), (tokens, finish), "{extra}");
        }
    }

    #[test]
    fn the_same_request_gets_the_same_answer_and_every_choice_its_own() {
        let request = ask(json!({"n": 2}));
        let (one, two) = (plan("swift", 7, &request).unwrap(), plan("swift", 7, &request).unwrap());
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
            assert_eq!(plan("s", 1, &ask(extra.clone())).unwrap_err().1, Some(field), "{extra}");
        }
    }
}
