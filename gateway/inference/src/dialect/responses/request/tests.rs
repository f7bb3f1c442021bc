use super::*;
use crate::request::ChatRequest;
use serde_json::{Value, json};

fn request(extra: Value) -> Value {
    let mut body = json!({"model": "Text-Prime", "input": "hi"});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

fn chat(extra: Value) -> (Value, Wishes) {
    let body = request(extra).to_string();
    let (chat, wishes) = read(body.as_bytes()).unwrap_or_else(|no| panic!("{body}: {}", no.message));
    ChatRequest::parse(chat.clone()).unwrap_or_else(|no| panic!("{chat:?}: {}", no.message));
    (serde_json::from_slice(&chat).unwrap(), wishes)
}

#[test]
fn a_plain_request_needs_nothing_else() {
    let (chat, wishes) = chat(json!({}));
    assert_eq!(chat, json!({"model": "Text-Prime", "messages": [{"role": "user", "content": "hi"}]}));
    assert_eq!((wishes.model.as_str(), wishes.summary), ("Text-Prime", false));
}

#[test]
fn every_field_has_its_translation() {
    for (said, translated) in [
        (
            json!({"stream": true, "temperature": 0.5, "top_p": 0.25, "parallel_tool_calls": false, "user": "u",
                "metadata": {"k": "v"}, "service_tier": "flex", "safety_identifier": "s", "prompt_cache_key": "p"}),
            json!({"stream": true, "temperature": 0.5, "top_p": 0.25, "parallel_tool_calls": false, "user": "u",
                "metadata": {"k": "v"}, "service_tier": "flex", "safety_identifier": "s", "prompt_cache_key": "p"}),
        ),
        (json!({"max_output_tokens": 7}), json!({"max_tokens": 7})),
        (json!({"prompt_cache_retention": "in_memory"}), json!({"prompt_cache_retention": "in-memory"})),
        (json!({"reasoning": {"effort": "low", "summary": "auto"}}), json!({"reasoning_effort": "low"})),
        (json!({"text": {"format": {"type": "text"}, "verbosity": "low"}}), json!({"verbosity": "low"})),
        (
            json!({"text": {"format": {"type": "json_object"}}}),
            json!({"response_format": {"type": "json_object"}}),
        ),
        (
            json!({"text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"},
                "strict": true}}}),
            json!({"response_format": {"type": "json_schema",
                "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": true}}}),
        ),
        (json!({"top_logprobs": 3}), json!({"logprobs": true, "top_logprobs": 3})),
        (json!({"include": ["message.output_text.logprobs"]}), json!({"logprobs": true})),
        (json!({"include": ["reasoning.encrypted_content"], "top_logprobs": 0}), json!({})),
        (
            json!({"tools": [{"type": "function", "name": "f", "description": null, "parameters": {"a": 1},
                "strict": true}], "tool_choice": {"type": "function", "name": "f"}}),
            json!({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"a": 1},
                "strict": true}}], "tool_choice": {"type": "function", "function": {"name": "f"}}}),
        ),
        (
            json!({"tool_choice": {"type": "allowed_tools", "mode": "required",
                "tools": [{"type": "function", "name": "f"}]}}),
            json!({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required",
                "tools": [{"type": "function", "function": {"name": "f"}}]}}}),
        ),
        (json!({"tool_choice": "required"}), json!({"tool_choice": "required"})),
        (
            json!({"store": false, "previous_response_id": null, "background": false, "truncation": "disabled",
                "stream_options": {"include_obfuscation": false}, "max_tool_calls": 3}),
            json!({}),
        ),
        (json!({"brand_new": {"a": 1}}), json!({"brand_new": {"a": 1}})),
    ] {
        let (mut chat, _) = chat(said.clone());
        for same in ["model", "messages"] {
            chat.as_object_mut().unwrap().remove(same);
        }
        assert_eq!(chat, translated, "{said}");
    }
    assert!(chat(json!({"reasoning": {"summary": "auto"}})).1.summary);
}

#[test]
fn items_become_the_turns_of_a_chat() {
    let (chat, _) = chat(json!({"instructions": "be brief", "input": [
        {"role": "developer", "content": "be kind"},
        {"type": "message", "role": "user", "content": [
            {"type": "input_text", "text": "look"},
            {"type": "input_image", "image_url": "https://x/y.png", "detail": "low"},
            {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA"},
            {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}],
            "encrypted_content": null, "status": "completed"},
        {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [
            {"type": "output_text", "text": "let me ", "annotations": [], "logprobs": []},
            {"type": "output_text", "text": "see", "annotations": []}]},
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{\"a\":1}", "status": "completed"},
        {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}", "parsed_arguments": {}},
        {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "24"}]},
        {"type": "reasoning", "id": "rs_2", "summary": [{"type": "summary_text", "text": "so"}]},
        {"type": "function_call", "call_id": "c3", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c3", "output": ""},
        {"role": "assistant", "content": "warm"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no more"}]},
        {"type": "reasoning", "id": "rs_3", "summary": []},
        {"role": "user", "content": "thanks"},
    ]}));
    let call = |id: &str, name: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
    assert_eq!(
        chat["messages"],
        json!([
            {"role": "system", "content": "be brief"},
            {"role": "developer", "content": "be kind"},
            {"role": "user", "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA"}},
                {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}]},
            {"role": "assistant", "content": "let me see", "reasoning_content": "hm",
                "tool_calls": [call("c1", "f", "{\"a\":1}"), call("c2", "g", "{}")]},
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
            {"role": "tool", "tool_call_id": "c2", "content": "24"},
            {"role": "assistant", "content": null, "reasoning_content": "so", "tool_calls": [call("c3", "f", "{}")]},
            {"role": "tool", "tool_call_id": "c3", "content": ""},
            {"role": "assistant", "content": "warm"},
            {"role": "assistant", "content": "no more"},
            {"role": "user", "content": "thanks"},
        ])
    );
}

#[test]
fn what_can_t_be_said_is_refused_by_name() {
    let item = |item: Value| json!({"input": [item]});
    let part = |part: Value| json!({"input": [{"role": "user", "content": [part]}]});
    for (said, param, code) in [
        (json!({"model": null}), "model", "invalid_value"),
        (json!({"input": null}), "input", "invalid_value"),
        (json!({"input": []}), "input", "invalid_value"),
        (json!({"input": 7}), "input", "invalid_value"),
        (json!({"store": true}), "store", "unsupported_value"),
        (json!({"previous_response_id": "resp_1"}), "previous_response_id", "unsupported_value"),
        (json!({"conversation": "conv_1"}), "conversation", "unsupported_value"),
        (json!({"background": true}), "background", "unsupported_value"),
        (json!({"prompt": {"id": "p"}}), "prompt", "unsupported_value"),
        (json!({"truncation": "auto"}), "truncation", "unsupported_value"),
        (json!({"stream_options": {"include_obfuscation": true}}), "stream_options", "unsupported_value"),
        (json!({"include": ["odd"]}), "include", "unsupported_value"),
        (json!({"max_output_tokens": 0}), "max_output_tokens", "invalid_value"),
        (json!({"text": {"format": {"type": "xml"}}}), "text", "invalid_value"),
        (json!({"text": {"odd": 1}}), "text", "unsupported_value"),
        (json!({"reasoning": {"odd": 1}}), "reasoning", "unsupported_value"),
        (json!({"tools": [{"type": "web_search"}]}), "tools", "unsupported_value"),
        (json!({"tools": [{"type": "custom", "name": "c"}]}), "tools", "unsupported_value"),
        (json!({"tool_choice": {"type": "web_search"}}), "tool_choice", "unsupported_value"),
        (item(json!({"type": "item_reference", "id": "x"})), "input", "unsupported_value"),
        (item(json!({"type": "computer_call"})), "input", "unsupported_value"),
        (item(json!({"type": "function_call", "name": "f"})), "input", "invalid_value"),
        (
            item(json!({"type": "reasoning", "summary": [], "encrypted_content": "x"})),
            "input",
            "unsupported_value",
        ),
        (item(json!({"role": "wizard", "content": "x"})), "input", "invalid_value"),
        (item(json!({"role": "user", "content": "x", "odd": 1})), "input", "unsupported_value"),
        (part(json!({"type": "input_image", "file_id": "x"})), "input", "unsupported_value"),
        (part(json!({"type": "input_file", "file_url": "x"})), "input", "unsupported_value"),
        (part(json!({"type": "odd"})), "input", "unsupported_value"),
    ] {
        let refusal = read(request(said.clone()).to_string().as_bytes()).expect_err(&said.to_string());
        assert_eq!(
            (refusal.status.as_u16(), refusal.param, refusal.code),
            (400, Some(param), code),
            "{said}: {}",
            refusal.message
        );
    }
}

#[test]
fn the_answer_repeats_what_was_asked() {
    let (_, wishes) = chat(json!({"instructions": "x", "temperature": 0.5, "tools":
        [{"type": "function", "name": "f", "parameters": {}, "strict": false}]}));
    let echo: Value = serde_json::from_str(&format!("{{{}}}", &wishes.echo[1..])).unwrap();
    assert_eq!(
        echo,
        json!({"background": false, "instructions": "x", "max_output_tokens": null, "max_tool_calls": null,
            "parallel_tool_calls": true, "previous_response_id": null, "prompt_cache_key": null,
            "reasoning": {"effort": null, "summary": null}, "safety_identifier": null, "temperature": 0.5,
            "text": {"format": {"type": "text"}}, "tool_choice": "auto",
            "tools": [{"type": "function", "name": "f", "parameters": {}, "strict": false}],
            "top_logprobs": 0, "top_p": 1.0, "user": null, "metadata": {}, "store": false, "truncation": "disabled"})
    );
}
