// The official OpenAI SDK for Node.js, unmodified, whose calls are sent on to another node. See sent_on.py beside this.

import OpenAI from "openai";

const CASE = JSON.parse(process.env.CASE);
const ask = { model: CASE.model, max_tokens: 60, messages: [{ role: "user", content: "What is a spot market?" }] };
const client = new OpenAI({ baseURL: CASE.base_url, apiKey: CASE.key, maxRetries: 0 });
const from = (response) => ({ url: response.url, request: response.headers.get("x-grid-request-id") });
const calls = [];

const whole = await client.chat.completions.create(ask).withResponse();
const { choices, usage } = whole.data;
calls.push({ ...from(whole.response), text: choices[0].message.content, total: usage.total_tokens });

const streamed = await client.chat.completions
  .create({ ...ask, stream: true, stream_options: { include_usage: true } })
  .withResponse();
let [text, total] = ["", 0];
for await (const chunk of streamed.data) {
  text += chunk.choices[0]?.delta?.content ?? "";
  total = chunk.usage?.total_tokens ?? total;
}
calls.push({ ...from(streamed.response), text, total });
console.log(JSON.stringify({ calls }));
