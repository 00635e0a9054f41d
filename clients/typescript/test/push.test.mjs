// Pushes to a fake relay: chunks, batches, order and options.

import assert from "node:assert/strict";
import { Client, generateSecret } from "../dist/index.js";
import { failing, failsWith, test, testWithRelay } from "./helpers.mjs";

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

function payloadOf(items) {
  return Buffer.concat(items.map((own) => Buffer.from(own.ciphertext_b64, "base64")));
}

testWithRelay(
  "a short message is one push, with everything that the sender says",
  async ({ relay, client }) => {
    const { messageId, outcome } = await client.push("alice", "hello", {
      kind: "signaling",
      ttlSeconds: 9,
      sendSecret: "s",
    });
    assert.match(messageId, UUID);
    assert.equal(outcome, "stored");
    const [{ body }] = relay.to("/push");
    assert.deepEqual(
      { ...body.meta, sent_ms: 0 },
      {
        kind: "signaling",
        total_len: 5,
        chunk_index: 0,
        chunk_count: 1,
        sent_ms: 0,
      },
    );
    assert.ok(Math.abs(body.meta.sent_ms - Date.now()) < 10_000);
    assert.equal(payloadOf([body]).toString(), "hello");
    assert.deepEqual([body.ttl_seconds, body.proof], [9, "s"]);
  },
);

testWithRelay(
  "every kind of payload is split into the same chunks",
  async ({ relay, client }) => {
    const bytes = Uint8Array.from({ length: 25 }, (_, at) => at);
    for (const payload of [bytes, bytes.buffer, new Blob([bytes])]) {
      relay.items = [];
      await client.push("alice", payload);
      assert.deepEqual(
        relay.items.map((own) => own.meta.chunk_index),
        [0, 1, 2],
      );
      assert.ok(relay.items.every((own) => own.meta.chunk_count === 3 && own.meta.total_len === 25));
      assert.deepEqual(payloadOf(relay.items), Buffer.from(bytes));
    }
  },
  { options: { chunkBytes: 10 } },
);

testWithRelay("an empty message is one empty chunk", async ({ relay, client }) => {
  await client.push("alice", "");
  assert.deepEqual(
    relay.items.map((own) => own.ciphertext_b64),
    [""],
  );
});

testWithRelay(
  "a batch has at most 64 chunks",
  async ({ relay, client }) => {
    await client.push("alice", new Uint8Array(130));
    assert.deepEqual(
      relay.to("/push/batch").map(({ body }) => body.items.length),
      [64, 64, 2],
    );
    assert.equal(relay.items.length, 130);
  },
  { options: { chunkBytes: 1 } },
);

testWithRelay(
  "a batch has at most 4 MiB",
  async ({ relay, client }) => {
    await client.push("alice", new Uint8Array(5 * 1024 * 1024));
    assert.deepEqual(
      relay.to("/push/batch").map(({ body }) => body.items.length),
      [4],
    );
    assert.equal(relay.items.length, 5);
  },
  { options: { chunkBytes: 1024 * 1024 } },
);

testWithRelay(
  "chunks and batches are never larger than the relay takes",
  async ({ relay, client }) => {
    await client.push("alice", new Uint8Array(50));
    assert.deepEqual(
      relay.to("/push/batch").map(({ body }) => body.items.length),
      [2, 2],
    );
    assert.equal(relay.items.length, 5);
  },
  { limits: { message_bytes: 10, batch_items: 2 } },
);

testWithRelay("the relay is asked what it can do once", async ({ relay, client }) => {
  await client.push("alice", "1");
  await client.push("alice", "2");
  assert.equal(relay.to("/info").length, 1);
});

testWithRelay(
  "to a relay of 0.0.3, chunks go one by one, and without its unknown fields",
  async ({ relay, client }) => {
    const sendSecret = generateSecret();
    await client.push("alice", "123456", { ttlSeconds: 5, sendSecret });
    assert.deepEqual(
      relay.to("/push").map(({ headers }) => headers.authorization),
      Array(3).fill(`Bearer ${sendSecret}`),
    );
    assert.ok(relay.items.every((own) => !("ttl_seconds" in own) && !("proof" in own)));
  },
  { isOld: true, options: { chunkBytes: 2 } },
);

testWithRelay("a relay that takes no secret in an item gets it in the header", async ({ relay, client }) => {
  relay.info.features = ["batch"];
  const [one, two] = [generateSecret(), generateSecret()];
  const secrets = [one, one, two, undefined, undefined];
  await client.pushAll(secrets.map((sendSecret) => ({ recipient: "alice", payload: "x", sendSecret })));
  assert.deepEqual(
    relay.requests.slice(1).map(({ body, headers }) => [body.items?.length, headers.authorization]),
    [
      [2, `Bearer ${one}`],
      [undefined, `Bearer ${two}`],
      [2, undefined],
    ],
  );
  assert.ok(relay.items.every((own) => !("proof" in own)));
});

testWithRelay("pushes that are awaited arrive in their order", async ({ relay, client }) => {
  relay.fault = failing("/push", 2, ({ response }) => (response.destroy(), true));
  for (let number = 0; number < 20; number++) await client.push("alice", `${number}`);
  assert.deepEqual(
    relay.items.map((own) => payloadOf([own]).toString()),
    [...Array(20).keys()].map(String),
  );
});

testWithRelay(
  "messages that are pushed together have results of their own",
  async ({ relay, client }) => {
    relay.fault = failing("/push/batch", 1, ({ body, response }) => {
      const error = { code: "quota_exceeded", message: "", details: {} };
      const results = body.items.map((own) => (own.recipient === "bob" ? { error } : relay.put(own)));
      response.end(JSON.stringify({ results }));
      return true;
    });
    const results = await client.pushAll(
      ["alice", "bob", "carol"].map((recipient) => ({ recipient, payload: "x" })),
    );
    assert.deepEqual(
      results.map(({ status }) => status),
      ["fulfilled", "rejected", "fulfilled"],
    );
    assert.equal(results[1].reason.code, "quota_exceeded");
    assert.equal(results[0].value.outcome, "stored");
    assert.deepEqual(await client.pushAll([]), []);
    await failsWith(
      client.pushAll([{ recipient: "alice", payload: new Uint8Array(11) }]),
      "invalid_input",
    );
  },
  { options: { chunkBytes: 10 } },
);

testWithRelay("a push with an id of the caller is a duplicate the second time", async ({ relay, client }) => {
  const messageId = "00000000-0000-4000-8000-000000000001";
  assert.equal((await client.push("alice", "12", { messageId })).outcome, "stored");
  assert.equal((await client.push("alice", "12", { messageId })).outcome, "duplicate");
  relay.fault = ({ path, response }) => {
    if (path !== "/push") return undefined;
    response.end('{"stored":false,"duplicate":true,"conflict":true,"queue_len":1,"queue_bytes":1}');
    return true;
  };
  assert.equal((await client.push("alice", "3", { messageId })).outcome, "conflict");
});

testWithRelay("close ends a push", async ({ relay, client }) => {
  relay.fault = () => true;
  const push = client.push("alice", "hello");
  const failed = failsWith(push, "closed");
  await client.close();
  await failed;
  await failsWith(client.push("alice", "hello"), "closed");
});

test("wrong addresses and options are errors", () => {
  for (const url of [
    "",
    "relay.example.org",
    "ftp://relay.example.org",
    "http://user:word@relay.example.org",
  ]) {
    assert.throws(() => new Client(url), { code: "invalid_input" });
  }
  for (const options of [
    { chunkBytes: 0 },
    { waitMs: -1 },
    { memoryBytes: 1.5 },
    { ackMax: "5" },
    { unackedMax: NaN },
  ]) {
    assert.throws(() => new Client("http://127.0.0.1", options), { code: "invalid_input" });
  }
});

testWithRelay(
  "a payload of too many chunks is an error",
  async ({ client }) => {
    await failsWith(client.push("alice", new Uint8Array(65_537)), "invalid_input");
  },
  { options: { chunkBytes: 1 } },
);
