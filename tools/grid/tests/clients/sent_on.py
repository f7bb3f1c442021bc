"""The official OpenAI SDK for Python, unmodified, whose calls are sent on to another node: one whole, one streamed.

Printed is what it was told, and where the answers came from in the end.
"""

import json
import os

import openai

CASE = json.loads(os.environ["CASE"])
ASK = {
    "model": CASE["model"],
    "max_tokens": 60,
    "messages": [{"role": "user", "content": "What is a spot market?"}],
}
client = openai.OpenAI(base_url=CASE["base_url"], api_key=CASE["key"], max_retries=0)
calls = []

raw = client.chat.completions.with_raw_response.create(**ASK)
answer = raw.parse()
calls.append({
    "url": str(raw.http_response.url),
    "request": raw.headers["x-grid-request-id"],
    "text": answer.choices[0].message.content,
    "total": answer.usage.total_tokens,
})

with client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True}) as stream:
    chunks = list(stream)
    calls.append({
        "url": str(stream.response.url),
        "request": stream.response.headers["x-grid-request-id"],
        "text": "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices),
        "total": chunks[-1].usage.total_tokens,
    })
print(json.dumps({"calls": calls}))
