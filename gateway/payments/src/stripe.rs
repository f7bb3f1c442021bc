//! Cards, through Stripe's HTTP API: a PaymentIntent that is confirmed at once, off session.
//!
//! | Stripe says | which is |
//! |---|---|
//! | 200 `succeeded` | paid: `amount_received` |
//! | 200 `processing` | looked at again by its id |
//! | 200 anything else | declined: nobody is there who could act on it |
//! | 402, and other 4xx about this card or customer | declined |
//! | 401, 403 | asked again: it is our key that is wrong, not the card |
//! | 409, 429 | asked again, no sooner than `Retry-After` |
//! | 5xx | looked for in the customer's list, since the key would only repeat the 5xx; else asked again |
//! | hang-up, no answer in time | asked again under the same key, for which Stripe charges once |
//!
//! Amounts are whole cents; a part of a cent is not charged and not credited, so nobody is ever charged more than is
//! credited. Stripe forgets keys after a day, so the worker gives up before that.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use grid_engine::funding::{PaymentMethod, PaymentSource};
use grid_engine::units::NANOS_PER_USD;
use grid_engine::{SECOND, Usd};
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use hyper::{Method, Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;

use crate::form;
use crate::provider::{Charge, Outcome, Pending, Provider};

/// One cent in nano-dollars.
const CENT: i64 = NANOS_PER_USD / 100;
/// Longest answer that is read, in bytes.
const ANSWER_MAX: usize = 1 << 20;
/// How far back before a reload fell due its PaymentIntent is looked for: clocks differ.
const LOOK_BACK_S: u64 = 3_600;

/// A key that prints as nothing, so that no log ever has it.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct SecretKey(String);

impl SecretKey {
    /// From its text.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

/// How Stripe is reached.
#[derive(Clone, Debug)]
pub struct StripeSettings {
    /// Where, without a path and without `/` at the end: `https://api.stripe.com`.
    pub base_url: String,
    /// The account's secret key.
    pub secret_key: SecretKey,
    /// The `Stripe-Version` that answers are to be of.
    pub version: String,
    /// For a whole answer.
    pub timeout: Duration,
}

impl StripeSettings {
    /// Stripe itself, with this key.
    #[must_use]
    pub fn new(secret_key: SecretKey) -> Self {
        Self {
            base_url: "https://api.stripe.com".into(),
            secret_key,
            version: "2024-06-20".into(),
            timeout: Duration::from_secs(80),
        }
    }
}

/// The adapter.
#[derive(Clone, Debug)]
pub struct Stripe {
    settings: StripeSettings,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Stripe {
    /// Nothing is asked yet.
    #[must_use]
    pub fn new(settings: StripeSettings) -> Self {
        let connector =
            HttpsConnectorBuilder::new().with_webpki_roots().https_or_http().enable_http1().build();
        // Reloads are far between: a connection that was kept is one that may just be closing.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Self { settings, client }
    }

    async fn charged(self, charge: Charge) -> Outcome {
        let PaymentSource::Provider(method) = &charge.source else {
            return Outcome::Declined { why: "the account has no card".into() };
        };
        let cents = charge.amount.0 / CENT;
        let fields = parameters(&charge, method, cents);
        let answer = match self.ask(Method::POST, "/v1/payment_intents", &fields).await {
            Ok(answer) => answer,
            Err(why) => return Outcome::Again { why, after: None },
        };
        match answer.status.as_u16() {
            200..=299 => match answer.intent() {
                Some(intent) => self.follow(intent, cents).await,
                None => again("an answer that is no PaymentIntent"),
            },
            401 | 403 => again(&format!("our key is refused: {}", answer.error())),
            409 | 429 => Outcome::Again { why: answer.error(), after: answer.retry_after },
            400..=499 if answer.error_type() == "idempotency_error" => again(&answer.error()),
            400..=499 => Outcome::Declined { why: answer.error() },
            _ => match self.find(&charge, method).await {
                Some(intent) => self.follow(intent, cents).await,
                None => Outcome::Again { why: answer.error(), after: answer.retry_after },
            },
        }
    }

    /// What a PaymentIntent means; one that is in process is looked at once more, since the answer may be an old one.
    async fn follow(&self, intent: Intent, cents: i64) -> Outcome {
        let mut intent = intent;
        if intent.status == "processing" && form::is_name(&intent.id) {
            match self.ask(Method::GET, &format!("/v1/payment_intents/{}", intent.id), &[]).await {
                Ok(answer) if answer.status.is_success() => match answer.intent() {
                    Some(now) => intent = now,
                    None => return again("an answer that is no PaymentIntent"),
                },
                Ok(answer) => return again(&answer.error()),
                Err(why) => return again(&why),
            }
        }
        match intent.status.as_str() {
            "succeeded" if intent.currency != "usd" => again("paid, but not in dollars"),
            "succeeded" => {
                let received = intent.amount_received.unwrap_or(cents).clamp(0, cents);
                Outcome::Paid { amount: Usd(received * CENT) }
            }
            "processing" => again("the payment is in process"),
            other => Outcome::Declined { why: format!("the payment is {other}") },
        }
    }

    /// The charge's PaymentIntent among the customer's.
    async fn find(&self, charge: &Charge, method: &PaymentMethod) -> Option<Intent> {
        let since = (charge.due_at.0 / SECOND).saturating_sub(LOOK_BACK_S);
        let query = [
            ("customer", method.customer.clone()),
            ("created[gte]", since.to_string()),
            ("limit", "100".to_owned()),
        ];
        let answer = self.ask(Method::GET, "/v1/payment_intents", &query).await.ok()?;
        let listed: Listed = serde_json::from_slice(&answer.body).ok()?;
        listed.data.into_iter().find(|intent| intent.metadata.grid_reload.as_deref() == Some(&charge.key))
    }

    async fn ask(&self, method: Method, path: &str, fields: &[(&str, String)]) -> Result<Answer, String> {
        let StripeSettings { base_url, secret_key, version, timeout } = &self.settings;
        let encoded = form::encode(fields);
        let (uri, body) = if method == Method::POST {
            (format!("{base_url}{path}"), encoded)
        } else if encoded.is_empty() {
            (format!("{base_url}{path}"), String::new())
        } else {
            (format!("{base_url}{path}?{encoded}"), String::new())
        };
        let mut request = Request::builder()
            .method(&method)
            .uri(uri)
            .header(AUTHORIZATION, format!("Bearer {}", secret_key.0))
            .header("stripe-version", version);
        if method == Method::POST {
            let key = fields.iter().find(|(name, _)| *name == KEY_FIELD).map_or("", |(_, key)| key.as_str());
            request = request
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .header("idempotency-key", key);
        }
        // The error of a bad request might show the header with the key.
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| "not a request one can send".to_owned())?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| error.to_string())?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_MAX).collect().await.map_err(|error| error.to_string())?;
            let seconds = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            Ok(Answer {
                status: head.status,
                retry_after: seconds.map(Duration::from_secs),
                body: body.to_bytes(),
            })
        };
        tokio::time::timeout(*timeout, exchange).await.unwrap_or_else(|_| Err("no answer in time".into()))
    }
}

impl Provider for Stripe {
    fn charge(&self, charge: Charge) -> Pending<Outcome> {
        Box::pin(self.clone().charged(charge))
    }
}

/// The reload's key goes along as metadata, by which it can be found again.
const KEY_FIELD: &str = "metadata[grid_reload]";

fn parameters(charge: &Charge, method: &PaymentMethod, cents: i64) -> Vec<(&'static str, String)> {
    let yes = || "true".to_owned();
    vec![
        ("amount", cents.to_string()),
        ("currency", "usd".into()),
        ("customer", method.customer.clone()),
        ("payment_method", method.method.clone()),
        ("confirm", yes()),
        ("off_session", yes()),
        // Nobody is there to act on it, and no intent stays open that somebody could still pay.
        ("error_on_requires_action", yes()),
        ("automatic_payment_methods[enabled]", yes()),
        ("automatic_payment_methods[allow_redirects]", "never".into()),
        ("description", "Auto-Reload".into()),
        (KEY_FIELD, charge.key.clone()),
        ("metadata[grid_account]", charge.account.0.to_string()),
    ]
}

fn again(why: &str) -> Outcome {
    Outcome::Again { why: why.to_owned(), after: None }
}

struct Answer {
    status: StatusCode,
    retry_after: Option<Duration>,
    body: Bytes,
}

#[derive(Deserialize)]
struct Intent {
    id: String,
    status: String,
    currency: String,
    amount_received: Option<i64>,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
struct Metadata {
    grid_reload: Option<String>,
}

#[derive(Deserialize)]
struct Listed {
    data: Vec<Intent>,
}

#[derive(Default, Deserialize)]
struct Refused {
    #[serde(default)]
    error: Told,
}

#[derive(Default, Deserialize)]
struct Told {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    decline_code: String,
}

impl Answer {
    fn intent(&self) -> Option<Intent> {
        serde_json::from_slice(&self.body).ok()
    }

    fn told(&self) -> Told {
        serde_json::from_slice::<Refused>(&self.body).unwrap_or_default().error
    }

    fn error_type(&self) -> String {
        self.told().kind
    }

    /// Status and codes; messages may name people.
    fn error(&self) -> String {
        let Told { kind, code, decline_code } = self.told();
        let words = [self.status.as_str(), &kind, &code, &decline_code];
        words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    }
}
