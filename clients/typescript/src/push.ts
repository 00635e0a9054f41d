// Pushing: requests are repeated until the relay has stored every item, or has refused one for
// good.

import { batchOf, pushOf, type RelayInfo } from "./answers.js";
import type { Connection } from "./connection.js";
import { Credentials } from "./credentials.js";
import { asRelayError, RelayError } from "./errors.js";
import { SMALL_BYTES_MAX } from "./http.js";
import {
  BATCH_ITEMS_MAX,
  groupsOf,
  headerSecret,
  OutgoingMessage,
  type Outgoing,
  type Payload,
  type PushOptions,
} from "./outgoing.js";
import { Retry } from "./timing.js";
import type { PushResponse } from "./wire.js";

export interface PushResult {
  messageId: string;
  /**
   * `stored`; `duplicate` if the relay had it already, also from an earlier attempt; `conflict` if
   * the relay has another payload under this message id, and keeps that.
   */
  outcome: "stored" | "duplicate" | "conflict";
}

/** A message for `pushAll`. */
export interface PushEntry extends PushOptions {
  recipient: string;
  payload: Payload;
}

type Outcome = PushResponse | RelayError;

/** A request that takes too long is too large for this network. */
const SHRINK = 4;

export class Pusher {
  /** The most items that go in one request, for slow networks. It grows again with success. */
  #itemsMax = BATCH_ITEMS_MAX;

  constructor(
    private readonly connection: Connection,
    private readonly credentials: Credentials | null,
    private readonly signal: AbortSignal,
  ) {}

  /** @throws RelayError of the first chunk that is refused, or the last one when time is over. */
  async push(recipient: string, payload: Payload, options: PushOptions): Promise<PushResult> {
    const info = await this.#info();
    const message = new OutgoingMessage(recipient, payload, options, this.#chunkBytes(info));
    const responses: PushResponse[] = [];
    for await (const group of groupsOf([message], info)) {
      for (const outcome of await this.#store(group, info, recipient, true)) {
        if (outcome instanceof RelayError) throw outcome;
        responses.push(outcome);
      }
    }
    return { messageId: message.messageId, outcome: outcomeOf(responses) };
  }

  /** Pushes messages of one chunk each, together. A refused one does not affect the others. */
  async pushAll(entries: PushEntry[]): Promise<PromiseSettledResult<PushResult>[]> {
    const info = await this.#info();
    const chunkBytes = this.#chunkBytes(info);
    const messages = entries.map(({ recipient, payload, ...options }) => {
      return new OutgoingMessage(recipient, payload, options, chunkBytes);
    });
    if (messages.some(({ chunkCount }) => chunkCount > 1)) {
      const message = `a message of more than ${chunkBytes} bytes goes alone, by push`;
      throw new RelayError("invalid_input", message);
    }
    const results: PromiseSettledResult<PushResult>[] = [];
    for await (const group of groupsOf(messages, info)) {
      const { recipient } = entries[results.length]!;
      const outcomes = await this.#store(group, info, recipient, false);
      results.push(...outcomes.map((outcome, at) => settled(group[at]!.messageId, outcome)));
    }
    return results;
  }

  #info(): Promise<RelayInfo> {
    const { pushTimeoutMs } = this.connection.settings;
    return this.connection.info(new Retry(pushTimeoutMs, this.signal), this.signal);
  }

  #chunkBytes(info: RelayInfo): number {
    return Math.min(this.connection.settings.chunkBytes, info.messageBytes);
  }

  /**
   * Sends these items until each has an outcome. With `isOne`, they are one message, and the first
   * refusal is the end of all.
   */
  async #store(group: Outgoing[], info: RelayInfo, recipient: string, isOne: boolean): Promise<Outcome[]> {
    const retry = new Retry(this.connection.settings.pushTimeoutMs, this.signal);
    const outcomes = new Map<Outgoing, Outcome>();
    for (let waiting = group; waiting.length > 0;) {
      const sent = waiting.slice(0, this.#itemsMax);
      const answers = await this.#send(sent, info, recipient, retry);
      const failure = settle(sent, answers, outcomes);
      const left = waiting.filter((item) => !outcomes.has(item));
      if (left.length < waiting.length) retry.progress();
      waiting = left;
      const refusal = [...outcomes.values()].find((outcome) => outcome instanceof RelayError);
      if (isOne && refusal) return [refusal];
      this.#adapt(sent.length, failure);
      if (!failure) continue;
      try {
        await retry.pause(failure);
      } catch (thrown) {
        const last = asRelayError(thrown, failure.code);
        return group.map((item) => outcomes.get(item) ?? last);
      }
    }
    return group.map((item) => outcomes.get(item)!);
  }

  #adapt(sent: number, failure: RelayError | undefined): void {
    const isTooSlow = failure?.code === "timeout" || failure?.status === 408;
    if (isTooSlow) this.#itemsMax = Math.ceil(sent / SHRINK);
    else if (!failure) this.#itemsMax = Math.min(2 * this.#itemsMax, BATCH_ITEMS_MAX);
  }

  /** Sends items once. An error of the request is the outcome of each. */
  async #send(items: Outgoing[], info: RelayInfo, recipient: string, retry: Retry): Promise<Outcome[]> {
    const { signal } = this;
    const timeoutMs = retry.requestMs(this.connection.settings.requestTimeoutMs);
    const common = { timeoutMs, bytesMax: SMALL_BYTES_MAX, signal };
    const requests = items.map((item) => item.request(info));
    try {
      const secret = headerSecret(items[0]!, info);
      const credentials = secret === undefined ? this.credentials : Credentials.secret(secret);
      const proof = { credentials, recipient };
      if (requests.length === 1) {
        const body = requests[0];
        return [pushOf(await this.connection.json({ path: "/push", body, ...common }, proof))];
      }
      const request = { path: "/push/batch", body: { items: requests }, ...common };
      return batchOf(await this.connection.json(request, proof), items.length);
    } catch (thrown) {
      const error = asRelayError(thrown, "unreachable");
      return items.map(() => error);
    }
  }
}

/** Keeps the final answers, and returns an error for which there is another attempt. */
function settle(
  items: Outgoing[],
  answers: Outcome[],
  outcomes: Map<Outgoing, Outcome>,
): RelayError | undefined {
  let failure: RelayError | undefined;
  answers.forEach((answer, at) => {
    if (answer instanceof RelayError && answer.isWorthRetry) failure = answer;
    else outcomes.set(items[at]!, answer);
  });
  return failure;
}

function settled(messageId: string, outcome: Outcome): PromiseSettledResult<PushResult> {
  if (outcome instanceof RelayError) return { status: "rejected", reason: outcome };
  return { status: "fulfilled", value: { messageId, outcome: outcomeOf([outcome]) } };
}

function outcomeOf(responses: PushResponse[]): PushResult["outcome"] {
  if (responses.some(({ conflict }) => conflict === true)) return "conflict";
  return responses.some(({ stored }) => stored) ? "stored" : "duplicate";
}
