// From a payload to the items that carry it: chunks, and groups of items for one request.

import type { RelayInfo } from "./answers.js";
import { base64, randomMessageId, utf8 } from "./encoding.js";
import { RelayError } from "./errors.js";
import { CHUNKS_MAX } from "./options.js";
import type { Meta, PushRequest } from "./wire.js";

/** A batch of the client is never larger, whatever the relay takes. */
export const BATCH_ITEMS_MAX = 64;
const BATCH_BYTES_MAX = 4 * 1024 * 1024;

/** Text is sent as UTF-8. A `Blob`, such as a file, is read piece by piece. */
export type Payload = string | Uint8Array | ArrayBuffer | Blob;

export interface PushOptions {
  /** What the message is, such as `opaque` (the default), `signaling` or `attachment`. */
  kind?: string | undefined;
  /** How long the relay keeps it, in whole seconds. Relays of 0.0.3 do not know it. */
  ttlSeconds?: number | undefined;
  /** The secret of the recipient's send lock. */
  sendSecret?: string | undefined;
  /** A UUID of your own, so that a push after a restart of the program stores nothing twice. */
  messageId?: string | undefined;
}

/** An item whose payload is not encoded yet. */
export interface Outgoing {
  readonly messageId: string;
  readonly payload: Uint8Array;
  /** The secret that opens the send lock if the header shows it. */
  readonly sendSecret: string | undefined;
  /** The item, encoded for a request. */
  request(info: RelayInfo): PushRequest;
}

/** A payload of which pieces can be read. */
class Source {
  readonly bytes: number;
  readonly #payload: Uint8Array | Blob;

  constructor(payload: Payload) {
    if (typeof payload === "string") this.#payload = utf8(payload);
    else if (payload instanceof ArrayBuffer) this.#payload = new Uint8Array(payload);
    else this.#payload = payload;
    this.bytes = this.#payload instanceof Uint8Array ? this.#payload.length : this.#payload.size;
  }

  async read(start: number, end: number): Promise<Uint8Array> {
    if (this.#payload instanceof Uint8Array) return this.#payload.subarray(start, end);
    try {
      return new Uint8Array(await this.#payload.slice(start, end).arrayBuffer());
    } catch (thrown) {
      throw new RelayError("invalid_input", "the payload cannot be read", { cause: thrown });
    }
  }
}

/** A message on its way, whose chunks are read when they are due. */
export class OutgoingMessage {
  readonly messageId: string;
  readonly chunkCount: number;
  readonly #recipient: string;
  readonly #source: Source;
  readonly #options: PushOptions;
  readonly #chunkBytes: number;
  readonly #sentMs = Date.now();

  /** @throws RelayError `invalid_input` if the payload makes too many chunks. */
  constructor(recipient: string, payload: Payload, options: PushOptions, chunkBytes: number) {
    this.#recipient = recipient;
    this.#source = new Source(payload);
    this.#options = options;
    this.#chunkBytes = chunkBytes;
    this.messageId = options.messageId ?? randomMessageId();
    this.chunkCount = Math.max(1, Math.ceil(this.#source.bytes / chunkBytes));
    if (this.chunkCount > CHUNKS_MAX) {
      const message = `the payload has ${this.#source.bytes} bytes, more than ${CHUNKS_MAX} chunks`;
      throw new RelayError("invalid_input", message);
    }
  }

  async chunk(index: number): Promise<Outgoing> {
    const start = index * this.#chunkBytes;
    const payload = await this.#source.read(start, start + this.#chunkBytes);
    const meta: Meta = {
      kind: this.#options.kind ?? "opaque",
      total_len: this.#source.bytes,
      chunk_index: index,
      chunk_count: this.chunkCount,
      sent_ms: this.#sentMs,
    };
    const { messageId } = this;
    const { sendSecret } = this.#options;
    const request = (info: RelayInfo) => this.#request(info, payload, meta);
    return { messageId, payload, sendSecret, request };
  }

  #request(info: RelayInfo, payload: Uint8Array, meta: Meta): PushRequest {
    const request: PushRequest = {
      recipient: this.#recipient,
      message_id: this.messageId,
      ciphertext_b64: base64(payload),
      meta,
    };
    const { ttlSeconds, sendSecret } = this.#options;
    if (ttlSeconds !== undefined && info.features.has("ttl")) request.ttl_seconds = ttlSeconds;
    if (sendSecret !== undefined && info.features.has("item_proof")) request.proof = sendSecret;
    return request;
  }
}

/** The secret of this item that goes into the header, as the relay takes it nowhere else. */
export function headerSecret({ sendSecret }: Outgoing, info: RelayInfo): string | undefined {
  return info.features.has("item_proof") ? undefined : sendSecret;
}

/** The chunks of these messages in their order, in groups that fit into one request each. */
export async function* groupsOf(messages: OutgoingMessage[], info: RelayInfo): AsyncGenerator<Outgoing[]> {
  const isBatch = info.features.has("batch");
  const itemsMax = isBatch ? Math.min(BATCH_ITEMS_MAX, info.batchItems) : 1;
  const bytesMax = Math.min(BATCH_BYTES_MAX, info.batchBytes);
  let group: Outgoing[] = [];
  let bytes = 0;
  for (const message of messages) {
    for (let index = 0; index < message.chunkCount; index++) {
      const chunk = await message.chunk(index);
      const isFull = group.length >= itemsMax || bytes + chunk.payload.length > bytesMax;
      const [first] = group;
      if (first && (isFull || headerSecret(first, info) !== headerSecret(chunk, info))) {
        yield group;
        [group, bytes] = [[], 0];
      }
      group.push(chunk);
      bytes += chunk.payload.length;
    }
  }
  if (group.length > 0) yield group;
}
