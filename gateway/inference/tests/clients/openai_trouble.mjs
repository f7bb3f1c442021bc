// The official OpenAI SDK for Node.js, unmodified, while the suppliers fail. See openai_trouble.py beside this.

import assert from "node:assert/strict";
import OpenAI from "openai";

const CASE = JSON.parse(process.env.CASE);
const ask = { model: "text-prime", messages: [{ role: "user", content: "What is a spot market?" }] };
const long = { ...ask, stream: true, metadata: { simulate_completion_tokens: "4000" } };
let tries = 0;
const counted = (...request) => {
  tries += 1;
  return fetch(...request);
};
const client = (more = {}) => new OpenAI({ baseURL: CASE.base_url, apiKey: CASE.key, fetch: counted, ...more });

async function fail(faults) {
  for (const url of CASE.controls) {
    const answer = await fetch(url, { method: "POST", body: JSON.stringify(faults) });
    assert.equal(answer.status, 200, await answer.text());
  }
}

async function heal() {
  await fail({});
  // Answers close every breaker that may be open.
  for (const _ of CASE.controls) await client({ maxRetries: 10 }).chat.completions.create(ask);
}

async function whatCanSucceedIsTriedAgain() {
  await fail({ status: 500, next_requests: 3 });
  tries = 0;
  const answer = await client({ maxRetries: 3 }).chat.completions.create(ask);
  assert.match(answer.choices[0].message.content, /imulated/);
  assert.ok(tries >= 2, String(tries));
  await heal();
}

async function whatCannotIsNot() {
  for (const [more, kind] of [
    [{ temperature: 9 }, OpenAI.UnprocessableEntityError],
    [{ model: "gpt-5.2" }, OpenAI.NotFoundError],
    [{ top_logprobs: 3 }, OpenAI.UnprocessableEntityError],
  ]) {
    tries = 0;
    await assert.rejects(client().chat.completions.create({ ...ask, ...more }), (error) => {
      assert.ok(error instanceof kind, error);
      assert.equal(error.requestID, error.headers.get("x-grid-request-id"));
      assert.ok(error.code && error.param && error.type, JSON.stringify(error.error));
      return true;
    });
    assert.equal(tries, 1);
  }
}

async function nobodyDelivers() {
  await fail({ status: 500 });
  await assert.rejects(client({ maxRetries: 0 }).chat.completions.create(ask), (error) => {
    assert.equal(error.status, 503);
    assert.equal(error.headers.get("x-should-retry"), "true");
    assert.ok(Number(error.headers.get("retry-after")) >= 1);
    return error instanceof OpenAI.InternalServerError;
  });
  await heal();
}

async function aTimeoutEndsTheCall() {
  await fail({ stall_before_headers_ms: 60000 });
  await assert.rejects(
    client({ maxRetries: 0, timeout: 500 }).chat.completions.create(ask),
    (error) => error instanceof OpenAI.APIConnectionTimeoutError,
  );
  await heal();
}

async function aStreamThatBreaksSaysSo() {
  await fail({ die_after_tokens: 5 });
  const pieces = [];
  const read = async () => {
    for await (const chunk of await client().chat.completions.create({ ...ask, stream: true })) {
      pieces.push(...chunk.choices.map((choice) => choice.delta.content).filter(Boolean));
    }
  };
  await assert.rejects(read(), (error) => {
    assert.equal(error.code, "supplier_failed");
    return error instanceof OpenAI.APIError;
  });
  assert.equal(pieces.length, 5);
  await heal();
}

async function aStreamMayBeLeft() {
  await fail({ stall_after_tokens: 5 });
  for (const leave of ["break", "abort"]) {
    const stream = await client().chat.completions.create(long);
    let got = 0;
    for await (const _ of stream) {
      got += 1;
      if (got < 4) continue;
      if (leave === "break") break;
      stream.controller.abort();
    }
    assert.ok(got >= 4);
  }
  await heal();
}

await whatCanSucceedIsTriedAgain();
await whatCannotIsNot();
await nobodyDelivers();
await aTimeoutEndsTheCall();
await aStreamThatBreaksSaysSo();
await aStreamMayBeLeft();
console.log(JSON.stringify({ sdk: "openai (node)", done: true }));
