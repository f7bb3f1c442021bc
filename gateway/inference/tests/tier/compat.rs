//! What client libraries send and need beside the fields of a call: keys in either header at either host, any version of
//! a dialect, ids under both names, refusals by their kind.

use std::net::SocketAddr;

use crate::support::*;
use grid_engine::Reject;
use grid_inference::{DoorError, KeyLimits};
use http_body_util::Full;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";
const RESPONSES: &str = "/v1/responses";

fn body_of(path: &str) -> Value {
    let path = path.split('?').next().unwrap_or_default();
    match path {
        MESSAGES => {
            json!({"model": "text-prime", "max_tokens": 50, "messages": [{"role": "user", "content": "x"}]})
        }
        RESPONSES => json!({"model": "text-prime", "input": "x"}),
        _ => ask(json!({})),
    }
}

/// One call with these headers at this address.
async fn call(at: SocketAddr, path: &str, headers: &[(&str, &str)], body: &Value) -> Reply {
    let mut request = hyper::Request::builder().method("POST").uri(format!("http://{at}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(bytes::Bytes::from(body.to_string()))).expect("a request");
    Caller::read(Caller::anywhere().open(request).await).await
}

async fn scene() -> (std::sync::Arc<Venue>, Upstream, grid_inference::RunningTier) {
    let venue = Venue::new();
    let upstream = Upstream::always(Script::json(&whole("the market", usage(5, 2)))).await;
    venue.supplier(2, &upstream.url);
    let tier = tier(&venue, |_| {}).await;
    (venue, upstream, tier)
}

#[tokio::test]
async fn every_dialect_is_served_at_both_hosts_with_the_key_in_either_header() {
    let (venue, upstream, tier) = scene().await;
    let bearer = format!("Bearer {KEY}");
    let lower = format!("bearer {KEY}");
    let hosts = [tier.inference_addr, tier.messages_addr.expect("a listener of its own")];
    let mut calls = 0;
    for at in hosts {
        for path in [CHAT, MESSAGES, RESPONSES, "/v1/messages?beta=true", "/api/v1/chat/completions"] {
            for key in [("authorization", bearer.as_str()), ("authorization", &lower), ("x-api-key", KEY)] {
                let answer = call(at, path, &[key], &body_of(path)).await;
                assert_eq!(answer.status, 200, "{at} {path} {key:?}: {}", answer.text);
                let id = answer.header("x-grid-request-id").expect("an id");
                for name in ["x-request-id", "request-id"] {
                    assert_eq!(answer.header(name), Some(id), "{path}");
                }
                calls += 1;
            }
            let both = [("x-api-key", KEY), ("authorization", "Bearer of somebody else")];
            assert_eq!(call(at, path, &both, &body_of(path)).await.status, 200, "x-api-key comes first");
            calls += 1;
        }
    }
    assert_eq!(upstream.got().len(), calls);
    for got in upstream.got() {
        assert!(!format!("{:?}", got.headers).contains(KEY), "the venue's key stays here");
    }
    venue.assert_each_ended_once();
}

#[tokio::test]
async fn any_version_and_any_beta_of_messages_is_accepted() {
    let (_venue, upstream, tier) = scene().await;
    for headers in [
        vec![],
        vec![("anthropic-version", "2023-06-01")],
        vec![("anthropic-version", "2026-10-21"), ("anthropic-beta", "one-2025-01-01,two")],
        vec![("anthropic-version", "tomorrow"), ("user-agent", "claude-cli/2.1"), ("x-app", "cli")],
        vec![
            ("x-stainless-retry-count", "1"),
            ("openai-organization", "org"),
            ("accept-encoding", "gzip, br, zstd"),
        ],
    ] {
        let mut all = vec![("x-api-key", KEY)];
        all.extend(&headers);
        let answer = call(tier.inference_addr, MESSAGES, &all, &body_of(MESSAGES)).await;
        assert_eq!(answer.status, 200, "{headers:?}: {}", answer.text);
        assert!(answer.header("content-encoding").is_none());
    }
    for got in upstream.got() {
        for name in ["anthropic-version", "anthropic-beta", "openai-organization", "accept-encoding", "x-app"]
        {
            assert!(got.headers.get(name).is_none(), "{name} is ours to say");
        }
    }
}

#[tokio::test]
async fn refusals_are_of_the_kind_that_each_library_raises() {
    let (venue, _upstream, tier) = scene().await;
    let at = tier.inference_addr;
    let unknown = |path: &str| {
        let mut body = body_of(path);
        body["model"] = json!("gpt-5.2");
        body
    };
    for (status, key, reject, model, anthropic, openai, again) in [
        (401, "nobody", None, true, "authentication_error", "authentication_error", "false"),
        (402, KEY, Some(Reject::InsufficientTokens), true, "billing_error", "insufficient_quota", "false"),
        (404, KEY, None, false, "not_found_error", "not_found_error", "false"),
        (503, KEY, Some(Reject::NoSupply), true, "overloaded_error", "server_error", "true"),
    ] {
        for path in [CHAT, MESSAGES, RESPONSES] {
            venue.ways(|ways| ways.reserve = reject.map(DoorError::Rejected).into_iter().collect());
            let body = if model { body_of(path) } else { unknown(path) };
            let answer = call(at, path, &[("x-api-key", key)], &body).await;
            let error = answer.json()["error"].clone();
            assert_eq!(answer.status, status, "{path}: {}", answer.text);
            assert_eq!(answer.header("x-should-retry"), Some(again), "{path} {status}");
            assert_eq!(answer.header("retry-after").is_some(), again == "true", "{path} {status}");
            assert_eq!(answer.header("retry-after-ms").is_some(), again == "true", "{path} {status}");
            if path == MESSAGES {
                assert_eq!((&answer.json()["type"], &error["type"]), (&json!("error"), &json!(anthropic)));
                assert_eq!(answer.json()["request_id"].as_str(), answer.header("request-id"));
            } else {
                assert_eq!(error["type"], json!(openai), "{path}");
                assert!(error["code"].is_string() && error.get("param").is_some(), "{error}");
            }
            assert_eq!(answer.json()["errors"]["detail"], error["message"], "{path}");
        }
    }
    assert!(venue.usages().is_empty());
}

#[tokio::test]
async fn a_key_above_its_limit_is_told_when_to_come_back_in_its_own_dialect() {
    let venue = Venue::new();
    let upstream = Upstream::always(Script::json(&whole("the market", usage(5, 2)))).await;
    venue.supplier(2, &upstream.url);
    let tier = tier(&venue, |config| {
        config.limits.key = KeyLimits { concurrent: 9, per_second: 1, burst: 1 };
    })
    .await;
    assert_eq!(call(tier.inference_addr, CHAT, &[("x-api-key", KEY)], &body_of(CHAT)).await.status, 200);
    for path in [CHAT, MESSAGES] {
        let answer = loop {
            let answer = call(tier.inference_addr, path, &[("x-api-key", KEY)], &body_of(path)).await;
            if answer.status != 200 {
                break answer;
            }
        };
        assert_eq!(
            (answer.status, &answer.json()["error"]["type"]),
            (429, &json!("rate_limit_error")),
            "{path}"
        );
        assert_eq!(answer.header("x-should-retry"), Some("true"));
        let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        let millis: u64 = answer.header("retry-after-ms").unwrap().parse().unwrap();
        assert!(after >= 1 && millis <= 1_000 * after, "{after} {millis}");
    }
}

#[tokio::test]
async fn models_are_found_by_both_kinds_of_libraries() {
    let (_venue, _upstream, tier) = scene().await;
    for at in [tier.inference_addr, tier.messages_addr.unwrap()] {
        let get = async |path: &str, key: Option<&str>| {
            let mut request = hyper::Request::builder().uri(format!("http://{at}{path}"));
            if let Some(key) = key {
                request = request.header("x-api-key", key);
            }
            Caller::read(Caller::anywhere().open(request.body(Full::default()).unwrap()).await).await
        };
        for (path, key) in [
            ("/v1/models", None),
            ("/v1/models", Some(KEY)),
            ("/v1/models?limit=1000", Some(KEY)),
            ("/api/v1/models", None),
        ] {
            let list = get(path, key).await;
            assert_eq!(list.status, 200, "{path}");
            let list = list.json();
            assert_eq!((&list["object"], &list["has_more"]), (&json!("list"), &json!(false)));
            let ids: Vec<&str> =
                list["data"].as_array().unwrap().iter().filter_map(|one| one["id"].as_str()).collect();
            assert_eq!(ids, ["text-prime", "text-standard"]);
            assert_eq!((&list["first_id"], &list["last_id"]), (&json!(ids[0]), &json!(ids[1])));
            for model in list["data"].as_array().unwrap() {
                assert_eq!((&model["object"], &model["type"]), (&json!("model"), &json!("model")));
                for member in
                    ["display_name", "created", "created_at", "context_length", "capabilities", "pricing"]
                {
                    assert!(model.get(member).is_some(), "{member} of {model}");
                }
            }
        }
        assert_eq!(get("/v1/models", Some("nobody")).await.status, 401);
        let one = get("/v1/models/text-prime", Some(KEY)).await;
        assert_eq!((one.status, &one.json()["id"]), (200, &json!("text-prime")));
        let unknown = get("/v1/models/gpt-5.2", Some(KEY)).await;
        assert_eq!((unknown.status, &unknown.json()["error"]["type"]), (404, &json!("not_found_error")));
    }
}
