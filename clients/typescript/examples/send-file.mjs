// Pushes a file, of any length: node examples/send-file.mjs FILE RECIPIENT

import { openAsBlob } from "node:fs";
import { basename } from "node:path";
import { Client } from "../dist/index.js";

const [path, recipient] = process.argv.slice(2);
if (!recipient) {
  console.error("usage: send-file.mjs FILE RECIPIENT");
  process.exit(2);
}
const client = new Client(process.env.RELAY_URL ?? "http://127.0.0.1:7000");
const file = await openAsBlob(path);
const { messageId } = await client.push(recipient, file, { kind: "attachment" });
console.log(`${basename(path)}: ${file.size} bytes, stored as ${messageId}`);
await client.close();
