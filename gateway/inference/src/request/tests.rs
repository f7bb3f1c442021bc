use super::*;
use crate::needs::Need;

fn parse(extra: &str) -> Result<ChatRequest, Refusal> {
    let body = format!(r#"{{"model":"Text-Prime","messages":[{{"role":"user","content":"hi"}}]{extra}}}"#);
    ChatRequest::parse(Bytes::from(body))
}

#[test]
fn every_field_of_the_contract_has_its_range() {
    let good = [
        "",
        r#","temperature":0"#,
        r#","temperature":2"#,
        r#","temperature":null"#,
        r#","top_p":1,"n":128,"stream":false"#,
        r#","stop":"a""#,
        r#","stop":["a","b","c","d"]"#,
        r#","logprobs":true,"top_logprobs":20"#,
        r#","logit_bias":{"50256":-100}"#,
        r#","response_format":{"type":"json_object"}"#,
        r#","response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{}}}"#,
        r#","tools":[{"type":"function","function":{"name":"f","parameters":{}}}],"tool_choice":"auto""#,
        r#","tools":[],"tool_choice":{"type":"function","function":{"name":"f"}}"#,
        r#","frequency_penalty":-2,"presence_penalty":2,"seed":-5"#,
        r#","service_tier":"flex","reasoning_effort":"xhigh","verbosity":"low""#,
        r#","prompt_cache_retention":"24h","prompt_cache_key":"k","user":"u","store":true"#,
        r#","stream_options":null,"max_tokens":null"#,
        r#","route":"fallback","provider":{"allow_fallbacks":true},"brand_new":[1,{"a":2}]"#,
        r#","modalities":["text"],"metadata":{"a":"b"},"audio":null,"provider":{"order":["x"]}"#,
        r#","parallel_tool_calls":true,"prediction":{"type":"content","content":"x"},"web_search_options":{}"#,
    ];
    for extra in good {
        assert!(parse(extra).is_ok(), "{extra}: {:?}", parse(extra).err());
    }
    let bad = [
        (r#","temperature":2.1"#, "temperature"),
        (r#","temperature":-0.1"#, "temperature"),
        (r#","temperature":"warm""#, "temperature"),
        (r#","top_p":1.5"#, "top_p"),
        (r#","n":0"#, "n"),
        (r#","n":129"#, "n"),
        (r#","n":1.5"#, "n"),
        (r#","max_tokens":0"#, "max_tokens"),
        (r#","max_tokens":-1"#, "max_tokens"),
        (r#","max_completion_tokens":1e30"#, "max_completion_tokens"),
        (r#","max_completion_tokens":18446744073709551615"#, "max_completion_tokens"),
        (r#","stream":"yes""#, "stream"),
        (r#","stream_options":3"#, "stream_options"),
        (r#","stream_options":[true]"#, "stream_options"),
        (r#","stream_options":{"include_usage":1}"#, "stream_options"),
        (r#","stop":["a","b","c","d","e"]"#, "stop"),
        (r#","stop":7"#, "stop"),
        (r#","logprobs":1"#, "logprobs"),
        (r#","top_logprobs":21"#, "top_logprobs"),
        (r#","logit_bias":{"1":101}"#, "logit_bias"),
        (r#","response_format":"json""#, "response_format"),
        (r#","response_format":{"type":"yaml"}"#, "response_format"),
        (r#","response_format":{"type":"json_schema"}"#, "response_format"),
        (r#","tools":{}"#, "tools"),
        (r#","tools":[{"type":"function"}]"#, "tools"),
        (r#","tools":[{"type":"function","function":{"name":"has space"}}]"#, "tools"),
        (r#","tools":[{"type":"banana","function":{"name":"f"}}]"#, "tools"),
        (r#","tool_choice":"maybe""#, "tool_choice"),
        (r#","tool_choice":{"type":"function"}"#, "tool_choice"),
        (r#","parallel_tool_calls":"no""#, "parallel_tool_calls"),
        (r#","frequency_penalty":3"#, "frequency_penalty"),
        (r#","presence_penalty":-3"#, "presence_penalty"),
        (r#","seed":"s""#, "seed"),
        (r#","service_tier":"gold""#, "service_tier"),
        (r#","reasoning_effort":"extreme""#, "reasoning_effort"),
        (r#","verbosity":"loud""#, "verbosity"),
        (r#","prompt_cache_retention":"48h""#, "prompt_cache_retention"),
        (r#","prediction":"x""#, "prediction"),
        (r#","user":5"#, "user"),
        (r#","store":"x""#, "store"),
        (r#","top_logprobs":2"#, "top_logprobs"),
        (r#","logprobs":false,"top_logprobs":2"#, "top_logprobs"),
        (r#","modalities":"text""#, "modalities"),
        (r#","metadata":[]"#, "metadata"),
        (r#","audio":"loud""#, "audio"),
        (r#","route":5"#, "route"),
        (r#","provider":"acme""#, "provider"),
        (r#","provider":{"allow_fallbacks":"no"}"#, "provider"),
        (r#","web_search_options":true"#, "web_search_options"),
        (r#","prompt_cache_key":7"#, "prompt_cache_key"),
        (r#","safety_identifier":[]"#, "safety_identifier"),
    ];
    for (extra, param) in bad {
        let refusal = parse(extra).expect_err(extra);
        assert_eq!((refusal.status.as_u16(), refusal.param), (422, Some(param)), "{extra}");
    }
}

#[test]
fn what_is_not_a_request_is_400_and_what_lacks_a_field_422() {
    for (body, status) in [
        ("", 400),
        ("{", 400),
        ("[]", 400),
        ("null", 400),
        ("\"text\"", 400),
        ("{\"model\":\"a\",\"messages\":[]} trailing", 400),
        ("{\"model\":\"a\",\"model\":\"b\",\"messages\":[{\"role\":\"user\"}]}", 400),
        ("{}", 422),
        ("{\"model\":\"a\"}", 422),
        ("{\"model\":7,\"messages\":[{\"role\":\"user\"}]}", 422),
        ("{\"model\":\"a\",\"messages\":[]}", 422),
        ("{\"model\":\"a\",\"messages\":\"hi\"}", 422),
        ("{\"model\":\"a\",\"messages\":[\"hi\"]}", 422),
        ("{\"model\":\"a\",\"messages\":[{\"role\":\"king\"}]}", 422),
        ("{\"model\":\"a\",\"messages\":[{\"content\":\"x\"}]}", 422),
    ] {
        let refusal = ChatRequest::parse(Bytes::from(body)).expect_err(body);
        assert_eq!(refusal.status.as_u16(), status, "{body}");
    }
    let refusal = ChatRequest::parse(Bytes::from_static(b"{\"model\":\"\xff\"}")).unwrap_err();
    assert_eq!(refusal.status.as_u16(), 400);
    let deep = format!("{{\"model\":\"a\",\"x\":{}", "[".repeat(100_000));
    assert_eq!(ChatRequest::parse(deep.into()).unwrap_err().status.as_u16(), 400);
}

#[test]
fn only_the_named_edits_change_the_bytes() {
    let body = |extra: &str| {
        format!(
            r#" {{ "x":1, "model" : "Text-Prime", "messages":[{{"role":"user","content":"h\u0069 \"model\""}}]{extra}, "z": 1.50 }}"#
        )
    };
    let rewritten = |extra: &str, cap| {
        let request = ChatRequest::parse(body(extra).into()).unwrap();
        String::from_utf8(request.rewritten("qwen/\"next\"", cap).to_vec()).unwrap()
    };
    let expect = |extra: &str, inserted: &str| {
        body(extra).replace("\"Text-Prime\"", r#""qwen/\"next\"""#).replacen(
            " {",
            &format!(" {{{inserted}"),
            1,
        )
    };
    let asked = r#""stream_options":{"include_usage":true},"#;
    assert_eq!(rewritten("", None), expect("", ""));
    assert_eq!(rewritten("", Some(9)), expect("", "\"max_tokens\":9,"));
    assert_eq!(rewritten(r#","max_tokens":5"#, Some(9)), expect(r#","max_tokens":5"#, ""));
    assert_eq!(rewritten(r#","max_tokens":null"#, Some(9)), expect(r#","max_tokens":9"#, ""));
    assert_eq!(rewritten(r#","stream":true"#, None), expect(r#","stream":true"#, asked));
    for (given, sent) in [
        ("null", r#"{"include_usage":true}"#),
        ("{ }", r#"{"include_usage":true }"#),
        (r#"{"include_usage": false, "a":1}"#, r#"{"include_usage": true, "a":1}"#),
        (r#"{"a":1}"#, r#"{"include_usage":true,"a":1}"#),
    ] {
        let options = |value: &str| format!(r#","stream":true,"stream_options":{value}"#);
        assert_eq!(rewritten(&options(given), None), expect(&options(sent), ""), "{given}");
    }
}

#[test]
fn what_a_supplier_must_be_able_to_do_follows_from_the_fields() {
    let tool = r#""tools":[{"type":"function","function":{"name":"f"}}]"#;
    let image = r#""messages":[{"role":"user","content":[{"type" : "image_url","image_url":{"url":"x"}}]}]"#;
    for (extra, needs) in [
        (String::new(), vec![]),
        (r#","temperature":1,"top_p":null,"n":1,"logprobs":false,"tools":[ ],"logit_bias":{}"#.into(), vec![]),
        (r#","service_tier":"auto","prompt_cache_retention":"in-memory","presence_penalty":0"#.into(), vec![]),
        (format!(",{tool}"), vec![Need::Tools]),
        (format!(",{tool},\"tool_choice\":\"auto\""), vec![Need::Tools]),
        (
            format!(",{tool},\"tool_choice\":\"required\",\"parallel_tool_calls\":false"),
            vec![Need::Tools, Need::ToolChoice, Need::ParallelToolCalls],
        ),
        (r#","response_format":{"type":"json_object"}"#.into(), vec![Need::JsonObject]),
        (
            r#","response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{}}}"#.into(),
            vec![Need::JsonSchema],
        ),
        (r#","logprobs":true,"top_logprobs":3,"n":2"#.into(), vec![Need::Logprobs, Need::Choices]),
        (r#","logit_bias":{"1":5},"seed":0,"stop":"x""#.into(), vec![Need::LogitBias, Need::Seed, Need::Stop]),
        (r#","temperature":0,"frequency_penalty":1"#.into(), vec![Need::Sampling, Need::Penalties]),
        (
            r#","reasoning_effort":"none","verbosity":"low","prediction":{},"web_search_options":{}"#.into(),
            vec![Need::ReasoningEffort, Need::Verbosity, Need::Prediction, Need::WebSearch],
        ),
        (
            r#","service_tier":"flex","prompt_cache_retention":"24h","store":true,"modalities":["text","audio"]"#
                .into(),
            vec![Need::ServiceTier, Need::CacheRetention, Need::AudioOut, Need::Store],
        ),
    ] {
        assert_eq!(parse(&extra).unwrap().needs, needs.iter().copied().collect(), "{extra}");
    }
    let body = format!(r#"{{"model":"m",{image}}}"#);
    let needs = ChatRequest::parse(body.into()).unwrap().needs;
    assert_eq!(needs, [Need::Images].into_iter().collect());
    let only_named =
        r#","tools":[{"type":"function","function":{"name":"f","parameters":{"properties":{"file":{}}}}}]"#;
    assert_eq!(parse(only_named).unwrap().needs, [Need::Tools].into_iter().collect());
}

#[test]
fn fields_that_speak_to_the_venue_stay_here() {
    for (given, sent) in [
        (r#","route":"fallback","x":1"#, r#","x":1"#),
        (r#","provider" : {"allow_fallbacks":false} "#, r#" "#),
        (r#","route":"fallback","provider":{"a":[1,"}"]},"z":2"#, r#","z":2"#),
        (r#","provider":{},"z":2,"route":"fallback""#, r#","z":2"#),
        (r#", "route":"fallback" , "provider":{}"#, r#""#),
    ] {
        let request = parse(given).unwrap();
        let sent = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}]{sent}}}"#);
        let rewritten = request.rewritten("m", None);
        assert_eq!(std::str::from_utf8(&rewritten).unwrap(), sent, "{given}");
    }
    let first = r#"{"route":"fallback", "model":"a","messages":[{"role":"user","content":"x"}]}"#;
    let rewritten = ChatRequest::parse(first.into()).unwrap().rewritten("m", Some(5));
    assert_eq!(
        rewritten,
        r#"{"max_tokens":5, "model":"m","messages":[{"role":"user","content":"x"}]}"#.as_bytes()
    );
    assert!(!parse(r#","provider":{"allow_fallbacks":false}"#).unwrap().fallbacks);
    assert!(parse(r#","provider":{"order":[]}"#).unwrap().fallbacks);
}

#[test]
fn prompts_that_begin_alike_belong_together() {
    let affinity = |extra: &str| parse(extra).unwrap().affinity;
    assert_eq!(affinity(r#","prompt_cache_key":"k""#), affinity(r#","prompt_cache_key":"k","seed":2"#));
    assert_ne!(affinity(r#","prompt_cache_key":"j""#), affinity(r#","prompt_cache_key":"k""#));
    assert_eq!((affinity(""), affinity(r#","prompt_cache_key":null"#)), (None, None));
    let long = |end: &str| {
        let text = "system ".repeat(200);
        let body = format!(
            r#"{{"model":"m","messages":[{{"role":"system","content":"{text}{end}"}},{{"role":"user","content":"{end}"}}]}}"#
        );
        ChatRequest::parse(body.into()).unwrap().affinity
    };
    assert!(long("x").is_some());
    assert_eq!(long("x"), long("y"));
}

#[test]
fn the_prompt_bound_is_above_every_count() {
    for text in ["", "hello", "\u{1f680}\u{1f680}", "a b c d e f", "x\ny", "信息"] {
        let body =
            serde_json::json!({"model": "m", "messages": [{"role": "user", "content": text}]}).to_string();
        let bound = ChatRequest::parse(body.into()).unwrap().prompt_bound();
        assert!(bound > crate::tokens::count(text) + 4 && bound > crate::tokens::words(text));
    }
}

#[test]
fn the_client_s_wish_for_usage_is_remembered() {
    for (extra, wants) in [
        (r#","stream":true"#, false),
        (r#","stream":true,"stream_options":{"include_usage":true}"#, true),
        (r#","stream":true,"stream_options":{"include_usage":false}"#, false),
        (r#","stream_options":{"include_usage":true}"#, false),
    ] {
        assert_eq!(parse(extra).unwrap().wants_usage, wants, "{extra}");
    }
}
