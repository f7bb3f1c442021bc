//! The body of an answer, made piece by piece as the connection takes it.
//!
//! The connection pulls, so a token counts as produced when it is handed to the socket, a slow reader slows only
//! itself, and a client that goes away drops the body and with it the open call.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame};
use serde_json::{Value, json};
use tokio::time::{Instant, Sleep};

use crate::answer::{Piece, Plan};
use crate::faults::Faults;
use crate::stats::{OpenCall, Outcome};

/// When each token may leave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) start: Instant,
    pub(crate) ttft: Duration,
    pub(crate) tokens_per_second: u32,
}

impl Pace {
    /// The moment token number `index` (from 0) is ready.
    pub(crate) fn due(&self, index: u64) -> Instant {
        let after_first = match self.tokens_per_second {
            0 => Duration::ZERO,
            rate => Duration::from_nanos(index.saturating_mul(1_000_000_000 / u64::from(rate))),
        };
        self.start + self.ttft + after_first
    }
}

/// What an answer's every chunk repeats.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    pub(crate) id: String,
    pub(crate) created: u64,
    pub(crate) model: String,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Role(usize),
    Piece(usize, usize),
    Finish(usize),
    Usage,
    Done,
}

/// A streamed answer as server-sent events.
pub(crate) struct SseBody {
    envelope: Envelope,
    plan: Plan,
    faults: Faults,
    pace: Pace,
    call: OpenCall,
    steps: VecDeque<Step>,
    sent: u64,
    sleep: Option<Pin<Box<Sleep>>>,
    stalled: bool,
    last_breath: bool,
    ended: bool,
}

impl SseBody {
    pub(crate) fn new(envelope: Envelope, plan: Plan, faults: Faults, pace: Pace, call: OpenCall) -> Self {
        let mut steps: VecDeque<Step> = (0..plan.choices.len()).map(Step::Role).collect();
        let longest = plan.choices.iter().map(|c| c.pieces.len()).max().unwrap_or(0);
        for piece in 0..longest {
            let with = |(_, c): &(usize, &crate::answer::Choice)| piece < c.pieces.len();
            steps.extend(
                plan.choices.iter().enumerate().filter(with).map(|(choice, _)| Step::Piece(choice, piece)),
            );
        }
        steps.extend((0..plan.choices.len()).map(Step::Finish));
        if plan.include_usage && !faults.omit_usage {
            steps.push_back(Step::Usage);
        }
        steps.push_back(Step::Done);
        Self {
            envelope,
            plan,
            faults,
            pace,
            call,
            steps,
            sent: 0,
            sleep: None,
            stalled: false,
            last_breath: false,
            ended: false,
        }
    }

    fn chunk(&self, choices: Value, usage: Option<Value>) -> Value {
        let mut chunk = json!({"id": self.envelope.id, "object": "chat.completion.chunk",
            "created": self.envelope.created, "model": self.envelope.model, "system_fingerprint": null,
            "choices": choices});
        if self.plan.include_usage && !self.faults.omit_usage {
            chunk["usage"] = usage.unwrap_or(Value::Null);
        }
        chunk
    }

    fn delta(&self, choice: usize, delta: Value, finish_reason: Option<&str>) -> Value {
        let choice =
            json!({"index": choice, "delta": delta, "logprobs": null, "finish_reason": finish_reason});
        self.chunk(json!([choice]), None)
    }

    fn event(&self, step: Step) -> Bytes {
        let value = match step {
            Step::Role(choice) => self.delta(choice, json!({"role": "assistant", "content": ""}), None),
            Step::Finish(choice) => {
                self.delta(choice, json!({}), Some(self.plan.choices[choice].finish_reason))
            }
            Step::Usage => self.chunk(json!([]), Some(usage(&self.plan, &self.faults))),
            Step::Done => return Bytes::from_static(b"data: [DONE]\n\n"),
            Step::Piece(choice, piece) => {
                let delta = match &self.plan.choices[choice].pieces[piece] {
                    Piece::Text(word) => json!({"content": word}),
                    Piece::Arguments(word) => {
                        json!({"tool_calls": [{"index": 0, "function": {"arguments": word}}]})
                    }
                    Piece::Call { id, function } => {
                        json!({"tool_calls": [{"index": 0, "id": id, "type": "function",
                        "function": {"name": function, "arguments": ""}}]})
                    }
                };
                self.delta(choice, delta, None)
            }
        };
        Bytes::from(format!("data: {value}\n\n"))
    }

    /// The fault that strikes now, between two tokens, if any: what the poll must give.
    fn strike(&mut self) -> Option<io::Result<Bytes>> {
        let reached = |at: Option<u32>, sent: u64| at.is_some_and(|at| sent >= u64::from(at));
        if reached(self.faults.die_after_tokens, self.sent) && !self.last_breath {
            self.last_breath = true;
            self.sleep = Some(last_breath());
            return None;
        }
        if self.last_breath {
            self.ended = true;
            self.call.close(Outcome::Died);
            return Some(Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the simulated supplier died",
            )));
        }
        if reached(self.faults.error_event_after_tokens, self.sent) {
            self.ended = true;
            self.call.close(Outcome::Died);
            let error = json!({"error": {"message": "simulated failure in the stream", "type": "server_error",
                "param": null, "code": "simulated_fault"}});
            return Some(Ok(Bytes::from(format!("data: {error}\n\n"))));
        }
        if reached(self.faults.stall_after_tokens, self.sent) && !self.stalled {
            self.stalled = true;
            let until = Instant::now() + Duration::from_millis(self.faults.stall_ms);
            self.sleep = Some(Box::pin(tokio::time::sleep_until(until)));
        }
        None
    }
}

impl Body for SseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        loop {
            if let Some(sleep) = &mut this.sleep {
                std::task::ready!(sleep.as_mut().poll(cx));
                this.sleep = None;
            }
            if this.ended {
                return Poll::Ready(None);
            }
            let Some(step) = this.steps.front().copied() else {
                return Poll::Ready(None);
            };
            if !matches!(step, Step::Role(_)) {
                if let Some(struck) = this.strike() {
                    return Poll::Ready(Some(struck.map(Frame::data)));
                }
                if this.sleep.is_some() {
                    continue;
                }
            }
            let due = this.pace.due(this.sent / this.plan.choices.len() as u64);
            if matches!(step, Step::Role(_) | Step::Piece(..)) && Instant::now() < due {
                this.sleep = Some(Box::pin(tokio::time::sleep_until(due)));
                continue;
            }
            this.steps.pop_front();
            let event = this.event(step);
            match step {
                Step::Piece(..) => {
                    this.sent += 1;
                    this.call.produced(1);
                }
                Step::Done => this.call.close(Outcome::Completed),
                Step::Role(_) | Step::Finish(_) | Step::Usage => {}
            }
            return Poll::Ready(Some(Ok(Frame::data(event))));
        }
    }
}

/// A whole JSON answer in one frame, or its first half and then a dead socket.
pub(crate) struct WholeBody {
    bytes: Bytes,
    tokens: u64,
    dies: bool,
    call: OpenCall,
    state: u8,
    last_breath: Option<Pin<Box<Sleep>>>,
}

impl WholeBody {
    pub(crate) fn new(bytes: Bytes, tokens: u64, dies: bool, call: OpenCall) -> Self {
        Self { bytes, tokens, dies, call, state: 0, last_breath: None }
    }
}

impl Body for WholeBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(sleep) = &mut self.last_breath {
            std::task::ready!(sleep.as_mut().poll(cx));
        }
        self.state += 1;
        match (self.state, self.dies) {
            (1, true) => {
                self.last_breath = Some(last_breath());
                Poll::Ready(Some(Ok(Frame::data(self.bytes.slice(..self.bytes.len() / 2)))))
            }
            (1, false) => {
                let tokens = self.tokens;
                self.call.produced(tokens);
                self.call.close(Outcome::Completed);
                Poll::Ready(Some(Ok(Frame::data(self.bytes.clone()))))
            }
            (2, true) => {
                self.call.close(Outcome::Died);
                Poll::Ready(Some(Err(io::Error::new(
                    io::ErrorKind::ConnectionAborted,
                    "the simulated supplier died",
                ))))
            }
            _ => Poll::Ready(None),
        }
    }

    /// Known beforehand, so that the answer has a `Content-Length` and a death in the middle shows.
    fn size_hint(&self) -> hyper::body::SizeHint {
        hyper::body::SizeHint::with_exact(self.bytes.len() as u64)
    }
}

/// The moment before a death: an error makes the connection drop what it has not flushed, and it flushes when a body
/// has nothing to give. Without it, tokens that were counted would never reach the socket.
fn last_breath() -> Pin<Box<Sleep>> {
    Box::pin(tokio::time::sleep(Duration::from_millis(2)))
}

/// The `usage` of an answer as the supplier reports it.
pub(crate) fn usage(plan: &Plan, faults: &Faults) -> Value {
    let (prompt, completion) =
        (faults.reported(plan.prompt_tokens), faults.reported(plan.completion_tokens()));
    json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": 0}})
}
