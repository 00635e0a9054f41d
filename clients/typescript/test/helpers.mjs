// What the tests share: a fake relay and a client that end with their test, and bounded waits.

import assert from "node:assert/strict";
import { test as nodeTest } from "node:test";
import { Client, RelayError } from "../dist/index.js";
import { FakeRelay } from "./fake.mjs";

/** No test may take longer. */
const TIMEOUT_MS = 60_000;

/** Options under which tests do not wait long. */
export const QUICK = { waitMs: 1_000, pollIntervalMs: 20, ackDelayMs: 5, requestTimeoutMs: 15_000 };

export function test(name, run) {
  nodeTest(name, { timeout: TIMEOUT_MS }, run);
}

/** A test with a fake relay and a client of it. `connect` makes other clients. */
export function testWithRelay(name, run, { options = {}, ...kind } = {}) {
  test(name, async () => {
    const relay = await FakeRelay.start(kind);
    const clients = [];
    const connect = (own = {}, url = relay.url) => {
      clients.push(new Client(url, { ...QUICK, ...options, ...own }));
      return clients.at(-1);
    };
    try {
      await run({ relay, client: connect(), connect });
    } finally {
      await Promise.all(clients.map((client) => client.close()));
      await relay.stop();
    }
  });
}

/** The next messages, this many. */
export async function take(deliveries, count) {
  const taken = [];
  while (taken.length < count) {
    const { done, value } = await deliveries.next();
    assert.ok(!done, "the deliveries ended");
    taken.push(value);
  }
  return taken;
}

export async function eventually(isSo, ms = 5_000) {
  const until = Date.now() + ms;
  while (!isSo()) {
    assert.ok(Date.now() < until, `not so after ${ms} ms: ${isSo}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Whether nothing comes of a promise for this long. */
export async function isPending(promise, ms = 100) {
  const pending = Symbol("pending");
  const timer = new Promise((resolve) => setTimeout(resolve, ms, pending));
  return (await Promise.race([promise, timer])) === pending;
}

export async function failsWith(promise, code) {
  const error = await promise.then(
    () => assert.fail("no error"),
    (thrown) => thrown,
  );
  assert.ok(error instanceof RelayError, String(error));
  assert.equal(error.code, code);
  return error;
}

export function text(message) {
  return Buffer.from(message.payload).toString();
}

/** Runs this with timers of the client that are so many times as fast. */
export async function hurriedly(factor, run) {
  const { setTimeout } = globalThis;
  globalThis.setTimeout = (call, ms, ...rest) => setTimeout(call, ms / factor, ...rest);
  try {
    return await run();
  } finally {
    globalThis.setTimeout = setTimeout;
  }
}

/** A fault of requests to this path, the first times. */
export function failing(path, times, answer) {
  let count = 0;
  return (request) => (request.path === path && count++ < times ? answer(request) : undefined);
}

/** Runs this for `first`, `first + step` and so on to before `count`, some at a time. */
export async function forEach(count, run, first = 0, step = 1) {
  const all = Array.from({ length: count }, (_, at) => at);
  const numbers = all.filter((at) => at % step === first);
  while (numbers.length > 0) await Promise.all(numbers.splice(0, 64).map(run));
}

/** Puts items into the queues of a fake relay. */
export function push(relay, ...items) {
  for (const own of items) relay.put(own);
}

/** The numbers from 1 to this. */
export function numbers(count) {
  return Array.from({ length: count }, (_, at) => at + 1);
}
