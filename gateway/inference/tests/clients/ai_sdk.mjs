// The Vercel AI SDK and LangChain.js, unmodified, as customers of the tier.

import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { ChatOpenAI } from "@langchain/openai";
import { generateObject, generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";

const CASE = JSON.parse(process.env.CASE);
const calls = [];
const provider = (apiKey, more = {}) =>
  createOpenAICompatible({ name: "grid", baseURL: CASE.base_url, apiKey, includeUsage: true, supportsStructuredOutputs: true, ...more });
const grid = provider(CASE.key);
const prompt = "What is a spot market?";

function note(kind, response, usage) {
  assert.ok(response.id, kind);
  calls.push(usage?.outputTokens === undefined ? null : [usage.inputTokens, usage.outputTokens]);
}

async function whole() {
  const told = await generateText({ model: grid("text-prime"), prompt, temperature: 0.5 });
  assert.match(told.text, /imulated/);
  assert.equal(told.finishReason, "stop");
  note("whole", told.response, told.usage);
}

async function streamed(includeUsage) {
  const told = streamText({ model: provider(CASE.key, { includeUsage })("text-prime"), prompt });
  let text = "";
  for await (const piece of told.textStream) text += piece;
  assert.match(text, /imulated/);
  const usage = await told.usage;
  assert.equal(usage.outputTokens !== undefined, includeUsage);
  note("streamed", await told.response, usage);
}

const get_weather = tool({
  description: "The weather in a city.",
  inputSchema: jsonSchema({ type: "object", properties: { city: { type: "string" } }, required: ["city"] }),
  execute: async ({ city }) => `sunny in ${city}`,
});

async function aToolLoop() {
  const told = await generateText({
    model: grid("text-prime"), prompt: "please get_weather for Rome", tools: { get_weather }, stopWhen: stepCountIs(3),
  });
  assert.equal(told.steps.length, 2);
  assert.equal(told.steps[0].toolCalls[0].toolName, "get_weather");
  for (const step of told.steps) note("tool", step.response, step.usage);
}

async function aStreamedToolCall() {
  const told = streamText({ model: grid("text-prime"), prompt: "please get_weather for Rome", tools: { get_weather } });
  const seen = [];
  for await (const part of told.fullStream) {
    assert.notEqual(part.type, "error", JSON.stringify(part));
    if (part.type === "tool-call") seen.push(part.toolName);
  }
  assert.deepEqual(seen, ["get_weather"]);
  note("streamed tool", await told.response, await told.usage);
}

async function anObject() {
  const schema = jsonSchema({
    type: "object",
    properties: { title: { type: "string" }, stars: { type: "integer" } },
    required: ["title", "stars"],
    additionalProperties: false,
  });
  const told = await generateObject({ model: grid("text-prime"), schema, prompt: "Review it." });
  assert.deepEqual(Object.keys(told.object).sort(), ["stars", "title"]);
  note("object", told.response, told.usage);
}

async function thoughts() {
  const told = await generateText({
    model: grid("text-prime"), prompt, providerOptions: { grid: { reasoningEffort: "low" } },
  });
  assert.match(told.reasoningText, /imulated/);
  note("reasoning", told.response, told.usage);
}

async function errors() {
  for (const [key, model, status] of [
    ["sk-nobody", "text-prime", 401], [CASE.key, "gpt-5.2", 404],
  ]) {
    await assert.rejects(
      generateText({ model: provider(key)(model), prompt, maxRetries: 0 }),
      (error) => error.statusCode === status && error.message.length > 5,
    );
  }
}

async function langchain() {
  const model = new ChatOpenAI({ model: "text-prime", apiKey: CASE.key, configuration: { baseURL: CASE.base_url } });
  const told = await model.invoke(prompt);
  assert.match(told.content, /imulated/);
  const counts = (usage) => ({ inputTokens: usage.input_tokens, outputTokens: usage.output_tokens });
  note("langchain", told, counts(told.usage_metadata));
  let whole;
  for await (const chunk of await model.stream(prompt)) whole = whole ? whole.concat(chunk) : chunk;
  assert.match(whole.content, /imulated/);
  note("langchain streamed", whole, counts(whole.usage_metadata));
}

await whole();
await streamed(true);
await streamed(false);
await aToolLoop();
await aStreamedToolCall();
await anObject();
await thoughts();
await errors();
await langchain();
console.log(JSON.stringify({ sdk: "ai 6, @langchain/openai 1", calls }));
