//! Conformance probes: real requests to one supplier's models, to find out whether it serves an instrument as that
//! instrument promises (design §4: recovery by conformance probe). A supplier that was suspended is put to the test
//! before any client's call reaches it again, and an operator can have any supplier tried at any time.
//!
//! | module | knows |
//! |---|---|
//! | `suite` | the checks, what passes, in which order |
//! | `asking` | one question and what came of it, through the tier's own upstream code in either dialect |
//! | `wording` | what is asked: texts, tools, a schema, a long prompt with needles |
//! | `schema` | whether a value fits a schema of ours |
//! | `report` | verdicts and figures: counts and times, never a text |
//! | `desk` | which of a supplier's models are tried, one probe of it at a time |
//! | `operator` | the operator's request for one |
//! | `runner` | the task that probes those who were taken off a roster, and when |
//!
//! A probe is bounded in requests, tokens and time, and nobody is billed for it: it takes no reservation, so the
//! venue knows nothing of it but its result.

mod asking;
mod desk;
pub(crate) mod operator;
mod report;
pub(crate) mod runner;
mod schema;
mod suite;
mod wording;

pub(crate) use desk::{Desk, Unprobed};
pub use report::{Check, Checked, ModelReport, ProbeReport, Verdict};
pub use runner::Pauses;

use std::time::Duration;

/// How suppliers are probed.
#[derive(Clone, Copy, Debug)]
pub struct Probing {
    /// When those who are off a roster for a breach are probed; this tier leaves that to others where it is none.
    pub suspended: Option<Pauses>,
    /// A supplier gets calls of an instrument only once it has passed a probe for it.
    pub required: bool,
    /// Streams whose speed is measured.
    pub samples: u32,
    /// So many of them may miss the ceiling or the floor.
    pub misses: u32,
    /// The long prompt's share of the instrument's context floor, in percent, by our own count: suppliers count with
    /// tokenizers of their own, and all of them have to find room for it.
    pub context_percent: u32,
    /// The long prompt is never longer than this, in tokens: it is what a probe costs most.
    pub context_tokens_max: u64,
    /// Output limit of questions whose answer counts, in tokens: room for a model that thinks first.
    pub answer_tokens: u64,
    /// Output limit of streams that are only measured, in tokens.
    pub stream_tokens: u64,
    /// For one question, from the request to the end of the answer.
    pub question: Duration,
    /// For all of them; what is not asked by then has failed.
    pub whole: Duration,
}

impl Default for Probing {
    fn default() -> Self {
        Self {
            suspended: Some(Pauses::default()),
            required: false,
            samples: 5,
            misses: 1,
            context_percent: 80,
            context_tokens_max: 256_000,
            answer_tokens: 4_096,
            stream_tokens: 256,
            question: Duration::from_secs(120),
            whole: Duration::from_secs(600),
        }
    }
}
