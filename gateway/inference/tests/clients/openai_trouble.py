"""The official OpenAI SDK for Python, unmodified, while the suppliers fail: retries, timeouts, errors, cancellation.

CASE also holds the control addresses of all suppliers, through which this script tells them how to fail.
"""

import asyncio
import json
import os
import urllib.request

import httpx
import openai

CASE = json.loads(os.environ["CASE"])
ASK = {"model": "text-prime", "messages": [{"role": "user", "content": "What is a spot market?"}]}
LONG = {**ASK, "extra_body": {"metadata": {"simulate_completion_tokens": "4000"}}}


def client(**more):
    return openai.OpenAI(base_url=CASE["base_url"], api_key=CASE["key"], **more)


def fail(**faults):
    for url in CASE["controls"]:
        request = urllib.request.Request(url, json.dumps(faults).encode(), method="POST")
        urllib.request.urlopen(request).read()


def heal():
    fail()
    # Answers close every breaker that may be open.
    for _ in CASE["controls"]:
        client(max_retries=10).chat.completions.create(**ASK)


def what_can_succeed_is_tried_again():
    fail(status=500, next_requests=3)
    raw = client(max_retries=3).chat.completions.with_raw_response.create(**ASK)
    assert raw.retries_taken >= 1, raw.retries_taken
    assert "imulated" in raw.parse().choices[0].message.content
    heal()


def what_cannot_is_not():
    tries = []
    http = httpx.Client(event_hooks={"request": [lambda request: tries.append(request.url.path)]})
    for more, kind in [
        ({"temperature": 9}, openai.UnprocessableEntityError),
        ({"model": "gpt-5.2"}, openai.NotFoundError),
        ({"extra_body": {"top_logprobs": 3}}, openai.UnprocessableEntityError),
    ]:
        tries.clear()
        try:
            client(http_client=http).chat.completions.create(**{**ASK, **more})
            raise AssertionError(f"{more} was answered")
        except kind as error:
            assert len(tries) == 1, tries
            assert error.response.headers["x-should-retry"] == "false"
            assert error.request_id == error.response.headers["x-grid-request-id"]
            assert error.body["message"] and error.body["type"] and error.body["code"], error.body
            assert error.param, error.body


def nobody_delivers():
    fail(status=500)
    try:
        client(max_retries=0).chat.completions.create(**ASK)
        raise AssertionError("it was answered")
    except openai.InternalServerError as error:
        assert error.status_code == 503, error
        headers = error.response.headers
        assert headers["x-should-retry"] == "true" and int(headers["retry-after"]) >= 1, headers
        assert float(headers["retry-after-ms"]) > 0, headers
    heal()


def a_timeout_ends_the_call():
    fail(stall_before_headers_ms=60000)
    try:
        client(max_retries=0, timeout=0.5).chat.completions.create(**ASK)
        raise AssertionError("it was answered")
    except openai.APITimeoutError:
        pass
    except openai.InternalServerError as error:
        # The client says how long it waits, so the tier gives up in its favour a moment before that.
        assert error.status_code == 503, error
    heal()


def a_stream_that_breaks_says_so():
    fail(die_after_tokens=5)
    pieces = []
    try:
        for chunk in client().chat.completions.create(**ASK, stream=True):
            pieces.extend(choice.delta.content for choice in chunk.choices if choice.delta.content)
        raise AssertionError("it ended well")
    except openai.APIError as error:
        assert error.body["code"] == "supplier_failed", error.body
    assert len(pieces) == 5, pieces
    heal()


def a_stream_may_be_left():
    fail(stall_after_tokens=5)
    with client().chat.completions.create(**LONG, stream=True) as stream:
        for got, chunk in enumerate(stream):
            if got == 3:
                break
    async def cancelled():
        async with openai.AsyncOpenAI(base_url=CASE["base_url"], api_key=CASE["key"]) as many:
            started = asyncio.Event()

            async def read():
                async for _ in await many.chat.completions.create(**LONG, stream=True):
                    started.set()

            task = asyncio.create_task(read())
            await started.wait()
            task.cancel()
            try:
                await task
                raise AssertionError("it ended")
            except asyncio.CancelledError:
                pass

    asyncio.run(cancelled())
    heal()


what_can_succeed_is_tried_again()
what_cannot_is_not()
nobody_delivers()
a_timeout_ends_the_call()
a_stream_that_breaks_says_so()
a_stream_may_be_left()
print(json.dumps({"sdk": f"openai {openai.__version__}", "done": True}))
