// Pushes that fail against a fake relay: what is repeated, how often, and what is not.

import assert from "node:assert/strict";
import { Client } from "../dist/index.js";
import { refuse } from "./fake.mjs";
import { failing, failsWith, forEach, test, testWithRelay } from "./helpers.mjs";

for (const [status, code] of [
  [408, "request_timeout"],
  [429, "rate_limited"],
  [500, "internal_error"],
  [502, null],
  [503, "draining"],
  [504, null],
  [507, "storage_full"],
]) {
  testWithRelay(`a push that gets ${status} is repeated with the same id`, async ({ relay, client }) => {
    relay.fault = failing("/push", 2, (request) => {
      if (code) return refuse(request, status, code);
      request.response.writeHead(status).end("<html>a proxy</html>");
      return true;
    });
    await client.push("alice", "hello");
    assert.equal(new Set(relay.to("/push").map(({ body }) => body.message_id)).size, 1);
    assert.equal(relay.to("/push").length, 3);
  });
}

for (const [status, code] of [
  [400, "invalid_input"],
  [401, "unauthorized"],
  [403, "forbidden"],
  [409, "quota_exceeded"],
  [413, "message_too_large"],
  [418, "http_418"],
  [307, "http_307"],
]) {
  testWithRelay(`a push that gets ${status} fails at once`, async ({ relay, client }) => {
    relay.fault = failing("/push", 9, (request) => {
      if (!code.startsWith("http")) return refuse(request, status, code, { limit: 7 });
      request.response.writeHead(status, { location: "/elsewhere" }).end();
      return true;
    });
    const error = await failsWith(client.push("alice", "hello"), code);
    assert.equal(error.status, status);
    assert.deepEqual(error.details, code.startsWith("http") ? {} : { limit: 7 });
    assert.equal(relay.to("/push").length, 1);
  });
}

testWithRelay("Retry-After is kept", async ({ relay, client }) => {
  relay.fault = failing("/push", 1, (request) => {
    return refuse(request, 429, "rate_limited", undefined, { "retry-after": "1" });
  });
  const start = performance.now();
  await client.push("alice", "hello");
  const ms = performance.now() - start;
  assert.ok(ms >= 1_000 && ms < 3_000, `${ms}`);
});

testWithRelay(
  "a push ends at once if the relay wants more patience than there is",
  async ({ relay, client }) => {
    relay.fault = failing("/push", 1, (request) =>
      refuse(request, 503, "not_ready", { retry_after_ms: 60_000 }),
    );
    const error = await failsWith(client.push("alice", "hello"), "not_ready");
    assert.equal(error.retryAfterMs, 60_000);
  },
  { options: { pushTimeoutMs: 5_000 } },
);

for (const [path, lengthOf, step] of [
  ["/push", () => 45, 1],
  ["/push/batch", () => 105, 1],
  ["/info", (relay) => JSON.stringify(relay.info).length, 5],
]) {
  testWithRelay(
    `an answer to ${path} that is cut off in any place is repeated`,
    async ({ relay, connect }) => {
      const count = lengthOf(relay);
      const isCut = new Set();
      relay.fault = ({ path: own, headers }) => {
        const cut = headers["x-cut"];
        if (own !== path || isCut.has(cut)) return undefined;
        isCut.add(cut);
        return { cut: Number(cut) };
      };
      const send = async (cut) => {
        const marked = (url, init) =>
          fetch(url, { ...init, headers: { ...init.headers, "x-cut": `${cut}` } });
        await connect({ fetch: marked }).push(`user ${cut}`, path === "/push" ? "12345" : "123456");
      };
      await forEach(count, send, 0, step);
      const sent = Math.ceil(count / step);
      assert.equal(relay.to(path).length, 2 * sent);
      assert.equal(relay.items.length, sent * (path === "/push" ? 1 : 2));
    },
    { options: { chunkBytes: 5 } },
  );
}

for (const wrong of ["", "{", "[]", "null", '{"stored":1}', '{"results":[]}', '{"results":[1,2]}']) {
  testWithRelay(
    `the answer ${wrong} is broken, and the push is repeated`,
    async ({ relay, client }) => {
      const answer = ({ response }) => (response.end(wrong), true);
      relay.fault = failing("/push", 1, answer);
      await client.push("alice", "hello");
      relay.fault = failing("/push/batch", 1, answer);
      await client.push("alice", "hello world");
      assert.equal(relay.items.length, 3);
    },
    { options: { chunkBytes: 6 } },
  );
}

testWithRelay("an answer without end is too large", async ({ relay, client }) => {
  relay.fault = failing("/push", 1, ({ response }) => {
    const write = () => {
      while (!response.destroyed && response.write("x".repeat(65536)));
    };
    response.on("drain", write);
    write();
    return true;
  });
  const start = performance.now();
  await failsWith(client.push("alice", "hello"), "answer_too_large");
  assert.equal(relay.to("/push").length, 1, "another answer would be as large");
  assert.ok(performance.now() - start < 10_000, "before the timeout of the request");
});

testWithRelay(
  "the last error is thrown when time is over",
  async ({ relay, client }) => {
    relay.fault = failing("/push", Infinity, (request) => refuse(request, 503, "storage_error"));
    const start = performance.now();
    await failsWith(client.push("alice", "hello"), "storage_error");
    assert.ok(performance.now() - start < 2_000);
    assert.ok(relay.to("/push").length > 1);
  },
  { options: { pushTimeoutMs: 500 } },
);

testWithRelay(
  "a relay that never answers is a timeout",
  async ({ relay, client }) => {
    relay.fault = failing("/push", Infinity, () => true);
    await failsWith(client.push("alice", "hello"), "timeout");
  },
  { options: { pushTimeoutMs: 300 } },
);

test("a relay that is not there is a connection error", async () => {
  const client = new Client("http://127.0.0.1:1", { pushTimeoutMs: 300 });
  await failsWith(client.push("alice", "hello"), "unreachable");
});

testWithRelay(
  "after a timeout, fewer chunks go in one request",
  async ({ relay, client }) => {
    relay.fault = ({ path, body }) => path === "/push/batch" && body.items.length > 4;
    await client.push("alice", new Uint8Array(8));
    // With success, it tries more again.
    assert.deepEqual(
      relay.to("/push/batch").map(({ body }) => body.items.length),
      [8, 2, 4, 2],
    );
    assert.equal(relay.items.length, 8);
  },
  { options: { chunkBytes: 1, requestTimeoutMs: 200 } },
);

testWithRelay(
  "only the items of a batch that failed are repeated",
  async ({ relay, client }) => {
    let count = 0;
    relay.fault = ({ path, body, response }) => {
      if (path !== "/push/batch" || count++ > 0) return undefined;
      const error = { code: "storage_error", message: "", details: { retry_after_ms: 1 } };
      const results = body.items.map((own, at) => (at === 1 || at === 2 ? { error } : relay.put(own)));
      response.end(JSON.stringify({ results }));
      return true;
    };
    await client.push("alice", "12345");
    assert.deepEqual(
      relay.to("/push/batch").map(({ body }) => body.items.map((own) => own.meta.chunk_index)),
      [
        [0, 1, 2, 3, 4],
        [1, 2],
      ],
    );
  },
  { options: { chunkBytes: 1 } },
);

testWithRelay(
  "a message with a chunk that is refused for good fails at once",
  async ({ relay, client }) => {
    relay.fault = failing("/push/batch", 1, ({ body, response }) => {
      const codes = ["storage_error", "quota_exceeded"];
      const results = body.items.map((own, at) => ({ error: { code: codes[at], message: "", details: {} } }));
      response.end(JSON.stringify({ results }));
      return true;
    });
    await failsWith(client.push("alice", "12"), "quota_exceeded");
    assert.equal(relay.items.length, 0, "no chunk is tried again");
  },
  { options: { chunkBytes: 1 } },
);
