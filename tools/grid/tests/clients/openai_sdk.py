"""The official OpenAI SDK for Python, unmodified, as a customer of the venue.

The environment variable CASE holds JSON: the base URL, the key of an account with money and of one without. What the
SDK was told is printed as JSON, for the test around this to compare with the suppliers' books and the venue's bill.
"""

import asyncio
import json
import os

import openai
from pydantic import BaseModel

CASE = json.loads(os.environ["CASE"])
CALLS = []
client = openai.OpenAI(base_url=CASE["base_url"], api_key=CASE["key"], max_retries=2)
ASK = [{"role": "user", "content": "What is a spot market for inference, in one sentence?"}]


def note(answer, usage, kind):
    CALLS.append({
        "kind": kind,
        "id": answer.id,
        "prompt": usage.prompt_tokens if usage else None,
        "completion": usage.completion_tokens if usage else None,
    })
    if usage:
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage


def models_are_listed():
    listed = [model.id for model in client.models.list()]
    for symbol in ("text-max", "text-prime", "text-standard"):
        assert symbol in listed, listed
    assert client.models.retrieve("text-prime").id == "text-prime"


def a_whole_answer():
    raw = client.chat.completions.with_raw_response.create(model="text-prime", messages=ASK)
    assert raw.headers["x-grid-request-id"], dict(raw.headers)
    answer = raw.parse()
    assert answer.object == "chat.completion" and answer.choices[0].finish_reason == "stop", answer
    assert "imulated" in answer.choices[0].message.content, answer
    note(answer, answer.usage, "whole")


def names_are_case_insensitive():
    answer = client.chat.completions.create(model="Text-Prime", messages=ASK, max_tokens=5)
    assert answer.choices[0].finish_reason == "length", answer
    assert answer.usage.completion_tokens == 5, answer
    note(answer, answer.usage, "case")


def a_stream_with_usage():
    text, last, finish, first, usages = "", None, None, None, []
    with client.chat.completions.create(
        model="text-standard", messages=ASK, stream=True, stream_options={"include_usage": True}
    ) as stream:
        assert stream.response.headers["x-grid-request-id"]
        assert stream.response.headers["content-type"].startswith("text/event-stream")
        for chunk in stream:
            assert chunk.object == "chat.completion.chunk", chunk
            assert last is None or chunk.id == last.id, (last, chunk)
            last, first = chunk, first or chunk
            if chunk.usage:
                usages.append(chunk.usage)
                assert chunk.choices == [], chunk
            for choice in chunk.choices:
                text += choice.delta.content or ""
                finish = choice.finish_reason or finish
    assert first.choices[0].delta.role == "assistant", first
    assert finish == "stop" and "imulated" in text, (finish, text)
    assert len(usages) == 1 and last.usage, "usage comes once, last"
    note(last, usages[0], "stream with usage")


def a_stream_without_usage():
    last = None
    for chunk in client.chat.completions.create(model="text-prime", messages=ASK, stream=True):
        assert chunk.choices and chunk.usage is None, chunk
        last = chunk
    assert last.choices[0].finish_reason == "stop", last
    note(last, None, "stream without usage")


def a_tool_round_trip():
    tools = [{
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather of a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
                "required": ["city"],
            },
        },
    }]
    asked = [{"role": "user", "content": "Please use get_weather for Rome"}]
    answer = client.chat.completions.create(model="text-prime", messages=asked, tools=tools)
    note(answer, answer.usage, "tool call")
    message = answer.choices[0].message
    assert answer.choices[0].finish_reason == "tool_calls", answer
    call = message.tool_calls[0]
    assert call.type == "function" and call.function.name == "get_weather", call
    assert "city" in json.loads(call.function.arguments), call
    asked += [
        message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "sunny, 24 degrees"},
    ]
    answer = client.chat.completions.create(model="text-prime", messages=asked, tools=tools)
    note(answer, answer.usage, "tool result")
    assert answer.choices[0].finish_reason == "stop" and answer.choices[0].message.content, answer


def a_streamed_tool_call():
    tools = [{
        "type": "function",
        "function": {"name": "sum", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}},
    }]
    with client.chat.completions.stream(
        model="text-prime",
        messages=[{"role": "user", "content": "add"}],
        tools=tools,
        tool_choice={"type": "function", "function": {"name": "sum"}},
        stream_options={"include_usage": True},
    ) as stream:
        answer = stream.get_final_completion()
    call = answer.choices[0].message.tool_calls[0]
    assert call.function.name == "sum" and isinstance(json.loads(call.function.arguments), dict), answer
    note(answer, answer.usage, "streamed tool call")


def json_mode():
    answer = client.chat.completions.create(
        model="text-prime", messages=ASK, response_format={"type": "json_object"}
    )
    assert json.loads(answer.choices[0].message.content)["simulated"] is True, answer
    note(answer, answer.usage, "json mode")


class Review(BaseModel):
    title: str
    stars: int


def a_json_schema():
    answer = client.chat.completions.parse(model="text-max", messages=ASK, response_format=Review)
    assert isinstance(answer.choices[0].message.parsed, Review), answer
    note(answer, answer.usage, "json schema")


def many_at_once():
    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=CASE["base_url"], api_key=CASE["key"]) as many:
            ask = lambda n: many.chat.completions.create(
                model="text-standard",
                messages=[{"role": "user", "content": f"call number {n} of many at once"}],
                max_completion_tokens=20 + n,
                metadata={"simulate_completion_tokens": str(10 + n)},
            )
            return await asyncio.gather(*[ask(n) for n in range(12)])

    for n, answer in enumerate(asyncio.run(all_of_them())):
        assert answer.usage.completion_tokens == 10 + n, answer
        assert answer.usage.prompt_tokens == 7, answer
        note(answer, answer.usage, "one of many")


def fails(kind, status, **request):
    key = request.pop("key", CASE["key"])
    other = openai.OpenAI(base_url=CASE["base_url"], api_key=key, max_retries=0)
    try:
        other.chat.completions.create(**{"model": "text-prime", "messages": ASK, **request})
    except kind as error:
        assert error.status_code == status, error
        assert error.body and error.body.get("message"), error.body
        assert error.request_id, error
        return error
    raise AssertionError(f"{request} was answered")


def errors_have_their_classes():
    fails(openai.AuthenticationError, 401, key="sk-nobody")
    fails(openai.APIStatusError, 402, key=CASE["poor_key"])
    fails(openai.NotFoundError, 404, model="gpt-5.2")
    fails(openai.UnprocessableEntityError, 422, temperature=3)
    fails(openai.UnprocessableEntityError, 422, messages=[])
    fails(openai.UnprocessableEntityError, 422, n=0)
    doubled = openai.OpenAI(base_url=CASE["base_url"] + "/v1", api_key=CASE["key"], max_retries=0)
    try:
        doubled.chat.completions.create(model="text-prime", messages=ASK)
        raise AssertionError("a doubled /v1 was answered")
    except openai.NotFoundError:
        pass


models_are_listed()
a_whole_answer()
names_are_case_insensitive()
a_stream_with_usage()
a_stream_without_usage()
a_tool_round_trip()
a_streamed_tool_call()
json_mode()
a_json_schema()
many_at_once()
errors_have_their_classes()
print(json.dumps({"sdk": f"openai {openai.__version__}", "calls": CALLS}))
