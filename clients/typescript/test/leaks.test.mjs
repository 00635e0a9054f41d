// Nothing is left of a client that is not used any more: a program ends by itself, whatever it leaves
// behind.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { item } from "./fake.mjs";
import { eventually, testWithRelay } from "./helpers.mjs";

const INDEX = new URL("../dist/index.js", import.meta.url);

/** Timers of the programs are so many times as fast. */
const HURRY = 20;

/** Runs a program with a client; resolves with its exit code and how long it took. */
async function run(relay, script) {
  const head = `
    const { setTimeout: slowly } = globalThis;
    globalThis.setTimeout = (call, ms, ...rest) => slowly(call, ms / ${HURRY}, ...rest);
    import { Client } from ${JSON.stringify(INDEX.href)};
    const client = new Client(${JSON.stringify(relay.url)}, { waitMs: 25000 });
    const open = (transport) => client.deliveries("alice", null, { transport });
  `;
  const start = performance.now();
  const child = spawn(process.execPath, ["--input-type=module", "-e", head + script], { stdio: "inherit" });
  const code = await new Promise((resolve) => child.once("exit", resolve));
  return { code, ms: performance.now() - start };
}

for (const transport of ["wait", "stream"]) {
  for (const [what, script, msMax] of [
    ["a loop with break", `for await (const message of open("${transport}")) break;`, 5_000],
    ["an iterator that is never used", `open("${transport}");`, 5_000],
    ["an iterator that is forgotten", `await open("${transport}").next();`, 5_000],
    [
      "a wait that is closed",
      `const deliveries = open("${transport}");
       const { value } = await deliveries.next();
       const next = deliveries.next();
       setTimeout(() => deliveries.close(), 100);
       if (!(await next).done) process.exit(1);`,
      5_000,
    ],
    [
      "an ack that nobody waits for, and close",
      `for await (const message of open("${transport}")) { void message.ack(); break; }
       void client.close();`,
      5_000,
    ],
  ]) {
    testWithRelay(`nothing is left of ${what}: ${transport}`, async ({ relay }) => {
      relay.put(item("alice", 1));
      const { code, ms } = await run(relay, script);
      assert.equal(code, 0);
      assert.ok(ms < msMax, `${ms}`);
      if (what.startsWith("an ack")) assert.deepEqual(relay.items, []);
    });
  }
}

testWithRelay(
  "a wait that is closed gives its connection up",
  async ({ relay, client }) => {
    for (const [path, transport] of [
      ["/pull", "wait"],
      ["/stream", "stream"],
    ]) {
      const deliveries = client.deliveries("alice", null, { transport });
      const next = deliveries.next();
      await eventually(() => relay.to(path).length > 0);
      const { response } = relay.to(path).at(-1);
      await deliveries.close();
      assert.equal((await next).done, true);
      await eventually(() => response.socket === null || response.socket.destroyed);
    }
  },
  { options: { waitMs: 20_000 } },
);
