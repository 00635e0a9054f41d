// Messages of one recipient, as an async iterator. It pulls only while somebody asks for the next
// message, so one that is abandoned does nothing.

import { AckQueue } from "./acks.js";
import { Assembler, keyOf, type Assembled, type SkipReason } from "./assembler.js";
import type { Chunk, Page } from "./answers.js";
import type { Connection, Proof } from "./connection.js";
import { brokenAnswer, RelayError } from "./errors.js";
import { Rereads } from "./rereads.js";
import { openSource, type PageSource } from "./sources.js";
import { monotonicMs, Retry } from "./timing.js";

/** How long a stream stays open while nobody asks for a message. */
const UNATTENDED_MS = 10_000;
const ACKED_KEYS_MAX = 4_096;

/** A message with all of its chunks. */
export interface Message {
  readonly messageId: string;
  readonly kind: string;
  readonly payload: Uint8Array;
  /** The sender's clock. */
  readonly sentMs: number;
  /** When its last chunk came to the relay, by the relay's clock. */
  readonly arrivalMs: number;
  /**
   * Deletes the message from the relay, and resolves when that is durable. It is tried until the
   * deliveries end, and for five seconds more. A message without an ack comes again in the next
   * session.
   */
  ack(): Promise<void>;
}

export interface DeliveryOptions {
  /** Whether each request waits for one page (the default), or one goes on with all pages. */
  transport?: "wait" | "stream";
  /** Is told of each message that is not handed out. It stays on the relay until it expires. */
  onSkipped?: (messageId: string, reason: SkipReason) => void;
}

/** A message that was handed out, or is about to be, whose ack is not confirmed. */
interface Unacked {
  bytes: number;
}

export class Deliveries implements AsyncIterableIterator<Message> {
  readonly #connection: Connection;
  readonly #proof: Proof;
  readonly #options: DeliveryOptions;
  readonly #onEnd: (ended: Deliveries) => void;
  readonly #acks: AckQueue;
  readonly #assembler: Assembler;
  readonly #rereads = new Rereads();
  readonly #generator: AsyncGenerator<Message, void>;
  readonly #stop = new AbortController();
  readonly #ready: Message[] = [];
  readonly #unacked = new Map<string, Unacked>();
  #unackedBytes = 0;
  /** Those whose ack was confirmed last. */
  readonly #acked = new Set<string>();
  /** Called when there is more room for messages, or none is needed any more. */
  #onRoom: () => void = () => {};
  #cursor: string | null = null;
  #isIdle = false;

  /** Use `Client.deliveries`. */
  constructor(
    connection: Connection,
    proof: Proof,
    options: DeliveryOptions,
    onEnd: (ended: Deliveries) => void,
  ) {
    this.#connection = connection;
    this.#proof = proof;
    this.#options = options;
    this.#onEnd = onEnd;
    const { memoryBytes, partialAgeMs } = connection.settings;
    this.#acks = new AckQueue(connection, proof);
    this.#assembler = new Assembler(memoryBytes, partialAgeMs);
    this.#generator = this.#messages();
  }

  /**
   * The next message.
   *
   * @throws RelayError if there is no use in trying again, such as `forbidden`.
   */
  next(): Promise<IteratorResult<Message, void>> {
    return this.#generator.next();
  }

  /** Ends the deliveries, as `break` in a loop does. */
  async return(): Promise<IteratorResult<Message, void>> {
    await this.close();
    return { done: true, value: undefined };
  }

  /** Ends all waits, and sends the acks that wait, for at most five seconds. */
  async close(): Promise<void> {
    this.#stop.abort();
    this.#onRoom();
    await this.#generator.return();
    await this.#release();
  }

  async #release(): Promise<void> {
    await this.#acks.end();
    this.#onEnd(this);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async *#messages(): AsyncGenerator<Message, void> {
    const { signal } = this.#stop;
    const retry = new Retry(Infinity, signal);
    let source: PageSource | undefined;
    try {
      const info = await this.#connection.info(retry, signal);
      const queue = { connection: this.#connection, info, proof: this.#proof, signal };
      source = openSource(queue, this.#options.transport ?? "wait");
      while (!signal.aborted) {
        yield* this.#handOut(source);
        await this.#room(source);
        this.#sweep(source);
        await this.#readPage(source, retry);
      }
    } catch (error) {
      if (signal.aborted) return;
      // A loop does not call `return` after an error.
      void this.#release();
      throw error;
    } finally {
      source?.close();
    }
  }

  async *#handOut(source: PageSource): AsyncGenerator<Message, void> {
    while (this.#ready.length > 0 && !this.#stop.signal.aborted) {
      const timer = source.isOpen ? setTimeout(() => source.close(), UNATTENDED_MS) : undefined;
      try {
        yield this.#ready.shift()!;
      } finally {
        clearTimeout(timer);
      }
    }
  }

  /** Waits until the application has acked enough. */
  async #room(source: PageSource): Promise<void> {
    const { unackedMax, memoryBytes } = this.#connection.settings;
    const isFull = () => this.#unacked.size > unackedMax || this.#unackedBytes > memoryBytes;
    while (isFull() && !this.#stop.signal.aborted) {
      source.close();
      await new Promise<void>((resolve) => (this.#onRoom = resolve));
    }
  }

  async #readPage(source: PageSource, retry: Retry): Promise<void> {
    try {
      const page = await source.next(this.#cursor, this.#idleMs());
      retry.progress();
      if (page) this.#take(page);
    } catch (error) {
      const isRefused = this.#cursor !== null && isCursorRefused(error);
      if (isRefused) this.#cursor = null;
      await retry.pause(isRefused ? brokenAnswer("the relay does not know its cursor") : error);
    }
  }

  #take(page: Page): void {
    const now = monotonicMs();
    for (const chunk of page.chunks) {
      const key = keyOf(chunk);
      if (this.#unacked.has(key)) continue;
      if (this.#acked.has(key)) this.#ackAgain(chunk);
      else this.#keep(this.#assembler.add(chunk, now));
    }
    this.#cursor = page.cursor;
    this.#isIdle = page.isLast;
    if (page.isLast) this.#rereads.end(now);
    this.#report();
  }

  #keep(assembled: Assembled | null): void {
    if (!assembled) return;
    const { key, chunk, payload } = assembled;
    if (chunk.count > 1) this.#rereads.completed();
    this.#unacked.set(key, { bytes: payload.length });
    this.#unackedBytes += payload.length;
    this.#ready.push(this.#message(key, chunk, payload));
  }

  #message(key: string, chunk: Chunk, payload: Uint8Array): Message {
    let acked: Promise<void> | undefined;
    const ack = () => {
      acked ??= this.#ack(key, chunk).catch((error: unknown) => {
        acked = undefined;
        throw error;
      });
      // Who does not wait for an ack is not told of its failure either.
      acked.catch(() => {});
      return acked;
    };
    const { messageId, kind, sentMs, arrivalMs } = chunk;
    return { messageId, kind, payload, sentMs, arrivalMs, ack };
  }

  async #ack(key: string, { messageId, count }: Chunk): Promise<void> {
    const unacked = this.#unacked.get(key);
    if (unacked) {
      this.#unackedBytes -= unacked.bytes;
      unacked.bytes = 0;
      this.#onRoom();
    }
    await this.#acks.add(messageId, 0, count);
    this.#unacked.delete(key);
    this.#acked.add(key);
    const [first] = this.#acked;
    if (this.#acked.size > ACKED_KEYS_MAX) this.#acked.delete(first!);
    this.#onRoom();
  }

  /** The sender pushed a chunk again after the relay had forgotten it. */
  #ackAgain({ messageId, index }: Chunk): void {
    if (this.#acks.length >= ACKED_KEYS_MAX) return;
    this.#acks.add(messageId, index, index + 1).catch(() => {});
  }

  /** Gives up what is too old, and reads the queue again if that is due. */
  #sweep(source: PageSource): void {
    const now = monotonicMs();
    this.#assembler.expire(now);
    this.#report();
    const { hasDropped } = this.#assembler;
    if (!hasDropped || !this.#isIdle || now < this.#rereads.dueMs) return;
    this.#assembler.hasDropped = false;
    this.#rereads.begin();
    this.#cursor = null;
    source.close();
  }

  /** How long until `#sweep` has something to do. */
  #idleMs(): number {
    const { nextExpiryMs, hasDropped } = this.#assembler;
    const rereadMs = hasDropped ? this.#rereads.dueMs : Infinity;
    return Math.max(1, Math.min(nextExpiryMs, rereadMs) - monotonicMs());
  }

  #report(): void {
    for (const { messageId, reason } of this.#assembler.skipped.splice(0)) {
      this.#options.onSkipped?.(messageId, reason);
    }
  }
}

function isCursorRefused(error: unknown): boolean {
  return error instanceof RelayError && error.status === 400 && error.details.field === "cursor";
}
