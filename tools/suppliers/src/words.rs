//! Made-up text: words in a reproducible order, and JSON that fits a schema.
//!
//! The words are common enough that the usual tokenizers give each of them, with its leading space, one token. A
//! gateway that must count for itself then comes close to the supplier's own count.

use serde_json::{Map, Value, json};

const WORDS: [&str; 48] = [
    "the", "market", "price", "of", "time", "is", "a", "good", "order", "and", "every", "model", "can",
    "give", "some", "answer", "to", "one", "question", "that", "people", "have", "when", "they", "need",
    "more", "work", "from", "this", "system", "with", "no", "real", "value", "but", "only", "simple", "text",
    "for", "test", "in", "which", "all", "words", "are", "open", "and", "free",
];

/// A small generator (SplitMix64): the same seed, the same numbers, on every machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draw(u64);

impl Draw {
    pub(crate) fn new(parts: &[u64]) -> Self {
        let mut draw = Self(0x9e37_79b9_7f4a_7c15);
        for part in parts {
            draw.0 ^= *part;
            draw.next();
        }
        draw
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in [0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// FNV-1a, enough to tell prompts apart.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

/// A text of exactly `tokens` tokens under the suppliers' counting rule.
#[must_use]
pub fn filler(tokens: u64) -> String {
    let mut text = String::with_capacity(tokens as usize * 5);
    for i in 0..tokens {
        if i > 0 {
            text.push(' ');
        }
        text.push_str(WORDS[(i % WORDS.len() as u64) as usize]);
    }
    text
}

/// An answer of exactly `tokens` words that says where it comes from.
pub(crate) fn answer(supplier: &str, tokens: u64, mut draw: Draw) -> String {
    let name: Vec<&str> = supplier.split_whitespace().collect();
    let opening = format!("Simulated supplier {} made up these words:", name.join("-"));
    let opening = opening.split_whitespace().map(str::to_owned);
    let rest = std::iter::repeat_with(|| WORDS[draw.below(WORDS.len() as u64) as usize].to_owned());
    opening.chain(rest).take(tokens as usize).collect::<Vec<_>>().join(" ")
}

/// The text cut into its words, each with the whitespace before it; joined again they are the text.
pub(crate) fn pieces(text: &str) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut start = 0;
    let mut in_word = false;
    for (at, c) in text.char_indices() {
        if c.is_whitespace() && in_word {
            pieces.push(text[start..at].to_owned());
            start = at;
            in_word = false;
        } else if !c.is_whitespace() {
            in_word = true;
        }
    }
    if in_word {
        pieces.push(text[start..].to_owned());
    } else if let Some(last) = pieces.last_mut() {
        last.push_str(&text[start..]);
    }
    pieces
}

/// JSON with a space after each comma and colon, so that it has words to stream.
pub(crate) fn spaced(value: &Value) -> String {
    match value {
        Value::Object(map) if !map.is_empty() => {
            let fields: Vec<_> =
                map.iter().map(|(k, v)| format!("{}: {}", Value::from(k.as_str()), spaced(v))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        Value::Array(items) if !items.is_empty() => {
            format!("[{}]", items.iter().map(spaced).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// A value that fits a JSON schema of the kind clients send: types, properties, items, enums, constants, references
/// into the same document, and the first of any alternatives. Depth is bounded; below it everything is null.
pub(crate) fn fitting(schema: &Value, root: &Value, text: &str, depth: u32) -> Value {
    if depth == 0 {
        return Value::Null;
    }
    if let Some(target) =
        schema.get("$ref").and_then(Value::as_str).and_then(|r| root.pointer(r.strip_prefix('#')?))
    {
        return fitting(target, root, text, depth - 1);
    }
    if let Some(value) = schema.get("const").or_else(|| schema.get("enum")?.get(0)) {
        return value.clone();
    }
    for key in ["anyOf", "oneOf", "allOf"] {
        if let Some(first) = schema.get(key).and_then(|options| options.get(0)) {
            return fitting(first, root, text, depth - 1);
        }
    }
    let kind = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.first().and_then(Value::as_str).unwrap_or("object"),
        Some(Value::String(kind)) => kind.as_str(),
        _ => "object",
    };
    match kind {
        "string" => Value::from(text),
        "integer" => schema.get("minimum").and_then(Value::as_i64).map_or(json!(1), Value::from),
        "number" => schema.get("minimum").and_then(Value::as_f64).map_or(json!(1.5), Value::from),
        "boolean" => Value::from(true),
        "null" => Value::Null,
        "array" => {
            let count = schema.get("minItems").and_then(Value::as_u64).unwrap_or(1).min(64);
            let item = schema.get("items").map_or(Value::from(text), |i| fitting(i, root, text, depth - 1));
            Value::from(vec![item; count as usize])
        }
        _ => {
            let mut map = Map::new();
            if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
                for (name, property) in properties {
                    map.insert(name.clone(), fitting(property, root, text, depth - 1));
                }
            }
            Value::Object(map)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_words_and_join_to_the_text() {
        for (text, count) in
            [("", 0), ("one", 1), ("one two", 2), (" lead and  gap\n", 3), ("{\"a\": [1, 2]}", 3)]
        {
            let cut = pieces(text);
            assert_eq!(cut.len(), count, "{text:?}");
            assert_eq!(cut.len(), text.split_whitespace().count());
            assert_eq!(cut.concat(), text);
        }
    }

    #[test]
    fn filler_has_exactly_the_words_asked_for() {
        for tokens in [0, 1, 7, 4_808] {
            assert_eq!(filler(tokens).split_whitespace().count() as u64, tokens);
        }
    }

    #[test]
    fn values_fit_their_schema_through_references() {
        let schema = json!({"type": "object", "properties": {
            "city": {"$ref": "#/$defs/city"}, "days": {"type": "array", "items": {"type": "integer"}, "minItems": 2},
            "unit": {"enum": ["c", "f"]}, "maybe": {"anyOf": [{"type": "boolean"}, {"type": "null"}]}},
            "$defs": {"city": {"type": "string"}}});
        assert_eq!(
            fitting(&schema, &schema, "simulated", 16),
            json!({"city": "simulated", "days": [1, 1], "unit": "c", "maybe": true})
        );
    }
}
