// The official Anthropic SDK for Node.js, unmodified, while the suppliers fail. See anthropic_trouble.py beside this.

import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";

const CASE = JSON.parse(process.env.CASE);
const ask = { model: "text-prime", max_tokens: 400, messages: [{ role: "user", content: "What is a spot market?" }] };
let tries = 0;
const counted = (...request) => {
  tries += 1;
  return fetch(...request);
};
const client = (more = {}) =>
  new Anthropic({ baseURL: CASE.base_url.replace(/\/v1$/, ""), apiKey: CASE.key, fetch: counted, ...more });

async function fail(faults) {
  for (const url of CASE.controls) {
    const answer = await fetch(url, { method: "POST", body: JSON.stringify(faults) });
    assert.equal(answer.status, 200, await answer.text());
  }
}

async function heal() {
  await fail({});
  // Answers close every breaker that may be open.
  for (const _ of CASE.controls) await client({ maxRetries: 10 }).messages.create(ask);
}

async function whatCanSucceedIsTriedAgain() {
  // More failures than the tier repairs by itself, fewer than open a breaker.
  await fail({ status: 500, next_requests: 3 });
  tries = 0;
  const answer = await client({ maxRetries: 5 }).messages.create(ask);
  assert.match(answer.content[0].text, /imulated/);
  assert.ok(tries >= 2, String(tries));
  await heal();
  for (const status of [429, 529, 503]) {
    await fail({ status, retry_after_s: 1, next_requests: 2 });
    assert.match((await client({ maxRetries: 10 }).messages.create(ask)).content[0].text, /imulated/);
    await heal();
  }
}

async function whatCannotIsNot() {
  for (const [more, kind] of [
    [{ temperature: 9 }, Anthropic.UnprocessableEntityError],
    [{ model: "claude-opus-9" }, Anthropic.NotFoundError],
    [{ max_tokens: 0 }, Anthropic.BadRequestError],
  ]) {
    tries = 0;
    await assert.rejects(client().messages.create({ ...ask, ...more }), (error) => {
      assert.ok(error instanceof kind, error);
      assert.equal(error.requestID, error.headers.get("x-grid-request-id"));
      return true;
    });
    assert.equal(tries, 1);
  }
}

async function nobodyDelivers() {
  await fail({ status: 500 });
  await assert.rejects(client({ maxRetries: 0 }).messages.create(ask), (error) => {
    assert.equal(error.status, 503);
    assert.equal(error.headers.get("x-should-retry"), "true");
    assert.ok(Number(error.headers.get("retry-after")) >= 1);
    return error instanceof Anthropic.InternalServerError;
  });
  await heal();
}

async function aTimeoutEndsTheCall() {
  await fail({ stall_before_headers_ms: 60000 });
  await assert.rejects(
    client({ maxRetries: 0, timeout: 500 }).messages.create(ask),
    (error) => error instanceof Anthropic.APIConnectionTimeoutError,
  );
  await heal();
}

async function aStreamThatBreaksSaysSo() {
  await fail({ die_after_tokens: 5 });
  const pieces = [];
  const read = async () => {
    for await (const event of await client().messages.create({ ...ask, stream: true })) {
      if (event.type === "content_block_delta") pieces.push(event.delta.text);
    }
  };
  await assert.rejects(read(), (error) => error instanceof Anthropic.APIError);
  assert.equal(pieces.length, 5);
  await heal();
}

async function aStreamMayBeLeft() {
  await fail({ stall_after_tokens: 5 });
  for (const leave of ["break", "abort"]) {
    const stream = await client().messages.create({ ...ask, stream: true });
    let got = 0;
    for await (const event of stream) {
      if (event.type !== "content_block_delta") continue;
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
console.log(JSON.stringify({ sdk: "anthropic (node)", done: true }));
