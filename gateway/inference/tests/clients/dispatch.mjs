// The official OpenAI SDK for Node.js, unmodified, sent on to another node. See dispatch.py beside this.

import OpenAI from "openai";

const CASE = JSON.parse(process.env.CASE);
const ask = { model: "text-prime", messages: [{ role: "user", content: "What is a spot market?" }] };
const client = new OpenAI({ baseURL: CASE.base_url, apiKey: CASE.key, maxRetries: 0 });

const whole = (await client.chat.completions.create(ask)).choices[0].message.content;
let streamed = "";
for await (const chunk of await client.chat.completions.create({ ...ask, stream: true })) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
}
console.log(JSON.stringify({ texts: [whole, streamed] }));
