"""The official OpenAI SDK for Python, unmodified, sent on to another node: one call whole, one streamed."""

import json
import os

import openai

CASE = json.loads(os.environ["CASE"])
ASK = {"model": "text-prime", "messages": [{"role": "user", "content": "What is a spot market?"}]}

client = openai.OpenAI(base_url=CASE["base_url"], api_key=CASE["key"], max_retries=0)
whole = client.chat.completions.create(**ASK).choices[0].message.content
stream = client.chat.completions.create(**ASK, stream=True)
pieces = [choice.delta.content or "" for chunk in stream for choice in chunk.choices]
print(json.dumps({"texts": [whole, "".join(pieces)]}))
