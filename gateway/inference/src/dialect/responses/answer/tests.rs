use super::*;

const BILL: Bill = Bill { prompt: 30, completion: 4, estimated: false, distrusted: false };

fn teller(summary: bool) -> Teller {
    let wishes = Wishes { model: "text-prime".into(), summary, echo: r#","tools":[],"store":false"#.into() };
    let mut teller = Teller::new(wishes, 0xab, 1 << 20);
    teller.served_by("served");
    teller
}

fn chunk(choice: Value) -> String {
    json!({"id": "chatcmpl-1", "model": "acme/served", "created": 1_790_000_001, "service_tier": "acme",
        "provider": "acme", "choices": [choice]})
    .to_string()
}

fn delta(delta: Value) -> String {
    chunk(json!({"index": 0, "delta": delta, "finish_reason": null}))
}

fn finish(reason: &str) -> String {
    chunk(json!({"index": 0, "delta": {}, "finish_reason": reason}))
}

fn told(teller: &mut Teller, chunks: &[String]) -> String {
    let heard = chunks.iter().map(|chunk| teller.hear(chunk.as_bytes()).unwrap());
    let bytes: Vec<u8> = heard.collect::<Vec<Bytes>>().concat();
    String::from_utf8(bytes).unwrap()
}

fn events(text: &str) -> Vec<Value> {
    let events = text.split_terminator("\n\n").map(|event| {
        let (name, data) = event.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
        data
    });
    events.collect()
}

fn all(summary: bool, chunks: &[String]) -> Vec<Value> {
    let mut teller = teller(summary);
    let text = told(&mut teller, chunks) + std::str::from_utf8(&teller.end(BILL)).unwrap();
    let events = events(&text);
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number, "{event}");
    }
    events
}

fn names(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

fn response(members: Value) -> Value {
    let mut response = json!({"id": "resp_000000000000000000000000000000ab", "object": "response",
        "created_at": 1_790_000_001, "status": "in_progress", "error": null, "incomplete_details": null,
        "model": "served", "output": [], "service_tier": "default", "usage": null, "tools": [], "store": false});
    response.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    response
}

#[test]
fn a_text_is_told_in_the_order_of_the_documentation() {
    let events = all(
        false,
        &[
            delta(json!({"role": "assistant", "content": ""})),
            delta(json!({"content": "Hi"})),
            delta(json!({"content": "!"})),
            finish("stop"),
            json!({"choices": [], "usage": {"prompt_tokens_details": {"cached_tokens": 20},
            "completion_tokens_details": {"reasoning_tokens": 1}}})
            .to_string(),
        ],
    );
    let id = "msg_000000000000000000000000000000ab_0";
    let part = |text: &str| json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []});
    let item = |status: &str, content: Value| json!({"id": id, "type": "message", "status": status, "role": "assistant", "content": content});
    let usage = json!({"input_tokens": 30, "input_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 0},
        "output_tokens": 4, "output_tokens_details": {"reasoning_tokens": 1}, "total_tokens": 34});
    let done = item("completed", json!([part("Hi!")]));
    let golden = [
        json!({"type": "response.created", "response": response(json!({}))}),
        json!({"type": "response.in_progress", "response": response(json!({}))}),
        json!({"type": "response.output_item.added", "output_index": 0, "item": item("in_progress", json!([]))}),
        json!({"type": "response.content_part.added", "item_id": id, "output_index": 0, "content_index": 0,
            "part": part("")}),
        json!({"type": "response.output_text.delta", "item_id": id, "output_index": 0, "content_index": 0,
            "delta": "Hi", "logprobs": []}),
        json!({"type": "response.output_text.delta", "item_id": id, "output_index": 0, "content_index": 0,
            "delta": "!", "logprobs": []}),
        json!({"type": "response.output_text.done", "item_id": id, "output_index": 0, "content_index": 0,
            "text": "Hi!", "logprobs": []}),
        json!({"type": "response.content_part.done", "item_id": id, "output_index": 0, "content_index": 0,
            "part": part("Hi!")}),
        json!({"type": "response.output_item.done", "output_index": 0, "item": done}),
        json!({"type": "response.completed",
            "response": response(json!({"status": "completed", "output": [done], "usage": usage}))}),
    ];
    for (number, (told, wanted)) in events.iter().zip(&golden).enumerate() {
        let mut wanted = wanted.clone();
        wanted["sequence_number"] = json!(number);
        assert_eq!(*told, wanted);
    }
    assert_eq!(events.len(), golden.len());
}

#[test]
fn reasoning_and_calls_are_items_of_their_own() {
    let chunks = [
        delta(json!({"reasoning_content": "hm"})),
        delta(json!({"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "f", "arguments": ""}}]})),
        delta(json!({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]})),
        finish("tool_calls"),
    ];
    let plain = all(false, &chunks);
    assert_eq!(
        names(&plain)[2..],
        [
            "response.output_item.added",
            "response.content_part.added",
            "response.reasoning_text.delta",
            "response.reasoning_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    let output = &plain.last().unwrap()["response"]["output"];
    assert_eq!(
        *output,
        json!([
            {"id": "rs_000000000000000000000000000000ab_0", "type": "reasoning", "status": "completed", "summary": [],
                "content": [{"type": "reasoning_text", "text": "hm"}]},
            {"id": "fc_000000000000000000000000000000ab_1", "type": "function_call", "status": "completed",
                "call_id": "c1", "name": "f", "arguments": "{}"},
        ])
    );
    let added = plain.iter().rfind(|event| event["type"] == "response.output_item.added").unwrap();
    assert_eq!((&added["item"]["status"], &added["item"]["arguments"]), (&json!("in_progress"), &json!("")));
    let told = all(true, &chunks);
    assert_eq!(
        names(&told)[2..8],
        [
            "response.output_item.added",
            "response.reasoning_summary_part.added",
            "response.reasoning_summary_text.delta",
            "response.reasoning_summary_text.done",
            "response.reasoning_summary_part.done",
            "response.output_item.done",
        ]
    );
    let reasoning = &told.last().unwrap()["response"]["output"][0];
    assert_eq!(reasoning["summary"], json!([{"type": "summary_text", "text": "hm"}]));
    assert_eq!(reasoning["content"], json!([]));
}

#[test]
fn a_whole_answer_is_the_response_that_ends_the_stream() {
    let message = json!({"role": "assistant", "reasoning_content": "hm", "content": "Hi", "refusal": "no",
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]});
    for reason in ["stop", "length", "content_filter"] {
        let streamed = all(false, &[delta(message.clone()), finish(reason)]);
        let answer = chunk(json!({"index": 0, "message": message, "finish_reason": reason}));
        let whole = teller(false).whole(answer.as_bytes(), BILL).unwrap();
        let whole: Value = serde_json::from_slice(&whole).unwrap();
        let last = streamed.last().unwrap();
        assert_eq!(whole, last["response"]);
        let (name, status, details) = match reason {
            "stop" => ("response.completed", "completed", Value::Null),
            "length" => ("response.incomplete", "incomplete", json!({"reason": "max_output_tokens"})),
            _ => ("response.incomplete", "incomplete", json!({"reason": "content_filter"})),
        };
        assert_eq!((&last["type"], &whole["status"]), (&json!(name), &json!(status)));
        assert_eq!(whole["incomplete_details"], details);
        assert_eq!(whole["output"].as_array().unwrap().len(), 4);
    }
}

#[test]
fn log_probabilities_stay_with_their_text() {
    let one = |token: &str| json!({"token": token, "logprob": -0.5, "bytes": null, "top_logprobs": []});
    let said = |token: &str| {
        chunk(json!({"index": 0, "delta": {"content": token}, "logprobs": {"content": [one(token)]}}))
    };
    let events = all(false, &[said("a"), said("b"), finish("stop")]);
    let deltas: Vec<&Value> =
        events.iter().filter(|event| event["type"] == "response.output_text.delta").collect();
    assert_eq!((&deltas[0]["logprobs"], &deltas[1]["logprobs"]), (&json!([one("a")]), &json!([one("b")])));
    let part = &events.last().unwrap()["response"]["output"][0]["content"][0];
    assert_eq!(part["logprobs"], json!([one("a"), one("b")]));
}

#[test]
fn a_broken_stream_ends_with_a_failed_response() {
    let mut teller = teller(false);
    told(&mut teller, &[delta(json!({"content": "half"}))]);
    let refusal = Refusal::new(hyper::StatusCode::BAD_GATEWAY, "supplier_failed", "it broke");
    let event = events(std::str::from_utf8(&teller.broke(&refusal)).unwrap()).remove(0);
    assert_eq!(event["type"], "response.failed");
    let response = &event["response"];
    assert_eq!(
        (&response["status"], &response["error"]),
        (&json!("failed"), &json!({"code": "server_error", "message": "it broke"}))
    );
    assert_eq!(response["output"][0]["status"], "incomplete");
    assert_eq!(response["output"][0]["content"][0]["text"], "half");
}
