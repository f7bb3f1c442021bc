//! The usual chunk of a stream, read in one pass.
//!
//! A chunk says little in many bytes, and there is one for each token. What nearly all of them look like is read here
//! without a tree and without a list: an object with one choice, whose texts have no escapes, and no member that a client
//! may not see (see `shown`). Whatever else it is, down to a
//! single odd byte, is not for this reader to judge: the answer is `None` then, and the careful one reads it.

use std::borrow::Cow;

use crate::answer::{FINISHES, Plain, Said};

/// What the chunk says, if it is of the usual form.
pub(crate) fn read(json: &[u8]) -> Option<Said<'_>> {
    let text = std::str::from_utf8(json).ok()?;
    let mut chunk = Reader { text, at: 0 };
    let mut said = Said::default();
    let mut plain = Plain::default();
    chunk.object(|chunk, name| {
        match name {
            "created" => said.created = chunk.whole()?,
            "usage" => {
                chunk.word("null")?;
                said.has_usage_key = true;
            }
            "choices" => {
                // Twice is odd.
                (!said.choices).then_some(())?;
                said.choices = true;
                chunk.peek()?;
                let start = chunk.at;
                chunk.byte(b'[')?;
                chunk.choice(&mut said)?;
                chunk.byte(b']')?;
                plain.choices = &text[start..chunk.at];
            }
            "service_tier" => plain.service_tier = chunk.text()?,
            "obfuscation" => plain.obfuscation = chunk.text()?,
            "id" | "object" | "model" | "system_fingerprint" => chunk.skip()?,
            _ => return None,
        }
        Some(())
    })?;
    said.plain = said.choices.then_some(plain);
    (chunk.at == text.len()).then_some(said)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn choice(&mut self, said: &mut Said<'a>) -> Option<()> {
        let (mut index, mut seen) = (0, false);
        // Reasoning comes before content in the careful reading, whatever the order here.
        let mut texts = [None, None];
        self.object(|choice, name| {
            match name {
                "index" => index = choice.whole()?,
                "delta" => {
                    (!seen).then_some(())?;
                    seen = true;
                    choice.object(|delta, name| {
                        match name {
                            "role" => delta.skip()?,
                            "reasoning_content" => texts[0] = delta.text()?,
                            "content" => texts[1] = delta.text()?,
                            "refusal" => delta.word("null")?,
                            _ => return None,
                        }
                        Some(())
                    })?;
                }
                "finish_reason" => {
                    if let Some(reason) = choice.text()? {
                        FINISHES.contains(&reason).then_some(())?;
                        said.finished = true;
                    }
                }
                "logprobs" => choice.word("null")?,
                _ => return None,
            }
            Some(())
        })?;
        said.texts.extend(texts.into_iter().flatten().map(|text| (index, Cow::Borrowed(text))));
        Some(())
    }

    /// An object whose names come once each, as far as whoever reads them sees to it.
    fn object(&mut self, mut member: impl FnMut(&mut Self, &'a str) -> Option<()>) -> Option<()> {
        self.byte(b'{')?;
        if self.peek() == Some(b'}') {
            return self.byte(b'}');
        }
        loop {
            let name = self.string()?;
            self.byte(b':')?;
            member(self, name)?;
            if self.peek() == Some(b'}') {
                return self.byte(b'}');
            }
            self.byte(b',')?;
        }
    }

    /// The next byte that says something.
    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        if *bytes.get(self.at)? == b' ' {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    fn byte(&mut self, wanted: u8) -> Option<()> {
        (self.peek()? == wanted).then(|| self.at += 1)
    }

    fn word(&mut self, wanted: &str) -> Option<()> {
        self.peek()?;
        self.text.get(self.at..)?.starts_with(wanted).then(|| self.at += wanted.len())
    }

    /// A string without escapes.
    fn string(&mut self) -> Option<&'a str> {
        self.byte(b'"')?;
        let rest = &self.text.as_bytes()[self.at..];
        let length = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20))?;
        (rest[length] == b'"').then_some(())?;
        // Both ends lie at an ASCII byte.
        let string = self.text.get(self.at..self.at + length)?;
        self.at += length + 1;
        Some(string)
    }

    /// A string, or null.
    fn text(&mut self) -> Option<Option<&'a str>> {
        match self.peek()? {
            b'n' => self.word("null").map(|()| None),
            _ => self.string().map(Some),
        }
    }

    /// A number without sign, point or leading zero.
    fn whole(&mut self) -> Option<u64> {
        self.peek()?;
        let digits = self.text.as_bytes()[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number = &self.text[self.at..self.at + digits];
        (digits > 0 && (digits == 1 || !number.starts_with('0'))).then_some(())?;
        self.at += digits;
        // What goes on is no whole number, and whoever reads on finds neither comma nor brace.
        number.parse().ok()
    }

    /// A string or null that nobody asks for.
    fn skip(&mut self) -> Option<()> {
        self.text().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::answer;

    const USUAL: [&str; 6] = [
        r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1790000000,"model":"m","system_fingerprint":"fp","choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}],"usage":null}"#,
        r#"{"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":2,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#,
        r#"{"id": "1", "created": 0, "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}"#,
        r#"{"choices":[{"delta":{"content":"é 信","reasoning_content":"b","refusal":null},"index":1}]}"#,
        r#"{"choices":[{"index":0,"delta":{"content":null},"finish_reason":null}],"usage":null}"#,
        r#"{"choices":[{}]}"#,
    ];

    /// All that both readings say.
    fn told(mut said: Said<'_>) -> String {
        said.plain = None;
        format!("{said:?}")
    }

    #[test]
    fn usual_chunks_are_read_and_say_what_the_careful_reader_hears() {
        for json in USUAL {
            let lean = read(json.as_bytes()).unwrap_or_else(|| panic!("not read: {json}"));
            assert_eq!(told(lean), told(answer::careful(json.as_bytes()).unwrap()), "{json}");
        }
    }

    #[test]
    fn unusual_ones_are_left_to_the_careful_reader() {
        for json in [
            "",
            "{",
            "[]",
            r#"{"choices":[]}"#,
            r#"{"choices":[{"delta":{"content":"a\nb"}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[]}}]}"#,
            r#"{"choices":[{"delta":{}},{"delta":{}}]}"#,
            r#"{"choices":[{"delta":{},"delta":{}}]}"#,
            r#"{"choices":[{"delta":{}}],"usage":{"prompt_tokens":1}}"#,
            r#"{"choices":[{"delta":{}}],"error":{}}"#,
            r#"{"choices":[{"delta":{}}]} x"#,
            r#"{"choices":[{"delta":{}}],}"#,
            r#"{"created":01}"#,
            r#"{"created":1.5}"#,
            r#"{"created":99999999999999999999}"#,
        ] {
            assert!(read(json.as_bytes()).is_none(), "{json}");
        }
    }

    #[test]
    fn whatever_is_read_says_what_the_careful_reader_hears_however_the_bytes_are_changed() {
        let mut rng = StdRng::seed_from_u64(7);
        let mut still_read = 0;
        for _ in 0..200_000 {
            let mut bytes = USUAL[rng.random_range(0..USUAL.len())].as_bytes().to_vec();
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..bytes.len());
                match rng.random_range(0..3) {
                    0 => bytes[at] = b" \"\\{}[],:0a\n\x80"[rng.random_range(0..13)],
                    1 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, bytes[rng.random_range(0..bytes.len())]),
                }
            }
            if let Some(lean) = read(&bytes) {
                still_read += 1;
                let careful = answer::careful(&bytes);
                let careful = careful.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&bytes)));
                assert_eq!(told(lean), told(careful), "{}", String::from_utf8_lossy(&bytes));
            }
        }
        assert!(still_read > 1_000, "{still_read}");
    }
}
