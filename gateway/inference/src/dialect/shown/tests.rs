//! Whatever a supplier adds to its answers, a client sees what the lists name and nothing else.

use serde_json::{Value, json};

use super::*;
use crate::answer;

const BILL: Bill = Bill { prompt: 30, completion: 40, estimated: false, distrusted: false };
const ID: &str = "chatcmpl-000000000000000000000000000000ab";

fn shown(wants_usage: bool) -> Shown {
    let mut shown = Shown::new(0xab, wants_usage);
    shown.served_by("served");
    shown
}

fn stream(chunks: &[&str], wants_usage: bool) -> Vec<Value> {
    let (mut shown, mut out) = (shown(wants_usage), BytesMut::new());
    for chunk in chunks {
        shown.chunk(chunk.as_bytes(), &answer::read(chunk.as_bytes()).unwrap(), &mut out);
    }
    out.extend_from_slice(&shown.end(BILL));
    let text = String::from_utf8(out.to_vec()).unwrap();
    let events = text.strip_suffix("data: [DONE]\n\n").unwrap().split_terminator("\n\n");
    events.map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap()).collect()
}

fn whole(json: &Value, bill: Bill) -> Value {
    serde_json::from_slice(&shown(true).whole(json.to_string().as_bytes(), bill).unwrap()).unwrap()
}

#[test]
fn a_usual_chunk_is_read_in_one_pass_and_shown_as_the_careful_reader_shows_it() {
    let choices = r#"[{"index":0,"delta":{"content":" wörd \u00e9"},"logprobs":null,"finish_reason":null}]"#;
    let plain = choices.replace("\\u00e9", "é");
    let members =
        r#""id":"acme-1","object":"acme.chunk","created":7,"model":"acme/m","system_fingerprint":"acme""#;
    for (choices, lean) in [(choices, false), (&plain, true)] {
        for extras in
            ["", r#","service_tier":"flex","obfuscation":"xY","usage":null"#, r#","service_tier":"acme""#]
        {
            let chunk = format!("{{{members},\"choices\":{choices}{extras}}}");
            assert_eq!(answer::read(chunk.as_bytes()).unwrap().plain.is_some(), lean);
            let mut expected = json!({"id": ID, "object": "chat.completion.chunk", "created": 7, "model": "served",
                "system_fingerprint": null, "choices": serde_json::from_str::<Value>(choices).unwrap()});
            if extras.contains("flex") {
                expected["service_tier"] = json!("flex");
                expected["obfuscation"] = json!("xY");
            }
            assert_eq!(stream(&[&chunk], false), [expected], "{chunk}");
        }
    }
}

#[test]
fn nothing_passes_that_is_on_no_list() {
    let sign = |value: &mut Value| value["acme"] = json!({"name": "acme"});
    let said = json!({"role": "assistant", "content": "acme is a word", "reasoning_content": "r", "refusal": null,
        "tool_calls": [{"index": 0, "id": "functions.f:0", "type": "function",
            "function": {"name": "f", "arguments": "{}"}, "extra_content": {"thought_signature": "s"}}]});
    let usage = json!({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "estimated_cost": 1.5e-6,
        "prompt_tokens_details": {"cached_tokens": 1}, "completion_tokens_details": {"reasoning_tokens": 2}});
    for part in ["message", "delta"] {
        let choice = json!({"index": 0, part: said, "finish_reason": "stop", "logprobs": {"content": []}, "stop_reason": "x"});
        let expected = json!({"id": ID, "created": 7, "model": "served", "system_fingerprint": null,
            "choices": [choice], "service_tier": "default"});
        let mut sent = json!({"id": "acme-1", "object": "acme", "created": 7, "model": "acme/m", "choices": [choice],
            "system_fingerprint": "acme", "service_tier": "default", "provider": "acme", "x_acme": {"queue_time": 1},
            "usage": usage, "created_by": "acme", "prompt_filter_results": []});
        for at in ["/usage", "/usage/prompt_tokens_details", "/choices/0", &format!("/choices/0/{part}")] {
            sign(sent.pointer_mut(at).unwrap());
        }
        let mut billed = usage.clone();
        for (name, count) in [("prompt_tokens", 30), ("completion_tokens", 40), ("total_tokens", 70)] {
            billed[name] = json!(count);
        }
        let mut end = expected.clone();
        if part == "message" {
            (end["object"], end["usage"]) = (json!("chat.completion"), billed);
            assert_eq!(whole(&sent, BILL), end);
            continue;
        }
        let (mut chunk, mut bill) = (expected.clone(), expected);
        for one in [&mut chunk, &mut bill] {
            one["object"] = json!("chat.completion.chunk");
        }
        (chunk["usage"], bill["usage"], bill["choices"]) = (Value::Null, billed, json!([]));
        bill.as_object_mut().unwrap().remove("service_tier");
        assert_eq!(stream(&[&sent.to_string()], true), [chunk, bill]);
    }
}

#[test]
fn a_chunk_without_choices_is_not_shown_and_usage_only_at_the_end() {
    let chunks = [
        r#"{"id":"a","created":7,"choices":[],"prompt_filter_results":[{"prompt_index":0}]}"#,
        r#"{"id":"a","created":7,"choices":[{"index":0,"delta":{"content":"x"}}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#,
        r#"{"id":"b","created":8,"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":3}}"#,
        r#"{"id":"b","x_acme":{"usage":{"prompt_tokens":1,"completion_tokens":3}}}"#,
    ];
    let quiet = stream(&chunks, false);
    assert_eq!(quiet.len(), 1);
    assert!(quiet[0].get("usage").is_none() && quiet[0]["choices"][0]["delta"]["content"] == "x");
    let told = stream(&chunks, true);
    assert_eq!((told.len(), &told[0]["usage"]), (2, &Value::Null));
    let usage = json!({"prompt_tokens": 30, "completion_tokens": 40, "total_tokens": 70});
    assert_eq!((&told[1]["usage"], &told[1]["choices"]), (&usage, &json!([])));
    assert!(told.iter().all(|chunk| (&chunk["id"], &chunk["created"]) == (&json!(ID), &json!(7))));
}

#[test]
fn of_a_usage_that_was_not_believed_nothing_is_shown() {
    let estimated = Bill { estimated: true, ..BILL };
    let usage = json!({"prompt_tokens": 30, "completion_tokens": 40, "total_tokens": 70});
    for said in [
        json!({"prompt_tokens": 900, "estimated_cost": 1, "prompt_tokens_details": {"cached_tokens": 1}}),
        json!("none"),
        Value::Null,
    ] {
        let told = whole(&json!({"choices": [{"index": 0}], "usage": said}), estimated);
        assert_eq!(told["usage"], usage);
    }
    let odd = json!({"estimated_cost": "acme", "prompt_tokens_details": {"cached_tokens": "acme"},
        "completion_tokens_details": "acme"});
    assert!(!whole(&json!({"choices": [{"index": 0}], "usage": odd}), BILL).to_string().contains("acme"));
}

#[test]
fn odd_forms_are_shown_on_one_line_and_in_the_contract_s_words() {
    let chunk = "{\"id\":\"a\",\n\"created\":1,\"created\":7,\"choices\":[{\r\n\"index\":0,\"delta\":\n{\"content\":\"a\\nb\"},\"finish_reason\":\"eos\"},\n5]}";
    let told = stream(&[chunk], false);
    assert_eq!(
        told[0]["choices"],
        json!([{"index": 0, "delta": {"content": "a\nb"}, "finish_reason": "stop"}])
    );
    for (sent, told) in [
        (json!("tool_calls"), json!("tool_calls")),
        (json!("max_tokens"), json!("length")),
        (json!("ACME_STOP"), json!("stop")),
        (json!({"acme": 1}), Value::Null),
        (Value::Null, Value::Null),
    ] {
        let answer = whole(&json!({"choices": [{"finish_reason": sent}]}), BILL);
        assert_eq!(answer["choices"][0]["finish_reason"], told, "{sent}");
    }
    let twice = r#"{"provider":"acme","provider":"acme","choices":[{"index":1}],"choices":[{"index":0}]}"#;
    let told = shown(false).whole(twice.as_bytes(), BILL).unwrap();
    let told: Value = serde_json::from_slice(&told).unwrap();
    assert_eq!((&told["choices"], told.get("provider")), (&json!([{"index": 0}]), None));
}
