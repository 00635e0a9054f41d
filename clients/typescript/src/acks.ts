// Acks of one recipient: they wait a moment for each other, go together, and are repeated until the
// relay has confirmed them. While nothing waits, there is no timer and no request.

import { checkAck } from "./answers.js";
import type { Connection, Proof } from "./connection.js";
import { asRelayError, closedError, type RelayError } from "./errors.js";
import { SMALL_BYTES_MAX } from "./http.js";
import { Retry } from "./timing.js";
import type { AckEntry } from "./wire.js";

/** How long acks are still tried when nobody pulls any more. */
const FLUSH_MS = 5_000;

/** The ack of chunks of one message, which may take several requests. */
interface Waiting {
  readonly messageId: string;
  /** The chunks that no request has taken yet. */
  next: number;
  readonly end: number;
  unconfirmed: number;
  resolve(): void;
  reject(error: RelayError): void;
}

export class AckQueue {
  #waiting: Waiting[] = [];
  #count = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #sending: Promise<void> | undefined;
  #isEnded = false;
  #stop = new AbortController();

  constructor(
    private readonly connection: Connection,
    private readonly proof: Proof,
  ) {}

  /** How many entries wait for a request. */
  get length(): number {
    return this.#count;
  }

  /**
   * Acks the chunks from `first` to before `end`, and resolves when that is durable.
   *
   * @throws RelayError if the relay refuses it, or `closed`.
   */
  add(messageId: string, first: number, end: number): Promise<void> {
    const count = end - first;
    this.#count += count;
    const done = new Promise<void>((resolve, reject) => {
      this.#waiting.push({ messageId, next: first, end, unconfirmed: count, resolve, reject });
    });
    const { ackMax, ackDelayMs } = this.connection.settings;
    if (this.#isEnded || this.#count >= ackMax) this.#send();
    else this.#timer ??= setTimeout(() => this.#send(), ackDelayMs);
    return done;
  }

  /** Sends what waits. From now on, an ack is tried for a short time only. */
  async end(): Promise<void> {
    this.#isEnded = true;
    if (this.#count > 0) this.#send();
    if (!this.#sending) return;
    const stop = this.#stop;
    const timer = setTimeout(() => stop.abort(), FLUSH_MS);
    await this.#sending;
    clearTimeout(timer);
  }

  #send(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#sending ??= this.#run().finally(() => (this.#sending = undefined));
  }

  /** One request after another, until nothing waits. */
  async #run(): Promise<void> {
    this.#stop = new AbortController();
    const { signal } = this.#stop;
    const retry = new Retry(this.#isEnded ? FLUSH_MS : Infinity, signal);
    while (this.#count > 0) {
      const taken = this.#take();
      try {
        await this.#request(taken, retry);
        for (const [waiting, entries] of taken) confirm(waiting, entries.length);
      } catch (thrown) {
        const error = asRelayError(thrown, "unreachable");
        const isOver = this.#isEnded && (error.isWorthRetry || signal.aborted);
        if (isOver) this.#fail([...taken.keys(), ...this.#waiting], closedError());
        else this.#fail([...taken.keys()], error);
      }
    }
  }

  /** The entries of the next request, by the ack that they belong to. */
  #take(): Map<Waiting, AckEntry[]> {
    const taken = new Map<Waiting, AckEntry[]>();
    let room = this.connection.settings.ackMax;
    for (const waiting of this.#waiting) {
      if (room === 0) break;
      const entries: AckEntry[] = [];
      for (; waiting.next < waiting.end && room > 0; waiting.next++, room--) {
        entries.push({ message_id: waiting.messageId, chunk_index: waiting.next });
      }
      taken.set(waiting, entries);
      this.#count -= entries.length;
    }
    this.#waiting = this.#waiting.filter((waiting) => waiting.next < waiting.end);
    return taken;
  }

  async #request(taken: Map<Waiting, AckEntry[]>, retry: Retry): Promise<void> {
    const body = { recipient: this.proof.recipient, ack: [...taken.values()].flat() };
    const { signal } = this.#stop;
    const { requestTimeoutMs } = this.connection.settings;
    for (;;) {
      const timeoutMs = retry.requestMs(requestTimeoutMs);
      const request = { path: "/ack", body, timeoutMs, bytesMax: SMALL_BYTES_MAX, signal };
      try {
        checkAck(await this.connection.json(request, this.proof));
        retry.progress();
        return;
      } catch (error) {
        await retry.pause(error);
      }
    }
  }

  /** These acks failed, with all of their entries. */
  #fail(failed: Waiting[], error: RelayError): void {
    this.#waiting = this.#waiting.filter((waiting) => !failed.includes(waiting));
    for (const waiting of failed) {
      this.#count -= waiting.end - waiting.next;
      waiting.next = waiting.end;
      waiting.reject(error);
    }
  }
}

function confirm(waiting: Waiting, entries: number): void {
  waiting.unconfirmed -= entries;
  if (waiting.unconfirmed === 0) waiting.resolve();
}
