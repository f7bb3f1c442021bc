//! What is asked and what a right answer is: a prompt of 4 KB, and an answer whose every byte is known before.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::Failure;

/// The instrument, and the model behind it.
pub(crate) const MODEL: &str = "text-prime";
/// About 4 KB of common words.
const PROMPT_WORDS: u64 = 820;
const WORDS: [&str; 8] = [" the", " market", " price", " of", " time", " is", " a", " question"];

/// How long a streamed answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// 8 words.
    Short,
    /// 32 words, each an event.
    Usual,
}

impl Length {
    fn words(self) -> u64 {
        match self {
            Self::Short => 8,
            Self::Usual => 32,
        }
    }
}

/// How an answer is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// In one piece.
    Whole,
    /// Event by event.
    Stream(Length),
}

impl Shape {
    /// Tokens that such a call is billed for.
    pub(crate) fn tokens(self) -> u64 {
        PROMPT_WORDS + self.words()
    }

    fn words(self) -> u64 {
        match self {
            Self::Whole => Length::Usual.words(),
            Self::Stream(length) => length.words(),
        }
    }

    /// The request's body.
    pub(crate) fn body(self) -> String {
        let content = grid_suppliers::filler(PROMPT_WORDS);
        let mut body = json!({"model": MODEL, "max_tokens": self.words(),
            "messages": [{"role": "user", "content": content}]});
        if let Self::Stream(_) = self {
            body["stream"] = json!(true);
            body["stream_options"] = json!({"include_usage": true});
        }
        body.to_string()
    }

    /// Whether this is the answer, to its last byte; gateways may write its JSON anew, so the words are counted, not compared.
    pub(crate) fn check(self, body: &[u8]) -> Result<(), Failure> {
        let count = |what: &[u8]| memchr::memmem::find_iter(body, what).count() as u64;
        let right = match self {
            Self::Whole => body.ends_with(b"}") && count(sentence(self.words()).as_bytes()) == 1,
            Self::Stream(length) => {
                body.trim_ascii_end().ends_with(b"data: [DONE]")
                    && WORDS.iter().map(|word| count(format!("\"{word}\"").as_bytes())).sum::<u64>()
                        == length.words()
            }
        };
        let told = || format!("not the answer that was asked for: {}", String::from_utf8_lossy(body));
        right.then_some(()).ok_or_else(|| told().into())
    }
}

/// What a request asks for.
pub(crate) fn asked(body: &[u8]) -> Option<Length> {
    let value = |name: &str| {
        let at = memchr::memmem::find(body, name.as_bytes())? + name.len();
        Some(body[at..].trim_ascii_start())
    };
    value("\"stream\":").filter(|value| value.starts_with(b"true"))?;
    let short = value("\"max_tokens\":").is_some_and(|value| value.starts_with(b"8"));
    Some(if short { Length::Short } else { Length::Usual })
}

fn words(count: u64) -> impl Iterator<Item = &'static str> {
    WORDS.into_iter().cycle().take(count as usize)
}

fn sentence(count: u64) -> String {
    words(count).collect()
}

fn usage(count: u64) -> Value {
    json!({"prompt_tokens": PROMPT_WORDS, "completion_tokens": count, "total_tokens": PROMPT_WORDS + count})
}

/// The answer in one piece.
pub(crate) fn whole() -> Bytes {
    let count = Shape::Whole.words();
    let message = json!({"role": "assistant", "content": sentence(count), "refusal": null});
    let answer = json!({"id": "chatcmpl-bench0000000000000000000", "object": "chat.completion",
        "created": 1_790_000_000, "model": MODEL,
        "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": "stop"}],
        "usage": usage(count), "service_tier": "default", "system_fingerprint": "fp_bench"});
    answer.to_string().into()
}

/// The events of a streamed answer: the role, the words, the reason to stop, the usage, the end.
pub(crate) fn stream(length: Length) -> Vec<Bytes> {
    let event = |choices: Value, usage: Value| {
        let chunk = json!({"id": "chatcmpl-bench0000000000000000000", "object": "chat.completion.chunk",
            "created": 1_790_000_000, "model": MODEL, "system_fingerprint": "fp_bench",
            "choices": choices, "usage": usage});
        Bytes::from(format!("data: {chunk}\n\n"))
    };
    let delta = |delta: Value, finish: Value| {
        let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish});
        event(json!([choice]), Value::Null)
    };
    let mut events = vec![delta(json!({"role": "assistant", "content": ""}), Value::Null)];
    events.extend(words(length.words()).map(|word| delta(json!({"content": word}), Value::Null)));
    events.push(delta(json!({}), json!("stop")));
    events.push(event(json!([]), usage(length.words())));
    events.push(Bytes::from_static(b"data: [DONE]\n\n"));
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_right_as_a_whole_only() {
        for length in [Length::Short, Length::Usual] {
            let shape = Shape::Stream(length);
            assert_eq!(asked(shape.body().as_bytes()), Some(length));
            let mut events = stream(length);
            shape.check(&events.concat()).expect("it is the answer");
            events.remove(1);
            assert!(shape.check(&events.concat()).is_err());
        }
        assert_eq!(asked(Shape::Whole.body().as_bytes()), None);
        Shape::Whole.check(&whole()).expect("it is the answer");
        assert!(Shape::Whole.check(&whole()[1_usize..200]).is_err());
        assert!((4_000..4_300).contains(&Shape::Whole.body().len()), "{}", Shape::Whole.body().len());
    }
}
