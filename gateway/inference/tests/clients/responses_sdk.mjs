// The official OpenAI SDK for Node.js, unmodified, with the Responses API. See anthropic_sdk.py beside this.
import assert from "node:assert/strict";
import OpenAI from "openai";

const CASE = JSON.parse(process.env.CASE);
const calls = [];
const client = new OpenAI({ baseURL: `${CASE.base_url}/v1`, apiKey: CASE.key, maxRetries: 0 });
const tool = {
  type: "function",
  name: "get_weather",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false },
  strict: true,
};
const ask = (input, more = {}) => ({ model: "text-prime", input, ...more });

function note(response) {
  calls.push([response.usage.input_tokens, response.usage.output_tokens]);
  assert.equal(response.object, "response");
  return response;
}

async function streamed(request) {
  const stream = client.responses.stream(request);
  let number = 0;
  for await (const event of stream) assert.equal(event.sequence_number, number++);
  return note(await stream.finalResponse());
}

const both = async (request) => [note(await client.responses.create(request)), await streamed(request)];

for (const response of await both(ask("hello", { instructions: "be brief" }))) {
  assert.equal(response.output_text, "Two parties meet at a price.");
  assert.equal(response.status, "completed");
}
for (const response of await both(ask("think", { reasoning: { effort: "low" } }))) {
  assert.deepEqual(response.output.map((item) => item.type), ["reasoning", "message"]);
  assert.equal(response.output_text, "42");
}
for (const response of await both(ask("weather", { tools: [tool] }))) {
  const uses = response.output.filter((item) => item.type === "function_call");
  assert.deepEqual(uses.map((use) => JSON.parse(use.arguments)), [{ city: "Rome" }, { city: "Oslo" }]);
  const input = [
    { role: "user", content: "weather" },
    ...uses,
    ...uses.map((use) => ({ type: "function_call_output", call_id: use.call_id, output: "sunny" })),
  ];
  const answer = note(await client.responses.create(ask(input, { tools: [tool] })));
  assert.equal(answer.output_text, "sunny and sunny");
}
const format = {
  type: "json_schema",
  name: "review",
  schema: { type: "object", properties: { title: { type: "string" }, stars: { type: "integer" } } },
};
const parsed = note(await client.responses.parse(ask("json", { text: { format } })));
assert.deepEqual(JSON.parse(parsed.output_text), { title: "x", stars: 5 });

async function fails(kind, status, more, key = CASE.key) {
  const other = new OpenAI({ baseURL: `${CASE.base_url}/v1`, apiKey: key, maxRetries: 0 });
  await assert.rejects(other.responses.create(ask("hello", more)), (error) => {
    assert.ok(error instanceof kind, error);
    assert.equal(error.status, status);
    assert.ok(error.requestID);
    return true;
  });
}
await fails(OpenAI.AuthenticationError, 401, {}, "sk-nobody");
await fails(OpenAI.NotFoundError, 404, { model: "gpt-9" });
await fails(OpenAI.BadRequestError, 400, { previous_response_id: "resp_1" });
let last;
for await (const event of await client.responses.create(ask("break", { stream: true }))) last = event;
assert.equal(last.type, "response.failed");

console.log(JSON.stringify({ sdk: "openai (node)", calls }));
