// Pauses between attempts, and what deadlines leave behind.

import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { RelayError } from "../dist/index.js";
import { pauseMs, Retry, sleep, withDeadline } from "../dist/timing.js";
import { failsWith, test } from "./helpers.mjs";

test("pauses double from 100 ms to 10 s, less a part by chance", () => {
  const most = [0, 1, 2, 6, 7, 1_000].map((failures) => pauseMs(failures, undefined, 1));
  assert.deepEqual(most, [100, 200, 400, 6_400, 10_000, 10_000]);
  assert.equal(pauseMs(0, undefined, 0), 50);
});

test("what the relay asks for is kept, and a little more by chance", () => {
  for (const asked of [0, 5, 1_000, 60_000]) {
    assert.equal(pauseMs(9, asked, 0), asked);
    const most = pauseMs(9, asked, 1);
    assert.ok(most > asked && most <= asked + 1_000, `${most}`);
  }
  assert.equal(pauseMs(0, 1e15, 0), 300_000, "but not for ever");
});

test("an error that is not worth a retry ends the attempts", async () => {
  const retry = new Retry(Infinity, new AbortController().signal);
  await failsWith(retry.pause(new RelayError("forbidden", "")), "forbidden");
  await assert.rejects(retry.pause(new TypeError("a fault")), TypeError);
});

test("a deadline and a pause leave no listener behind, however they end", async () => {
  const { signal } = new AbortController();
  assert.equal(await withDeadline(5_000, signal, async () => 1), 1);
  await failsWith(
    withDeadline(5_000, signal, () => Promise.reject(new Error())),
    "unreachable",
  );
  const untilAborted = (own) => new Promise((_, reject) => own.addEventListener("abort", reject));
  await failsWith(withDeadline(1, signal, untilAborted), "timeout");
  await sleep(1, signal);
  assert.deepEqual(getEventListeners(signal, "abort"), []);
});

test("a signal ends deadlines and pauses, also one that was given before", async () => {
  const stop = new AbortController();
  const never = (signal) => new Promise((_, reject) => signal.addEventListener("abort", reject));
  const ends = [withDeadline(60_000, stop.signal, never), sleep(60_000, stop.signal)];
  stop.abort();
  for (const end of [...ends, withDeadline(60_000, stop.signal, never), sleep(60_000, stop.signal)]) {
    await failsWith(end, "closed");
  }
});
