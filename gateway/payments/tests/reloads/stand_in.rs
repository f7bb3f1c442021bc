//! A local stand-in of Stripe's HTTP API, as far as the adapter uses it.
//!
//! Of what it is asked it keeps everything; a charge is made once per idempotency key, and the answer of then is repeated,
//! an error as well, as Stripe's documentation says. The same key with other parameters is an `idempotency_error`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use grid_payments::{SecretKey, Stripe, StripeSettings};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// The key that it knows.
pub(crate) const SECRET: &str = "sk_test_never_shown";
/// How long a test waits for what must happen; far longer than it ever takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What it does with a new charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Charges and says so.
    Pay,
    /// Charges and hangs up.
    PayAndHangUp,
    /// Charges and answers 500, now and whenever the key is asked again.
    PayAndFail,
    /// Charges and never answers.
    PayAndStall,
    /// The payment is in process until `settle` is called.
    Process,
    /// The bank says no.
    Decline,
    /// The bank wants its customer to act.
    Authenticate,
    /// This customer is not known.
    Unknown,
    /// Answers so without having looked at the request.
    Busy(u16),
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) form: BTreeMap<String, String>,
}

#[derive(Default)]
struct Books {
    got: Vec<Got>,
    ways: VecDeque<Way>,
    /// By key: the form and the answer of then.
    keys: BTreeMap<String, (BTreeMap<String, String>, u16, Value)>,
    intents: BTreeMap<String, Value>,
}

pub(crate) struct StandIn {
    pub(crate) url: String,
    books: Mutex<Books>,
    changed: watch::Sender<()>,
}

enum Reply {
    Answer(u16, Value, Option<u64>),
    HangUp,
    Stall,
}

impl StandIn {
    pub(crate) async fn start(ways: &[Way]) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let books = Books { ways: ways.iter().copied().collect(), ..Books::default() };
        let stand_in = Arc::new(Self { url, books: Mutex::new(books), changed: watch::channel(()).0 });
        let serving = Arc::clone(&stand_in);
        tokio::spawn(async move {
            loop {
                let Ok((socket, _)) = listener.accept().await else { return };
                let stand_in = Arc::clone(&serving);
                tokio::spawn(async move {
                    let service = service_fn(|request| {
                        let stand_in = Arc::clone(&stand_in);
                        async move { stand_in.serve(request).await }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service)
                        .await;
                });
            }
        });
        stand_in
    }

    pub(crate) fn adapter(&self, timeout: Duration) -> Stripe {
        let settings = StripeSettings::new(SecretKey::new(SECRET.into()));
        Stripe::new(StripeSettings { base_url: self.url.clone(), timeout, ..settings })
    }

    pub(crate) fn got(&self) -> Vec<Got> {
        self.books.lock().got.clone()
    }

    /// Cents of each charge that was made, by the key under which it was asked for.
    pub(crate) fn charged(&self) -> BTreeMap<String, i64> {
        let books = self.books.lock();
        let paid = books.intents.values().filter(|intent| intent["status"] == "succeeded");
        let mut charged = BTreeMap::new();
        for intent in paid {
            let key = intent["metadata"]["grid_reload"].as_str().unwrap().to_owned();
            *charged.entry(key).or_default() += intent["amount_received"].as_i64().unwrap();
        }
        charged
    }

    /// Payments in process have arrived.
    pub(crate) fn settle(&self) {
        for intent in self.books.lock().intents.values_mut() {
            intent["status"] = "succeeded".into();
            intent["amount_received"] = intent["amount"].clone();
        }
    }

    /// Returns once it was asked so often.
    pub(crate) async fn until_requests(&self, count: usize) {
        let mut changed = self.changed.subscribe();
        let met = async {
            while self.got().len() < count {
                changed.changed().await.expect("the stand-in lives");
            }
        };
        assert!(tokio::time::timeout(PATIENCE, met).await.is_ok(), "asked only {} times", self.got().len());
    }

    async fn serve(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, std::io::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
        let text = |value: &hyper::header::HeaderValue| value.to_str().unwrap_or_default().to_owned();
        let got = Got {
            method: head.method,
            path: head.uri.path().to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            headers: head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
            form: decode(std::str::from_utf8(&body).unwrap_or_default()),
        };
        let reply = self.answer(&got);
        self.books.lock().got.push(got);
        self.changed.send_replace(());
        match reply {
            Reply::Answer(status, body, retry_after) => {
                let mut response =
                    Response::builder().status(status).header("content-type", "application/json");
                if let Some(seconds) = retry_after {
                    response = response.header("retry-after", seconds);
                }
                Ok(response.body(Full::new(Bytes::from(body.to_string()))).unwrap())
            }
            Reply::HangUp => Err(std::io::Error::other("hung up")),
            Reply::Stall => std::future::pending().await,
        }
    }

    fn answer(&self, got: &Got) -> Reply {
        let header = |name: &str| got.headers.get(name).map_or("", String::as_str);
        if header("authorization") != format!("Bearer {SECRET}") {
            return error(401, "invalid_request_error", "", "");
        }
        if header("stripe-version").len() != 10 {
            return error(400, "invalid_request_error", "", "");
        }
        let mut books = self.books.lock();
        match (&got.method, got.path.as_str()) {
            (&Method::POST, "/v1/payment_intents") => {
                if header("content-type") != "application/x-www-form-urlencoded" {
                    return error(400, "invalid_request_error", "parameter_unknown", "");
                }
                charge(&mut books, header("idempotency-key"), &got.form)
            }
            (&Method::GET, "/v1/payment_intents") => {
                let query = decode(&got.query);
                let of = |intent: &&Value| intent["customer"] == query["customer"].as_str();
                let data: Vec<_> = books.intents.values().filter(of).cloned().collect();
                Reply::Answer(200, json!({"object": "list", "has_more": false, "data": data}), None)
            }
            (&Method::GET, path) => match path.strip_prefix("/v1/payment_intents/") {
                Some(id) if books.intents.contains_key(id) => {
                    Reply::Answer(200, books.intents[id].clone(), None)
                }
                _ => error(404, "invalid_request_error", "resource_missing", ""),
            },
            _ => error(404, "invalid_request_error", "", ""),
        }
    }
}

fn charge(books: &mut Books, key: &str, form: &BTreeMap<String, String>) -> Reply {
    if let Some((asked, status, body)) = books.keys.get(key) {
        if asked != form {
            return error(400, "idempotency_error", "", "");
        }
        return Reply::Answer(*status, body.clone(), None);
    }
    let way = books.ways.pop_front().unwrap_or(Way::Pay);
    if let Way::Busy(status) = way {
        // Turned away at the door: nothing was executed, so nothing is kept under the key.
        let retry_after = (status == 429).then_some(0);
        return Reply::Answer(status, json!({"error": {"type": "api_error"}}), retry_after);
    }
    let id = format!("pi_{}", books.intents.len() + 1);
    let amount: i64 = form["amount"].parse().unwrap();
    let (status, received) = match way {
        Way::Process => ("processing", 0),
        Way::Decline | Way::Authenticate => ("requires_payment_method", 0),
        _ => ("succeeded", amount),
    };
    let intent = json!({
        "id": id, "object": "payment_intent", "status": status, "currency": form["currency"], "amount": amount,
        "amount_received": received, "customer": form["customer"],
        "metadata": {"grid_reload": form["metadata[grid_reload]"], "grid_account": form["metadata[grid_account]"]},
    });
    let (status, body) = match way {
        Way::Decline => (
            402,
            json!({"error": {"type": "card_error", "code": "card_declined",
            "decline_code": "insufficient_funds", "payment_intent": intent}}),
        ),
        Way::Authenticate => {
            (402, json!({"error": {"type": "card_error", "code": "authentication_required"}}))
        }
        Way::Unknown => {
            (400, json!({"error": {"type": "invalid_request_error", "code": "resource_missing"}}))
        }
        Way::PayAndFail => (500, json!({"error": {"type": "api_error"}})),
        _ => (200, intent.clone()),
    };
    if way != Way::Unknown {
        books.intents.insert(id, intent);
    }
    books.keys.insert(key.to_owned(), (form.clone(), status, body.clone()));
    match way {
        Way::PayAndHangUp => Reply::HangUp,
        Way::PayAndStall => Reply::Stall,
        _ => Reply::Answer(status, body, None),
    }
}

fn error(status: u16, kind: &str, code: &str, decline_code: &str) -> Reply {
    debug_assert!(StatusCode::from_u16(status).is_ok());
    Reply::Answer(status, json!({"error": {"type": kind, "code": code, "decline_code": decline_code}}), None)
}

fn decode(form: &str) -> BTreeMap<String, String> {
    let plain = |text: &str| {
        let mut out = Vec::new();
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            out.push(match byte {
                b'+' => b' ',
                b'%' => {
                    let pair = [bytes.next().unwrap(), bytes.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&pair).unwrap(), 16).unwrap()
                }
                other => other,
            });
        }
        String::from_utf8(out).unwrap()
    };
    form.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (plain(name), plain(value)))
        .collect()
}
