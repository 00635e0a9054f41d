// Takes the next message of a recipient, writes it to a file, and acks it when it is on disk:
// node examples/receive-file.mjs RECIPIENT [FILE]

import { open } from "node:fs/promises";
import { Client } from "../dist/index.js";

const [recipient, path] = process.argv.slice(2);
if (!recipient) {
  console.error("usage: receive-file.mjs RECIPIENT [FILE]");
  process.exit(2);
}
const client = new Client(process.env.RELAY_URL ?? "http://127.0.0.1:7000");
for await (const message of client.deliveries(recipient)) {
  const name = path ?? `${message.messageId}.bin`;
  const file = await open(name, "wx");
  await file.writeFile(message.payload);
  await file.sync();
  await file.close();
  await message.ack();
  console.log(`${name}: ${message.payload.length} bytes`);
  break;
}
await client.close();
