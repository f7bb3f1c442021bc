//! The inference tier as a process apart from the venue's core: one node leads, and a learner, which never votes, serves
//! the calls. The tier is killed in the middle of a stream, and calls are sent on to it by a 307.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use grid_suppliers::Faults;
use serde_json::{Value, json};

use crate::checker::judge;
use crate::harness::{COMMON, Cluster, Ready, until};
use crate::http::{self, Answer, Signer};
use crate::members::add_learner;
use crate::net::Net;
use crate::web::{SYMBOL, Supply, supply};

/// The node that leads: its death would be the venue's.
const CORE: u64 = 1;
/// The node that serves calls, and is killed.
const TIER: u64 = 2;
/// Life of a reservation whose call nobody ends.
const RESERVATION: &str = "[inference]\nreservation_seconds = 25\nidle_timeout_ms = 600000\n";
/// Tokens after which the supplier falls silent, so that the stream stands open for as long as it takes.
const BEFORE_SILENCE: u32 = 5;

struct Scene {
    cluster: Cluster,
    supply: Supply,
}

impl Scene {
    /// A core, and a tier in a process of its own; `core` is what only the core is told.
    fn open(core: impl FnOnce(&Cluster)) -> Self {
        let mut cluster = Cluster::make(Net::Loopback, 1, &format!("{COMMON}{RESERVATION}"));
        core(&cluster);
        cluster.spawn(CORE);
        cluster.wait_ready(CORE);
        add_learner(&mut cluster, TIER);
        let supply = supply(&cluster);
        let scene = Self { cluster, supply };
        until("the tier's replica knows the consumer", || {
            let signer = Signer::new(&scene.at(TIER).trading_url, scene.supply.consumer.seed);
            let answer =
                signer.send("GET", "/consumption-accounts", b"").map_err(|error| error.to_string())?;
            let there =
                answer.status == 200 && answer.json()["data"][0]["tokens_available"].as_u64() > Some(0);
            if there { Ok(()) } else { Err(answer.text()) }
        });
        scene
    }

    fn at(&self, node: u64) -> Ready {
        self.cluster.ready(node)
    }

    /// The core's own word about the consumer, over its trading API.
    fn consumer(&self) -> Signer {
        Signer::new(&self.at(CORE).trading_url, self.supply.consumer.seed)
    }

    /// What the core says that the consumer and the supplier have: tokens and dollars, held, used, earned and owed.
    fn money(&self) -> Value {
        let supplier = Signer::new(&self.at(CORE).trading_url, self.supply.supplier.seed);
        let consumer = self.consumer();
        let of = |rows: &Value, names: &[&str]| -> Vec<Value> {
            let rows = rows.as_array().expect("a list").iter();
            rows.map(|row| names.iter().map(|name| row[*name].clone()).collect()).collect()
        };
        let tokens =
            ["total_balance", "available_balance", "reserved_balance", "tokens_available", "tokens_used"];
        let dollars = ["total_balance", "available_balance", "locked_balance"];
        let owed = ["total_delivered", "outstanding_tokens", "escrow_usd", "calls"];
        json!({
            "tokens": of(&consumer.get("/consumption-accounts"), &tokens),
            "lots": of(&consumer.get("/accounts/lots?status=all"), &["id", "quantity", "used", "remaining"]),
            "dollars": of(&consumer.get("/currency-trading-accounts"), &dollars),
            "earned": of(&supplier.get("/currency-trading-accounts"), &dollars),
            "owed": of(&supplier.get("/supplier-liability"), &owed),
            "charges": [consumer.get("/charges"), supplier.get("/charges")],
        })
    }

    /// A receipt, as a node tells it.
    fn receipt(&self, node: u64, request: &str) -> Answer {
        let url = self.at(node).inference_url;
        let (addr, base) = http::split(&url);
        let bearer = format!("Bearer {}", self.supply.key);
        http::send(addr, "GET", &format!("{base}/usage/{request}"), &[("authorization", &bearer)], b"")
            .expect("an answer")
    }

    fn until_receipt(&self, node: u64, request: &str, status: &str) -> Value {
        until("the receipt", || {
            let answer = self.receipt(node, request);
            let there = answer.status == 200 && answer.json()["status"] == status;
            if there { Ok(answer.json()) } else { Err(format!("{} {}", answer.status, answer.text())) }
        })
    }

    /// A call at this node, whole.
    fn whole(&self, node: u64) -> Answer {
        http::chat(&self.at(node).inference_url, &self.supply.key, &body(false)).expect("an answer")
    }

    fn used(&self) -> u64 {
        self.consumer().get("/consumption-accounts")[0]["tokens_used"].as_u64().expect("a number")
    }

    /// Waits until the core's bill is this, and nothing is set aside any more.
    fn until_billed(&self, total: u64) {
        until("the bill", || {
            let row = self.consumer().get("/consumption-accounts")[0].clone();
            let settled = row["tokens_used"] == total && row["reserved_balance"].as_f64() == Some(0.0);
            if settled { Ok(()) } else { Err(format!("{total} tokens were used: {row}")) }
        });
    }
}

fn body(stream: bool) -> Value {
    json!({
        "model": SYMBOL, "stream": stream, "max_tokens": 500,
        "messages": [{ "role": "user", "content": grid_suppliers::filler(20) }],
        "metadata": { "simulate_completion_tokens": "40" },
    })
}

fn total(answer: &Answer) -> u64 {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["usage"]["total_tokens"].as_u64().expect("a count")
}

/// A stream that somebody still listens to.
struct Listening {
    socket: TcpStream,
    heard: Vec<u8>,
}

impl Listening {
    fn ask(url: &str, key: &str) -> Self {
        let (addr, base) = http::split(url);
        let mut socket = http::connect(addr).expect("the tier listens");
        let body = body(true).to_string();
        let head = format!(
            "POST {base}/chat/completions HTTP/1.1\r\nhost: {addr}\r\nauthorization: Bearer {key}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all((head + &body).as_bytes()).expect("the tier reads");
        Self { socket, heard: Vec::new() }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.heard).into_owned()
    }

    /// Reads until there is content, and the call's handle with it.
    fn until_content(&mut self) -> String {
        let mut piece = [0; 4_096];
        // The first one says who speaks; the next ones what is said.
        while self.pieces() < 3 {
            let read = self.socket.read(&mut piece).expect("a stream");
            assert!(read > 0, "it ended: {}", self.text());
            self.heard.extend_from_slice(&piece[..read]);
        }
        let text = self.text();
        let line = text.lines().find_map(|line| line.strip_prefix("x-grid-request-id: "));
        line.expect("every answer names its call").trim().to_owned()
    }

    /// Events so far.
    fn pieces(&self) -> usize {
        self.text().matches("data: ").count()
    }

    /// Reads on until the connection is gone.
    fn until_gone(mut self) -> String {
        let mut rest = Vec::new();
        match self.socket.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
        }
        self.heard.extend(rest);
        self.text()
    }
}

#[test]
fn a_tier_that_is_killed_in_the_middle_of_a_stream_leaves_a_call_that_log_time_ends_and_nobody_pays() {
    let mut scene = Scene::open(|_| ());
    // A good call first: the tier serves, through the core's log.
    scene.until_billed(total(&scene.whole(TIER)));
    let before = scene.money();
    scene.supply.running.set_faults(Faults {
        stall_after_tokens: Some(BEFORE_SILENCE),
        stall_ms: 3_600_000,
        ..Faults::default()
    });
    let mut stream = Listening::ask(&scene.at(TIER).inference_url, &scene.supply.key);
    let request = stream.until_content();
    let open = until("the core knows the call", || {
        let now = scene.money();
        if now == before { Err(now.to_string()) } else { Ok(now) }
    });
    assert_ne!(open["tokens"][0][2], before["tokens"][0][2], "tokens are set aside: {open:#}");
    scene.until_receipt(CORE, &request, "pending");

    scene.cluster.kill(TIER);
    let text = stream.until_gone();
    assert!(text.starts_with("HTTP/1.1 200") && !text.contains("[DONE]"), "{text}");

    // Nobody says anything any more: it is the core's own time that ends the reservation.
    let receipt = scene.until_receipt(CORE, &request, "error");
    assert_eq!((&receipt["cost"]["status"], &receipt["cost"]["amount"]), (&json!("cancelled"), &json!("0")));
    assert_eq!(receipt["usage"]["total_tokens"], 0);
    assert_eq!(receipt["route"]["reason"], "nobody settled the call in time; nothing was billed");
    assert_eq!(scene.money(), before, "tokens are back, nobody is charged, nobody is paid");

    // The next process serves at once, tells the same receipt, and its own calls are billed.
    scene.supply.running.set_faults(Faults::default());
    scene.cluster.restart(TIER);
    assert_eq!(scene.receipt(TIER, &request).json(), receipt);
    let used = scene.used();
    let more = total(&scene.whole(TIER));
    scene.until_billed(used + more);
    // By the journals: every command of the core's log, judged by code that shares none with it.
    judge(&mut scene.cluster, &[]);
}

#[test]
fn calls_that_are_sent_on_are_answered_by_the_other_process_and_billed_once() {
    let mut scene = Scene::open(|cluster| {
        let tier = cluster.binary_addr(CORE).port() - 3 + 10;
        let nodes = format!("dispatch_to = [\"http://127.0.0.1:{tier}/v1\"]\nreservation_seconds");
        cluster.edit_config(CORE, "reservation_seconds", &nodes);
    });
    let (core, tier) = (scene.at(CORE).inference_url, scene.at(TIER).inference_url);
    // As soon as the core has found the other one healthy it sends calls on; what it answered itself until then is billed, too.
    let mut bill = 0;
    let asked = body(false);
    let location = until("a call that is sent on", || {
        let answer = http::chat(&core, &scene.supply.key, &asked).map_err(|error| error.to_string())?;
        if answer.status == 307 {
            return Ok(answer.header("location").expect("where to").to_owned());
        }
        bill += total(&answer);
        Err(answer.text())
    });
    assert!(location.starts_with(&format!("{tier}/chat/completions?token=")), "{location}");
    let (addr, path) = http::split(&location);
    let take =
        |body: &Value| http::send(addr, "POST", path, &[], body.to_string().as_bytes()).expect("an answer");
    let code = |answer: &Answer| answer.json()["error"]["code"].clone();
    let other = take(&json!({ "model": SYMBOL, "messages": [{ "role": "user", "content": "another" }] }));
    assert_eq!((other.status, code(&other)), (401, json!("ticket_body")), "{}", other.text());
    // Nothing but the ticket: no key.
    let answer = take(&asked);
    bill += total(&answer);
    let again = take(&asked);
    assert_eq!((again.status, code(&again)), (401, json!("ticket_used")), "{}", again.text());
    scene.until_billed(bill);
    let mut requests = BTreeSet::from([answer.header("x-grid-request-id").expect("a handle").to_owned()]);

    // Clients that follow by themselves, whole and streamed.
    let case = json!({ "base_url": core, "key": scene.supply.key, "model": SYMBOL });
    for told in [crate::clients::python("sent_on.py", &case), crate::clients::node("sent_on.mjs", &case)] {
        let calls = told["calls"].as_array().expect("a list");
        assert_eq!(calls.len(), 2, "{told}");
        for call in calls {
            let url = call["url"].as_str().expect("where the answer came from");
            assert!(url.starts_with(&tier), "{told}");
            assert!(call["text"].as_str().is_some_and(|text| !text.is_empty()), "{told}");
            bill += call["total"].as_u64().expect("a count");
            assert!(requests.insert(call["request"].as_str().expect("a handle").to_owned()), "{told}");
        }
    }
    scene.until_billed(bill);
    for request in &requests {
        let receipt = scene.until_receipt(CORE, request, "reconciled");
        assert_eq!(receipt["route"]["attempts"], 1, "{receipt}");
    }
    let delivered = scene.supply.running.calls().len();
    assert!(delivered >= requests.len(), "{delivered} calls reached the supplier");
    judge(&mut scene.cluster, &[]);
}
