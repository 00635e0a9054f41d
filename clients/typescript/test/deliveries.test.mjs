// Deliveries from a fake relay: order, chunks, acks, cursors, bounds, and their end.

import assert from "node:assert/strict";
import { item, numberOf, refuse } from "./fake.mjs";
import { eventually, failing, failsWith, forEach, isPending, take, testWithRelay, text } from "./helpers.mjs";

function push(relay, ...items) {
  for (const own of items) relay.put(own);
}

function numbers(count) {
  return Array.from({ length: count }, (_, at) => at + 1);
}

const WAYS = [
  ["wait", {}, {}],
  ["stream", { transport: "stream" }, {}],
  ["polling a relay of 0.0.3", {}, { isOld: true }],
];

for (const [way, delivery, kind] of WAYS) {
  testWithRelay(`messages come in order, those that wait and those to come: ${way}`, async ({ relay, client }) => {
    relay.pageItems = 3;
    push(relay, ...numbers(10).map((number) => item("alice", number)));
    const deliveries = client.deliveries("alice", null, delivery);
    const first = await take(deliveries, 10);
    assert.deepEqual(first.map(numberOf), numbers(10));
    assert.equal(text(first[4]), "message 5");
    assert.deepEqual([first[0].kind, first[0].sentMs], ["opaque", 5]);
    const next = deliveries.next();
    assert.ok(await isPending(next));
    push(relay, item("bob", 99), item("alice", 11));
    assert.equal(numberOf((await next).value), 11);
    await Promise.all(first.map((message) => message.ack()));
    assert.deepEqual(relay.items.map((own) => own.recipient), ["bob", "alice"]);
  }, kind);

  testWithRelay(`chunks are assembled, whatever their order: ${way}`, async ({ relay, client }) => {
    const chunk = (number, index) => item("alice", number, { index, count: 3, payload: `${number}.${index} ` });
    push(relay, chunk(1, 2), chunk(2, 0), item("alice", 3), chunk(2, 2), chunk(1, 0), chunk(2, 1), chunk(1, 1));
    const deliveries = client.deliveries("alice", null, delivery);
    const messages = await take(deliveries, 3);
    assert.deepEqual(messages.map(numberOf), [3, 2, 1]);
    assert.deepEqual(messages.map(text), ["message 3", "2.0 2.1 2.2 ", "1.0 1.1 1.2 "]);
    for (const message of messages) await message.ack();
    assert.deepEqual(relay.items, []);
  }, kind);

  testWithRelay(`a response that ends at any byte loses and repeats nothing: ${way}`, async ({ relay, client }) => {
    // A little more than the page.
    const count = 340;
    const isCut = new Set();
    relay.fault = ({ path, body }) => {
      const key = `${path} ${body?.recipient}`;
      if (!["/pull", "/stream", "/ack"].includes(path) || isCut.has(key)) return undefined;
      isCut.add(key);
      const cut = Number(body.recipient);
      return { cut: path === "/ack" ? cut % 40 : cut };
    };
    push(relay, ...Array.from({ length: count }, (_, cut) => item(`${cut}`, cut)));
    await forEach(count, async (cut) => {
      const deliveries = client.deliveries(`${cut}`, null, delivery);
      const [message] = await take(deliveries, 1);
      assert.equal(numberOf(message), cut);
      await message.ack();
      await deliveries.close();
    });
    assert.deepEqual(relay.items, []);
  }, kind);
}

testWithRelay("a message without an ack comes again in the next session, and in no other", async ({ relay, client }) => {
  push(relay, item("alice", 1), item("alice", 2));
  const first = client.deliveries("alice");
  const [one] = await take(first, 1);
  await one.ack();
  await take(first, 1);
  assert.ok(await isPending(first.next()));
  await first.return();
  assert.deepEqual((await take(client.deliveries("alice"), 1)).map(numberOf), [2]);
});

testWithRelay("polling a relay of 0.0.3 does not hand out a message twice", async ({ relay, client }) => {
  push(relay, item("alice", 1));
  const deliveries = client.deliveries("alice");
  const [message] = await take(deliveries, 1);
  const next = deliveries.next();
  await eventually(() => relay.to("/pull").length > 3);
  await message.ack();
  assert.ok(await isPending(next));
  assert.ok(relay.to("/pull").every(({ body }) => !("wait_ms" in body) && !("tail" in body)));
}, { isOld: true });

testWithRelay("acks go together", async ({ relay, client }) => {
  push(relay, ...numbers(10).map((number) => item("alice", number)));
  const messages = await take(client.deliveries("alice"), 10);
  await Promise.all(messages.map((message) => message.ack()));
  assert.deepEqual(relay.to("/ack").map(({ body }) => body.ack.length), [10]);
});

testWithRelay("an ack has no more entries than it may, and a message may need several", async ({ relay, client }) => {
  const chunks = numbers(10).map((number) => item("alice", 1, { index: number - 1, count: 10, payload: "x" }));
  push(relay, ...chunks, item("alice", 2));
  const messages = await take(client.deliveries("alice"), 2);
  await Promise.all(messages.map((message) => message.ack()));
  assert.deepEqual(relay.to("/ack").map(({ body }) => body.ack.length), [4, 4, 3]);
  assert.deepEqual(relay.items, []);
}, { options: { ackMax: 4 } });

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

testWithRelay("a chunk that comes again after its ack is acked again", async ({ relay, client }) => {
  push(relay, item("alice", 1));
  const deliveries = client.deliveries("alice");
  const [message] = await take(deliveries, 1);
  await message.ack();
  push(relay, item("alice", 1), item("alice", 2));
  assert.deepEqual((await take(deliveries, 1)).map(numberOf), [2]);
  await eventually(() => relay.items.length === 1);
});

testWithRelay("what is worth a retry is tried again", async ({ relay, client }) => {
  const answers = [
    (request) => refuse(request, 429, "rate_limited", { bucket: "waiting", retry_after_ms: 1 }),
    (request) => refuse(request, 503, "not_ready"),
    ({ response }) => response.writeHead(502).end("<html>"),
    ({ response }) => response.end('{"items":[{}],"next_cursor":null,"remaining_estimate":0}'),
    ({ response }) => response.destroy(),
  ];
  relay.fault = (request) => {
    if (request.path !== "/pull") return undefined;
    const answer = answers.shift();
    answer?.(request);
    return answer !== undefined;
  };
  push(relay, item("alice", 1));
  assert.deepEqual((await take(client.deliveries("alice"), 1)).map(numberOf), [1]);
});

for (const [status, code] of [[400, "invalid_input"], [401, "unauthorized"], [403, "forbidden"], [404, "not_found"]]) {
  testWithRelay(`deliveries end with ${status}`, async ({ relay, client }) => {
    relay.fault = (request) => request.path !== "/info" && refuse(request, status, code);
    for (const transport of ["wait", "stream"]) {
      const deliveries = client.deliveries("alice", null, { transport });
      await failsWith(deliveries.next(), code);
      assert.equal((await deliveries.next()).done, true);
    }
  });
}

for (const transport of ["wait", "stream"]) {
  testWithRelay(`a cursor that is refused begins the queue again: ${transport}`, async ({ relay, client }) => {
    push(relay, item("alice", 1));
    const deliveries = client.deliveries("alice", null, { transport });
    await take(deliveries, 1);
    relay.fault = (request) => {
      if (request.path === "/info" || request.body.cursor === undefined) return undefined;
      return refuse(request, 400, "invalid_input", { field: "cursor" });
    };
    for (const { response } of relay.to("/stream")) response.end();
    push(relay, item("alice", 2));
    assert.deepEqual((await take(deliveries, 1)).map(numberOf), [2]);
  });
}

testWithRelay("a stream goes on by its cursor, however it ends", async ({ relay, client }) => {
  const deliveries = client.deliveries("alice", null, { transport: "stream" });
  const ends = [(response) => response.destroy(), (response) => response.end(), (response) => response.end('{"bye":"age"}\n'),
    (response) => response.end('{"items":[{"recip')];
  for (const [number, end] of ends.entries()) {
    push(relay, item("alice", number));
    const next = take(deliveries, 1);
    assert.deepEqual((await next).map(numberOf), [number]);
    end(relay.to("/stream").at(-1).response);
  }
  push(relay, item("alice", 9));
  assert.deepEqual((await take(deliveries, 1)).map(numberOf), [9]);
  assert.deepEqual(relay.to("/stream").map(({ body }) => body.cursor), [undefined, "1", "2", "3", "4"]);
});

testWithRelay("a relay that answers waits at once is not asked all the time", async ({ relay, client }) => {
  relay.fault = ({ path, response }) => {
    if (path !== "/pull") return false;
    response.end('{"items":[],"next_cursor":null,"remaining_estimate":0}');
    return true;
  };
  assert.ok(await isPending(client.deliveries("alice").next(), 500));
  assert.ok(relay.to("/pull").length < 12, `${relay.to("/pull").length}`);
}, { options: { pollIntervalMs: 100 } });

testWithRelay("too many messages without an ack stop the pulls", async ({ relay, client }) => {
  relay.pageItems = 1;
  push(relay, ...numbers(6).map((number) => item("alice", number)));
  const deliveries = client.deliveries("alice");
  const messages = await take(deliveries, 4);
  const next = take(deliveries, 2);
  assert.ok(await isPending(next));
  assert.equal(relay.to("/pull").length, 4);
  for (const message of messages) await message.ack();
  assert.deepEqual((await next).map(numberOf), [5, 6]);
}, { options: { unackedMax: 3 } });

testWithRelay("too many bytes without an ack stop the pulls", async ({ relay, client }) => {
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
}, { options: { memoryBytes: 150, requestTimeoutMs: 500 } });

testWithRelay("messages that did not fit into memory together come after another reading", async ({ relay, client }) => {
  const big = (number, index) => item("alice", number, { index, count: 4, payload: `${number}`.repeat(100) });
  push(relay, ...[0, 1, 2, 3].flatMap((index) => [big(1, index), big(2, index)]));
  const messages = await take(client.deliveries("alice"), 2);
  assert.deepEqual(messages.map(numberOf).sort(), [1, 2]);
  assert.ok(messages.every(({ payload }) => payload.length === 400));
}, { options: { memoryBytes: 500 } });

testWithRelay("what is never handed out is reported, and stays", async ({ relay, client }) => {
  const skipped = [];
  const onSkipped = (messageId, reason) => skipped.push([numberOf({ messageId }), reason]);
  push(relay, item("alice", 1, { index: 0, count: 2, payload: "x".repeat(300) }));
  push(relay, item("alice", 2, { index: 0, count: 70_000, payload: "x", total: 5 }));
  push(relay, item("alice", 3, { index: 0, count: 2, payload: "x" }), item("alice", 4));
  const deliveries = client.deliveries("alice", null, { onSkipped });
  await take(deliveries, 1);
  const next = deliveries.next();
  await eventually(() => skipped.length === 3);
  assert.deepEqual(skipped, [[1, "too_large"], [2, "malformed"], [3, "too_old"]]);
  assert.equal(relay.items.length, 4);
  await deliveries.return();
  assert.equal((await next).done, true);
}, { options: { memoryBytes: 500, partialAgeMs: 100, waitMs: 20_000 } });

testWithRelay("close ends a wait and sends the acks", async ({ relay, client }) => {
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
}, { options: { ackDelayMs: 10_000, waitMs: 20_000 } });

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

testWithRelay("close gives up acks after five seconds, and nobody has to look at their error", async ({ relay, client }) => {
  push(relay, item("alice", 1));
  const [message] = await take(client.deliveries("alice"), 1);
  relay.fault = ({ path }) => path === "/ack";
  const failed = failsWith(message.ack(), "closed");
  void message.ack();
  const start = performance.now();
  await client.close();
  const ms = performance.now() - start;
  assert.ok(ms > 4_000 && ms < 7_000, `${ms}`);
  await failed;
});

testWithRelay("deliveries of a closed client are at their end", async ({ client }) => {
  await client.close();
  assert.equal((await client.deliveries("alice").next()).done, true);
});

testWithRelay("calls of next at the same time get one message each", async ({ relay, client }) => {
  const deliveries = client.deliveries("alice");
  const both = Promise.all([deliveries.next(), deliveries.next()]);
  push(relay, item("alice", 1), item("alice", 2));
  assert.deepEqual((await both).map(({ value }) => numberOf(value)), [1, 2]);
});

testWithRelay("one client serves many recipients", async ({ relay, client }) => {
  const all = numbers(20).map((number) => take(client.deliveries(`user ${number}`), 1));
  push(relay, ...numbers(20).map((number) => item(`user ${number}`, number)));
  assert.deepEqual((await Promise.all(all)).map(([message]) => numberOf(message)), numbers(20));
});
