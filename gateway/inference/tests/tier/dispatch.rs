//! Two nodes of one venue: calls that the first sends on with a 307, and what the second makes of their tickets.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::clients;
use crate::support::*;
use grid_engine::KeyHash;
use grid_inference::{Config, RunningTier};
use http_body_util::Full;
use hyper::Request;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

struct Scene {
    venue: Arc<Venue>,
    upstream: Upstream,
    front: RunningTier,
    hop: RunningTier,
}

async fn scene(change: impl FnOnce(&mut Config)) -> Scene {
    let venue = Venue::new();
    venue.change(|state| state.accounts[1].mode = grid_engine::command::AccountMode::Easy);
    let upstream = Upstream::start(|_, got| {
        if got.json()["stream"] == true {
            Script::events(steps(&good_stream(&["the market", " price"], 5, 3)))
        } else {
            Script::json(&whole("the market price", usage(5, 3)))
        }
    })
    .await;
    venue.supplier(2, &upstream.url);
    let hop = tier(&venue, |_| {}).await;
    let front = tier(&venue, |config| {
        config.dispatch.nodes = vec![hop.inference_url()];
        change(config);
    })
    .await;
    Scene { venue, upstream, front, hop }
}

/// Where the first node sends a call, as path and query at the second.
async fn sent_on(scene: &Scene, body: &str) -> (Reply, String) {
    let answer = Caller::new(&scene.front).post(CHAT, Some(KEY), body).await;
    assert_eq!((answer.status, answer.text.as_str()), (307, ""));
    let location = answer.header("location").expect("a location").to_owned();
    let there = format!("http://{}", scene.hop.inference_addr);
    let path = location.strip_prefix(&there).unwrap_or_else(|| panic!("{location}")).to_owned();
    (answer, path)
}

#[tokio::test]
async fn a_call_that_is_sent_on_is_answered_and_billed_once_by_the_other_node() {
    let scene = scene(|_| {}).await;
    let body = ask(json!({})).to_string();
    for (number, key) in [Some(KEY), None, Some("some other header")].into_iter().enumerate() {
        let (front, path) = sent_on(&scene, &body).await;
        assert_eq!(scene.venue.usages().len(), number, "nothing is reserved before it arrives");
        let answer = Caller::new(&scene.hop).post(&path, key, &body).await;
        assert_eq!(answer.status, 200, "{key:?}: {}", answer.text);
        assert_eq!(answer.header("x-grid-request-id"), front.header("x-grid-request-id"));
        let last = scene.venue.asked().len() - 2;
        let Asked::Reserve { request, .. } = scene.venue.asked()[last] else { panic!("a reservation") };
        assert_eq!(Some(format!("req_{request:032x}").as_str()), front.header("x-grid-request-id"));
    }
    assert_eq!((scene.front.stats().reserved, scene.hop.stats().settled), (0, 3));
    assert_eq!(scene.front.stats().dispatched, 3);
    scene.venue.assert_each_ended_once();
}

#[tokio::test]
async fn a_ticket_is_good_for_one_call_with_its_own_body_at_its_own_node() {
    let scene = scene(|_| {}).await;
    let (front, hop) = (Caller::new(&scene.front), Caller::new(&scene.hop));
    let body = ask(json!({})).to_string();
    let other = ask(json!({"max_tokens": 9})).to_string();
    let refused = async |caller: &Caller, path: &str, key: Option<&str>, body: &str, code: &str| {
        let answer = caller.post(path, key, body).await;
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (401, &json!(code)), "{path}");
        answer
    };
    let (_, path) = sent_on(&scene, &body).await;
    refused(&hop, &path, Some(KEY), &other, "ticket_body").await;
    refused(&front, &path, Some(KEY), &body, "ticket_invalid").await;
    assert_eq!(hop.post(&path, None, &body).await.status, 200);
    let again = refused(&hop, &path, Some(KEY), &body, "ticket_used").await;
    assert_eq!(again.header("x-should-retry"), Some("false"));
    let forged = format!("{}AAAA", &path[..path.len() - 4]);
    refused(&hop, &forged, Some(KEY), &body, "ticket_invalid").await;
    let bare = refused(&hop, &format!("{CHAT}?token="), Some(KEY), &body, "ticket_invalid").await;
    assert_eq!(bare.json()["errors"]["detail"], bare.json()["error"]["message"]);

    let (_, path) = sent_on(&scene, &body).await;
    scene.venue.change(|state| {
        state.consumption_keys.get_mut(&KeyHash::of(KEY)).unwrap().active = false;
    });
    refused(&hop, &path, None, &body, "invalid_api_key").await;
    assert_eq!(scene.upstream.got().len(), 1);
    scene.venue.assert_each_ended_once();
}

#[tokio::test]
async fn a_ticket_that_has_expired_tells_the_client_to_start_over() {
    let scene = scene(|config| config.dispatch.ticket_life = Duration::ZERO).await;
    let body = ask(json!({})).to_string();
    let (_, path) = sent_on(&scene, &body).await;
    let answer = Caller::new(&scene.hop).post(&path, Some(KEY), &body).await;
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (401, &json!("ticket_expired")));
    assert_eq!(answer.header("x-should-retry"), Some("true"));
    assert!(scene.venue.asked().is_empty());
}

#[tokio::test]
async fn what_is_wrong_is_said_before_a_call_is_sent_anywhere() {
    let scene = scene(|_| {}).await;
    let caller = Caller::new(&scene.front);
    let good = ask(json!({})).to_string();
    for (key, body, status) in [
        (Some("nobody"), good.clone(), 401),
        (None, good.clone(), 401),
        (Some(KEY), "{".to_owned(), 400),
        (Some(KEY), ask(json!({"temperature": 3})).to_string(), 422),
        (Some(KEY), ask(json!({"model": "gpt-5.2"})).to_string(), 404),
        (Some(KEY), ask(json!({"model": "text-standard"})).to_string(), 503),
    ] {
        assert_eq!(caller.post(CHAT, key, &body).await.status, status, "{key:?} {body}");
    }
    scene.venue.change(|state| state.accounts[1].mode = grid_engine::command::AccountMode::Advanced);
    assert_eq!(caller.post(CHAT, Some(KEY), &good).await.status, 402);
    assert_eq!(scene.front.stats().dispatched, 0);
}

#[tokio::test]
async fn messages_responses_and_callers_with_an_api_key_header_are_answered_in_place() {
    let scene = scene(|_| {}).await;
    let caller = Caller::new(&scene.front);
    let messages =
        json!({"model": "text-prime", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]});
    assert_eq!(caller.post("/v1/messages", Some(KEY), &messages.to_string()).await.status, 200);
    let responses = json!({"model": "text-prime", "input": "x"});
    assert_eq!(caller.post("/v1/responses", Some(KEY), &responses.to_string()).await.status, 200);
    let body = Full::new(bytes::Bytes::from(ask(json!({})).to_string()));
    let by_header: Request<_> = caller.request("POST", CHAT).header("x-api-key", KEY).body(body).unwrap();
    assert_eq!(Caller::read(caller.open(by_header).await).await.status, 200);
    assert_eq!(scene.front.stats().dispatched, 0);
    scene.venue.assert_each_ended_once();
}

#[tokio::test]
async fn where_no_other_node_is_up_calls_are_answered_in_place() {
    let venue = Venue::new();
    let upstream = Upstream::always(Script::json(&whole("the market", usage(5, 2)))).await;
    venue.supplier(2, &upstream.url);
    venue.change(|state| state.accounts[1].mode = grid_engine::command::AccountMode::Easy);
    let nobody = Upstream::nobody().await;
    let tier = tier(&venue, |config| {
        config.dispatch.nodes = vec![nobody];
        config.dispatch.check = Duration::from_millis(10);
    })
    .await;
    let caller = Caller::new(&tier);
    let in_place = async {
        while caller.chat(&ask(json!({}))).await.status != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), in_place).await.expect("it is found to be down");
    assert_eq!(venue.usages().len(), 1);
}

// -- clients that follow -------------------------------------------------------------------------------------------

fn curl(args: &[&str], url: &str, body: &Value) -> (String, String) {
    let (key, body) = (format!("authorization: Bearer {KEY}"), body.to_string());
    let output = Command::new("curl")
        .args([
            "-s",
            "-S",
            "-w",
            "\n%{http_code} %{num_redirects}",
            "-H",
            &key,
            "-H",
            "content-type: application/json",
        ])
        .args(args)
        .args(["--data-binary", &body, url])
        .output()
        .expect("the tests need curl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let (text, told) = text.rsplit_once('\n').expect("a last line");
    (told.to_owned(), text.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_follows_with_and_without_showing_its_key_to_the_other_host() {
    let scene = scene(|_| {}).await;
    let url = format!("{}/chat/completions", scene.front.inference_url());
    for args in [["-L"].as_slice(), &["-L", "--location-trusted"]] {
        for stream in [false, true] {
            let (url, args, body) = (url.clone(), args.to_vec(), ask(json!({"stream": stream})));
            let run = tokio::task::spawn_blocking(move || curl(&args, &url, &body));
            let (told, text) = run.await.expect("curl ends");
            assert_eq!(told, "200 1", "{text}");
            assert!(text.contains("the market"), "{text}");
        }
    }
    let (told, text) = tokio::task::spawn_blocking(move || curl(&[], &url, &ask(json!({})))).await.unwrap();
    assert_eq!((told.as_str(), text.as_str()), ("307 0", ""));
    assert_eq!(scene.hop.stats().settled, 4);
    scene.venue.assert_each_ended_once();
}

async fn follows(runner: fn(&str, &Value) -> Value, file: &'static str) {
    let scene = scene(|_| {}).await;
    let case = json!({"base_url": scene.front.inference_url(), "key": KEY});
    let told = tokio::task::spawn_blocking(move || runner(file, &case)).await.expect("the client ends");
    assert_eq!(told["texts"], json!(["the market price", "the market price"]), "{told}");
    assert_eq!((scene.front.stats().dispatched, scene.hop.stats().settled), (2, 2));
    assert_eq!((scene.front.stats().reserved, scene.venue.usages().len()), (0, 2));
    scene.venue.assert_each_ended_once();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openai_s_python_sdk_follows_unmodified() {
    follows(clients::python, "dispatch.py").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openai_s_node_sdk_follows_unmodified() {
    follows(clients::node, "dispatch.mjs").await;
}
