// A bot that sends every message back. Its queue opens to its secret alone. A message says in its first
// line who gets the answer: node examples/echo-bot.mjs

import { Client, Credentials, generateSecret, recipientOfSecret, RelayError } from "../dist/index.js";

const client = new Client(process.env.RELAY_URL ?? "http://127.0.0.1:7000");
const secret = process.env.BOT_SECRET ?? generateSecret();
const recipient = await recipientOfSecret(secret);
console.log(`the bot is ${recipient}`);
console.log(`send it a file whose first line is your name: examples/send-file.mjs FILE ${recipient}`);

process.once("SIGINT", () => void client.close());
for await (const message of client.deliveries(recipient, Credentials.secret(secret))) {
  const [sender, ...lines] = new TextDecoder().decode(message.payload).split("\n");
  try {
    // With the same id, a bot that starts again after a crash answers once.
    await client.push(sender, lines.join("\n"), { messageId: message.messageId });
  } catch (error) {
    // A sender who cannot be answered must not stop the bot.
    if (!(error instanceof RelayError) || error.isWorthRetry) throw error;
    console.error(`no answer to a message: ${error.code}`);
  }
  await message.ack();
}
