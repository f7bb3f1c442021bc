// The official OpenAI SDK for Node.js, unmodified, as a customer of the venue. Like openai_sdk.py beside it.

import assert from "node:assert/strict";
import OpenAI from "openai";
import { VERSION } from "openai/version.mjs";

const CASE = JSON.parse(process.env.CASE);
const calls = [];
const client = new OpenAI({ baseURL: CASE.base_url, apiKey: CASE.key });
const messages = [{ role: "user", content: "What is a spot market for inference, in one sentence?" }];

function note(answer, usage, kind) {
  calls.push({ kind, id: answer.id, prompt: usage?.prompt_tokens ?? null, completion: usage?.completion_tokens ?? null });
  if (usage) assert.equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);
}

async function modelsAreListed() {
  const listed = [];
  for await (const model of await client.models.list()) listed.push(model.id);
  for (const symbol of ["text-max", "text-prime", "text-standard"]) assert.ok(listed.includes(symbol), listed);
  assert.equal((await client.models.retrieve("text-prime")).id, "text-prime");
}

async function aWholeAnswer() {
  const { data, response } = await client.chat.completions.create({ model: "text-prime", messages }).withResponse();
  assert.ok(response.headers.get("x-grid-request-id"));
  assert.equal(data.object, "chat.completion");
  assert.equal(data.choices[0].finish_reason, "stop");
  assert.match(data.choices[0].message.content, /imulated/);
  note(data, data.usage, "whole");
}

async function aStreamWithUsage() {
  const { data, response } = await client.chat.completions
    .create({ model: "text-standard", messages, stream: true, stream_options: { include_usage: true } })
    .withResponse();
  assert.ok(response.headers.get("x-grid-request-id"));
  let text = "", finish, last;
  const usages = [];
  for await (const chunk of data) {
    assert.ok(last === undefined || last.id === chunk.id);
    if (last === undefined) assert.equal(chunk.choices[0].delta.role, "assistant");
    last = chunk;
    if (chunk.usage) {
      usages.push(chunk.usage);
      assert.deepEqual(chunk.choices, []);
    }
    for (const choice of chunk.choices) {
      text += choice.delta.content ?? "";
      finish = choice.finish_reason ?? finish;
    }
  }
  assert.equal(finish, "stop");
  assert.match(text, /imulated/);
  assert.equal(usages.length, 1);
  note(last, usages[0], "stream with usage");
}

async function aStreamWithoutUsage() {
  let last;
  for await (const chunk of await client.chat.completions.create({ model: "text-prime", messages, stream: true })) {
    assert.ok(chunk.choices.length > 0 && !chunk.usage, JSON.stringify(chunk));
    last = chunk;
  }
  assert.equal(last.choices[0].finish_reason, "stop");
  note(last, null, "stream without usage");
}

const tool = {
  type: "function",
  function: {
    name: "get_weather",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
};

async function aToolRoundTrip() {
  const asked = [{ role: "user", content: "Please use get_weather for Rome" }];
  const called = await client.chat.completions.create({ model: "text-prime", messages: asked, tools: [tool] });
  note(called, called.usage, "tool call");
  assert.equal(called.choices[0].finish_reason, "tool_calls");
  const call = called.choices[0].message.tool_calls[0];
  assert.equal(call.function.name, "get_weather");
  assert.ok("city" in JSON.parse(call.function.arguments));
  asked.push(called.choices[0].message, { role: "tool", tool_call_id: call.id, content: "sunny" });
  const answer = await client.chat.completions.create({ model: "text-prime", messages: asked, tools: [tool] });
  note(answer, answer.usage, "tool result");
  assert.equal(answer.choices[0].finish_reason, "stop");
}

async function aStreamedToolCall() {
  const runner = client.chat.completions.stream({
    model: "text-prime",
    messages: [{ role: "user", content: "weather" }],
    tools: [tool],
    tool_choice: { type: "function", function: { name: "get_weather" } },
    stream_options: { include_usage: true },
  });
  const answer = await runner.finalChatCompletion();
  assert.equal(answer.choices[0].message.tool_calls[0].function.name, "get_weather");
  JSON.parse(answer.choices[0].message.tool_calls[0].function.arguments);
  note(answer, await runner.totalUsage(), "streamed tool call");
}

async function jsonModeAndSchema() {
  const json = await client.chat.completions.create({
    model: "text-prime", messages, response_format: { type: "json_object" },
  });
  assert.equal(JSON.parse(json.choices[0].message.content).simulated, true);
  note(json, json.usage, "json mode");
  const schema = {
    type: "object",
    properties: { title: { type: "string" }, stars: { type: "integer" } },
    required: ["title", "stars"],
    additionalProperties: false,
  };
  const fitted = await client.chat.completions.create({
    model: "text-max", messages,
    response_format: { type: "json_schema", json_schema: { name: "review", strict: true, schema } },
  });
  const review = JSON.parse(fitted.choices[0].message.content);
  assert.deepEqual(Object.keys(review).sort(), ["stars", "title"]);
  note(fitted, fitted.usage, "json schema");
}

async function fails(kind, status, request, key = CASE.key) {
  const other = new OpenAI({ baseURL: CASE.base_url, apiKey: key, maxRetries: 0 });
  await assert.rejects(
    other.chat.completions.create({ model: "text-prime", messages, ...request }),
    (error) => error instanceof kind && error.status === status && Boolean(error.requestID) && Boolean(error.error?.message),
  );
}

async function errorsHaveTheirClasses() {
  await fails(OpenAI.AuthenticationError, 401, {}, "sk-nobody");
  await fails(OpenAI.APIError, 402, {}, CASE.poor_key);
  await fails(OpenAI.NotFoundError, 404, { model: "gpt-5.2" });
  await fails(OpenAI.UnprocessableEntityError, 422, { temperature: 3 });
  await fails(OpenAI.UnprocessableEntityError, 422, { top_p: -1 });
}

await modelsAreListed();
await aWholeAnswer();
await aStreamWithUsage();
await aStreamWithoutUsage();
await aToolRoundTrip();
await aStreamedToolCall();
await jsonModeAndSchema();
await errorsHaveTheirClasses();
console.log(JSON.stringify({ sdk: `openai ${VERSION}`, calls }));
