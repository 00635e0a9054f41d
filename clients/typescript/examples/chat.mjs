// A chat between two terminals, not encrypted: node examples/chat.mjs ME YOU

import { createInterface } from "node:readline";
import { Client } from "../dist/index.js";

const [me, you] = process.argv.slice(2);
if (!you) {
  console.error("usage: chat.mjs ME YOU");
  process.exit(2);
}
const client = new Client(process.env.RELAY_URL ?? "http://127.0.0.1:7000");

/** Text of others, without what moves the cursor, begins a line or turns its direction. */
function harmless(text) {
  const hex = (char) => char.codePointAt(0).toString(16).padStart(4, "0");
  return text.replace(/[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu, (char) => `\\u${hex(char)}`);
}

async function receive() {
  for await (const message of client.deliveries(me, null, { transport: "stream" })) {
    const time = new Date(message.sentMs).toLocaleTimeString();
    console.log(`${time} ${you}: ${harmless(new TextDecoder().decode(message.payload))}`);
    void message.ack();
  }
}

receive().catch((error) => {
  console.error(`receiving failed: ${harmless(error.message)}`);
  process.exitCode = 1;
});
console.log("A line is a message. End with Ctrl-D.");
for await (const line of createInterface({ input: process.stdin })) {
  try {
    await client.push(you, line);
  } catch (error) {
    console.error(`not sent: ${harmless(error.message)}`);
  }
}
await client.close();
