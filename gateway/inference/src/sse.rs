//! Server-sent events, split out of whatever pieces the network delivers.
//!
//! An event is passed on whole or not at all. One that came with bare `\n` line ends goes through as the very bytes
//! that came; one with `\r\n` or `\r` is rewritten with `\n`, because at the end of a piece a lone `\r` may or may
//! not be half of a line end, and waiting to find out would hold the event back.

use bytes::{Buf, Bytes, BytesMut};

/// One event of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its bytes, ready to be sent on, blank line included.
    pub(crate) raw: Bytes,
    /// What its `data` lines say; `None` where it has none (comments).
    pub(crate) data: Option<Bytes>,
}

/// An event is longer than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of more than {limit} bytes")]
pub(crate) struct TooLong {
    pub(crate) limit: usize,
}

/// Splits bytes into events; holds the unfinished event only.
#[derive(Debug)]
pub(crate) struct Splitter {
    buffer: BytesMut,
    /// Everything before this was looked at.
    scanned: usize,
    /// Where the line under `scanned` began.
    line: usize,
    /// Data lines of the unfinished event.
    data: Vec<(usize, usize)>,
    /// The event has a line.
    lines: bool,
    /// The event has a `\r`.
    carriage_return: bool,
    /// The last byte seen was a `\r`: a `\n` that follows belongs to it.
    after_return: bool,
    limit: usize,
}

impl Splitter {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            scanned: 0,
            line: 0,
            data: Vec::new(),
            lines: false,
            carriage_return: false,
            after_return: false,
            limit,
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole event, if there is one.
    pub(crate) fn next(&mut self) -> Result<Option<Event>, TooLong> {
        loop {
            if self.after_return && self.scanned < self.buffer.len() {
                self.after_return = false;
                if self.buffer[self.scanned] == b'\n' {
                    if self.scanned == 0 {
                        self.buffer.advance(1);
                    } else {
                        self.scanned += 1;
                        self.line = self.scanned;
                    }
                }
            }
            let Some(found) = memchr::memchr2(b'\n', b'\r', &self.buffer[self.scanned..]) else {
                self.scanned = self.buffer.len();
                return if self.scanned > self.limit { Err(TooLong { limit: self.limit }) } else { Ok(None) };
            };
            let end = self.scanned + found;
            if self.buffer[end] == b'\r' {
                self.carriage_return = true;
                self.after_return = true;
            }
            let start = self.line;
            self.scanned = end + 1;
            self.line = self.scanned;
            if start < end {
                self.lines = true;
                self.field(start, end);
            } else if self.lines {
                return Ok(Some(self.take()));
            } else {
                self.buffer.advance(self.scanned);
                (self.scanned, self.line, self.carriage_return) = (0, 0, false);
            }
        }
    }

    /// The event that the stream's end cut off before its blank line, if there is one.
    pub(crate) fn finish(&mut self) -> Option<Event> {
        // Nothing comes any more that could belong to a last `\r`.
        self.after_return = false;
        if self.line < self.buffer.len() {
            self.push(b"\n");
        }
        self.push(b"\n");
        self.next().ok().flatten()
    }

    fn field(&mut self, start: usize, end: usize) {
        let line = &self.buffer[start..end];
        let Some(value) = line.strip_prefix(b"data") else {
            return;
        };
        let skip = match value {
            [b':', b' ', ..] => 6,
            [b':', ..] => 5,
            [] => 4,
            _ => return,
        };
        self.data.push((start + skip, end));
    }

    fn take(&mut self) -> Event {
        let raw = self.buffer.split_to(self.scanned).freeze();
        let data = match self.data.as_slice() {
            [] => None,
            [(start, end)] => Some(raw.slice(start..end)),
            many => {
                let parts: Vec<&[u8]> = many.iter().map(|&(start, end)| &raw[start..end]).collect();
                Some(Bytes::from(parts.join(&b'\n')))
            }
        };
        let raw = if self.carriage_return { with_newlines(&raw) } else { raw };
        self.data.clear();
        (self.scanned, self.line) = (0, 0);
        (self.lines, self.carriage_return) = (false, false);
        Event { raw, data }
    }
}

fn with_newlines(raw: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(raw.len() + 2);
    for line in raw.split(|&byte| byte == b'\n' || byte == b'\r') {
        if !line.is_empty() {
            out.extend_from_slice(line);
            out.extend_from_slice(b"\n");
        }
    }
    out.extend_from_slice(b"\n");
    out.freeze()
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn split(pieces: &[&[u8]]) -> Vec<Event> {
        let mut splitter = Splitter::new(1 << 16);
        let mut events = Vec::new();
        for piece in pieces {
            splitter.push(piece);
            while let Some(event) = splitter.next().unwrap() {
                events.push(event);
            }
        }
        events.extend(splitter.finish());
        events
    }

    fn stream(newline: &str) -> Vec<u8> {
        [
            ": keep alive",
            "",
            "data: {\"a\":\"é\"}",
            "",
            "event: note",
            "data:one",
            "data: two",
            "id: 7",
            "",
            "",
            "",
            "data",
            "",
            "data: [DONE]",
            "",
            "",
        ]
        .join(newline)
        .into_bytes()
    }

    #[test]
    fn events_are_the_same_however_the_bytes_are_cut() {
        for newline in ["\n", "\r\n", "\r"] {
            let bytes = stream(newline);
            let whole = split(&[&bytes]);
            let texts: Vec<Option<&[u8]>> = whole.iter().map(|e| e.data.as_deref()).collect();
            let expected: Vec<Option<&[u8]>> =
                vec![None, Some("{\"a\":\"é\"}".as_bytes()), Some(b"one\ntwo"), Some(b""), Some(b"[DONE]")];
            assert_eq!(texts, expected, "{newline:?}");
            for at in 0..=bytes.len() {
                assert_eq!(split(&[&bytes[..at], &bytes[at..]]), whole, "{newline:?} cut at {at}");
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(split(&single), whole, "{newline:?} byte by byte");
        }
    }

    #[test]
    fn plain_events_pass_as_the_very_bytes_and_others_with_plain_line_ends() {
        let plain: Vec<Bytes> = split(&[&stream("\n")]).into_iter().map(|e| e.raw).collect();
        let windows: Vec<Bytes> = split(&[&stream("\r\n")]).into_iter().map(|e| e.raw).collect();
        assert_eq!(plain, windows);
        assert_eq!(plain[1], "data: {\"a\":\"é\"}\n\n".as_bytes());
    }

    #[test]
    fn the_last_event_counts_without_its_blank_line() {
        for tail in ["data: [DONE]", "data: [DONE]\n", "data: [DONE]\r\n", "data: [DONE]\r"] {
            let events = split(&[tail.as_bytes()]);
            assert_eq!(events.len(), 1, "{tail:?}");
            assert_eq!(events[0].raw, "data: [DONE]\n\n".as_bytes());
        }
        assert!(split(&[b"\n\n"]).is_empty());
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut splitter = Splitter::new(100);
        splitter.push(&[b'x'; 101]);
        assert_eq!(splitter.next(), Err(TooLong { limit: 100 }));
    }

    /// A stream made at random: its bytes, and the data that its events must turn out to have.
    fn drawn(random: &mut StdRng) -> (Vec<u8>, Vec<Option<Vec<u8>>>) {
        const LINE_ENDS: [&str; 3] = ["\n", "\r\n", "\r"];
        const TEXTS: [&str; 8] = [
            "",
            "x",
            " two  spaces",
            "{\"a\": 1}",
            "[DONE]",
            "data: data:",
            ": no comment",
            "\u{e9}\u{1f680}\u{200b}",
        ];
        let (mut bytes, mut events) = (Vec::new(), Vec::new());
        let count = random.random_range(0..6);
        for at in 0..count {
            // Within an event lines may end differently; but `\r` before `\n` is one end and not two.
            let mut end = LINE_ENDS[random.random_range(0..3)];
            let mut data: Vec<&str> = Vec::new();
            let lines = random.random_range(1..5);
            for _ in 0..lines {
                let text = TEXTS[random.random_range(0..TEXTS.len())];
                let line = match random.random_range(0..6) {
                    0 => format!(": {text}"),
                    1 => "event: note".to_owned(),
                    2 => "retry: 10".to_owned(),
                    3 if !text.starts_with(' ') => {
                        data.push(text);
                        format!("data:{text}")
                    }
                    _ => {
                        data.push(text);
                        format!("data: {text}")
                    }
                };
                bytes.extend_from_slice(line.as_bytes());
                bytes.extend_from_slice(end.as_bytes());
                if end == "\r\n" || random.random_bool(0.5) {
                    end = LINE_ENDS[random.random_range(0..2)];
                    if bytes.ends_with(b"\r") {
                        end = "\r";
                    }
                }
            }
            events.push((!data.is_empty()).then(|| data.join("\n").into_bytes()));
            // The last blank line may be missing; others may be many.
            if at + 1 < count || random.random_bool(0.5) {
                let end = if bytes.ends_with(b"\r") { "\r" } else { end };
                for _ in 0..random.random_range(1..3) {
                    bytes.extend_from_slice(end.as_bytes());
                }
            }
        }
        (bytes, events)
    }

    #[test]
    fn any_stream_is_understood_however_it_is_written_and_cut() {
        for seed in 0..400 {
            let random = &mut StdRng::seed_from_u64(seed);
            let (bytes, wanted) = drawn(random);
            let texts = |events: Vec<Event>| -> Vec<Option<Vec<u8>>> {
                events.into_iter().map(|event| event.data.map(|data| data.to_vec())).collect()
            };
            let shown = String::from_utf8_lossy(&bytes).into_owned();
            assert_eq!(texts(split(&[&bytes])), wanted, "seed {seed}: {shown:?}");
            for at in 0..=bytes.len() {
                let cut = split(&[&bytes[..at], &bytes[at..]]);
                // What goes on to a client is understood the same way by it.
                let again: Vec<u8> = cut.iter().flat_map(|event| event.raw.to_vec()).collect();
                assert!(!again.contains(&b'\r'), "seed {seed} cut at {at}");
                assert_eq!(texts(split(&[&again])), wanted, "seed {seed} cut at {at}, sent on: {shown:?}");
                assert_eq!(texts(cut), wanted, "seed {seed} cut at {at}: {shown:?}");
            }
            let mut rest = bytes.as_slice();
            let mut pieces = Vec::new();
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(random.random_range(1..=rest.len().min(5)));
                pieces.push(piece);
                rest = after;
            }
            assert_eq!(texts(split(&pieces)), wanted, "seed {seed} in small pieces: {shown:?}");
        }
    }
}
