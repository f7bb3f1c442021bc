//! Which supplier gets a call: able ones, issuers, those that a prompt belongs to; and what an operator sees of it.

use crate::support::*;
use grid_engine::command::Cover;
use grid_engine::{AccountId, KeyHash};
use grid_inference::{Config, Need, RunningTier};
use http_body_util::Full;
use hyper::Request;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::Semaphore;

const OPERATOR: &str = "operator's secret";

fn good() -> Script {
    Script::json(&whole("the market", usage(5, 2)))
}

fn unsupported(param: &str) -> Script {
    let error = json!({"error": {"message": format!("{param} is not supported"), "type": "invalid_request_error",
        "param": param, "code": "unsupported_parameter"}});
    Script { status: 400, ..Script::json(&error) }
}

/// A tier with suppliers 2, 3 and so on that follow these scripts.
async fn scene(
    scripts: Vec<Script>,
    change: impl FnOnce(&mut Config),
) -> (std::sync::Arc<Venue>, Vec<Upstream>, RunningTier) {
    let venue = Venue::new();
    let mut upstreams = Vec::new();
    for (id, script) in (2..).zip(scripts) {
        let upstream = Upstream::always(script).await;
        venue.supplier(id, &upstream.url);
        upstreams.push(upstream);
    }
    let tier = tier(&venue, |config| {
        config.operator = Some(KeyHash::of(OPERATOR));
        change(config);
    })
    .await;
    (venue, upstreams, tier)
}

fn asked(upstreams: &[Upstream]) -> Vec<usize> {
    upstreams.iter().map(|upstream| upstream.got().len()).collect()
}

fn as_operator(
    caller: &Caller,
    method: &str,
    path: &str,
    secret: &str,
    body: &Value,
) -> Request<Full<bytes::Bytes>> {
    let builder = caller.request(method, path).header("authorization", format!("Bearer {KEY}"));
    builder.header("x-grid-operator", secret).body(Full::new(body.to_string().into())).unwrap()
}

#[tokio::test]
async fn a_call_goes_only_to_models_that_can_do_what_it_asks_for() {
    let (venue, upstreams, tier) = scene(vec![good(), good()], |config| {
        config.lacks.insert("model-of-2".into(), [Need::Logprobs, Need::JsonSchema].into_iter().collect());
        config.lacks.insert("model-of-3".into(), [Need::Seed].into_iter().collect());
    })
    .await;
    venue.ways(|ways| ways.issuers = vec![AccountId(2)]);
    let caller = Caller::new(&tier);
    for (extra, expected) in [
        (json!({}), [1, 0]),
        (json!({"logprobs": true}), [1, 1]),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}}),
            [1, 2],
        ),
        (json!({"seed": 4}), [2, 2]),
        (json!({"tools": [{"type": "function", "function": {"name": "f"}}]}), [3, 2]),
    ] {
        assert_eq!(caller.chat(&ask(extra.clone())).await.status, 200, "{extra}");
        assert_eq!(asked(&upstreams), expected, "{extra}");
    }
    let reserved = venue.asked().len();
    let refused = caller.chat(&ask(json!({"logprobs": true, "seed": 4}))).await;
    assert_eq!(refused.status, 400, "{}", refused.text);
    assert_eq!(refused.json()["error"]["code"], "unsupported_parameter");
    assert_eq!(refused.json()["error"]["param"], "logprobs");
    assert_eq!(refused.json()["errors"]["detail"], refused.json()["error"]["message"]);
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    assert_eq!(venue.asked().len(), reserved, "refused before anything is reserved");
}

#[tokio::test]
async fn what_a_supplier_refuses_as_unsupported_goes_to_another_and_is_remembered() {
    let (venue, upstreams, tier) = scene(vec![unsupported("logprobs"), good()], |_| {}).await;
    let caller = Caller::new(&tier);
    for expected in [[1, 1], [1, 2]] {
        assert_eq!(caller.chat(&ask(json!({"logprobs": true, "top_logprobs": 2}))).await.status, 200);
        assert_eq!(asked(&upstreams), expected);
    }
    assert!(venue.usages().iter().all(|usage| usage.supplier == AccountId(3)));
    venue.assert_each_ended_once();
}

#[tokio::test]
async fn where_everybody_refuses_a_field_the_client_gets_to_know_it_and_pays_nothing() {
    let (venue, upstreams, tier) = scene(vec![unsupported("seed"), unsupported("seed")], |_| {}).await;
    let caller = Caller::new(&tier);
    let refused = caller.chat(&ask(json!({"seed": 1}))).await;
    assert_eq!((refused.status, asked(&upstreams)), (400, vec![1, 1]), "{}", refused.text);
    assert!(refused.text.contains("seed is not supported"), "{}", refused.text);
    assert_eq!(venue.releases(), [0], "nobody is to blame");
    let again = caller.chat(&ask(json!({"seed": 1}))).await;
    assert_eq!((again.status, &again.json()["error"]["param"]), (400, &json!("seed")));
    assert_eq!(asked(&upstreams), [1, 1], "it is known by now");
    venue.assert_each_ended_once();
}

#[tokio::test]
async fn a_client_that_forbids_fallbacks_gets_the_first_supplier_or_none() {
    let (venue, upstreams, tier) = scene(vec![Script::status(500), good()], |_| {}).await;
    let caller = Caller::new(&tier);
    let strict = json!({"provider": {"allow_fallbacks": false}, "route": "fallback"});
    assert_eq!(caller.chat(&ask(strict)).await.status, 503);
    assert_eq!(asked(&upstreams), [1, 0]);
    let sent = upstreams[0].got()[0].json();
    assert!(sent.get("provider").is_none() && sent.get("route").is_none(), "{sent}");
    assert_eq!(caller.chat(&ask(json!({"provider": {"allow_fallbacks": true}}))).await.status, 200);
    venue.assert_each_ended_once();
}

#[tokio::test]
async fn prompts_with_the_same_key_go_to_the_same_supplier_and_keys_are_spread() {
    let (venue, _upstreams, tier) = scene(vec![good(), good(), good()], |_| {}).await;
    let caller = Caller::new(&tier);
    let mut firsts = std::collections::BTreeSet::new();
    for key in 0..24 {
        for _ in 0..2 {
            let answer = caller.chat(&ask(json!({"prompt_cache_key": format!("key {key}")}))).await;
            assert_eq!(answer.status, 200);
        }
        let usages = venue.usages();
        let [one, two] = &usages[usages.len() - 2..] else { unreachable!("two calls were made") };
        assert_eq!(one.supplier, two.supplier, "key {key}");
        firsts.insert(one.supplier);
    }
    assert_eq!(firsts.len(), 3);
}

#[tokio::test]
async fn a_supplier_s_own_limits_are_heeded() {
    let mut spent = Script::status(429);
    spent.headers.push(("x-ratelimit-remaining-requests", "0".into()));
    spent.headers.push(("x-ratelimit-reset-requests", "50s".into()));
    let (_venue, upstreams, tier) = scene(vec![spent, good()], |_| {}).await;
    let caller = Caller::new(&tier);
    for expected in [[1, 1], [1, 2], [1, 3]] {
        assert_eq!(caller.chat(&ask(json!({}))).await.status, 200);
        assert_eq!(asked(&upstreams), expected);
    }
    // The last call that a limit allows is answered, and says that it was the last.
    let mut last = good();
    last.headers.push(("x-ratelimit-remaining-tokens", "0".into()));
    last.headers.push(("x-ratelimit-reset-tokens", "6m0s".into()));
    let (_venue, upstreams, tier) = scene(vec![last, good()], |_| {}).await;
    let caller = Caller::new(&tier);
    for expected in [[1, 0], [1, 1], [1, 2]] {
        assert_eq!(caller.chat(&ask(json!({}))).await.status, 200);
        assert_eq!(asked(&upstreams), expected);
    }
}

#[tokio::test]
async fn only_the_operator_sees_how_a_call_was_routed_and_what_the_tier_counts() {
    let (_venue, _upstreams, tier) = scene(vec![Script::status(500), good()], |_| {}).await;
    let caller = Caller::new(&tier);
    let route = async |secret: &str| {
        let request = as_operator(&caller, "POST", "/v1/chat/completions", secret, &ask(json!({})));
        Caller::read(caller.open(request).await).await
    };
    let told = route(OPERATOR).await;
    assert_eq!(told.header("x-grid-route"), Some("by spread: 2, 3; 2: status; 3: delivers"));
    assert_eq!(
        route(OPERATOR).await.header("x-grid-route"),
        Some("by health: 3, 2 shaky; 3: delivers"),
        "what failed a moment ago comes later"
    );
    assert_eq!(route("guessed").await.header("x-grid-route"), None);
    let stats = as_operator(&caller, "GET", "/operator/stats", OPERATOR, &Value::Null);
    let stats = Caller::read(caller.open(stats).await).await.json();
    assert_eq!((&stats["calls"], &stats["open"]), (&json!(3), &json!(0)), "{stats}");
    assert_eq!(caller.get("/operator/stats").await.status, 404);
}

#[tokio::test]
async fn both_kinds_of_clients_find_the_models_with_what_they_can_do() {
    let (_venue, _upstreams, tier) = scene(vec![good()], |config| {
        config.lacks.insert("model-of-2".into(), [Need::Tools, Need::WebSearch].into_iter().collect());
    })
    .await;
    let caller = Caller::new(&tier);
    let list = caller.get("/v1/models").await.json();
    assert_eq!((&list["object"], &list["has_more"]), (&json!("list"), &json!(false)));
    assert_eq!((&list["first_id"], &list["last_id"]), (&json!("text-prime"), &json!("text-standard")));
    let model = &list["data"][0];
    assert_eq!((&model["object"], &model["type"]), (&json!("model"), &json!("model")));
    assert_eq!(model["created_at"], "2026-09-21T14:13:20Z");
    assert_eq!(model["capabilities"]["tools"], false);
    assert_eq!(model["capabilities"]["json_schema"], true);
    assert_eq!(model["models"], json!(["model-of-2"]));
    let parameters = model["supported_parameters"].as_array().unwrap();
    assert!(parameters.contains(&json!("seed")) && !parameters.contains(&json!("tools")), "{parameters:?}");
    let catalogue = caller.get("/instruments.json").await.json();
    assert_eq!(catalogue["instruments"][0]["symbol"], "text-prime");
    assert_eq!(catalogue["instruments"][0]["specification"]["context_floor"], 128_000);
}

#[tokio::test]
async fn a_settlement_says_whether_an_issuer_delivered_and_if_not_why() {
    let schema =
        json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}});
    let cut = || Script { steps: vec![send("{"), Step::Die], ..good() };
    for (what, issuer, suspended, lacks, body, supplier, cover) in [
        ("it delivers", good(), false, false, json!({}), 2, Cover::Issuer),
        ("it refuses", Script::status(500), false, false, json!({}), 3, Cover::Failed),
        ("it breaks off", cut(), false, false, json!({}), 3, Cover::Failed),
        ("it is busy", Script::status(429), false, false, json!({}), 3, Cover::Failed),
        ("it is suspended", good(), true, false, json!({}), 3, Cover::Failed),
        ("it is known to lack it", good(), false, true, schema.clone(), 3, Cover::Unable),
        (
            "it turns out to lack it",
            unsupported("response_format"),
            false,
            false,
            schema.clone(),
            3,
            Cover::Unable,
        ),
        ("it lacks it, and is suspended", good(), true, true, schema, 3, Cover::Failed),
    ] {
        let (venue, _upstreams, tier) = scene(vec![issuer, good()], |config| {
            if lacks {
                config.lacks.insert("model-of-2".into(), [Need::JsonSchema].into_iter().collect());
            }
        })
        .await;
        venue.ways(|ways| ways.issuers = vec![AccountId(2)]);
        venue.change(|state| {
            state.suppliers.get_mut(&AccountId(2)).unwrap().profile.suspended = suspended;
        });
        let answer = Caller::new(&tier).chat(&ask(body)).await;
        assert_eq!(answer.status, 200, "{what}: {}", answer.text);
        let usage = venue.usages()[0];
        assert_eq!((usage.supplier, usage.cover), (AccountId(supplier), cover), "{what}");
        venue.assert_each_ended_once();
    }
}

#[tokio::test]
async fn an_issuer_that_is_full_by_the_tier_s_own_limit_is_not_blamed_nor_is_another_with_it() {
    for (what, first, issuers, cover) in [
        ("full", good(), vec![2], Cover::Unable),
        ("full, and another issuer failed", good(), vec![2, 4], Cover::Unable),
        ("it asked for patience", Script::status(429), vec![2], Cover::Failed),
    ] {
        let gate = Arc::new(Semaphore::new(0));
        let busy = first.status == 429;
        let mut gated = first;
        if !busy {
            gated.steps.insert(0, Step::Gate(Arc::clone(&gate)));
        }
        let (venue, upstreams, tier) =
            scene(vec![gated, good(), Script::status(500)], |config| config.routing.supplier_concurrent = 1)
                .await;
        venue.ways(|ways| ways.issuers = vec![AccountId(2)]);
        let tier = Arc::new(tier);
        let holder = tokio::spawn({
            let tier = Arc::clone(&tier);
            async move { Caller::new(&tier).chat(&ask(json!({}))).await.status }
        });
        upstreams[0].until_requests(1).await;
        if busy {
            holder.await.unwrap();
        }
        let before = venue.usages().len();
        venue.ways(|ways| ways.issuers = issuers.into_iter().map(AccountId).collect());
        assert_eq!(Caller::new(&tier).chat(&ask(json!({}))).await.status, 200, "{what}");
        let usage = venue.usages()[before];
        assert_eq!((usage.supplier, usage.cover), (AccountId(3), cover), "{what}");
        gate.add_permits(1);
    }
}
