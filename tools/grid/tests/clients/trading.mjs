// The signed trading API as a stranger would write a client for it: Node.js and nothing else.

import assert from "node:assert/strict";
import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync, sign } from "node:crypto";

const CASE = JSON.parse(process.env.CASE);
const market = CASE.markets["text-prime"];
let checks = 0;

function keyOf(seed) {
  const pkcs8 = Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), Buffer.from(seed, "base64").subarray(0, 32)]);
  return createPrivateKey({ key: pkcs8, format: "der", type: "pkcs8" });
}

const publicOf = (key) => createPublicKey(key).export({ format: "der", type: "spki" }).subarray(-32);
const fingerprintOf = (key) => createHash("sha256").update(publicOf(key)).digest("base64").replace(/=+$/, "");
const seconds = () => String(Math.floor(Date.now() / 1000));

/** A request with every part of the signature open to abuse. */
async function call(account, method, path, options = {}) {
  const base = options.platform ? CASE.platform_url : CASE.trading_url;
  const url = new URL((options.prefix ?? "/v1") + path, base);
  const body = options.body === undefined ? "" : typeof options.body === "string" ? options.body : JSON.stringify(options.body);
  const time = options.time ?? seconds();
  const signed = time + method + (options.signedPath ?? url.pathname) + (options.signedBody ?? body);
  const headers = {
    "x-thegrid-timestamp": time,
    "x-thegrid-fingerprint": options.fingerprint ?? fingerprintOf(account.key),
    "x-thegrid-signature": sign(null, Buffer.from(signed), account.key).toString("base64"),
    ...options.headers,
  };
  if (body) headers["content-type"] = "application/json";
  for (const name of options.leaveOut ?? []) delete headers[name];
  const response = await fetch(url, { method, headers, body: body || undefined });
  const text = await response.text();
  let json = null;
  if (text) json = JSON.parse(text);
  checks += 1;
  return { status: response.status, json, headers: response.headers };
}

const trader = { key: keyOf(CASE.private_key) };
const easy = { key: keyOf(CASE.easy_private_key) };

async function expect(status, account, method, path, options) {
  const answer = await call(account, method, path, options);
  assert.equal(answer.status, status, `${method} ${path} ${JSON.stringify(options)}: ${answer.status} ${JSON.stringify(answer.json)}`);
  if (status >= 400) {
    assert.ok(answer.json.errors.detail, JSON.stringify(answer.json));
    assert.ok(answer.json.error.code && answer.json.error.message, JSON.stringify(answer.json));
  }
  return answer.json;
}

const order = (more = {}) => ({ market_id: market, side: "buy", type: "limit", quantity: "3", price: "0.05", time_in_force: "gtc", ...more });

async function everyGenerationOfPathsServes() {
  for (const prefix of ["/v1", "/v1/trading", "/api/v1/trading"]) {
    const placed = (await expect(201, trader, "POST", "/orders", { prefix, body: order() })).data;
    assert.equal(placed.status, "active");
    assert.equal(placed.quantity, "3");
    assert.equal(placed.price, "0.05");
    assert.match(placed.order_id, /^order[_-]/);
    const got = (await expect(200, trader, "GET", `/orders/${placed.order_id}`, { prefix })).data;
    assert.deepEqual(got, placed);
    const changed = (await expect(200, trader, "PUT", `/orders/${placed.order_id}`, { prefix, body: { quantity: 2, price: "0.06" } })).data;
    assert.equal(changed.quantity, "2");
    assert.equal(changed.price, "0.06");
    const listed = await expect(200, trader, "GET", "/orders?status=active&limit=100", { prefix });
    assert.ok(listed.data.some((row) => row.order_id === placed.order_id));
    assert.equal(typeof listed.paging.has_more, "boolean");
    const cancelled = await call(trader, "DELETE", `/orders/${placed.order_id}`, { prefix });
    assert.ok([200, 204].includes(cancelled.status), JSON.stringify(cancelled.json));
    assert.equal((await expect(200, trader, "GET", `/orders/${placed.order_id}`, { prefix })).data.status, "cancelled");
    assert.equal((await call(trader, "DELETE", `/orders/${placed.order_id}`, { prefix })).status, 409);
    for (const path of ["/markets", "/instruments", "/trades", "/trading-accounts", "/currency-trading-accounts", "/consumption-accounts"]) {
      const list = await expect(200, trader, "GET", path, { prefix });
      assert.ok(Array.isArray(list.data) && list.paging, path);
    }
  }
}

async function idsAreReadInBothSpellings() {
  const placed = (await expect(201, trader, "POST", "/orders", { body: order({ market_id: market.replace("_", "-") }) })).data;
  await expect(200, trader, "GET", `/orders/${placed.order_id.replace("_", "-")}`);
  await call(trader, "DELETE", `/orders/${placed.order_id}`);
}

async function countsAndMassCancels() {
  await expect(200, trader, "DELETE", "/orders");
  const other = CASE.markets["text-standard"];
  for (let n = 0; n < 3; n += 1) await expect(201, trader, "POST", "/orders", { body: order() });
  await expect(201, trader, "POST", "/orders", { body: order({ market_id: other, price: "0.001" }) });
  const count = (await expect(200, trader, "GET", "/orders/count")).data;
  assert.equal(count.count, 4);
  assert.equal(count.by_market.find((row) => row.market_id === market).count, 3);
  assert.equal((await expect(200, trader, "DELETE", `/markets/${market}/orders`)).data.cancelled, 3);
  assert.equal((await expect(200, trader, "DELETE", "/orders")).data.cancelled, 1);
  assert.equal((await expect(200, trader, "GET", "/orders/count")).data.count, 0);
}

async function ordersArePaged() {
  const ids = [];
  for (let n = 0; n < 5; n += 1) ids.push((await expect(201, trader, "POST", "/orders", { body: order() })).data.order_id);
  const seen = [];
  let next = "";
  do {
    const page = await expect(200, trader, "GET", `/orders?status=active&limit=2${next}`);
    assert.ok(page.data.length <= 2);
    seen.push(...page.data.map((row) => row.order_id));
    next = page.paging.has_more ? `&next=${encodeURIComponent(page.paging.next_cursor)}` : "";
  } while (next);
  assert.deepEqual(seen, ids);
  await expect(200, trader, "DELETE", "/orders");
}

async function marketDataIsThere() {
  const one = (await expect(200, trader, "GET", `/markets/${market}`)).data;
  assert.equal(one.order_controls.tick_size, "0.01");
  const bid = (await expect(201, trader, "POST", "/orders", { body: order({ price: "0.02", quantity: 7 }) })).data;
  const book = (await expect(200, trader, "GET", `/markets/${market}/orderbook?depth=100`)).data;
  assert.ok(book.sell.length > 0, "somebody sells");
  assert.equal(book.buy.find((level) => level.price === "0.02").quantity >= 7, true);
  const prices = (side) => side.map((level) => Number(level.price));
  assert.deepEqual(prices(book.buy), [...prices(book.buy)].sort((a, b) => b - a));
  assert.deepEqual(prices(book.sell), [...prices(book.sell)].sort((a, b) => a - b));
  let total = 0;
  for (const level of book.sell) assert.equal(level.total, (total += level.quantity));
  await expect(422, trader, "GET", `/markets/${market}/orderbook?depth=0`);
  const bought = (await expect(201, trader, "POST", "/orders", { body: { market_id: market, side: "buy", type: "market", quantity: 2, time_in_force: "gtc" } })).data;
  assert.equal(bought.status, "filled");
  assert.equal(bought.filled_quantity, 2);
  const ticker = (await expect(200, trader, "GET", `/markets/${market}/ticker`)).data;
  assert.ok(ticker.last_price && ticker.lowest_ask && ticker.last_trade_quantity >= 1);
  const tape = (await expect(200, trader, "GET", `/markets/${market}/trades`)).data;
  assert.ok(tape.length > 0 && !("order_id" in tape[0]) && !("trader_id" in tape[0]));
  const own = (await expect(200, trader, "GET", `/trades?order_id=${bought.order_id}`)).data;
  assert.equal(own.reduce((sum, row) => sum + row.quantity, 0), 2);
  assert.equal(own[0].side, "buy");
  assert.equal((await expect(200, trader, "GET", `/trades/${own[0].trade_id}`)).data.trade_id, own[0].trade_id);
  await call(trader, "DELETE", `/orders/${bid.order_id}`);
}

async function boughtUnitsMoveToConsumption() {
  const instrument = CASE.instruments["text-prime"];
  const rows = async (path) => (await expect(200, trader, "GET", `${path}?instrument_id=${instrument}`)).data;
  const before = (await rows("/trading-accounts"))[0];
  assert.ok(Number(before.available_balance) >= 2, JSON.stringify(before));
  const moved = await expect(200, trader, "POST", "/transfers/trading-to-consumption", { body: { instrument_id: instrument, quantity: 1 } });
  assert.equal(moved.status, "success");
  assert.match(moved.transfer_id, /^transfer/);
  assert.equal(Number((await rows("/trading-accounts"))[0].available_balance), Number(before.available_balance) - 1);
  assert.equal((await rows("/consumption-accounts"))[0].available_balance, 1);
  const history = (await expect(200, trader, "GET", "/transfer-histories")).data;
  assert.ok(history.some((row) => row.transfer_id === moved.transfer_id && row.quantity === 1));
  await expect(200, trader, "POST", "/transfers/consumption-to-trading", { body: { instrument_id: instrument, quantity: 1 } });
  await expect(400, trader, "POST", "/transfers/trading-to-consumption", { body: { instrument_id: instrument, quantity: 9999 } });
  await expect(422, trader, "POST", "/transfers/trading-to-consumption", { body: { instrument_id: instrument, quantity: 0 } });
}

async function restingOrdersLockWhatTheyMayCost() {
  const usd = async () => (await expect(200, trader, "GET", "/currency-trading-accounts")).data[0];
  const before = await usd();
  const placed = (await expect(201, trader, "POST", "/orders", { body: order({ price: "0.05", quantity: 10 }) })).data;
  const after = await usd();
  assert.equal((Number(after.locked_balance) - Number(before.locked_balance)).toFixed(9), (0.5).toFixed(9));
  assert.equal(after.total_balance, before.total_balance);
  await call(trader, "DELETE", `/orders/${placed.order_id}`);
  assert.deepEqual((await usd()).available_balance, before.available_balance);
}

async function theCallerIsKnown() {
  const me = (await expect(200, trader, "GET", "/me")).data;
  assert.equal(me.account_mode, "advanced");
  assert.equal((await expect(200, easy, "GET", "/me")).data.account_mode, "easy");
  const health = await (await fetch(new URL("/v1/health", CASE.trading_url))).json();
  assert.equal(health.data.status, "ok");
  await expect(200, trader, "GET", `/account/limits?market_id=${market}`);
  await expect(200, trader, "GET", "/positions");
}

async function aRequestIsOnlyTakenAsItWasSigned() {
  const good = order();
  const now = Math.floor(Date.now() / 1000);
  const stranger = { key: generateKeyPairSync("ed25519").privateKey };
  const table = [
    ["another body", { body: good, signedBody: JSON.stringify({ ...good, quantity: "4" }) }],
    ["a space in the body", { body: JSON.stringify(good) + " ", signedBody: JSON.stringify(good) }],
    ["another path", { body: good, signedPath: "/v1/trading/orders" }],
    ["a stale timestamp", { body: good, time: String(now - 45) }],
    ["a timestamp of the future", { body: good, time: String(now + 45) }],
    ["milliseconds", { body: good, time: String(Date.now()) }],
    ["no number", { body: good, time: "soon" }],
    ["no signature", { body: good, leaveOut: ["x-thegrid-signature"] }],
    ["no timestamp", { body: good, leaveOut: ["x-thegrid-timestamp"] }],
    ["no fingerprint", { body: good, leaveOut: ["x-thegrid-fingerprint"] }],
    ["an unknown fingerprint", { body: good, fingerprint: fingerprintOf(stranger.key) }],
    ["another's fingerprint", { body: good, fingerprint: fingerprintOf(easy.key) }],
    ["a mangled signature", { body: good, headers: { "x-thegrid-signature": "AAAA" } }],
    ["a bearer key", { body: good, leaveOut: ["x-thegrid-signature"], headers: { authorization: "Bearer x" } }],
  ];
  const count = async () => (await expect(200, trader, "GET", "/orders/count")).data.count;
  const before = await count();
  for (const [why, options] of table) {
    const answer = await call(trader, "POST", "/orders", options);
    assert.equal(answer.status, 401, `${why}: ${answer.status} ${JSON.stringify(answer.json)}`);
  }
  await expect(401, stranger, "GET", "/orders");
  assert.equal(await count(), before, "a refused request did nothing");
  // Any spacing is right as long as it is what was sent; the query is not signed; padding and alphabet don't matter.
  const spaced = JSON.stringify(good).replaceAll(",", ", ").replaceAll(":", ": ");
  const placed = (await expect(201, trader, "POST", "/orders", { body: spaced })).data;
  await expect(200, trader, "GET", "/orders?limit=1");
  await expect(200, trader, "GET", "/orders", { fingerprint: fingerprintOf(trader.key) + "=" });
  await call(trader, "DELETE", `/orders/${placed.order_id}`);
}

async function aRevokedKeyIsNoKey() {
  const fresh = { key: generateKeyPairSync("ed25519").privateKey };
  const body = { signing_key: { label: "for an hour", public_key: publicOf(fresh.key).toString("base64") } };
  const added = await call(trader, "POST", "/signing-keys", { platform: true, body });
  assert.ok([200, 201].includes(added.status), JSON.stringify(added.json));
  const key = added.json.data ?? added.json;
  assert.equal(key.fingerprint, fingerprintOf(fresh.key));
  await expect(200, fresh, "GET", "/me");
  const placed = (await expect(201, fresh, "POST", "/orders", { body: order() })).data;
  assert.equal((await call(trader, "DELETE", `/signing-keys/${key.id}`, { platform: true })).status, 204);
  await expect(401, fresh, "GET", "/me");
  await expect(401, fresh, "POST", "/orders", { body: order() });
  await expect(200, trader, "DELETE", `/orders/${placed.order_id}`);
}

async function aRevokedConsumptionKeyIsNoKey() {
  const made = await call(easy, "POST", "/api-keys", { platform: true, body: { api_key: { name: "short-lived" } } });
  assert.ok([200, 201].includes(made.status), JSON.stringify(made.json));
  const key = made.json.data ?? made.json;
  assert.ok(key.key && key.key_prefix === key.key.slice(0, 8));
  const ask = () => fetch(`${CASE.inference_url}/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${key.key}`, "content-type": "application/json" },
    body: JSON.stringify({ model: "no-such-instrument", messages: [{ role: "user", content: "hi" }] }),
  });
  assert.equal((await ask()).status, 404, "the key is good, the model is not");
  assert.equal((await call(easy, "DELETE", `/api-keys/${key.id}`, { platform: true })).status, 204);
  assert.equal((await ask()).status, 401);
}

async function autoModeReadsButDoesNotTrade() {
  const refused = await expect(403, easy, "POST", "/orders", { body: order() });
  assert.equal(refused.errors.detail, "auto_mode_trading_restricted");
  await expect(200, easy, "GET", "/orders");
  await expect(200, easy, "GET", `/markets/${market}/orderbook`);
}

async function impossibleOrdersAreRefused() {
  const table = [
    [422, { price: "0.055" }], [422, { price: "0" }], [422, { price: "-1" }], [422, { price: "0.0000000000001" }],
    [422, { price: "99999999999999999999999999" }], [422, { price: "10000000000" }],
    [422, { quantity: "0" }], [422, { quantity: "-3" }], [422, { quantity: "1.5" }],
    [422, { quantity: "18446744073709551616" }], [422, { quantity: "9223372036854775807" }], [422, { quantity: 1e30 }],
    [422, { quantity: "10001" }],
    [422, { side: "hold" }], [422, { type: "iceberg" }], [422, { time_in_force: "gtd" }],
    [404, { market_id: "market_00000000-0000-0000-0000-000000000000" }], [404, { market_id: "nonsense" }],
    [404, { market_id: CASE.instruments["text-prime"] }],
    [400, { price: undefined }], [400, { quantity: undefined }], [400, { quantity: { of: "things" } }],
    [400, { quantity: "10000", price: "9000" }],
    [422, { market_id: CASE.markets["code-prime"] }],
  ];
  const before = (await expect(200, trader, "GET", "/currency-trading-accounts")).data[0];
  for (const [status, change] of table) await expect(status, trader, "POST", "/orders", { body: order(change) });
  for (const body of ["{", "[]", "null", "\u0000", '"text"', '{"market_id":1}']) {
    const answer = await call(trader, "POST", "/orders", { body });
    assert.equal(answer.status, 400, `${body}: ${answer.status}`);
  }
  // Nobody owns text-standard units here, so nobody can sell any.
  await expect(400, trader, "POST", "/orders", { body: order({ market_id: CASE.markets["text-standard"], side: "sell", price: "0.500" }) });
  const after = (await expect(200, trader, "GET", "/currency-trading-accounts")).data[0];
  assert.equal(after.available_balance, before.available_balance);
}

async function unknownThingsAreNotFound() {
  const none = "00000000-0000-0000-0000-000000000000";
  for (const path of [
    `/orders/order_${none}`, "/orders/nonsense", `/trades/trade_${none}`, `/markets/market_${none}`,
    `/markets/market_${none}/orderbook`, `/instruments/instrument_${none}`, "/instruments/by-symbol/no-such-thing",
    `/trading-accounts/trading_account_${none}`, "/no-such-path",
  ]) await expect(404, trader, "GET", path);
  for (const method of ["PUT", "DELETE"]) {
    await expect(404, trader, method, `/orders/order_${none}`, method === "PUT" ? { body: { quantity: 1 } } : {});
  }
  const mine = (await expect(201, trader, "POST", "/orders", { body: order() })).data;
  await expect(404, easy, "GET", `/orders/${mine.order_id}`);
  await call(trader, "DELETE", `/orders/${mine.order_id}`);
}

async function aClientOrderIdIsUsedOnce() {
  const body = order({ client_order_id: `bot-${Date.now()}` });
  const first = (await expect(201, trader, "POST", "/orders", { body })).data;
  const again = await call(trader, "POST", "/orders", { body });
  assert.ok([200, 201].includes(again.status), JSON.stringify(again.json));
  assert.equal(again.json.data.order_id, first.order_id, "a repeat finds the order that it made");
  const refused = await expect(422, trader, "POST", "/orders", { body: { ...body, quantity: "4" } });
  assert.equal(refused.error.code, "DUPLICATE_CLIENT_ORDER_ID");
  await call(trader, "DELETE", `/orders/${first.order_id}`);
  const dead = await call(trader, "POST", "/orders", { body });
  assert.equal(dead.json.data.order_id, first.order_id, "not even when it is dead");
  assert.equal((await expect(200, trader, "GET", "/orders/count")).data.count, 0);
}

await everyGenerationOfPathsServes();
await idsAreReadInBothSpellings();
await countsAndMassCancels();
await ordersArePaged();
await marketDataIsThere();
await boughtUnitsMoveToConsumption();
await restingOrdersLockWhatTheyMayCost();
await theCallerIsKnown();
await aRequestIsOnlyTakenAsItWasSigned();
await aRevokedKeyIsNoKey();
await aRevokedConsumptionKeyIsNoKey();
await autoModeReadsButDoesNotTrade();
await impossibleOrdersAreRefused();
await unknownThingsAreNotFound();
await aClientOrderIdIsUsedOnce();
console.log(JSON.stringify({ checks }));
