//! What a request needs of a model beyond text in and text out.
//!
//! A supplier that can't honour a field drops it in silence or answers 400, and the client pays for something else
//! than it asked for. So every field that not all models honour is a *need*: calls go only to models that are not
//! known to lack it, and where nobody is left, the client is told which field it was.

use std::fmt;

macro_rules! needs {
    ($($need:ident $word:literal $field:literal $text:literal)+) => {
        /// One thing that a request can need of a model.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Need { $(#[doc = $text] $need,)+ }

        /// All of them, with their word in configurations and the field that asks for them.
        const ALL: &[(Need, &str, &str)] = &[$((Need::$need, $word, $field),)+];
    };
}

needs! {
    Tools "tools" "tools" "Calls functions."
    ToolChoice "tool_choice" "tool_choice" "Obeys `required`, or a function named by the client."
    ParallelToolCalls "parallel_tool_calls" "parallel_tool_calls" "Obeys the switch for several calls at once."
    JsonObject "json_object" "response_format" "Answers with a JSON object."
    JsonSchema "json_schema" "response_format" "Answers with JSON that fits a schema."
    Logprobs "logprobs" "logprobs" "Tells log probabilities."
    LogitBias "logit_bias" "logit_bias" "Obeys biases of tokens."
    Choices "n" "n" "Gives several answers to one request."
    Seed "seed" "seed" "Repeats itself under the same seed."
    Stop "stop" "stop" "Obeys stop sequences."
    Sampling "sampling" "temperature" "Obeys a temperature, or a share of the probability."
    Penalties "penalties" "frequency_penalty" "Obeys penalties of repetition."
    ReasoningEffort "reasoning_effort" "reasoning_effort" "Obeys an effort of reasoning."
    Verbosity "verbosity" "verbosity" "Obeys a verbosity."
    Prediction "prediction" "prediction" "Makes use of a predicted output."
    WebSearch "web_search" "web_search_options" "Searches the web."
    ServiceTier "service_tier" "service_tier" "Serves in the tier asked for."
    CacheRetention "prompt_cache_retention" "prompt_cache_retention" "Keeps a prompt's cache for a day."
    Images "images" "messages" "Sees images."
    AudioIn "audio_input" "messages" "Hears sounds."
    AudioOut "audio_output" "modalities" "Answers with sound."
    Files "files" "messages" "Reads files."
    Store "store" "store" "Stores the completion."
}

impl Need {
    /// Its word in configurations.
    #[must_use]
    pub fn word(self) -> &'static str {
        ALL[self as usize].1
    }

    /// The field of a request that asks for it.
    #[must_use]
    pub fn field(self) -> &'static str {
        ALL[self as usize].2
    }

    /// The need with this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        ALL.iter().find(|(_, known, _)| *known == word).map(|(need, ..)| *need)
    }
}

/// A set of needs.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Needs(u32);

impl Needs {
    /// Every need there is.
    pub(crate) const EVERYTHING: Self = Self((1 << ALL.len()) - 1);

    /// The set with this need where `needed`.
    pub(crate) fn with(self, need: Need, needed: bool) -> Self {
        Self(self.0 | u32::from(needed) << need as u32)
    }

    /// What is in both sets.
    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in either set.
    pub(crate) fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in this set and not in the other.
    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Need> {
        ALL.iter().map(|(need, ..)| *need).filter(move |need| self.0 & (1 << *need as u32) != 0)
    }

    /// Those that a refusal of this field means. A supplier may name a part of it: `tools[0].function`.
    pub(crate) fn asked_by(self, param: &str) -> Self {
        let name = param.split(['.', '[']).next().unwrap_or_default();
        let name = match name {
            "top_logprobs" => "logprobs",
            "top_p" => "temperature",
            "presence_penalty" => "frequency_penalty",
            "functions" => "tools",
            "function_call" => "tool_choice",
            "audio" => "modalities",
            other => other,
        };
        self.iter().filter(|need| need.field() == name).collect()
    }
}

impl FromIterator<Need> for Needs {
    fn from_iter<I: IntoIterator<Item = Need>>(needs: I) -> Self {
        needs.into_iter().fold(Self::default(), |all, need| all.with(need, true))
    }
}

impl fmt::Debug for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_need_has_a_word_of_its_own_and_its_place_in_the_table() {
        for (at, (need, word, field)) in ALL.iter().enumerate() {
            assert_eq!(*need as usize, at);
            assert_eq!(Need::from_word(word), Some(*need));
            assert!(!field.is_empty());
        }
        assert_eq!(Needs::EVERYTHING.iter().count(), ALL.len());
    }

    #[test]
    fn a_refused_field_means_only_what_the_request_asked_for() {
        let asked: Needs = [Need::JsonSchema, Need::Tools, Need::Logprobs].into_iter().collect();
        let lacking = |param| asked.asked_by(param).iter().collect::<Vec<_>>();
        assert_eq!(lacking("response_format"), [Need::JsonSchema]);
        assert_eq!(lacking("tools[0].function.strict"), [Need::Tools]);
        assert_eq!(lacking("top_logprobs"), [Need::Logprobs]);
        assert_eq!(lacking("seed"), []);
        assert_eq!(lacking("messages"), []);
    }
}
