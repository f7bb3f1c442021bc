"""The official Anthropic SDK for Python, unmodified, as a customer of the tier.

The environment variable CASE holds JSON: the base URL and the key. What the SDK was told of each call's usage is
printed as JSON, for the test around this to compare with the bills.
"""

import json
import os

import anthropic

CASE = json.loads(os.environ["CASE"])
CALLS = []
client = anthropic.Anthropic(base_url=CASE["base_url"], api_key=CASE["key"], max_retries=0)
WEATHER = {
    "name": "get_weather",
    "description": "Weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def ask(text, **more):
    messages = more.pop("messages", None) or [{"role": "user", "content": text}]
    return {"model": "text-prime", "max_tokens": 200, "messages": messages, **more}


def note(message):
    usage = message.usage
    cached = usage.cache_read_input_tokens or 0
    CALLS.append([usage.input_tokens + cached, usage.output_tokens])
    assert message.type == "message" and message.role == "assistant" and message.id.startswith("msg_"), message
    return message


def a_whole_message():
    raw = client.messages.with_raw_response.create(**ask("hello"))
    assert raw.headers["request-id"].startswith("req_"), dict(raw.headers)
    message = note(raw.parse())
    assert message._request_id == raw.headers["request-id"]
    assert [block.text for block in message.content] == ["Two parties meet at a price."], message
    assert (message.stop_reason, message.stop_sequence, message.model) == ("end_turn", None, "model-of-2"), message
    assert message.usage.cache_read_input_tokens == 5, message.usage


def a_streamed_message():
    names, text = [], ""
    with client.messages.stream(**ask("hello", system="be brief")) as stream:
        for event in stream:
            names.append(event.type)
        message = note(stream.get_final_message())
    assert names[0] == "message_start" and names[-1] == "message_stop", names
    assert message.content[0].text == "Two parties meet at a price.", message
    with client.messages.stream(**ask("hello")) as stream:
        text = "".join(stream.text_stream)
        note(stream.get_final_message())
    assert text == "Two parties meet at a price.", text


def raw_events():
    events = list(client.messages.create(**ask("hello"), stream=True))
    names = [event.type for event in events]
    assert names.index("content_block_start") > names.index("message_start") == 0, names
    last = [event for event in events if event.type == "message_delta"][-1]
    assert last.usage.input_tokens + last.usage.cache_read_input_tokens == 12, last
    CALLS.append([12, last.usage.output_tokens])


def thinking():
    for more, kinds in (({"thinking": {"type": "adaptive"}}, ["thinking", "text"]), ({}, ["text"])):
        whole = note(client.messages.create(**ask("think", **more)))
        with client.messages.stream(**ask("think", **more)) as stream:
            streamed = note(stream.get_final_message())
        for message in (whole, streamed):
            assert [block.type for block in message.content] == kinds, message
            assert message.content[-1].text == "42", message
        if more:
            assert streamed.content[0].thinking == whole.content[0].thinking == "Let me see.", streamed


def a_round_of_tools():
    question = [{"role": "user", "content": "weather"}]
    asked = ask("", messages=question, tools=[WEATHER], tool_choice={"type": "auto"})
    whole = note(client.messages.create(**asked))
    with client.messages.stream(**asked) as stream:
        streamed = note(stream.get_final_message())
    for message in (whole, streamed):
        assert message.stop_reason == "tool_use", message
        calls = [block for block in message.content if block.type == "tool_use"]
        assert [(call.name, call.input) for call in calls] == [
            ("get_weather", {"city": "Rome"}),
            ("get_weather", {"city": "Oslo"}),
        ], message
        assert len({call.id for call in calls}) == 2, calls
        results = [{"type": "tool_result", "tool_use_id": call.id, "content": "sunny"} for call in calls]
        turns = question + [{"role": "assistant", "content": message.content}, {"role": "user", "content": results}]
        answer = note(client.messages.create(**ask("", messages=turns, tools=[WEATHER])))
        assert answer.content[0].text == "sunny and sunny", answer


def reasons_to_stop():
    assert note(client.messages.create(**ask("limit"))).stop_reason == "max_tokens"
    stopped = note(client.messages.create(**ask("stop", stop_sequences=["END"])))
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "END"), stopped
    with client.messages.stream(**ask("stop", stop_sequences=["END"])) as stream:
        stopped = note(stream.get_final_message())
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "END"), stopped


def counting():
    one = client.messages.count_tokens(model="text-prime", messages=[{"role": "user", "content": "the market price"}])
    two = client.messages.count_tokens(
        model="text-prime", messages=[{"role": "user", "content": "the market price " * 50}], tools=[WEATHER]
    )
    assert 3 <= one.input_tokens < 20 and two.input_tokens > 150, (one, two)


def beta_and_headers():
    message = note(client.beta.messages.create(**ask("hello"), betas=["context-management-2025-06-27"],
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}))
    assert message.context_management.applied_edits == [], message
    other = anthropic.Anthropic(base_url=CASE["base_url"], api_key=None, auth_token=CASE["key"],
        default_headers={"anthropic-version": "2023-06-01"})
    note(other.messages.create(**ask("hello")))
    third = anthropic.Anthropic(base_url=CASE["base_url"], api_key="unused",
        default_headers={"x-api-key": CASE["key"], "anthropic-version": "2031-01-01"})
    note(third.messages.create(**ask("hello")))


def fails(kind, status, word, request, key=None):
    other = anthropic.Anthropic(base_url=CASE["base_url"], api_key=key or CASE["key"], max_retries=0)
    try:
        other.messages.create(**request)
    except kind as error:
        assert error.status_code == status, error
        assert error.body["type"] == "error" and error.body["error"]["type"] == word, error.body
        assert error.request_id and error.request_id == error.body["request_id"], error.body
        return
    raise AssertionError(f"{request} was answered")


def errors_have_their_classes():
    bad = "invalid_request_error"
    fails(anthropic.AuthenticationError, 401, "authentication_error", ask("hello"), key="sk-nobody")
    fails(anthropic.NotFoundError, 404, "not_found_error", {**ask("hello"), "model": "claude-opus-9"})
    fails(anthropic.BadRequestError, 400, bad, {**ask("hello"), "max_tokens": 0})
    fails(anthropic.BadRequestError, 400, bad, ask("", messages=[{"role": "wizard", "content": "x"}]))
    fails(anthropic.BadRequestError, 400, bad, ask("hello", tools=[{"type": "web_search_20250305", "name": "web_search"}]))
    fails(anthropic.UnprocessableEntityError, 422, bad, ask("hello", extra_body={"temperature": 3}))
    try:
        with client.messages.stream(**ask("break")) as stream:
            stream.get_final_message()
        raise AssertionError("half a message was taken for a whole one")
    except anthropic.APIStatusError as error:
        assert error.body["error"]["type"] == "api_error", error.body


a_whole_message()
a_streamed_message()
raw_events()
thinking()
a_round_of_tools()
reasons_to_stop()
counting()
beta_and_headers()
errors_have_their_classes()
print(json.dumps({"sdk": f"anthropic {anthropic.__version__}", "calls": CALLS}))
