//! What a call is billed: the supplier's count where it is believable, ours where it is not.
//!
//! A supplier gains from reporting too much, so its count is checked against ours. The check is cheap first: words are
//! a floor of every tokenizer's count, so a report within tolerance of the words needs no tokenizer at all.
//!
//! One that reports too little cheats only itself, but its records lie all the same, and they are what the consumer sees
//! and what its speed is measured by. So the same tolerance holds downwards, with the benefit of the doubt: of a prompt
//! only the words of the messages count, for tools and earlier reasoning may come to less than their text, and of an
//! answer only as many tokens as its text has under any usual tokenizer. For the same reason text of fewer than
//! [`PLAIN_BYTES`] a token, which is no prose in a Latin script, may hide some.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::answer::{self, Reported, Said};
use crate::config::Metering;
use crate::request;
use crate::tokens;

/// Text kept for counting before it is counted and let go, per choice, in bytes.
const KEPT_BYTES: usize = 32 << 10;
/// Choices that are counted apart; more share the last place.
const CHOICES: usize = 128;
/// A token of plain text has more bytes: a report that leaves fewer to each is not looked into.
const PLAIN_BYTES: u64 = 4;
/// What a chat template adds per message and per call, at most, in tokens.
const PER_MESSAGE: u64 = 4;

/// The tokens that go into the bill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bill {
    pub(crate) prompt: u64,
    pub(crate) completion: u64,
    /// By our own count.
    pub(crate) estimated: bool,
    /// The supplier reported more or less than we can believe.
    pub(crate) distrusted: bool,
}

/// Counts one call.
#[derive(Debug)]
pub(crate) struct Meter {
    body: Bytes,
    texts: Vec<Counted>,
    reported: Option<Reported>,
    /// Events with generated text.
    deltas: u64,
}

#[derive(Debug, Default)]
struct Counted {
    kept: String,
    tokens: u64,
    words: u64,
    bytes: u64,
}

impl Meter {
    /// The meter of a call with this request body.
    pub(crate) fn new(body: Bytes) -> Self {
        Self { body, texts: Vec::new(), reported: None, deltas: 0 }
    }

    /// Takes in what was delivered. The last usage counts; they are cumulative and never added up.
    pub(crate) fn take(&mut self, said: &Said<'_>) {
        self.reported = said.usage.or(self.reported);
        let mut any = false;
        for (choice, text) in &said.texts {
            any |= !text.is_empty();
            let at = (*choice as usize).min(CHOICES - 1);
            if self.texts.len() <= at {
                self.texts.resize_with(at + 1, Counted::default);
            }
            self.texts[at].take(text);
        }
        self.deltas += u64::from(any);
    }

    /// Whether anything was delivered.
    pub(crate) fn delivered(&self) -> bool {
        self.deltas > 0 || self.reported.is_some()
    }

    /// The bill of a call that the supplier finished.
    pub(crate) fn bill(&self, metering: Metering) -> Bill {
        let Some(reported) = self.reported else {
            return self.own(false);
        };
        let within = |reported: u64, own: u64| reported <= ceiling(own, metering);
        let prompt_words = words_of_strings(&self.body);
        let silent = reported.completion == 0 && self.deltas > 0;
        let prompt_fits = || {
            if within(reported.prompt, prompt_words) {
                return true;
            }
            let prompt = Prompt::read(&self.body);
            let text = reported.prompt.saturating_sub(request::media_tokens(&self.body));
            within(text, prompt.words()) || within(text, prompt.tokens())
        };
        let completion_fits = || {
            let words = self.texts.iter().map(|text| text.words).sum();
            within(reported.completion, words) || within(reported.completion, self.completion())
        };
        let hides = || {
            let most = ceiling(reported.completion, metering);
            let (words, bytes) =
                self.texts.iter().fold((0, 0), |sum, text| (sum.0 + text.words, sum.1 + text.bytes));
            let answer = (words > most || bytes / PLAIN_BYTES > most) && self.completion() > most;
            let most = ceiling(reported.prompt, metering);
            answer || prompt_words > most && Prompt::read(&self.body).said > most
        };
        if silent || !completion_fits() || !prompt_fits() || hides() {
            return self.own(true);
        }
        Bill { prompt: reported.prompt, completion: reported.completion, estimated: false, distrusted: false }
    }

    /// The bill of a call that ended early: our count of what was delivered.
    pub(crate) fn partial_bill(&self) -> Bill {
        self.own(false)
    }

    fn own(&self, distrusted: bool) -> Bill {
        Bill {
            prompt: Prompt::read(&self.body).tokens(),
            completion: self.completion(),
            estimated: true,
            distrusted,
        }
    }

    fn completion(&self) -> u64 {
        self.texts.iter().map(Counted::total).sum()
    }

    /// Whether the final count is worth a thread of its own.
    pub(crate) fn is_large(&self) -> bool {
        self.body.len() > 16 << 10
    }
}

/// Words of all strings of a JSON text, less one for each string, for most are names and not prose: as good a floor of a
/// prompt's tokens as is to be had without reading it. Text of the client's that is no prompt is in it, which gains its
/// supplier nothing unless the client wants it to.
fn words_of_strings(json: &[u8]) -> u64 {
    let (mut words, mut rest) = (0, json);
    while let Some(quote) = memchr::memchr(b'"', rest) {
        let string = &rest[quote + 1..];
        let mut end = 0;
        loop {
            match memchr::memchr2(b'"', b'\\', string.get(end..).unwrap_or_default()) {
                None => return words,
                Some(at) if string[end + at] == b'"' => break end += at,
                Some(at) => end += at + 2,
            }
        }
        words += tokens::words(&string[..end]).saturating_sub(1);
        rest = &string[end + 1..];
    }
    words
}

/// The most that we believe where we count `own`.
fn ceiling(own: u64, metering: Metering) -> u64 {
    let relative = u128::from(own) * u128::from(metering.percent) / 100;
    own.saturating_add(relative.min(u128::from(u64::MAX)) as u64).saturating_add(metering.slack)
}

impl Counted {
    fn take(&mut self, text: &str) {
        // A word that began in the last piece goes on in this one.
        let joins = self.bytes > 0
            && !self.kept.ends_with(|c: char| c.is_ascii_whitespace())
            && !text.starts_with(|c: char| c.is_ascii_whitespace());
        self.words += tokens::words(text).saturating_sub(u64::from(joins));
        self.bytes += text.len() as u64;
        self.kept.push_str(text);
        if self.kept.len() > KEPT_BYTES {
            let whole = self.kept.rfind(|c: char| c.is_ascii_whitespace()).filter(|at| *at > 0);
            let rest = self.kept.split_off(whole.unwrap_or(self.kept.len()));
            self.tokens += tokens::count(&self.kept);
            self.kept = rest;
        }
    }

    fn total(&self) -> u64 {
        self.tokens + tokens::count(&self.kept)
    }
}

/// Tokens of a chat completion request's prompt, by our own count.
pub(crate) fn prompt_tokens(body: &[u8]) -> u64 {
    Prompt::read(body).tokens() + request::media_tokens(body)
}

/// The counted parts of a request.
struct Prompt {
    texts: String,
    messages: u64,
    /// Words of what the messages say.
    said: u64,
}

#[derive(Deserialize)]
struct Body<'a> {
    messages: Vec<Value>,
    #[serde(borrow)]
    tools: Option<&'a RawValue>,
}

impl Prompt {
    fn read(body: &[u8]) -> Self {
        let mut prompt = Self { texts: String::new(), messages: 0, said: 0 };
        let Ok(body) = serde_json::from_slice::<Body<'_>>(body) else {
            // Nested too deep for a tree: all of it counts, so that nobody hides a prompt that way.
            prompt.texts = String::from_utf8_lossy(body).into_owned();
            return prompt;
        };
        prompt.messages = body.messages.len() as u64;
        for message in &body.messages {
            // An image is not text; a supplier counts it by its own rule, within an allowance.
            let is_text = |text: &str| !text.starts_with("data:");
            if let Some(content) = message.get("content") {
                answer::strings(content, &mut |text| {
                    prompt.said += if is_text(text) { tokens::words(text) } else { 0 };
                });
            }
            answer::strings(message, &mut |text| {
                if is_text(text) {
                    prompt.texts.push_str(text);
                    prompt.texts.push('\n');
                }
            });
        }
        if let Some(tools) = body.tools {
            prompt.texts.push_str(tools.get());
        }
        prompt
    }

    fn words(&self) -> u64 {
        tokens::words(&self.texts)
    }

    fn tokens(&self) -> u64 {
        tokens::count(&self.texts) + PER_MESSAGE * self.messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_strings_are_a_floor_of_the_prompts_words() {
        for (body, words) in [
            (r#"{"model":"m","messages":[{"role":"user","content":"the market price"}]}"#, 2),
            (r#"{ "model" : "m" , "messages" : [ { "role" : "user" , "content" : "a \"b\\" } ] }"#, 1),
            (r#"{"messages":[{"content":"one two"},{"content":[{"text":"three four five"}]}]}"#, 3),
            (r#"{"messages":[{"content":"data:image/png;base64,AAAA"}]}"#, 0),
            (r#"{"messages":[{"content":"never ended "#, 0),
            ("\"\\", 0),
        ] {
            assert_eq!(words_of_strings(body.as_bytes()), words, "{body}");
            assert!(words <= Prompt::read(body.as_bytes()).words(), "{body}");
        }
    }

    const METERING: Metering = Metering { percent: 50, slack: 8 };

    fn meter(completion: &[&str]) -> Meter {
        let body = br#"{"model":"m","messages":[{"role":"user","content":"the market price of time is a good order"}]}"#;
        let mut meter = Meter::new(Bytes::from_static(body));
        for text in completion {
            let json = serde_json::json!({"choices": [{"index": 0, "delta": {"content": text}}]}).to_string();
            meter.take(&answer::read(json.as_bytes()).unwrap());
        }
        meter
    }

    fn report(meter: &mut Meter, prompt: u64, completion: u64) {
        let json = serde_json::json!({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion}});
        meter.take(&answer::read(json.to_string().as_bytes()).unwrap());
    }

    #[test]
    fn a_believable_report_is_billed_as_it_stands() {
        let mut meter = meter(&["the market", " price", " of time"]);
        report(&mut meter, 9, 5);
        assert_eq!(
            meter.bill(METERING),
            Bill { prompt: 9, completion: 5, estimated: false, distrusted: false }
        );
    }

    #[test]
    fn the_last_report_counts_and_nothing_is_added_up() {
        let mut meter = meter(&["the market price"]);
        report(&mut meter, 9, 1);
        report(&mut meter, 9, 3);
        assert_eq!(meter.bill(METERING).completion, 3);
    }

    #[test]
    fn a_report_beyond_tolerance_is_replaced_by_our_count() {
        for (prompt, completion) in [(9, 500), (500, 5), (9, 0), (u64::MAX, u64::MAX)] {
            let mut meter = meter(&["the market", " price", " of time"]);
            report(&mut meter, prompt, completion);
            let bill = meter.bill(METERING);
            assert!(bill.distrusted && bill.estimated, "{prompt} {completion}");
            assert_eq!((bill.prompt, bill.completion), (9 + 1 + PER_MESSAGE, 5));
        }
    }

    #[test]
    fn a_report_far_below_what_was_said_is_replaced_by_our_count() {
        let answer = "the market price of time ".repeat(20);
        for (prompt, completion, lied) in
            [(9, 100, false), (9, 62, false), (9, 61, true), (9, 1, true), (1, 100, false), (0, 100, false)]
        {
            let mut meter = meter(&[&answer]);
            report(&mut meter, prompt, completion);
            let bill = meter.bill(METERING);
            assert_eq!((bill.distrusted, bill.estimated), (lied, lied), "{prompt} {completion}");
            let billed = if lied { meter.completion() } else { completion };
            assert_eq!(bill.completion, billed, "{prompt} {completion}");
        }
    }

    #[test]
    fn tools_and_earlier_reasoning_may_come_to_fewer_tokens_than_their_text_but_not_what_the_messages_say() {
        let words = "the market price of time ".repeat(20);
        let tools = serde_json::json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant",
            "content": "b", "reasoning_content": words}], "tools": [{"description": words}]});
        let message =
            serde_json::json!({"messages": [{"role": "user", "content": [{"type": "text", "text": words}]}]});
        for (body, lied) in [(tools, false), (message, true)] {
            let mut meter = Meter::new(Bytes::from(body.to_string()));
            report(&mut meter, 12, 0);
            assert_eq!(meter.bill(METERING).distrusted, lied, "{body}");
        }
    }

    #[test]
    fn without_a_report_our_count_is_billed() {
        let bill = meter(&["the market", " price", " of time"]).bill(METERING);
        assert!(bill.estimated && !bill.distrusted);
        assert_eq!(bill.completion, 5);
    }

    #[test]
    fn a_long_completion_is_counted_as_it_comes() {
        let mut meter = meter(&[]);
        let json =
            serde_json::json!({"choices": [{"delta": {"content": " market".repeat(1_000)}}]}).to_string();
        for _ in 0..20 {
            meter.take(&answer::read(json.as_bytes()).unwrap());
        }
        assert_eq!(meter.partial_bill().completion, 20_000);
        assert!(meter.texts[0].kept.len() <= KEPT_BYTES);
        assert_eq!(meter.texts[0].words, 20_000);
    }
}
