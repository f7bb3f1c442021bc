//! One question to one model and what came of it, asked as calls are asked: the same connections, translation, reading
//! of events and count of tokens.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout, timeout_at};

use crate::answer;
use crate::config::Metering;
use crate::dialect::supplier;
use crate::meter::{Bill, Meter};
use crate::upstream::{Events, Failure, Opened, Order, Speaks, Upstream};

/// An answer this many times longer than its limit, by our own count of events, is not read to its end.
const OVERRUN: u64 = 4;
/// Events without content, or of several tokens' bookkeeping, that no limit counts.
const BOOKKEEPING: u64 = 256;

/// Whom is asked.
#[derive(Debug)]
pub(super) struct Target<'a> {
    pub(super) upstream: &'a Upstream,
    pub(super) metering: Metering,
    pub(super) base_url: &'a str,
    pub(super) credential: &'a [u8],
    pub(super) model: &'a str,
    /// Between two pieces of an answer.
    pub(super) idle: Duration,
}

/// What came.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) text: String,
    /// Name and arguments of each function called.
    pub(super) calls: Vec<(String, String)>,
    pub(super) finish: Option<String>,
    /// What a client would have been billed, by whose count, and whether the supplier's was beyond belief.
    pub(super) bill: Option<Bill>,
    /// Our own count.
    pub(super) own: Option<Bill>,
    pub(super) events: u64,
    /// To the first content of a stream, and to the end.
    pub(super) first_us: u64,
    pub(super) took_us: u64,
}

/// Why nothing of use came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// It was refused as wrong, with this status.
    Refused(u16),
    /// It failed, as a call would have.
    Failed(&'static str),
}

impl Silence {
    pub(super) fn why(self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Failed(why) => why,
        }
    }
}

impl From<Failure> for Silence {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Failed(_, why) => Self::Failed(why),
            Failure::Busy(_) => Self::Failed("too much to do"),
            Failure::Refused { status, .. } => Self::Refused(status.as_u16()),
            Failure::Unable { .. } => Self::Failed("not supported"),
        }
    }
}

impl Target<'_> {
    /// Asks a chat completion, translated where the supplier speaks otherwise.
    pub(super) async fn ask(&self, mut body: Value, stream: bool, until: Instant) -> Result<Heard, Silence> {
        let limit = body["max_tokens"].as_u64().unwrap_or(0);
        body["model"] = json!(self.model);
        if stream {
            body["stream"] = json!(true);
            body["stream_options"] = json!({"include_usage": true});
        }
        let chat = Bytes::from(body.to_string());
        let bytes = match Speaks::at(self.base_url) {
            Speaks::Chat => chat.clone(),
            Speaks::Messages => supplier::write(&chat, self.model, limit)
                .map_err(|_| Silence::Failed("can't be said there"))?,
        };
        let began = Instant::now();
        let opened = self.open(bytes, stream, limit, until).await?;
        let first_us = micros(began);
        let mut heard = Heard { first_us, ..Heard::default() };
        let mut meter = Meter::new(chat);
        match opened {
            Opened::Whole(answer) => heard.take(&answer, &mut meter, "message")?,
            Opened::Stream { held, mut rest } => {
                for event in held {
                    if let Some(data) = event.data {
                        heard.take(&data, &mut meter, "delta")?;
                    }
                }
                let most = limit.saturating_mul(OVERRUN).saturating_add(BOOKKEEPING);
                let read = self.rest(&mut rest, &mut heard, &mut meter, most);
                timeout_at(until, read).await.map_err(|_| Silence::Failed("no end in time"))??;
            }
        }
        heard.took_us = heard.took_us.max(micros(began));
        heard.bill = Some(meter.bill(self.metering));
        heard.own = Some(meter.partial_bill());
        Ok(heard)
    }

    /// Sends a body as it stands; all that is wanted is how it is refused.
    pub(super) async fn refusal(&self, body: &Value, until: Instant) -> Result<(), Silence> {
        self.open(Bytes::from(body.to_string()), false, 0, until).await.map(drop).map_err(Silence::from)
    }

    async fn open(&self, body: Bytes, stream: bool, limit: u64, until: Instant) -> Result<Opened, Failure> {
        let order = Order {
            base_url: self.base_url,
            credential: self.credential,
            body,
            stream,
            output_limit: limit,
            request: "probe",
            first_content: until.saturating_duration_since(Instant::now()),
            until,
        };
        self.upstream.open(order).await.map(|(opened, _)| opened)
    }

    async fn rest(
        &self,
        rest: &mut Events,
        heard: &mut Heard,
        meter: &mut Meter,
        most: u64,
    ) -> Result<(), Silence> {
        loop {
            let next = timeout(self.idle, rest.next()).await.map_err(|_| Silence::Failed("fell silent"))?;
            let Some(event) = next? else {
                return Ok(());
            };
            match event.data {
                Some(data) if data.as_ref() != b"[DONE]" => heard.take(&data, meter, "delta")?,
                _ => {}
            }
            if heard.events > most {
                return Err(Silence::Failed("no end within the limit"));
            }
        }
    }
}

impl Heard {
    /// One chunk, or a whole answer; `part` is where its choices say what they say.
    fn take(&mut self, data: &[u8], meter: &mut Meter, part: &str) -> Result<(), Silence> {
        let said = answer::read(data).map_err(|_| Silence::Failed("not JSON"))?;
        if said.error.is_some() {
            return Err(Silence::Failed("error event"));
        }
        meter.take(&said);
        self.events += 1;
        let value: Value = serde_json::from_slice(data).map_err(|_| Silence::Failed("not JSON"))?;
        let choice = &value["choices"][0];
        let said = &choice[part];
        self.text.push_str(said["content"].as_str().unwrap_or_default());
        for (at, call) in said["tool_calls"].as_array().into_iter().flatten().enumerate() {
            let at = call["index"].as_u64().unwrap_or(at as u64).min(127) as usize;
            if self.calls.len() <= at {
                self.calls.resize_with(at + 1, Default::default);
            }
            let piece = |name: &str| call["function"][name].as_str().unwrap_or_default();
            self.calls[at].0.push_str(piece("name"));
            self.calls[at].1.push_str(piece("arguments"));
        }
        if let Some(reason) = choice["finish_reason"].as_str() {
            self.finish = Some(reason.to_owned());
        }
        Ok(())
    }

    /// What it cost, by our own count.
    pub(super) fn tokens(&self) -> u64 {
        self.own.map_or(0, |own| own.prompt.saturating_add(own.completion))
    }

    /// Tokens per second after the first content, in thousandths, by our own count; nothing where too little came to be
    /// measured.
    pub(super) fn pace_milli(&self) -> Option<u64> {
        let tokens = self.own?.completion.checked_sub(1).filter(|tokens| *tokens >= 15)?;
        let micros = self.took_us.saturating_sub(self.first_us).max(1);
        u64::try_from(u128::from(tokens) * 1_000_000_000 / u128::from(micros)).ok()
    }

    pub(super) fn note(&self, figures: &mut BTreeMap<&'static str, u64>) {
        figures.insert("events", self.events);
        figures.insert("took_us", self.took_us);
        for (bill, prompt, completion) in [
            (self.bill, "prompt_tokens", "completion_tokens"),
            (self.own, "own_prompt_tokens", "own_completion_tokens"),
        ] {
            if let Some(bill) = bill {
                figures.insert(prompt, bill.prompt);
                figures.insert(completion, bill.completion);
            }
        }
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
