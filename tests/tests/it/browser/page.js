// The script of the test pages. It talks to the relay as any page can, and knows nothing of tests.
"use strict";

const JSON_TYPE = "application/json";

/** The origin of the relay, which the page's address has behind `?`. */
const relay = location.search.slice(1);

/** An item of one chunk, whose message id ends with this number. */
function item(recipient, number) {
  const meta = { kind: "opaque", total_len: 5, chunk_index: 0, chunk_count: 1, sent_ms: 0 };
  return { recipient, message_id: messageId(number), ciphertext_b64: btoa("hello"), meta };
}

function messageId(number) {
  return `00000000-0000-4000-8000-${String(number).padStart(12, "0")}`;
}

function ack(recipient, number) {
  return { recipient, ack: [{ message_id: messageId(number), chunk_index: 0 }] };
}

/** What a page can read of a response. */
async function read(response) {
  const [retry_after, rate_limit, policy] = ["Retry-After", "RateLimit", "RateLimit-Policy"].map((name) =>
    response.headers.get(name),
  );
  return { status: response.status, body: await response.json(), retry_after, rate_limit, policy };
}

/** Posts JSON, about which a browser asks first. */
async function post(path, body, headers = {}) {
  const request = { method: "POST", headers: { "Content-Type": JSON_TYPE, ...headers } };
  return read(await fetch(relay + path, { ...request, body: JSON.stringify(body) }));
}

async function get(path) {
  return read(await fetch(relay + path));
}

async function postCompressed(path, body) {
  const compressed = new Blob([JSON.stringify(body)]).stream().pipeThrough(new CompressionStream("gzip"));
  const headers = { "Content-Type": JSON_TYPE, "Content-Encoding": "gzip" };
  return read(await fetch(relay + path, { method: "POST", headers, body: await new Response(compressed).blob() }));
}

/** Pulls until the rate limit refuses that, at most this often. */
async function pullUntilRefused(times) {
  for (let turn = 0; turn < times; turn++) {
    const response = await post("/pull", { recipient: "nobody" });
    if (response.status !== 200) return response;
  }
  return null;
}

/** A recipient with a lock, and the header that opens it (docs/auth.md). */
async function lockedRecipient() {
  const secret = crypto.getRandomValues(new Uint8Array(32));
  const digest = await crypto.subtle.digest("SHA-256", await new Blob(["relay/read/1\0", secret]).arrayBuffer());
  const base64url = (bytes) =>
    btoa(String.fromCharCode(...new Uint8Array(bytes)))
      .replaceAll("+", "-")
      .replaceAll("/", "_")
      .replaceAll("=", "");
  return { name: "sha256:" + base64url(digest), proof: { Authorization: "Bearer " + base64url(secret) } };
}

/** A stream of events. */
class EventReader {
  static async open(recipient, accept = "application/x-ndjson") {
    const events = new EventReader();
    events.aborter = new AbortController();
    const request = { method: "POST", headers: { "Content-Type": JSON_TYPE, Accept: accept } };
    const body = JSON.stringify({ recipient });
    const response = await fetch(relay + "/stream", { ...request, body, signal: events.aborter.signal });
    events.reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    events.text = "";
    return events;
  }

  /** The next line that is not empty. */
  async line() {
    for (;;) {
      const end = this.text.indexOf("\n");
      if (end < 0) {
        const { done, value } = await this.reader.read();
        if (done) throw new Error("the stream has ended");
        this.text += value;
        continue;
      }
      const line = this.text.slice(0, end);
      this.text = this.text.slice(end + 1);
      if (line) return line;
    }
  }
}

// What pages try whose origin is not listed.

/** Ways to send JSON. Each gives back what the page learns. */
const PUSHES = {
  async json(url, body) {
    return read(await fetch(url, { method: "POST", headers: { "Content-Type": JSON_TYPE }, body }));
  },
  // The others need no leave: text, or a blob, which goes without a content type.
  async text(url, body) {
    return (await fetch(url, { method: "POST", mode: "no-cors", body })).type;
  },
  async readable(url, body) {
    return read(await fetch(url, { method: "POST", body: new Blob([body]) }));
  },
  async opaque(url, body) {
    return (await fetch(url, { method: "POST", mode: "no-cors", body: new Blob([body]) })).type;
  },
  async unreferred(url, body) {
    const request = { method: "POST", mode: "no-cors", referrerPolicy: "no-referrer", body: new Blob([body]) };
    return (await fetch(url, request)).type;
  },
  request(url, body) {
    return new Promise((resolve) => {
      const request = new XMLHttpRequest();
      request.onloadend = () => resolve(request.status);
      request.open("POST", url);
      request.send(new Blob([body]));
    });
  },
  beacon(url, body) {
    return navigator.sendBeacon(url, new Blob([body]));
  },
  form: submit,
  // The last one, because the page keeps this policy.
  unreferredForm(url, body) {
    document.head.append(Object.assign(document.createElement("meta"), { name: "referrer", content: "no-referrer" }));
    return submit(url, body);
  },
};

/** Sends 250 requests a second, and waits for none of them. */
async function flood(url, seconds) {
  for (let second = 0; second < seconds; second++) {
    for (let number = 0; number < 250; number++) PUSHES.opaque(url, "{}").catch(String);
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

/** Submits a form into a frame. The form's only field makes the body, JSON with one field more. */
function submit(url, body) {
  const frame = document.createElement("iframe");
  frame.name = "frame " + Math.random();
  const form = document.createElement("form");
  Object.assign(form, { target: frame.name, method: "POST", enctype: "text/plain", action: url });
  const field = document.createElement("input");
  field.name = body.replace(/}$/, ',"form":"');
  field.value = '"}';
  form.append(field);
  document.body.append(frame, form);
  return new Promise((resolve) => {
    // A new frame loads an empty page first.
    frame.onload = () => resolve(frame.contentDocument?.body.innerText ?? "unreadable");
    form.submit();
  });
}

/** Sends an item in each way, and gives back what each shows. */
async function pushInAllWays(url, recipient) {
  const shown = {};
  for (const [number, [name, push]] of Object.entries(PUSHES).entries()) {
    try {
      shown[name] = await push(url, JSON.stringify(item(recipient, number)));
    } catch (error) {
      shown[name] = String(error);
    }
  }
  return shown;
}

/** Ways to get an address. */
const GETS = {
  async text(url) {
    return read(await fetch(url));
  },
  async opaque(url) {
    return (await fetch(url, { mode: "no-cors" })).type;
  },
  image: (url) => load("img", { src: url }),
  script: (url) => load("script", { src: url }),
  style: (url) => load("link", { rel: "stylesheet", href: url }),
  frame: (url) => load("iframe", { src: url }, (frame) => frame.contentDocument?.body.innerText ?? "unreadable"),
  source(url) {
    return new Promise((resolve) => {
      const source = new EventSource(url);
      source.onopen = () => resolve("open");
      source.onerror = () => resolve("error");
    });
  },
  socket(url) {
    return new Promise((resolve) => {
      const socket = new WebSocket(url.replace("http", "ws"));
      socket.onopen = () => resolve("open");
      socket.onerror = () => resolve("error");
    });
  },
};

function load(tag, properties, shown = () => "load") {
  const element = Object.assign(document.createElement(tag), properties);
  return new Promise((resolve) => {
    element.onload = () => resolve(shown(element));
    element.onerror = () => resolve("error");
    document.body.append(element);
  });
}

async function getInAllWays(url) {
  const shown = {};
  for (const [name, way] of Object.entries(GETS)) {
    try {
      shown[name] = await way(url);
    } catch (error) {
      shown[name] = String(error);
    }
  }
  return shown;
}

/** Lets a frame with an opaque origin send items. */
function pushFromFrame(properties, url, recipient) {
  const frame = Object.assign(document.createElement("iframe"), properties);
  return new Promise((resolve) => {
    addEventListener("message", (event) => resolve(event.data), { once: true });
    frame.onload = () => frame.contentWindow.postMessage({ url, recipient }, "*");
    document.body.append(frame);
  });
}

// In such a frame: does what its parent asks for.
addEventListener("message", async (event) => {
  if (event.source !== parent || parent === self) return;
  const { url, recipient } = event.data;
  const shown = await pushInAllWays(url, recipient);
  parent.postMessage({ origin: self.origin, shown }, "*");
});
