"""LangChain, unmodified, as a customer of the tier: plain, streamed, tools in parallel, structured output, errors."""

import asyncio
import json
import os
from importlib.metadata import version

import openai
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

CASE = json.loads(os.environ["CASE"])
CALLS = []


def model(symbol="text-prime", **more):
    return ChatOpenAI(model=symbol, base_url=CASE["base_url"], api_key=CASE["key"], **more)


def note(message, kind, counted=True):
    usage = message.usage_metadata if counted else None
    if usage:
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"], usage
    CALLS.append([usage["input_tokens"], usage["output_tokens"]] if usage else None)


def plain():
    message = model(temperature=0.2, max_tokens=400).invoke("What is a spot market?")
    assert "imulated" in message.content, message
    assert message.response_metadata["finish_reason"] == "stop", message
    note(message, "plain")


def streamed(stream_usage):
    whole = None
    for chunk in model(stream_usage=stream_usage).stream("What is a spot market?"):
        whole = chunk if whole is None else whole + chunk
    assert "imulated" in whole.content, whole
    assert bool(whole.usage_metadata) == stream_usage, whole
    note(whole, "streamed", stream_usage)


@tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


@tool
def get_time(zone: str) -> str:
    """The time in a zone."""
    return "noon"


def tools_in_parallel():
    able = model().bind_tools([get_weather, get_time])
    asked = [HumanMessage("please get_weather and get_time for Rome")]
    called = able.invoke(asked)
    assert [call["name"] for call in called.tool_calls] == ["get_weather", "get_time"], called
    assert len({call["id"] for call in called.tool_calls}) == 2, called
    note(called, "tools")
    by_name = {"get_weather": get_weather, "get_time": get_time}
    asked.append(called)
    for call in called.tool_calls:
        asked.append(ToolMessage(by_name[call["name"]].invoke(call["args"]), tool_call_id=call["id"]))
    answer = able.invoke(asked)
    assert answer.content and not answer.tool_calls, answer
    note(answer, "tools answered")


def streamed_tools():
    whole = None
    able = model(stream_usage=True).bind_tools([get_weather, get_time])
    for chunk in able.stream("please get_weather and get_time for Rome"):
        whole = chunk if whole is None else whole + chunk
    assert [call["name"] for call in whole.tool_calls] == ["get_weather", "get_time"], whole
    assert all(isinstance(call["args"], dict) for call in whole.tool_calls), whole
    note(whole, "streamed tools")


class Review(BaseModel):
    """A review."""

    title: str
    stars: int


def structured(method):
    told = model("text-prime").with_structured_output(Review, method=method, include_raw=True).invoke("Review it.")
    assert isinstance(told["parsed"], Review), told
    note(told["raw"], f"structured by {method}")


def at_once():
    async def all_of_them():
        return await asyncio.gather(*[model().ainvoke(f"call number {n}") for n in range(5)])

    for message in asyncio.run(all_of_them()):
        note(message, "one of many")


def errors():
    for key, symbol, kind in [
        ("sk-nobody", "text-prime", openai.AuthenticationError),
        (CASE["key"], "gpt-5.2", openai.NotFoundError),
    ]:
        try:
            ChatOpenAI(model=symbol, base_url=CASE["base_url"], api_key=key, max_retries=0).invoke("hi")
        except kind:
            continue
        raise AssertionError(f"{symbol} was answered")


plain()
streamed(True)
streamed(False)
tools_in_parallel()
streamed_tools()
structured("json_schema")
structured("function_calling")
at_once()
errors()
print(json.dumps({"sdk": f"langchain-openai {version('langchain-openai')}", "calls": CALLS}))
