// The client against the real relay, whose program RELAY_BIN names. Without it these tests are
// skipped, unless REQUIRE_PROGRAMS is set.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before } from "node:test";
import { Client, Credentials, generateSecret, recipientOfKey, recipientOfSecret } from "../dist/index.js";
import { eventually, failsWith, isPending, take, test, text } from "./helpers.mjs";

const PROGRAM = process.env.RELAY_BIN;
const AUDIENCE = "https://relay.example.org";
const CONFIG = `
address = "127.0.0.1:0"
storage = { kind = "memory" }
admin = { address = "" }
rate_limit = { enabled = false }
auth = { audiences = ["${AUDIENCE}"] }
`;

let directory;
let child;
let url;

/** Starts the relay, on the port that the system chooses and the log names. */
async function start() {
  directory = mkdtempSync(join(tmpdir(), "relay-client-"));
  const config = join(directory, "relay.toml");
  writeFileSync(config, CONFIG);
  child = spawn(PROGRAM, ["--config", config], { stdio: ["ignore", "pipe", "inherit"] });
  for await (const line of createInterface({ input: child.stdout })) {
    url = /http:\/\/127\.0\.0\.1:\d+/.exec(line)?.[0];
    if (url) return child.stdout.resume();
  }
  throw new Error("the relay did not start");
}

async function stop() {
  const ended = new Promise((resolve) => child.once("exit", resolve));
  child.kill();
  await ended;
  rmSync(directory, { recursive: true });
}

function tests() {
  before(start);
  after(stop);

  const testWithClient = (name, run, options = {}) => {
    test(name, async () => {
      const client = new Client(url, options);
      await run(client).finally(() => client.close());
    });
  };

  for (const transport of ["wait", "stream"]) {
    testWithClient(
      `a long message arrives whole, by a secret: ${transport}`,
      async (client) => {
        const secret = generateSecret();
        const recipient = await recipientOfSecret(secret);
        const deliveries = client.deliveries(recipient, Credentials.secret(secret), { transport });
        const next = deliveries.next();
        assert.ok(await isPending(next));
        const payload = Buffer.alloc(3_000_001, "0123456789abcdef");
        await client.push(recipient, new Blob([payload]), { kind: "attachment", ttlSeconds: 60 });
        const { value: message } = await next;
        assert.ok(payload.equals(message.payload));
        assert.equal(message.kind, "attachment");
        await message.ack();
        await client.push(recipient, "and then");
        assert.equal(text((await take(deliveries, 1))[0]), "and then");
      },
      { chunkBytes: 10_000 },
    );
  }

  testWithClient("a queue opens to nobody else", async (client) => {
    const recipient = await recipientOfSecret(generateSecret());
    await failsWith(client.deliveries(recipient).next(), "unauthorized");
    const wrong = Credentials.secret(generateSecret());
    await failsWith(client.deliveries(recipient, wrong).next(), "forbidden");
  });

  testWithClient(
    "a queue with a send lock takes pushes with its secret",
    async (client) => {
      const [secret, sendSecret] = [generateSecret(), generateSecret()];
      const recipient = await recipientOfSecret(secret, sendSecret);
      await failsWith(client.push(recipient, "1"), "unauthorized");
      await client.push(recipient, "12345678", { sendSecret });
      const [message] = await take(client.deliveries(recipient, Credentials.secret(secret)), 1);
      assert.equal(text(message), "12345678");
    },
    { chunkBytes: 5 },
  );

  for (const offsetMs of [0, 86_000_000, -86_000_000]) {
    testWithClient(
      `a queue opens to a key, by a clock that is wrong by ${offsetMs} ms`,
      async (client) => {
        const key = crypto.getRandomValues(new Uint8Array(32));
        const recipient = await recipientOfKey(key);
        await client.push(recipient, "hello");
        const [message] = await take(client.deliveries(recipient, Credentials.key(key, AUDIENCE)), 1);
        await message.ack();
      },
      { now: () => Date.now() + offsetMs },
    );
  }

  testWithClient("many messages keep their order, and their acks empty the queue", async (client) => {
    for (let first = 0; first < 1_000; first += 100) {
      const payloads = Array.from({ length: 100 }, (_, at) => `${first + at}`);
      await client.pushAll(payloads.map((payload) => ({ recipient: "many", payload })));
    }
    const deliveries = client.deliveries("many");
    const messages = await take(deliveries, 1_000);
    assert.deepEqual(
      messages.map(text),
      Array.from({ length: 1_000 }, (_, at) => `${at}`),
    );
    await Promise.all(messages.map((message) => message.ack()));
    assert.ok(await isPending(client.deliveries("many").next()));
  });

  testWithClient("the driver does what it is told", async () => {
    const driver = spawn(process.execPath, [new URL("driver.mjs", import.meta.url).pathname]);
    const events = [];
    createInterface({ input: driver.stdout }).on("line", (line) => events.push(JSON.parse(line)));
    const ended = new Promise((resolve) => driver.once("exit", resolve));
    const send = (command) => driver.stdin.write(`${JSON.stringify(command)}\n`);
    send({ op: "open", url, options: { chunk_bytes: 2 }, credentials: null });
    send({ op: "deliver", recipient: "driven", transport: "wait", auto_ack: true, digest: false });
    send({ op: "push", id: 7, recipient: "driven", payload_b64: "aGVsbG8=" });
    send({ op: "push", id: 8, recipient: "", payload_b64: "" });
    await eventually(() => events.length === 5);
    send({ op: "close" });
    assert.equal(await ended, 0);
    const named = new Map(events.map((event) => [event.event, event]));
    const { message_id } = named.get("pushed");
    assert.deepEqual(named.get("message"), {
      event: "message",
      message_id,
      kind: "opaque",
      payload_b64: "aGVsbG8=",
    });
    assert.deepEqual(named.get("failed"), { event: "failed", id: 8, code: "invalid_input" });
    assert.deepEqual(named.get("acked"), { event: "acked", message_id });
    assert.deepEqual(events.at(-1), { event: "closed" });
  });
}

if (PROGRAM) {
  tests();
} else {
  test("the real relay", (context) => {
    assert.ok(!process.env.REQUIRE_PROGRAMS, "RELAY_BIN is not set, and REQUIRE_PROGRAMS is");
    context.skip("RELAY_BIN names no program of the relay");
  });
}
