"""The official OpenAI SDK for Python, unmodified, with the Responses API. See anthropic_sdk.py beside this."""

import json
import os

import openai
from pydantic import BaseModel

CASE = json.loads(os.environ["CASE"])
CALLS = []
client = openai.OpenAI(base_url=CASE["base_url"] + "/v1", api_key=CASE["key"], max_retries=0)
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Weather of a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


class Review(BaseModel):
    title: str
    stars: int


def ask(text, **more):
    return {"model": "text-prime", "input": text, **more}


def note(response):
    CALLS.append([response.usage.input_tokens, response.usage.output_tokens])
    assert response.usage.total_tokens == sum(CALLS[-1]), response.usage
    assert response.object == "response" and response.id.startswith("resp_") and response.store is not True, response
    return response


def streamed(**request):
    names = []
    with client.responses.stream(**request) as stream:
        for number, event in enumerate(stream):
            names.append(event.type)
            assert event.sequence_number == number, event
        response = stream.get_final_response()
    assert names[:2] == ["response.created", "response.in_progress"], names
    assert names[-1] == "response.completed", names
    return note(response)


def a_text():
    raw = client.responses.with_raw_response.create(**ask("hello", instructions="be brief"))
    assert raw.headers["x-request-id"].startswith("req_"), dict(raw.headers)
    whole = note(raw.parse())
    assert whole.usage.input_tokens_details.cached_tokens == 5, whole.usage
    assert whole.instructions == "be brief", whole
    for response in (whole, streamed(**ask("hello"))):
        assert response.output_text == "Two parties meet at a price.", response
        assert response.status == "completed" and response.model == "model-of-2", response
    deltas = [e.delta for e in client.responses.create(**ask("hello"), stream=True) if e.type == "response.output_text.delta"]
    assert "".join(deltas) == "Two parties meet at a price.", deltas
    CALLS.append([12, 6])


def reasoning():
    request = ask("think", reasoning={"effort": "low"})
    for response in (note(client.responses.create(**request)), streamed(**request)):
        kinds = [item.type for item in response.output]
        assert kinds == ["reasoning", "message"], response
        assert response.output[0].content[0].text == "Let me see.", response
        assert response.output_text == "42", response
    told = streamed(**ask("think", reasoning={"effort": "low", "summary": "auto"}))
    assert told.output[0].summary[0].text == "Let me see.", told


def a_round_of_tools():
    question = [{"role": "user", "content": "weather"}]
    request = ask(question, tools=[WEATHER], tool_choice="auto")
    for response in (note(client.responses.create(**request)), streamed(**request)):
        calls = [item for item in response.output if item.type == "function_call"]
        assert [json.loads(call.arguments) for call in calls] == [{"city": "Rome"}, {"city": "Oslo"}], response
        results = [{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"} for call in calls]
        answer = note(client.responses.create(**ask(question + response.output + results, tools=[WEATHER])))
        assert answer.output_text == "sunny and sunny", answer


def a_schema():
    whole = note(client.responses.parse(**ask("json"), text_format=Review))
    assert whole.output_parsed == Review(title="x", stars=5), whole
    with client.responses.stream(**ask("json"), text_format=Review) as stream:
        for _ in stream:
            pass
        response = note(stream.get_final_response())
    assert response.output_parsed == Review(title="x", stars=5), response


def an_answer_cut_short():
    response = note(client.responses.create(**ask("limit", max_output_tokens=16)))
    assert response.status == "incomplete" and response.incomplete_details.reason == "max_output_tokens", response


def fails(kind, status, param=None, key=None, **request):
    other = openai.OpenAI(base_url=CASE["base_url"] + "/v1", api_key=key or CASE["key"], max_retries=0)
    try:
        other.responses.create(**{**ask("hello"), **request})
    except kind as error:
        assert error.status_code == status and error.param == param, error
        assert error.request_id and error.body["message"], error.body
        return
    raise AssertionError(f"{request} was answered")


def errors_have_their_classes():
    fails(openai.AuthenticationError, 401, key="sk-nobody")
    fails(openai.NotFoundError, 404, param="model", model="gpt-9")
    fails(openai.BadRequestError, 400, param="previous_response_id", previous_response_id="resp_1")
    fails(openai.BadRequestError, 400, param="store", store=True)
    fails(openai.BadRequestError, 400, param="tools", tools=[{"type": "web_search"}])
    fails(openai.UnprocessableEntityError, 422, param="temperature", temperature=3)
    try:
        client.responses.retrieve("resp_1")
        raise AssertionError("nothing is stored")
    except openai.NotFoundError:
        pass
    last = list(client.responses.create(**ask("break"), stream=True))[-1]
    assert last.type == "response.failed" and last.response.error.code == "server_error", last


a_text()
reasoning()
a_round_of_tools()
a_schema()
an_answer_cut_short()
errors_have_their_classes()
print(json.dumps({"sdk": f"openai {openai.__version__}", "calls": CALLS}))
