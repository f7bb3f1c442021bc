//! The life of a call, from the reservation to the last byte.
//!
//! It runs in a task of its own, so that a client that goes away ends it in an orderly way instead of cutting it off:
//! the supplier is cancelled at once, what was delivered is settled, and where nothing was, all is given back. The
//! handler only waits for the head of the answer, and a bounded channel carries the rest.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use grid_engine::{AccountId, InstrumentId, Nanos, Reject, Tokens};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use crate::answer::{self, Said};
use crate::dialect::{Teller, Untold, supplier};
use crate::door::{Directory, DoorError, Reserved};
use crate::hold::{Bureau, Hold};
use crate::meter::Bill;
use crate::reply::{Out, Refusal, bytes_response};
use crate::request::ChatRequest;
use crate::roster::{Candidate, Slot, Verdict};
use crate::server::{InFlight, Tier};
use crate::sse::Event;
use crate::stats::bump;
use crate::trace::Trace;
use crate::upstream::{Events, Failure, Opened, Order, Speaks};

/// Smallest output that a capped call is still worth starting for, in tokens.
const OUTPUT_MIN: u64 = 16;
/// How soon and how late a replica is searched for a reservation whose answer was lost.
const LOST_LOOK_MIN: Duration = Duration::from_millis(50);
const LOST_LOOK_MAX: Duration = Duration::from_secs(60);

/// A validated call of a known client.
pub(crate) struct Call {
    /// Public handle and its number.
    pub(crate) name: String,
    pub(crate) request: u128,
    pub(crate) account: AccountId,
    pub(crate) instrument: InstrumentId,
    /// Output limit where the client names none, per choice, in tokens.
    pub(crate) output_default: u64,
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) chat: ChatRequest,
    /// Tells the answer in the client's language, where that is not the suppliers' own.
    pub(crate) teller: Option<Box<Teller>>,
    /// How it is routed, for an operator who asked.
    pub(crate) trace: Trace,
    /// Counts the call while it lasts.
    pub(crate) _in_flight: InFlight,
}

/// Where the head of the answer goes.
pub(crate) type Head = oneshot::Sender<Result<Response<Out>, Refusal>>;

/// Runs the call to its end.
pub(crate) async fn run(tier: Arc<Tier>, mut call: Call, mut head: Head) {
    let deadline = Instant::now() + tier.config.clocks.call;
    let teller = call.teller.take();
    let reserved = tokio::select! {
        biased;
        () = head.closed() => None,
        reserved = reserve(&tier, &call) => Some(reserved),
    };
    let (reserved, hold, cap) = match reserved {
        // Whatever the venue still answers is released by the task that waits for it.
        None => return bump(&tier.stats.cancelled),
        Some(Err(refusal)) => return drop(head.send(Err(refusal))),
        Some(Ok(reserved)) => reserved,
    };
    let route = tier.roster.rank(&mut call.candidates, &reserved.issuers, call.chat.affinity);
    call.trace.note(&route);
    if !call.chat.fallbacks {
        call.candidates.truncate(1);
    }
    match deliver(&tier, &call, hold, cap, deadline, &mut head).await {
        Delivery::Over => {}
        Delivery::Refused(refusal) => drop(head.send(Err(refusal))),
        Delivery::Stream { held, rest, hold, slot } => {
            let (events, body) = mpsc::channel(tier.config.limits.events_buffered);
            if head.send(Ok(stream_response(body))).is_err() {
                bump(&tier.stats.cancelled);
                drop(hold.cut_short());
                return;
            }
            let relay = Relay {
                tier: &tier,
                call: &call,
                teller,
                hold,
                slot,
                events,
                rest,
                deadline,
                usage_event: None,
                last: None,
                finished: false,
                waited: false,
            };
            relay.run(held).await;
        }
        Delivery::Whole { body, hold, mut slot } => {
            if head.is_closed() {
                bump(&tier.stats.cancelled);
                drop(hold.release(AccountId::VENUE));
                return;
            }
            slot.judge(Verdict::Good);
            drop(slot);
            let answer = whole_answer(&tier, teller, body, hold).await;
            let _ = head.send(answer);
        }
    }
}

/// How the search for a supplier ended.
enum Delivery {
    /// The client is gone, and all is given back.
    Over,
    /// Nobody delivered, and all is given back.
    Refused(Refusal),
    Stream {
        held: Vec<Event>,
        rest: Events,
        hold: Hold,
        slot: Slot,
    },
    Whole {
        body: Bytes,
        hold: Hold,
        slot: Slot,
    },
}

// -- the reservation -----------------------------------------------------------------------------------------------

/// Sets tokens aside: the prompt's bound and the output limit. Where that is more than there is and the client named
/// no limit, once more with what is left.
async fn reserve(tier: &Tier, call: &Call) -> Result<(Reserved, Hold, Option<u64>), Refusal> {
    let prompt = call.chat.prompt_bound();
    let per_choice = call.chat.output_limit.unwrap_or(call.output_default);
    let wanted = prompt.saturating_add(per_choice.saturating_mul(call.chat.choices));
    let refused = match ask(tier, call, wanted).await {
        Ok((reserved, hold)) => return Ok((reserved, hold, None)),
        Err(error) => error,
    };
    let short = matches!(
        refused,
        DoorError::Rejected(Reject::InsufficientTokens | Reject::InsufficientFunds | Reject::NoSupply)
    );
    if short && call.chat.output_limit.is_none() {
        let free =
            tier.directory.read(|state| Some(state.holding(call.account, call.instrument)?.free_tokens().0));
        let left = free.unwrap_or(0).min(wanted.saturating_sub(1));
        let cap = left.saturating_sub(prompt) / call.chat.choices;
        if cap >= OUTPUT_MIN
            && let Ok((reserved, hold)) = ask(tier, call, prompt + cap * call.chat.choices).await
        {
            return Ok((reserved, hold, Some(cap)));
        }
    }
    Err(refusal_of(&refused))
}

/// One question to the venue. Its answer is waited for in a task of its own: if nobody wants it any more, the
/// reservation that it brings is released.
async fn ask(tier: &Tier, call: &Call, tokens: u64) -> Result<(Reserved, Hold), DoorError> {
    let life = Nanos(u64::try_from(tier.config.clocks.reservation.as_nanos()).unwrap_or(u64::MAX));
    let answer = tier.bureau.door.reserve(call.account, call.instrument, Tokens(tokens), call.request, life);
    let (bureau, account, body) = (tier.bureau.clone(), call.account, call.chat.body.clone());
    let (give, take) = oneshot::channel();
    let (directory, request) = (Arc::clone(&tier.directory), call.request);
    tokio::spawn(async move {
        let answer = answer.await;
        let lost = matches!(answer, Err(DoorError::Unavailable(_)));
        let made = bureau.clone();
        let answer = answer.map(|reserved| {
            let hold = Hold::new(made, account, reserved.reservation, body);
            (reserved, hold)
        });
        if let Err(Ok((_, hold))) = give.send(answer) {
            drop(hold.release(AccountId::VENUE));
        }
        if lost {
            release_if_made(&*directory, bureau, account, request).await;
        }
    });
    let lost = |why: &str| Err(DoorError::Unavailable(why.to_owned()));
    match timeout(tier.config.clocks.reserve, take).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => lost("the answer was lost"),
        Err(_) => lost("no answer in time"),
    }
}

/// A reservation whose answer was lost may have been made all the same: it shows in the replica then, and is given
/// back instead of being left to lapse.
async fn release_if_made(directory: &dyn Directory, bureau: Bureau, account: AccountId, request: u128) {
    let mut wait = LOST_LOOK_MIN;
    while wait <= LOST_LOOK_MAX {
        let made = directory.read(|state| state.reservations.by_request(account, request));
        if let Some(reservation) = made {
            let hold = Hold::new(bureau, account, reservation, Bytes::new());
            drop(hold.release(AccountId::VENUE));
            return;
        }
        tokio::time::sleep(wait).await;
        wait *= 2;
    }
}

fn refusal_of(error: &DoorError) -> Refusal {
    let payment = |code, text: &str| Refusal::new(StatusCode::PAYMENT_REQUIRED, code, text);
    let later = Duration::from_secs(2);
    match error {
        DoorError::Unavailable(_) => {
            Refusal::unavailable("venue_unavailable", "the venue is out of reach; try again shortly", later)
        }
        DoorError::Rejected(reject) => match reject {
            Reject::InsufficientFunds => {
                payment("insufficient_funds", "not enough USD to buy the tokens of this call")
            }
            Reject::InsufficientTokens => payment(
                "insufficient_tokens",
                "not enough tokens of this instrument in consumption for this call",
            ),
            Reject::NoSupply => Refusal::unavailable(
                "no_supply",
                "nobody sells this instrument within your limits just now",
                later,
            ),
            Reject::InstrumentNotLive => {
                Refusal::unavailable("instrument_not_live", "this instrument is not open just now", later)
            }
            Reject::LimitReached => {
                Refusal::unavailable("busy", "too many calls in progress at the venue", later)
            }
            Reject::UnknownInstrument => {
                Refusal::new(StatusCode::NOT_FOUND, "model_not_found", "unknown instrument")
            }
            Reject::OutOfRange | Reject::InvalidQuantity => {
                Refusal::field("max_tokens", "the call could use more tokens than the venue can set aside")
            }
            other => Refusal::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "reservation_refused",
                format!("the venue refused the reservation: {other}"),
            ),
        },
    }
}

// -- the choice of a supplier --------------------------------------------------------------------------------------

/// Tries suppliers until one delivers its first content.
async fn deliver(
    tier: &Tier,
    call: &Call,
    mut hold: Hold,
    cap: Option<u64>,
    deadline: Instant,
    head: &mut Head,
) -> Delivery {
    let mut failed = AccountId::VENUE;
    let mut tried = 0;
    let (mut unable, mut unasked) = (None, None);
    let last_resort = tier.roster.last_resort(&call.candidates);
    let regular = call.candidates.iter().map(|candidate| (candidate, false));
    for (candidate, forced) in regular.chain(last_resort.map(|candidate| (candidate, true))) {
        if tried >= tier.config.routing.attempts || Instant::now() >= deadline || (forced && tried > 0) {
            break;
        }
        let mut body = call.chat.rewritten(&candidate.model, cap);
        if Speaks::at(&candidate.base_url) == Speaks::Messages {
            match supplier::write(&body, &candidate.model, call.output_default) {
                Ok(written) => body = written,
                Err(why) => {
                    call.trace.attempt(candidate.supplier, "can't be asked");
                    unasked =
                        Some(format!("no supplier of this instrument can be asked this just now: {why}"));
                    continue;
                }
            }
        }
        let entered = if forced { tier.roster.force(candidate) } else { tier.roster.enter(candidate) };
        let Some(mut slot) = entered else {
            continue;
        };
        let Some(credential) = credential(tier, candidate) else {
            slot.judge(Verdict::Bad);
            continue;
        };
        if tried > 0 {
            bump(&tier.stats.failovers);
        }
        tried += 1;
        hold.attempt(candidate.supplier);
        let order = Order {
            base_url: &candidate.base_url,
            credential: &credential,
            body,
            stream: call.chat.stream,
            output_limit: call.chat.output_limit.unwrap_or(0),
            request: &call.name,
            deadline,
        };
        let opened = tokio::select! {
            biased;
            () = head.closed() => None,
            opened = tier.upstream.open(order) => Some(opened),
        };
        let failure = match opened {
            None => {
                bump(&tier.stats.cancelled);
                drop(hold.release(AccountId::VENUE));
                return Delivery::Over;
            }
            Some(Ok((opened, spent))) => {
                slot.spent(spent);
                hold.first_content();
                slot.first_content();
                call.trace.attempt(candidate.supplier, "delivers");
                return match opened {
                    Opened::Stream { held, rest } => Delivery::Stream { held, rest, hold, slot },
                    Opened::Whole(body) => Delivery::Whole { body, hold, slot },
                };
            }
            Some(Err(failure)) => failure,
        };
        match failure {
            Failure::Refused { status, message } => {
                let _ = hold.release(AccountId::VENUE).await;
                return Delivery::Refused(Refusal::new(status, "refused_upstream", message));
            }
            Failure::Unable { param, message } => {
                call.trace.attempt(candidate.supplier, "unable");
                tier.roster.lacks(candidate, call.chat.needs.asked_by(&param));
                unable = Some(message);
            }
            Failure::Busy(pause) => {
                call.trace.attempt(candidate.supplier, "busy");
                slot.judge(Verdict::Busy(pause));
            }
            Failure::Failed(reason) => {
                tracing::info!(supplier = candidate.supplier.0, request = %call.name, reason, "supplier failed");
                call.trace.attempt(candidate.supplier, reason);
                slot.judge(Verdict::Bad);
                failed = candidate.supplier;
            }
        }
    }
    let _ = timeout(tier.config.clocks.settle, hold.release(failed)).await;
    if let Some(message) = unable.or(unasked.filter(|_| tried == 0)) {
        return Delivery::Refused(Refusal::new(StatusCode::BAD_REQUEST, "unsupported_parameter", message));
    }
    Delivery::Refused(Refusal::unavailable(
        "no_supplier",
        "no supplier could deliver just now; nothing was billed",
        Duration::from_secs(1),
    ))
}

fn credential(tier: &Tier, candidate: &Candidate) -> Option<Vec<u8>> {
    if candidate.sealed_credential.is_empty() {
        return Some(Vec::new());
    }
    let opened = tier.config.venue_key.unseal(&candidate.sealed_credential);
    opened
        .inspect_err(|error| {
            tracing::error!(supplier = candidate.supplier.0, %error, "a supplier's credential can't be opened");
        })
        .ok()
}

// -- the stream ----------------------------------------------------------------------------------------------------

fn stream_response(body: mpsc::Receiver<Bytes>) -> Response<Out> {
    let mut response = Response::new(Out::Stream(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// A stream on its way from a supplier to a client.
struct Relay<'a> {
    tier: &'a Tier,
    call: &'a Call,
    teller: Option<Box<Teller>>,
    hold: Hold,
    slot: Slot,
    events: mpsc::Sender<Bytes>,
    rest: Events,
    deadline: Instant,
    /// The usage chunk, kept back until it is known to be believable.
    usage_event: Option<Event>,
    /// What every chunk repeats, for a usage chunk of our own.
    last: Option<(String, String, u64)>,
    /// A choice has given its reason to stop.
    finished: bool,
    /// The client kept the supplier waiting, so that its pace says nothing.
    waited: bool,
}

/// What an event makes of the stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Done,
    Gone,
    Broken(&'static str),
}

impl Relay<'_> {
    async fn run(mut self, held: Vec<Event>) {
        for event in held {
            match self.pass(event).await {
                Flow::On => {}
                flow => return self.end(flow).await,
            }
        }
        let flow = self.pump().await;
        self.end(flow).await;
    }

    async fn pump(&mut self) -> Flow {
        loop {
            let until = self.deadline.min(Instant::now() + self.tier.config.clocks.idle);
            let event = tokio::select! {
                biased;
                () = self.events.closed() => return Flow::Gone,
                event = timeout_at(until, self.rest.next()) => event,
            };
            let event = match event {
                Err(_) if Instant::now() >= self.deadline => return Flow::Broken("longest duration reached"),
                Err(_) => return Flow::Broken("silent for too long"),
                Ok(Err(_)) => return Flow::Broken("connection lost"),
                // Some suppliers never say [DONE]; a reason to stop is as good.
                Ok(Ok(None)) if self.finished => return Flow::Done,
                Ok(Ok(None)) => return Flow::Broken("ended early"),
                Ok(Ok(Some(event))) => event,
            };
            match self.pass(event).await {
                Flow::On => {}
                flow => return flow,
            }
        }
    }

    /// Passes one event on, or keeps it back, or learns from it that the stream is over.
    async fn pass(&mut self, event: Event) -> Flow {
        let Some(data) = event.data.clone() else {
            let bytes = self.teller.as_ref().map_or(event.raw, |teller| teller.still_here());
            return if self.send(bytes).await { Flow::On } else { Flow::Gone };
        };
        if data.as_ref() == b"[DONE]" {
            return Flow::Done;
        }
        let Ok(said) = answer::read(&data) else {
            return Flow::Broken("not JSON");
        };
        if said.error.is_some() {
            return Flow::Broken("error event");
        }
        self.finished |= said.finished;
        if let Some(id) = &said.id {
            let model = said.model.as_deref().unwrap_or_default();
            if self.last.as_ref().is_none_or(|last| last.0 != **id) {
                self.last = Some((id.clone().into_owned(), model.to_owned(), said.created));
            }
        }
        if let Some(teller) = &mut self.teller {
            let bytes = match teller.hear(&data) {
                Ok(bytes) => bytes,
                Err(Untold(why)) => return Flow::Broken(why),
            };
            if !bytes.is_empty() && !self.send(bytes).await {
                return Flow::Gone;
            }
            self.hold.delivered(&said);
            return Flow::On;
        }
        if (said.usage.is_some() || said.odd_usage) && !said.choices {
            self.hold.delivered(&said);
            if said.usage.is_some() {
                self.usage_event = Some(event);
            }
            return Flow::On;
        }
        let raw = if said.has_usage_key && !self.call.chat.wants_usage {
            without_null_usage(event.raw)
        } else {
            event.raw
        };
        if !self.send(raw).await {
            return Flow::Gone;
        }
        self.hold.delivered(&said);
        Flow::On
    }

    /// Hands bytes to the client; false when it is gone, or has not read for so long that it may as well be.
    async fn send(&mut self, bytes: Bytes) -> bool {
        match self.events.try_send(bytes) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(bytes)) => {
                self.waited = true;
                let stall = self.tier.config.clocks.client_stall;
                self.events.send_timeout(bytes, stall).await.is_ok()
            }
        }
    }

    async fn end(mut self, flow: Flow) {
        match flow {
            Flow::On => unreachable!("a stream that goes on has no end"),
            Flow::Done => {
                self.slot.judge(Verdict::Good);
                self.finish().await;
            }
            Flow::Gone => {
                drop(self.rest);
                bump(&self.tier.stats.cancelled);
                drop(self.hold.cut_short());
            }
            Flow::Broken(reason) => {
                drop(self.rest);
                self.slot.judge(Verdict::Bad);
                drop(self.slot);
                tracing::info!(request = %self.call.name, reason, "a stream broke after its first content");
                let settle = self.tier.config.clocks.settle;
                let _ = timeout(settle, self.hold.cut_short()).await;
                let refusal = Refusal::new(
                    StatusCode::BAD_GATEWAY,
                    "supplier_failed",
                    format!(
                        "the supplier failed in the middle of its answer ({reason}); only what was delivered is billed"
                    ),
                );
                let event = match &mut self.teller {
                    Some(teller) => teller.broke(&refusal, &self.call.name),
                    None => format!("data: {}\n\n", refusal.openai_body()).into(),
                };
                let _ = self.events.send_timeout(event, settle).await;
            }
        }
    }

    /// Settles, and only then lets the client see the end: whoever has seen it finds the call in its balance.
    async fn finish(mut self) {
        drop(self.rest);
        let took = self.slot.since_first();
        let Some((hold, bill)) = self.hold.bill().await else {
            return;
        };
        if let Some(took) = took.filter(|_| !self.waited) {
            self.slot.pace(bill.completion, took);
        }
        drop(self.slot);
        settled(self.tier, hold, bill).await;
        let stall = self.tier.config.clocks.client_stall;
        if let Some(teller) = &mut self.teller {
            let _ = self.events.send_timeout(teller.end(bill), stall).await;
            return;
        }
        if self.call.chat.wants_usage {
            let event = match self.usage_event {
                Some(event) if !bill.estimated => event.raw,
                _ => usage_event(self.last.as_ref(), bill),
            };
            if self.events.send_timeout(event, stall).await.is_err() {
                return;
            }
        }
        let done = Bytes::from_static(b"data: [DONE]\n\n");
        let _ = self.events.send_timeout(done, stall).await;
    }
}

fn usage_json(bill: Bill) -> Value {
    json!({
        "prompt_tokens": bill.prompt,
        "completion_tokens": bill.completion,
        "total_tokens": bill.prompt.saturating_add(bill.completion),
    })
}

/// A usage chunk of our own, for a client that asked and a supplier that did not say, or not believably.
fn usage_event(last: Option<&(String, String, u64)>, bill: Bill) -> Bytes {
    let (id, model, created) = last.cloned().unwrap_or_default();
    let chunk = json!({"id": id, "object": "chat.completion.chunk", "created": created, "model": model,
        "choices": [], "usage": usage_json(bill)});
    Bytes::from(format!("data: {chunk}\n\n"))
}

/// The event without a `usage` that is null. In JSON text an unescaped `"usage":null` can only be a member.
fn without_null_usage(raw: Bytes) -> Bytes {
    const MEMBER: &[u8] = b"\"usage\":null";
    let Some(at) = memchr::memmem::find(&raw, MEMBER) else {
        return raw;
    };
    let (mut start, mut end) = (at, at + MEMBER.len());
    if start > 0 && raw[start - 1] == b',' {
        start -= 1;
    } else if raw.get(end) == Some(&b',') {
        end += 1;
    }
    let mut out = BytesMut::with_capacity(raw.len());
    out.extend_from_slice(&raw[..start]);
    out.extend_from_slice(&raw[end..]);
    out.freeze()
}

// -- the whole answer ----------------------------------------------------------------------------------------------

/// Settles, and waits within bounds until a read would show the bill.
async fn settled(tier: &Tier, hold: Hold, bill: Bill) {
    let shown = async {
        if let Ok(Some(settled)) = hold.settle(bill).await {
            tier.directory.reach(settled.seq).await;
        }
    };
    let _ = timeout(tier.config.clocks.settle, shown).await;
}

async fn whole_answer(
    tier: &Tier,
    teller: Option<Box<Teller>>,
    body: Bytes,
    mut hold: Hold,
) -> Result<Response<Out>, Refusal> {
    let lost =
        || Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the answer could not be metered");
    let said: Said<'_> = answer::read(&body).map_err(|_| lost())?;
    hold.delivered(&said);
    drop(said);
    let (hold, bill) = hold.bill().await.ok_or_else(lost)?;
    let body = match teller {
        Some(mut teller) => match teller.whole(&body, bill) {
            Ok(told) => told,
            Err(Untold(why)) => {
                let _ = timeout(tier.config.clocks.settle, hold.release(AccountId::VENUE)).await;
                let message = format!("the supplier's answer can't be told ({why}); nothing was billed");
                return Err(Refusal::new(StatusCode::BAD_GATEWAY, "supplier_failed", message));
            }
        },
        None if bill.estimated => with_usage(&body, bill),
        None => body,
    };
    settled(tier, hold, bill).await;
    Ok(bytes_response(StatusCode::OK, body))
}

/// The answer with the counts that were billed.
fn with_usage(body: &Bytes, bill: Bill) -> Bytes {
    #[derive(Deserialize)]
    struct Usage<'a> {
        #[serde(borrow)]
        usage: Option<&'a RawValue>,
    }
    let usage = usage_json(bill);
    let replaced = std::str::from_utf8(body).ok().and_then(|text| {
        let raw = serde_json::from_str::<Usage<'_>>(text).ok()?.usage?.get();
        let at = raw.as_ptr() as usize - text.as_ptr() as usize;
        Some(format!("{}{usage}{}", &text[..at], &text[at + raw.len()..]))
    });
    replaced.map_or_else(
        || {
            let mut value: Value = serde_json::from_slice(body).unwrap_or_default();
            value["usage"] = usage.clone();
            Bytes::from(value.to_string())
        },
        Bytes::from,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const BILL: Bill = Bill { prompt: 3, completion: 4, estimated: true, distrusted: false };

    #[test]
    fn a_null_usage_leaves_the_rest_as_it_was() {
        for (raw, expected) in [
            (r#"data: {"a":1,"usage":null}"#, r#"data: {"a":1}"#),
            (r#"data: {"usage":null,"a":1}"#, r#"data: {"a":1}"#),
            (r#"data: {"a":1,"usage":null,"b":2}"#, r#"data: {"a":1,"b":2}"#),
            (r#"data: {"a":"\"usage\":null"}"#, r#"data: {"a":"\"usage\":null"}"#),
        ] {
            assert_eq!(without_null_usage(raw.into()), expected);
        }
    }

    #[test]
    fn billed_counts_replace_reported_ones() {
        for body in [
            r#"{"choices":[],"usage":{"prompt_tokens":900,"completion_tokens":1},"x":1.50}"#,
            r#"{"choices":[],"usage":null}"#,
            r#"{"choices":[]}"#,
        ] {
            let value: Value = serde_json::from_slice(&with_usage(&Bytes::from(body), BILL)).unwrap();
            assert_eq!(
                value["usage"],
                json!({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7})
            );
        }
    }
}
