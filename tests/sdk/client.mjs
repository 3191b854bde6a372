// What an app does with the official OpenAI SDK for Node: the behaviours of client.py, by the same names.

import assert from "node:assert/strict";
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { VERSION } from "openai/version";
import { z } from "zod";

const MODEL = "gpt-4o-mini";
const TEXT = "Say it as it is: na\u00efve \u2028 \u{1f642}, word by word.";
const MESSAGES = [{ role: "user", content: TEXT }];
const WEATHER = {
  type: "function",
  function: {
    name: "weather",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
};
const Person = z.object({ name: z.string(), age: z.int() });

async function all(stream) {
  const chunks = [];
  for await (const chunk of await stream) chunks.push(chunk);
  return chunks;
}

const said = (chunks) => chunks.map((chunk) => chunk.choices[0]?.delta?.content ?? "");

// The error that asking `model` raises, whole and streamed; it must be exactly a `kind`.
async function raises(client, kind, model, status, body = {}, options = {}) {
  let found;
  for (const stream of [false, true]) {
    const asked = { model, messages: MESSAGES, stream, ...body };
    try {
      const answer = await client.chat.completions.create(asked, options);
      if (stream) await all(answer);
      found = undefined;
    } catch (error) {
      found = error;
    }
    assert(found, `no error with stream=${stream}`);
    assert.equal(found.constructor.name, kind.name, String(found));
    assert.equal(found.status, status);
    if (status) assert(found.requestID);
  }
  return found;
}

const BEHAVIOURS = {
  async answers_whole(client) {
    const answer = await client.chat.completions.create({ model: MODEL, messages: MESSAGES });
    assert.equal(answer.choices[0].message.content, TEXT);
    assert.equal(answer.choices[0].finish_reason, "stop");
    assert(answer.usage.total_tokens > 0);
  },

  async streams_word_by_word(client) {
    const chunks = await all(client.chat.completions.create({ model: MODEL, messages: MESSAGES, stream: true }));
    assert.equal(said(chunks).join(""), TEXT);
    assert(said(chunks).filter(Boolean).length > 5);
    assert.equal(chunks.at(-1).choices[0].finish_reason, "stop");
    assert(!chunks.some((chunk) => chunk.usage));
  },

  async streams_usage_when_asked(client) {
    const asked = { model: MODEL, messages: MESSAGES, stream: true, stream_options: { include_usage: true } };
    const last = (await all(client.chat.completions.create(asked))).at(-1);
    assert.deepEqual(last.choices, []);
    assert(last.usage.completion_tokens > 0);
  },

  async leaves_a_stream_early(client) {
    const asked = { model: "flaky/fault/stall-after-3", messages: MESSAGES, stream: true };
    for await (const _ of await client.chat.completions.create(asked)) break;
    await BEHAVIOURS.answers_whole(client);
  },

  async serves_many_at_once(client) {
    const texts = Array.from({ length: 20 }, (_, i) => `this is ${i}`);
    const ask = (text) => ({ model: MODEL, messages: [{ role: "user", content: text }] });
    const whole = texts.map(async (text) => {
      return (await client.chat.completions.create(ask(text))).choices[0].message.content;
    });
    const streamed = texts.map(async (text) => {
      return said(await all(client.chat.completions.create({ ...ask(text), stream: true }))).join("");
    });
    assert.deepEqual(await Promise.all([...whole, ...streamed]), [...texts, ...texts]);
  },

  async calls_a_tool_and_back(client) {
    const first = await client.chat.completions.create({ model: MODEL, messages: MESSAGES, tools: [WEATHER] });
    const { message, finish_reason } = first.choices[0];
    assert.equal(finish_reason, "tool_calls");
    const [call] = message.tool_calls;
    assert.deepEqual(Object.keys(JSON.parse(call.function.arguments)), ["city"]);
    const history = [...MESSAGES, message, { role: "tool", tool_call_id: call.id, content: "rain" }];
    const second = await client.chat.completions.create({ model: MODEL, messages: history, tools: [WEATHER] });
    assert.match(second.choices[0].message.content, /rain/);
  },

  async streams_a_tool_call(client) {
    const asked = { model: MODEL, messages: MESSAGES, tools: [WEATHER], stream: true };
    const parts = (await all(client.chat.completions.create(asked)))
      .flatMap((chunk) => chunk.choices)
      .flatMap((choice) => choice.delta.tool_calls ?? []);
    assert.deepEqual(parts.map((part) => part.function.name).filter(Boolean), ["weather"]);
    const joined = parts.map((part) => part.function.arguments ?? "").join("");
    assert.deepEqual(Object.keys(JSON.parse(joined)), ["city"]);
  },

  async shows_headers(client) {
    const asked = client.chat.completions.create({ model: MODEL, messages: MESSAGES });
    const { data, response, request_id } = await asked.withResponse();
    assert.match(response.headers.get("x-sidecar-upstream"), /\//);
    assert.equal(response.headers.get("x-sidecar-attempts"), "1");
    assert.match(response.headers.get("server-timing"), /proxy;dur=/);
    assert.equal(data.choices[0].message.content, TEXT);
    assert(request_id);
    assert.equal(request_id, response.headers.get("x-request-id"));
  },

  async parses_into_a_model(client) {
    const response_format = zodResponseFormat(Person, "person");
    const answer = await client.chat.completions.parse({ model: MODEL, messages: MESSAGES, response_format });
    Person.parse(answer.choices[0].message.parsed);
  },

  async helps_with_streams(client) {
    const stream = client.chat.completions.stream({ model: MODEL, messages: MESSAGES });
    const heard = [];
    stream.on("content", (delta) => heard.push(delta));
    const final = await stream.finalChatCompletion();
    assert.equal(heard.join(""), TEXT);
    assert.equal(final.choices[0].message.content, TEXT);
  },

  async lists_models(client) {
    const names = (await all(client.models.list())).map((model) => model.id);
    for (const name of ["demo", "swift/echo"]) assert(names.includes(name));
    for (const name of names) assert.equal((await client.models.retrieve(name)).id, name);
  },

  async raises_bad_request(client) {
    const { BadRequestError } = OpenAI;
    assert.equal((await raises(client, BadRequestError, "flaky/fault/400", 400)).code, "invalid_value");
    const error = await raises(client, BadRequestError, "flaky/fault/400-context", 400);
    assert.equal(error.code, "context_length_exceeded");
    assert((await raises(client, BadRequestError, MODEL, 400, { temperature: "hot" })).param);
  },

  async raises_authentication(client) {
    const wrong = client.withOptions({ apiKey: "wrong" });
    assert.equal((await raises(wrong, OpenAI.AuthenticationError, MODEL, 401)).code, "invalid_api_key");
  },

  async raises_permission_denied(client) {
    const foreign = { headers: { origin: "https://example.com" } };
    const error = await raises(client, OpenAI.PermissionDeniedError, MODEL, 403, {}, foreign);
    assert.equal(error.code, "forbidden_origin");
  },

  async raises_not_found(client) {
    for (const model of ["no-such-model", "flaky/fault/404"]) {
      assert.equal((await raises(client, OpenAI.NotFoundError, model, 404)).code, "model_not_found");
    }
  },

  async raises_rate_limit(client) {
    const once = client.withOptions({ maxRetries: 0 });
    const error = await raises(once, OpenAI.RateLimitError, "flaky/fault/429", 429);
    assert.equal(error.code, "rate_limit_exceeded");
    assert(Number(error.headers.get("retry-after")) > 0);
    const quota = await raises(once, OpenAI.RateLimitError, "flaky/fault/429-quota", 429);
    assert.equal(quota.code, "insufficient_quota");
  },

  async raises_internal_server_error(client) {
    const once = client.withOptions({ maxRetries: 0 });
    const expected = { "flaky/fault/500": 500, "flaky/fault/html": 502, "flaky/fault/401": 502 };
    for (const [model, status] of Object.entries({ ...expected, "flaky/fault/503": 503, impatient: 504 })) {
      await raises(once, OpenAI.InternalServerError, model, status);
    }
  },

  async raises_in_mid_stream(client) {
    for (const fault of ["error-after-3", "cut-after-3", "garbage-after-3"]) {
      const heard = [];
      let found;
      try {
        const asked = { model: `flaky/fault/${fault}`, messages: MESSAGES, stream: true };
        for await (const chunk of await client.chat.completions.create(asked)) heard.push(...said([chunk]));
      } catch (error) {
        found = error;
      }
      assert(found, `${fault}: the stream just ended`);
      assert.equal(found.constructor.name, "APIError", fault);
      assert(found.code, fault);
      assert(heard.join(""), fault);
    }
  },

  async raises_timeout(client) {
    const hurried = client.withOptions({ timeout: 300, maxRetries: 0 });
    await raises(hurried, OpenAI.APIConnectionTimeoutError, "flaky/fault/hang", undefined);
  },

  async asks_a_dead_chain_once(client) {
    await raises(client.withOptions({ maxRetries: 2 }), OpenAI.InternalServerError, "doomed", 500);
  },

  async retries_what_heals(client) {
    const patient = client.withOptions({ maxRetries: 3 });
    const answer = await patient.chat.completions.create({ model: "healing", messages: MESSAGES });
    assert.equal(answer.choices[0].message.content, "healed");
  },
};

console.log(JSON.stringify({ version: VERSION }));
for (const [name, behaviour] of Object.entries(BEHAVIOURS)) {
  let problem = null;
  try {
    await behaviour(new OpenAI());
  } catch (error) {
    problem = error.stack;
  }
  console.log(JSON.stringify({ name, problem }));
}
process.exit(0);
