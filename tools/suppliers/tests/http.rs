//! The supplier as a client on a plain socket sees it: answers, streams, counts and faults.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use grid_suppliers::{Faults, Framing, Outcome, RunningSupplier, Stats, Supplier, SupplierConfig, filler};
use serde_json::{Value, json};

fn supplier(config: SupplierConfig) -> RunningSupplier {
    let config =
        SupplierConfig { name: "swift".into(), models: vec!["small".into(), "large".into()], ..config };
    Supplier::start(config).expect("loopback has free ports")
}

fn host(url: &str) -> &str {
    url.trim_start_matches("http://").split('/').next().expect("a host")
}

struct Answer {
    status: u16,
    head: String,
    body: String,
    whole: bool,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    fn events(&self) -> Vec<Value> {
        let lines = self.body.lines().filter_map(|l| l.strip_prefix("data: ")).filter(|l| *l != "[DONE]");
        lines.map(|l| serde_json::from_str(l).expect("an event is JSON")).collect()
    }

    fn text(&self) -> String {
        self.events()
            .iter()
            .filter_map(|e| e["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
            .collect()
    }
}

/// Sends one request and leaves the socket where the body starts.
fn send(
    url: &str,
    method: &str,
    path: &str,
    key: &str,
    body: &str,
) -> Option<(u16, String, BufReader<TcpStream>)> {
    let host = host(url);
    let mut socket = TcpStream::connect(host).ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let length = body.len();
    write!(
        socket,
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .ok()?;
    let mut reader = BufReader::new(socket);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, head, reader))
}

fn chunked(reader: &mut impl BufRead) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return (body, false);
        }
        let size = usize::from_str_radix(line.trim(), 16).expect("a chunk size");
        let mut chunk = vec![0; size + 2];
        if reader.read_exact(&mut chunk).is_err() {
            return (body, false);
        }
        if size == 0 {
            return (body, true);
        }
        body.extend_from_slice(&chunk[..size]);
    }
}

fn call(url: &str, method: &str, path: &str, key: &str, body: &str) -> Option<Answer> {
    let (status, head, mut reader) = send(url, method, path, key, body)?;
    let lower = head.to_lowercase();
    let (body, whole) = if lower.contains("transfer-encoding: chunked") {
        chunked(&mut reader)
    } else {
        let length = lower.split("content-length: ").nth(1)?.split('\r').next()?.parse::<usize>().ok()?;
        let mut body = Vec::new();
        let whole = reader.take(length as u64).read_to_end(&mut body).is_ok() && body.len() == length;
        (body, whole)
    };
    Some(Answer { status, head, body: String::from_utf8(body).expect("text"), whole })
}

fn ask(supplier: &RunningSupplier, extra: Value) -> Answer {
    let mut body = json!({"model": "small", "messages": [{"role": "user", "content": filler(12)}]});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    call(&supplier.url, "POST", "/v1/chat/completions", "k", &body.to_string()).expect("an answer")
}

/// Waits until the supplier has ended every call; the server sees a gone client in its own time.
fn settled(supplier: &RunningSupplier) -> Stats {
    for _ in 0..1_000_000 {
        let stats = supplier.stats();
        if stats.in_flight == 0 {
            return stats;
        }
        std::thread::yield_now();
    }
    panic!("a call never ended: {:?}", supplier.stats());
}

#[test]
fn a_plain_answer_has_exact_usage_and_says_that_it_is_simulated() {
    let supplier = supplier(SupplierConfig::default());
    let answer = ask(&supplier, json!({"metadata": {"simulate_completion_tokens": "40"}}));
    let value = answer.json();
    assert_eq!(answer.status, 200);
    assert_eq!(value["usage"]["prompt_tokens"], 12);
    assert_eq!(value["usage"]["completion_tokens"], 40);
    assert_eq!(value["usage"]["total_tokens"], 52);
    assert_eq!(value["choices"][0]["finish_reason"], "stop");
    let text = value["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(text.starts_with("Simulated supplier swift"), "{text}");
    assert_eq!(text.split_whitespace().count(), 40);
    let stats = settled(&supplier);
    assert_eq!((stats.completed.requests, stats.tokens_produced()), (1, 52));
}

#[test]
fn a_stream_has_one_token_an_event_and_usage_only_when_asked() {
    let supplier = supplier(SupplierConfig { tokens_per_second: 2_000, ..SupplierConfig::default() });
    let asked =
        ask(&supplier, json!({"stream": true, "stream_options": {"include_usage": true}, "max_tokens": 9}));
    assert!(asked.head.to_lowercase().contains("content-type: text/event-stream"));
    assert!(asked.body.ends_with("data: [DONE]\n\n"));
    let events = asked.events();
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(asked.text().split_whitespace().count(), 9);
    assert_eq!(events.len(), 1 + 9 + 1 + 1, "role, nine tokens, finish, usage");
    assert_eq!(events[10]["choices"][0]["finish_reason"], "length");
    assert!(events[..11].iter().all(|e| e["usage"].is_null() && e.get("usage").is_some()));
    assert_eq!(events[11]["choices"], json!([]));
    assert_eq!(events[11]["usage"]["total_tokens"], 21);
    let unasked = ask(&supplier, json!({"stream": true, "max_tokens": 9}));
    assert_eq!(unasked.text(), asked.text(), "the same question gets the same answer");
    assert!(unasked.events().iter().all(|e| e.get("usage").is_none()));
}

#[test]
fn choices_and_tool_calls_stream_under_their_index() {
    let supplier = supplier(SupplierConfig::default());
    let answer = ask(&supplier, json!({"stream": true, "n": 3, "max_tokens": 5}));
    for index in 0..3 {
        let of = |e: &&Value| e["choices"][0]["index"] == index;
        assert_eq!(answer.events().iter().filter(of).count(), 1 + 5 + 1);
    }
    let tools = json!([{"type": "function", "function": {"name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}}}]);
    let answer = ask(&supplier, json!({"stream": true, "tools": tools, "tool_choice": "required"}));
    let deltas: Vec<Value> =
        answer.events().iter().map(|e| e["choices"][0]["delta"]["tool_calls"][0].clone()).collect();
    let names: Vec<&str> = deltas.iter().filter_map(|d| d["function"]["name"].as_str()).collect();
    let arguments: String = deltas.iter().filter_map(|d| d["function"]["arguments"].as_str()).collect();
    assert_eq!(names, ["get_weather"]);
    assert_eq!(serde_json::from_str::<Value>(&arguments).unwrap(), json!({"city": "simulated", "days": 1}));
    assert_eq!(answer.events().last().unwrap()["choices"][0]["finish_reason"], "tool_calls");
}

#[test]
fn models_keys_and_bad_requests_get_openai_shaped_answers() {
    let supplier = supplier(SupplierConfig { api_key: Some("secret".into()), ..SupplierConfig::default() });
    let get = |path, key| call(&supplier.url, "GET", path, key, "").expect("an answer");
    let ids: Vec<Value> = get("/v1/models", "secret").json()["data"].as_array().unwrap().clone();
    assert_eq!(ids.iter().map(|m| m["id"].as_str().unwrap()).collect::<Vec<_>>(), ["small", "large"]);
    assert_eq!(get("/v1/models/large", "secret").json()["id"], "large");
    assert_eq!(get("/v1/models/none", "secret").status, 404);
    assert_eq!(get("/v1/models", "wrong").status, 401);
    let post =
        |body: &str| call(&supplier.url, "POST", "/v1/chat/completions", "secret", body).expect("an answer");
    for (body, status) in [
        ("{", 400),
        ("[]", 400),
        (r#"{"model":"small"}"#, 400),
        (r#"{"model":"gpt-5.2","messages":[{"role":"user","content":"x"}]}"#, 404),
    ] {
        let answer = post(body);
        assert_eq!(answer.status, status, "{body}");
        assert!(answer.json()["error"]["message"].is_string());
    }
    assert_eq!(supplier.stats().requests, 0);
}

#[test]
fn faults_do_what_they_say_and_the_counters_stay_honest() {
    let supplier = supplier(SupplierConfig::default());
    let streamed = json!({"stream": true, "stream_options": {"include_usage": true},
        "metadata": {"simulate_completion_tokens": "30"}});
    let plain = json!({"metadata": {"simulate_completion_tokens": "30"}});

    supplier.set_faults(Faults { status: Some(429), retry_after_s: Some(7), ..Faults::default() });
    let answer = ask(&supplier, plain.clone());
    assert_eq!((answer.status, answer.head.to_lowercase().contains("retry-after: 7")), (429, true));

    supplier.set_faults(Faults { die_after_tokens: Some(11), ..Faults::default() });
    let answer = ask(&supplier, streamed.clone());
    assert_eq!((answer.whole, answer.text().split_whitespace().count()), (false, 11));
    assert!(!ask(&supplier, plain.clone()).whole);

    supplier.set_faults(Faults { error_event_after_tokens: Some(5), ..Faults::default() });
    let answer = ask(&supplier, streamed.clone());
    assert!(answer.events().last().unwrap()["error"]["message"].is_string());

    supplier.set_faults(Faults { usage_factor: 3.0, ..Faults::default() });
    assert_eq!(ask(&supplier, plain.clone()).json()["usage"]["completion_tokens"], 90);

    supplier.set_faults(Faults { omit_usage: true, ..Faults::default() });
    assert!(ask(&supplier, plain.clone()).json().get("usage").is_none());
    assert!(ask(&supplier, streamed.clone()).events().iter().all(|e| e.get("usage").is_none()));

    supplier.set_faults(Faults { invalid_json: true, ..Faults::default() });
    assert!(serde_json::from_str::<Value>(&ask(&supplier, plain.clone()).body).is_err());

    supplier.set_faults(Faults { status: Some(503), next_requests: Some(2), ..Faults::default() });
    let statuses: Vec<u16> = (0..3).map(|_| ask(&supplier, plain.clone()).status).collect();
    assert_eq!(statuses, [503, 503, 200]);

    let stats = settled(&supplier);
    assert_eq!((stats.refused.requests, stats.refused.completion_tokens), (4, 0));
    assert_eq!((stats.died.requests, stats.died.completion_tokens), (3, 11 + 5));
    assert_eq!((stats.completed.requests, stats.completed.completion_tokens), (4, 4 * 30));
    assert_eq!(supplier.calls().len(), 11);
}

#[test]
fn a_refusing_supplier_has_no_listener_and_comes_back() {
    let supplier = supplier(SupplierConfig::default());
    let refusing = json!(Faults { refuse: true, ..Faults::default() }).to_string();
    let healthy = json!(Faults::default()).to_string();
    for by_http in [false, true] {
        let set = |faults: &str| match by_http {
            true => {
                assert_eq!(call(&supplier.control_url, "POST", "/control", "", faults).unwrap().status, 200)
            }
            false => supplier.set_faults(serde_json::from_str(faults).unwrap()),
        };
        set(&refusing);
        let error = TcpStream::connect(host(&supplier.url)).expect_err("nobody listens");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        set(&healthy);
        assert_eq!(ask(&supplier, json!({})).status, 200);
    }
}

#[test]
fn a_client_that_leaves_during_a_stall_is_counted_as_cancelled() {
    let faults = Faults { stall_after_tokens: Some(4), ..Faults::default() };
    let supplier = supplier(SupplierConfig { faults, ..SupplierConfig::default() });
    let body =
        json!({"model": "small", "stream": true, "messages": [{"role": "user", "content": filler(3)}]});
    let path = "/v1/chat/completions";
    let (status, _, mut reader) = send(&supplier.url, "POST", path, "", &body.to_string()).expect("headers");
    assert_eq!(status, 200);
    let mut seen = String::new();
    while seen.matches("\"content\"").count() < 1 + 4 {
        assert_ne!(reader.read_line(&mut seen).unwrap(), 0);
    }
    assert_eq!(supplier.stats().in_flight, 1);
    drop(reader);
    let stats = settled(&supplier);
    assert_eq!((stats.cancelled.requests, stats.cancelled.completion_tokens), (1, 4));
    assert_eq!(supplier.calls()[0].outcome, Outcome::Cancelled);
}

#[test]
fn a_client_that_leaves_before_the_headers_is_counted_as_cancelled() {
    let faults = Faults { stall_before_headers_ms: 3_600_000, ..Faults::default() };
    let supplier = supplier(SupplierConfig { faults, ..SupplierConfig::default() });
    let body = json!({"model": "small", "messages": [{"role": "user", "content": "x"}]}).to_string();
    let mut socket = TcpStream::connect(host(&supplier.url)).unwrap();
    let length = body.len();
    write!(socket, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}")
        .unwrap();
    while supplier.stats().in_flight == 0 {
        std::thread::yield_now();
    }
    drop(socket);
    assert_eq!(settled(&supplier).cancelled.requests, 1);
}

#[test]
fn the_same_seed_fails_the_same_requests() {
    let statuses = |seed| -> Vec<u16> {
        let faults = Faults { error_rate: 0.3, ..Faults::default() };
        let supplier = supplier(SupplierConfig { seed, faults, ..SupplierConfig::default() });
        (0..40).map(|_| ask(&supplier, json!({})).status).collect()
    };
    let first = statuses(5);
    assert_eq!(first, statuses(5));
    assert_ne!(first, statuses(6));
    let failed = first.iter().filter(|s| **s == 500).count();
    assert!((4..=20).contains(&failed), "about three in ten: {failed}");
}

#[test]
fn every_way_of_writing_a_stream_says_the_same() {
    let supplier = supplier(SupplierConfig::default());
    let wanted = json!({"stream": true, "metadata": {"simulate_completion_tokens": "9"}});
    let plain = ask(&supplier, wanted.clone());
    for framing in [Framing::Crlf, Framing::Comments, Framing::ManyLines] {
        for piece_bytes in [None, Some(1), Some(7)] {
            supplier.set_faults(Faults { framing, piece_bytes, ..Faults::default() });
            let answer = ask(&supplier, wanted.clone());
            assert!(answer.whole, "{framing:?}");
            let unfolded = unfolded(&answer.body);
            assert_eq!(unfolded.last().map(String::as_str), Some("[DONE]"));
            let texts: Vec<String> = unfolded[..unfolded.len() - 1]
                .iter()
                .map(|data| serde_json::from_str::<Value>(data).expect("JSON"))
                .filter_map(|event| event["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
                .collect();
            assert_eq!(texts.concat(), plain.text(), "{framing:?} {piece_bytes:?}");
        }
    }
}

/// The data of every event.
fn unfolded(body: &str) -> Vec<String> {
    let mut events = vec![Vec::new()];
    for line in body.lines() {
        match line.strip_prefix("data:") {
            Some(data) => events.last_mut().expect("one").push(data.strip_prefix(' ').unwrap_or(data)),
            None if line.is_empty() => events.push(Vec::new()),
            None => {}
        }
    }
    events.iter().filter(|lines| !lines.is_empty()).map(|lines| lines.join("\n")).collect()
}

#[test]
fn the_rest_of_the_faults_do_what_they_say() {
    let supplier = supplier(SupplierConfig::default());
    let stream = || ask(&supplier, json!({"stream": true, "metadata": {"simulate_completion_tokens": "9"}}));
    supplier.set_faults(Faults { cut_after_tokens: Some(4), ..Faults::default() });
    let cut = stream();
    assert!(!cut.whole && !cut.body.ends_with("\n\n"), "{}", cut.body);
    supplier.set_faults(Faults { omit_done: true, ..Faults::default() });
    assert!(!stream().body.contains("[DONE]"));
    supplier.set_faults(Faults { content_type: Some("text/html".into()), ..Faults::default() });
    assert!(stream().head.to_lowercase().contains("content-type: text/html"));
    let headers = [("x-ratelimit-remaining-requests".to_owned(), "0".to_owned())].into();
    supplier.set_faults(Faults { headers, status: Some(429), ..Faults::default() });
    let busy = stream();
    assert_eq!(busy.status, 429);
    assert!(busy.head.contains("x-ratelimit-remaining-requests: 0"), "{}", busy.head);
    supplier.set_faults(Faults { usage: Some(json!({"prompt_tokens": -1})), ..Faults::default() });
    assert_eq!(ask(&supplier, json!({})).json()["usage"]["prompt_tokens"], -1);
    supplier.set_faults(Faults { unable: vec!["logprobs".into(), "n".into()], ..Faults::default() });
    assert_eq!(ask(&supplier, json!({"n": 1, "logprobs": false})).status, 200);
    let refused = ask(&supplier, json!({"logprobs": true}));
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("logprobs")));
    assert_eq!(ask(&supplier, json!({"n": 2})).status, 400);
    supplier.set_faults(Faults { tls_alert: true, ..Faults::default() });
    assert!(call(&supplier.url, "GET", "/v1/models", "k", "").is_none());
}

#[test]
fn a_prompt_that_came_before_is_cached() {
    let supplier = supplier(SupplierConfig::default());
    let cached = |key: &str| {
        let usage = ask(&supplier, json!({"prompt_cache_key": key})).json()["usage"].clone();
        usage["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a count")
    };
    assert_eq!([cached("a"), cached("a"), cached("b")], [0, 12, 0]);
}
