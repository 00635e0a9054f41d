// Acks of deliveries from a fake relay, the bounds of memory, and how deliveries end.

import assert from "node:assert/strict";
import { item, numberOf, refuse } from "./fake.mjs";
import {
  eventually,
  failing,
  failsWith,
  hurriedly,
  isPending,
  numbers,
  push,
  take,
  testWithRelay,
} from "./helpers.mjs";

/** Where a test would wait for seconds, timers are so many times as fast. */
const HURRY = 10;

testWithRelay(
  "a message without an ack comes again in the next session, and in no other",
  async ({ relay, client }) => {
    push(relay, item("alice", 1), item("alice", 2));
    const first = client.deliveries("alice");
    const [one] = await take(first, 1);
    await one.ack();
    await take(first, 1);
    assert.ok(await isPending(first.next()));
    await first.return();
    assert.deepEqual((await take(client.deliveries("alice"), 1)).map(numberOf), [2]);
  },
);

testWithRelay("acks go together", async ({ relay, client }) => {
  push(relay, ...numbers(10).map((number) => item("alice", number)));
  const messages = await take(client.deliveries("alice"), 10);
  await Promise.all(messages.map((message) => message.ack()));
  assert.deepEqual(
    relay.to("/ack").map(({ body }) => body.ack.length),
    [10],
  );
});

testWithRelay(
  "an ack has no more entries than it may, and a message may need several",
  async ({ relay, client }) => {
    const chunks = numbers(10).map((number) =>
      item("alice", 1, { index: number - 1, count: 10, payload: "x" }),
    );
    push(relay, ...chunks, item("alice", 2));
    const messages = await take(client.deliveries("alice"), 2);
    await Promise.all(messages.map((message) => message.ack()));
    assert.deepEqual(
      relay.to("/ack").map(({ body }) => body.ack.length),
      [4, 4, 3],
    );
    assert.deepEqual(relay.items, []);
  },
  { options: { ackMax: 4 } },
);

testWithRelay(
  "an ack of several requests is confirmed with the last",
  async ({ relay, client }) => {
    push(
      relay,
      item("alice", 1, { index: 0, count: 2, payload: "x" }),
      item("alice", 1, { index: 1, count: 2, payload: "x" }),
    );
    const [message] = await take(client.deliveries("alice"), 1);
    let isHeld = true;
    relay.fault = (request) => {
      if (request.path !== "/ack" || relay.items.length === 2 || !isHeld) return undefined;
      return refuse(request, 503, "storage_error", { retry_after_ms: 1 });
    };
    const acked = message.ack();
    await eventually(() => relay.items.length === 1);
    assert.ok(await isPending(acked));
    isHeld = false;
    await acked;
    assert.deepEqual(relay.items, []);
  },
  { options: { ackMax: 1 } },
);

testWithRelay("an ack is repeated for ever, and asked for twice is sent once", async ({ relay, client }) => {
  push(relay, item("alice", 1));
  relay.fault = failing("/ack", 4, (request) => refuse(request, 503, "storage_error", { retry_after_ms: 1 }));
  const [message] = await take(client.deliveries("alice"), 1);
  await Promise.all([message.ack(), message.ack()]);
  await message.ack();
  assert.equal(relay.to("/ack").length, 5);
});

testWithRelay("an ack that is refused says so, and may be tried again", async ({ relay, client }) => {
  push(relay, item("alice", 1));
  relay.fault = failing("/ack", 1, (request) => refuse(request, 403, "forbidden"));
  const [message] = await take(client.deliveries("alice"), 1);
  await failsWith(message.ack(), "forbidden");
  await message.ack();
  assert.deepEqual(relay.items, []);
});

testWithRelay(
  "too many messages without an ack stop the pulls",
  async ({ relay, client }) => {
    relay.pageItems = 1;
    push(relay, ...numbers(6).map((number) => item("alice", number)));
    const deliveries = client.deliveries("alice");
    const messages = await take(deliveries, 4);
    const next = take(deliveries, 2);
    assert.ok(await isPending(next));
    assert.equal(relay.to("/pull").length, 4);
    for (const message of messages) await message.ack();
    assert.deepEqual((await next).map(numberOf), [5, 6]);
  },
  { options: { unackedMax: 3 } },
);

testWithRelay(
  "too many bytes without an ack stop the pulls",
  async ({ relay, client }) => {
    relay.pageItems = 1;
    push(relay, ...numbers(4).map((number) => item("alice", number, { payload: "x".repeat(100) })));
    const deliveries = client.deliveries("alice", null, { transport: "stream" });
    const messages = await take(deliveries, 2);
    const next = take(deliveries, 1);
    assert.ok(await isPending(next));
    // Before it is confirmed: the application has no use for the bytes any more.
    relay.fault = ({ path }) => path === "/ack";
    void messages[0].ack();
    assert.deepEqual((await next).map(numberOf), [3]);
    relay.fault = () => undefined;
  },
  { options: { memoryBytes: 150, requestTimeoutMs: 500 } },
);

testWithRelay(
  "messages that did not fit into memory together come after another reading",
  async ({ relay, client }) => {
    const big = (number, index) =>
      item("alice", number, { index, count: 4, payload: `${number}`.repeat(100) });
    push(relay, ...[0, 1, 2, 3].flatMap((index) => [big(1, index), big(2, index)]));
    const messages = await take(client.deliveries("alice"), 2);
    assert.deepEqual(messages.map(numberOf).sort(), [1, 2]);
    assert.ok(messages.every(({ payload }) => payload.length === 400));
  },
  { options: { memoryBytes: 500 } },
);

testWithRelay(
  "a queue whose unfinished messages never fit is read again less and less often",
  async ({ relay, client }) => {
    const half = (number) => item("alice", number, { count: 2, payload: "x".repeat(300), total: 600 });
    push(relay, half(1), half(2), half(3));
    const { now } = performance;
    let laterMs = 0;
    performance.now = () => now.call(performance) + laterMs;
    const readings = () => relay.to("/pull").filter(({ body }) => body.cursor === undefined).length;
    try {
      const next = take(client.deliveries("alice"), 1);
      await eventually(() => readings() === 2);
      // The second reading has ended.
      await eventually(() => relay.to("/pull").at(-1).body.cursor !== undefined);
      for (const [seconds, count] of [
        [61, 2],
        [60, 3],
        [200, 3],
        [41, 4],
      ]) {
        laterMs += seconds * 1_000;
        const pulls = relay.to("/pull").length;
        await eventually(() => relay.to("/pull").length > pulls + 3);
        assert.equal(readings(), count, `after ${seconds} s more`);
      }
      push(relay, item("alice", 4));
      await next;
    } finally {
      performance.now = now;
    }
  },
  { options: { memoryBytes: 700, waitMs: 20 } },
);

testWithRelay(
  "what is never handed out is reported, and stays",
  async ({ relay, client }) => {
    const skipped = [];
    const onSkipped = (messageId, reason) => skipped.push([numberOf({ messageId }), reason]);
    push(relay, item("alice", 1, { index: 0, count: 2, payload: "x".repeat(300) }));
    push(relay, item("alice", 2, { index: 0, count: 70_000, payload: "x", total: 5 }));
    push(relay, item("alice", 3, { index: 0, count: 2, payload: "x" }), item("alice", 4));
    const deliveries = client.deliveries("alice", null, { onSkipped });
    await take(deliveries, 1);
    const next = deliveries.next();
    await eventually(() => skipped.length === 3);
    assert.deepEqual(skipped, [
      [1, "too_large"],
      [2, "malformed"],
      [3, "incomplete"],
    ]);
    assert.equal(relay.items.length, 4);
    await deliveries.return();
    assert.equal((await next).done, true);
  },
  { options: { memoryBytes: 500, partialAgeMs: 100, waitMs: 20_000 } },
);

testWithRelay(
  "close ends a wait and sends the acks",
  async ({ relay, client }) => {
    for (const transport of ["wait", "stream"]) {
      push(relay, item("alice", 1));
      const deliveries = client.deliveries("alice", null, { transport });
      const [message] = await take(deliveries, 1);
      const next = deliveries.next();
      assert.ok(await isPending(next));
      const acked = message.ack();
      await deliveries.close();
      await acked;
      assert.equal((await next).done, true);
      assert.deepEqual(relay.items, []);
    }
  },
  { options: { ackDelayMs: 10_000, waitMs: 20_000 } },
);

testWithRelay("an ack after the end is still sent", async ({ relay, client }) => {
  push(relay, item("alice", 1));
  let kept;
  for await (const message of client.deliveries("alice")) {
    kept = message;
    break;
  }
  await kept.ack();
  assert.deepEqual(relay.items, []);
});

testWithRelay(
  "close gives up acks after five seconds, and nobody has to look at their error",
  async ({ relay, client }) => {
    push(relay, item("alice", 1));
    const [message] = await take(client.deliveries("alice"), 1);
    relay.fault = ({ path }) => path === "/ack";
    const failed = failsWith(message.ack(), "closed");
    void message.ack();
    const start = performance.now();
    await hurriedly(HURRY, () => client.close());
    const ms = (performance.now() - start) * HURRY;
    assert.ok(ms > 4_000 && ms < 15_000, `${ms}`);
    await failed;
  },
);

testWithRelay("deliveries of a closed client are at their end", async ({ client }) => {
  await client.close();
  assert.equal((await client.deliveries("alice").next()).done, true);
});
