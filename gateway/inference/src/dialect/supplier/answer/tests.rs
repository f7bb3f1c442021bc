use super::*;

/// A stream with thinking, text and two calls, in the shapes of the public documentation.
fn events() -> Vec<Value> {
    vec![
        json!({"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant",
            "model": "claude-x", "content": [], "stop_reason": null, "stop_sequence": null,
            "usage": {"input_tokens": 25, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 2,
                "output_tokens": 1}}}),
        json!({"type": "content_block_start", "index": 0,
            "content_block": {"type": "thinking", "thinking": "", "signature": ""}}),
        json!({"type": "ping"}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "EqQB"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Okay"}}),
        json!({"type": "content_block_stop", "index": 1}),
        json!({"type": "content_block_start", "index": 2,
            "content_block": {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}}),
        json!({"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": ""}}),
        json!({"type": "content_block_delta", "index": 2,
            "delta": {"type": "input_json_delta", "partial_json": "{\"a\":"}}),
        json!({"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": "1}"}}),
        json!({"type": "content_block_stop", "index": 2}),
        json!({"type": "content_block_start", "index": 3,
            "content_block": {"type": "tool_use", "id": "toolu_2", "name": "g", "input": {}}}),
        json!({"type": "content_block_stop", "index": 3}),
        json!({"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": null},
            "usage": {"output_tokens": 15}}),
        json!({"type": "message_stop"}),
    ]
}

fn heard(events: &[Value]) -> Vec<Bytes> {
    let mut listener = Listener::new(77);
    events.iter().flat_map(|event| listener.hear(event.to_string().as_bytes()).unwrap()).collect()
}

#[test]
fn a_stream_becomes_chunks_in_the_documented_order() {
    let chunks = heard(&events());
    assert_eq!(chunks.last().unwrap().as_ref(), b"[DONE]");
    let chunks: Vec<Value> =
        chunks[..chunks.len() - 1].iter().map(|chunk| serde_json::from_slice(chunk).unwrap()).collect();
    for chunk in &chunks {
        assert_eq!(
            (&chunk["id"], &chunk["object"], &chunk["created"], &chunk["model"]),
            (&json!("msg_1"), &json!("chat.completion.chunk"), &json!(77), &json!("claude-x"))
        );
    }
    let call = |index: u64, function: Value| json!({"tool_calls": [{"index": index, "function": function}]});
    let begin = |index: u64, id: &str, name: &str| {
        json!({"tool_calls": [{"index": index, "id": id, "type": "function",
            "function": {"name": name, "arguments": ""}}]})
    };
    let deltas: Vec<Value> = chunks.iter().map(|chunk| chunk["choices"][0]["delta"].clone()).collect();
    assert_eq!(
        deltas,
        [
            json!({"role": "assistant", "content": ""}),
            json!({"reasoning_content": "hm"}),
            json!({"content": "Okay"}),
            begin(0, "toolu_1", "f"),
            call(0, json!({"arguments": "{\"a\":"})),
            call(0, json!({"arguments": "1}"})),
            begin(1, "toolu_2", "g"),
            call(1, json!({"arguments": "{}"})),
            json!({}),
            Value::Null,
        ]
    );
    assert_eq!(chunks[8]["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(
        (&chunks[9]["choices"], &chunks[9]["usage"]),
        (
            &json!([]),
            &json!({"prompt_tokens": 32, "completion_tokens": 15, "total_tokens": 47,
                "prompt_tokens_details": {"cached_tokens": 5}, "completion_tokens_details": {"reasoning_tokens": 0}})
        )
    );
}

#[test]
fn a_whole_message_says_the_same_as_its_stream() {
    let message = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "content": [
        {"type": "thinking", "thinking": "hm", "signature": "EqQB"}, {"type": "text", "text": "Okay"},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}},
        {"type": "tool_use", "id": "toolu_2", "name": "g", "input": {}}],
        "stop_reason": "tool_use", "stop_sequence": null,
        "usage": {"input_tokens": 25, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 2,
            "output_tokens": 15}});
    let whole: Value = serde_json::from_slice(&whole(message.to_string().as_bytes(), 77).unwrap()).unwrap();
    assert_eq!(
        whole["choices"][0]["message"],
        json!({"role": "assistant", "content": "Okay", "reasoning_content": "hm", "tool_calls": [
            {"id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}},
            {"id": "toolu_2", "type": "function", "function": {"name": "g", "arguments": "{}"}}]})
    );
    assert_eq!(whole["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(whole["usage"]["prompt_tokens"], 32);
    assert!(super::whole(b"{\"type\":\"error\"}", 0).is_err());
}

#[test]
fn reasons_errors_and_the_unknown_are_heard() {
    for (reason, word) in [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("max_tokens", "length"),
        ("refusal", "content_filter"),
    ] {
        let delta = json!({"stop_reason": reason, "stop_sequence": "END"});
        let chunk = heard(&[json!({"type": "message_delta", "delta": delta})]).remove(0);
        let chunk: Value = serde_json::from_slice(&chunk).unwrap();
        assert_eq!(chunk["choices"][0]["finish_reason"], word);
        assert_eq!(chunk["choices"][0]["stop_reason"], "END");
    }
    let error = json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}});
    let chunk: Value = serde_json::from_slice(&heard(&[error]).remove(0)).unwrap();
    assert_eq!(chunk["error"]["message"], "Overloaded");
    assert!(heard(&[json!({"type": "brand_new"}), json!({"type": "ping"})]).is_empty());
    assert_eq!(Listener::new(0).hear(b"nothing"), Err(Untold("not JSON")));
}
