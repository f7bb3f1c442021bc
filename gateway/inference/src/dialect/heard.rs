//! What one chunk of a supplier's stream, or its whole answer, says about the first choice, piece by piece.
//!
//! Where `answer` asks what a chunk costs, this asks what it means. It is lenient as `answer` is: a field of an odd
//! shape is skipped or read as text, never a reason to fail.

use serde_json::Value;

use super::Untold;

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// What the model thought.
    Reasoning(String),
    /// What it said.
    Text(String),
    /// What it said to say no.
    Refusal(String),
    /// A part of a call of a tool; id and name come with the first part.
    Tool { index: u64, id: Option<String>, name: Option<String>, arguments: String },
}

/// Why the answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    /// It was complete, or a stop sequence came.
    Stop,
    /// The output limit was reached.
    Length,
    /// The tools are to be called.
    Tools,
    /// A filter stopped it.
    Filter,
}

/// What the supplier's usage says beyond the two counts that are billed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Details {
    /// Prompt tokens that came from a cache.
    pub(crate) cached: u64,
    /// Completion tokens that were thought.
    pub(crate) reasoning: u64,
}

/// One chunk, or one whole answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Heard {
    pub(crate) created: u64,
    /// A word of the contract's (§6.3).
    pub(crate) service_tier: Option<&'static str>,
    pub(crate) pieces: Vec<Piece>,
    /// Log probabilities of the text in `pieces`.
    pub(crate) logprobs: Vec<Value>,
    pub(crate) finish: Option<Finish>,
    /// The stop sequence that came, where the supplier says which.
    pub(crate) stop_sequence: Option<String>,
    pub(crate) details: Option<Details>,
}

/// Reads a chunk (`delta`) or a whole answer (`message`).
pub(crate) fn read(json: &[u8]) -> Result<Heard, Untold> {
    let mut value: Value = serde_json::from_slice(json).map_err(|_| Untold("not JSON"))?;
    let word = |value: &Value| value.as_str().map(str::to_owned);
    let mut heard = Heard {
        created: value["created"].as_u64().unwrap_or(0),
        service_tier: value["service_tier"].as_str().and_then(super::shown::service_tier),
        details: details(&value["usage"]).or_else(|| details(&value["x_groq"]["usage"])),
        ..Heard::default()
    };
    let choices = value.get_mut("choices").and_then(Value::as_array_mut);
    let first = choices.into_iter().flatten().find(|choice| choice["index"].as_u64().unwrap_or(0) == 0);
    let Some(choice) = first else {
        return Ok(heard);
    };
    heard.finish = choice["finish_reason"].as_str().map(|reason| match reason {
        "length" | "max_tokens" => Finish::Length,
        "tool_calls" | "function_call" => Finish::Tools,
        "content_filter" => Finish::Filter,
        _ => Finish::Stop,
    });
    heard.stop_sequence = word(&choice["stop_reason"]);
    if let Some(Value::Array(logprobs)) = choice.pointer_mut("/logprobs/content").map(Value::take) {
        heard.logprobs = logprobs;
    }
    for part in ["delta", "message"] {
        said(&choice[part], &mut heard.pieces);
    }
    Ok(heard)
}

fn said(delta: &Value, pieces: &mut Vec<Piece>) {
    let text = |name: &str| joined(&delta[name]).filter(|text| !text.is_empty());
    pieces.extend(text("reasoning_content").or_else(|| text("reasoning")).map(Piece::Reasoning));
    pieces.extend(text("content").map(Piece::Text));
    pieces.extend(text("refusal").map(Piece::Refusal));
    let calls = delta["tool_calls"].as_array().into_iter().flatten().enumerate();
    for (at, call) in calls {
        let index = call["index"].as_u64().unwrap_or(at as u64);
        pieces.push(tool(index, &call["id"], &call["function"]));
    }
    if delta["function_call"].is_object() {
        pieces.push(tool(0, &Value::Null, &delta["function_call"]));
    }
}

fn tool(index: u64, id: &Value, function: &Value) -> Piece {
    let word = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let arguments = match &function["arguments"] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    Piece::Tool { index, id: word(id), name: word(&function["name"]), arguments }
}

/// A text, or the texts of an array of parts.
fn joined(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => Some(parts.iter().filter_map(|part| part["text"].as_str()).collect()),
        _ => None,
    }
}

fn details(usage: &Value) -> Option<Details> {
    let count = |path: &str| usage.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    usage.is_object().then(|| Details {
        cached: count("/prompt_tokens_details/cached_tokens"),
        reasoning: count("/completion_tokens_details/reasoning_tokens"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_says_its_pieces_in_order() {
        let json = br#"{"model":"m","created":7,"choices":[{"index":0,"delta":{"content":"b","reasoning_content":"a",
            "tool_calls":[{"index":1,"id":"c","function":{"name":"f","arguments":"{}"}}]},"finish_reason":"tool_calls"}],
            "usage":{"prompt_tokens":3,"prompt_tokens_details":{"cached_tokens":2},
            "completion_tokens_details":{"reasoning_tokens":1}}}"#;
        let heard = read(json).unwrap();
        assert_eq!(
            heard.pieces,
            [
                Piece::Reasoning("a".into()),
                Piece::Text("b".into()),
                Piece::Tool {
                    index: 1,
                    id: Some("c".into()),
                    name: Some("f".into()),
                    arguments: "{}".into()
                },
            ]
        );
        assert_eq!((heard.finish, heard.created), (Some(Finish::Tools), 7));
        assert_eq!(heard.details, Some(Details { cached: 2, reasoning: 1 }));
    }

    #[test]
    fn odd_shapes_are_read_and_other_choices_left_out() {
        let json = br#"{"choices":[{"index":1,"delta":{"content":"no"}},{"message":{"content":[{"type":"text","text":"x"}],
            "function_call":{"name":"f","arguments":{"a":1}},"tool_calls":"none"},"finish_reason":"eos"}]}"#;
        let heard = read(json).unwrap();
        let call = Piece::Tool { index: 0, id: None, name: Some("f".into()), arguments: r#"{"a":1}"#.into() };
        assert_eq!(heard.pieces, [Piece::Text("x".into()), call]);
        assert_eq!(heard.finish, Some(Finish::Stop));
        assert_eq!(read(b"{\"choices\":null}").unwrap(), Heard::default());
        assert_eq!(read(b"nothing"), Err(Untold("not JSON")));
    }
}
