//! Chat completions field by field (contract §6.3): what is taken arrives at the supplier as it was sent, what is out of
//! its range is named, and what nobody can honour is refused instead of dropped.

use crate::support::*;
use grid_inference::{Need, Needs};
use serde_json::{Value, json};

/// Field, values that are taken, values that are not.
fn fields() -> Vec<(&'static str, Vec<Value>, Vec<Value>)> {
    let tool = |name: &str| json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}}});
    let schema = |name: &str| json!({"type": "json_schema", "json_schema": {"name": name, "strict": true, "schema": {"type": "object"}}});
    let text = || vec![json!("text"), json!(""), Value::Null];
    let no_text = || vec![json!(1), json!(["x"]), json!({})];
    let flag = || vec![json!(true), json!(false), Value::Null];
    let no_flag = || vec![json!("true"), json!(1), json!([])];
    let object = || vec![json!({}), Value::Null];
    let no_object = || vec![json!("x"), json!([]), json!(7), json!(true)];
    let from_to =
        |min: f64, max: f64| vec![json!(min), json!(max), json!(f64::midpoint(min, max)), Value::Null];
    let no_number =
        |min: f64, max: f64| vec![json!(min - 0.01), json!(max + 0.01), json!("1"), json!([1]), json!(true)];
    let words =
        |words: &[&str]| words.iter().map(|word| json!(word)).chain([Value::Null]).collect::<Vec<_>>();
    let no_word = || vec![json!("other"), json!(""), json!("AUTO"), json!(1), json!(["low"])];
    let limit = || vec![json!(1), json!(128_000), Value::Null];
    let no_limit = || vec![json!(0), json!(-1), json!(1.5), json!("9"), json!(u64::MAX)];
    vec![
        ("max_tokens", limit(), no_limit()),
        ("max_completion_tokens", limit(), no_limit()),
        ("temperature", from_to(0.0, 2.0), no_number(0.0, 2.0)),
        ("top_p", from_to(0.0, 1.0), no_number(0.0, 1.0)),
        ("n", vec![json!(1), json!(128), Value::Null], vec![json!(0), json!(129), json!(1.5), json!("1")]),
        ("stream", vec![json!(false), Value::Null], no_flag()),
        (
            "stream_options",
            vec![json!({}), json!({"include_usage": true, "include_obfuscation": false}), Value::Null],
            vec![json!("x"), json!([]), json!({"include_usage": "yes"})],
        ),
        (
            "stop",
            vec![json!("END"), json!(["a", "b", "c", "d"]), json!([]), Value::Null],
            vec![json!(["a", "b", "c", "d", "e"]), json!([1]), json!(7), json!({})],
        ),
        ("logprobs", flag(), no_flag()),
        ("logit_bias", vec![json!({"50256": -100, "7": 100}), json!({}), Value::Null], {
            vec![json!({"7": 101}), json!({"7": -101}), json!({"7": "x"}), json!([]), json!("x")]
        }),
        (
            "response_format",
            vec![json!({"type": "text"}), json!({"type": "json_object"}), schema("answer"), Value::Null],
            vec![
                json!("json"),
                json!({}),
                json!({"type": "yaml"}),
                schema("has space"),
                json!({"type": "json_schema"}),
            ],
        ),
        (
            "tools",
            vec![json!([tool("f")]), json!([tool("f"), tool("g-2_x")]), json!([])],
            vec![
                json!({}),
                json!("f"),
                json!([{"type": "function"}]),
                json!([tool("has space")]),
                json!([tool(&"x".repeat(65))]),
                json!([{"type": "plugin", "function": {"name": "f"}}]),
            ],
        ),
        (
            "tool_choice",
            vec![
                json!("none"),
                json!("auto"),
                json!("required"),
                json!({"type": "function", "function": {"name": "f"}}),
            ],
            vec![json!("any"), json!(1), json!({}), json!({"type": "function"}), json!(["auto"])],
        ),
        ("parallel_tool_calls", flag(), no_flag()),
        ("frequency_penalty", from_to(-2.0, 2.0), no_number(-2.0, 2.0)),
        ("presence_penalty", from_to(-2.0, 2.0), no_number(-2.0, 2.0)),
        (
            "seed",
            vec![json!(0), json!(-5), json!(i64::MAX), Value::Null],
            vec![json!(1.5), json!("1"), json!({})],
        ),
        ("service_tier", words(&["auto", "default", "flex", "scale", "priority"]), no_word().split_off(1)),
        ("reasoning_effort", words(&["none", "minimal", "low", "medium", "high", "xhigh"]), no_word()),
        ("verbosity", words(&["low", "medium", "high"]), no_word()),
        ("prediction", vec![json!({"type": "content", "content": "x"}), Value::Null], no_object()),
        (
            "web_search_options",
            vec![json!({"search_context_size": "low"}), json!({}), Value::Null],
            no_object(),
        ),
        ("prompt_cache_key", text(), no_text()),
        ("prompt_cache_retention", words(&["in-memory", "24h"]), no_word()),
        ("safety_identifier", text(), no_text()),
        ("user", text(), no_text()),
        ("store", flag(), no_flag()),
        ("metadata", vec![json!({"a": "b"}), json!({}), Value::Null], no_object()),
        ("audio", object(), no_object()),
        (
            "modalities",
            vec![json!(["text"]), json!(["text", "audio"]), Value::Null],
            vec![json!("text"), json!([1])],
        ),
        ("top_k", vec![json!(40), json!("what nobody knows passes")], vec![]),
        ("vendor_extension", vec![json!({"kept": [1.5, {"deep": null}]})], vec![]),
    ]
}

#[tokio::test]
async fn every_field_is_passed_on_as_it_is_or_named_when_it_is_out_of_its_range() {
    let venue = Venue::new();
    let upstream = Upstream::always(Script::json(&whole("the market", usage(5, 2)))).await;
    venue.supplier(2, &upstream.url);
    let tier = tier(&venue, |_| {}).await;
    let caller = Caller::new(&tier);
    let mut sent = 0;
    for (field, good, bad) in fields() {
        for value in good {
            let body = ask(json!({field: value}));
            let answer = caller.chat(&body).await;
            assert_eq!(answer.status, 200, "{field} {value}: {}", answer.text);
            let mut expected = body.clone();
            expected["model"] = json!("model-of-2");
            let got = upstream.got();
            sent += 1;
            assert_eq!((got.len(), &got[sent - 1].json()), (sent, &expected), "{field} {value}");
        }
        for value in bad {
            let answer = caller.chat(&ask(json!({field: value}))).await;
            let error = &answer.json()["error"];
            assert_eq!((answer.status, &error["param"]), (422, &json!(field)), "{field} {value}");
            assert_eq!(error["type"], "invalid_request_error", "{field} {value}");
            assert_eq!(
                (&error["code"], answer.header("x-should-retry")),
                (&json!("invalid_value"), Some("false"))
            );
            assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()));
            assert_eq!(answer.json()["errors"]["detail"], error["message"]);
        }
    }
    assert_eq!(upstream.got().len(), sent, "nothing that is wrong gets to a supplier");
    venue.assert_each_ended_once();
}

#[tokio::test]
async fn fields_that_depend_on_each_other_and_on_messages_are_checked_together() {
    let venue = Venue::new();
    let upstream = Upstream::always(Script::json(&whole("the market", usage(5, 2)))).await;
    venue.supplier(2, &upstream.url);
    let tier = tier(&venue, |_| {}).await;
    let caller = Caller::new(&tier);
    let roles = ["system", "developer", "user", "assistant", "tool"];
    let all: Vec<Value> = roles.iter().map(|role| json!({"role": role, "content": "x"})).collect();
    for (extra, status, param) in [
        (json!({"messages": all}), 200, Value::Null),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}),
            200,
            Value::Null,
        ),
        (json!({"messages": []}), 422, json!("messages")),
        (json!({"messages": Value::Null}), 422, json!("messages")),
        (json!({"messages": "hi"}), 422, json!("messages")),
        (json!({"messages": [{"role": "king", "content": "x"}]}), 422, json!("messages")),
        (json!({"messages": ["hi"]}), 422, json!("messages")),
        (json!({"logprobs": true, "top_logprobs": 0}), 200, Value::Null),
        (json!({"logprobs": true, "top_logprobs": 20}), 200, Value::Null),
        (json!({"logprobs": true, "top_logprobs": 21}), 422, json!("top_logprobs")),
        (json!({"logprobs": false, "top_logprobs": 2}), 422, json!("top_logprobs")),
        (json!({"top_logprobs": 2}), 422, json!("top_logprobs")),
        (json!({"model": Value::Null}), 422, json!("model")),
        (json!({"model": 7}), 422, json!("model")),
        (json!({"model": "TEXT-Prime"}), 200, Value::Null),
        (json!({"model": "gpt-5.2"}), 404, json!("model")),
        (
            json!({"route": "fallback", "provider": {"allow_fallbacks": true, "order": ["x"]}}),
            200,
            Value::Null,
        ),
        (json!({"route": 1}), 422, json!("route")),
        (json!({"provider": "x"}), 422, json!("provider")),
        (json!({"provider": {"allow_fallbacks": "no"}}), 422, json!("provider")),
    ] {
        let answer = caller.chat(&ask(extra.clone())).await;
        let said = if status == 200 { Value::Null } else { answer.json()["error"]["param"].clone() };
        assert_eq!((answer.status, said), (status, param), "{extra}: {}", answer.text);
    }
    for got in upstream.got() {
        assert!(got.json().get("route").is_none() && got.json().get("provider").is_none());
    }
}

#[tokio::test]
async fn what_no_supplier_can_honour_is_refused_with_its_field_and_never_dropped() {
    let tool = json!([{"type": "function", "function": {"name": "f"}}]);
    let part = |part: Value| json!({"messages": [{"role": "user", "content": [part]}]});
    let schema = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": {}}});
    let table = [
        (Need::Tools, json!({"tools": tool.clone()}), "tools"),
        (Need::ToolChoice, json!({"tools": tool.clone(), "tool_choice": "required"}), "tool_choice"),
        (
            Need::ParallelToolCalls,
            json!({"tools": tool, "parallel_tool_calls": false}),
            "parallel_tool_calls",
        ),
        (Need::JsonObject, json!({"response_format": {"type": "json_object"}}), "response_format"),
        (Need::JsonSchema, json!({"response_format": schema}), "response_format"),
        (Need::Logprobs, json!({"logprobs": true}), "logprobs"),
        (Need::LogitBias, json!({"logit_bias": {"5": 1}}), "logit_bias"),
        (Need::Choices, json!({"n": 2}), "n"),
        (Need::Seed, json!({"seed": 1}), "seed"),
        (Need::Stop, json!({"stop": "x"}), "stop"),
        (Need::Sampling, json!({"temperature": 0.2}), "temperature"),
        (Need::Penalties, json!({"frequency_penalty": 1}), "frequency_penalty"),
        (Need::ReasoningEffort, json!({"reasoning_effort": "high"}), "reasoning_effort"),
        (Need::Verbosity, json!({"verbosity": "low"}), "verbosity"),
        (Need::Prediction, json!({"prediction": {"type": "content", "content": "x"}}), "prediction"),
        (Need::WebSearch, json!({"web_search_options": {}}), "web_search_options"),
        (Need::ServiceTier, json!({"service_tier": "priority"}), "service_tier"),
        (Need::CacheRetention, json!({"prompt_cache_retention": "24h"}), "prompt_cache_retention"),
        (Need::Images, part(json!({"type": "image_url", "image_url": {"url": "data:,"}})), "messages"),
        (Need::AudioIn, part(json!({"type": "input_audio", "input_audio": {}})), "messages"),
        (Need::AudioOut, json!({"modalities": ["text", "audio"]}), "modalities"),
        (Need::Files, part(json!({"type": "file", "file": {}})), "messages"),
        (Need::Store, json!({"store": true}), "store"),
    ];
    for (need, extra, field) in table {
        let venue = Venue::new();
        let upstream = Upstream::always(Script::json(&whole("the market", usage(5, 2)))).await;
        venue.supplier(2, &upstream.url);
        let lacking = tier(&venue, |config| {
            config.lacks.insert("model-of-2".into(), [need].into_iter().collect::<Needs>());
        })
        .await;
        let refused = Caller::new(&lacking).chat(&ask(extra.clone())).await;
        let error = &refused.json()["error"];
        assert_eq!(
            (refused.status, &error["code"], &error["param"]),
            (400, &json!("unsupported_parameter"), &json!(field)),
            "{need:?}: {}",
            refused.text
        );
        assert!(venue.asked().is_empty() && upstream.got().is_empty(), "{need:?}");
        let able = tier(&venue, |_| {}).await;
        assert_eq!(Caller::new(&able).chat(&ask(extra.clone())).await.status, 200, "{need:?}");
        let got = upstream.got()[0].json();
        for (name, value) in extra.as_object().unwrap() {
            assert_eq!(&got[name], value, "{need:?}");
        }
    }
}

#[tokio::test]
async fn a_field_that_a_supplier_refuses_is_named_to_the_client() {
    let error = |status: u16, code: &str, param: &str| {
        let error =
            json!({"error": {"message": "no such thing here", "type": "x", "param": param, "code": code}});
        Script { status, ..Script::json(&error) }
    };
    for (script, status, param) in [
        (error(400, "invalid_value", "tools[0].function.parameters"), 400, json!("tools")),
        (error(422, "invalid_value", "seed"), 422, json!("seed")),
        (error(400, "unsupported_parameter", "max_tokens"), 400, json!("max_tokens")),
        (error(400, "invalid_value", "their_own_name"), 400, Value::Null),
    ] {
        let venue = Venue::new();
        let upstream = Upstream::always(script).await;
        venue.supplier(2, &upstream.url);
        let tier = tier(&venue, |_| {}).await;
        let answer = Caller::new(&tier).chat(&ask(json!({"seed": 1}))).await;
        assert_eq!((answer.status, &answer.json()["error"]["param"]), (status, &param), "{}", answer.text);
        assert_eq!(venue.usages(), []);
        venue.assert_each_ended_once();
    }
}
