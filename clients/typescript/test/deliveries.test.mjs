// Deliveries from a fake relay: order, chunks, cursors, and errors.

import assert from "node:assert/strict";
import { Connection } from "../dist/connection.js";
import { Deliveries } from "../dist/deliveries.js";
import { item, numberOf, refuse } from "./fake.mjs";
import {
  eventually,
  failsWith,
  forEach,
  isPending,
  numbers,
  push,
  take,
  testWithRelay,
  text,
} from "./helpers.mjs";

const WAYS = [
  ["wait", {}, {}],
  ["stream", { transport: "stream" }, {}],
  ["polling a relay of 0.0.3", {}, { isOld: true }],
];

for (const [at, [way, delivery, kind]] of WAYS.entries()) {
  testWithRelay(
    `messages come in order, those that wait and those to come: ${way}`,
    async ({ relay, client }) => {
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
      assert.deepEqual(
        relay.items.map((own) => own.recipient),
        ["bob", "alice"],
      );
    },
    kind,
  );

  testWithRelay(
    `chunks are assembled, whatever their order: ${way}`,
    async ({ relay, client }) => {
      const chunk = (number, index) =>
        item("alice", number, { index, count: 3, payload: `${number}.${index} ` });
      push(
        relay,
        chunk(1, 2),
        chunk(2, 0),
        item("alice", 3),
        chunk(2, 2),
        chunk(1, 0),
        chunk(2, 1),
        chunk(1, 1),
      );
      const deliveries = client.deliveries("alice", null, delivery);
      const messages = await take(deliveries, 3);
      assert.deepEqual(messages.map(numberOf), [3, 2, 1]);
      assert.deepEqual(messages.map(text), ["message 3", "2.0 2.1 2.2 ", "1.0 1.1 1.2 "]);
      for (const message of messages) await message.ack();
      assert.deepEqual(relay.items, []);
    },
    kind,
  );

  testWithRelay(
    `a response that ends at any byte loses and repeats nothing: ${way}`,
    async ({ relay, client }) => {
      // A little more than the page. Together, the ways try every byte.
      const count = 340;
      const isCut = new Set();
      relay.fault = ({ path, body }) => {
        const key = `${path} ${body?.recipient}`;
        if (!["/pull", "/stream", "/ack"].includes(path) || isCut.has(key)) return undefined;
        isCut.add(key);
        const cut = Number(body.recipient);
        return { cut: path === "/ack" ? cut % 40 : cut };
      };
      const receive = async (cut) => {
        push(relay, item(`${cut}`, cut));
        const deliveries = client.deliveries(`${cut}`, null, delivery);
        const [message] = await take(deliveries, 1);
        assert.equal(numberOf(message), cut);
        await message.ack();
        await deliveries.close();
      };
      await forEach(count, receive, at, WAYS.length);
      assert.ok(isCut.size > (2 * count) / WAYS.length - 2);
      assert.deepEqual(relay.items, []);
    },
    kind,
  );
}

testWithRelay(
  "polling a relay of 0.0.3 does not hand out a message twice",
  async ({ relay, client }) => {
    push(relay, item("alice", 1));
    const deliveries = client.deliveries("alice");
    const [message] = await take(deliveries, 1);
    const next = deliveries.next();
    await eventually(() => relay.to("/pull").length > 3);
    await message.ack();
    assert.ok(await isPending(next));
    assert.ok(relay.to("/pull").every(({ body }) => !("wait_ms" in body) && !("tail" in body)));
  },
  { isOld: true },
);

testWithRelay(
  "a relay of 0.0.3 is polled at intervals",
  async ({ relay, client }) => {
    relay.pageItems = 1;
    push(relay, item("alice", 1), item("alice", 2), item("alice", 3));
    const deliveries = client.deliveries("alice");
    await take(deliveries, 3);
    assert.equal(relay.to("/pull").length, 3, "there is no pause within a queue");
    assert.ok(await isPending(deliveries.next(), 500));
    assert.ok(relay.to("/pull").length <= 9, `${relay.to("/pull").length}`);
  },
  { isOld: true, options: { pollIntervalMs: 300 } },
);

for (const transport of ["wait", "stream"]) {
  testWithRelay(
    `a page that is too large is asked for item by item: ${transport}`,
    async ({ relay, client }) => {
      const big = (number) => item("alice", number, { payload: "x".repeat(1_000) });
      push(relay, ...numbers(100).map(big));
      const deliveries = client.deliveries("alice", null, { transport });
      assert.deepEqual((await take(deliveries, 100)).map(numberOf), numbers(100));
      assert.equal(relay.to("/pull").filter(({ body }) => body.max === 1).length, 100);
      const next = deliveries.next();
      push(relay, item("alice", 101));
      assert.equal(numberOf((await next).value), 101);
      assert.equal(relay.to("/pull").filter(({ body }) => body.max === 1).length, 100, "whole pages again");
      if (transport === "stream") return;
      relay.fault = ({ response }) => {
        response.writeHead(200, { "content-length": 1e9 }).write("{");
        return true;
      };
      push(relay, item("alice", 102));
      await failsWith(take(deliveries, 1), "answer_too_large");
    },
    // Such a relay would not give that many items.
    { limits: { page_bytes: 1_000, message_bytes: 1_000, page_items: 1 }, options: { waitMs: 60_000 } },
  );
}

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

for (const [status, code] of [
  [400, "invalid_input"],
  [401, "unauthorized"],
  [403, "forbidden"],
  [404, "not_found"],
]) {
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
  testWithRelay(
    `a cursor that is refused begins the queue again: ${transport}`,
    async ({ relay, client }) => {
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
    },
  );
}

testWithRelay("a stream goes on by its cursor, however it ends", async ({ relay, client }) => {
  const deliveries = client.deliveries("alice", null, { transport: "stream" });
  const ends = [
    (response) => response.destroy(),
    (response) => response.end(),
    (response) => response.end('{"bye":"age"}\n'),
    (response) => response.end('{"items":[{"recip'),
  ];
  for (const [number, end] of ends.entries()) {
    push(relay, item("alice", number));
    const next = take(deliveries, 1);
    assert.deepEqual((await next).map(numberOf), [number]);
    end(relay.to("/stream").at(-1).response);
  }
  push(relay, item("alice", 9));
  assert.deepEqual((await take(deliveries, 1)).map(numberOf), [9]);
  assert.deepEqual(
    relay.to("/stream").map(({ body }) => body.cursor),
    [undefined, "1", "2", "3", "4"],
  );
});

testWithRelay(
  "a relay that answers waits at once is not asked all the time",
  async ({ relay, client }) => {
    relay.fault = ({ path, response }) => {
      if (path !== "/pull") return false;
      response.end('{"items":[],"next_cursor":null,"remaining_estimate":0}');
      return true;
    };
    assert.ok(await isPending(client.deliveries("alice").next(), 500));
    assert.ok(relay.to("/pull").length < 12, `${relay.to("/pull").length}`);
  },
  { options: { pollIntervalMs: 100 } },
);

function pageWith(own) {
  const items = [{ arrival_ms: 1, ...item("alice", 1), ...own }];
  return { items, next_cursor: null, remaining_estimate: 0 };
}

for (const [what, page] of [
  ["no page", {}],
  ["a message id that is none", pageWith({ message_id: "../x" })],
]) {
  testWithRelay(`${what} is a broken answer, after which comes a pause`, async ({ relay, client }) => {
    relay.fault = ({ path, response }) => {
      if (path !== "/pull") return false;
      response.end(JSON.stringify(page));
      return true;
    };
    assert.ok(await isPending(client.deliveries("alice").next(), 500));
    assert.ok(relay.to("/pull").length < 12, `${relay.to("/pull").length}`);
  });
}

testWithRelay("an item whose kind is too long is skipped, and what follows is delivered", async ({ relay, client }) => {
  const long = { ...item("alice", 1).meta, kind: "\u00e9".repeat(33) };
  const page = pageWith({ meta: long });
  page.items.push({ arrival_ms: 2, ...item("alice", 2) });
  relay.fault = ({ path, response }) => {
    if (path !== "/pull") return false;
    response.end(JSON.stringify(page));
    return true;
  };
  const skipped = [];
  const onSkipped = (messageId, reason) => skipped.push({ messageId, reason });
  const { value } = await client.deliveries("alice", undefined, { onSkipped }).next();
  assert.equal(value.messageId, item("alice", 2).message_id);
  assert.deepEqual(skipped, [{ messageId: item("alice", 1).message_id, reason: "malformed" }]);
});

testWithRelay("deliveries that end with an error are released", async ({ relay }) => {
  relay.fault = (request) => request.path === "/pull" && refuse(request, 403, "forbidden");
  const proof = { credentials: null, recipient: "alice" };
  let ended;
  const deliveries = new Deliveries(new Connection(relay.url, {}), proof, {}, (own) => (ended = own));
  await failsWith(deliveries.next(), "forbidden");
  await eventually(() => ended === deliveries);
});

testWithRelay("calls of next at the same time get one message each", async ({ relay, client }) => {
  const deliveries = client.deliveries("alice");
  const both = Promise.all([deliveries.next(), deliveries.next()]);
  push(relay, item("alice", 1), item("alice", 2));
  assert.deepEqual(
    (await both).map(({ value }) => numberOf(value)),
    [1, 2],
  );
});

testWithRelay("one client serves many recipients", async ({ relay, client }) => {
  const all = numbers(20).map((number) => take(client.deliveries(`user ${number}`), 1));
  push(relay, ...numbers(20).map((number) => item(`user ${number}`, number)));
  assert.deepEqual(
    (await Promise.all(all)).map(([message]) => numberOf(message)),
    numbers(20),
  );
});
