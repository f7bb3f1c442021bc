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
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::answer::{self, Said};
use crate::call::Call;
use crate::dialect::{Teller, Untold};
use crate::hold::Hold;
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
    pub(crate) teller: Box<Teller>,
    pub(crate) hold: Hold,
    pub(crate) slot: Slot,
    pub(crate) events: mpsc::Sender<Bytes>,
    pub(crate) rest: Events,
    pub(crate) deadline: Instant,
    pub(crate) notes: Notes,
    /// Bytes on their way to the client that are passed on together.
    pub(crate) gathered: BytesMut,
}

/// What the end of a stream depends on.
#[derive(Default)]
pub(crate) struct Notes {
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

    /// Tells one event, or learns from it that the stream is over.
    fn pass(&mut self, event: Event) -> Flow {
        let Some(data) = event.data else {
            self.gathered.extend_from_slice(&self.teller.still_here());
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
        if let Err(Untold(why)) = self.teller.hear(&data, &said, &mut self.gathered) {
            return Flow::Broken(Fault::Malformed, why);
        }
        self.hold.delivered(&said);
        Flow::On
    }

    /// Hands what was gathered to the client; false when it is gone, or has not read for so long that it may as well be.
    async fn flush(&mut self) -> bool {
        if self.gathered.is_empty() {
            return true;
        }
        let bytes = self.gathered.split().freeze();
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
                let event = self.teller.broke(&refusal, &self.call.name);
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
        let _ = self.events.send_timeout(self.teller.end(bill), stall).await;
    }
}

// -- the whole answer ----------------------------------------------------------------------------------------------

/// Settles a whole answer, and tells it.
pub(crate) async fn whole_answer(
    mut teller: Box<Teller>,
    body: Bytes,
    mut hold: Hold,
) -> Result<Response<Out>, Refusal> {
    let lost =
        || Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the answer could not be metered");
    let said: Said<'_> = answer::read(&body).map_err(|_| lost())?;
    hold.delivered(&said);
    drop(said);
    let (hold, bill) = hold.bill().await.ok_or_else(lost)?;
    let told = match teller.whole(&body, bill) {
        Ok(told) => told,
        Err(Untold(why)) => {
            hold.release(AccountId::VENUE);
            let message = format!("the supplier's answer can't be told ({why}); nothing was billed");
            return Err(Refusal::new(StatusCode::BAD_GATEWAY, "supplier_failed", message));
        }
    };
    hold.settle(bill);
    Ok(bytes_response(StatusCode::OK, told))
}
