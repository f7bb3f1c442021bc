"""pydantic-ai and instructor, unmodified, as customers of the tier: agents with tools, structured output, streams."""

import asyncio
import json
import os
from importlib.metadata import version

import instructor
import openai
from pydantic import BaseModel
from pydantic_ai import Agent, ModelHTTPError, NativeOutput, ToolOutput
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

CASE = json.loads(os.environ["CASE"])
CALLS = []


class Review(BaseModel):
    title: str
    stars: int


def model(symbol="text-prime", key=None):
    provider = OpenAIProvider(base_url=CASE["base_url"], api_key=key or CASE["key"])
    return OpenAIChatModel(symbol, provider=provider)


def note(messages, kind):
    for message in messages:
        if isinstance(message, ModelResponse):
            assert message.provider_response_id, kind
            CALLS.append([message.usage.input_tokens, message.usage.output_tokens])


async def plain():
    told = await Agent(model()).run("What is a spot market?")
    assert "imulated" in told.output, told
    note(told.all_messages(), "plain")


async def streamed():
    async with Agent(model("text-prime")).run_stream("What is a spot market?") as told:
        pieces = [piece async for piece in told.stream_text(delta=True, debounce_by=None)]
        assert len(pieces) > 5 and "imulated" in "".join(pieces), pieces
    note(told.all_messages(), "streamed")


async def with_a_tool():
    agent = Agent(model())
    asked = []

    @agent.tool_plain
    def get_weather(city: str) -> str:
        """The weather in a city."""
        asked.append(city)
        return "sunny"

    told = await agent.run("please get_weather for Rome")
    assert len(asked) == 1 and "imulated" in told.output, told
    note(told.all_messages(), "tool")


async def structured(kind):
    agent = Agent(model("text-prime"), output_type=kind(Review))
    told = await agent.run("Review it.")
    assert isinstance(told.output, Review), told
    note(told.all_messages(), kind.__name__)


async def errors():
    for symbol, key, status in [
        ("gpt-5.2", None, 404), ("text-prime", "sk-nobody", 401),
    ]:
        try:
            await Agent(model(symbol, key)).run("hi")
        except ModelHTTPError as error:
            assert error.status_code == status, error
            assert error.body["message"], error
            continue
        raise AssertionError(f"{symbol} was answered")


def instructed():
    client = openai.OpenAI(base_url=CASE["base_url"], api_key=CASE["key"])
    for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA):
        told, answer = instructor.from_openai(client, mode=mode).create_with_completion(
            model="text-prime",
            response_model=Review,
            messages=[{"role": "user", "content": "Review it."}],
        )
        assert isinstance(told, Review), told
        CALLS.append([answer.usage.prompt_tokens, answer.usage.completion_tokens])


async def all_of_it():
    await plain()
    await streamed()
    await with_a_tool()
    await structured(ToolOutput)
    await structured(NativeOutput)
    await errors()


asyncio.run(all_of_it())
instructed()
SDK = f"pydantic-ai {version('pydantic-ai-slim')}, instructor {version('instructor')}"
print(json.dumps({"sdk": SDK, "calls": CALLS}))
