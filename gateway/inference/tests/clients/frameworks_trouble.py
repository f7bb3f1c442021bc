"""LangChain, pydantic-ai and instructor, unmodified, while the suppliers fail: what they retry, what they raise, and that
a stream which is left is left at the supplier too.

CASE also holds the control addresses of all suppliers, through which this script tells them how to fail.
"""

import asyncio
import json
import os
import urllib.request

import instructor
import openai
from langchain_openai import ChatOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent, ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

CASE = json.loads(os.environ["CASE"])
PROMPT = "What is a spot market?"


class Review(BaseModel):
    title: str
    stars: int


def fail(**faults):
    for url in CASE["controls"]:
        request = urllib.request.Request(url, json.dumps(faults).encode(), method="POST")
        urllib.request.urlopen(request).read()


def plain(retries=0):
    return openai.OpenAI(base_url=CASE["base_url"], api_key=CASE["key"], max_retries=retries)


def heal():
    fail()
    # Answers close every breaker that may be open.
    for _ in CASE["controls"]:
        plain(10).chat.completions.create(model="text-prime", messages=[{"role": "user", "content": PROMPT}])


def chain(**more):
    return ChatOpenAI(model="text-prime", base_url=CASE["base_url"], api_key=CASE["key"], **more)


def agent():
    many = openai.AsyncOpenAI(base_url=CASE["base_url"], api_key=CASE["key"], max_retries=0)
    return Agent(OpenAIChatModel("text-prime", provider=OpenAIProvider(openai_client=many)))


def instructed(retries):
    return instructor.from_openai(plain(retries)).chat.completions.create(
        model="text-prime", messages=[{"role": "user", "content": "Review it."}], response_model=Review, max_retries=1
    )


def what_can_succeed_is_tried_again():
    # More failures than the tier repairs by itself, fewer than open a breaker.
    for work in (lambda: chain(max_retries=5).invoke(PROMPT).content, lambda: instructed(5).title):
        fail(status=500, next_requests=3)
        assert "imulated" in work()
        heal()


async def left(stream, is_content):
    """Reads a stream until its first content, and then is cancelled while it waits for more."""
    started = asyncio.Event()

    async def read():
        async for piece in stream:
            if is_content(piece):
                started.set()

    task = asyncio.create_task(read())
    done = asyncio.create_task(started.wait())
    await asyncio.wait([task, done], return_when=asyncio.FIRST_COMPLETED)
    assert started.is_set(), task
    task.cancel()
    try:
        await task
        raise AssertionError("it ended")
    except asyncio.CancelledError:
        pass


async def nobody_delivers():
    fail(status=500)
    for work, kind in [
        (lambda: chain(max_retries=0).ainvoke(PROMPT), openai.InternalServerError),
        (lambda: agent().run(PROMPT), ModelHTTPError),
    ]:
        try:
            await work()
            raise AssertionError("it was answered")
        except kind as error:
            assert error.status_code == 503, error
    try:
        instructed(0)
        raise AssertionError("it was answered")
    except Exception as error:
        assert "503" in str(error) or isinstance(error, openai.InternalServerError), error
    heal()


async def streams_that_break_say_so():
    fail(die_after_tokens=5)
    pieces = []
    try:
        async for chunk in chain().astream(PROMPT):
            pieces.append(chunk.content)
        raise AssertionError("it ended well")
    except openai.APIError as error:
        assert error.body["code"] == "supplier_failed", error.body
    assert sum(1 for piece in pieces if piece) == 5, pieces
    try:
        async with agent().run_stream(PROMPT) as told:
            async for _ in told.stream_text(delta=True, debounce_by=None):
                pass
        raise AssertionError("it ended well")
    except (openai.APIError, ModelHTTPError):
        pass
    heal()


async def streams_may_be_left():
    fail(stall_after_tokens=5)
    stream = chain().astream(PROMPT)
    async for chunk in stream:
        if chunk.content:
            break
    await stream.aclose()
    # LangChain's own clock between chunks is what a cancelled task waits for; without it, it ends at once.
    await left(chain(stream_chunk_timeout=None).astream(PROMPT), lambda chunk: chunk.content)

    async def told():
        async with agent().run_stream(PROMPT) as stream:
            async for piece in stream.stream_text(delta=True, debounce_by=None):
                yield piece

    await left(told(), lambda piece: piece)
    heal()


async def a_timeout_ends_the_call():
    fail(stall_before_headers_ms=60000)
    try:
        await chain(max_retries=0, timeout=0.5).ainvoke(PROMPT)
        raise AssertionError("it was answered")
    except openai.APITimeoutError:
        pass
    except openai.InternalServerError as error:
        # The client says how long it waits, so the tier gives up in its favour a moment before that.
        assert error.status_code == 503, error
    heal()


async def all_of_it():
    await nobody_delivers()
    await streams_that_break_say_so()
    await streams_may_be_left()
    await a_timeout_ends_the_call()


what_can_succeed_is_tried_again()
asyncio.run(all_of_it())
print(json.dumps({"sdk": "langchain, pydantic-ai, instructor", "done": True}))
