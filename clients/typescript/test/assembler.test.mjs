// Unfinished messages: the order of their chunks, their bounds, and what is given up.

import assert from "node:assert/strict";
import { Assembler } from "../dist/assembler.js";
import { test } from "./helpers.mjs";

const MEMORY = 1_000;
const AGE_MS = 100;

function chunk(id, index, count, bytes = 10, total = bytes * count) {
  const payload = new Uint8Array(bytes).fill(index);
  return {
    messageId: id,
    index,
    count,
    totalLen: total,
    kind: "opaque",
    sentMs: 0,
    arrivalMs: 0,
    payload,
  };
}

function assembler() {
  return new Assembler(MEMORY, AGE_MS);
}

test("a message of one chunk needs no other", () => {
  // Other clients state any length.
  assert.equal(assembler().add(chunk("a", 0, 1, 10, 5), 0).payload.length, 10);
});

test("chunks come in any order, repeated, and between those of others", () => {
  const own = assembler();
  for (const early of [
    chunk("a", 2, 3),
    chunk("b", 1, 2),
    chunk("a", 0, 3),
    chunk("a", 0, 3),
    chunk("a", 2, 3),
  ]) {
    assert.equal(own.add(early, 0), null);
  }
  const { payload, key } = own.add(chunk("a", 1, 3), 0);
  assert.deepEqual([payload[0], payload[10], payload[20], payload.length], [0, 1, 2, 30]);
  assert.match(key, /^a 3 30 opaque$/);
  assert.equal(own.add(chunk("b", 0, 2), 0).payload.length, 20);
  assert.deepEqual(own.skipped, []);
});

test("chunks of the same id that belong to another message do not mix", () => {
  const own = assembler();
  own.add(chunk("a", 0, 2), 0);
  assert.equal(own.add(chunk("a", 1, 3), 0), null);
  assert.equal(own.add(chunk("a", 1, 2), 0).payload.length, 20);
});

test("what is nonsense is skipped and reported once", () => {
  for (const wrong of [
    chunk("a", 0, 65_537, 1),
    chunk("a", 2, 2),
    chunk("a", -1, 2),
    chunk("a", 0.5, 2),
    chunk("a", 0, 0),
    chunk("a", 0, 2, 10, NaN),
    chunk("a", 0, 2, 10, 5),
  ]) {
    const own = assembler();
    assert.equal(own.add(wrong, 0), null);
    assert.equal(own.add(wrong, 0), null);
    assert.deepEqual(own.skipped, [{ messageId: "a", reason: "malformed" }]);
  }
});

test("a message that is shorter than it says is skipped", () => {
  const own = assembler();
  own.add(chunk("a", 0, 2, 10, 30), 0);
  assert.equal(own.add(chunk("a", 1, 2, 10, 30), 0), null);
  assert.deepEqual(own.skipped, [{ messageId: "a", reason: "malformed" }]);
});

test("a message larger than the memory is skipped, and one of exactly its size is not", () => {
  for (const [bytes, isTaken] of [
    [500, true],
    [501, false],
  ]) {
    const own = assembler();
    own.add(chunk("a", 0, 2, bytes), 0);
    assert.equal(own.add(chunk("a", 1, 2, bytes), 0) !== null, isTaken);
    assert.deepEqual(own.skipped, isTaken ? [] : [{ messageId: "a", reason: "too_large" }]);
  }
  const own = assembler();
  assert.equal(own.add(chunk("a", 0, 1, MEMORY + 1), 0), null);
  assert.equal(own.skipped[0].reason, "too_large");
});

test("over the bound, the message that has not grown for the longest is dropped", () => {
  const own = assembler();
  own.add(chunk("old", 0, 2, 400), 0);
  own.add(chunk("new", 0, 3, 301), 1);
  own.add(chunk("old", 0, 2, 400), 2);
  assert.equal(own.hasDropped, false);
  own.add(chunk("new", 1, 3, 301), 3);
  assert.equal(own.hasDropped, true);
  assert.equal(own.add(chunk("old", 1, 2, 400), 4), null, "its first chunk is gone");
  assert.deepEqual(own.skipped, []);
});

test("empty chunks are bounded too", () => {
  const own = assembler();
  for (let message = 0; message < 3; message++) {
    for (let index = 0; index < 65_535; index++) own.add(chunk(`${message}`, index, 65_536, 0), 0);
  }
  assert.equal(own.hasDropped, true);
  assert.equal(own.add(chunk("0", 65_535, 65_536, 0), 0), null);
  assert.equal(own.add(chunk("2", 65_535, 65_536, 0), 0).payload.length, 0);
});

test("a message is given up some time after its last chunk", () => {
  const own = assembler();
  own.add(chunk("a", 0, 3), 0);
  own.add(chunk("b", 0, 2), 10);
  own.add(chunk("a", 1, 3), 50);
  assert.equal(own.nextExpiryMs, 110);
  own.expire(109);
  assert.deepEqual(own.skipped, []);
  own.expire(110);
  assert.deepEqual(own.skipped, [{ messageId: "b", reason: "incomplete" }]);
  assert.equal(own.nextExpiryMs, 150);
  own.expire(150);
  assert.equal(own.skipped.length, 2);
  assert.equal(own.nextExpiryMs, Infinity);
  own.add(chunk("a", 0, 3), 160);
  own.expire(1_000);
  assert.equal(own.skipped.length, 2, "what was given up is not begun again by the same chunks");
});

test("a message that was too old goes on when its sender does", () => {
  const own = assembler();
  own.add(chunk("a", 0, 2), 0);
  own.expire(AGE_MS);
  assert.equal(own.add({ ...chunk("a", 1, 2), arrivalMs: 5 }, 200), null);
  assert.equal(own.hasDropped, true, "so that the first chunk is read again");
  assert.equal(own.add(chunk("a", 0, 2), 210).payload.length, 20);
});
