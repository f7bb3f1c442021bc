//! However a supplier's bytes are cut, however its lines end, and whatever else it sends: the client's events are the
//! same. A random answer comes out whole in every language.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::*;
use crate::sse::Splitter;

const BILL: Bill = Bill { prompt: 30, completion: 40, estimated: false, distrusted: false };

fn seed() -> u64 {
    let seed = std::env::var("GRID_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_261_121);
    println!("GRID_SEED={seed}");
    seed
}

fn teller(dialect: Dialect) -> Teller {
    let body = match dialect {
        Dialect::Messages => {
            json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}],
            "thinking": {"type": "adaptive"}})
        }
        _ => json!({"model": "m", "input": "x"}),
    };
    let (_, teller) = dialect.read(Bytes::from(body.to_string()), 7, 1 << 20).unwrap();
    *teller
}

/// What a client sees of a supplier's bytes that come in these pieces.
fn told<'a>(dialect: Dialect, pieces: impl Iterator<Item = &'a [u8]>) -> String {
    let (mut teller, mut splitter) = (teller(dialect), Splitter::new(1 << 16));
    let mut out = BytesMut::new();
    let mut hear = |event: crate::sse::Event| {
        if let Some(data) = event.data.filter(|data| data.as_ref() != b"[DONE]") {
            teller.hear(&data, &crate::answer::read(&data).unwrap(), &mut out).unwrap();
        }
    };
    for piece in pieces {
        splitter.push(piece);
        while let Some(event) = splitter.next().unwrap() {
            hear(event);
        }
    }
    splitter.finish().into_iter().for_each(&mut hear);
    out.extend_from_slice(&teller.end(BILL));
    String::from_utf8(out.to_vec()).unwrap()
}

/// A random answer: what it consists of, and a stream that says it.
struct Answer {
    thought: String,
    said: String,
    calls: Vec<(String, Value)>,
    chunks: Vec<String>,
}

fn words(dice: &mut StdRng, most: usize) -> String {
    const WORDS: [&str; 8] = ["price", " of\n", "\"time\"", " é", "信", "\u{1f680}", "\\u0041", " {}"];
    (0..dice.random_range(0..=most)).map(|_| WORDS[dice.random_range(0..WORDS.len())]).collect()
}

/// Cuts a text at random characters.
fn cut(dice: &mut StdRng, text: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    for character in text.chars() {
        if dice.random_bool(0.3) {
            pieces.push(String::new());
        }
        pieces.last_mut().unwrap().push(character);
    }
    pieces
}

fn answer(dice: &mut StdRng) -> Answer {
    let chunk = |delta: Value, finish: Value| {
        json!({"id": "c", "object": "chat.completion.chunk", "created": 5, "model": "served",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
        .to_string()
    };
    let (thought, said) = (words(dice, 6), words(dice, 12));
    let mut chunks = vec![chunk(json!({"role": "assistant", "content": ""}), Value::Null)];
    for (name, text) in [("reasoning_content", &thought), ("content", &said)] {
        for piece in cut(dice, text) {
            chunks.push(chunk(json!({name: piece}), Value::Null));
        }
    }
    let mut calls = Vec::new();
    // Parts of calls come one call after the other, or in any mixture.
    let mut parts: Vec<Vec<Value>> = Vec::new();
    for index in 0..dice.random_range(0..4_u64) {
        let input = json!({"text": words(dice, 4), "n": dice.random_range(0..1_000)});
        let id = format!("call_{index}");
        let mut mine = vec![json!({"index": index, "id": id, "type": "function",
            "function": {"name": format!("f{index}"), "arguments": ""}})];
        let pieces = cut(dice, &input.to_string());
        mine.extend(pieces.into_iter().map(|text| json!({"index": index, "function": {"arguments": text}})));
        parts.push(mine);
        calls.push((id, input));
    }
    let mixed = dice.random_bool(0.5);
    let mut heads: Vec<std::vec::IntoIter<Value>> = parts.into_iter().map(Vec::into_iter).collect();
    let mut begun = 0;
    while !heads.is_empty() {
        // A call begins only after those before it have begun: that is their order.
        let at = if mixed && begun > 0 { dice.random_range(0..=begun.min(heads.len() - 1)) } else { 0 };
        match heads[at].next() {
            Some(part) => {
                begun = begun.max(at + 1);
                chunks.push(chunk(json!({"tool_calls": [part]}), Value::Null));
            }
            None => {
                drop(heads.remove(at));
                begun = begun.saturating_sub(1);
            }
        }
    }
    chunks.push(chunk(json!({}), json!(if calls.is_empty() { "stop" } else { "tool_calls" })));
    chunks.push(json!({"choices": [], "usage": {"prompt_tokens": 30, "completion_tokens": 40}}).to_string());
    Answer { thought, said, calls, chunks }
}

fn stream(chunks: &[String], newline: &str, noise: bool) -> Vec<u8> {
    let mut out = String::new();
    for chunk in chunks {
        if noise {
            out.push_str(&format!(": keep-alive{newline}{newline}event: chunk{newline}id: 1{newline}"));
        }
        out.push_str(&format!("data: {chunk}{newline}{newline}"));
    }
    (out + &format!("data: [DONE]{newline}{newline}")).into_bytes()
}

#[test]
fn events_are_the_same_however_the_bytes_are_cut() {
    let mut dice = StdRng::seed_from_u64(seed());
    for dialect in [Dialect::Messages, Dialect::Responses] {
        for round in 0..60 {
            let answer = answer(&mut dice);
            let plain = stream(&answer.chunks, "\n", false);
            let whole = told(dialect, std::iter::once(plain.as_slice()));
            for newline in ["\n", "\r\n", "\r"] {
                let bytes = stream(&answer.chunks, newline, round % 2 == 0);
                assert_eq!(told(dialect, bytes.chunks(1)), whole, "round {round}, byte by byte");
                let mut cuts = vec![0, bytes.len()];
                cuts.extend((0..20).map(|_| dice.random_range(0..bytes.len())));
                cuts.sort_unstable();
                let pieces = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]);
                assert_eq!(told(dialect, pieces), whole, "round {round}, {cuts:?}");
            }
        }
    }
}

fn data(text: &str) -> Vec<Value> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("data: "));
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What a client puts together from the events of a Messages stream, as its libraries do.
fn put_together(events: &[Value]) -> Vec<Value> {
    let mut blocks: Vec<Value> = Vec::new();
    let mut inputs: Vec<String> = Vec::new();
    let mut open = None;
    for event in events {
        match event["type"].as_str().unwrap() {
            "content_block_start" => {
                assert_eq!(open, None, "one block at a time");
                open = Some(event["index"].as_u64().unwrap());
                assert_eq!(open, Some(blocks.len() as u64));
                blocks.push(event["content_block"].clone());
                inputs.push(String::new());
            }
            "content_block_delta" => {
                assert_eq!(open, event["index"].as_u64());
                let block = blocks.last_mut().unwrap();
                for name in ["text", "thinking"] {
                    if let Some(piece) = event["delta"][name].as_str() {
                        block[name] = json!(block[name].as_str().unwrap().to_owned() + piece);
                    }
                }
                *inputs.last_mut().unwrap() += event["delta"]["partial_json"].as_str().unwrap_or_default();
            }
            "content_block_stop" => {
                assert_eq!(open.take(), event["index"].as_u64());
                let (block, input) = (blocks.last_mut().unwrap(), inputs.last().unwrap());
                if block["type"] == "tool_use" {
                    block["input"] = serde_json::from_str(input).unwrap();
                }
            }
            _ => {}
        }
    }
    assert_eq!(open, None);
    blocks
}

#[test]
fn a_random_answer_comes_out_whole() {
    let mut dice = StdRng::seed_from_u64(seed());
    for _ in 0..200 {
        let answer = answer(&mut dice);
        let bytes = stream(&answer.chunks, "\n", false);
        let mut expected = Vec::new();
        if !answer.thought.is_empty() {
            expected.push(json!({"type": "thinking", "thinking": answer.thought, "signature": ""}));
        }
        if !answer.said.is_empty() {
            expected.push(json!({"type": "text", "text": answer.said}));
        }
        for (at, (id, input)) in answer.calls.iter().enumerate() {
            expected.push(json!({"type": "tool_use", "id": id, "name": format!("f{at}"), "input": input}));
        }
        let events = data(&told(Dialect::Messages, std::iter::once(bytes.as_slice())));
        assert_eq!(put_together(&events), expected);

        let events = data(&told(Dialect::Responses, std::iter::once(bytes.as_slice())));
        let output = &events.last().unwrap()["response"]["output"];
        let kept: Vec<Value> = output
            .as_array()
            .unwrap()
            .iter()
            .map(|item| match item["type"].as_str().unwrap() {
                "reasoning" => {
                    json!({"type": "thinking", "thinking": item["content"][0]["text"], "signature": ""})
                }
                "message" => json!({"type": "text", "text": item["content"][0]["text"]}),
                _ => json!({"type": "tool_use", "id": item["call_id"], "name": item["name"],
                    "input": serde_json::from_str::<Value>(item["arguments"].as_str().unwrap()).unwrap()}),
            })
            .collect();
        assert_eq!(kept, expected);
        // The pieces of a stream add up to what its end repeats.
        for item in output.as_array().unwrap() {
            let mine = events.iter().filter(|event| event["item_id"] == item["id"]);
            let pieces: String = mine.filter_map(|event| event["delta"].as_str()).collect();
            let text = [&item["content"][0]["text"], &item["arguments"]];
            assert_eq!(text.iter().find_map(|text| text.as_str()), Some(pieces.as_str()));
        }
    }
}

#[test]
fn what_a_client_got_it_can_send_back() {
    let mut dice = StdRng::seed_from_u64(seed() ^ 1);
    for _ in 0..100 {
        let answer = answer(&mut dice);
        let bytes = stream(&answer.chunks, "\n", false);
        let calls: Vec<Value> = answer
            .calls
            .iter()
            .enumerate()
            .map(|(at, (id, input))| {
                json!({"id": id, "type": "function",
                    "function": {"name": format!("f{at}"), "arguments": input.to_string()}})
            })
            .collect();
        if answer.said.is_empty() && calls.is_empty() {
            continue;
        }
        let mut expected = json!({"role": "assistant", "content": answer.said});
        if answer.said.is_empty() {
            expected["content"] = Value::Null;
        }
        if !answer.thought.is_empty() {
            expected["reasoning_content"] = json!(answer.thought);
        }
        if !calls.is_empty() {
            expected["tool_calls"] = json!(calls);
        }
        let events = data(&told(Dialect::Messages, std::iter::once(bytes.as_slice())));
        let again = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"},
            {"role": "assistant", "content": put_together(&events)}, {"role": "user", "content": "y"}]});
        let (chat, _) =
            messages::request::read(again.to_string().as_bytes(), messages::request::For::Answer).unwrap();
        let chat: Value = serde_json::from_slice(&chat).unwrap();
        assert_eq!(chat["messages"][1], expected);

        let events = data(&told(Dialect::Responses, std::iter::once(bytes.as_slice())));
        let mut input = vec![json!({"role": "user", "content": "x"})];
        input.extend(events.last().unwrap()["response"]["output"].as_array().unwrap().iter().cloned());
        input.push(json!({"role": "user", "content": "y"}));
        let again = json!({"model": "m", "input": input});
        let (chat, _) = responses::request::read(again.to_string().as_bytes()).unwrap();
        let chat: Value = serde_json::from_slice(&chat).unwrap();
        assert_eq!(chat["messages"][1], expected);
    }
}
