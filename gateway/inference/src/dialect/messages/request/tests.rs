use super::*;
use crate::request::ChatRequest;
use serde_json::{Value, json};

fn request(extra: Value) -> Value {
    let mut body =
        json!({"model": "Text-Prime", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

fn chat(extra: Value) -> (Value, Wishes) {
    let body = request(extra).to_string();
    let (chat, wishes) =
        read(body.as_bytes(), For::Answer).unwrap_or_else(|no| panic!("{body}: {}", no.message));
    ChatRequest::parse(chat.clone()).unwrap_or_else(|no| panic!("{chat:?}: {}", no.message));
    (serde_json::from_slice(&chat).unwrap(), wishes)
}

fn refused(extra: Value) -> String {
    let refusal =
        read(request(extra.clone()).to_string().as_bytes(), For::Answer).expect_err(&extra.to_string());
    assert_eq!(refusal.status, 400, "{extra}");
    refusal.message
}

#[test]
fn a_plain_request_needs_nothing_else() {
    let (chat, wishes) = chat(json!({}));
    assert_eq!(
        chat,
        json!({"model": "Text-Prime", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9})
    );
    assert_eq!(wishes, Wishes { model: "Text-Prime".into(), thinking: false, edits: false, stops: vec![] });
}

#[test]
fn every_field_has_its_translation() {
    for (said, translated) in [
        (json!({"stream": true}), json!({"stream": true})),
        (
            json!({"temperature": 0.25, "top_p": 0.5, "top_k": 7}),
            json!({"temperature": 0.25, "top_p": 0.5, "top_k": 7}),
        ),
        (json!({"stop_sequences": ["a", "b"]}), json!({"stop": ["a", "b"]})),
        (json!({"stop_sequences": []}), json!({})),
        (json!({"thinking": {"type": "disabled"}}), json!({"reasoning_effort": "none"})),
        (json!({"thinking": {"type": "enabled", "budget_tokens": 1024}}), json!({"reasoning_effort": "low"})),
        (
            json!({"thinking": {"type": "enabled", "budget_tokens": 4096}}),
            json!({"reasoning_effort": "medium"}),
        ),
        (
            json!({"thinking": {"type": "enabled", "budget_tokens": 31_999}}),
            json!({"reasoning_effort": "high"}),
        ),
        (json!({"thinking": {"type": "adaptive"}}), json!({})),
        (
            json!({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}),
            json!({"reasoning_effort": "xhigh"}),
        ),
        (
            json!({"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}}),
            json!({"response_format": {"type": "json_schema", "json_schema":
                {"name": "output", "strict": true, "schema": {"type": "object"}}}}),
        ),
        (json!({"service_tier": "standard_only"}), json!({"service_tier": "default"})),
        (json!({"service_tier": "auto"}), json!({"service_tier": "auto"})),
        (json!({"metadata": {"user_id": "u", "k": "v"}}), json!({"user": "u", "metadata": {"k": "v"}})),
        (json!({"tool_choice": {"type": "auto"}}), json!({"tool_choice": "auto"})),
        (
            json!({"tool_choice": {"type": "any", "disable_parallel_tool_use": true}}),
            json!({"tool_choice": "required", "parallel_tool_calls": false}),
        ),
        (json!({"tool_choice": {"type": "none"}}), json!({"tool_choice": "none"})),
        (
            json!({"tool_choice": {"type": "tool", "name": "f"}}),
            json!({"tool_choice": {"type": "function", "function": {"name": "f"}}}),
        ),
        (json!({"brand_new": [1, {"a": 2}]}), json!({"brand_new": [1, {"a": 2}]})),
        (json!({"cache_control": {"type": "ephemeral"}, "mcp_servers": [], "container": null}), json!({})),
    ] {
        let (mut chat, _) = chat(said.clone());
        for same in ["model", "messages", "max_tokens"] {
            chat.as_object_mut().unwrap().remove(same);
        }
        assert_eq!(chat, translated, "{said}");
    }
}

#[test]
fn thinking_is_shown_only_where_it_was_asked_for() {
    for (thinking, shown) in [
        (Value::Null, false),
        (json!({"type": "disabled"}), false),
        (json!({"type": "adaptive"}), true),
        (json!({"type": "adaptive", "display": "summarized"}), true),
        (json!({"type": "adaptive", "display": "omitted"}), false),
        (json!({"type": "enabled", "budget_tokens": 2000}), true),
    ] {
        assert_eq!(chat(json!({"thinking": thinking})).1.thinking, shown, "{thinking}");
    }
    assert!(chat(json!({"context_management": {"edits": []}})).1.edits);
}

#[test]
fn a_whole_conversation_keeps_its_order_and_its_parts() {
    let (chat, _) = chat(json!({
        "system": [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}},
            {"type": "text", "text": "be kind"}],
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "look"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
                {"type": "document", "title": "t.pdf",
                    "source": {"type": "base64", "media_type": "application/pdf", "data": "BBBB"}},
                {"type": "document", "title": "Notes", "context": "old",
                    "source": {"type": "text", "media_type": "text/plain", "data": "body"}},
                {"type": "search_result", "title": "T", "source": "s", "content": [{"type": "text", "text": "c"}]},
            ]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "sig"},
                {"type": "text", "text": "let me "}, {"type": "text", "text": "see"},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"b": 1.50, "a": [1]}},
                {"type": "tool_use", "id": "t2", "name": "g", "input": {}},
            ]},
            {"role": "user", "content": [
                {"type": "text", "text": "and?"},
                {"type": "tool_result", "tool_use_id": "t1", "content": "sunny"},
                {"type": "tool_result", "tool_use_id": "t2", "is_error": true, "content": [
                    {"type": "text", "text": "no"}, {"type": "text", "text": "way"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "CC"}}]},
            ]},
            {"role": "system", "content": "hurry"},
        ],
    }));
    assert_eq!(
        chat["messages"],
        json!([
            {"role": "system", "content": "be brief\n\nbe kind"},
            {"role": "user", "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
                {"type": "file", "file": {"filename": "t.pdf", "file_data": "data:application/pdf;base64,BBBB"}},
                {"type": "text", "text": "Notes\nold\nbody"},
                {"type": "text", "text": "T\ns\nc"},
            ]},
            {"role": "assistant", "content": "let me see", "reasoning_content": "hm", "tool_calls": [
                {"id": "t1", "type": "function", "function": {"name": "f", "arguments": "{\"b\":1.5,\"a\":[1]}"}},
                {"id": "t2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
            ]},
            {"role": "tool", "tool_call_id": "t1", "content": "sunny"},
            {"role": "tool", "tool_call_id": "t2", "content": "Error: no\nway"},
            {"role": "user", "content": [
                {"type": "text", "text": "and?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,CC"}},
            ]},
            {"role": "system", "content": "hurry"},
        ])
    );
}

#[test]
fn tools_keep_their_schemas_to_the_letter() {
    let tools = r#"[{"name":"f","description":"d","input_schema":{"type":"object","properties":{"z":{"maximum":1.50},"a":{}}},
        "cache_control":{"type":"ephemeral"},"strict":true,"eager_input_streaming":true,"allowed_callers":["direct"],"new":1},
        {"type":"custom","name":"g","input_schema":{},"input_examples":[{"a":1}]}]"#;
    let body = format!(
        r#"{{"model":"m","max_tokens":1,"messages":[{{"role":"user","content":"x"}}],"tools":{tools}}}"#
    );
    let (chat, _) = read(body.as_bytes(), For::Answer).unwrap();
    let chat = std::str::from_utf8(&chat).unwrap();
    assert!(chat.contains(
        r#""parameters":{"type":"object","properties":{"z":{"maximum":1.50},"a":{}}},"strict":true}"#
    ));
    let chat: Value = serde_json::from_str(chat).unwrap();
    assert_eq!(chat["tools"][0]["new"], 1);
    assert_eq!(
        chat["tools"][1],
        json!({"type": "function", "function": {"name": "g", "parameters": {},
            "description": "\n\nExamples of input: [{\"a\":1}]"}})
    );
}

#[test]
fn what_can_t_be_said_is_refused_by_name() {
    let user = |block: Value| json!({"messages": [{"role": "user", "content": [block]}]});
    let tool = |tool: Value| json!({"tools": [tool]});
    for (said, named) in [
        (json!({"model": null}), "model"),
        (json!({"max_tokens": null}), "max_tokens"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"max_tokens": 1.5}), "max_tokens"),
        (json!({"messages": []}), "at least one"),
        (json!({"messages": "hi"}), "messages"),
        (json!({"messages": [{"role": "wizard", "content": "x"}]}), "messages.0.role"),
        (json!({"messages": [{"role": "user"}]}), "messages.0.content"),
        (json!({"messages": [{"role": "user", "content": "x", "extra": 1}]}), "messages.0.extra"),
        (
            json!({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "{"}]}),
            "must end with a user message",
        ),
        (user(json!({"type": "container_upload", "file_id": "f"})), "container_upload"),
        (user(json!({"type": "text"})), "messages.0.content.0.text"),
        (user(json!({"type": "text", "text": "x", "odd": 1})), "messages.0.content.0.odd"),
        (user(json!({"type": "image", "source": {"type": "file", "file_id": "f"}})), "no files are kept"),
        (user(json!({"type": "document", "source": {"type": "url", "url": "https://x"}})), "source.url"),
        (
            user(json!({"type": "document", "citations": {"enabled": true},
                "source": {"type": "text", "media_type": "text/plain", "data": "x"}})),
            "citations",
        ),
        (
            json!({"messages": [{"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}]},
                {"role": "user", "content": "x"}]}),
            "redacted_thinking",
        ),
        (tool(json!({"type": "web_search_20250305", "name": "web_search"})), "web_search_20250305"),
        (tool(json!({"type": "bash_20250124", "name": "bash"})), "bash_20250124"),
        (tool(json!({"name": "f"})), "tools.0.input_schema"),
        (tool(json!({"name": "f", "input_schema": {}, "defer_loading": true})), "defer_loading"),
        (tool(json!({"name": "f", "input_schema": {}, "allowed_callers": ["code"]})), "allowed_callers"),
        (json!({"tool_choice": {"type": "maybe"}}), "tool_choice.type"),
        (json!({"tool_choice": {"type": "auto", "odd": 1}}), "tool_choice.odd"),
        (json!({"thinking": {"type": "enabled"}}), "budget_tokens"),
        (json!({"thinking": {"type": "hard"}}), "thinking.type"),
        (json!({"output_config": {"effort": "huge"}}), "effort"),
        (json!({"output_config": {"odd": 1}}), "output_config.odd"),
        (json!({"output_config": {"format": {"type": "xml"}}}), "format"),
        (json!({"stop_sequences": ["a", "b", "c", "d", "e"]}), "stop_sequences"),
        (json!({"stop_sequences": [1]}), "stop_sequences"),
        (json!({"container": "c"}), "container"),
        (json!({"mcp_servers": [{"url": "x"}]}), "mcp_servers"),
        (json!({"inference_geo": "us"}), "inference_geo"),
        (json!({"stop_sequences": ["a"], "stop": "b"}), "`stop`"),
    ] {
        let message = refused(said.clone());
        assert!(message.contains(named), "{said}: {message}");
    }
}

#[test]
fn counting_needs_no_limit() {
    let body = br#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
    assert!(read(body, For::Count).is_ok());
    assert!(read(body, For::Answer).is_err());
}
