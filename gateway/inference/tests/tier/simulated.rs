//! The tier before simulated suppliers, one fault after the other: the right answer, the right bill, and by the tier's
//! own counters nothing left behind. And the usual client libraries, unmodified, before the same suppliers.

use std::sync::Arc;
use std::time::Duration;

use crate::clients;
use crate::support::*;
use grid_engine::{AccountId, KeyHash};
use grid_inference::{RunningTier, Snapshot};
use grid_suppliers::{Faults, Framing, RunningSupplier, Supplier, SupplierConfig, filler};
use serde_json::{Value, json};

pub(crate) const PROMPT: u64 = 40;
const COMPLETION: u64 = 30;
/// Long enough for a healthy supplier on a machine that does much else; a hanging one costs a test that much.
const PATIENCE: Duration = Duration::from_secs(4);

pub(crate) struct Scene {
    pub(crate) venue: Arc<Venue>,
    pub(crate) suppliers: Vec<RunningSupplier>,
    pub(crate) tier: RunningTier,
}

impl Scene {
    /// Suppliers 2 and so on; the first has the faults.
    pub(crate) async fn open(count: u32, faults: Faults) -> Self {
        let venue = Venue::new();
        let mut suppliers = Vec::new();
        for id in 2..2 + count {
            let supplier = Supplier::start(SupplierConfig {
                name: format!("sim{id}"),
                models: vec![format!("model-of-{id}")],
                api_key: Some(CREDENTIAL.into()),
                ..SupplierConfig::default()
            });
            let supplier = supplier.expect("loopback is there");
            venue.supplier(id, &supplier.url);
            suppliers.push(supplier);
        }
        suppliers[0].set_faults(faults);
        let tier = tier(&venue, |config| {
            config.clocks.first_content = PATIENCE;
            config.clocks.whole_answer = PATIENCE;
            config.clocks.idle = PATIENCE;
            config.operator = Some(KeyHash::of("operator"));
        })
        .await;
        Self { venue, suppliers, tier }
    }

    /// Nothing is in progress any more, every reservation ended once, and at most so many connections to suppliers are
    /// left to be used again. Returns the counters.
    pub(crate) async fn quiet(&self, what: &str, idle: u64) -> Snapshot {
        self.venue.until_settled().await;
        let ended = async {
            loop {
                let now = self.tier.stats();
                if (now.in_flight, now.open, now.attempts) == (0, 0, 0) && now.supplier_connections <= idle {
                    return now;
                }
                tokio::task::yield_now().await;
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(60), ended).await;
        let now = ended.unwrap_or_else(|_| panic!("{what}: left behind: {:?}", self.tier.stats()));
        self.venue.assert_each_ended_once();
        assert_eq!(now.reserved, now.settled + now.released, "{what}: {now:?}");
        assert_eq!(now.refused, 0, "{what}: {now:?}");
        now
    }
}

fn body(stream: bool) -> Value {
    let mut body = json!({
        "model": "text-prime",
        "messages": [{"role": "user", "content": filler(PROMPT)}],
        "metadata": {"simulate_completion_tokens": COMPLETION.to_string()},
        "max_tokens": 60,
    });
    if stream {
        body["stream"] = json!(true);
        body["stream_options"] = json!({"include_usage": true});
    }
    body
}

/// The usage that an answer shows, once and at its place.
fn shown(answer: &Reply, stream: bool, what: &str) -> (u64, u64) {
    assert_eq!(answer.status, 200, "{what}: {}", answer.text);
    let usage = if stream {
        let mut events = answer.events();
        assert_eq!(events.pop().as_deref(), Some("[DONE]"), "{what}");
        let parsed: Vec<Value> =
            events.iter().map(|event| serde_json::from_str(event).expect(what)).collect();
        let last = parsed.last().expect("events");
        assert_eq!(last["choices"], json!([]), "{what}");
        assert!(parsed[..parsed.len() - 1].iter().all(|event| event["usage"].is_null()), "{what}");
        last["usage"].clone()
    } else {
        answer.json()["usage"].clone()
    };
    let count = |name: &str| usage[name].as_u64().unwrap_or_else(|| panic!("{what}: {name} in {usage}"));
    (count("prompt_tokens"), count("completion_tokens"))
}

#[tokio::test]
async fn every_fault_before_the_first_content_is_repaired_by_another_supplier_and_leaves_nothing() {
    let spent = [("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "30s")];
    let headers = spent.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let faults = [
        ("refuses", Faults { refuse: true, ..Faults::default() }),
        ("hangs before the headers", Faults { stall_before_headers_ms: 600_000, ..Faults::default() }),
        ("hangs before the first token", Faults { stall_after_tokens: Some(0), ..Faults::default() }),
        ("closes before the first token", Faults { die_after_tokens: Some(0), ..Faults::default() }),
        ("closes in the first event", Faults { cut_after_tokens: Some(0), ..Faults::default() }),
        ("says it is a web page", Faults { content_type: Some("text/html".into()), ..Faults::default() }),
        ("says 429", Faults { status: Some(429), retry_after_s: Some(30), ..Faults::default() }),
        ("has used up its limit", Faults { status: Some(429), headers, ..Faults::default() }),
        ("says 500", Faults { status: Some(500), ..Faults::default() }),
        ("says 503", Faults { status: Some(503), retry_after_s: Some(30), ..Faults::default() }),
        ("forgets our credential", Faults { status: Some(401), ..Faults::default() }),
        ("sends invalid JSON", Faults { invalid_json: true, ..Faults::default() }),
        ("answers with a TLS alert", Faults { tls_alert: true, ..Faults::default() }),
        ("can't do it", Faults { unable: vec!["max_tokens".into()], ..Faults::default() }),
    ];
    for (what, fault) in faults {
        for stream in [false, true] {
            let scene = Scene::open(2, fault.clone()).await;
            let answer = Caller::new(&scene.tier).chat(&body(stream)).await;
            assert_eq!(shown(&answer, stream, what), (PROMPT, COMPLETION), "{what}");
            let now = scene.quiet(what, 2).await;
            assert_eq!(now.failovers, 1, "{what}: {now:?}");
            let usages = scene.venue.usages();
            assert_eq!(usages.len(), 1, "{what}");
            assert_eq!(usages[0].supplier, AccountId(3), "{what}");
            assert_eq!(
                (usages[0].prompt_tokens.0, usages[0].completion_tokens.0),
                (PROMPT, COMPLETION),
                "{what}"
            );
        }
    }
}

#[tokio::test]
async fn every_fault_in_the_middle_ends_the_stream_with_an_error_and_bills_what_came() {
    for (what, fault) in [
        ("closes", Faults { die_after_tokens: Some(10), ..Faults::default() }),
        ("closes in an event", Faults { cut_after_tokens: Some(10), ..Faults::default() }),
        ("hangs", Faults { stall_after_tokens: Some(10), ..Faults::default() }),
        ("sends an error", Faults { error_event_after_tokens: Some(10), ..Faults::default() }),
    ] {
        let scene = Scene::open(2, fault).await;
        let answer = Caller::new(&scene.tier).chat(&body(true)).await;
        let events = answer.events();
        assert!(!answer.text.contains("[DONE]"), "{what}: {}", answer.text);
        let last: Value = serde_json::from_str(events.last().expect("events")).expect("JSON");
        assert_eq!(last["error"]["code"], "supplier_failed", "{what}: {last}");
        let words = events
            .iter()
            .filter(|event| event.contains("\"content\":\"") && !event.contains("\"content\":\"\""));
        assert_eq!(words.count(), 10, "{what}: what came before is delivered");
        scene.quiet(what, 2).await;
        let [usage] = scene.venue.usages()[..] else { panic!("{what}: one bill") };
        assert!(usage.partial && usage.estimated, "{what}");
        assert!((10..=40).contains(&usage.completion_tokens.0), "{what}: {usage:?}");
        assert_eq!(usage.supplier, AccountId(2), "{what}");
    }
}

#[tokio::test]
async fn a_lie_about_usage_is_neither_billed_nor_shown() {
    let counts =
        |prompt: Value, completion: Value| json!({"prompt_tokens": prompt, "completion_tokens": completion});
    for (what, fault, distrusted) in [
        ("fifty times", Faults { usage_factor: 50.0, ..Faults::default() }, 1),
        (
            "all there is",
            Faults { usage: Some(counts(json!(u64::MAX), json!(u64::MAX))), ..Faults::default() },
            1,
        ),
        ("below nothing", Faults { usage: Some(counts(json!(-5), json!(-7))), ..Faults::default() }, 0),
        ("words", Faults { usage: Some(counts(json!("many"), json!("few"))), ..Faults::default() }, 0),
        ("no object", Faults { usage: Some(json!("none")), ..Faults::default() }, 0),
        ("nothing", Faults { omit_usage: true, ..Faults::default() }, 0),
    ] {
        for stream in [false, true] {
            let scene = Scene::open(1, fault.clone()).await;
            let answer = Caller::new(&scene.tier).chat(&body(stream)).await;
            let (prompt, completion) = shown(&answer, stream, what);
            let now = scene.quiet(what, 2).await;
            assert_eq!((now.estimated, now.distrusted), (1, distrusted), "{what}: {now:?}");
            assert!((PROMPT..=2 * PROMPT).contains(&prompt), "{what}: {prompt}");
            assert!((COMPLETION..=2 * COMPLETION).contains(&completion), "{what}: {completion}");
            let usage = scene.venue.usages()[0];
            assert_eq!((usage.prompt_tokens.0, usage.completion_tokens.0), (prompt, completion), "{what}");
        }
    }
}

#[tokio::test]
async fn what_is_odd_and_not_wrong_changes_neither_answer_nor_bill() {
    for (what, fault) in [
        ("drips", Faults { piece_bytes: Some(16), piece_pause_ms: 1, ..Faults::default() }),
        ("byte by byte", Faults { piece_bytes: Some(1), ..Faults::default() }),
        ("CRLF", Faults { framing: Framing::Crlf, piece_bytes: Some(5), ..Faults::default() }),
        ("comments", Faults { framing: Framing::Comments, ..Faults::default() }),
        ("no end", Faults { omit_done: true, ..Faults::default() }),
    ] {
        for stream in [false, true] {
            let scene = Scene::open(1, fault.clone()).await;
            let mut request = body(stream);
            request["reasoning_effort"] = json!("low");
            let answer = Caller::new(&scene.tier).chat(&request).await;
            let text = answer.text.replace("data:{", "data: {");
            let answer = Reply { text, ..answer };
            assert_eq!(shown(&answer, stream, what), (PROMPT, COMPLETION + 8), "{what}");
            let now = scene.quiet(what, 2).await;
            assert_eq!((now.estimated, now.partial, now.failovers), (0, 0, 0), "{what}: {now:?}");
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_cancels_the_supplier_and_leaves_nothing() {
    let scene = Scene::open(1, Faults { stall_after_tokens: Some(10), ..Faults::default() }).await;
    let mut stream = Caller::new(&scene.tier).stream(&body(true)).await;
    stream.until("content").await;
    drop(stream);
    let now = scene.quiet("left", 0).await;
    assert_eq!(now.cancelled, 1, "{now:?}");
    let told = async {
        while scene.suppliers[0].stats().cancelled.requests == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), told).await.expect("the supplier is told to stop");
}

// -- client libraries ----------------------------------------------------------------------------------------------

/// Runs a client to its end; what it was told of each call is what was billed. `null` stands for a call of which the
/// client was told no usage.
async fn is_served(runner: fn(&str, &Value) -> Value, file: &'static str) {
    let scene = Scene::open(2, Faults::default()).await;
    let case = json!({"base_url": scene.tier.inference_url(), "key": KEY});
    let told = tokio::task::spawn_blocking(move || runner(file, &case)).await.expect("the client ends");
    scene.quiet(file, 16).await;
    let told: Vec<Option<(u64, u64)>> =
        serde_json::from_value(told["calls"].clone()).unwrap_or_else(|_| panic!("{told}"));
    let usages = scene.venue.usages();
    let mut billed: Vec<(u64, u64)> =
        usages.iter().map(|usage| (usage.prompt_tokens.0, usage.completion_tokens.0)).collect();
    assert!(usages.iter().all(|usage| !usage.partial && !usage.estimated), "{usages:?}");
    for pair in told.iter().flatten() {
        let at = billed.iter().position(|billed| billed == pair);
        billed.swap_remove(at.unwrap_or_else(|| panic!("{pair:?} was told and not billed: {usages:?}")));
    }
    assert_eq!(billed.len(), told.iter().filter(|one| one.is_none()).count(), "{told:?} {usages:?}");
    assert!(told.len() >= 8, "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn langchain_works_unmodified() {
    is_served(clients::python, "langchain_client.py").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pydantic_ai_and_instructor_work_unmodified() {
    is_served(clients::python, "pydantic_client.py").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ai_sdk_and_langchain_js_work_unmodified() {
    is_served(clients::node, "ai_sdk.mjs").await;
}

/// An SDK while suppliers fail as it tells them to: it retries what can succeed and nothing else, raises what it
/// documents, and nothing is left behind where it gives up.
async fn fares(runner: fn(&str, &Value) -> Value, file: &'static str) {
    let scene = Scene::open(2, Faults::default()).await;
    let controls: Vec<&str> = scene.suppliers.iter().map(|one| one.control_url.as_str()).collect();
    let case = json!({"base_url": scene.tier.inference_url(), "key": KEY, "controls": controls});
    let told = tokio::task::spawn_blocking(move || runner(file, &case)).await.expect("the client ends");
    assert_eq!(told["done"], true, "{told}");
    let now = scene.quiet(file, 16).await;
    assert!(now.cancelled >= 2 && now.partial >= 3 && now.released >= 2, "{now:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openai_s_python_sdk_retries_times_out_and_cancels_as_documented() {
    fares(clients::python, "openai_trouble.py").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openai_s_node_sdk_retries_times_out_and_cancels_as_documented() {
    fares(clients::node, "openai_trouble.mjs").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anthropic_s_python_sdk_retries_times_out_and_cancels_as_documented() {
    fares(clients::python, "anthropic_trouble.py").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anthropic_s_node_sdk_retries_times_out_and_cancels_as_documented() {
    fares(clients::node, "anthropic_trouble.mjs").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn langchain_pydantic_ai_and_instructor_get_over_failures_and_leave_streams() {
    fares(clients::python, "frameworks_trouble.py").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ai_sdk_and_langchain_js_get_over_failures_and_leave_streams() {
    fares(clients::node, "frameworks_trouble.mjs").await;
}
