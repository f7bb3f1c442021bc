//! Suppliers that refuse, stall, die and lie: the customer gets the right answer, or an honest error, and the right
//! bill. Faults are set while the suppliers run, through their control endpoints.

use std::io::{Read, Write};

use grid_engine::Usd;
use grid_engine::command::AccountMode;
use serde_json::{Value, json};

use crate::books::{self, Books, used};
use crate::harness::{Account, Operator, Options, Venue, until};
use crate::sdk::supplier_calls;
use crate::web::{self, Answer, chat};

const SHORT: &str = "[inference]\nfirst_token_timeout_ms = 1500\nidle_timeout_ms = 1500\nconnect_timeout_ms = 1500\nwhole_answer_timeout_ms = 2500\n";
/// Words of every prompt and of every whole answer here.
const PROMPT: u64 = 40;
const COMPLETION: u64 = 40;

struct Scene {
    venue: Venue,
    operator: Operator,
    customers: Vec<Account>,
}

impl Scene {
    fn open() -> Self {
        let venue = Venue::start(&Options { config: SHORT, ..Options::quiet() });
        let operator = venue.operator();
        let mut scene = Self { venue, operator, customers: Vec::new() };
        scene.heal();
        scene
    }

    fn set(&self, supplier: &str, faults: &Value) {
        let found = self.venue.ready.suppliers.iter().find(|found| found.name == supplier);
        let (addr, path) = web::split(&found.expect("a supplier").control_url);
        let answer =
            web::send(addr, "POST", path, &[], faults.to_string().as_bytes()).expect("control answers");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    fn names(&self) -> Vec<String> {
        self.venue.ready.suppliers.iter().map(|supplier| supplier.name.clone()).collect()
    }

    fn set_all(&self, faults: &Value) {
        for name in self.names() {
            self.set(&name, faults);
        }
    }

    /// Nobody fails any more, and calls that succeed close every circuit breaker that may be open.
    fn heal(&mut self) {
        self.set_all(&json!({}));
        let customer = self.customer();
        until("healthy suppliers", || {
            let answer = self.ask(&customer, &body(false)).map_err(|error| error.to_string())?;
            if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
        });
    }

    fn customer(&mut self) -> Account {
        let (_, account) = self.operator.open("customer", AccountMode::Easy, Usd::dollars(20));
        self.customers.push(account.clone());
        account
    }

    fn ask(&self, customer: &Account, body: &Value) -> std::io::Result<Answer> {
        chat(&self.venue.ready.inference_url, &customer.consumption_key, body)
    }

    /// The answer, once some supplier is not just resting after an earlier fault: 503 says when to come back.
    fn ask_patiently(&self, customer: &Account, body: &Value) -> Answer {
        until("a supplier that is not resting", || {
            let answer = self.ask(customer, body).expect("an answer");
            if answer.status == 503 && answer.header("retry-after").is_some() {
                assert_eq!(self.bill(customer), 0, "failed calls are not billed");
                return Err(answer.text());
            }
            Ok(answer)
        })
    }

    /// The bill, once the call's reservation is gone.
    fn bill(&self, customer: &Account) -> u64 {
        until("the reservation's end", || {
            let rows = self.venue.signer(customer).get("/consumption-accounts");
            let open: f64 = rows
                .as_array()
                .expect("a list")
                .iter()
                .filter_map(|row| row["reserved_balance"].as_f64())
                .sum();
            if open > 0.0 { Err(format!("{open} Units are reserved")) } else { Ok(()) }
        });
        used(&self.venue, customer)
    }
}

fn body(stream: bool) -> Value {
    let mut body = json!({
        "model": "text-prime",
        "messages": [{"role": "user", "content": grid_suppliers::filler(PROMPT)}],
        "metadata": {"simulate_completion_tokens": COMPLETION.to_string()},
        "max_tokens": 1_000,
    });
    if stream {
        body["stream"] = json!(true);
        body["stream_options"] = json!({"include_usage": true});
    }
    body
}

/// Usage and model of a whole answer, of either kind; each supplier has a model of its own, and nothing else says who it was.
fn usage(answer: &Answer, stream: bool) -> (u64, u64, String) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let told = if stream {
        let (events, done) = answer.events();
        assert!(done, "{}", answer.text());
        let with_usage: Vec<Value> = events.into_iter().filter(|event| event["usage"].is_object()).collect();
        assert_eq!(with_usage.len(), 1, "usage comes once");
        with_usage[0].clone()
    } else {
        answer.json()
    };
    let count = |name: &str| told["usage"][name].as_u64().unwrap_or_else(|| panic!("{name} in {told}"));
    (count("prompt_tokens"), count("completion_tokens"), told["model"].as_str().expect("a model").to_owned())
}

#[test]
fn every_fault_of_a_supplier_ends_in_the_right_answer_and_the_right_bill() {
    let mut scene = Scene::open();
    before_the_first_byte(&mut scene);
    nobody_can_deliver(&mut scene);
    in_the_middle_of_the_answer(&mut scene);
    lies_about_usage(&mut scene);
    a_customer_hangs_up(&mut scene);
    scene.heal();
    // Everything adds up after all this, customers and suppliers together.
    let deposits = books::DEMO_DEPOSITS + 20 * scene.customers.len() as i128;
    let all: Vec<Account> =
        books::everybody(&scene.venue).into_iter().chain(scene.customers.clone()).collect();
    Books::read(&scene.venue, &all).conserve(deposits);
}

/// Two of three fail before anything was delivered: the third does, and it alone is paid.
fn before_the_first_byte(scene: &mut Scene) {
    let faults = [
        ("refuses connections", json!({"refuse": true})),
        ("says 500", json!({"status": 500})),
        ("says 503", json!({"status": 503, "retry_after_s": 1})),
        ("says 429", json!({"status": 429, "retry_after_s": 1})),
        ("rejects the venue's credential", json!({"status": 401})),
        ("stalls before the headers", json!({"stall_before_headers_ms": 60_000})),
        ("stalls before the first token", json!({"stall_after_tokens": 0})),
        ("answers garbage", json!({"invalid_json": true})),
    ];
    for (what, fault) in faults {
        for stream in [false, true] {
            for healthy in scene.names() {
                scene.heal();
                for name in scene.names() {
                    if name != healthy {
                        scene.set(&name, &fault);
                    }
                }
                let customer = scene.customer();
                let answer = scene.ask_patiently(&customer, &body(stream));
                assert_eq!(
                    answer.status,
                    200,
                    "{what}, stream {stream}, only {healthy} works: {}",
                    answer.text()
                );
                let (prompt, completion, model) = usage(&answer, stream);
                assert_eq!((prompt, completion), (PROMPT, COMPLETION), "{what}");
                assert!(model.contains(&healthy), "{what}: {model} is not of {healthy}");
                assert_eq!(scene.bill(&customer), PROMPT + COMPLETION, "{what}");
                // One of the three for the kinds of fault that take time.
                if what.starts_with("stalls") {
                    break;
                }
            }
        }
    }
}

/// All fail: an error that says so, and no bill.
fn nobody_can_deliver(scene: &mut Scene) {
    for fault in [json!({"refuse": true}), json!({"status": 500}), json!({"invalid_json": true})] {
        for stream in [false, true] {
            scene.heal();
            scene.set_all(&fault);
            let customer = scene.customer();
            let answer = scene.ask(&customer, &body(stream)).expect("an answer");
            assert_eq!(answer.status, 503, "{fault}: {}", answer.text());
            assert!(answer.header("retry-after").is_some(), "{fault}");
            assert_eq!(scene.bill(&customer), 0, "{fault}: failed calls are not billed");
        }
    }
}

/// The stream breaks after some tokens: an error event and no [DONE]; only what was delivered is billed. An answer
/// that is not streamed has delivered nothing, so that another supplier is tried.
fn in_the_middle_of_the_answer(scene: &mut Scene) {
    let faults = [
        ("dies", json!({"die_after_tokens": 10})),
        ("stalls", json!({"stall_after_tokens": 10})),
        ("sends an error event", json!({"error_event_after_tokens": 10})),
    ];
    for (what, fault) in faults {
        scene.heal();
        scene.set_all(&fault);
        let customer = scene.customer();
        let answer = scene.ask_patiently(&customer, &body(true));
        assert_eq!(answer.status, 200, "{what}: {}", answer.text());
        let (events, done) = answer.events();
        assert!(!done, "{what}: the stream did not end well: {}", answer.text());
        let error = events.last().map(|event| event["error"]["message"].clone());
        assert!(error.is_some_and(|message| message.is_string()), "{what}: {}", answer.text());
        let words: usize = events
            .iter()
            .filter_map(|e| e["choices"][0]["delta"]["content"].as_str())
            .map(|text| text.split_whitespace().count())
            .sum();
        assert_eq!(words, 10, "{what}: the tokens that came before are delivered");
        let bill = scene.bill(&customer);
        // By the venue's own tokenizer, which sees up to a few tokens in a word.
        assert!((10..=4 * (PROMPT + 10) + 32).contains(&bill), "{what}: billed {bill}");

        scene.heal();
        for name in scene.names().iter().skip(1) {
            scene.set(name, &fault);
        }
        let customer = scene.customer();
        let answer = scene.ask_patiently(&customer, &body(false));
        let (prompt, completion, _) = usage(&answer, false);
        assert_eq!((prompt, completion), (PROMPT, COMPLETION), "{what}");
        assert_eq!(scene.bill(&customer), PROMPT + COMPLETION, "{what}: one whole answer, one bill");
    }
}

fn lies_about_usage(scene: &mut Scene) {
    for stream in [false, true] {
        // More than can be: the venue's own count is billed, and shown.
        for (fault, what) in [
            (json!({"usage_factor": 50.0}), "fifty times too much"),
            (json!({"omit_usage": true}), "nothing"),
        ] {
            scene.heal();
            scene.set_all(&fault);
            let customer = scene.customer();
            let answer = scene.ask_patiently(&customer, &body(stream));
            let (prompt, completion, _) = usage(&answer, stream);
            assert!((PROMPT..=4 * PROMPT).contains(&prompt), "{what}: {prompt} prompt tokens");
            assert!(
                (COMPLETION..=4 * COMPLETION).contains(&completion),
                "{what}: {completion} completion tokens"
            );
            assert_eq!(
                scene.bill(&customer),
                prompt + completion,
                "{what}: the bill is the usage that was shown"
            );
        }
        // A little less than was delivered: it is taken at its word, and only it loses.
        scene.heal();
        scene.set_all(&json!({"usage_factor": 0.5}));
        let customer = scene.customer();
        let answer = scene.ask_patiently(&customer, &body(stream));
        let (prompt, completion, _) = usage(&answer, stream);
        assert_eq!((prompt, completion), (PROMPT / 2, COMPLETION / 2));
        assert_eq!(scene.bill(&customer), prompt + completion);
    }
}

/// A customer who leaves in the middle pays for what reached him, and the supplier is told to stop.
fn a_customer_hangs_up(scene: &mut Scene) {
    scene.heal();
    let customer = scene.customer();
    let mut long = body(true);
    long["metadata"]["simulate_completion_tokens"] = json!("4000");
    long["max_tokens"] = json!(5_000);
    let (addr, base) = web::split(&scene.venue.ready.inference_url);
    let text = long.to_string();
    let mut socket = web::connect(addr).expect("the tier accepts");
    let head = format!(
        "POST {base}/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n",
        customer.consumption_key,
        text.len()
    );
    socket.write_all(head.as_bytes()).and_then(|()| socket.write_all(text.as_bytes())).expect("a request");
    let mut heard = Vec::new();
    let mut chunk = [0; 1_024];
    while heard.windows(9).filter(|nine| nine == b"\"content\"").count() < 20 {
        let count = socket.read(&mut chunk).expect("a stream");
        assert_ne!(count, 0, "{}", String::from_utf8_lossy(&heard));
        heard.extend_from_slice(&chunk[..count]);
    }
    drop(socket);
    let heard = String::from_utf8_lossy(&heard).into_owned();
    let id = heard
        .split("\"id\":\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .expect("an id in the stream")
        .to_owned();
    let record = until("the supplier's record", || {
        supplier_calls(&scene.venue).remove(&id).ok_or_else(|| format!("{id} still runs"))
    });
    assert_eq!(record["outcome"], "cancelled", "{record}");
    assert!(record["completion_tokens"].as_u64().is_some_and(|tokens| tokens < 4_000), "{record}");
    let bill = scene.bill(&customer);
    assert!((20..4_000 * 2).contains(&bill), "billed {bill}, {record}");
}
