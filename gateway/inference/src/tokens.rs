//! Our own count of tokens, for suppliers that send none or one that can't be believed.
//!
//! The vocabulary is `o200k_base`; it ships inside `tiktoken-rs`, so nothing is fetched. A text is counted in slices
//! cut before whitespace, which changes the count by next to nothing and bounds the work that an adversarial text
//! without spaces can cause.

use tiktoken_rs::o200k_base_singleton;

/// A slice that is counted at once, in bytes.
const SLICE_BYTES: usize = 4_096;
/// A run without whitespace is cut here, in bytes: merging costs the square of a run's length.
const RUN_BYTES: usize = 512;
/// Beyond this much text the count is scaled up from what came before, in bytes.
const SAMPLE_BYTES: usize = 512 << 10;

/// Builds the vocabulary, which takes a moment, before the first call needs it.
pub(crate) fn warm() {
    let _ = o200k_base_singleton();
}

/// Tokens of a text.
pub(crate) fn count(text: &str) -> u64 {
    let bpe = o200k_base_singleton();
    let (mut rest, mut tokens, mut counted) = (text, 0, 0);
    while !rest.is_empty() {
        if counted >= SAMPLE_BYTES {
            let scaled = u128::from(tokens) * rest.len() as u128 / counted as u128;
            return tokens + scaled as u64;
        }
        let (slice, after) = rest.split_at(cut(rest));
        tokens += bpe.count_ordinary(slice) as u64;
        counted += slice.len();
        rest = after;
    }
    tokens
}

/// Words of a text: no tokenizer's pieces span two words, so this is a floor of every count, at memory speed.
pub(crate) fn words(text: impl AsRef<[u8]>) -> u64 {
    let text = text.as_ref();
    // Where a word begins behind whitespace; so many bytes at once that a byte can count them, and the compiler use wide registers.
    const AT_ONCE: usize = 255;
    let space =
        |byte: u8| (byte == b' ') | (byte == b'\n') | (byte == b'\r') | (byte == b'\t') | (byte == 0x0c);
    let Some((first, rest)) = text.split_first() else {
        return 0;
    };
    let before = text.chunks(AT_ONCE);
    let begun = before.zip(rest.chunks(AT_ONCE)).map(|(before, at)| {
        let begins = before.iter().zip(at).map(|(before, at)| u8::from(space(*before) & !space(*at)));
        u64::from(begins.sum::<u8>())
    });
    u64::from(!space(*first)) + begun.sum::<u64>()
}

/// Where the first slice of a text ends.
fn cut(text: &str) -> usize {
    if text.len() <= RUN_BYTES {
        return text.len();
    }
    let window = &text.as_bytes()[..text.len().min(SLICE_BYTES)];
    let (mut end, mut run) = (None, 0);
    for (at, byte) in window.iter().enumerate() {
        if byte.is_ascii_whitespace() {
            if run > 0 {
                end = Some(at);
            }
            run = 0;
        } else {
            run += 1;
            if run >= RUN_BYTES {
                let at = end.filter(|&end| end > 0).unwrap_or(at);
                return text.floor_char_boundary(at);
            }
        }
    }
    if window.len() == text.len() {
        return text.len();
    }
    let at = end.filter(|&end| end > 0).unwrap_or(window.len());
    text.floor_char_boundary(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_words_are_one_token_each() {
        assert_eq!(count(""), 0);
        assert_eq!(count("the market price of time"), 5);
        let long = "the market price of time ".repeat(4_000);
        let (tokens, words) = (count(&long), words(&long));
        assert_eq!(words, 20_000);
        assert!((words..words + 200).contains(&tokens), "{tokens}");
    }

    #[test]
    fn texts_without_spaces_and_in_any_script_are_counted_without_a_fault() {
        for text in ["x".repeat(100_000), "信息".repeat(3_000), "\u{1f680}".repeat(900), " ".repeat(9_000)]
        {
            let tokens = count(&text);
            assert!(tokens > 0 && tokens <= text.len() as u64);
        }
    }

    #[test]
    fn words_are_a_floor_of_tokens() {
        for text in [
            "{\"a\": [1, 2]}",
            "fn main() { }",
            "a  b\n\nc",
            "don't stop; me-now",
            "",
            " ",
            " a",
            "\t\r\x0ca\n",
        ] {
            assert!(words(text) <= count(text), "{text}");
            assert_eq!(words(text), text.split_ascii_whitespace().count() as u64, "{text}");
        }
    }
}
