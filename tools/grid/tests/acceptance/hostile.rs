//! HTTP as vandals speak it, on both tiers, while others are served.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::json;

use crate::harness::{Options, Venue};
use crate::web::{self, Answer};

const SHORT: &str = "\
[trading]
head_timeout_ms = 500
body_timeout_ms = 500
[inference]
head_timeout_ms = 500
body_timeout_ms = 500
";

/// Both tiers still answer their ordinary customers.
fn others_are_served(venue: &Venue) {
    assert_eq!(venue.signer(&venue.account("trader")).get("/me")["account_mode"], "advanced");
    let (addr, _) = web::split(&venue.ready.inference_url);
    assert_eq!(web::send(addr, "GET", "/health", &[], b"").expect("an answer").status, 200);
}

/// Head and body as they are, whatever they are.
fn raw(addr: SocketAddr, bytes: &[u8]) -> Option<Answer> {
    let mut socket = web::connect(addr).expect("the listener accepts");
    let _ = socket.write_all(bytes);
    let _ = socket.shutdown(std::net::Shutdown::Write);
    web::receive(&mut socket).ok()
}

struct Target {
    name: &'static str,
    addr: SocketAddr,
    path: String,
    headers: String,
}

/// An ordinary POST on each tier, as a head that only lacks its length. The signature is for another body, which is
/// of no account: size is refused first.
fn targets(venue: &Venue) -> Vec<Target> {
    let signer = venue.signer(&venue.account("trader"));
    let (trading, _) = web::split(&venue.ready.trading_url);
    let (inference, _) = web::split(&venue.ready.inference_url);
    let signed: String = signer
        .headers("POST", "/v1/orders", b"")
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let bearer = format!("authorization: Bearer {}\r\n", venue.account("demo").consumption_key);
    vec![
        Target { name: "trading", addr: trading, path: "/v1/orders".into(), headers: signed },
        Target { name: "inference", addr: inference, path: "/v1/chat/completions".into(), headers: bearer },
    ]
}

fn head(target: &Target, more: &str) -> Vec<u8> {
    format!(
        "POST {} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{}{more}\r\n",
        target.path, target.headers
    )
    .into_bytes()
}

#[test]
fn a_body_of_fifty_megabytes_is_refused_with_413_on_both_tiers_and_others_are_served() {
    let venue = Venue::start(&Options::bare());
    const SIZE: usize = 50 << 20;
    for target in targets(&venue) {
        let declared = head(&target, &format!("content-length: {SIZE}\r\n"));
        let mut socket = web::connect(target.addr).expect("the listener accepts");
        socket.write_all(&declared).expect("a head is taken");
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..50 {
            if socket.write_all(&piece).is_err() {
                break;
            }
        }
        others_are_served(&venue);
        let answer = web::receive(&mut socket).unwrap_or_else(|error| panic!("{}: {error}", target.name));
        assert_eq!(answer.status, 413, "{}: {}", target.name, answer.text());
        assert!(answer.json()["error"]["message"].is_string(), "{}", answer.text());

        let mut chunked = web::connect(target.addr).expect("the listener accepts");
        chunked.write_all(&head(&target, "transfer-encoding: chunked\r\n")).expect("a head is taken");
        for _ in 0..50 {
            let sent = chunked.write_all(b"100000\r\n").and_then(|()| chunked.write_all(&piece));
            if sent.and_then(|()| chunked.write_all(b"\r\n")).is_err() {
                break;
            }
        }
        let _ = chunked.write_all(b"0\r\n\r\n");
        let answer =
            web::receive(&mut chunked).unwrap_or_else(|error| panic!("{} chunked: {error}", target.name));
        assert_eq!(answer.status, 413, "{}: {}", target.name, answer.text());
        others_are_served(&venue);
    }
    // From a stranger, whose body is nobody's business.
    let (addr, _) = web::split(&venue.ready.inference_url);
    let answer = web::send(
        addr,
        "POST",
        "/v1/chat/completions",
        &[("authorization", "Bearer nobody")],
        &vec![b'x'; SIZE],
    );
    assert!(matches!(answer.expect("an answer").status, 401 | 413));
}

#[test]
fn slow_heads_and_bodies_are_cut_off_and_others_are_served_meanwhile() {
    let venue = Venue::start(&Options { config: SHORT, ..Options::bare() });
    for target in targets(&venue) {
        let mut slow: Vec<TcpStream> = Vec::new();
        for n in 0..100 {
            let mut socket = web::connect(target.addr).expect("the listener accepts");
            let bytes = match n % 4 {
                0 => Vec::new(),
                1 => b"POST /v1/chat/compl".to_vec(),
                2 => head(&target, "x-never: ends")[..120].to_vec(),
                _ => [&head(&target, "content-length: 1000\r\n")[..], b"{\"model\":"].concat(),
            };
            socket.write_all(&bytes).expect("it is taken");
            slow.push(socket);
        }
        others_are_served(&venue);
        // Another byte now and then keeps none of them alive: each is answered or closed in the end.
        for (n, mut socket) in slow.into_iter().enumerate() {
            let _ = socket.write_all(b"x");
            let mut said = Vec::new();
            if let Err(error) = socket.read_to_end(&mut said) {
                assert!(
                    !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
                    "{} {n}: {error}",
                    target.name
                );
            }
            let said = String::from_utf8_lossy(&said);
            assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{} {n}: {said}", target.name);
            if n % 4 == 3 {
                assert!(said.starts_with("HTTP/1.1 408"), "{} {n}: {said}", target.name);
            }
        }
        others_are_served(&venue);
    }
}

#[test]
fn who_asks_too_often_is_told_when_to_come_back_and_others_are_served() {
    let venue = Venue::start(&Options { config: "[trading]\nrequests_per_minute = 60\n", ..Options::bare() });
    let trader = venue.signer(&venue.account("trader"));
    let answers: Vec<Answer> = (0..80).map(|_| trader.send("GET", "/me", b"").expect("an answer")).collect();
    let refused: Vec<&Answer> = answers.iter().filter(|answer| answer.status != 200).collect();
    assert!((60..80).contains(&(80 - refused.len())), "{} of 80 passed", 80 - refused.len());
    for answer in refused {
        assert_eq!(answer.status, 429, "{}", answer.text());
        assert!(
            answer
                .header("retry-after")
                .and_then(|text| text.parse::<u64>().ok())
                .is_some_and(|seconds| seconds >= 1)
        );
        assert_eq!(answer.header("x-ratelimit-remaining"), Some("0"));
    }
    assert_eq!(venue.signer(&venue.account("maker")).send("GET", "/me", b"").expect("an answer").status, 200);
}

#[test]
fn where_nobody_sells_a_call_is_answered_503_and_costs_nothing() {
    let venue = Venue::start(&Options::bare());
    let demo = venue.account("demo");
    let body = json!({"model": "text-prime", "messages": [{"role": "user", "content": "hi"}]});
    let answer = web::chat(&venue.ready.inference_url, &demo.consumption_key, &body).expect("an answer");
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.header("retry-after").is_some());
    let balance = venue.signer(&demo).get("/currency-trading-accounts");
    assert_eq!(crate::books::nanos(&balance[0]["total_balance"]), 25_000_000_000, "{balance}");
}

#[test]
fn garbage_on_http_is_answered_with_a_client_error_or_a_closed_connection() {
    let venue = crate::harness::shared();
    let mut dice = crate::door::Dice::rolled("garbage on HTTP");
    for target in targets(venue) {
        let many: String = (0..300).map(|n| format!("x-h{n}: 1\r\n")).collect();
        let bodies: [&[u8]; 7] = [
            b"{",
            b"\xFF\xFE{}",
            b"[1,2",
            b"{\"model\":\"text-prime\",\"messages\":7}",
            b"null",
            b"",
            b"{\"a\":1}{\"b\":2}",
        ];
        let deep = ["[".repeat(100_000), "{\"a\":".repeat(50_000)];
        let mut requests: Vec<Vec<u8>> = vec![
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 not HTTP \r\n\r\n".to_vec(),
            b"GET\r\n\r\n".to_vec(),
            b"GET / HTTP/9.9\r\n\r\n".to_vec(),
            b"POST /v1/orders HTTP/1.1\r\ncontent-length: -1\r\n\r\n".to_vec(),
            b"POST /v1/orders HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!"
                .to_vec(),
            b"POST /v1/orders HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n".to_vec(),
            head(&target, &format!("x-long: {}\r\n", "y".repeat(200_000))),
            head(&target, &many),
            format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "z".repeat(100_000)).into_bytes(),
            b"GET /v1/../../etc/passwd HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_vec(),
            b"GET /v1/%ff%00 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_vec(),
            (0..50_000).map(|_| dice.next() as u8).collect(),
        ];
        for body in bodies.into_iter().chain(deep.iter().map(String::as_bytes)) {
            let length = format!("connection: close\r\ncontent-length: {}\r\n", body.len());
            requests.push([&head(&target, &length)[..], body].concat());
        }
        // A body shorter than promised.
        requests.push([&head(&target, "content-length: 500\r\n")[..], b"{\"model\""].concat());
        for (n, request) in requests.iter().enumerate() {
            if let Some(answer) = raw(target.addr, request) {
                assert!(
                    (400..500).contains(&answer.status),
                    "{} {n}: {} {}",
                    target.name,
                    answer.status,
                    answer.text()
                );
            }
        }
        others_are_served(venue);
    }
}

#[test]
fn what_a_call_may_say_is_checked_before_anything_is_reserved() {
    let venue = crate::harness::shared();
    let operator = venue.operator();
    let (_, customer) =
        operator.open("wrong calls", grid_engine::command::AccountMode::Easy, grid_engine::Usd::dollars(50));
    let good = json!({"model": "text-prime", "messages": [{"role": "user", "content": "hi"}]});
    let with = |name: &str, value: serde_json::Value| {
        let mut body = good.clone();
        body[name] = value;
        body
    };
    let table = [
        (422, with("temperature", json!(2.1))),
        (422, with("top_p", json!(1.5))),
        (422, with("n", json!(129))),
        (422, with("max_tokens", json!(0))),
        (422, with("presence_penalty", json!(-3))),
        (422, with("top_logprobs", json!(21))),
        (422, with("stop", json!(["a", "b", "c", "d", "e"]))),
        (422, with("response_format", json!({"type": "yaml"}))),
        (422, with("messages", json!([]))),
        (422, with("messages", json!([{"role": "wizard", "content": "x"}]))),
        (404, with("model", json!("gpt-5.2"))),
        (404, with("model", json!("../text-prime"))),
    ];
    for (status, body) in table {
        let answer =
            web::chat(&venue.ready.inference_url, &customer.consumption_key, &body).expect("an answer");
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
        assert!(
            answer.json()["error"]["message"].is_string() && answer.json()["errors"]["detail"].is_string()
        );
        assert!(answer.header("x-grid-request-id").is_some());
    }
    assert_eq!(crate::books::used(venue, &customer), 0);
    let balance = venue.signer(&customer).get("/currency-trading-accounts");
    assert_eq!(
        crate::books::nanos(&balance[0]["total_balance"]),
        50_000_000_000,
        "nothing was bought for them"
    );
}
