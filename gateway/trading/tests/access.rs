//! Who gets in, by which spelling of a path, and what bad bytes are answered, while others go on being served.

mod support;

use std::time::Duration;

use grid_engine::command::Command;
use grid_trading::Limits;
use serde_json::json;
use support::{fixture, fixture_with, get, parse, raw, request, signature, signed, unix_now};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn all_three_path_generations_verify_over_the_path_really_requested() {
    let fixture = fixture().await;
    for path in ["/v1/orders", "/v1/trading/orders", "/api/v1/trading/orders", "/api/v1/orders"] {
        assert_eq!(get(&fixture, &fixture.trader, path).await.status, 200, "{path}");
        assert_eq!(
            get(&fixture, &fixture.trader, &format!("{path}?limit=10&next=")).await.status,
            200,
            "{path}"
        );
    }
    let headers = signature(&fixture.trader, &unix_now().to_string(), "GET", "/v1/orders", b"");
    let answer = request(&fixture, "GET", "/v1/trading/orders", &headers, b"").await;
    assert_eq!(answer.error(), (401, "Signature verification failed".into()));
}

#[tokio::test]
async fn whatever_is_wrong_with_a_signature_is_401() {
    let fixture = fixture().await;
    let now = unix_now();
    let path = "/v1/me";
    let good = signature(&fixture.trader, &now.to_string(), "GET", path, b"");
    assert_eq!(request(&fixture, "GET", path, &good, b"").await.status, 200);
    let with = |at: usize, value: &str| {
        let mut headers = good.clone();
        headers[at].1 = value.into();
        headers
    };
    let mut unknown = fixture.trader.clone();
    unknown.key = ed25519_dalek::SigningKey::from_bytes(&[77; 32]);
    let mut swapped = signature(&unknown, &now.to_string(), "GET", path, b"");
    swapped[2] = good[2].clone();
    let table = [
        ("no headers", Vec::new()),
        ("no signature", good[1..].to_vec()),
        ("no timestamp", vec![good[0].clone(), good[2].clone()]),
        ("no fingerprint", good[..2].to_vec()),
        ("garbage signature", with(0, "%%%")),
        ("short signature", with(0, "AAAA")),
        ("zero signature", with(0, &"A".repeat(86))),
        ("another's signature", swapped),
        ("unknown key", signature(&unknown, &now.to_string(), "GET", path, b"")),
        ("garbage fingerprint", with(2, "hello")),
        ("stale", signature(&fixture.trader, &(now - 45).to_string(), "GET", path, b"")),
        ("from the future", signature(&fixture.trader, &(now + 45).to_string(), "GET", path, b"")),
        ("milliseconds", signature(&fixture.trader, &(now * 1_000).to_string(), "GET", path, b"")),
        ("a fraction", signature(&fixture.trader, &format!("{now}.5"), "GET", path, b"")),
        ("empty timestamp", signature(&fixture.trader, "", "GET", path, b"")),
        ("another method", signature(&fixture.trader, &now.to_string(), "POST", path, b"")),
        ("query signed", signature(&fixture.trader, &now.to_string(), "GET", "/v1/me?x=1", b"")),
        ("another body", signature(&fixture.trader, &now.to_string(), "GET", path, b"{}")),
    ];
    for (name, headers) in table {
        let answer = request(&fixture, "GET", path, &headers, b"").await;
        assert_eq!(answer.status, 401, "{name}: {}", answer.body);
        let body = answer.json();
        assert!(body["errors"]["detail"].is_string() && body["error"]["code"].is_string(), "{name}");
    }
    let fingerprint = fixture.trader.fingerprint();
    fixture.venue.done(fixture.trader.account, Command::RevokeSigningKey { fingerprint });
    let answer = get(&fixture, &fixture.trader, path).await;
    assert_eq!(answer.error(), (401, "Unknown or revoked fingerprint".into()));
}

#[tokio::test]
async fn unknown_paths_and_methods_are_answered_in_the_envelope() {
    let fixture = fixture().await;
    for path in ["/", "/v1", "/v1/nothing", "/v2/orders", "/orders", "/v1/orders/a/b/c", "/v1//orders"] {
        let answer = request(&fixture, "GET", path, &[], b"").await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.json()["error"]["code"], "NOT_FOUND", "{path}");
    }
    for (method, path) in
        [("POST", "/v1/me"), ("PATCH", "/v1/orders"), ("PUT", "/v1/markets"), ("DELETE", "/v1/health")]
    {
        let answer = request(&fixture, method, path, &[], b"").await;
        assert_eq!(
            (answer.status, &answer.json()["error"]["code"]),
            (405, &json!("METHOD_NOT_ALLOWED")),
            "{method} {path}"
        );
    }
    assert!(
        raw(&fixture, b"HEAD / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 404")
    );
    let health = request(&fixture, "GET", "/v1/health", &[], b"").await;
    assert_eq!(
        (health.status, health.json()),
        (200, json!({ "data": { "status": "ok", "service": "trading" } }))
    );
}

#[tokio::test]
async fn a_body_of_fifty_megabytes_is_refused_at_once() {
    let fixture = fixture().await;
    let headers = signature(&fixture.trader, &unix_now().to_string(), "POST", "/v1/orders", b"");
    let head = |length: &str| {
        let mut text = format!("POST /v1/orders HTTP/1.1\r\nhost: venue\r\n{length}\r\n");
        for (name, value) in &headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text + "\r\n"
    };
    // Announced: the answer comes before the body does.
    let mut stream = TcpStream::connect(fixture.tier.addr).await.expect("the tier listens");
    stream.write_all(head("content-length: 52428800").as_bytes()).await.expect("sent");
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.expect("an answer without a body");
    assert_eq!(&start, b"HTTP/1.1 413");
    drop(stream);
    // Sent whole: the client is still heard out, and reads the answer.
    let mut bytes = head("content-length: 52428800").into_bytes();
    bytes.resize(bytes.len() + 52_428_800, b'x');
    let answer = parse(&raw(&fixture, &bytes).await);
    assert_eq!((answer.status, answer.header("connection")), (413, Some("close")));
    assert_eq!(answer.json()["error"]["code"], "PAYLOAD_TOO_LARGE");
    // Not announced.
    let mut bytes = head("transfer-encoding: chunked").into_bytes();
    for _ in 0..100 {
        bytes.extend_from_slice(b"1000\r\n");
        bytes.resize(bytes.len() + 0x1000, b'x');
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(parse(&raw(&fixture, &bytes).await).status, 413);
    assert_eq!(get(&fixture, &fixture.trader, "/v1/me").await.status, 200, "others are served");
}

#[tokio::test]
async fn an_unknown_key_is_refused_before_its_body_is_read() {
    let fixture = fixture().await;
    let mut stream = TcpStream::connect(fixture.tier.addr).await.expect("the tier listens");
    let head = "POST /v1/orders HTTP/1.1\r\nhost: venue\r\ncontent-length: 1000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.expect("an answer without a body");
    assert_eq!(&start, b"HTTP/1.1 401");
}

#[tokio::test]
async fn garbage_truncated_oversized_and_slow_bytes_harm_nobody_else() {
    let limits = Limits {
        head_timeout: Duration::from_secs(1),
        body_timeout: Duration::from_secs(1),
        ..Limits::default()
    };
    let fixture = fixture_with(limits).await;
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET\r\n\r\n",
        b"GET /v1/health HTTP/9.9\r\n\r\n",
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
        b"GET /v1/health HTTP/1.1\r\ncontent-length: -5\r\n\r\n",
        b"POST /v1/orders HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
    ] {
        let answer = raw(&fixture, bytes).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    let long = format!("GET /v1/health HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "a".repeat(1 << 20));
    assert!(raw(&fixture, long.as_bytes()).await.starts_with("HTTP/1.1 431"));
    let many = format!("GET /v1/health HTTP/1.1\r\nhost: x\r\n{}\r\n", "x: y\r\n".repeat(2_000));
    assert!(raw(&fixture, many.as_bytes()).await.starts_with("HTTP/1.1 4"));
    let far = format!("GET /v1/{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(100_000));
    assert!(raw(&fixture, far.as_bytes()).await.starts_with("HTTP/1.1 4"));
    // Half a head and nothing more: the connection is given back.
    let half = raw(&fixture, b"GET /v1/health HTTP/1.1\r\nhost:").await;
    assert!(half.is_empty() || half.starts_with("HTTP/1.1 408"), "{half}");
    // A head that promises a body which never comes.
    let headers = signature(&fixture.trader, &unix_now().to_string(), "POST", "/v1/orders", b"");
    let mut text = "POST /v1/orders HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n".to_owned();
    for (name, value) in &headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    let answer = raw(&fixture, format!("{text}\r\n{{").as_bytes()).await;
    assert_eq!(parse(&answer).status, 408);
    assert_eq!(get(&fixture, &fixture.trader, "/v1/me").await.status, 200, "others are served");
}

#[tokio::test]
async fn a_flood_of_one_key_is_answered_429_with_the_time_to_wait() {
    let limits = Limits { requests_per_second: 1, burst: 3, ..Limits::default() };
    let fixture = fixture_with(limits).await;
    let mut refused = None;
    for _ in 0..1_000 {
        let answer = get(&fixture, &fixture.trader, "/v1/me").await;
        assert_eq!(answer.header("x-ratelimit-limit"), Some("3"));
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("a thousand requests are more than three and one a second");
    assert_eq!(refused.json()["error"]["code"], "RATE_LIMIT_EXCEEDED");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.header("x-ratelimit-remaining"), Some("0"));
    assert_eq!(get(&fixture, &fixture.supplier, "/v1/me").await.status, 200, "another key is not slowed");
}

#[tokio::test]
async fn shutting_down_lets_a_request_in_progress_finish() {
    let fixture = fixture().await;
    let addr = fixture.tier.addr;
    let mut idle = TcpStream::connect(addr).await.expect("the tier listens");
    idle.write_all(b"GET /v1/health HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    let mut start = [0; 12];
    idle.read_exact(&mut start).await.expect("an answer");
    fixture.tier.shutdown().await;
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.expect("closed in good order");
    assert!(TcpStream::connect(addr).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn tolerated_client_headers_change_nothing() {
    let fixture = fixture().await;
    let mut headers = signature(&fixture.trader, &unix_now().to_string(), "GET", "/v1/me", b"");
    for (name, value) in [
        ("user-agent", "grid-cli/1.0"),
        ("x-grid-trace-id", "t"),
        ("x-grid-benchmark-id", "b"),
        ("x-grid-benchmark-name", "n"),
    ] {
        headers.push((name.into(), value.into()));
    }
    assert_eq!(request(&fixture, "GET", "/v1/me", &headers, b"").await.status, 200);
    assert_eq!(
        signed(&fixture, &fixture.trader, "GET", "/v1/me/", "").await.status,
        200,
        "a trailing slash too"
    );
}
