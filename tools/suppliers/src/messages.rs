//! The same supplier in Anthropic's words: a Messages request understood as a chat request, and the planned answer told
//! as a message or as the events of one. What is said, counted and paced does not depend on the words.

use serde_json::{Value, json};

use crate::answer::{Malformed, Piece, Plan};
use crate::stream::{Envelope, Step};

/// The chat request that says the same.
pub(crate) fn read(request: &Value) -> Result<Value, Malformed> {
    let bad = |text: &str, field: &'static str| (text.to_owned(), Some(field));
    let turns = request["messages"].as_array().filter(|turns| !turns.is_empty());
    let turns = turns.ok_or_else(|| bad("messages must be an array of at least one message", "messages"))?;
    if request["max_tokens"].as_u64().is_none_or(|limit| limit == 0) {
        return Err(bad("max_tokens must be a whole number of at least 1", "max_tokens"));
    }
    let mut messages = Vec::new();
    if !request["system"].is_null() {
        messages.push(json!({"role": "system", "content": request["system"]}));
    }
    for turn in turns {
        let role = turn["role"].as_str().filter(|role| matches!(*role, "user" | "assistant"));
        let role = role.ok_or_else(|| bad("a role is user or assistant", "messages"))?;
        messages.push(json!({"role": role, "content": turn["content"]}));
    }
    let mut chat = json!({"model": request["model"], "messages": messages, "max_tokens": request["max_tokens"],
        "stream": request["stream"], "stream_options": {"include_usage": true}, "stop": request["stop_sequences"]});
    if let Some(tools) = request["tools"].as_array() {
        let tool = |tool: &Value| {
            json!({"type": "function", "function": {"name": tool["name"], "description": tool["description"],
                "parameters": tool["input_schema"]}})
        };
        chat["tools"] = tools.iter().map(tool).collect();
    }
    let choice = &request["tool_choice"];
    chat["tool_choice"] = match choice["type"].as_str() {
        Some("any") => json!("required"),
        Some("none") => json!("none"),
        Some("tool") => json!({"type": "function", "function": {"name": choice["name"]}}),
        _ => Value::Null,
    };
    if choice["disable_parallel_tool_use"] == true {
        chat["parallel_tool_calls"] = json!(false);
    }
    let format = &request["output_config"]["format"];
    if format["type"] == "json_schema" {
        chat["response_format"] = json!({"type": "json_schema", "json_schema": {"schema": format["schema"]}});
    }
    if !request["thinking"].is_null() {
        chat["reasoning_effort"] = request["output_config"]["effort"].clone();
    }
    Ok(chat)
}

/// A usage in these words; one that is no object stays what it is.
fn counted(usage: Option<Value>) -> Value {
    match usage {
        Some(usage) if usage.is_object() => {
            json!({"input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"]})
        }
        Some(odd) => odd,
        None => Value::Null,
    }
}

fn reason(finish: Option<&str>) -> Value {
    match finish {
        Some("length") => json!("max_tokens"),
        Some("tool_calls") => json!("tool_use"),
        Some(_) => json!("end_turn"),
        None => Value::Null,
    }
}

/// The whole message. There is one choice, as requests can't ask for more.
pub(crate) fn whole(envelope: &Envelope, plan: &Plan, usage: Option<Value>) -> Value {
    let choice = &plan.choices[0];
    let message = choice.message();
    let mut content = Vec::new();
    if let Some(thought) = message["reasoning_content"].as_str() {
        content.push(json!({"type": "thinking", "thinking": thought, "signature": ""}));
    }
    if let Some(text) = message["content"].as_str() {
        content.push(json!({"type": "text", "text": text}));
    }
    for call in message["tool_calls"].as_array().into_iter().flatten() {
        let arguments = call["function"]["arguments"].as_str().unwrap_or_default();
        let input: Value = serde_json::from_str(arguments).unwrap_or_else(|_| json!({}));
        content.push(
            json!({"type": "tool_use", "id": call["id"], "name": call["function"]["name"], "input": input}),
        );
    }
    json!({"id": envelope.id, "type": "message", "role": "assistant", "model": envelope.model, "content": content,
        "stop_reason": reason(choice.finish_reason), "stop_sequence": null, "usage": counted(usage)})
}

/// The events that a step of a stream is, by name.
pub(crate) fn events(
    envelope: &Envelope,
    plan: &Plan,
    usage: Option<Value>,
    step: Step,
) -> Vec<(&'static str, Value)> {
    let pieces = &plan.choices[0].pieces;
    match step {
        Step::Role(_) => {
            let mut usage = counted(usage);
            if usage["output_tokens"].is_u64() {
                usage["output_tokens"] = json!(1);
            }
            let message = json!({"id": envelope.id, "type": "message", "role": "assistant", "content": [],
                "model": envelope.model, "stop_reason": null, "stop_sequence": null, "usage": usage});
            vec![("message_start", json!({"type": "message_start", "message": message}))]
        }
        Step::Piece(_, at) => {
            let mut events = Vec::new();
            if starts_block(pieces, at) {
                if at > 0 {
                    events.push(stop(block(pieces, at - 1)));
                }
                events.push(start(block(pieces, at), &pieces[at]));
            }
            let delta = match &pieces[at] {
                Piece::Reasoning(word) => json!({"type": "thinking_delta", "thinking": word}),
                Piece::Text(word) => json!({"type": "text_delta", "text": word}),
                Piece::Arguments { text, .. } => json!({"type": "input_json_delta", "partial_json": text}),
                Piece::Call { .. } => return events,
            };
            let index = block(pieces, at);
            events.push((
                "content_block_delta",
                json!({"type": "content_block_delta", "index": index, "delta": delta}),
            ));
            events
        }
        Step::Finish(choice) => {
            let mut events = Vec::new();
            if let Some(last) = pieces.len().checked_sub(1) {
                events.push(stop(block(pieces, last)));
            }
            let delta =
                json!({"stop_reason": reason(plan.choices[choice].finish_reason), "stop_sequence": null});
            events.push((
                "message_delta",
                json!({"type": "message_delta", "delta": delta, "usage": counted(usage)}),
            ));
            events
        }
        Step::Usage => Vec::new(),
        Step::Done => vec![("message_stop", json!({"type": "message_stop"}))],
    }
}

fn starts_block(pieces: &[Piece], at: usize) -> bool {
    let kind = |piece: &Piece| match piece {
        Piece::Reasoning(_) => 0,
        Piece::Text(_) => 1,
        Piece::Call { .. } | Piece::Arguments { .. } => 2,
    };
    matches!(pieces[at], Piece::Call { .. }) || at == 0 || kind(&pieces[at]) != kind(&pieces[at - 1])
}

fn block(pieces: &[Piece], at: usize) -> usize {
    (1..=at).filter(|at| starts_block(pieces, *at)).count()
}

fn start(index: usize, piece: &Piece) -> (&'static str, Value) {
    let block = match piece {
        Piece::Reasoning(_) => json!({"type": "thinking", "thinking": "", "signature": ""}),
        Piece::Text(_) => json!({"type": "text", "text": ""}),
        Piece::Call { id, function, .. } => {
            json!({"type": "tool_use", "id": id, "name": function, "input": {}})
        }
        Piece::Arguments { .. } => json!({}),
    };
    ("content_block_start", json!({"type": "content_block_start", "index": index, "content_block": block}))
}

fn stop(index: usize) -> (&'static str, Value) {
    ("content_block_stop", json!({"type": "content_block_stop", "index": index}))
}
