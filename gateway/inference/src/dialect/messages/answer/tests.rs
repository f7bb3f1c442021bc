use super::*;

const BILL: Bill = Bill { prompt: 30, completion: 4, estimated: false, distrusted: false };

fn teller(thinking: bool) -> Teller {
    let wishes = Wishes {
        model: "text-prime".into(),
        thinking,
        edits: false,
        stops: vec!["END".into(), "STOP".into()],
    };
    let mut teller = Teller::new(wishes, 0xab, 1 << 20);
    teller.served_by("served");
    teller
}

fn chunk(choice: Value) -> String {
    json!({"id": "chatcmpl-1", "model": "acme/served", "choices": [choice]}).to_string()
}

fn delta(delta: Value) -> String {
    chunk(json!({"index": 0, "delta": delta, "finish_reason": null}))
}

fn finish(reason: &str) -> String {
    chunk(json!({"index": 0, "delta": {}, "finish_reason": reason}))
}

fn told(mut teller: Teller, chunks: &[String]) -> String {
    let mut out = String::new();
    for chunk in chunks {
        out.push_str(std::str::from_utf8(&teller.hear(chunk.as_bytes()).unwrap()).unwrap());
    }
    out + std::str::from_utf8(&teller.end(BILL)).unwrap()
}

/// The events' data, each under its own name.
fn events(text: &str) -> Vec<Value> {
    let events = text.split_terminator("\n\n").map(|event| {
        let (name, data) = event.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
        data
    });
    events.collect()
}

#[test]
fn a_text_is_told_in_the_order_of_the_documentation() {
    let text = told(
        teller(false),
        &[
            delta(json!({"role": "assistant", "content": ""})),
            delta(json!({"content": "Hello"})),
            delta(json!({"content": "!"})),
            finish("stop"),
            json!({"choices": [], "usage": {"prompt_tokens": 30, "completion_tokens": 4,
            "prompt_tokens_details": {"cached_tokens": 20}}})
            .to_string(),
        ],
    );
    let golden = r#"event: message_start
data: {"type":"message_start","message":{"id":"msg_000000000000000000000000000000ab","type":"message","role":"assistant","model":"served","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":0,"output_tokens":0}}}

event: ping
data: {"type": "ping"}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"!"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"input_tokens":10,"cache_creation_input_tokens":0,"cache_read_input_tokens":20,"output_tokens":4}}

event: message_stop
data: {"type":"message_stop"}

"#;
    assert_eq!(text, golden);
}

#[test]
fn thinking_text_and_two_calls_are_four_blocks() {
    let call = |index: u64, id: Value, name: Value, arguments: &str| {
        delta(
            json!({"tool_calls": [{"index": index, "id": id, "function": {"name": name, "arguments": arguments}}]}),
        )
    };
    let chunks = [
        delta(json!({"reasoning_content": "hm"})),
        delta(json!({"content": "ok"})),
        call(0, json!("c1"), json!("f"), ""),
        call(0, Value::Null, Value::Null, "{\"a\":"),
        call(0, Value::Null, Value::Null, "1}"),
        call(1, json!("c2"), json!("g"), "{}"),
        finish("tool_calls"),
    ];
    let all = events(&told(teller(true), &chunks));
    let starts: Vec<&Value> =
        all.iter().filter(|e| e["type"] == "content_block_start").map(|e| &e["content_block"]).collect();
    assert_eq!(
        starts,
        [
            &json!({"type": "thinking", "thinking": "", "signature": ""}),
            &json!({"type": "text", "text": ""}),
            &json!({"type": "tool_use", "id": "c1", "name": "f", "input": {}}),
            &json!({"type": "tool_use", "id": "c2", "name": "g", "input": {}}),
        ]
    );
    let deltas: Vec<(u64, &Value)> = all
        .iter()
        .filter(|e| e["type"] == "content_block_delta")
        .map(|e| (e["index"].as_u64().unwrap(), &e["delta"]))
        .collect();
    assert_eq!(
        deltas,
        [
            (0, &json!({"type": "thinking_delta", "thinking": "hm"})),
            (1, &json!({"type": "text_delta", "text": "ok"})),
            (2, &json!({"type": "input_json_delta", "partial_json": "{\"a\":"})),
            (2, &json!({"type": "input_json_delta", "partial_json": "1}"})),
            (3, &json!({"type": "input_json_delta", "partial_json": "{}"})),
        ]
    );
    // No event of a block before its start or after its stop, and the next only then.
    let mut open = None;
    for event in &all {
        match event["type"].as_str().unwrap() {
            "content_block_start" => assert_eq!(open.replace(event["index"].clone()), None),
            "content_block_stop" => assert_eq!(open.take().as_ref(), Some(&event["index"])),
            "content_block_delta" => assert_eq!(open.as_ref(), Some(&event["index"])),
            _ => {}
        }
    }
    assert_eq!(all[all.len() - 2]["delta"]["stop_reason"], "tool_use");
    let hidden = events(&told(teller(false), &chunks));
    assert!(hidden.iter().all(|event| event["content_block"]["type"] != "thinking"));
}

#[test]
fn hidden_thinking_shows_as_pings() {
    let mut teller = teller(false);
    let mut out = String::new();
    for _ in 0..=HIDDEN_PER_PING {
        let chunk = delta(json!({"reasoning_content": "hm"}));
        out.push_str(std::str::from_utf8(&teller.hear(chunk.as_bytes()).unwrap()).unwrap());
    }
    let names: Vec<Value> = events(&out).into_iter().map(|event| event["type"].clone()).collect();
    assert_eq!(names, ["message_start", "ping", "ping"]);
    assert_eq!(teller.still_here(), PING);
}

#[test]
fn every_reason_to_stop_has_its_word() {
    for (choice, word, sequence) in [
        (json!({"finish_reason": "stop"}), "end_turn", Value::Null),
        (json!({"finish_reason": "length"}), "max_tokens", Value::Null),
        (json!({"finish_reason": "content_filter"}), "refusal", Value::Null),
        (json!({"finish_reason": "stop", "stop_reason": "STOP"}), "stop_sequence", json!("STOP")),
        (json!({"finish_reason": "stop", "stop_reason": "<eos>"}), "end_turn", Value::Null),
        (json!({"finish_reason": "stop", "stop_reason": 128_001}), "end_turn", Value::Null),
        (
            json!({"finish_reason": "stop", "message": {"tool_calls": [{"id": "c", "function": {"name": "f"}}]}}),
            "tool_use",
            Value::Null,
        ),
    ] {
        let whole = teller(false).whole(chunk(choice.clone()).as_bytes(), BILL).unwrap();
        let whole: Value = serde_json::from_slice(&whole).unwrap();
        assert_eq!((&whole["stop_reason"], &whole["stop_sequence"]), (&json!(word), &sequence), "{choice}");
    }
}

#[test]
fn a_whole_answer_is_one_message() {
    let answer = chunk(json!({"index": 0, "finish_reason": "tool_calls", "message": {"role": "assistant",
        "reasoning": "hm", "content": "ok", "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": " {\"b\":1.50,\"a\":2} "}},
            {"id": "c2", "type": "function", "function": {"name": "g", "arguments": ""}},
            {"id": "c3", "type": "function", "function": {"name": "h", "arguments": "{oops"}}]}}));
    let whole = teller(true).whole(answer.as_bytes(), Bill { estimated: true, ..BILL }).unwrap();
    let text = std::str::from_utf8(&whole).unwrap();
    assert!(text.contains(r#""input":{"b":1.50,"a":2}"#), "{text}");
    let whole: Value = serde_json::from_str(text).unwrap();
    assert_eq!(
        whole,
        json!({"id": "msg_000000000000000000000000000000ab", "type": "message", "role": "assistant", "model": "served",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": ""},
                {"type": "text", "text": "ok"},
                {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 2, "b": 1.5}},
                {"type": "tool_use", "id": "c2", "name": "g", "input": {}},
                {"type": "tool_use", "id": "c3", "name": "h", "input": {"INVALID_JSON": "{oops"}},
            ],
            "stop_reason": "tool_use", "stop_sequence": null,
            "usage": {"input_tokens": 30, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
                "output_tokens": 4}})
    );
}

#[test]
fn a_broken_stream_ends_with_an_error_of_the_documented_shape() {
    let refusal = Refusal::new(hyper::StatusCode::BAD_GATEWAY, "supplier_failed", "it broke");
    let event = events(std::str::from_utf8(&error_event(&refusal, "req_1")).unwrap()).remove(0);
    assert_eq!(
        (&event["type"], &event["error"], &event["request_id"]),
        (&json!("error"), &json!({"type": "api_error", "message": "it broke"}), &json!("req_1"))
    );
}
