// Responses of the relay, checked: behind these functions every value has the type that it says.

import { brokenAnswer, RelayError, type ErrorFacts } from "./errors.js";
import { fromBase64, utf8, type Bytes } from "./encoding.js";
import type { BatchResult, InfoLimits, InfoResponse, Item, PushResponse } from "./wire.js";

/** One chunk of a message, as it waits in the queue. */
export interface Chunk {
  readonly messageId: string;
  readonly index: number;
  readonly count: number;
  readonly totalLen: number;
  readonly kind: string;
  readonly sentMs: number;
  readonly arrivalMs: number;
  readonly payload: Bytes;
}

/** A page of a queue. */
export interface Page {
  readonly chunks: Chunk[];
  /** Where the next page begins; null for the start of the queue. */
  readonly cursor: string | null;
  /** Whether nothing followed this page. */
  readonly isLast: boolean;
}

/** What a relay can do. */
export interface RelayInfo {
  readonly features: ReadonlySet<string>;
  readonly messageBytes: number;
  readonly batchItems: number;
  readonly batchBytes: number;
  readonly waitMs: number;
  /** The longest page, as JSON. */
  readonly pageTextBytes: number;
}

/** The most bytes of a response that the client reads, whatever the relay says of itself. */
const TEXT_BYTES_MAX = 256 * 1024 * 1024;
/** What an item of a page takes beside its payload, with every character escaped. */
const ITEM_TEXT_BYTES = 4 * 1024;

/** The forms of these in answers, by docs/api.md. */
const MESSAGE_ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const KIND_BYTES_MAX = 64;

/** A relay of 0.0.3, which has no `GET /info`. */
export const OLD_RELAY: RelayInfo = {
  features: new Set(),
  messageBytes: 1024 * 1024,
  batchItems: 1,
  batchBytes: 0,
  waitMs: 0,
  pageTextBytes: 64 * 1024 * 1024,
};

type Fields = Record<string, unknown>;

function isObject(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function check(isRight: boolean, what: string): asserts isRight {
  if (!isRight) throw brokenAnswer(`the relay's answer is not ${what}`);
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

export function infoOf(value: unknown): RelayInfo {
  check(isObject(value) && Array.isArray(value.features) && isObject(value.limits), "that to /info");
  const { features, limits } = value as unknown as InfoResponse;
  const names: (keyof InfoLimits)[] = [
    "message_bytes",
    "batch_items",
    "batch_bytes",
    "wait_ms",
    "page_bytes",
    "page_items",
  ];
  check(
    names.every((name) => isCount(limits[name])),
    "that to /info",
  );
  const pageBytes = Math.max(limits.page_bytes, limits.message_bytes) * (4 / 3);
  const pageTextBytes = Math.ceil(pageBytes) + (limits.page_items + 16) * ITEM_TEXT_BYTES;
  return {
    features: new Set(features.filter((name) => typeof name === "string")),
    messageBytes: Math.max(1, limits.message_bytes),
    batchItems: limits.batch_items,
    batchBytes: limits.batch_bytes,
    waitMs: limits.wait_ms,
    pageTextBytes: Math.min(pageTextBytes, TEXT_BYTES_MAX),
  };
}

export function pushOf(value: unknown): PushResponse {
  check(isObject(value) && typeof value.stored === "boolean", "that to a push");
  return value as unknown as PushResponse;
}

/** The results of a batch of this many items: a response, or the error of this item. */
export function batchOf(value: unknown, count: number): (PushResponse | RelayError)[] {
  check(isObject(value) && Array.isArray(value.results), "that to a batch");
  check(value.results.length === count, "that to a batch of so many items");
  return value.results.map((result: BatchResult) => {
    if (isObject(result) && isObject(result.error)) return errorOf(result.error, {});
    return pushOf(result);
  });
}

export function checkAck(value: unknown): void {
  check(isObject(value) && isCount(value.deleted), "that to an ack");
}

/** The page of a pull, or of an event of a stream; null for an event without one. */
export function pageOf(value: unknown): Page | null {
  check(isObject(value), "a page");
  if (!("items" in value)) return null;
  const { items, next_cursor: cursor, remaining_estimate: remaining } = value;
  check(Array.isArray(items) && (cursor === null || typeof cursor === "string"), "a page");
  const isLast = cursor === null || remaining === 0;
  return { chunks: items.map((item: Item) => chunkOf(item)), cursor, isLast };
}

function chunkOf(item: Item): Chunk {
  check(isObject(item) && isObject(item.meta), "an item");
  const { message_id: messageId, ciphertext_b64: payload, arrival_ms: arrivalMs, meta } = item;
  check(typeof messageId === "string" && MESSAGE_ID.test(messageId), "an item");
  check(typeof payload === "string" && typeof arrivalMs === "number", "an item");
  check(typeof meta.kind === "string", "an item");
  // Relays of the first version store longer ones. A message of no chunks is skipped as malformed.
  const isKindLong = utf8(meta.kind).length > KIND_BYTES_MAX;
  const numbers = [meta.chunk_index, meta.chunk_count, meta.total_len, meta.sent_ms];
  check(
    numbers.every((number) => typeof number === "number"),
    "an item",
  );
  return {
    messageId,
    index: meta.chunk_index,
    count: isKindLong ? 0 : meta.chunk_count,
    totalLen: meta.total_len,
    kind: isKindLong ? "" : meta.kind,
    sentMs: meta.sent_ms,
    arrivalMs,
    payload: fromBase64(payload),
  };
}

/** The reason why a stream ends; null if this is no such event. */
export function byeOf(value: unknown): string | null {
  return isObject(value) && typeof value.bye === "string" ? value.bye : null;
}

function errorOf(error: Fields, facts: ErrorFacts): RelayError {
  const details = isObject(error.details) ? error.details : {};
  const { retry_after_ms: ms } = details;
  const retryAfterMs = isCount(ms) ? ms : facts.retryAfterMs;
  const code = typeof error.code === "string" ? error.code : "broken_answer";
  const message = typeof error.message === "string" ? error.message : code;
  return new RelayError(code, message, { ...facts, details, retryAfterMs });
}

/** The error of a response that is not a success. */
export function responseError(response: Response, text: string): RelayError {
  const { status } = response;
  const retryAfterMs = retryAfterOf(response.headers.get("retry-after"));
  const facts = { status, retryAfterMs };
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // A proxy's page, which says nothing beyond its status.
  }
  if (isObject(value) && isObject(value.error)) return errorOf(value.error, facts);
  return new RelayError(`http_${status}`, `the server answered with status ${status}`, facts);
}

/** The field `Retry-After`: seconds, or a date. */
function retryAfterOf(text: string | null): number | undefined {
  if (text === null) return undefined;
  const ms = /^\d{1,9}$/.test(text) ? Number(text) * 1000 : Date.parse(text) - Date.now();
  return Number.isFinite(ms) ? Math.max(0, ms) : undefined;
}
