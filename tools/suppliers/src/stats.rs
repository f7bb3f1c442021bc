//! What a supplier really produced, counted where the bytes leave, so that a test can compare it with the bill.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

const CALLS_KEPT: usize = 100_000;

/// How a chat request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The whole answer was handed to the socket.
    Completed,
    /// The supplier broke it off by a fault.
    Died,
    /// The client went away first.
    Cancelled,
    /// An error status, or an invalid body: nothing was produced.
    Refused,
}

/// A sum over requests that ended alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Requests.
    pub requests: u64,
    /// Prompt tokens of those whose answer had begun.
    pub prompt_tokens: u64,
    /// Completion tokens handed to the socket.
    pub completion_tokens: u64,
}

/// Counters since the start. Honest even where the reported usage is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Chat requests that arrived whole and well-formed, by a known key for a known model.
    pub requests: u64,
    /// Those being answered now.
    pub in_flight: u64,
    /// Answered to the end.
    pub completed: Tally,
    /// Broken off by a fault of the supplier.
    pub died: Tally,
    /// Broken off by the client.
    pub cancelled: Tally,
    /// Answered with an error on purpose.
    pub refused: Tally,
}

impl Stats {
    /// All tokens that left the supplier: prompt and completion, of whole and of partial answers.
    #[must_use]
    pub fn tokens_produced(&self) -> u64 {
        [self.completed, self.died, self.cancelled]
            .iter()
            .map(|t| t.prompt_tokens + t.completion_tokens)
            .sum()
    }
}

/// One ended chat request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CallRecord {
    /// The `id` in the answer.
    pub id: String,
    /// What whoever asked calls the call, in `x-request-id`.
    pub request: Option<String>,
    /// The model asked for.
    pub model: String,
    /// Prompt tokens by the counting rule.
    pub prompt_tokens: u64,
    /// Completion tokens handed to the socket.
    pub completion_tokens: u64,
    /// How it ended.
    pub outcome: Outcome,
}

#[derive(Debug, Default)]
pub(crate) struct Books(Mutex<(Stats, VecDeque<CallRecord>)>);

impl Books {
    fn lock(&self) -> MutexGuard<'_, (Stats, VecDeque<CallRecord>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stats(&self) -> Stats {
        self.lock().0
    }

    pub(crate) fn calls(&self) -> Vec<CallRecord> {
        self.lock().1.iter().cloned().collect()
    }

    fn begin(&self) {
        let mut books = self.lock();
        books.0.requests += 1;
        books.0.in_flight += 1;
    }

    fn end(&self, call: CallRecord) {
        let mut books = self.lock();
        books.0.in_flight -= 1;
        let tally = match call.outcome {
            Outcome::Completed => &mut books.0.completed,
            Outcome::Died => &mut books.0.died,
            Outcome::Cancelled => &mut books.0.cancelled,
            Outcome::Refused => &mut books.0.refused,
        };
        tally.requests += 1;
        if call.outcome != Outcome::Refused {
            tally.prompt_tokens += call.prompt_tokens;
            tally.completion_tokens += call.completion_tokens;
        }
        if books.1.len() == CALLS_KEPT {
            books.1.pop_front();
        }
        books.1.push_back(call);
    }
}

/// A call being answered. Dropped before [`OpenCall::close`], it counts as cancelled by the client: that is what
/// the server does with an answer whose connection is gone.
#[derive(Debug)]
pub(crate) struct OpenCall {
    shared: std::sync::Arc<crate::http::Shared>,
    record: Option<CallRecord>,
}

impl OpenCall {
    pub(crate) fn begin(
        shared: std::sync::Arc<crate::http::Shared>,
        (id, request): (String, Option<String>),
        model: String,
        prompt_tokens: u64,
    ) -> Self {
        shared.books.begin();
        let (completion_tokens, outcome) = (0, Outcome::Cancelled);
        let record = CallRecord { id, request, model, prompt_tokens, completion_tokens, outcome };
        Self { shared, record: Some(record) }
    }

    pub(crate) fn produced(&mut self, tokens: u64) {
        if let Some(record) = &mut self.record {
            record.completion_tokens += tokens;
        }
    }

    pub(crate) fn close(&mut self, outcome: Outcome) {
        if let Some(mut record) = self.record.take() {
            record.outcome = outcome;
            self.shared.books.end(record);
        }
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.close(Outcome::Cancelled);
    }
}
