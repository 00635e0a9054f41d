// A program that uses the client as JSON lines on standard input tell it, and writes what happens
// as JSON lines to standard output. The common tests of all clients run it.

import { createHash } from "node:crypto";
import { createInterface } from "node:readline";
import { Client, Credentials } from "../dist/index.js";

/** Options of the `open` command, by their names in this client. */
const OPTIONS = {
  chunk_bytes: "chunkBytes",
  memory_bytes: "memoryBytes",
  poll_interval_ms: "pollIntervalMs",
  wait_ms: "waitMs",
  push_timeout_ms: "pushTimeoutMs",
  partial_age_ms: "partialAgeMs",
  ack_delay_ms: "ackDelayMs",
  ack_max: "ackMax",
  unacked_max: "unackedMax",
  request_timeout_ms: "requestTimeoutMs",
};

let client;
let credentials = null;
/** Pushes go one after the other. */
let pushes = Promise.resolve();
const messages = new Map();

function write(event) {
  process.stdout.write(`${JSON.stringify(event)}\n`);
}

function open(command) {
  const given = Object.entries(command.options ?? {}).filter(([name]) => name in OPTIONS);
  const options = Object.fromEntries(given.map(([name, value]) => [OPTIONS[name], value]));
  const offset = command.clock_offset_ms ?? 0;
  const { secret, key, audience, token } = command.credentials ?? {};
  if (secret !== undefined) credentials = Credentials.secret(secret);
  if (key !== undefined) credentials = Credentials.key(Buffer.from(key, "base64url"), audience);
  if (token !== undefined) {
    credentials = Credentials.token(token);
    options.credentials = credentials;
  }
  client = new Client(command.url, { ...options, now: () => Date.now() + offset });
  write({ event: "opened" });
}

async function push({ id, recipient, payload_b64, kind, ttl_seconds, message_id, send_secret }) {
  try {
    const { messageId } = await client.push(recipient, Buffer.from(payload_b64, "base64"), {
      kind,
      ttlSeconds: ttl_seconds,
      messageId: message_id,
      sendSecret: send_secret,
    });
    write({ event: "pushed", id, message_id: messageId });
  } catch (error) {
    write({ event: "failed", id, code: error.code ?? String(error) });
  }
}

function shown({ messageId: message_id, kind, payload }, digest) {
  const event = { event: "message", message_id, kind };
  if (!digest) return { ...event, payload_b64: Buffer.from(payload).toString("base64") };
  const sha256 = createHash("sha256").update(payload).digest("hex");
  return { ...event, sha256, bytes: payload.length };
}

async function deliver({ recipient, transport, auto_ack, digest }) {
  const onSkipped = (message_id, reason) => write({ event: "skipped", message_id, reason });
  try {
    for await (const message of client.deliveries(recipient, credentials, { transport, onSkipped })) {
      write(shown(message, digest));
      if (auto_ack) void ack(message);
      else messages.set(message.messageId, message);
    }
  } catch (error) {
    write({ event: "error", code: error.code ?? String(error) });
  }
}

async function ack(message) {
  if (!message) return;
  const { messageId: message_id } = message;
  messages.delete(message_id);
  try {
    await message.ack();
    write({ event: "acked", message_id });
  } catch (error) {
    if (error.code !== "closed") write({ event: "error", code: error.code ?? String(error) });
  }
}

async function close() {
  await pushes;
  await client?.close();
  write({ event: "closed" });
}

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  if (command.op === "open") open(command);
  else if (command.op === "push") pushes = pushes.then(() => push(command));
  else if (command.op === "deliver") void deliver(command);
  else if (command.op === "ack") void ack(messages.get(command.message_id));
  else if (command.op === "close") break;
}
await close();
// What has been written reaches a pipe before the program ends by itself, as nothing is left open.
process.exitCode = 0;
process.stdin.destroy();
