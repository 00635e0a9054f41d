// The client of one relay.

import { Connection } from "./connection.js";
import type { Credentials } from "./credentials.js";
import { Deliveries, type DeliveryOptions } from "./deliveries.js";
import type { ClientOptions } from "./options.js";
import type { Payload, PushOptions } from "./outgoing.js";
import { Pusher, type PushEntry, type PushResult } from "./push.js";

export class Client {
  readonly #connection: Connection;
  readonly #pusher: Pusher;
  readonly #stop = new AbortController();
  readonly #deliveries = new Set<Deliveries>();

  /**
   * Opens no connection yet.
   *
   * @throws RelayError `invalid_input` for a wrong address or option.
   */
  constructor(baseUrl: string, options: ClientOptions = {}) {
    this.#connection = new Connection(baseUrl, options);
    this.#pusher = new Pusher(this.#connection, options.credentials ?? null, this.#stop.signal);
  }

  /**
   * Pushes a message, in chunks if it is long, and resolves when it is durable. Messages arrive in
   * the order of the pushes if each is awaited before the next.
   *
   * @throws RelayError such as `quota_exceeded`.
   */
  push(recipient: string, payload: Payload, options: PushOptions = {}): Promise<PushResult> {
    return this.#pusher.push(recipient, payload, options);
  }

  /** Pushes small messages together, for any recipients. Each has a result of its own. */
  pushAll(messages: PushEntry[]): Promise<PromiseSettledResult<PushResult>[]> {
    return this.#pusher.pushAll(messages);
  }

  /** The messages of a recipient, those that wait already and those to come. */
  deliveries(
    recipient: string,
    credentials: Credentials | null = null,
    options: DeliveryOptions = {},
  ): Deliveries {
    const onEnd = (ended: Deliveries) => this.#deliveries.delete(ended);
    const deliveries = new Deliveries(this.#connection, { credentials, recipient }, options, onEnd);
    this.#deliveries.add(deliveries);
    if (this.#stop.signal.aborted) void deliveries.close();
    return deliveries;
  }

  /** Ends pushes with the error `closed`, and all deliveries, whose acks have five seconds. */
  async close(): Promise<void> {
    this.#stop.abort();
    await Promise.all([...this.#deliveries].map((deliveries) => deliveries.close()));
  }
}
