// How often a queue is read again for what did not fit into memory.

import assert from "node:assert/strict";
import { Rereads } from "../dist/rereads.js";
import { test } from "./helpers.mjs";

const MINUTE_MS = 60_000;

test("readings that complete nothing come less and less often, and at least once an hour", () => {
  const rereads = new Rereads();
  assert.equal(rereads.dueMs, -Infinity, "the first is due at once");
  const read = (isHelpful) => {
    rereads.begin();
    if (isHelpful) rereads.completed();
    rereads.end(0);
    // The end of the queue is reached again, with what has come meanwhile.
    rereads.end(MINUTE_MS);
    return rereads.dueMs / MINUTE_MS;
  };
  assert.deepEqual(Array.from({ length: 7 }, () => read(false)), [2, 4, 8, 16, 32, 60, 60]);
  rereads.completed();
  assert.equal(read(false), 60, "a message that was completed before is no reason");
  assert.deepEqual([read(true), read(false)], [1, 2]);
});
