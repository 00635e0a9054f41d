// Secrets, keys and tokens: the project's test vectors, and clocks that are wrong.

import assert from "node:assert/strict";
import { createPublicKey, verify } from "node:crypto";
import { readFileSync } from "node:fs";
import { inspect } from "node:util";
import { Credentials, generateSecret, recipientOfKey, recipientOfSecret } from "../dist/index.js";
import { base64, fromBase64, randomMessageId } from "../dist/encoding.js";
import { Http } from "../dist/http.js";
import { refuse } from "./fake.mjs";
import { eventually, failsWith, isPending, test, testWithRelay } from "./helpers.mjs";

const VECTORS = JSON.parse(readFileSync(new URL("../../../crates/relay-auth/vectors.json", import.meta.url)));
const SEED = Buffer.alloc(32, 7);
const AUDIENCE = "https://relay.example.org";
const HOUR_MS = 3_600_000;

function decode(token) {
  const [head, claims, signature] = token.split(".");
  const json = (part) => JSON.parse(Buffer.from(part, "base64url"));
  return { head: json(head), claims: json(claims), signature: Buffer.from(signature, "base64url") };
}

function isSigned(token, recipient) {
  const jwk = { kty: "OKP", crv: "Ed25519", x: recipient.slice("ed25519:".length) };
  const [text] = /^[^.]*\.[^.]*/.exec(token);
  return verify(null, text, createPublicKey({ key: jwk, format: "jwk" }), decode(token).signature);
}

test("recipients of secrets and keys are those of the test vectors", async () => {
  for (const { secret, send_secret, recipient } of VECTORS.secrets) {
    assert.equal(await recipientOfSecret(secret, send_secret), recipient);
  }
  for (const { private_key, recipient } of VECTORS.tokens) {
    const [plain] = recipient.split("+");
    assert.equal(await recipientOfKey(Buffer.from(private_key, "base64url")), plain);
  }
  const pair = await crypto.subtle.generateKey("Ed25519", true, ["sign", "verify"]);
  assert.equal(await recipientOfKey(pair.publicKey), await recipientOfKey(pair.privateKey));
});

test("a new secret is one, and every other is refused", async () => {
  const secret = generateSecret();
  assert.notEqual(secret, generateSecret());
  assert.match(await recipientOfSecret(secret), /^sha256:[\w-]{43}$/);
  for (const wrong of ["", "short", `${secret}=`, "a".repeat(90), `${"a".repeat(42)}B`, "é".repeat(43)]) {
    assert.throws(() => Credentials.secret(wrong), { code: "invalid_input" });
    await failsWith(recipientOfSecret(wrong), "invalid_input");
  }
});

test("a token has the claims of docs/auth.md, is kept, and is signed anew before it expires", async () => {
  const recipient = await recipientOfKey(SEED);
  const credentials = Credentials.key(SEED, AUDIENCE);
  const at = async (ms) => (await credentials.authorization(recipient, ms)).replace("Bearer ", "");
  const token = await at(1_000_000);
  const { head, claims } = decode(token);
  assert.deepEqual(head, { alg: "EdDSA", typ: "relay-read+jwt" });
  assert.deepEqual(claims, { iss: recipient, aud: AUDIENCE, iat: 1_000, exp: 1_300 });
  assert.ok(isSigned(token, recipient));
  assert.equal(await at(1_240_000), token);
  assert.equal(decode(await at(1_241_000)).claims.iat, 1_241);
  assert.equal(decode(await at(900_000)).claims.iat, 900, "the clock went back");
  const other = (await credentials.authorization(`${recipient}+sha256:x`, 900_000)).slice(7);
  assert.equal(decode(other).claims.iss, `${recipient}+sha256:x`);
});

test("a key that is none is an error", async () => {
  for (const key of [
    Buffer.alloc(31),
    await crypto.subtle.importKey("raw", SEED, "AES-GCM", true, ["encrypt"]),
  ]) {
    await failsWith(Credentials.key(key, AUDIENCE).authorization("ed25519:x", 0), "invalid_input");
  }
});

test("credentials show no secret", () => {
  const secret = generateSecret();
  for (const credentials of [Credentials.secret(secret), Credentials.token(secret)]) {
    assert.ok(!inspect(credentials, { showHidden: true, depth: 9 }).includes(secret));
    assert.ok(!JSON.stringify(credentials).includes(secret));
  }
});

/** A relay whose clock this is, and which refuses tokens of other times. */
function clockOf(relay, nowMs, reason) {
  relay.fault = (request) => {
    if (request.path === "/info") return undefined;
    const { iat } = decode(request.headers.authorization.replace("Bearer ", "")).claims;
    if (Math.abs(iat * 1000 - nowMs()) < 60_000) return undefined;
    return refuse(request, 403, "forbidden", { reason, server_ms: nowMs() });
  };
}

for (const [hours, reason] of [
  [24.5, "token_not_valid_yet"],
  [-24.5, "token_expired"],
]) {
  testWithRelay(`a clock that is wrong by ${hours} hours is corrected`, async ({ relay, connect }) => {
    clockOf(relay, Date.now, reason);
    const client = connect({ now: () => Date.now() + hours * HOUR_MS });
    const next = client.deliveries("ed25519:x", Credentials.key(SEED, AUDIENCE)).next();
    await eventually(() => relay.to("/pull").length === 2);
    assert.ok(await isPending(next));
  });
}

for (const [name, hours, reason] of [
  ["more than a day", 26, "token_expired"],
  ["another reason", 1, "wrong_audience"],
]) {
  testWithRelay(`a clock is not corrected: ${name}`, async ({ relay, connect }) => {
    clockOf(relay, Date.now, reason);
    const client = connect({ now: () => Date.now() + hours * HOUR_MS });
    await failsWith(client.deliveries("ed25519:x", Credentials.key(SEED, AUDIENCE)).next(), "forbidden");
    assert.equal(relay.to("/pull").length, 1);
  });
}

testWithRelay("a clock is corrected once", async ({ relay, client }) => {
  let hours = 1;
  clockOf(relay, () => Date.now() + hours * HOUR_MS, "token_expired");
  const credentials = Credentials.key(SEED, AUDIENCE);
  const next = client.deliveries("ed25519:x", credentials).next();
  await eventually(() => relay.to("/pull").length === 2);
  assert.ok(await isPending(next));
  hours = 2;
  await failsWith(client.deliveries("ed25519:x", credentials).next(), "forbidden");
});

testWithRelay("a clock is not corrected over clear text from another machine", async ({ relay, connect }) => {
  clockOf(relay, Date.now, "token_expired");
  const through = (input, init) => fetch(input.replace("http://relay.example", relay.url), init);
  const client = connect({ fetch: through, now: () => Date.now() + HOUR_MS }, "http://relay.example");
  await failsWith(client.deliveries("ed25519:x", Credentials.key(SEED, AUDIENCE)).next(), "forbidden");
});

testWithRelay(
  "a push shows the client's token, and a token may come from a function",
  async ({ relay, connect }) => {
    let count = 0;
    const credentials = Credentials.token(async () => `token-${++count}`);
    const client = connect({ credentials });
    await client.push("alice", "1");
    await client.push("alice", "2");
    assert.deepEqual(
      relay.to("/push").map(({ headers }) => headers.authorization),
      ["Bearer token-1", "Bearer token-2"],
    );
    const failing = Credentials.token(() => Promise.reject(new Error("the issuer is away")));
    await failsWith(connect({ pushTimeoutMs: 200, credentials: failing }).push("alice", "1"), "unreachable");
  },
);

for (const [what, token] of [
  ["a line break", "secret\nsecret"],
  ["a letter that is not ASCII", "secret\u20ac"],
  ["nothing", ""],
  ["too much", "secret".repeat(700)],
]) {
  testWithRelay(`a token with ${what} is refused, and not shown`, async ({ client }) => {
    const next = client.deliveries("alice", Credentials.token(() => token)).next();
    const error = await failsWith(next, "invalid_input");
    assert.ok(!inspect(error).includes("secret"));
  });
}

test("clear text is trusted on this machine alone", () => {
  for (const [url, isTrusted] of [
    ["https://relay.example.org", true],
    ["http://127.0.0.1:7000", true],
    ["http://127.1", true],
    ["http://[::1]", true],
    ["http://localhost", true],
    ["http://127.example.org", false],
    ["http://127.0.0.1.example.org", false],
    ["http://localhost.example.org", false],
  ]) {
    assert.equal(new Http(url).isTrusted, isTrusted, url);
  }
});

test("base64 of every length is that of Node, and anything else is refused", () => {
  for (let length = 0; length < 300; length++) {
    const bytes = crypto.getRandomValues(new Uint8Array(length));
    const text = Buffer.from(bytes).toString("base64");
    assert.equal(base64(bytes), text);
    assert.deepEqual(fromBase64(text), bytes);
  }
  for (const wrong of ["a", "ab", "abc", "a===", "====", "ab=c", "a b=", "abc-", "abc\u0141", "=abc"]) {
    assert.throws(() => fromBase64(wrong), { code: "broken_answer" }, wrong);
  }
});

test("message ids are random UUIDs", () => {
  const ids = Array.from({ length: 100 }, randomMessageId);
  assert.equal(new Set(ids).size, 100);
  assert.ok(
    ids.every((id) => /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(id)),
  );
});
