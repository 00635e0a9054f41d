// The package: the types of the wire are current, the single file is whole, the library works without
// Node's modules, and what is published is what should be.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { test } from "./helpers.mjs";

const ROOT = new URL("../", import.meta.url);
const CWD = fileURLToPath(ROOT);

test("the types of requests and responses are those of docs/openapi.json", () => {
  execFileSync(process.execPath, ["scripts/wire.mjs", "--check"], { cwd: CWD, stdio: "inherit" });
});

test("dist/relay.js has everything that dist/index.js has", async () => {
  const [whole, parts] = await Promise.all([import("../dist/relay.js"), import("../dist/index.js")]);
  assert.deepEqual(Object.keys(whole), Object.keys(parts));
  assert.ok(!/^import /m.test(readFileSync(new URL("dist/relay.js", ROOT), "utf8")));
});

test("the demonstration has this client", () => {
  const [built, copied] = ["dist/relay.js", "../../deploy/demo/relay.js"].map((path) =>
    readFileSync(new URL(path, ROOT), "utf8"),
  );
  assert.ok(built === copied, "deploy/demo/relay.js is not current; run: npm run demo");
});

test("the library uses no module but its own", () => {
  for (const name of readdirSync(new URL("src/", ROOT))) {
    const text = readFileSync(new URL(`src/${name}`, ROOT), "utf8");
    for (const [, from] of text.matchAll(/ from "([^"]*)"/g)) assert.match(from, /^\.\/\w+\.js$/, name);
  }
});

test("the package has the compiled library and nothing else", () => {
  const output = execFileSync("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], {
    cwd: CWD,
    stdio: ["ignore", "pipe", "ignore"],
  });
  const paths = JSON.parse(output)[0].files.map(({ path }) => path);
  for (const path of paths) assert.match(path, /^(dist\/\w+\.(js|d\.ts)|LICENSE|README\.md|package\.json)$/);
  for (const path of ["dist/index.js", "dist/index.d.ts", "dist/relay.js", "LICENSE", "README.md"]) {
    assert.ok(paths.includes(path), path);
  }
});
