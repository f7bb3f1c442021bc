//! Calls from a client through the tier to real HTTP suppliers and back, and what the venue is asked on the way.

use std::sync::Arc;
use std::time::Duration;

use crate::support::*;
use grid_engine::sla::Fault;
use grid_engine::{AccountId, Reject};
use grid_inference::{DoorError, KeyLimits};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

const TEXTS: [&str; 3] = ["the market", " price", " is open"];
/// Our own count of `TEXTS`, and of the prompt with its template.
const OWN_COMPLETION: u64 = 5;
const OWN_PROMPT: u64 = 5 + 1 + 4;

fn prompt_and_completion(venue: &Venue) -> Vec<(u64, u64)> {
    let usages = venue.usages();
    usages.iter().map(|usage| (usage.prompt_tokens.0, usage.completion_tokens.0)).collect()
}

#[tokio::test]
async fn a_streamed_call_is_reserved_streamed_and_settled_to_the_token() {
    let venue = Venue::new();
    let upstream = Upstream::always(Script::events(steps(&good_stream(&TEXTS, 5, 4)))).await;
    venue.supplier(2, &upstream.url);
    let tier = tier(&venue, |_| {}).await;
    let caller = Caller::new(&tier);
    let body = ask(
        json!({"stream": true, "max_tokens": 50, "brand_new_field": {"kept": [1.50]}, "model": "Text-PRIME"}),
    );
    let answer = caller.chat(&body).await;

    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"));
    let events = good_stream(&TEXTS, 5, 4);
    let expected: Vec<Value> = events[..events.len() - 2].iter().map(|event| answer.shown(event)).collect();
    assert_eq!(answer.chunks(), expected, "the usage chunk that nobody asked for is kept back");
    let request = answer.header("x-grid-request-id").unwrap();
    assert!(request.starts_with("req_") && request.len() == 36);
    assert_eq!(answer.header("x-request-id"), Some(request));

    let got = &upstream.got()[0];
    assert_eq!(got.path, "/v1/chat/completions");
    assert_eq!(got.headers["authorization"], format!("Bearer {CREDENTIAL}"));
    assert!(!format!("{:?}", got.headers).contains(KEY), "the venue's key stays here");
    let mut sent = body.clone();
    sent["model"] = json!("model-of-2");
    sent["stream_options"] = json!({"include_usage": true});
    assert_eq!(got.json(), sent);

    let asked = venue.asked();
    let Asked::Reserve { tokens, request: number } = &asked[0] else { panic!("{asked:?}") };
    assert_eq!(*tokens, body.to_string().len() as u64 + 64 + 50);
    assert_eq!(format!("req_{number:032x}"), request);
    assert_eq!(asked.len(), 2, "settled before the end of the stream: {asked:?}");
    let usage = venue.usages()[0];
    assert_eq!((usage.prompt_tokens.0, usage.completion_tokens.0), (5, 4));
    assert_eq!(usage.supplier, AccountId(2));
    assert!(!usage.estimated && !usage.partial && usage.duration_us >= usage.ttft_us);
    venue.assert_each_ended_once();
    tier.shutdown().await;
}

#[tokio::test]
async fn a_whole_answer_passes_and_is_settled_first() {
    let venue = Venue::new();
    let answer = whole("the market price is open", usage(5, 5));
    let upstream = Upstream::always(Script::json(&answer)).await;
    venue.supplier(2, &upstream.url);
    let tier = tier(&venue, |_| {}).await;
    let got = Caller::new(&tier).chat(&ask(json!({}))).await;
    assert_eq!((got.status, got.json()), (200, got.shown(&answer.to_string())));
    assert_eq!(prompt_and_completion(&venue), [(5, 5)]);
    assert!(upstream.got()[0].json().get("stream_options").is_none());
    venue.assert_each_ended_once();
}

/// An answer, or a chunk of one, on which a house has signed wherever it can.
fn signed(mut value: Value) -> Value {
    for name in ["id", "model", "object", "system_fingerprint", "provider", "x_acme", "service_tier"] {
        value[name] = json!(format!("acme-{name}"));
    }
    for part in ["/choices/0", "/choices/0/delta", "/choices/0/message", "/usage"] {
        if let Some(part) = value.pointer_mut(part) {
            part["provider_specific_fields"] = json!({"house": "Acme Models"});
        }
    }
    value
}

#[tokio::test]
async fn nobody_is_told_which_house_delivered() {
    let venue = Venue::new();
    let upstream = Upstream::start(move |_, got| {
        if got.json()["stream"] == true {
            let mut events = vec![": ACME PROCESSING\n\n".to_owned()];
            for event in good_stream(&TEXTS, 5, 4) {
                events.push(match serde_json::from_str(event.trim_start_matches("data: ")) {
                    Ok(chunk) => format!("event: acme\nid: acme-7\ndata: {}\n\n", signed(chunk)),
                    Err(_) => event,
                });
            }
            events.insert(3, ": ACME STILL PROCESSING\n\n".to_owned());
            return Script::events(steps(&events));
        }
        Script::json(&signed(whole("the market price is open", usage(5, 5))))
    })
    .await;
    venue.supplier(2, &upstream.url);
    venue.change(|state| {
        let supplier = state.suppliers.get_mut(&AccountId(2)).expect("the supplier");
        supplier.profile.offers[0].model = "accounts/acme/models/qwen".to_owned();
    });
    let tier = tier(&venue, |_| {}).await;
    let caller = Caller::new(&tier);
    let usage = json!({"include_usage": true});
    for (path, more) in [
        (
            "/v1/chat/completions",
            json!({"messages": [{"role": "user", "content": "the market"}], "stream_options": usage}),
        ),
        ("/v1/chat/completions", json!({"messages": [{"role": "user", "content": "the market"}]})),
        ("/v1/messages", json!({"messages": [{"role": "user", "content": "the market"}], "max_tokens": 20})),
        ("/v1/responses", json!({"input": "the market"})),
    ] {
        for stream in [false, true] {
            let mut body = more.clone();
            (body["model"], body["stream"]) = (json!("text-prime"), json!(stream));
            if !stream {
                body.as_object_mut().unwrap().remove("stream_options");
            }
            let answer = caller.post(path, Some(KEY), &body.to_string()).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.text);
            assert!(
                answer.text.contains("market") && answer.text.contains("qwen"),
                "{path}: {}",
                answer.text
            );
            let everything = format!("{:?}{}", answer.headers, answer.text).to_lowercase();
            assert!(!everything.contains("acme"), "{path} {stream}: {everything}");
        }
    }
    assert!(!caller.get("/v1/models").await.text.contains("acme"));
    venue.assert_each_ended_once();
    tier.shutdown().await;
}

#[tokio::test]
async fn a_supplier_that_refuses_a_request_is_quoted_unless_it_says_who_it_is() {
    for (said, told) in [
        ("upstream takes no such image", "upstream takes no such image"),
        ("Acme takes no such image", "the request was refused upstream"),
        ("no such image; see https://docs.example.com", "the request was refused upstream"),
    ] {
        for (code, status) in [("bad_image", 422), ("unsupported_value", 400)] {
            let venue = Venue::new();
            let body = json!({"error": {"message": said, "code": code, "param": "messages"}});
            let script = Script::new(422, "application/json", vec![send(&body.to_string())]);
            let picky = Upstream::always(script).await;
            venue.supplier(2, &picky.url);
            venue.change(|state| {
                state.suppliers.get_mut(&AccountId(2)).expect("the supplier").profile.name =
                    "Acme Models".into();
            });
            let tier = tier(&venue, |_| {}).await;
            let answer = Caller::new(&tier).chat(&ask_stream()).await;
            let error = &answer.json()["error"];
            assert_eq!(
                (answer.status, &error["message"], &error["param"]),
                (status, &json!(told), &json!("messages"))
            );
        }
    }
}

#[tokio::test]
async fn usage_is_shown_to_a_client_that_asked_for_it() {
    let venue = Venue::new();
    let null = chunk(json!({"choices": [{"index": 0, "delta": {"content": "the market"}}], "usage": null}));
    let events = [role(), null, finish(), usage_chunk(5, 2), DONE.to_owned()];
    let upstream = Upstream::always(Script::events(steps(&events))).await;
    venue.supplier(2, &upstream.url);
    let tier = tier(&venue, |_| {}).await;
    let caller = Caller::new(&tier);
    let asked = json!({"stream": true, "stream_options": {"include_usage": true}});
    let answer = caller.chat(&ask(asked)).await;
    let mut expected: Vec<Value> = events[..4].iter().map(|event| answer.shown(event)).collect();
    for chunk in &mut expected[..3] {
        chunk["usage"] = Value::Null;
    }
    assert_eq!(answer.chunks(), expected);

    for options in [json!({}), json!({"include_usage": false}), Value::Null] {
        let answer = caller.chat(&ask(json!({"stream": true, "stream_options": options}))).await;
        assert!(!answer.text.contains("usage"), "{}", answer.text);
        assert_eq!(answer.events().len(), 4);
        for event in &answer.events()[..3] {
            assert!(serde_json::from_str::<Value>(event).unwrap()["choices"][0].is_object());
        }
    }
    for got in upstream.got() {
        assert_eq!(got.json()["stream_options"]["include_usage"], true);
    }
}

#[tokio::test]
async fn usage_counts_once_wherever_it_stands() {
    let late =
        chunk(json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage(5, 5)}));
    let growing = |text: &str, so_far: u64| {
        chunk(json!({"choices": [{"index": 0, "delta": {"content": text}}], "usage": usage(5, so_far)}))
    };
    let groq = chunk(json!({"x_groq": {"usage": usage(5, 5)}}));
    let table: Vec<(&str, Vec<String>)> = vec![
        ("on the last content chunk", vec![role(), delta("the market price is open"), late, DONE.into()]),
        (
            "on every chunk",
            vec![
                growing("the market", 2),
                growing(" price is open", 5),
                finish(),
                usage_chunk(5, 5),
                DONE.into(),
            ],
        ),
        ("in x_groq", vec![role(), delta("the market price is open"), finish(), groq, DONE.into()]),
        (
            "before the reason to stop",
            vec![role(), delta("the market price is open"), usage_chunk(5, 5), finish(), DONE.into()],
        ),
        ("without [DONE]", vec![role(), delta("the market price is open"), finish(), usage_chunk(5, 5)]),
    ];
    for (name, events) in table {
        let venue = Venue::new();
        let upstream = Upstream::always(Script::events(steps(&events))).await;
        venue.supplier(2, &upstream.url);
        let tier = tier(&venue, |_| {}).await;
        let answer = Caller::new(&tier).chat(&ask_stream()).await;
        assert!(answer.text.ends_with(DONE), "{name}: {}", answer.text);
        assert_eq!(prompt_and_completion(&venue), [(5, 5)], "{name}");
        assert!(!venue.usages()[0].estimated, "{name}");
    }
}

#[tokio::test]
async fn without_usage_or_with_an_unbelievable_one_our_own_count_is_billed_and_shown() {
    let plain: Vec<String> =
        [role()].into_iter().chain(TEXTS.iter().map(|text| delta(text))).chain([finish()]).collect();
    let lying =
        |prompt, completion| [plain.clone(), vec![usage_chunk(prompt, completion), DONE.into()]].concat();
    let table = [
        ("none", [plain.clone(), vec![DONE.into()]].concat(), 0),
        ("null", [plain.clone(), vec![chunk(json!({"usage": null})), DONE.into()]].concat(), 0),
        ("inflated completion", lying(5, 5_000), 1),
        ("inflated prompt", lying(5_000, 5), 1),
        ("nothing for something", lying(5, 0), 1),
        ("absurd", lying(u64::MAX / 4, u64::MAX / 4), 1),
    ];
    for (name, events, distrusted) in table {
        let venue = Venue::new();
        let upstream = Upstream::always(Script::events(steps(&events))).await;
        venue.supplier(2, &upstream.url);
        let tier = tier(&venue, |_| {}).await;
        let asked = json!({"stream": true, "stream_options": {"include_usage": true}});
        let answer = Caller::new(&tier).chat(&ask(asked)).await;
        assert_eq!(prompt_and_completion(&venue), [(OWN_PROMPT, OWN_COMPLETION)], "{name}");
        assert!(venue.usages()[0].estimated, "{name}");
        assert_eq!(tier.stats().distrusted, distrusted, "{name}");
        let events = answer.events();
        let shown: Value = serde_json::from_str(&events[events.len() - 2]).unwrap();
        assert_eq!(shown["choices"], json!([]), "{name}");
        assert_eq!(shown["usage"], usage(OWN_PROMPT, OWN_COMPLETION), "{name}");
        assert_eq!((&shown["id"], &shown["model"]), (&answer.chunks()[0]["id"], &json!("model-of-2")));
    }

    let venue = Venue::new();
    let upstream = Upstream::always(Script::json(&whole(&TEXTS.concat(), usage(9_000, 9_000)))).await;
    venue.supplier(2, &upstream.url);
    let tier = tier(&venue, |_| {}).await;
    let answer = Caller::new(&tier).chat(&ask(json!({}))).await;
    assert_eq!(answer.json()["usage"], usage(OWN_PROMPT, OWN_COMPLETION));
}

#[tokio::test]
async fn before_the_first_content_every_failure_is_repaired_by_another_supplier() {
    let events = |events: Vec<String>, last: Step| {
        let mut all = steps(&events);
        all.push(last);
        Script::events(all)
    };
    let error = "data: {\"error\":{\"message\":\"overloaded\"}}\n\n".to_owned();
    let redirect = Script {
        headers: vec![("location", "http://127.0.0.1:1/v1/chat/completions".into())],
        ..Script::status(307)
    };
    let gzip = Script {
        headers: vec![("content-type", "text/event-stream".into()), ("content-encoding", "gzip".into())],
        ..Script::events(steps(&good_stream(&TEXTS, 5, 5)))
    };
    let table = vec![
        ("401", Script::status(401)),
        ("402", Script::status(402)),
        ("404", Script::status(404)),
        ("408", Script::status(408)),
        ("429", Script::status(429)),
        ("500", Script::status(500)),
        ("503", Script::status(503)),
        ("529", Script::status(529)),
        ("redirect", redirect),
        ("no head", Script::mute()),
        ("silence", events(vec![], Step::Silence)),
        ("role, then silence", events(vec![role()], Step::Silence)),
        ("role, then death", events(vec![role()], Step::Die)),
        ("role, then error", events(vec![role(), error.clone()], Step::Silence)),
        ("error at once", events(vec![error], Step::Silence)),
        ("[DONE] at once", events(vec![DONE.into()], Step::Silence)),
        ("nothing", Script::events(vec![])),
        ("comments only", events(vec![": ping\n\n".into(); 3], Step::Silence)),
        ("not JSON", events(vec!["data: <html>\n\n".into()], Step::Silence)),
        ("HTML", Script::new(200, "text/html", vec![send("<html>")])),
        ("compressed", gzip),
    ];
    for (name, script) in table {
        let venue = Venue::new();
        let (bad, good) = (
            Upstream::always(script).await,
            Upstream::always(Script::events(steps(&good_stream(&TEXTS, 5, 5)))).await,
        );
        venue.supplier(2, &bad.url);
        venue.supplier(3, &good.url);
        let tier = tier(&venue, |config| config.clocks.first_content = Duration::from_millis(150)).await;
        let answer = Caller::new(&tier).chat(&ask_stream()).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.text);
        assert!(answer.text.ends_with(DONE), "{name}: {}", answer.text);
        assert_eq!(
            answer.text.matches("\"role\"").count(),
            1,
            "{name}: nothing of the first attempt is shown"
        );
        assert_eq!(bad.got().len(), 1, "{name}");
        assert_eq!(venue.usages().len(), 1, "{name}");
        assert_eq!(venue.usages()[0].supplier, AccountId(3), "{name}");
        assert_eq!(tier.stats().failovers, 1, "{name}");
        venue.assert_each_ended_once();
        bad.until_ended(1).await;
    }
}

#[tokio::test]
async fn a_supplier_whose_tls_fails_is_passed_over() {
    let venue = Venue::new();
    let plain = Upstream::always(Script::events(steps(&good_stream(&TEXTS, 5, 5)))).await;
    venue.supplier(2, &plain.url.replace("http://", "https://"));
    venue.supplier(3, &plain.url);
    let tier = tier(&venue, |_| {}).await;
    assert_eq!(Caller::new(&tier).chat(&ask_stream()).await.status, 200);
    assert_eq!((venue.usages()[0].supplier, tier.stats().failovers), (AccountId(3), 1));
}

#[tokio::test]
async fn whole_answers_fail_over_too() {
    let mut half = Script::json(&whole("x", usage(1, 1)));
    half.steps = vec![send("{\"choices\":"), Step::Die];
    let table = vec![
        ("500", Script::status(500)),
        ("silence", Script::mute()),
        ("half", half),
        ("not JSON", Script::new(200, "application/json", vec![send("oops")])),
        ("no choices", Script::json(&json!({"id": "x"}))),
        ("error", Script::json(&json!({"error": {"message": "no"}}))),
        ("stream", Script::events(steps(&good_stream(&TEXTS, 5, 5)))),
    ];
    for (name, script) in table {
        let venue = Venue::new();
        let good = whole("the market price", usage(5, 3));
        let (bad, good) = (Upstream::always(script).await, Upstream::always(Script::json(&good)).await);
        venue.supplier(2, &bad.url);
        venue.supplier(3, &good.url);
        let tier = tier(&venue, |config| config.clocks.whole_answer = Duration::from_millis(150)).await;
        let answer = Caller::new(&tier).chat(&ask(json!({}))).await;
        assert_eq!(answer.status, 200, "{name}");
        assert_eq!(venue.usages()[0].supplier, AccountId(3), "{name}");
        venue.assert_each_ended_once();
    }
}

#[tokio::test]
async fn where_nobody_delivers_all_is_given_back_and_the_client_told_when_to_retry() {
    let venue = Venue::new();
    let bad = Upstream::always(Script::status(500)).await;
    venue.supplier(2, &Upstream::nobody().await);
    venue.supplier(3, &bad.url);
    let tier = tier(&venue, |_| {}).await;
    let answer = Caller::new(&tier).chat(&ask_stream()).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(answer.header("x-should-retry"), Some("true"));
    assert_eq!(answer.json()["error"]["code"], "no_supplier");
    assert_eq!(venue.releases(), [0], "faults are reported one by one");
    // Nobody else was left, so each was asked twice; every attempt is reported, and no call waits for that.
    venue.until("four attempts are reported", |_| venue.faults().len() == 4).await;
    for fault in [(2, Fault::Unreachable), (3, Fault::Refused)] {
        assert_eq!(venue.faults().iter().filter(|one| **one == fault).count(), 2, "{fault:?}");
    }
    venue.assert_each_ended_once();
}

#[tokio::test]
async fn a_request_that_a_supplier_finds_wrong_goes_back_to_the_client_and_is_not_billed() {
    for status in [400, 413, 422] {
        let venue = Venue::new();
        let picky = Upstream::always(Script::status(status)).await;
        let other = Upstream::always(Script::events(steps(&good_stream(&TEXTS, 5, 5)))).await;
        venue.supplier(2, &picky.url);
        venue.supplier(3, &other.url);
        let tier = tier(&venue, |_| {}).await;
        let answer = Caller::new(&tier).chat(&ask_stream()).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.json()["error"]["message"], "upstream says no");
        assert_eq!(answer.header("x-should-retry"), Some("false"));
        assert_eq!((venue.releases(), other.got().len()), (vec![0], 0));
    }
}

#[tokio::test]
async fn after_the_first_content_nothing_is_repeated_and_only_what_was_delivered_is_billed() {
    let table = [
        ("death", Step::Die),
        ("silence", Step::Silence),
        ("error event", send("data: {\"error\":{\"message\":\"gpu on fire\"}}\n\n")),
        ("not JSON", send("data: {\"choices\":[\n\n")),
    ];
    for (name, last) in table {
        let venue = Venue::new();
        let gate = Arc::new(Semaphore::new(0));
        let mut script = steps(&[role(), delta("the market"), delta(" price is open")]);
        script.extend([Step::Gate(Arc::clone(&gate)), last]);
        let (bad, other) = (
            Upstream::always(Script::events(script)).await,
            Upstream::always(Script::events(steps(&good_stream(&TEXTS, 5, 5)))).await,
        );
        venue.supplier(2, &bad.url);
        venue.supplier(3, &other.url);
        let tier = tier(&venue, |config| config.clocks.idle = Duration::from_millis(300)).await;
        let mut stream = Caller::new(&tier).stream(&ask_stream()).await;
        stream.until(" price is open").await;
        gate.add_permits(1);
        stream.until("\"error\"").await;
        assert!(stream.text.contains("supplier_failed"), "{name}: {}", stream.text);
        assert!(!stream.text.contains("[DONE]"), "{name}");
        assert!(!stream.text.contains("gpu on fire"), "{name}");
        venue.until_settled().await;
        let usage = venue.usages()[0];
        assert_eq!(
            (usage.prompt_tokens.0, usage.completion_tokens.0),
            (OWN_PROMPT, OWN_COMPLETION),
            "{name}"
        );
        assert!(usage.partial && usage.estimated, "{name}");
        assert_eq!(other.got().len(), 0, "{name}");
        venue.assert_each_ended_once();
    }
}

#[tokio::test]
async fn a_client_that_leaves_mid_stream_cancels_the_supplier_and_pays_what_it_got() {
    let venue = Venue::new();
    let mut script = steps(&[role(), delta("the market"), delta(" price is open")]);
    script.push(Step::Silence);
    let upstream = Upstream::always(Script::events(script)).await;
    venue.supplier(2, &upstream.url);
    let tier = tier(&venue, |_| {}).await;
    let mut stream = Caller::new(&tier).stream(&ask_stream()).await;
    stream.until(" price is open").await;
    drop(stream);
    upstream.until_ended(1).await;
    venue.until_settled().await;
    let usage = venue.usages()[0];
    assert_eq!((usage.prompt_tokens.0, usage.completion_tokens.0), (OWN_PROMPT, OWN_COMPLETION));
    assert!(usage.partial);
    assert_eq!(tier.stats().cancelled, 1);
    tier.shutdown().await;
}

#[tokio::test]
async fn a_client_that_leaves_before_the_first_byte_pays_nothing() {
    for (name, body, script) in [
        ("streamed", ask_stream(), Script::events(vec![send(&role()), Step::Silence])),
        ("whole", ask(json!({})), Script::mute()),
    ] {
        let venue = Venue::new();
        let upstream = Upstream::always(script).await;
        venue.supplier(2, &upstream.url);
        let tier = tier(&venue, |_| {}).await;
        let caller = Caller::new(&tier);
        let request = caller.chat_request("/v1/chat/completions", Some(KEY), &body.to_string());
        {
            let mut answer = std::pin::pin!(caller.open(request));
            tokio::select! {
                _ = &mut answer => panic!("{name}: nobody answers"),
                () = upstream.until_requests(1) => {}
            }
        }
        upstream.until_ended(1).await;
        venue.until_settled().await;
        assert_eq!(venue.releases(), [0], "{name}");
        assert_eq!(tier.stats().cancelled, 1, "{name}");
    }
}

#[tokio::test]
async fn a_stream_is_the_same_however_the_network_cuts_it() {
    let plain =
        [vec![": keep alive\n\n".to_owned()], good_stream(&["the m\u{e4}rket", " price"], 5, 4)].concat();
    for newline in ["\n", "\r\n", "\r"] {
        let bytes = plain.concat().replace('\n', newline).into_bytes();
        let pieces = bytes.clone();
        let upstream = Upstream::start(move |number, _| {
            let (head, tail) = pieces.split_at((number * 7) % pieces.len());
            let (head, tail) = (head.to_vec(), tail.to_vec());
            let step = |bytes: Vec<u8>| Step::Send(bytes.into());
            if number % 10 == 0 {
                Script::events(pieces.iter().map(|byte| step(vec![*byte])).collect())
            } else {
                Script::events([head, tail].into_iter().filter(|part| !part.is_empty()).map(step).collect())
            }
        })
        .await;
        let venue = Venue::new();
        venue.supplier(2, &upstream.url);
        let tier = tier(&venue, |_| {}).await;
        let caller = Caller::new(&tier);
        let told = &plain[1..plain.len() - 2];
        for number in 0..40 {
            let answer = caller.chat(&ask_stream()).await;
            let expected: Vec<Value> = told.iter().map(|event| answer.shown(event)).collect();
            assert_eq!(answer.chunks(), expected, "{newline:?}, request {number}");
        }
        assert!(venue.usages().iter().all(|usage| usage.completion_tokens.0 == 4 && !usage.estimated));
    }
}

#[tokio::test]
async fn issuers_of_the_reserved_tokens_deliver_first() {
    let venue = Venue::new();
    let mut upstreams = Vec::new();
    for id in 2..=4 {
        let upstream = Upstream::always(Script::json(&whole("the market", usage(5, 2)))).await;
        venue.supplier(id, &upstream.url);
        upstreams.push(upstream);
    }
    venue.ways(|ways| ways.issuers = vec![AccountId(4), AccountId(3)]);
    let tier = tier(&venue, |_| {}).await;
    let caller = Caller::new(&tier);
    caller.chat(&ask(json!({}))).await;
    venue.change(|state| state.suppliers.get_mut(&AccountId(4)).unwrap().profile.suspended = true);
    caller.chat(&ask(json!({}))).await;
    venue.ways(|ways| ways.issuers = vec![]);
    caller.chat(&ask(json!({}))).await;
    let order: Vec<u32> = venue.usages().iter().map(|usage| usage.supplier.0).collect();
    assert_eq!(order, [4, 3, 2]);
}

#[tokio::test]
async fn a_supplier_that_keeps_failing_is_left_alone_while_there_is_another() {
    let venue = Venue::new();
    let (bad, good) = (
        Upstream::always(Script::status(500)).await,
        Upstream::always(Script::json(&whole("the market", usage(5, 2)))).await,
    );
    venue.supplier(2, &bad.url);
    venue.supplier(3, &good.url);
    venue.ways(|ways| ways.issuers = vec![AccountId(2)]);
    let tier = tier(&venue, |config| {
        config.routing.breaker_failures = 3;
        config.routing.breaker_open = Duration::from_secs(3_600);
    })
    .await;
    let caller = Caller::new(&tier);
    for _ in 0..6 {
        assert_eq!(caller.chat(&ask(json!({}))).await.status, 200);
    }
    assert_eq!((bad.got().len(), good.got().len()), (3, 6));
    venue.change(|state| {
        state.suppliers.remove(&AccountId(3));
    });
    let answer = caller.chat(&ask(json!({}))).await;
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some());
    assert_eq!(bad.got().len(), 4, "the only one left is asked after all: it may have recovered");
}

#[tokio::test]
async fn refusals_of_the_venue_have_their_statuses() {
    let table = [
        (Reject::InsufficientFunds, 402, "insufficient_funds", "false"),
        (Reject::InsufficientTokens, 402, "insufficient_tokens", "false"),
        (Reject::PaymentDeclined, 402, "payment_declined", "false"),
        (Reject::Replenishing, 503, "balance_replenishing", "true"),
        (Reject::NoSupply, 503, "no_supply", "true"),
        (Reject::InstrumentNotLive, 503, "instrument_not_live", "true"),
        (Reject::LimitReached, 503, "busy", "true"),
        (Reject::OutOfRange, 422, "invalid_value", "false"),
        (Reject::NotPermitted, 500, "reservation_refused", "false"),
    ];
    let venue = Venue::new();
    let upstream = Upstream::always(Script::json(&whole("x", usage(1, 1)))).await;
    venue.supplier(2, &upstream.url);
    let tier = tier(&venue, |_| {}).await;
    let caller = Caller::new(&tier);
    for (reject, status, code, retry) in table {
        venue.ways(|ways| ways.reserve = [DoorError::Rejected(reject)].into());
        let answer = caller.chat(&ask(json!({}))).await;
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (status, &json!(code)), "{reject}");
        assert_eq!(answer.header("x-should-retry"), Some(retry), "{reject}");
        assert_eq!(answer.header("retry-after").is_some(), retry == "true", "{reject}");
        assert_eq!(answer.json()["errors"]["detail"], answer.json()["error"]["message"]);
    }
    venue.ways(|ways| ways.reserve = [DoorError::Unavailable("gone".into())].into());
    let answer = caller.chat(&ask(json!({}))).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("2")));
    assert_eq!(upstream.got().len(), 0);
    assert_eq!(tier.stats().in_flight, 0);
}

#[tokio::test]
async fn a_short_balance_caps_the_output_of_a_client_that_named_no_limit() {
    let venue = Venue::new();
    let upstream = Upstream::always(Script::json(&whole("the market", usage(5, 2)))).await;
    venue.supplier(2, &upstream.url);
    venue.change(|state| {
        let holding = state.holdings.open(CONSUMER, grid_engine::InstrumentId(0), grid_engine::Nanos(0));
        holding.add_lot(grid_engine::state::Lot {
            id: grid_engine::LotId(1),
            issuer: AccountId(2),
            tokens: grid_engine::Tokens(1_000_000),
            free: grid_engine::Tokens(1_000),
            reserved: grid_engine::Tokens(0),
            drawn: grid_engine::Tokens(999_000),
            escrow: grid_engine::Usd(0),
            cost: grid_engine::Usd(0),
            trade: grid_engine::TradeId(1),
            opened_at: grid_engine::Nanos(0),
            expired: Default::default(),
            expires_at: None,
        });
    });
    let tier = tier(&venue, |_| {}).await;
    let caller = Caller::new(&tier);
    let short = || [DoorError::Rejected(Reject::InsufficientTokens)].into();
    venue.ways(|ways| ways.reserve = short());
    let body = ask(json!({}));
    assert_eq!(caller.chat(&body).await.status, 200);
    let cap = 1_000 - body.to_string().len() as u64 - 64;
    assert_eq!(upstream.got()[0].json()["max_tokens"], cap);
    assert!(matches!(venue.asked()[0], Asked::Reserve { tokens: 1_000, .. }));

    venue.ways(|ways| ways.reserve = short());
    assert_eq!(caller.chat(&ask(json!({"max_tokens": 5_000}))).await.status, 402, "its own limit is kept");
}

#[tokio::test]
async fn an_answer_waits_for_no_settlement_and_a_refusal_on_account_of_one_is_asked_again() {
    let venue = Venue::new();
    let upstream = Upstream::always(Script::json(&whole("x", usage(1, 1)))).await;
    venue.supplier(2, &upstream.url);
    let tier = tier(&venue, |_| {}).await;
    let caller = Caller::new(&tier);
    venue.ways(|ways| ways.hold_settlements = true);
    assert_eq!(caller.chat(&ask(json!({}))).await.status, 200);
    assert_eq!(venue.open(), 1, "its settlement is still on its way");

    venue.ways(|ways| ways.reserve = [DoorError::Rejected(Reject::TooManyAtOnce)].into());
    let body = ask(json!({}));
    let second = caller.chat(&body);
    let released = async {
        venue.until("the second call is refused", |_| venue.is_out_of_refusals()).await;
        venue.ways(|ways| ways.hold_settlements = false);
    };
    assert_eq!(tokio::join!(second, released).0.status, 200, "with the first one settled there is room");
    venue.until_settled().await;
    venue.assert_each_ended_once();

    venue.ways(|ways| ways.reserve = [DoorError::Rejected(Reject::TooManyAtOnce)].into());
    assert_eq!(caller.chat(&body).await.status, 429, "nothing is on its way that could make room");
}

#[tokio::test]
async fn a_lost_settlement_is_sent_again_until_it_is_answered() {
    for (commands, answers) in [(3, 0), (0, 3), (2, 2)] {
        let venue = Venue::new();
        let upstream = Upstream::always(Script::events(steps(&good_stream(&TEXTS, 5, 5)))).await;
        venue.supplier(2, &upstream.url);
        venue.ways(|ways| (ways.lose_commands, ways.lose_answers) = (commands, answers));
        let tier = tier(&venue, |_| {}).await;
        let answer = Caller::new(&tier).chat(&ask_stream()).await;
        assert!(answer.text.ends_with(DONE));
        venue.until_settled().await;
        assert_eq!(prompt_and_completion(&venue), [(5, 5)]);
        venue.assert_each_ended_once();
        let stats = tier.stats();
        assert_eq!((stats.settled, stats.refused, stats.unanswered), (1, 0, u64::from(commands + answers)));
    }
}

#[tokio::test]
async fn a_reservation_that_comes_too_late_is_given_back() {
    let venue = Venue::new();
    let upstream = Upstream::always(Script::json(&whole("x", usage(1, 1)))).await;
    venue.supplier(2, &upstream.url);
    venue.ways(|ways| ways.hold_reservations = true);
    let tier = tier(&venue, |config| config.clocks.reserve = Duration::from_millis(50)).await;
    let answer = Caller::new(&tier).chat(&ask(json!({}))).await;
    assert_eq!(answer.status, 503);
    venue.ways(|ways| ways.hold_reservations = false);
    venue.until_settled().await;
    assert_eq!(venue.releases(), [0]);
    assert_eq!(upstream.got().len(), 0);
}

#[tokio::test]
async fn a_reservation_whose_answer_was_lost_is_found_and_given_back() {
    let venue = Venue::new();
    let upstream = Upstream::always(Script::json(&whole("x", usage(1, 1)))).await;
    venue.supplier(2, &upstream.url);
    venue.ways(|ways| ways.lose_reservation = true);
    let tier = tier(&venue, |_| {}).await;
    assert_eq!(Caller::new(&tier).chat(&ask(json!({}))).await.status, 503);
    venue.until_settled().await;
    assert_eq!(venue.releases(), [0]);
    venue.assert_each_ended_once();
}

#[tokio::test]
async fn calls_above_a_key_s_limit_are_429_with_a_time_to_come_back() {
    let venue = Venue::new();
    let gate = Arc::new(Semaphore::new(0));
    let mut script = Script::json(&whole("x", usage(1, 1)));
    script.steps.insert(0, Step::Gate(Arc::clone(&gate)));
    let upstream = Upstream::always(script).await;
    venue.supplier(2, &upstream.url);
    let limits = KeyLimits { concurrent: 1, per_second: 0, burst: 0 };
    let tier = tier(&venue, |config| config.limits.key = limits).await;
    let caller = Caller::new(&tier);
    let body = ask(json!({}));
    let first = async {
        let answer = caller.chat(&body).await;
        assert_eq!(answer.status, 200);
    };
    let second = async {
        upstream.until_requests(1).await;
        let answer = caller.chat(&body).await;
        assert_eq!(answer.status, 429);
        assert_eq!(answer.json()["error"]["type"], "rate_limit_error");
        assert!(answer.header("retry-after").is_some() && answer.header("retry-after-ms").is_some());
        gate.add_permits(2);
    };
    tokio::join!(first, second);
    assert_eq!(caller.chat(&ask(json!({}))).await.status, 200);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off_and_pays_what_was_taken_from_the_supplier() {
    let venue = Venue::new();
    let long = "the market ".repeat(2_000);
    let mut script = vec![send(&role())];
    script.extend((0..2_000).map(|_| send(&delta(&long))));
    script.push(Step::Silence);
    let upstream = Upstream::always(Script::events(script)).await;
    venue.supplier(2, &upstream.url);
    let tier = tier(&venue, |config| config.clocks.client_stall = Duration::from_millis(100)).await;
    let stream = Caller::new(&tier).stream(&ask_stream()).await;
    upstream.until_ended(1).await;
    venue.until_settled().await;
    let usage = venue.usages()[0];
    assert!(usage.partial && usage.completion_tokens.0 > 4_000);
    assert!(usage.completion_tokens.0 < 2_000 * 4_000, "back-pressure reached the supplier");
    drop(stream);
}
