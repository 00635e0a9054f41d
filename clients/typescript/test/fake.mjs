// A small server that stands for the relay in tests: queues in memory, waits by polling itself, and
// faults that a test orders. It checks what the client sends as far as the tests need it.

import { createServer } from "node:http";

const INFO = {
  version: "test",
  server_ms: Date.now(),
  features: ["wait", "tail", "stream", "batch", "item_proof", "ttl", "ack_before", "purge", "cbor"],
  limits: {
    recipient_bytes: 512,
    kind_bytes: 64,
    message_bytes: 8388608,
    queue_items: 200000,
    queue_bytes: 1073741824,
    batch_items: 256,
    batch_bytes: 16777216,
    ack_items: 10000,
    page_items: 256,
    page_bytes: 8388608,
    ttl_seconds: 1209600,
    dedup_window_seconds: 300,
    wait_ms: 55000,
  },
};

export class FakeRelay {
  /** Items in the order of their arrival; `at` is their place for ever. */
  items = [];
  #arrivals = 0;
  #waiting = new Set();
  /** Each request that came, with its path, body and headers. */
  requests = [];
  /**
   * Is called for each request. It may answer by itself and return true, or return `{ cut: n }` for
   * a connection that ends after n bytes of the body of the true answer.
   */
  fault = () => undefined;
  pageItems = 256;

  static async start({ isOld = false, limits = {} } = {}) {
    const relay = new FakeRelay();
    relay.isOld = isOld;
    relay.info = { ...INFO, limits: { ...INFO.limits, ...limits } };
    relay.server = createServer((request, response) => void relay.#serve(request, response));
    await new Promise((resolve) => relay.server.listen(0, "127.0.0.1", resolve));
    relay.url = `http://127.0.0.1:${relay.server.address().port}`;
    return relay;
  }

  async stop() {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  /** The requests with this path. */
  to(path) {
    return this.requests.filter((request) => request.path === path);
  }

  /** Puts an item into the queue. */
  put(item) {
    const isKnown = (own) =>
      own.message_id === item.message_id && own.meta.chunk_index === item.meta.chunk_index;
    if (this.items.some(isKnown)) return { stored: false, duplicate: true, queue_len: 0, queue_bytes: 0 };
    this.#arrivals += 1;
    this.items.push({ arrival_ms: Date.now(), deadline_ms: 0, ...item, at: this.#arrivals });
    for (const wake of this.#waiting) wake();
    return { stored: true, queue_len: 0, queue_bytes: 0 };
  }

  async #serve(request, response) {
    const parts = [];
    for await (const part of request) parts.push(part);
    const body = parts.length === 0 ? undefined : JSON.parse(Buffer.concat(parts).toString());
    const seen = { path: request.url, body, headers: request.headers, response };
    this.requests.push(seen);
    const fault = await this.fault(seen);
    if (fault === true) return;
    if (request.url === "/stream") return this.#stream(body, request, response, fault?.cut);
    const [status, answer] = await this.#answer(request, body);
    const text = JSON.stringify(answer);
    response.writeHead(status, { "content-length": Buffer.byteLength(text) });
    if (fault?.cut === undefined) return response.end(text);
    response.write(text.slice(0, fault.cut), () => response.destroy());
  }

  async #answer(request, body) {
    switch (request.url) {
      case "/push":
        return [200, this.put(body)];
      case "/ack":
        return [200, this.#ack(body)];
      case "/pull":
        return [200, await this.#pull(body, request)];
      case "/info":
        if (!this.isOld) return [200, this.info];
        break;
      case "/push/batch":
        if (!this.isOld) return [200, { results: body.items.map((item) => this.put(item)) }];
        break;
    }
    return [404, { error: { code: "not_found", message: "no such path" } }];
  }

  #ack({ recipient, ack }) {
    const before = this.items.length;
    const isAcked = (item) =>
      ack.some(
        (entry) => entry.message_id === item.message_id && entry.chunk_index === item.meta.chunk_index,
      );
    this.items = this.items.filter((item) => item.recipient !== recipient || !isAcked(item));
    const deleted = before - this.items.length;
    return { deleted, missing: ack.length - deleted, remaining: this.items.length };
  }

  async #pull({ recipient, cursor, max, wait_ms, tail }, request) {
    const until = Date.now() + (this.isOld ? 0 : (wait_ms ?? 0));
    while (this.#after(recipient, cursor).length === 0 && Date.now() < until && !request.socket.destroyed) {
      await this.#arrival(until - Date.now(), request);
    }
    const page = this.#page(recipient, cursor, max);
    const hasCursor = page.remaining_estimate > 0 || (tail && !this.isOld);
    return { ...page, next_cursor: hasCursor ? (page.next_cursor ?? cursor ?? null) : null };
  }

  #after(recipient, cursor) {
    return this.items.filter((item) => item.recipient === recipient && item.at > Number(cursor ?? 0));
  }

  #page(recipient, cursor, max = this.pageItems) {
    const following = this.#after(recipient, cursor);
    const items = following.slice(0, Math.min(max, this.pageItems));
    const last = items.at(-1);
    const next_cursor = last ? String(last.at) : null;
    const shown = items.map(({ at, ...item }) => item);
    return { items: shown, next_cursor, remaining_estimate: following.length - items.length };
  }

  /** Waits for the next item, this long, or until the client is gone. */
  async #arrival(ms, request) {
    await new Promise((resolve) => {
      const wake = () => {
        clearTimeout(timer);
        this.#waiting.delete(wake);
        request.socket.off("close", wake);
        resolve();
      };
      const timer = setTimeout(wake, ms);
      this.#waiting.add(wake);
      request.socket.once("close", wake);
    });
  }

  async #stream({ recipient, cursor }, request, response, cut) {
    response.writeHead(200, { "content-type": "application/x-ndjson" });
    response.flushHeaders();
    let after = cursor;
    while (!request.socket.destroyed && !response.writableEnded) {
      const page = this.#page(recipient, after);
      if (page.items.length > 0) {
        after = page.next_cursor;
        const line = `${JSON.stringify(page)}\n`;
        if (cut === undefined) response.write(line);
        else response.write(line.slice(0, cut), () => response.destroy());
      } else {
        await this.#arrival(60_000, request);
      }
    }
  }
}

/** Answers a request with an error of the relay, once for each call. */
export function refuse({ response }, status, code, details, headers = {}) {
  response.writeHead(status, headers);
  response.end(JSON.stringify({ error: { code, message: code, ...(details && { details }) } }));
  return true;
}

/** An item as a sender of any language makes it. */
export function item(recipient, number, { index = 0, count = 1, payload = `message ${number}`, total } = {}) {
  const bytes = Buffer.from(payload);
  return {
    recipient,
    message_id: `00000000-0000-4000-8000-${String(number).padStart(12, "0")}`,
    ciphertext_b64: bytes.toString("base64"),
    meta: {
      kind: "opaque",
      total_len: total ?? bytes.length * count,
      chunk_index: index,
      chunk_count: count,
      sent_ms: 5,
    },
  };
}

/** The number in a message id of `item`. */
export function numberOf({ messageId }) {
  return Number(messageId.split("-").at(-1));
}
