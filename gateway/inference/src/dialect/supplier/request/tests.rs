use super::*;
use serde_json::{Value, json};

fn chat(extra: Value) -> Value {
    let mut body = json!({"model": "text-prime", "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

fn asked(extra: Value) -> Value {
    let body = chat(extra).to_string();
    let asked = write(body.as_bytes(), "claude-x", 500).unwrap_or_else(|no| panic!("{body}: {no}"));
    serde_json::from_slice(&asked).unwrap()
}

#[test]
fn every_field_has_its_translation() {
    for (said, translated) in [
        (json!({}), json!({})),
        (json!({"max_tokens": 3, "max_completion_tokens": 7}), json!({"max_tokens": 7})),
        (
            json!({"stream": true, "stream_options": {"include_usage": true}, "temperature": 1, "top_p": 0.5, "top_k": 3}),
            json!({"stream": true, "temperature": 1, "top_p": 0.5, "top_k": 3}),
        ),
        (json!({"stop": "a"}), json!({"stop_sequences": ["a"]})),
        (json!({"stop": ["a", "b"]}), json!({"stop_sequences": ["a", "b"]})),
        (
            json!({"tools": [{"type": "function", "function": {"name": "f", "strict": true}}], "tool_choice": "required",
                "parallel_tool_calls": false}),
            json!({"tools": [{"name": "f", "input_schema": {"type": "object", "properties": {}}, "strict": true}],
                "tool_choice": {"type": "any", "disable_parallel_tool_use": true}}),
        ),
        (
            json!({"tool_choice": {"type": "function", "function": {"name": "f"}}}),
            json!({"tool_choice": {"type": "tool", "name": "f"}}),
        ),
        (
            json!({"reasoning_effort": "minimal", "response_format": {"type": "json_schema",
                "json_schema": {"name": "n", "schema": {"a": 1}}}}),
            json!({"thinking": {"type": "adaptive"},
                "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"a": 1}}}}),
        ),
        (json!({"reasoning_effort": "none"}), json!({"thinking": {"type": "disabled"}})),
        (
            json!({"user": "u", "safety_identifier": "s", "prompt_cache_key": "k", "service_tier": "default"}),
            json!({"metadata": {"user_id": "s"}, "cache_control": {"type": "ephemeral"},
                "service_tier": "standard_only"}),
        ),
        (
            json!({"n": 1, "logprobs": false, "seed": null, "store": false, "frequency_penalty": 0, "metadata": {},
                "response_format": {"type": "text"}, "route": "fallback", "provider": {"allow_fallbacks": true}}),
            json!({}),
        ),
    ] {
        let mut wanted =
            json!({"model": "claude-x", "max_tokens": 500, "messages": [{"role": "user", "content": "hi"}]});
        wanted.as_object_mut().unwrap().extend(translated.as_object().unwrap().clone());
        assert_eq!(asked(said.clone()), wanted, "{said}");
    }
}

#[test]
fn what_can_t_be_asked_steers_the_call_elsewhere() {
    let user = |part: Value| json!({"messages": [{"role": "user", "content": [part]}]});
    for (said, named) in [
        (json!({"n": 2}), "n"),
        (json!({"logprobs": true}), "logprobs"),
        (json!({"seed": 1}), "seed"),
        (json!({"temperature": 1.5}), "temperature"),
        (json!({"frequency_penalty": 0.5}), "frequency_penalty"),
        (json!({"logit_bias": {"1": 2}}), "logit_bias"),
        (json!({"response_format": {"type": "json_object"}}), "json_object"),
        (json!({"verbosity": "low"}), "verbosity"),
        (json!({"service_tier": "flex"}), "service_tier"),
        (json!({"prediction": {"type": "content", "content": "x"}}), "prediction"),
        (json!({"web_search_options": {}}), "web_search_options"),
        (json!({"metadata": {"k": "v"}}), "metadata"),
        (json!({"brand_new": 1}), "brand_new"),
        (json!({"tool_choice": {"type": "allowed_tools", "allowed_tools": {}}}), "tool_choice"),
        (user(json!({"type": "input_audio", "input_audio": {}})), "input_audio"),
        (user(json!({"type": "file", "file": {"file_id": "x"}})), "PDF"),
        (user(json!({"type": "image_url", "image_url": {"url": "x", "detail": "low"}})), "detail"),
        (json!({"messages": [{"role": "user", "content": "x", "name": "n"}]}), "name"),
        (
            json!({"messages": [{"role": "user", "content": "x"}, {"role": "system", "content": "y"}]}),
            "role system",
        ),
        (
            json!({"messages": [{"role": "assistant", "content": "x", "reasoning_content": "y"}]}),
            "reasoning_content",
        ),
    ] {
        let no = write(chat(said.clone()).to_string().as_bytes(), "m", 1).expect_err(&said.to_string());
        assert!(no.to_string().contains(named), "{said}: {no}");
    }
}

/// A Messages conversation that a chat completion can carry without loss comes back as it was.
#[test]
fn a_conversation_goes_there_and_back() {
    let messages = json!({"model": "m", "max_tokens": 9, "system": "be brief", "messages": [
        {"role": "user", "content": [
            {"type": "text", "text": "look"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
            {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
            {"type": "document", "title": "t.pdf",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "BB"}}]},
        {"role": "assistant", "content": [
            {"type": "text", "text": "hm"},
            {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": [1, {"b": "é"}]}},
            {"type": "tool_use", "id": "t2", "name": "g", "input": {}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t1", "content": "sunny"},
            {"type": "tool_result", "tool_use_id": "t2", "content": ""}]},
        {"role": "user", "content": "and?"},
    ],
        "stream": true, "stop_sequences": ["a"], "temperature": 0.5, "top_p": 0.5, "top_k": 3,
        "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": true},
        "thinking": {"type": "adaptive"}, "output_config": {"effort": "high",
            "format": {"type": "json_schema", "schema": {"type": "object"}}},
        "metadata": {"user_id": "u"}, "service_tier": "standard_only"});
    use crate::dialect::messages::request::{For, read};
    let (chat, _) = read(messages.to_string().as_bytes(), For::Answer).unwrap();
    let back = write(&chat, "m", 1).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&back).unwrap(), messages);
}
