// Copies the built client to the demonstration in deploy/demo, which loads nothing from elsewhere.

import { copyFileSync } from "node:fs";

copyFileSync(
  new URL("../dist/relay.js", import.meta.url),
  new URL("../../../deploy/demo/relay.js", import.meta.url),
);
