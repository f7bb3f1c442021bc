//! What a probe found: a verdict for each check with the figures behind it. Nothing here has room for a text that a
//! supplier wrote.

use std::collections::BTreeMap;

use serde::Serialize;

/// One thing that is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// A streamed answer: events as the protocol says, a reason to stop, a usage that can be believed.
    Stream,
    /// The same in one piece.
    Whole,
    /// An output limit is obeyed, and said to be the reason to stop.
    Limit,
    /// A function that must be called is called, with arguments that fit its parameters.
    Tools,
    /// Two functions at once where that is allowed, one where it is not.
    ParallelTools,
    /// An answer that fits a JSON schema.
    JsonSchema,
    /// Needles in a prompt of nearly the instrument's context floor are found.
    Context,
    /// The instrument's output floor is accepted as an output limit.
    Output,
    /// Time to first token and tokens per second keep the instrument's terms.
    Speed,
    /// A request that is wrong is refused as wrong.
    BadRequest,
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Served as it should be.
    Passed,
    /// Not so, for this reason.
    Failed(&'static str),
    /// Not asked: the instrument promises nothing of the kind, or the model is known to lack it.
    Skipped(&'static str),
}

/// A check with its verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// What was tried.
    pub check: Check,
    /// What came of it.
    pub verdict: Verdict,
    /// Counts and times; the unit ends the name.
    pub figures: BTreeMap<&'static str, u64>,
}

/// The probe of one model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelReport {
    /// Its name at the supplier.
    pub model: String,
    /// Every check, in the order in which they were made.
    pub checks: Vec<Checked>,
    /// Requests sent.
    pub requests: u64,
    /// Tokens asked and answered, by our own count.
    pub tokens: u64,
    /// From the first request to the last answer, in milliseconds.
    pub took_ms: u64,
    /// No check failed.
    pub passed: bool,
}

/// The probe of a supplier in an instrument.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProbeReport {
    /// The supplier's account.
    pub supplier: u32,
    /// The instrument's symbol.
    pub instrument: String,
    /// Each model that it offers for the instrument.
    pub models: Vec<ModelReport>,
    /// All of them passed.
    pub passed: bool,
}
