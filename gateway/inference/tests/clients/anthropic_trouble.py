"""The official Anthropic SDK for Python, unmodified, while the suppliers fail: retries, timeouts, errors, cancellation.

CASE also holds the control addresses of all suppliers, through which this script tells them how to fail.
"""

import asyncio
import json
import os
import urllib.request

import anthropic
import httpx2

CASE = json.loads(os.environ["CASE"])
ASK = {"model": "text-prime", "max_tokens": 400, "messages": [{"role": "user", "content": "What is a spot market?"}]}


def client(kind=anthropic.Anthropic, **more):
    return kind(base_url=CASE["base_url"].removesuffix("/v1"), api_key=CASE["key"], **more)


def fail(**faults):
    for url in CASE["controls"]:
        request = urllib.request.Request(url, json.dumps(faults).encode(), method="POST")
        urllib.request.urlopen(request).read()


def heal():
    fail()
    # Answers close every breaker that may be open.
    for _ in CASE["controls"]:
        client(max_retries=10).messages.create(**ASK)


def what_can_succeed_is_tried_again():
    # More failures than the tier repairs by itself, fewer than open a breaker.
    fail(status=500, next_requests=3)
    raw = client(max_retries=5).messages.with_raw_response.create(**ASK)
    assert raw.retries_taken >= 1, raw.retries_taken
    assert "imulated" in raw.parse().content[0].text
    heal()
    for status in (429, 529, 503):
        fail(status=status, retry_after_s=1, next_requests=2)
        assert "imulated" in client(max_retries=10).messages.create(**ASK).content[0].text
        heal()


def what_cannot_is_not():
    tries = []
    http = httpx2.Client(event_hooks={"request": [lambda request: tries.append(request.url.path)]})
    for more, kind in [
        ({"extra_body": {"temperature": 9}}, anthropic.UnprocessableEntityError),
        ({"model": "claude-opus-9"}, anthropic.NotFoundError),
        ({"max_tokens": 0}, anthropic.BadRequestError),
    ]:
        tries.clear()
        try:
            client(http_client=http).messages.create(**{**ASK, **more})
            raise AssertionError(f"{more} was answered")
        except kind as error:
            assert len(tries) == 1, tries
            assert error.response.headers["x-should-retry"] == "false"
            assert error.request_id == error.response.headers["x-grid-request-id"]


def nobody_delivers():
    fail(status=500)
    try:
        client(max_retries=0).messages.create(**ASK)
        raise AssertionError("it was answered")
    except anthropic.APIStatusError as error:
        assert error.status_code == 503, error
        assert error.body["error"]["type"] == "overloaded_error", error.body
        headers = error.response.headers
        assert headers["x-should-retry"] == "true" and int(headers["retry-after"]) >= 1, headers
        assert float(headers["retry-after-ms"]) > 0, headers
    heal()


def a_timeout_ends_the_call():
    fail(stall_before_headers_ms=60000)
    try:
        client(max_retries=0, timeout=0.5).messages.create(**ASK)
        raise AssertionError("it was answered")
    except anthropic.APITimeoutError:
        pass
    except anthropic.APIStatusError as error:
        # The client says how long it waits, so the tier gives up in its favour a moment before that.
        assert error.status_code == 503, error
    heal()


def a_stream_that_breaks_says_so():
    fail(die_after_tokens=5)
    pieces = []
    try:
        with client().messages.stream(**ASK) as stream:
            pieces.extend(stream.text_stream)
        raise AssertionError("it ended well")
    except anthropic.APIStatusError as error:
        assert error.body["error"]["type"] == "api_error", error.body
    assert len(pieces) == 5, pieces
    heal()


def a_stream_may_be_left():
    fail(stall_after_tokens=5)
    with client().messages.stream(**ASK) as stream:
        for got, _ in enumerate(stream.text_stream):
            if got == 3:
                break

    async def cancelled():
        async with client(anthropic.AsyncAnthropic) as many:
            started = asyncio.Event()

            async def read():
                async for event in await many.messages.create(**ASK, stream=True):
                    if event.type == "content_block_delta":
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
print(json.dumps({"sdk": f"anthropic {anthropic.__version__}", "done": True}))
