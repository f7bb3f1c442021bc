//! How a model falls short of what its instrument promises while everything about its server is in order: what a
//! conformance probe must find out, since no error says it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A model's shortcomings. The default has none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lapses {
    /// It answers in words where a function must be called.
    pub ignore_tools: bool,
    /// Arguments of its calls are JSON that fits no parameters.
    pub odd_arguments: bool,
    /// It calls one function where several are wanted.
    pub one_call_only: bool,
    /// It calls several where only one is allowed.
    pub ignore_parallel: bool,
    /// It answers in words where JSON is asked for.
    pub ignore_format: bool,
    /// It goes on beyond `max_tokens`.
    pub ignore_limit: bool,
    /// No answer says why it ended.
    pub omit_finish: bool,
    /// A prompt of more tokens is refused.
    pub context_max: Option<u64>,
    /// Of a longer prompt, it sees only so many tokens at its end, and does not say so.
    pub remembers: Option<u64>,
    /// A `max_tokens` above this is refused.
    pub output_max: Option<u64>,
    /// A request that is wrong gets this status instead of 400.
    pub bad_request_status: Option<u16>,
    /// From the request to the first token, in milliseconds, in place of the supplier's own.
    pub ttft_ms: Option<u64>,
    /// Pace after the first token in place of the supplier's own; 0 means as fast as the client reads.
    pub tokens_per_second: Option<u32>,
}

/// The answer to a question about what the prompt itself says: where the last message says `kept`, every number that a
/// sentence `The number kept under NAME is N.` in it tells, as far as the model sees it.
pub(crate) fn recalled(last: &str, remembers: Option<u64>) -> Option<String> {
    const QUESTION: usize = 40;
    let words: Vec<&str> = last.split_whitespace().collect();
    words.iter().rev().take(QUESTION).find(|word| **word == "kept")?;
    let seen = remembers.map_or(0, |seen| words.len().saturating_sub(seen as usize));
    let told = words[seen..].windows(5).filter_map(|five| match five {
        ["kept", "under", _, "is", number] => Some(number.trim_end_matches('.')),
        _ => None,
    });
    let told: Vec<&str> = told.filter(|number| number.parse::<u64>().is_ok()).collect();
    (words.len() > QUESTION).then(|| if told.is_empty() { "none".to_owned() } else { told.join(", ") })
}

/// Arguments that fit nothing.
pub(crate) fn odd_arguments() -> Value {
    serde_json::json!({"unexpected": [1, 2, 3]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_prompt_says_is_told_as_far_as_it_is_seen() {
        let prompt = format!(
            "The number kept under amber is 17. {} The number kept under violet is 23. Which numbers were kept here?",
            "word ".repeat(60)
        );
        assert_eq!(recalled(&prompt, None).as_deref(), Some("17, 23"));
        assert_eq!(recalled(&prompt, Some(50)).as_deref(), Some("23"));
        assert_eq!(recalled(&prompt, Some(5)).as_deref(), Some("none"));
        assert_eq!(recalled("a short question about nothing", None), None);
    }
}
