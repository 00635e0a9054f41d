// The examples: what a sender can do to the terminal of the reader.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { item } from "./fake.mjs";
import { eventually, testWithRelay } from "./helpers.mjs";

const CHAT = fileURLToPath(new URL("../examples/chat.mjs", import.meta.url));

testWithRelay("the chat shows what would move the cursor or forge a line as text", async ({ relay }) => {
  relay.put(item("ann", 1, { payload: "h\u00e9llo \u{1f600}\u001b[2J\r\n12:00:00 bob: forged\u202e\u2028" }));
  const child = spawn(process.execPath, [CHAT, "ann", "bob"], {
    env: { ...process.env, RELAY_URL: relay.url },
    stdio: ["pipe", "pipe", "inherit"],
  });
  let shown = "";
  child.stdout.setEncoding("utf8").on("data", (text) => (shown += text));
  await eventually(() => shown.includes("forged"), 20_000);
  child.stdin.end();
  await new Promise((resolve) => child.once("close", resolve));
  const [, line, ...more] = shown.split("\n");
  const text = "bob: h\u00e9llo \u{1f600}\\u001b[2J\\u000d\\u000a12:00:00 bob: forged\\u202e\\u2028";
  assert.ok(line.endsWith(text), line);
  assert.deepEqual(more, [""]);
});
