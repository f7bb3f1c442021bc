//! Every fault of a supplier under every surface, streamed and whole: the right answer, the right bill, and nothing left
//! behind: no connection beyond the pool's, no task of the runtime, no reservation.

use std::net::TcpListener;
use std::sync::Arc;

use crate::simulated::{PROMPT, Scene};
use crate::support::*;
use grid_engine::AccountId;
use grid_engine::sla::Fault;
use grid_suppliers::{Faults, filler};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::runtime::Handle;

/// Connections to suppliers that a test's calls may leave in the pool: one to each.
const IDLE: u64 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Surface {
    Chat,
    Messages,
    Responses,
}

const SURFACES: [Surface; 3] = [Surface::Chat, Surface::Messages, Surface::Responses];

impl Surface {
    fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Messages => "/v1/messages",
            Self::Responses => "/v1/responses",
        }
    }

    fn body(self, stream: bool) -> Value {
        let text = filler(PROMPT);
        let message = json!([{"role": "user", "content": text}]);
        match self {
            Self::Chat => {
                json!({"model": "text-prime", "messages": message, "max_tokens": 200, "stream": stream,
                "stream_options": stream.then(|| json!({"include_usage": true}))})
            }
            Self::Messages => {
                json!({"model": "text-prime", "messages": message, "max_tokens": 200, "stream": stream})
            }
            Self::Responses => {
                json!({"model": "text-prime", "input": text, "max_output_tokens": 200, "stream": stream})
            }
        }
    }

    /// The counts that an answer shows at its end.
    fn shown(self, answer: &Reply, stream: bool) -> (u64, u64) {
        assert_eq!(answer.status, 200, "{}", answer.text);
        let whole = match (self, stream) {
            (_, false) => answer.json()["usage"].clone(),
            (Self::Chat, true) => last(answer, |event| event["usage"].is_object())["usage"].clone(),
            (Self::Messages, true) => last(answer, |event| event["type"] == "message_delta")["usage"].clone(),
            (Self::Responses, true) => {
                last(answer, |event| event["type"] == "response.completed")["response"]["usage"].clone()
            }
        };
        let count = |names: [&str; 2]| {
            let found = names.iter().find_map(|name| whole[name].as_u64());
            found.unwrap_or_else(|| panic!("{names:?} in {whole}"))
        };
        (count(["prompt_tokens", "input_tokens"]), count(["completion_tokens", "output_tokens"]))
    }

    /// Whether a stream's last event says that it broke off.
    fn broke_off(self, answer: &Reply) -> bool {
        let last = last(answer, |_| true);
        match self {
            Self::Chat => last["error"]["code"] == "supplier_failed",
            Self::Messages => last["type"] == "error" && last["error"]["type"] == "api_error",
            Self::Responses => last["type"] == "response.failed",
        }
    }
}

fn last(answer: &Reply, wanted: impl Fn(&Value) -> bool) -> Value {
    let events = answer.events().into_iter().filter(|event| event != "[DONE]");
    let mut parsed: Vec<Value> =
        events.map(|event| serde_json::from_str(&event).expect("events are JSON")).collect();
    parsed.retain(|event| wanted(event));
    parsed.pop().unwrap_or_else(|| panic!("no such event: {}", answer.text))
}

/// Tasks of this test's runtime. Connections to suppliers have none of their own.
fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// A supplier pair that served one call of each surface already: what that leaves is not a leak.
struct Warm {
    scene: Scene,
    tasks: usize,
    bills: usize,
}

impl Warm {
    async fn open(surface: Surface) -> Self {
        let scene = Scene::open(2, Faults::default()).await;
        let answer = call(&scene, surface, true).await;
        surface.shown(&answer, true);
        scene.quiet("warm", IDLE).await;
        until("clients are gone", || scene.tier.stats().connections == 0).await;
        let tasks = tasks();
        Self { scene, tasks, bills: 1 }
    }

    async fn left_nothing(&self, what: &str) {
        self.scene.quiet(what, IDLE).await;
        let tier = &self.scene.tier;
        until(what, || tier.stats().connections == 0 && tasks() <= self.tasks).await;
    }
}

/// The venue was told of this supplier's faults, of no other kinds, and of nobody else's.
async fn is_reported(scene: &Scene, who: AccountId, kinds: &[Fault], what: &str) {
    until(what, || !scene.venue.faults().is_empty()).await;
    let faults = scene.venue.faults();
    let right = |(of, kind): &(u32, Fault)| *of == who.0 && kinds.contains(kind);
    assert!(faults.iter().all(right), "{what}: {faults:?}");
}

async fn until(what: &str, met: impl Fn() -> bool) {
    let waited = async {
        while !met() {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(std::time::Duration::from_secs(60), waited).await;
    assert!(
        waited.is_ok(),
        "waited in vain: {what}; tasks {}",
        Handle::current().metrics().num_alive_tasks()
    );
}

async fn call(scene: &Scene, surface: Surface, stream: bool) -> Reply {
    let caller = Caller::new(&scene.tier);
    caller.post(surface.path(), Some(KEY), &surface.body(stream).to_string()).await
}

/// A fault, what it is set by, and as what it is reported.
fn early() -> Vec<(&'static str, Faults, &'static [Fault])> {
    let fault = |change: fn(&mut Faults)| {
        let mut faults = Faults::default();
        change(&mut faults);
        faults
    };
    vec![
        ("refuses", fault(|f| f.refuse = true), &[Fault::Unreachable, Fault::Cut]),
        ("hangs before the headers", fault(|f| f.stall_before_headers_ms = 600_000), &[Fault::Slow]),
        ("closes before the first token", fault(|f| f.die_after_tokens = Some(0)), &[Fault::Cut]),
        ("says it is a web page", fault(|f| f.content_type = Some("text/html".into())), &[Fault::Malformed]),
        ("says 429", fault(|f| (f.status, f.retry_after_s) = (Some(429), Some(30))), &[Fault::Overloaded]),
        ("says 500", fault(|f| f.status = Some(500)), &[Fault::Refused]),
        ("says 503", fault(|f| (f.status, f.retry_after_s) = (Some(503), Some(30))), &[Fault::Overloaded]),
        ("sends invalid JSON", fault(|f| f.invalid_json = true), &[Fault::Malformed]),
    ]
}

#[tokio::test]
async fn a_fault_before_the_first_content_is_repaired_under_every_surface_and_leaves_nothing() {
    for surface in SURFACES {
        for (what, fault, kinds) in early() {
            for stream in [false, true] {
                let what = format!("{what}, {surface:?}, stream {stream}");
                let warm = Warm::open(surface).await;
                let scene = &warm.scene;
                // Whoever was asked first has the fault now; the other delivers.
                let first = scene.venue.usages()[0].supplier;
                let at = first.0 as usize - 2;
                scene.suppliers[at].set_faults(fault.clone());
                let before = scene.suppliers[1 - at].stats().completed;
                let answer = call(scene, surface, stream).await;
                let shown = surface.shown(&answer, stream);
                warm.left_nothing(&what).await;
                is_reported(scene, first, kinds, &what).await;
                let usages = scene.venue.usages();
                assert_eq!(usages.len(), warm.bills + 1, "{what}");
                let usage = usages[1];
                assert_ne!(usage.supplier, first, "{what}");
                assert_eq!((usage.prompt_tokens.0, usage.completion_tokens.0), shown, "{what}");
                let after = scene.suppliers[1 - at].stats().completed;
                let produced = (
                    after.prompt_tokens - before.prompt_tokens,
                    after.completion_tokens - before.completion_tokens,
                );
                assert_eq!(produced, shown, "{what}: what was delivered is what was billed");
            }
        }
    }
}

#[tokio::test]
async fn a_fault_in_the_middle_is_told_under_every_surface_and_bills_what_came() {
    for surface in SURFACES {
        for (what, fault, kind) in [
            ("closes", Faults { die_after_tokens: Some(10), ..Faults::default() }, Fault::Cut),
            ("closes in an event", Faults { cut_after_tokens: Some(10), ..Faults::default() }, Fault::Cut),
            ("hangs", Faults { stall_after_tokens: Some(10), ..Faults::default() }, Fault::Stalled),
            (
                "sends an error",
                Faults { error_event_after_tokens: Some(10), ..Faults::default() },
                Fault::Refused,
            ),
        ] {
            let what = format!("{what}, {surface:?}");
            let warm = Warm::open(surface).await;
            let first = warm.scene.venue.usages()[0].supplier;
            warm.scene.suppliers[first.0 as usize - 2].set_faults(fault);
            let answer = call(&warm.scene, surface, true).await;
            assert!(surface.broke_off(&answer), "{what}: {}", answer.text);
            warm.left_nothing(&what).await;
            is_reported(&warm.scene, first, &[kind], &what).await;
            let usage = warm.scene.venue.usages()[1];
            assert!(usage.partial && usage.estimated, "{what}: {usage:?}");
            assert_eq!(usage.supplier, first, "{what}");
            assert!((10..=20).contains(&usage.completion_tokens.0), "{what}: {usage:?}");
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_followed_by_the_supplier_under_every_surface() {
    for surface in SURFACES {
        let warm = Warm::open(surface).await;
        let scene = &warm.scene;
        let first = scene.venue.usages()[0].supplier;
        let supplier = &scene.suppliers[first.0 as usize - 2];
        supplier.set_faults(Faults { stall_after_tokens: Some(10), ..Faults::default() });
        {
            let caller = Caller::new(&scene.tier);
            let request = caller.chat_request(surface.path(), Some(KEY), &surface.body(true).to_string());
            let mut body = caller.open(request).await.into_body();
            // All ten, of which each is a piece of its own or shares one.
            let mut text = String::new();
            while text.matches(word(surface)).count() < 10 {
                let frame = http_body_util::BodyExt::frame(&mut body).await.expect("more").expect("more");
                text.push_str(std::str::from_utf8(frame.data_ref().expect("data")).expect("text"));
            }
        }
        until("the supplier is told to stop", || supplier.stats().cancelled.requests == 1).await;
        warm.left_nothing(&format!("{surface:?}")).await;
        let usage = scene.venue.usages()[1];
        assert!(usage.partial && (10..=20).contains(&usage.completion_tokens.0), "{usage:?}");
        assert_eq!(supplier.stats().cancelled.completion_tokens, 10);
        assert!(scene.venue.faults().is_empty(), "that is no fault of the supplier's");
    }
}

/// What stands in every event that brings a piece of text.
fn word(surface: Surface) -> &'static str {
    match surface {
        Surface::Chat => "\"delta\":{\"content\":\"",
        Surface::Messages => "event: content_block_delta",
        Surface::Responses => "event: response.output_text.delta",
    }
}

// -- TLS -----------------------------------------------------------------------------------------------------------

/// A port where TLS is spoken by somebody whom no authority knows; it serves until the test ends.
fn stranger() -> String {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]);
    let made = made.expect("a certificate");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("usual versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a good pair");
    let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").expect("loopback"));
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        while let Ok((mut socket, _)) = listener.accept() {
            let mut connection = rustls::ServerConnection::new(Arc::clone(&config)).expect("a connection");
            // Whoever checks certificates ends it here.
            let _ = connection.complete_io(&mut socket);
        }
    });
    format!("https://{address}/v1")
}

/// A port that takes connections and never says a word.
fn mute() -> (String, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    (format!("https://{}/v1", listener.local_addr().expect("bound")), listener)
}

#[tokio::test]
async fn a_tls_handshake_that_fails_is_a_supplier_out_of_reach_and_leaves_nothing() {
    let (silent, _listener) = mute();
    let plain = Scene::open(1, Faults::default()).await;
    let spoken_to = plain.suppliers[0].url.replace("http://", "https://");
    for (what, url) in [
        ("nobody knows its authority", stranger()),
        ("never shakes hands", silent),
        ("speaks no TLS", spoken_to),
    ] {
        for stream in [false, true] {
            let warm = Warm::open(Surface::Chat).await;
            let first = warm.scene.venue.usages()[0].supplier;
            warm.scene.venue.supplier(first.0, &url);
            let answer = call(&warm.scene, Surface::Chat, stream).await;
            let shown = Surface::Chat.shown(&answer, stream);
            warm.left_nothing(what).await;
            is_reported(&warm.scene, first, &[Fault::Unreachable, Fault::Slow], what).await;
            let usage = warm.scene.venue.usages()[1];
            assert_ne!(usage.supplier, first, "{what}");
            assert_eq!((usage.prompt_tokens.0, usage.completion_tokens.0), shown, "{what}");
        }
    }
    let good = Scene::open(1, Faults::default()).await;
    good.venue.supplier(AccountId(2).0, &stranger());
    let answer = call(&good, Surface::Chat, false).await;
    assert_eq!(answer.status, 503, "alone it can't be repaired: {}", answer.text);
    assert!(good.venue.usages().is_empty());
    good.quiet("alone", 0).await;
}
