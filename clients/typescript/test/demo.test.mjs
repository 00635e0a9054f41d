// The demonstration in deploy/demo, with a page that has its elements and nothing more.

import assert from "node:assert/strict";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { eventually, testWithRelay } from "./helpers.mjs";

const DEMO = fileURLToPath(new URL("../../../deploy/demo/", import.meta.url));

/** An element, as far as the page uses it. */
class Element extends EventTarget {
  classList = { toggle() {} };
  childElementCount = 0;
  children = [];

  append(...children) {
    this.children.push(...children);
  }

  focus() {}
  scrollIntoView() {}

  get text() {
    return (this.textContent ?? "") + this.children.map((child) => child.text ?? child).join("");
  }
}

/** What the page does when it is left. */
let leave = () => {};

/** Loads the page from a copy whose files are modules for Node too. Returns its elements by id. */
async function load(directory) {
  cpSync(DEMO, directory, { recursive: true });
  writeFileSync(join(directory, "package.json"), '{"type":"module"}');
  const html = readFileSync(join(directory, "index.html"), "utf8");
  const ids = [...html.matchAll(/ id="([^"]*)"/g)].map(([, id]) => id);
  const elements = ids.map((id) => Object.assign(new Element(), { id }));
  const location = { hash: "", search: "", href: "http://localhost/", origin: "http://localhost" };
  const document = { querySelectorAll: () => elements, createElement: () => new Element() };
  const history = { replaceState() {} };
  const addEventListener = (_, listener) => (leave = listener);
  Object.assign(globalThis, { document, location, history, addEventListener });
  await import(pathToFileURL(join(directory, "demo.js")));
  return Object.fromEntries(elements.map((own) => [own.id, own]));
}

testWithRelay("a window goes on listening, whatever others send", async ({ relay, client }) => {
  const directory = mkdtempSync(join(tmpdir(), "relay-demo-"));
  try {
    const page = await load(directory);
    const { makeIdentity, readCard, seal } = await import(pathToFileURL(join(directory, "seal.js")));
    page.relay.value = relay.url;
    page["setup-form"].dispatchEvent(new Event("submit"));
    await eventually(() => page.link.value);
    const card = readCard(page.link.value);
    const other = await makeIdentity(relay.url);
    const broken = { ...other.card, key: "!!!" };
    for (const value of [
      null,
      5,
      { hello: 5 },
      { hello: broken },
      { hello: other.card, number: 1 },
      null,
      { text: "hello", number: 2 },
    ]) {
      await client.push(card.recipient, await seal(other, card, value), { sendSecret: card.send });
    }
    await eventually(() => page.log.text === "Other: hello");
    await eventually(() => relay.items.length === 0);
    assert.equal(page.error.text, "");
  } finally {
    leave();
    rmSync(directory, { recursive: true });
  }
});
