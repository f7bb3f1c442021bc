"""The official SDKs of both houses, unmodified, as customers of the venue's other two surfaces: Anthropic Messages, on both
of its addresses, and OpenAI Responses. What they were told is printed as JSON, for the test around this to compare with
the bill.
"""

import json
import os

import anthropic
import openai

CASE = json.loads(os.environ["CASE"])
CALLS = []
QUESTION = "What is a spot market for inference, in one sentence?"
ASK = {"model": "text-prime", "max_tokens": 300, "messages": [{"role": "user", "content": QUESTION}]}
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
openai_client = openai.OpenAI(base_url=CASE["base_url"], api_key=CASE["key"], max_retries=2)


def claude(url, key=CASE["key"]):
    return anthropic.Anthropic(base_url=url.removesuffix("/v1"), api_key=key, max_retries=2)


def note(kind, usage):
    CALLS.append({"kind": kind, "input": usage.input_tokens, "output": usage.output_tokens})


def messages(url):
    client = claude(url)
    whole = client.messages.create(**ASK)
    assert "imulated" in whole.content[0].text and whole.stop_reason == "end_turn", whole
    note("message", whole.usage)
    with client.messages.stream(**ASK, system="Be brief.") as stream:
        text = "".join(stream.text_stream)
        last = stream.get_final_message()
    assert "imulated" in text and last.content[0].text == text, last
    note("streamed message", last.usage)
    tool = {"name": "get_weather", "description": "The weather in a city.", "input_schema": WEATHER}
    called = client.messages.create(**ASK, tools=[tool], tool_choice={"type": "tool", "name": "get_weather"})
    use = [block for block in called.content if block.type == "tool_use"]
    assert [one.name for one in use] == ["get_weather"] and "city" in use[0].input, called
    assert called.stop_reason == "tool_use", called
    note("tool", called.usage)
    cut = client.messages.create(**{**ASK, "max_tokens": 5})
    assert cut.stop_reason == "max_tokens" and cut.usage.output_tokens == 5, cut
    note("limit", cut.usage)


def responses():
    whole = openai_client.responses.create(model="text-prime", input=QUESTION, store=False)
    assert "imulated" in whole.output_text and whole.status == "completed", whole
    note("response", whole.usage)
    kinds, last = [], None
    for event in openai_client.responses.create(model="text-prime", input=QUESTION, store=False, stream=True):
        kinds.append(event.type)
        if event.type == "response.completed":
            last = event.response
    assert kinds[0] == "response.created" and "response.output_text.delta" in kinds, kinds
    note("streamed response", last.usage)
    tool = {"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": True}
    called = openai_client.responses.create(
        model="text-prime", input=QUESTION, store=False, tools=[tool], tool_choice="required"
    )
    calls = [item for item in called.output if item.type == "function_call"]
    assert [one.name for one in calls] == ["get_weather"] and "city" in json.loads(calls[0].arguments), called
    note("tool", called.usage)


def without_money():
    try:
        claude(CASE["messages_url"], CASE["poor_key"]).with_options(max_retries=0).messages.create(**ASK)
        raise AssertionError("it was answered")
    except anthropic.APIStatusError as error:
        assert error.status_code == 402 and error.body["error"]["type"] == "billing_error", error.body


messages(CASE["messages_url"])
messages(CASE["base_url"])
responses()
without_money()
print(json.dumps({"sdk": f"anthropic {anthropic.__version__}, openai {openai.__version__}", "calls": CALLS}))
