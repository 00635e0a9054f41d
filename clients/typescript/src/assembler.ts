// Unfinished messages: chunks come in any order, between those of others and repeated, and a
// message leaves when it has all of them. Their memory has a bound. Pure: it knows no relay and no
// clock.

import type { Chunk } from "./answers.js";
import type { Bytes } from "./encoding.js";
import { CHUNKS_MAX } from "./options.js";

/** The most chunks of all unfinished messages, as empty ones take memory too. */
const HELD_CHUNKS_MAX = 2 * CHUNKS_MAX;
/** The messages that were given up and are remembered, so that each is reported once. */
const GIVEN_UP_MAX = 4_096;

/** A message that has all of its chunks. */
export interface Assembled {
  readonly key: string;
  readonly chunk: Chunk;
  readonly payload: Bytes;
}

/** Why a message is never handed out. */
export type SkipReason = "too_large" | "incomplete" | "malformed";

export interface Skipped {
  readonly messageId: string;
  readonly reason: SkipReason;
}

interface Partial {
  readonly messageId: string;
  readonly payloads: Map<number, Bytes>;
  bytes: number;
  grownMs: number;
  /** When its last chunk came to the relay. */
  arrivalMs: number;
}

/** What tells messages apart. Another sender may use the same message id. */
export function keyOf({ messageId, count, totalLen, kind }: Chunk): string {
  return `${messageId} ${count} ${totalLen} ${kind}`;
}

export class Assembler {
  /** In the order of their last growth. */
  readonly #partials = new Map<string, Partial>();
  /** With the time of the last chunk. Only a later one begins the message again. */
  readonly #givenUp = new Map<string, number>();
  #bytes = 0;
  #chunks = 0;
  /** Whether chunks were dropped that the relay still has. */
  hasDropped = false;
  /** What was given up and not reported yet. */
  skipped: Skipped[] = [];

  constructor(
    private readonly memoryBytes: number,
    private readonly partialAgeMs: number,
  ) {}

  /** Takes a chunk. Returns the message if this was the last one that it lacked. */
  add(chunk: Chunk, nowMs: number): Assembled | null {
    const key = keyOf(chunk);
    if (this.#isGivenUp(key, chunk)) return null;
    const reason = reasonToSkip(chunk, this.memoryBytes);
    if (reason) {
      this.#giveUp(key, chunk.messageId, chunk.arrivalMs, reason);
      return null;
    }
    if (chunk.count === 1) return { key, chunk, payload: chunk.payload };
    const partial = this.#grow(key, chunk, nowMs);
    const isComplete = partial.payloads.size === chunk.count;
    if (partial.bytes > chunk.totalLen || (isComplete && partial.bytes < chunk.totalLen)) {
      this.#giveUp(key, chunk.messageId, partial.arrivalMs, "malformed");
      return null;
    }
    if (isComplete) return this.#finish(key, partial, chunk);
    this.#keepWithinBounds();
    return null;
  }

  /** Gives up what has not grown for too long. */
  expire(nowMs: number): void {
    for (const [key, { messageId, grownMs, arrivalMs }] of this.#partials) {
      if (grownMs + this.partialAgeMs > nowMs) return;
      this.#giveUp(key, messageId, arrivalMs, "incomplete");
    }
  }

  /** When `expire` has something to do next; `Infinity` if never. */
  get nextExpiryMs(): number {
    const [oldest] = this.#partials.values();
    return oldest ? oldest.grownMs + this.partialAgeMs : Infinity;
  }

  /** A message that was too old goes on if its sender does; its first chunks are on the relay. */
  #isGivenUp(key: string, chunk: Chunk): boolean {
    const lastMs = this.#givenUp.get(key);
    if (lastMs === undefined) return false;
    if (chunk.arrivalMs <= lastMs) return true;
    this.#givenUp.delete(key);
    this.hasDropped = true;
    return false;
  }

  #grow(key: string, chunk: Chunk, nowMs: number): Partial {
    const { messageId, index, payload, arrivalMs } = chunk;
    const known = this.#partials.get(key);
    const partial = known ?? { messageId, payloads: new Map(), bytes: 0, grownMs: nowMs, arrivalMs };
    if (partial.payloads.has(index)) return partial;
    partial.payloads.set(index, payload);
    partial.bytes += payload.length;
    partial.grownMs = nowMs;
    partial.arrivalMs = Math.max(partial.arrivalMs, arrivalMs);
    this.#bytes += payload.length;
    this.#chunks += 1;
    // Behind all others.
    this.#partials.delete(key);
    this.#partials.set(key, partial);
    return partial;
  }

  #finish(key: string, partial: Partial, chunk: Chunk): Assembled {
    this.#drop(key);
    const payload = new Uint8Array(partial.bytes);
    let at = 0;
    for (let index = 0; index < chunk.count; index++) {
      const part = partial.payloads.get(index)!;
      payload.set(part, at);
      at += part.length;
    }
    return { key, chunk: { ...chunk, arrivalMs: partial.arrivalMs }, payload };
  }

  #keepWithinBounds(): void {
    const isOver = () => this.#bytes > this.memoryBytes || this.#chunks > HELD_CHUNKS_MAX;
    for (const key of this.#partials.keys()) {
      if (!isOver() || this.#partials.size === 1) return;
      this.#drop(key);
      this.hasDropped = true;
    }
  }

  #giveUp(key: string, messageId: string, arrivalMs: number, reason: SkipReason): void {
    this.#drop(key);
    this.skipped.push({ messageId, reason });
    // A message that is wrong stays wrong.
    this.#givenUp.set(key, reason === "incomplete" ? arrivalMs : Infinity);
    const [first] = this.#givenUp.keys();
    if (this.#givenUp.size > GIVEN_UP_MAX) this.#givenUp.delete(first!);
  }

  #drop(key: string): void {
    const partial = this.#partials.get(key);
    if (!partial) return;
    this.#partials.delete(key);
    this.#bytes -= partial.bytes;
    this.#chunks -= partial.payloads.size;
  }
}

function reasonToSkip({ index, count, totalLen, payload }: Chunk, memoryBytes: number): SkipReason | null {
  const areWhole = [index, count, totalLen].every((number) => Number.isSafeInteger(number) && number >= 0);
  if (!areWhole || count < 1 || index >= count || count > CHUNKS_MAX) return "malformed";
  const bytes = count === 1 ? payload.length : totalLen;
  return bytes > memoryBytes ? "too_large" : null;
}
