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

use crate::answer::{self, Piece, Plan};
use crate::faults::Faults;
use crate::messages;
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
    pub(crate) speaks: Speaks,
}

/// In whose words an answer is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    Chat,
    Messages,
}

/// One step of a streamed answer; choices and their pieces by number.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
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
    /// Of the last step, what has not left yet.
    pieces: VecDeque<Bytes>,
    /// Whether the prompt was known here.
    cached: bool,
    sent: u64,
    sleep: Option<Pin<Box<Sleep>>>,
    stalled: bool,
    last_breath: bool,
    ended: bool,
}

impl SseBody {
    pub(crate) fn new(
        envelope: Envelope,
        plan: Plan,
        faults: Faults,
        pace: Pace,
        call: OpenCall,
        cached: bool,
    ) -> Self {
        let mut steps: VecDeque<Step> = (0..plan.choices.len()).map(Step::Role).collect();
        let longest = plan.choices.iter().map(|c| c.pieces.len()).max().unwrap_or(0);
        for piece in 0..longest {
            let with = |(_, c): &(usize, &crate::answer::Choice)| piece < c.pieces.len();
            steps.extend(
                plan.choices.iter().enumerate().filter(with).map(|(choice, _)| Step::Piece(choice, piece)),
            );
        }
        steps.extend((0..plan.choices.len()).map(Step::Finish));
        if plan.include_usage && !faults.omit_usage && envelope.speaks == Speaks::Chat {
            steps.push_back(Step::Usage);
        }
        if !faults.omit_done {
            steps.push_back(Step::Done);
        }
        Self {
            envelope,
            plan,
            faults,
            pace,
            call,
            steps,
            pieces: VecDeque::new(),
            cached,
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
        if let Some(tier) = &self.plan.service_tier {
            chunk["service_tier"] = json!(tier);
        }
        if self.plan.include_usage && !self.faults.omit_usage {
            chunk["usage"] = usage.unwrap_or(Value::Null);
        }
        chunk
    }

    fn delta(&self, choice: usize, delta: Value, finish_reason: Option<&str>) -> Value {
        let text = delta["content"].as_str().filter(|text| !text.is_empty());
        let logprobs = self
            .plan
            .logprobs
            .zip(text)
            .map(|(top, text)| json!({"content": [answer::logprob(text, top)], "refusal": null}));
        let choice =
            json!({"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason});
        self.chunk(json!([choice]), None)
    }

    fn event(&self, step: Step) -> Bytes {
        if self.envelope.speaks == Speaks::Messages {
            let usage = (!self.faults.omit_usage).then(|| usage(&self.plan, &self.faults, self.cached));
            let events = messages::events(&self.envelope, &self.plan, usage, step).into_iter();
            let written = events.map(|(name, value)| {
                let pretty = || serde_json::to_string_pretty(&value).unwrap_or_default();
                format!("event: {name}\n{}", self.faults.framing.event(&value.to_string(), pretty))
            });
            return Bytes::from(written.collect::<String>());
        }
        let value = match step {
            Step::Role(choice) => self.delta(choice, json!({"role": "assistant", "content": ""}), None),
            Step::Finish(choice) => self.delta(choice, json!({}), self.plan.choices[choice].finish_reason),
            Step::Usage => self.chunk(json!([]), Some(usage(&self.plan, &self.faults, self.cached))),
            Step::Done => {
                return Bytes::from(self.faults.framing.event("[DONE]", || "[DONE]".to_owned()));
            }
            Step::Piece(choice, piece) => {
                let delta = match &self.plan.choices[choice].pieces[piece] {
                    Piece::Reasoning(word) => json!({"reasoning_content": word}),
                    Piece::Text(word) => json!({"content": word}),
                    Piece::Arguments { at, text } => {
                        json!({"tool_calls": [{"index": at, "function": {"arguments": text}}]})
                    }
                    Piece::Call { at, id, function } => {
                        json!({"tool_calls": [{"index": at, "id": id, "type": "function",
                        "function": {"name": function, "arguments": ""}}]})
                    }
                };
                self.delta(choice, delta, None)
            }
        };
        let pretty = || serde_json::to_string_pretty(&value).unwrap_or_default();
        Bytes::from(self.faults.framing.event(&value.to_string(), pretty))
    }

    /// The fault that strikes now, between two tokens, if any: what the poll must give.
    fn strike(&mut self) -> Option<io::Result<Bytes>> {
        let reached = |at: Option<u32>, sent: u64| at.is_some_and(|at| sent >= u64::from(at));
        if reached(self.faults.die_after_tokens, self.sent) && !self.last_breath {
            self.last_breath = true;
            self.sleep = Some(last_breath());
            return None;
        }
        if reached(self.faults.cut_after_tokens, self.sent) && !self.last_breath {
            self.last_breath = true;
            self.sleep = Some(last_breath());
            let event = self.steps.front().map(|step| self.event(*step)).unwrap_or_default();
            return Some(Ok(event.slice(..event.len() / 2)));
        }
        if self.last_breath {
            self.ended = true;
            self.steps.clear();
            self.call.close(Outcome::Died);
            return Some(Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the simulated supplier died",
            )));
        }
        if reached(self.faults.error_event_after_tokens, self.sent) {
            self.ended = true;
            self.call.close(Outcome::Died);
            let error = json!({"type": "error", "error": {"message": "simulated failure in the stream",
                "type": "server_error", "param": null, "code": "simulated_fault"}});
            let name = if self.envelope.speaks == Speaks::Messages { "event: error\n" } else { "" };
            return Some(Ok(Bytes::from(format!("{name}data: {error}\n\n"))));
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
            if let Some(piece) = this.pieces.pop_front() {
                if this.faults.piece_pause_ms > 0 {
                    this.sleep = Some(pause(&this.faults));
                }
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if this.ended {
                return Poll::Ready(None);
            }
            let Some(step) = this.steps.front().copied() else {
                this.call.close(Outcome::Completed);
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
            this.pieces = pieces(event, &this.faults);
        }
    }
}

fn pause(faults: &Faults) -> Pin<Box<Sleep>> {
    Box::pin(tokio::time::sleep(Duration::from_millis(faults.piece_pause_ms)))
}

/// The bytes in the pieces in which they leave.
fn pieces(mut bytes: Bytes, faults: &Faults) -> VecDeque<Bytes> {
    let size = faults.piece_bytes.unwrap_or(usize::MAX).max(1);
    let mut pieces = VecDeque::new();
    while bytes.len() > size {
        pieces.push_back(bytes.split_to(size));
    }
    pieces.push_back(bytes);
    pieces
}

/// A whole JSON answer, or its first half and then a dead socket.
pub(crate) struct WholeBody {
    length: u64,
    pieces: VecDeque<Bytes>,
    tokens: u64,
    dies: bool,
    faults: Faults,
    call: OpenCall,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl WholeBody {
    pub(crate) fn new(bytes: Bytes, tokens: u64, faults: &Faults, call: OpenCall) -> Self {
        let dies = [faults.die_after_tokens, faults.error_event_after_tokens, faults.cut_after_tokens]
            .iter()
            .any(Option::is_some);
        let length = bytes.len() as u64;
        let sent = if dies { bytes.slice(..bytes.len() / 2) } else { bytes };
        Self { length, pieces: pieces(sent, faults), tokens, dies, faults: faults.clone(), call, sleep: None }
    }
}

impl Body for WholeBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        if let Some(sleep) = &mut this.sleep {
            std::task::ready!(sleep.as_mut().poll(cx));
            this.sleep = None;
        }
        let Some(piece) = this.pieces.pop_front() else {
            if this.dies {
                this.call.close(Outcome::Died);
                return Poll::Ready(Some(Err(io::Error::new(
                    io::ErrorKind::ConnectionAborted,
                    "the simulated supplier died",
                ))));
            }
            return Poll::Ready(None);
        };
        match (this.pieces.is_empty(), this.dies) {
            (true, true) => this.sleep = Some(last_breath()),
            (true, false) => {
                this.call.produced(this.tokens);
                this.call.close(Outcome::Completed);
            }
            (false, _) if this.faults.piece_pause_ms > 0 => this.sleep = Some(pause(&this.faults)),
            (false, _) => {}
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    /// Known beforehand, so that the answer has a `Content-Length` and a death in the middle shows.
    fn size_hint(&self) -> hyper::body::SizeHint {
        hyper::body::SizeHint::with_exact(self.length)
    }
}

/// The moment before a death: an error makes the connection drop what it has not flushed, and it flushes when a body
/// has nothing to give. Without it, tokens that were counted would never reach the socket.
fn last_breath() -> Pin<Box<Sleep>> {
    Box::pin(tokio::time::sleep(Duration::from_millis(2)))
}

/// The `usage` of an answer as the supplier reports it.
pub(crate) fn usage(plan: &Plan, faults: &Faults, cached: bool) -> Value {
    if let Some(usage) = &faults.usage {
        return usage.clone();
    }
    let (prompt, completion) =
        (faults.reported(plan.prompt_tokens), faults.reported(plan.completion_tokens()));
    json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": if cached { prompt } else { 0 }},
        "completion_tokens_details": {"reasoning_tokens": plan.reasoning_tokens()}})
}
