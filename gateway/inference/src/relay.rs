//! From the first content on: events pass from the supplier to the client, and the end waits for the bill.
//!
//! The channel to the client is bounded and the supplier is read no faster than the client reads, so a slow client
//! never grows memory. From here on nothing is tried again: what has reached the client can't be taken back.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use grid_engine::AccountId;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::answer::{self, Said};
use crate::call::Call;
use crate::dialect::{self, Teller, Untold};
use crate::hold::Hold;
use crate::meter::Bill;
use crate::reply::{Out, Refusal, bytes_response};
use crate::roster::{Slot, Verdict};
use crate::server::Tier;
use crate::sse::Event;
use crate::stats::bump;
use crate::upstream::{Events, Failure, Fault};

/// So much is passed on at once where it has come already, in bytes.
const GATHERED_BYTES: usize = 16 << 10;

pub(crate) fn stream_response(body: mpsc::Receiver<Bytes>) -> Response<Out> {
    let mut response = Response::new(Out::Stream(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// A stream on its way from a supplier to a client.
pub(crate) struct Relay<'a> {
    pub(crate) tier: &'a Tier,
    pub(crate) call: &'a Call,
    pub(crate) teller: Option<Box<Teller>>,
    pub(crate) hold: Hold,
    pub(crate) slot: Slot,
    pub(crate) events: mpsc::Sender<Bytes>,
    pub(crate) rest: Events,
    pub(crate) deadline: Instant,
    pub(crate) notes: Notes,
    pub(crate) gathered: Gathered,
}

/// Bytes on their way to the client that are passed on together.
#[derive(Default)]
pub(crate) struct Gathered {
    /// The only piece, which needs no copy, or the first of many.
    first: Bytes,
    all: BytesMut,
}

impl Gathered {
    fn push(&mut self, bytes: Bytes) {
        if self.len() == 0 {
            self.first = bytes;
            return;
        }
        if self.all.is_empty() {
            self.all.extend_from_slice(&self.first);
        }
        self.all.extend_from_slice(&bytes);
    }

    fn len(&self) -> usize {
        self.all.len().max(self.first.len())
    }

    fn take(&mut self) -> Bytes {
        let first = std::mem::take(&mut self.first);
        if self.all.is_empty() { first } else { self.all.split().freeze() }
    }
}

/// What the end of a stream depends on.
#[derive(Default)]
pub(crate) struct Notes {
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
    Broken(Fault, &'static str),
}

impl Relay<'_> {
    /// Passes on what came so far and what is to come, to the end of the call.
    pub(crate) async fn run(mut self, held: Vec<Event>) {
        let mut flow = Flow::On;
        for event in held {
            flow = self.pass(event);
            if flow != Flow::On {
                break;
            }
        }
        if flow == Flow::On {
            flow = self.pump().await;
        }
        self.end(flow).await;
    }

    async fn pump(&mut self) -> Flow {
        loop {
            // What is there already goes on together: each piece would be a write of its own.
            let mut there = true;
            while there && self.gathered.len() < GATHERED_BYTES {
                there = match poll_fn(|cx| Poll::Ready(pin!(self.rest.next()).poll(cx))).await {
                    Poll::Pending => false,
                    Poll::Ready(event) => match self.heard(event) {
                        Flow::On => true,
                        flow => return flow,
                    },
                };
            }
            if !self.flush().await {
                return Flow::Gone;
            }
            let until = self.deadline.min(Instant::now() + self.tier.config.clocks.idle);
            let event = tokio::select! {
                biased;
                () = self.events.closed() => return Flow::Gone,
                event = timeout_at(until, self.rest.next()) => event,
            };
            let flow = match event {
                Err(_) if Instant::now() >= self.deadline => {
                    return Flow::Broken(Fault::Slow, "longest duration reached");
                }
                Err(_) => return Flow::Broken(Fault::Stalled, "silent for too long"),
                Ok(event) => self.heard(event),
            };
            if flow != Flow::On {
                return flow;
            }
        }
    }

    fn heard(&mut self, event: Result<Option<Event>, Failure>) -> Flow {
        match event {
            Err(_) => Flow::Broken(Fault::Cut, "connection lost"),
            // Some suppliers never say [DONE]; a reason to stop is as good.
            Ok(None) if self.notes.finished => Flow::Done,
            Ok(None) => Flow::Broken(Fault::Cut, "ended early"),
            Ok(Some(event)) => self.pass(event),
        }
    }

    /// Passes one event on, or keeps it back, or learns from it that the stream is over.
    fn pass(&mut self, mut event: Event) -> Flow {
        if self.teller.is_none()
            && let Some(json) = event.data.as_deref().and_then(dialect::unnamed)
        {
            event = Event { raw: format!("data: {json}\n\n").into(), data: Some(json.into()) };
        }
        let Some(data) = event.data.clone() else {
            let bytes = self.teller.as_ref().map_or(event.raw, |teller| teller.still_here());
            self.gathered.push(bytes);
            return Flow::On;
        };
        if data.as_ref() == b"[DONE]" {
            return Flow::Done;
        }
        let Ok(said) = answer::read(&data) else {
            return Flow::Broken(Fault::Malformed, "not JSON");
        };
        if said.error.is_some() {
            return Flow::Broken(Fault::Refused, "error event");
        }
        self.notes.finished |= said.finished;
        if let Some(id) = &said.id {
            let model = said.model.as_deref().unwrap_or_default();
            if self.notes.last.as_ref().is_none_or(|last| last.0 != **id) {
                self.notes.last = Some((id.clone().into_owned(), model.to_owned(), said.created));
            }
        }
        if let Some(teller) = &mut self.teller {
            let bytes = match teller.hear(&data) {
                Ok(bytes) => bytes,
                Err(Untold(why)) => return Flow::Broken(Fault::Malformed, why),
            };
            self.gathered.push(bytes);
            self.hold.delivered(&said);
            return Flow::On;
        }
        if (said.usage.is_some() || said.odd_usage) && !said.choices {
            self.hold.delivered(&said);
            if said.usage.is_some() {
                self.notes.usage_event = Some(event);
            }
            return Flow::On;
        }
        let raw = if said.has_usage_key && !self.call.chat.wants_usage {
            without_null_usage(event.raw)
        } else {
            event.raw
        };
        self.gathered.push(raw);
        self.hold.delivered(&said);
        Flow::On
    }

    /// Hands what was gathered to the client; false when it is gone, or has not read for so long that it may as well be.
    async fn flush(&mut self) -> bool {
        let bytes = self.gathered.take();
        if bytes.is_empty() {
            return true;
        }
        match self.events.try_send(bytes) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(bytes)) => {
                self.notes.waited = true;
                let (stall, began) = (self.tier.config.clocks.client_stall, Instant::now());
                let sent = self.events.send_timeout(bytes, stall).await.is_ok();
                self.hold.waited(began.elapsed());
                sent
            }
        }
    }

    async fn end(mut self, flow: Flow) {
        // What came before the end was counted, so it goes out before the end does.
        let gone = flow != Flow::Gone && !self.flush().await;
        let flow = if gone { Flow::Gone } else { flow };
        match flow {
            Flow::On => unreachable!("a stream that goes on has no end"),
            Flow::Done => {
                self.slot.judge(Verdict::Good);
                // Where all came at once, it is on its way before its tokens are counted.
                tokio::task::yield_now().await;
                self.finish().await;
            }
            Flow::Gone => {
                drop(self.rest);
                bump(&self.tier.stats.cancelled);
                self.hold.cut_short();
            }
            Flow::Broken(fault, reason) => {
                drop(self.rest);
                self.slot.judge(Verdict::Bad);
                // Who had to wait for its client is not to blame for the time.
                if fault != Fault::Slow || !self.notes.waited {
                    let supplier = self.hold.supplier();
                    self.tier.report(self.call.instrument, supplier, fault.into());
                }
                drop(self.slot);
                tracing::info!(request = %self.call.name, reason, "a stream broke after its first content");
                self.hold.cut_short();
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
                let _ = self.events.send_timeout(event, self.tier.config.clocks.client_stall).await;
            }
        }
    }

    /// Settles, and then lets the client see the end: whoever has seen it finds the call in its balance.
    async fn finish(mut self) {
        drop(self.rest);
        let took = self.slot.since_first();
        let Some((hold, bill)) = self.hold.bill().await else {
            return;
        };
        if let Some(took) = took.filter(|_| !self.notes.waited) {
            self.slot.pace(bill.completion, took);
        }
        drop(self.slot);
        hold.settle(bill);
        let stall = self.tier.config.clocks.client_stall;
        if let Some(teller) = &mut self.teller {
            let _ = self.events.send_timeout(teller.end(bill), stall).await;
            return;
        }
        let mut end = Gathered::default();
        if self.call.chat.wants_usage {
            end.push(match self.notes.usage_event {
                Some(event) if !bill.estimated => event.raw,
                _ => usage_event(self.notes.last.as_ref(), bill),
            });
        }
        end.push(Bytes::from_static(b"data: [DONE]\n\n"));
        let _ = self.events.send_timeout(end.take(), stall).await;
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

/// Settles a whole answer, and tells it.
pub(crate) async fn whole_answer(
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
                hold.release(AccountId::VENUE);
                let message = format!("the supplier's answer can't be told ({why}); nothing was billed");
                return Err(Refusal::new(StatusCode::BAD_GATEWAY, "supplier_failed", message));
            }
        },
        None => {
            let body = dialect::unnamed(&body).map_or(body, Bytes::from);
            if bill.estimated { with_usage(&body, bill) } else { body }
        }
    };
    hold.settle(bill);
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
