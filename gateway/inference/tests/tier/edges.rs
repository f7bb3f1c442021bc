//! What the tier says at its edges: authentication, paths, sizes, slow and broken clients.

use std::time::Duration;

use crate::support::*;
use grid_engine::instrument::InstrumentStatus;
use grid_engine::state::SigningKey;
use grid_engine::{Fingerprint, KeyHash, Nanos};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CHAT: &str = "/v1/chat/completions";

fn both_envelopes(answer: &Reply) {
    let body = answer.json();
    assert_eq!(body["errors"]["detail"], body["error"]["message"]);
    for member in ["message", "type", "param", "code"] {
        assert!(body["error"].get(member).is_some(), "{member} in {body}");
    }
    assert!(answer.header("x-grid-request-id").is_some_and(|id| id.starts_with("req_") && id.len() == 36));
    assert_eq!(answer.header("x-request-id"), answer.header("x-grid-request-id"));
}

#[tokio::test]
async fn only_a_live_consumption_key_is_let_in() {
    let venue = Venue::new();
    let upstream = Upstream::always(Script::json(&whole("x", usage(1, 1)))).await;
    venue.supplier(2, &upstream.url);
    let fingerprint = "ab".repeat(32);
    venue.change(|state| {
        let mut add = |secret: &str, active, expires_at| {
            let known = grid_engine::state::ConsumptionKey { active, expires_at, ..key(CONSUMER) };
            state.consumption_keys.insert(KeyHash::of(secret), known);
        };
        add("revoked", false, None);
        add("expired", true, Some(Nanos(1)));
        add("lasting", true, Some(Nanos(u64::MAX)));
        let trading = SigningKey {
            account: CONSUMER,
            public_key: [0; 32],
            label: String::new(),
            active: true,
            created_at: Nanos(0),
        };
        state.signing_keys.insert(Fingerprint([0xab; 32]), trading);
    });
    let tier = tier(&venue, |_| {}).await;
    let caller = Caller::new(&tier);
    let body = ask(json!({})).to_string();
    let long = "k".repeat(4_000);
    for (name, secret, detail) in [
        ("none", None, "no consumption key"),
        ("empty", Some(""), "no consumption key"),
        ("unknown", Some("nobody"), "unknown"),
        ("long", Some(long.as_str()), "unknown"),
        ("revoked", Some("revoked"), "revoked"),
        ("expired", Some("expired"), "expired"),
        ("a trading key", Some(fingerprint.as_str()), "trading key"),
    ] {
        let answer = caller.post(CHAT, secret, &body).await;
        assert_eq!(answer.status, 401, "{name}");
        both_envelopes(&answer);
        assert_eq!(answer.json()["error"]["type"], "authentication_error");
        let said = answer.json()["errors"]["detail"].as_str().unwrap().to_owned();
        assert!(said.contains(detail), "{name}: {said}");
    }
    assert_eq!(caller.post(CHAT, Some("lasting"), &body).await.status, 200);
    let by_header = caller.request("POST", CHAT).header("x-api-key", KEY);
    let answer = Caller::read(caller.open(by_header.body(Full::from(body.clone())).unwrap()).await).await;
    assert_eq!(answer.status, 200);
    assert_eq!(venue.asked().len(), 4);
}

#[tokio::test]
async fn every_path_has_its_answer() {
    let venue = Venue::new();
    let upstream = Upstream::always(Script::json(&whole("x", usage(1, 1)))).await;
    venue.supplier(2, &upstream.url);
    let tier = tier(&venue, |_| {}).await;
    let caller = Caller::new(&tier);
    let body = ask(json!({})).to_string();
    for (path, status) in [
        (CHAT, 200),
        ("/api/v1/chat/completions", 200),
        ("/v1/chat/completions/", 200),
        ("/v1/chat/completions?beta=true", 200),
        ("/v1/v1/chat/completions", 404),
        ("/chat/completions", 404),
        ("/v1/embeddings", 404),
        ("/v1/models", 405),
    ] {
        let answer = caller.post(path, Some(KEY), &body).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
        if status != 200 {
            both_envelopes(&answer);
        }
    }
    let doubled = caller.post("/v1/v1/chat/completions", Some(KEY), &body).await;
    assert!(doubled.text.contains("twice"), "{}", doubled.text);
    for (path, status) in [
        ("/", 200),
        ("/v1", 200),
        ("/v1/", 200),
        ("/api/v1", 200),
        ("/health", 200),
        ("/v1/models", 200),
        ("/v1/models/Text-Prime", 200),
        ("/v1/models/gpt-5.2", 404),
        (CHAT, 405),
        ("/nothing", 404),
    ] {
        assert_eq!(caller.get(path).await.status, status, "{path}");
        let head = caller.request("HEAD", path).body(Full::default()).unwrap();
        let head = Caller::read(caller.open(head).await).await;
        assert_eq!((head.status, head.text.as_str()), (status, ""), "HEAD {path}");
    }
    let unknown = caller.chat(&ask(json!({"model": "gpt-5.2"}))).await;
    assert_eq!((unknown.status, &unknown.json()["error"]["param"]), (404, &json!("model")));
    let unsupplied = caller.chat(&ask(json!({"model": "text-standard"}))).await;
    assert_eq!(unsupplied.status, 503);
    assert!(unsupplied.header("retry-after").is_some());
}

#[tokio::test]
async fn the_messages_listener_answers_in_anthropic_s_envelope() {
    let venue = Venue::new();
    let mut tier = tier(&venue, |_| {}).await;
    for addr in [tier.inference_addr, tier.messages_addr.unwrap()] {
        tier.inference_addr = addr;
        let caller = Caller::new(&tier);
        for (path, status, kind) in [
            ("/v1/messages", 400, "invalid_request_error"),
            ("/v1/messages?beta=true", 400, "invalid_request_error"),
            ("/v1/messages/count_tokens", 400, "invalid_request_error"),
        ] {
            let answer = caller.post(path, Some(KEY), "{}").await;
            assert_eq!(answer.status, status, "{path}");
            assert_eq!(answer.json()["type"], "error");
            assert_eq!(answer.json()["error"]["type"], kind);
            assert_eq!(answer.json()["request_id"].as_str(), answer.header("request-id"));
            assert_eq!(caller.get(path).await.status, 405);
            let unknown = caller.post(path, Some("nobody"), "{}").await;
            assert_eq!(
                (unknown.status, &unknown.json()["error"]["type"]),
                (401, &json!("authentication_error"))
            );
        }
    }
}

#[tokio::test]
async fn models_are_listed_with_prices_and_limits() {
    let venue = Venue::new();
    venue.change(|state| state.instruments[1].spec.status = InstrumentStatus::Preview);
    let tier = tier(&venue, |_| {}).await;
    let caller = Caller::new(&tier);
    let list = caller.get("/v1/models").await.json();
    assert_eq!((&list["object"], list["data"].as_array().unwrap().len()), (&json!("list"), 1));
    let model = &list["data"][0];
    for (member, value) in [
        ("id", json!("text-prime")),
        ("object", json!("model")),
        ("created", json!(1_790_000_000)),
        ("owned_by", json!("grid")),
        ("display_name", json!("text-prime")),
        ("context_length", json!(128_000)),
        ("pricing", Value::Null),
    ] {
        assert_eq!(model[member], value, "{member}");
    }
    venue.change(|state| {
        state.instruments[0].last_trade = Some(grid_engine::state::LastTrade {
            price: grid_engine::Price(81),
            qty: grid_engine::Qty(1),
            at: Nanos(1),
        });
    });
    let model = caller.get("/v1/models/text-prime").await.json();
    assert_eq!(model["pricing"]["unit"], "0.81");
    assert_eq!(model["pricing"]["prompt"], "0.00000081");
    let wrong = caller.request("GET", "/v1/models").header("authorization", "Bearer nobody");
    let wrong = caller.open(wrong.body(Full::default()).unwrap()).await;
    assert_eq!(wrong.status(), 401);
}

#[tokio::test]
async fn bodies_that_are_wrong_are_refused_before_anything_is_reserved() {
    let venue = Venue::new();
    let upstream = Upstream::always(Script::json(&whole("x", usage(1, 1)))).await;
    venue.supplier(2, &upstream.url);
    let tier = tier(&venue, |_| {}).await;
    let caller = Caller::new(&tier);
    for (body, status, param) in [
        ("", 400, Value::Null),
        ("{\"model\":", 400, Value::Null),
        ("[1,2]", 400, Value::Null),
        ("{}", 422, json!("model")),
        (r#"{"model":"text-prime","messages":[]}"#, 422, json!("messages")),
        (
            r#"{"model":"text-prime","messages":[{"role":"user","content":"x"}],"temperature":3}"#,
            422,
            json!("temperature"),
        ),
    ] {
        let answer = caller.post(CHAT, Some(KEY), body).await;
        assert_eq!((answer.status, &answer.json()["error"]["param"]), (status, &param), "{body}");
        both_envelopes(&answer);
        assert_eq!(answer.header("x-should-retry"), Some("false"));
    }
    assert!(venue.asked().is_empty() && upstream.got().is_empty());
    assert_eq!(tier.stats().in_flight, 0);
}

#[tokio::test]
async fn fifty_megabytes_are_refused_with_a_clear_answer_while_others_are_served() {
    let venue = Venue::new();
    let upstream = Upstream::always(Script::json(&whole("x", usage(1, 1)))).await;
    venue.supplier(2, &upstream.url);
    let tier = tier(&venue, |_| {}).await;
    let caller = Caller::new(&tier);
    let body = ask(json!({"padding": "x".repeat(50 << 20)})).to_string();
    let answer = caller.post(CHAT, Some(KEY), &body).await;
    assert_eq!(answer.status, 413);
    both_envelopes(&answer);

    // Without a length, the limit strikes on the way.
    let mut socket = TcpStream::connect(tier.inference_addr).await.unwrap();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let (mut read, mut write) = socket.into_split();
    let flood = async {
        let piece = [b"100000\r\n".as_slice(), &vec![b' '; 0x10_0000], b"\r\n"].concat();
        for _ in 0..20 {
            if write.write_all(&piece).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let mut answer = Vec::new();
    tokio::select! {
        () = flood => unreachable!(),
        end = read.read_to_end(&mut answer) => { end.unwrap(); }
    }
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_eq!(caller.chat(&ask(json!({}))).await.status, 200);
}

async fn raw(addr: std::net::SocketAddr, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(addr).await.unwrap();
    let _ = socket.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(30), socket.read_to_end(&mut answer)).await;
    let _ = read.expect("the tier closes what goes nowhere");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn slow_truncated_and_garbage_bytes_are_answered_or_closed_and_hold_nothing() {
    let venue = Venue::new();
    let upstream = Upstream::always(Script::json(&whole("x", usage(1, 1)))).await;
    venue.supplier(2, &upstream.url);
    let tier = tier(&venue, |config| {
        config.clocks.body_read = Duration::from_millis(200);
        config.clocks.head_read = Duration::from_millis(200);
    })
    .await;
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: 100\r\n\r\n"
    );
    let slow = raw(tier.inference_addr, format!("{head}{{\"model\"").as_bytes()).await;
    assert!(slow.starts_with("HTTP/1.1 408") && slow.contains("body_timeout"), "{slow}");
    let half = raw(tier.inference_addr, b"POST /v1/chat/comple").await;
    assert!(half.is_empty() || half.starts_with("HTTP/1.1 4"), "{half}");
    let garbage = raw(tier.inference_addr, &[0xff, 0x00, 0x16, 0x03, b'\r', b'\n', b'\r', b'\n']).await;
    assert!(garbage.is_empty() || garbage.starts_with("HTTP/1.1 400"), "{garbage}");
    let headers: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    let many =
        raw(tier.inference_addr, format!("GET / HTTP/1.1\r\nhost: x\r\n{headers}\r\n").as_bytes()).await;
    assert!(many.starts_with("HTTP/1.1 431"), "{many}");
    let long = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(200_000));
    let long = raw(tier.inference_addr, long.as_bytes()).await;
    assert!(long.is_empty() || long.starts_with("HTTP/1.1 4"), "{long}");

    let mut cut = TcpStream::connect(tier.inference_addr).await.unwrap();
    cut.write_all(format!("{head}{{").as_bytes()).await.unwrap();
    drop(cut);

    let caller = Caller::new(&tier);
    assert_eq!(caller.chat(&ask(json!({}))).await.status, 200);
    let asked = venue.asked().len();
    assert_eq!(asked, 2, "only the good call reached the venue");
    tier.shutdown().await;
}

/// Keeps everything that is logged.
#[derive(Clone, Default)]
struct Log(std::sync::Arc<parking_lot::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn prompts_completions_and_keys_are_never_logged() {
    const SECRET: &str = "zebra-xylophone";
    let log = Log::default();
    let writer = log.clone();
    let logged = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _logging = tracing::subscriber::set_default(logged);
    let venue = Venue::new();
    let said = format!("{SECRET} said");
    let broken = delta(&said).replace("}]}", "}]");
    let scripts = [
        Script::events(steps(&good_stream(&[&said], 5, 50_000))),
        Script::events(vec![send(&delta(&said)), Step::Die]),
        Script::events(vec![send(&delta(&said)), send(&broken)]),
        Script::new(400, "application/json", vec![send(&json!({"error": {"message": SECRET}}).to_string())]),
        Script::new(200, "application/json", vec![send(&broken)]),
        Script::status(500),
    ];
    let upstream = Upstream::start(move |number, _| scripts[number % scripts.len()].clone()).await;
    venue.supplier(2, &upstream.url);
    let tier = tier(&venue, |config| config.routing.breaker_failures = u32::MAX).await;
    let caller = Caller::new(&tier);
    for number in 0..12 {
        let body =
            json!({"stream": number < 6, "user": SECRET, "messages": [{"role": "user", "content": SECRET}]});
        caller.chat(&ask(body)).await;
        let bad = json!({"messages": SECRET, "temperature": SECRET});
        assert_eq!(caller.chat(&ask(bad)).await.status, 422);
        let unknown = ask(json!({})).to_string();
        assert_eq!(caller.post(CHAT, Some(SECRET), &unknown).await.status, 401);
    }
    venue.until_settled().await;
    let log = String::from_utf8_lossy(&log.0.lock()).into_owned();
    assert!(log.contains("supplier failed") && log.contains("beyond tolerance"), "{log}");
    for hidden in [SECRET, "zebra", KEY, CREDENTIAL] {
        assert!(!log.contains(hidden), "{hidden} is in the log");
    }
}
