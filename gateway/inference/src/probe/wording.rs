//! What a probe asks. The questions are such that any model of use answers them rightly, and that an answer can be
//! checked without understanding it.

use serde_json::{Value, json};

use crate::tokens;

/// Words that every usual tokenizer makes one token of, so that a prompt counted here is about as long elsewhere.
const WORDS: [&str; 40] = [
    "water", "stone", "green", "house", "light", "paper", "river", "morning", "winter", "garden", "simple",
    "table", "window", "street", "music", "letter", "summer", "silver", "number", "island", "market",
    "bridge", "forest", "yellow", "small", "round", "early", "second", "little", "quiet", "under", "over",
    "near", "with", "from", "some", "many", "each", "after", "before",
];
/// Words on a line of the long prompt.
const LINE: usize = 16;

/// A request with one message.
pub(super) fn ask(text: &str, limit: u64) -> Value {
    json!({"messages": [{"role": "user", "content": text}], "max_tokens": limit})
}

/// A question with an answer long enough to be measured.
pub(super) fn count_aloud(limit: u64) -> Value {
    ask(
        "Write the numbers from one to two hundred as English words, separated by commas, and nothing else.",
        limit,
    )
}

/// A question with the shortest of answers.
pub(super) fn say_yes(limit: u64) -> Value {
    ask("Answer with the single word yes.", limit)
}

/// What a function of the tools takes.
pub(super) fn parameters() -> Value {
    json!({"type": "object", "additionalProperties": false, "required": ["city", "unit", "days"], "properties": {
        "city": {"type": "string", "description": "Name of the city"},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        "days": {"type": "integer", "description": "Days ahead, from 1 to 7"}}})
}

fn tool(name: &str, description: &str) -> Value {
    json!({"type": "function",
        "function": {"name": name, "description": description, "parameters": parameters()}})
}

/// A request that must call `get_forecast` and nothing else.
pub(super) fn forced_call(limit: u64) -> Value {
    let mut body = ask("What will the weather be in Lisbon over the next 3 days, in celsius?", limit);
    body["tools"] = json!([
        tool("get_forecast", "Tells the weather of the days to come."),
        tool("get_history", "Tells the weather of days gone by."),
    ]);
    body["tool_choice"] = json!({"type": "function", "function": {"name": "get_forecast"}});
    body
}

/// A request that wants two calls; whether they may come at once is `parallel`.
pub(super) fn two_calls(limit: u64, parallel: bool) -> Value {
    let mut body = forced_call(limit);
    body["messages"][0]["content"] = json!(
        "Call get_forecast and get_history, both in this one turn, for Lisbon, 3 days, in celsius. I need both."
    );
    body["tool_choice"] = json!("required");
    body["parallel_tool_calls"] = json!(parallel);
    body
}

/// The schema that an answer must fit.
pub(super) fn schema() -> Value {
    json!({"type": "object", "additionalProperties": false, "required": ["title", "pages", "tags", "kind"],
        "properties": {
            "title": {"type": "string"},
            "pages": {"type": "integer"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "kind": {"type": "string", "enum": ["novel", "poem", "play"]}}})
}

/// A request for an answer that fits it.
pub(super) fn structured(limit: u64) -> Value {
    let mut body = ask("Make up a book and describe it.", limit);
    body["response_format"] = json!({"type": "json_schema",
        "json_schema": {"name": "book", "strict": true, "schema": schema()}});
    body
}

/// A long prompt and what must be found in it.
pub(super) struct Haystack {
    pub(super) text: String,
    pub(super) needles: [String; 3],
    /// By our own count.
    pub(super) tokens: u64,
}

/// A prompt of about so many tokens by our own count, and not more, with three numbers near its beginning, in its
/// middle and near its end. Both words and numbers are drawn anew each time: no cache has seen them.
pub(super) fn haystack(tokens_wanted: u64) -> Haystack {
    const NAMES: [&str; 3] = ["amber", "cobalt", "violet"];
    const QUESTION: &str = "Three numbers were kept in this text: under amber, under cobalt and under violet. Answer with the three \
         numbers and nothing else.";
    let needles: [String; 3] =
        std::array::from_fn(|_| rand::random_range(100_000..1_000_000_u32).to_string());
    let kept =
        NAMES.iter().zip(&needles).map(|(name, number)| format!("The number kept under {name} is {number}."));
    let kept: Vec<String> = kept.collect();
    // What isn't filler, with some room for how it joins.
    let rest = tokens::count(&(kept.join("\n") + QUESTION)) + 16;
    let wanted = tokens_wanted.saturating_sub(rest);
    let mut lines: Vec<String> = Vec::new();
    while (lines.len() * LINE) as u64 <= wanted {
        let words: Vec<&str> = (0..LINE).map(|_| WORDS[rand::random_range(0..WORDS.len())]).collect();
        lines.push(words.join(" "));
    }
    let counted = tokens::count(&lines.join("\n")).max(1);
    if counted > wanted {
        lines.truncate((lines.len() as u64 * wanted / counted) as usize);
    }
    let count = lines.len();
    for (needle, percent) in kept.into_iter().zip([5, 50, 95]).rev() {
        lines.insert(count * percent / 100, needle);
    }
    let text = format!("{}\n\n{QUESTION}", lines.join("\n"));
    Haystack { tokens: tokens::count(&text), text, needles }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_haystack_is_as_long_as_asked_for_and_holds_its_needles() {
        for wanted in [1_000, 4_000, 60_000] {
            let stack = haystack(wanted);
            assert!((wanted * 9 / 10..=wanted).contains(&stack.tokens), "{} of {wanted}", stack.tokens);
            assert!(stack.needles.iter().all(|needle| stack.text.contains(needle.as_str())));
            assert!(stack.text.find(&stack.needles[0]).unwrap() < stack.text.len() / 3);
            assert!(stack.text.find(&stack.needles[2]).unwrap() > stack.text.len() / 2);
        }
        assert_ne!(haystack(200).needles, haystack(200).needles);
    }
}
