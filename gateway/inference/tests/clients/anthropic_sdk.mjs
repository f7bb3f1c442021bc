// The official Anthropic SDK for Node.js, unmodified, as a customer of the tier. See anthropic_sdk.py beside this.
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";

const CASE = JSON.parse(process.env.CASE);
const calls = [];
const client = new Anthropic({ baseURL: CASE.base_url, apiKey: CASE.key, maxRetries: 0 });
const tool = {
  name: "get_weather",
  description: "Weather of a city",
  input_schema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};
const ask = (text, more = {}) => ({
  model: "text-prime",
  max_tokens: 200,
  messages: [{ role: "user", content: text }],
  ...more,
});

function note(message) {
  const { input_tokens, cache_read_input_tokens, output_tokens } = message.usage;
  calls.push([input_tokens + (cache_read_input_tokens ?? 0), output_tokens]);
  assert.equal(message.type, "message");
  assert.match(message.id, /^msg_/);
  return message;
}

async function wholeAndStreamed(request) {
  const whole = note(await client.messages.create(request));
  const streamed = note(await client.messages.stream(request).finalMessage());
  return [whole, streamed];
}

for (const message of await wholeAndStreamed(ask("hello", { system: [{ type: "text", text: "be brief" }] }))) {
  assert.equal(message.content[0].text, "Two parties meet at a price.");
  assert.equal(message.stop_reason, "end_turn");
  assert.equal(message.model, "model-of-2");
}

const names = [];
let last;
for await (const event of await client.messages.create(ask("hello", { stream: true }))) {
  names.push(event.type);
  if (event.type === "message_delta") last = event;
}
assert.equal(names[0], "message_start");
assert.equal(names.at(-1), "message_stop");
calls.push([last.usage.input_tokens + last.usage.cache_read_input_tokens, last.usage.output_tokens]);

for (const message of await wholeAndStreamed(ask("think", { thinking: { type: "enabled", budget_tokens: 1024 } }))) {
  assert.deepEqual(message.content.map((block) => block.type), ["thinking", "text"]);
  assert.equal(message.content[0].thinking, "Let me see.");
}

for (const message of await wholeAndStreamed(ask("weather", { tools: [tool] }))) {
  assert.equal(message.stop_reason, "tool_use");
  const uses = message.content.filter((block) => block.type === "tool_use");
  assert.deepEqual(uses.map((use) => use.input), [{ city: "Rome" }, { city: "Oslo" }]);
  const results = uses.map((use) => ({
    type: "tool_result",
    tool_use_id: use.id,
    content: [{ type: "text", text: "sunny" }],
  }));
  const messages = [
    { role: "user", content: "weather" },
    { role: "assistant", content: message.content },
    { role: "user", content: results },
  ];
  const answer = note(await client.messages.create(ask("", { messages, tools: [tool] })));
  assert.equal(answer.content[0].text, "sunny and sunny");
}

const counted = await client.messages.countTokens({
  model: "text-prime",
  messages: [{ role: "user", content: "the market price of time" }],
});
assert.ok(counted.input_tokens >= 5 && counted.input_tokens < 20, counted);

async function fails(kind, status, request, key = CASE.key) {
  const other = new Anthropic({ baseURL: CASE.base_url, apiKey: key, maxRetries: 0 });
  await assert.rejects(other.messages.create(request), (error) => {
    assert.ok(error instanceof kind, error);
    assert.equal(error.status, status);
    assert.equal(error.requestID, error.error.request_id);
    return true;
  });
}
await fails(Anthropic.AuthenticationError, 401, ask("hello"), "sk-nobody");
await fails(Anthropic.NotFoundError, 404, ask("hello", { model: "claude-opus-9" }));
await fails(Anthropic.BadRequestError, 400, ask("hello", { max_tokens: 0 }));
await assert.rejects(client.messages.stream(ask("break")).finalMessage(), Anthropic.APIError);

console.log(JSON.stringify({ sdk: "@anthropic-ai/sdk", calls }));
