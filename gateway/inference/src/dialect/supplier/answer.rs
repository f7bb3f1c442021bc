//! A Messages answer as chat chunks, event by event, or as one chat completion.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::dialect::Untold;

/// Turns the events of one stream into chunks.
#[derive(Debug)]
pub(crate) struct Listener {
    created: u64,
    id: String,
    model: String,
    /// Tool calls so far.
    calls: u64,
    /// The open block is a tool call, and so many bytes of its input have come.
    input: Option<usize>,
    usage: Counts,
}

/// Counts as they stand; later ones overwrite earlier ones.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    input: u64,
    cache_read: u64,
    cache_written: u64,
    output: u64,
    thinking: u64,
}

impl Counts {
    fn take(&mut self, usage: &Value) {
        let set = |at: &mut u64, path: &str| {
            *at = usage.pointer(path).and_then(Value::as_u64).unwrap_or(*at);
        };
        set(&mut self.input, "/input_tokens");
        set(&mut self.cache_read, "/cache_read_input_tokens");
        set(&mut self.cache_written, "/cache_creation_input_tokens");
        set(&mut self.output, "/output_tokens");
        set(&mut self.thinking, "/output_tokens_details/thinking_tokens");
    }

    /// All of the input, as chat completions count it.
    fn json(&self) -> Value {
        let prompt = self.input.saturating_add(self.cache_read).saturating_add(self.cache_written);
        json!({
            "prompt_tokens": prompt,
            "completion_tokens": self.output,
            "total_tokens": prompt.saturating_add(self.output),
            "prompt_tokens_details": {"cached_tokens": self.cache_read},
            "completion_tokens_details": {"reasoning_tokens": self.thinking},
        })
    }
}

impl Listener {
    /// `created` is when the answer began, in Unix seconds.
    pub(crate) fn new(created: u64) -> Self {
        Self {
            created,
            id: String::new(),
            model: String::new(),
            calls: 0,
            input: None,
            usage: Counts::default(),
        }
    }

    /// The data of the chunks that one event's data stands for; `[DONE]` is the last.
    pub(crate) fn hear(&mut self, event: &[u8]) -> Result<Vec<Bytes>, Untold> {
        let event: Value = serde_json::from_slice(event).map_err(|_| Untold("not JSON"))?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let delta = match event["type"].as_str().unwrap_or_default() {
            "message_start" => {
                let message = &event["message"];
                (self.id, self.model) = (text(&message["id"]), text(&message["model"]));
                self.usage.take(&message["usage"]);
                json!({"role": "assistant", "content": ""})
            }
            "content_block_start" => match self.block(&event["content_block"]) {
                Some(delta) => delta,
                None => return Ok(Vec::new()),
            },
            "content_block_delta" => {
                let delta = &event["delta"];
                match delta["type"].as_str().unwrap_or_default() {
                    "text_delta" => json!({"content": delta["text"]}),
                    "thinking_delta" => json!({"reasoning_content": delta["thinking"]}),
                    "input_json_delta" => {
                        let piece = delta["partial_json"].as_str().unwrap_or_default();
                        match &mut self.input {
                            Some(bytes) if !piece.is_empty() => *bytes += piece.len(),
                            _ => return Ok(Vec::new()),
                        }
                        self.arguments(piece)
                    }
                    // Signatures and citations have no place in a chunk.
                    _ => return Ok(Vec::new()),
                }
            }
            "content_block_stop" => match self.input.take() {
                Some(0) => self.arguments("{}"),
                _ => return Ok(Vec::new()),
            },
            "message_delta" => {
                self.usage.take(&event["usage"]);
                let delta = &event["delta"];
                let Some(reason) = delta["stop_reason"].as_str() else {
                    return Ok(Vec::new());
                };
                let choice = json!({"index": 0, "delta": {}, "finish_reason": finish(reason),
                    "stop_reason": delta["stop_sequence"]});
                return Ok(vec![self.chunk(json!([choice]), None)]);
            }
            "message_stop" => {
                let usage = self.chunk(json!([]), Some(self.usage.json()));
                return Ok(vec![usage, Bytes::from_static(b"[DONE]")]);
            }
            "error" => return Ok(vec![Bytes::from(json!({"error": event["error"]}).to_string())]),
            _ => return Ok(Vec::new()),
        };
        let choice = json!({"index": 0, "delta": delta, "finish_reason": null});
        Ok(vec![self.chunk(json!([choice]), None)])
    }

    /// What a block's beginning says already.
    fn block(&mut self, block: &Value) -> Option<Value> {
        match block["type"].as_str()? {
            "tool_use" => {
                self.calls += 1;
                let whole = block["input"].as_object().filter(|input| !input.is_empty());
                let arguments = whole.map(|input| Value::from(input.clone()).to_string()).unwrap_or_default();
                self.input = Some(arguments.len());
                let function = json!({"name": block["name"], "arguments": arguments});
                let call = json!({"index": self.calls - 1, "id": block["id"], "type": "function",
                    "function": function});
                Some(json!({"tool_calls": [call]}))
            }
            kind @ ("text" | "thinking") => {
                let said = block[kind].as_str().filter(|said| !said.is_empty())?;
                let name = if kind == "text" { "content" } else { "reasoning_content" };
                Some(json!({name: said}))
            }
            _ => None,
        }
    }

    fn arguments(&self, piece: &str) -> Value {
        json!({"tool_calls": [{"index": self.calls.saturating_sub(1), "function": {"arguments": piece}}]})
    }

    fn chunk(&self, choices: Value, usage: Option<Value>) -> Bytes {
        let mut chunk = json!({"id": self.id, "object": "chat.completion.chunk", "created": self.created,
            "model": self.model, "choices": choices});
        if let Some(usage) = usage {
            chunk["usage"] = usage;
        }
        Bytes::from(chunk.to_string())
    }
}

fn finish(reason: &str) -> &'static str {
    match reason {
        "max_tokens" | "model_context_window_exceeded" => "length",
        "tool_use" => "tool_calls",
        "refusal" => "content_filter",
        _ => "stop",
    }
}

/// A whole message as a chat completion.
pub(crate) fn whole(answer: &[u8], created: u64) -> Result<Bytes, Untold> {
    let answer: Value = serde_json::from_slice(answer).map_err(|_| Untold("not JSON"))?;
    if answer["type"] != "message" {
        return Err(Untold("no message"));
    }
    let (mut said, mut thought, mut calls) = (String::new(), String::new(), Vec::new());
    for block in answer["content"].as_array().into_iter().flatten() {
        match block["type"].as_str().unwrap_or_default() {
            "text" => said.push_str(block["text"].as_str().unwrap_or_default()),
            "thinking" => thought.push_str(block["thinking"].as_str().unwrap_or_default()),
            "tool_use" => calls.push(json!({"id": block["id"], "type": "function",
                "function": {"name": block["name"], "arguments": block["input"].to_string()}})),
            _ => {}
        }
    }
    let mut message = json!({"role": "assistant", "content": said});
    if said.is_empty() && !calls.is_empty() {
        message["content"] = Value::Null;
    }
    if !thought.is_empty() {
        message["reasoning_content"] = json!(thought);
    }
    if !calls.is_empty() {
        message["tool_calls"] = json!(calls);
    }
    let mut usage = Counts::default();
    usage.take(&answer["usage"]);
    let reason = finish(answer["stop_reason"].as_str().unwrap_or_default());
    let chat = json!({"id": answer["id"], "object": "chat.completion", "created": created, "model": answer["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": reason, "stop_reason": answer["stop_sequence"],
            "logprobs": null}],
        "usage": usage.json()});
    Ok(Bytes::from(chat.to_string()))
}

#[cfg(test)]
mod tests;
