// The Vercel AI SDK and LangChain.js, unmodified, while the suppliers fail. See frameworks_trouble.py beside this.

import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { ChatOpenAI } from "@langchain/openai";
import { generateText, streamText } from "ai";
import OpenAI from "openai";

const CASE = JSON.parse(process.env.CASE);
const prompt = "What is a spot market?";
const grid = createOpenAICompatible({ name: "grid", baseURL: CASE.base_url, apiKey: CASE.key });
const model = grid("text-prime");
const chain = (more = {}) =>
  new ChatOpenAI({ model: "text-prime", apiKey: CASE.key, configuration: { baseURL: CASE.base_url }, ...more });

async function fail(faults) {
  for (const url of CASE.controls) {
    const answer = await fetch(url, { method: "POST", body: JSON.stringify(faults) });
    assert.equal(answer.status, 200, await answer.text());
  }
}

async function heal() {
  await fail({});
  // Answers close every breaker that may be open.
  const plain = new OpenAI({ baseURL: CASE.base_url, apiKey: CASE.key, maxRetries: 10 });
  const messages = [{ role: "user", content: prompt }];
  for (const _ of CASE.controls) await plain.chat.completions.create({ model: "text-prime", messages });
}

async function whatCanSucceedIsTriedAgain() {
  // More failures than the tier repairs by itself, fewer than open a breaker.
  await fail({ status: 500, next_requests: 3 });
  assert.match((await generateText({ model, prompt, maxRetries: 5 })).text, /imulated/);
  await heal();
  await fail({ status: 500, next_requests: 3 });
  assert.match((await chain({ maxRetries: 5 }).invoke(prompt)).content, /imulated/);
  await heal();
}

async function nobodyDelivers() {
  await fail({ status: 500 });
  await assert.rejects(generateText({ model, prompt, maxRetries: 0 }), (error) => {
    assert.equal(error.statusCode, 503, error);
    return error.isRetryable;
  });
  await assert.rejects(chain({ maxRetries: 0 }).invoke(prompt), (error) => error.status === 503);
  await heal();
}

async function streamsThatBreakSaySo() {
  await fail({ die_after_tokens: 5 });
  const kinds = [];
  const told = streamText({ model, prompt, maxRetries: 0, onError: () => {} });
  for await (const part of told.fullStream) kinds.push(part.type);
  assert.equal(kinds.filter((kind) => kind === "text-delta").length, 5, String(kinds));
  assert.ok(kinds.includes("error"), String(kinds));
  await assert.rejects(async () => {
    for await (const _ of await chain({ maxRetries: 0 }).stream(prompt));
  });
  await heal();
}

async function streamsMayBeLeft() {
  await fail({ stall_after_tokens: 5 });
  const stop = new AbortController();
  const told = streamText({ model, prompt, maxRetries: 0, abortSignal: stop.signal, onError: () => {} });
  let aborted = false;
  for await (const part of told.fullStream) {
    if (part.type === "text-delta") stop.abort();
    aborted ||= part.type === "abort" || part.type === "error";
  }
  assert.ok(aborted);
  const leave = new AbortController();
  await assert.rejects(async () => {
    for await (const chunk of await chain({ maxRetries: 0 }).stream(prompt, { signal: leave.signal })) {
      if (chunk.content) leave.abort();
    }
  });
  await heal();
}

async function aTimeoutEndsTheCall() {
  await fail({ stall_before_headers_ms: 60000 });
  await assert.rejects(generateText({ model, prompt, maxRetries: 0, abortSignal: AbortSignal.timeout(500) }));
  await assert.rejects(chain({ maxRetries: 0, timeout: 500 }).invoke(prompt));
  await heal();
}

await whatCanSucceedIsTriedAgain();
await nobodyDelivers();
await streamsThatBreakSaySo();
await streamsMayBeLeft();
await aTimeoutEndsTheCall();
console.log(JSON.stringify({ sdk: "ai, langchain.js", done: true }));
