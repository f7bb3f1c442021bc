//! Calls in Anthropic's and OpenAI's newer language live the same life: billed before the end is seen, repaired before
//! the first content, ended by an error after it, cancelled with their client.

use std::sync::Arc;

use crate::support::*;
use grid_engine::Reject;
use grid_inference::DoorError;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

const MESSAGES: &str = "/v1/messages";
const RESPONSES: &str = "/v1/responses";

fn message(extra: Value) -> Value {
    ask(json!({"max_tokens": 100}))
        .as_object()
        .cloned()
        .map(|mut body| {
            body.extend(extra.as_object().unwrap().clone());
            Value::Object(body)
        })
        .unwrap()
}

fn response(extra: Value) -> Value {
    let mut body = json!({"model": "text-prime", "input": "give the market price now"});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

/// Both paths, each with a streaming request and the names of its first and last events.
fn both() -> [(&'static str, Value, &'static str, &'static str, &'static str); 2] {
    let stream = json!({"stream": true});
    [
        (MESSAGES, message(stream.clone()), "message_start", "message_stop", "event: error\n"),
        (RESPONSES, response(stream), "response.created", "response.completed", "event: response.failed\n"),
    ]
}

fn names(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("event: ")).collect()
}

#[tokio::test]
async fn the_end_of_a_stream_is_seen_only_when_it_is_billed() {
    for (path, body, first, last, _) in both() {
        let venue = Venue::new();
        let gate = Arc::new(Semaphore::new(0));
        let mut script = steps(&good_stream(&["the market", " price"], 9, 3));
        script.insert(3, Step::Gate(Arc::clone(&gate)));
        let upstream = Upstream::always(Script::events(script)).await;
        venue.supplier(2, &upstream.url);
        let tier = tier(&venue, |_| {}).await;
        let caller = Caller::new(&tier);
        let response = caller.open(caller.chat_request(path, Some(KEY), &body.to_string())).await;
        assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
        let mut body = response.into_body();
        let mut text = String::new();
        while !text.contains(" price") {
            text.push_str(
                std::str::from_utf8(body.frame().await.unwrap().unwrap().data_ref().unwrap()).unwrap(),
            );
        }
        assert!(venue.usages().is_empty());
        gate.add_permits(1);
        while let Some(frame) = body.frame().await {
            text.push_str(std::str::from_utf8(frame.unwrap().data_ref().unwrap()).unwrap());
            if text.contains(last) {
                assert_eq!(venue.usages().len(), 1, "{path}: the end came before the bill");
            }
        }
        let all = names(&text);
        assert_eq!((all.first(), all.last()), (Some(&first), Some(&last)), "{text}");
        assert!(text.contains("\"input_tokens\":9") && text.contains("\"output_tokens\":3"), "{text}");
        assert_eq!(upstream.got()[0].path, "/v1/chat/completions");
        assert_eq!(upstream.got()[0].json()["stream_options"], json!({"include_usage": true}));
        venue.assert_each_ended_once();
    }
}

#[tokio::test]
async fn a_supplier_that_fails_before_its_first_content_is_replaced() {
    for (path, body, first, last, _) in both() {
        let venue = Venue::new();
        let broken = Upstream::always(Script::events(vec![send(&role()), Step::Die])).await;
        let good = Upstream::always(Script::events(steps(&good_stream(&["the market"], 9, 2)))).await;
        venue.supplier(2, &broken.url);
        venue.supplier(3, &good.url);
        let tier = tier(&venue, |_| {}).await;
        let answer = Caller::new(&tier).post(path, Some(KEY), &body.to_string()).await;
        let all = names(&answer.text);
        assert_eq!(all.iter().filter(|name| **name == first).count(), 1, "{}", answer.text);
        assert_eq!(all.last(), Some(&last));
        assert_eq!(venue.usages()[0].supplier.0, 3);
        assert_eq!(tier.stats().failovers, 1);
    }
}

#[tokio::test]
async fn a_stream_that_breaks_ends_with_an_error_in_the_client_s_language() {
    for (path, body, _, last, error) in both() {
        for end in [Step::Die, send("data: {\"error\":{\"message\":\"x\"}}\n\n"), send("data: nothing\n\n")] {
            let venue = Venue::new();
            let script = vec![send(&role()), send(&delta("the market")), end];
            let upstream = Upstream::always(Script::events(script)).await;
            venue.supplier(2, &upstream.url);
            let tier = tier(&venue, |_| {}).await;
            let answer = Caller::new(&tier).post(path, Some(KEY), &body.to_string()).await;
            assert!(answer.text.contains("the market") && answer.text.contains(error), "{}", answer.text);
            assert!(!answer.text.contains(last), "{}", answer.text);
            let usages = venue.usages();
            assert!(
                usages.len() == 1 && usages[0].partial && usages[0].completion_tokens.0 == 2,
                "{usages:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_the_supplier_and_pays_what_it_got() {
    for (path, body, ..) in both() {
        let venue = Venue::new();
        let script = vec![send(&role()), send(&delta("the market")), Step::Silence];
        let upstream = Upstream::always(Script::events(script)).await;
        venue.supplier(2, &upstream.url);
        let tier = tier(&venue, |_| {}).await;
        let caller = Caller::new(&tier);
        let mut got = caller.open(caller.chat_request(path, Some(KEY), &body.to_string())).await.into_body();
        let mut text = String::new();
        while !text.contains("the market") {
            text.push_str(
                std::str::from_utf8(got.frame().await.unwrap().unwrap().data_ref().unwrap()).unwrap(),
            );
        }
        drop(got);
        drop(caller);
        upstream.until_ended(1).await;
        venue.until_settled().await;
        venue.assert_each_ended_once();
        assert!(venue.usages()[0].partial);
        assert_eq!(tier.stats().cancelled, 1);
    }
}

#[tokio::test]
async fn refusals_come_in_the_client_s_envelope() {
    let venue = Venue::new();
    let upstream = Upstream::start(|number, _| Script::status(if number < 2 { 400 } else { 500 })).await;
    venue.supplier(2, &upstream.url);
    let tier = tier(&venue, |_| {}).await;
    let caller = Caller::new(&tier);
    let mut seen = Vec::new();
    for (path, body) in [(MESSAGES, message(json!({}))), (RESPONSES, response(json!({})))] {
        seen.push((path, 400, caller.post(path, Some(KEY), &body.to_string()).await));
    }
    for (path, body) in [(MESSAGES, message(json!({}))), (RESPONSES, response(json!({})))] {
        seen.push((path, 503, caller.post(path, Some(KEY), &body.to_string()).await));
    }
    for (path, body) in [(MESSAGES, message(json!({}))), (RESPONSES, response(json!({})))] {
        venue.ways(|ways| ways.reserve.push_back(DoorError::Rejected(Reject::InsufficientTokens)));
        seen.push((path, 402, caller.post(path, Some(KEY), &body.to_string()).await));
    }
    for (path, status, answer) in &seen {
        assert_eq!(answer.status, *status, "{path}: {}", answer.text);
        let body = answer.json();
        if *path == MESSAGES {
            let kind = match status {
                400 => "invalid_request_error",
                402 => "billing_error",
                _ => "overloaded_error",
            };
            assert_eq!((&body["type"], &body["error"]["type"]), (&json!("error"), &json!(kind)), "{body}");
            assert_eq!(body["request_id"].as_str(), answer.header("request-id"));
        } else {
            assert!(body["error"]["code"].is_string(), "{body}");
        }
        assert_eq!(answer.header("x-should-retry"), Some(if *status == 503 { "true" } else { "false" }));
    }
    venue.until_settled().await;
    venue.assert_each_ended_once();
    assert!(venue.usages().is_empty());
}

#[tokio::test]
async fn an_agent_s_eighty_kilobytes_of_tools_arrive_to_the_letter() {
    let venue = Venue::new();
    let upstream = Upstream::always(Script::json(&whole("ok", usage(20_000, 1)))).await;
    venue.supplier(2, &upstream.url);
    let tier = tier(&venue, |_| {}).await;
    let caller = Caller::new(&tier);
    let schema =
        r#"{"type":"object","properties":{"z":{"type":"number","maximum":1.50},"a":{"description":"é"}}}"#;
    let tools: Vec<String> = (0..400)
        .map(|n| format!(r#"{{"name":"tool_{n}","description":"does {n}","input_schema":{schema},"cache_control":{{"type":"ephemeral"}}}}"#))
        .collect();
    let body = format!(
        r#"{{"model":"text-prime","max_tokens":32000,"stream":false,"thinking":{{"type":"adaptive"}},"context_management":{{"edits":[]}},
        "output_config":{{"effort":"high"}},"metadata":{{"user_id":"u"}},"system":[{{"type":"text","text":"be brief"}}],
        "messages":[{{"role":"user","content":[{{"type":"text","text":"hi"}}]}}],"tools":[{}]}}"#,
        tools.join(",")
    );
    assert!(body.len() > 70_000);
    let request = caller
        .request("POST", "/v1/messages?beta=true")
        .header("x-api-key", KEY)
        .header("anthropic-version", "2023-06-01")
        .header("anthropic-beta", "claude-code-20250219,interleaved-thinking-2025-05-14")
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    let answer = Caller::read(caller.open(request).await).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json()["content"], json!([{"type": "text", "text": "ok"}]));
    let got = &upstream.got()[0];
    assert_eq!(got.json()["tools"].as_array().unwrap().len(), 400);
    assert_eq!(got.json()["reasoning_effort"], "high");
    let text = String::from_utf8(got.body.to_vec()).unwrap();
    assert_eq!(text.matches(schema).count(), 400);
    assert!(got.headers.get("x-api-key").is_none() && got.headers.get("anthropic-beta").is_none());
}

#[tokio::test]
async fn tokens_are_counted_without_a_supplier_or_a_bill() {
    let venue = Venue::new();
    let tier = tier(&venue, |_| {}).await;
    let caller = Caller::new(&tier);
    let count = |text: &str| {
        json!({"model": "Text-Prime", "messages": [{"role": "user", "content": text}]}).to_string()
    };
    let path = "/v1/messages/count_tokens?beta=true";
    let short = caller.post(path, Some(KEY), &count("the market price of time")).await;
    assert_eq!(short.status, 200, "{}", short.text);
    let long = caller.post(path, Some(KEY), &count(&"the market price of time ".repeat(100))).await;
    let (short, long) =
        (short.json()["input_tokens"].as_u64().unwrap(), long.json()["input_tokens"].as_u64().unwrap());
    assert!((5..20).contains(&short) && (500..520).contains(&long), "{short} {long}");
    let unknown = json!({"model": "claude-9", "messages": [{"role": "user", "content": "x"}]}).to_string();
    assert_eq!(caller.post(path, Some(KEY), &unknown).await.status, 404);
    assert!(venue.asked().is_empty());
}

/// A Messages endpoint as a supplier: its stream, or its one message.
fn messages_script(got: &Got) -> Script {
    let usage = json!({"input_tokens": 7, "cache_read_input_tokens": 2, "output_tokens": 3});
    if got.json()["stream"] != true {
        return Script::json(
            &json!({"id": "msg_up", "type": "message", "role": "assistant", "model": "served-model",
            "content": [{"type": "text", "text": "the market price"}], "stop_reason": "end_turn", "stop_sequence": null,
            "usage": usage}),
        );
    }
    let event = |data: Value| send(&format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap()));
    let delta = |text: &str| json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}});
    Script::events(
        [
            json!({"type": "message_start", "message": {"id": "msg_up", "type": "message", "role": "assistant",
                "model": "served-model", "content": [], "stop_reason": null, "usage": usage}}),
            json!({"type": "ping"}),
            json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
            delta("the market"),
            delta(" price"),
            json!({"type": "content_block_stop", "index": 0}),
            json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}}),
            json!({"type": "message_stop"}),
        ]
        .map(event)
        .to_vec(),
    )
}

#[tokio::test]
async fn a_supplier_may_speak_messages_whatever_its_clients_speak() {
    let venue = Venue::new();
    let upstream = Upstream::start(|_, got| messages_script(got)).await;
    venue.supplier(2, &format!("{}/messages", upstream.url));
    let tier = tier(&venue, |_| {}).await;
    let caller = Caller::new(&tier);
    let chat = ask(json!({"stream_options": {"include_usage": true}}));
    for (path, body) in
        [("/v1/chat/completions", chat), (MESSAGES, message(json!({}))), (RESPONSES, response(json!({})))]
    {
        for stream in [true, false] {
            let mut body = body.clone();
            body["stream"] = json!(stream);
            let answer = caller.post(path, Some(KEY), &body.to_string()).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.text);
            let said = answer.text.contains("the market price")
                || (answer.text.contains("the market") && answer.text.contains(" price"));
            assert!(said && answer.text.contains("model-of-2"), "{path} {stream}: {}", answer.text);
            let last = venue.usages().pop().unwrap();
            assert_eq!((last.prompt_tokens.0, last.completion_tokens.0, last.partial), (9, 3, false));
        }
    }
    for got in upstream.got() {
        assert_eq!(got.path, "/v1/messages");
        assert_eq!(got.headers["x-api-key"], CREDENTIAL);
        assert!(got.headers.get("authorization").is_none() && got.headers.contains_key("anthropic-version"));
        assert_eq!(got.json()["model"], "model-of-2");
        assert!(got.json()["max_tokens"].is_u64());
    }
    venue.assert_each_ended_once();
}

#[tokio::test]
async fn what_one_supplier_can_t_be_asked_goes_to_another() {
    let venue = Venue::new();
    let claude = Upstream::start(|_, got| messages_script(got)).await;
    venue.supplier(2, &format!("{}/messages", claude.url));
    let tier = tier(&venue, |_| {}).await;
    let caller = Caller::new(&tier);
    let refused = caller.chat(&ask(json!({"seed": 1}))).await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (400, &json!("unsupported_parameter")));
    assert!(refused.text.contains("seed"), "{}", refused.text);
    let other = Upstream::always(Script::json(&whole("seeded", usage(9, 1)))).await;
    venue.supplier(3, &other.url);
    let answer = caller.chat(&ask(json!({"seed": 1}))).await;
    assert!(answer.text.contains("seeded"), "{}", answer.text);
    assert!(claude.got().is_empty());
    assert_eq!(tier.stats().failovers, 0);
    venue.assert_each_ended_once();
}
