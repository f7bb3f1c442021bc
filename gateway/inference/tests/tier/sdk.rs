//! The official SDKs of both houses against the tier, unmodified: what they were told is what was billed.

use crate::clients;
use crate::support::*;
use serde_json::{Value, json};

/// What a supplier answers to the last message of a conversation.
fn reply(asked: &Value) -> (Vec<Value>, &'static str, Option<&'static str>) {
    let last = asked["messages"].as_array().and_then(|all| all.last()).cloned().unwrap_or_default();
    if last["role"] == "tool" {
        let results = asked["messages"].as_array().into_iter().flatten().filter(|one| one["role"] == "tool");
        let said: Vec<&str> = results.filter_map(|one| one["content"].as_str()).collect();
        return (vec![json!({"content": said.join(" and ")})], "stop", None);
    }
    let text = |pieces: &[&str]| pieces.iter().map(|piece| json!({"content": piece})).collect();
    match last["content"].as_str().unwrap_or_default() {
        "think" => (
            vec![
                json!({"reasoning_content": "Let me"}),
                json!({"reasoning_content": " see."}),
                json!({"content": "42"}),
            ],
            "stop",
            None,
        ),
        "weather" => {
            let call = |index: u64, id: Value, arguments: &str| {
                let name = id.is_string().then_some("get_weather");
                json!({"tool_calls": [{"index": index, "id": id, "type": "function",
                    "function": {"name": name, "arguments": arguments}}]})
            };
            let city = |index: u64, id: &str, city: &str| {
                vec![
                    call(index, json!(id), ""),
                    call(index, Value::Null, "{\"city\""),
                    call(index, Value::Null, &format!(": \"{city}\"}}")),
                ]
            };
            ([city(0, "call_1", "Rome"), city(1, "call_2", "Oslo")].concat(), "tool_calls", None)
        }
        "json" => (text(&["{\"title\":\"x\"", ",\"stars\":5}"]), "stop", None),
        "limit" => (text(&["Two parties"]), "length", None),
        "stop" => (text(&["Two parties"]), "stop", Some("END")),
        _ => (text(&["Two parties", " meet at", " a price."]), "stop", None),
    }
}

fn counts() -> Value {
    json!({"prompt_tokens": 12, "completion_tokens": 6, "total_tokens": 18,
        "prompt_tokens_details": {"cached_tokens": 5}, "completion_tokens_details": {"reasoning_tokens": 0}})
}

fn script(got: &Got) -> Script {
    let asked = got.json();
    let (pieces, finish, stop) = reply(&asked);
    if asked["stream"] == true {
        let of = |delta: &Value, finish: Value, stop: Value| {
            chunk(
                json!({"choices": [{"index": 0, "delta": delta, "finish_reason": finish, "stop_reason": stop}]}),
            )
        };
        let mut events = vec![role()];
        events.extend(pieces.iter().map(|piece| of(piece, Value::Null, Value::Null)));
        if asked["messages"][0]["content"] == "break" {
            return Script::events([steps(&events), vec![Step::Die]].concat());
        }
        events.push(of(&json!({}), json!(finish), json!(stop)));
        events.extend([chunk(json!({"usage": counts()})), DONE.to_owned()]);
        return Script::events(steps(&events));
    }
    let mut message = json!({"role": "assistant", "content": null});
    let mut calls: Vec<Value> = Vec::new();
    for piece in &pieces {
        for name in ["content", "reasoning_content"] {
            if let Some(text) = piece[name].as_str() {
                message[name] = json!(message[name].as_str().unwrap_or_default().to_owned() + text);
            }
        }
        for call in piece["tool_calls"].as_array().into_iter().flatten() {
            if call["id"].is_string() {
                calls.push(call.clone());
            } else if let Some(last) = calls.last_mut() {
                let arguments = last["function"]["arguments"].as_str().unwrap_or_default().to_owned();
                last["function"]["arguments"] =
                    json!(arguments + call["function"]["arguments"].as_str().unwrap_or_default());
            }
        }
    }
    if !calls.is_empty() {
        message["tool_calls"] = json!(calls);
    }
    Script::json(&json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 1_790_000_001,
        "model": "served-model", "usage": counts(),
        "choices": [{"index": 0, "message": message, "finish_reason": finish, "stop_reason": stop}]}))
}

/// Runs a client to its end; every call that it saw the end of is billed as it was told, and nothing else but the one
/// whose stream broke.
async fn is_served(runner: fn(&str, &Value) -> Value, file: &'static str) {
    let venue = Venue::new();
    let upstream = Upstream::start(|_, got| script(got)).await;
    venue.supplier(2, &upstream.url);
    let tier = tier(&venue, |_| {}).await;
    let case = json!({"base_url": format!("http://{}", tier.inference_addr), "key": KEY});
    let told = tokio::task::spawn_blocking(move || runner(file, &case)).await.expect("the client ends");
    venue.until_settled().await;
    venue.assert_each_ended_once();
    let mut told: Vec<(u64, u64)> =
        serde_json::from_value(told["calls"].clone()).unwrap_or_else(|_| panic!("{told}"));
    let (broken, whole): (Vec<_>, Vec<_>) = venue.usages().into_iter().partition(|usage| usage.partial);
    let mut billed: Vec<(u64, u64)> =
        whole.iter().map(|usage| (usage.prompt_tokens.0, usage.completion_tokens.0)).collect();
    told.sort_unstable();
    billed.sort_unstable();
    assert_eq!(told, billed);
    assert!(told.len() >= 8, "{told:?}");
    assert_eq!(broken.len(), 1, "{broken:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anthropic_s_python_sdk_works_unmodified() {
    is_served(clients::python, "anthropic_sdk.py").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anthropic_s_node_sdk_works_unmodified() {
    is_served(clients::node, "anthropic_sdk.mjs").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openai_s_python_sdk_works_with_responses() {
    is_served(clients::python, "responses_sdk.py").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openai_s_node_sdk_works_with_responses() {
    is_served(clients::node, "responses_sdk.mjs").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coding_agent_works_unmodified() {
    let venue = Venue::new();
    let upstream = Upstream::start(|_, got| script(got)).await;
    venue.supplier(2, &upstream.url);
    let tier = tier(&venue, |_| {}).await;
    let base_url = format!("http://{}", tier.inference_addr);
    let printed = tokio::task::spawn_blocking(move || clients::agent("say hi", &base_url, KEY));
    let printed = printed.await.expect("the agent ends");
    assert!(printed.contains("Two parties meet at a price."), "{printed}");
    venue.until_settled().await;
    venue.assert_each_ended_once();
    let got = upstream.got();
    let largest = got.iter().max_by_key(|got| got.body.len()).expect("a call");
    assert!(largest.json()["tools"].as_array().is_some_and(|tools| tools.len() > 5));
    assert_eq!(venue.usages().len(), got.len());
}
