// Where pages come from: pulls that wait, pulls at intervals, or a stream. A source makes one
// request at a time and repeats none; whoever calls it decides what an error means.

import { byeOf, pageOf, type Page, type RelayInfo } from "./answers.js";
import type { Connection, Proof } from "./connection.js";
import { brokenAnswer, RelayError } from "./errors.js";
import { parse, type HttpRequest, type Lines } from "./http.js";
import { monotonicMs, sleep } from "./timing.js";
import type { PullRequest, StreamRequest } from "./wire.js";

/** The shortest that a relay grants. */
const KEEPALIVE_MS = 15_000;
/** A stream that ends sooner, and without a page, has failed. */
const STREAM_MS_MIN = 1_000;

export interface PageSource {
  /** Whether it has a connection while nobody asks for a page. */
  readonly isOpen: boolean;
  /**
   * The next page after this cursor. A pull waits for `idleMs` at most, and its page may be empty.
   * A stream has null when the relay sends a sign of life or ends it, whatever `idleMs` is.
   */
  next(cursor: string | null, idleMs: number): Promise<Page | null>;
  close(): void;
}

/** What a source needs to ask the relay. */
export interface Queue {
  readonly connection: Connection;
  readonly info: RelayInfo;
  readonly proof: Proof;
  readonly signal: AbortSignal;
}

export function openSource(queue: Queue, transport: "wait" | "stream"): PageSource {
  const isStream = transport === "stream" && queue.info.features.has("stream");
  return new CarefulSource(queue, isStream ? new StreamSource(queue) : new PullSource(queue));
}

/** After a page that is too large, it pulls one item at a time until there is no other. */
class CarefulSource implements PageSource {
  readonly #whole: PageSource;
  readonly #single: PullSource;
  #isSingle = false;

  constructor(queue: Queue, whole: PageSource) {
    this.#whole = whole;
    this.#single = new PullSource(queue, 1);
  }

  get isOpen(): boolean {
    return this.#whole.isOpen;
  }

  async next(cursor: string | null, idleMs: number): Promise<Page | null> {
    if (!this.#isSingle) {
      try {
        return await this.#whole.next(cursor, idleMs);
      } catch (error) {
        if (!(error instanceof RelayError) || error.code !== "answer_too_large") throw error;
        this.#isSingle = true;
      }
    }
    const page = await this.#single.next(cursor, idleMs);
    this.#isSingle = !page.isLast;
    return page;
  }

  close(): void {
    this.#whole.close();
  }
}

class PullSource implements PageSource {
  readonly isOpen = false;
  readonly #queue: Queue;
  readonly #max: number | undefined;
  /** How long to pause before the next pull. */
  #pauseMs = 0;

  /** `max` is the most items of a page, if not what the relay gives. */
  constructor(queue: Queue, max?: number) {
    this.#queue = queue;
    this.#max = max;
  }

  async next(cursor: string | null, idleMs: number): Promise<Page> {
    const { connection, info, signal, proof } = this.#queue;
    const { waitMs, pollIntervalMs, requestTimeoutMs } = connection.settings;
    const pauseMs = Math.min(this.#pauseMs, idleMs);
    this.#pauseMs = 0;
    if (pauseMs > 0) await sleep(pauseMs, signal);
    const canWait = info.features.has("wait");
    const asked = canWait ? Math.ceil(Math.min(waitMs, info.waitMs, idleMs)) : 0;
    const body: PullRequest = { recipient: proof.recipient, ...(cursor === null ? {} : { cursor }) };
    if (this.#max !== undefined) body.max = this.#max;
    if (canWait) body.wait_ms = asked;
    if (info.features.has("tail")) body.tail = true;
    const start = monotonicMs();
    const page = await this.#pull(body, requestTimeoutMs + asked);
    // Also a relay or proxy that does not let pulls wait is not asked all the time.
    const isEmpty = page.chunks.length === 0;
    if (!canWait && page.isLast) this.#pauseMs = pollIntervalMs;
    else if (isEmpty) this.#pauseMs = Math.min(asked, pollIntervalMs) - (monotonicMs() - start);
    return page;
  }

  close(): void {}

  async #pull(body: PullRequest, timeoutMs: number): Promise<Page> {
    const { connection, info, signal, proof } = this.#queue;
    const request = { path: "/pull", body, timeoutMs, bytesMax: info.pageTextBytes, signal };
    const page = pageOf(await connection.json(request, proof));
    if (!page) throw brokenAnswer("the relay's answer is not a page");
    return page;
  }
}

class StreamSource implements PageSource {
  readonly #queue: Queue;
  #lines: Lines | null = null;
  #openedMs = 0;
  #hasPage = false;

  constructor(queue: Queue) {
    this.#queue = queue;
  }

  get isOpen(): boolean {
    return this.#lines !== null;
  }

  async next(cursor: string | null): Promise<Page | null> {
    const lines = (this.#lines ??= await this.#open(cursor));
    const { requestTimeoutMs } = this.#queue.connection.settings;
    try {
      const line = await lines.next(KEEPALIVE_MS + requestTimeoutMs);
      const event = line === null ? null : parse(line);
      const bye = byeOf(event);
      if (event === null || bye !== null) return this.#end(bye);
      const page = pageOf(event);
      this.#hasPage ||= page !== null;
      return page;
    } catch (error) {
      this.close();
      throw error;
    }
  }

  close(): void {
    this.#lines?.close();
    this.#lines = null;
  }

  async #open(cursor: string | null): Promise<Lines> {
    const { connection, info, signal, proof } = this.#queue;
    const body: StreamRequest = { recipient: proof.recipient, keepalive_ms: KEEPALIVE_MS };
    if (cursor !== null) body.cursor = cursor;
    const { requestTimeoutMs: timeoutMs } = connection.settings;
    const request: HttpRequest = {
      path: "/stream",
      body,
      timeoutMs,
      bytesMax: info.pageTextBytes,
      signal,
    };
    const lines = await connection.lines(request, proof);
    this.#openedMs = monotonicMs();
    this.#hasPage = false;
    return lines;
  }

  /** The relay ends each stream at some time. Too early is an error, after which comes a pause. */
  #end(bye: string | null): null {
    this.close();
    const isEarly = !this.#hasPage && monotonicMs() - this.#openedMs < STREAM_MS_MIN;
    if (isEarly || bye === "error") {
      throw new RelayError("unreachable", `the stream ended: ${bye ?? "without an event"}`);
    }
    return null;
  }
}
