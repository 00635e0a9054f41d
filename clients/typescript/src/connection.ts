// One relay as the client sees it: what it can do, and requests with a proof.

import { infoOf, OLD_RELAY, type RelayInfo } from "./answers.js";
import { Clock } from "./clock.js";
import type { Credentials } from "./credentials.js";
import { RelayError } from "./errors.js";
import { Http, SMALL_BYTES_MAX, type HttpRequest, type Lines } from "./http.js";
import { settingsOf, type ClientOptions, type Settings } from "./options.js";
import type { Retry } from "./timing.js";

/** Whose proof a request shows. */
export interface Proof {
  readonly credentials: Credentials | null;
  readonly recipient: string;
}

export class Connection {
  readonly settings: Settings;
  readonly #http: Http;
  readonly #clock: Clock;
  #info: RelayInfo | undefined;

  constructor(baseUrl: string, options: ClientOptions) {
    this.settings = settingsOf(options);
    this.#http = new Http(baseUrl, options.fetch);
    this.#clock = new Clock(options.now ?? Date.now, this.#http.isTrusted);
  }

  /** What the relay can do. It is asked until it has answered once. */
  async info(retry: Retry, signal: AbortSignal): Promise<RelayInfo> {
    while (!this.#info) {
      try {
        this.#info = await this.#askInfo(retry.requestMs(this.settings.requestTimeoutMs), signal);
      } catch (error) {
        await retry.pause(error);
      }
    }
    return this.#info;
  }

  async #askInfo(timeoutMs: number, signal: AbortSignal): Promise<RelayInfo> {
    const request = { path: "/info", timeoutMs, bytesMax: SMALL_BYTES_MAX, signal };
    try {
      return infoOf(await this.#http.json(request));
    } catch (error) {
      if (error instanceof RelayError && error.status === 404) return OLD_RELAY;
      throw error;
    }
  }

  /** Sends a request and returns the JSON of its response. */
  json(request: HttpRequest, proof: Proof): Promise<unknown> {
    return this.#prove(request, proof, (proven) => this.#http.json(proven));
  }

  /** Sends a request whose response goes on in lines. */
  lines(request: HttpRequest, proof: Proof): Promise<Lines> {
    return this.#prove(request, proof, (proven) => this.#http.lines(proven));
  }

  async #prove<T>(
    request: HttpRequest,
    { credentials, recipient }: Proof,
    send: (request: HttpRequest) => Promise<T>,
  ): Promise<T> {
    if (!credentials) return send(request);
    for (;;) {
      const wasCorrected = this.#clock.isCorrected;
      const authorization = await credentials.authorization(recipient, this.#clock.nowMs());
      try {
        return await send({ ...request, authorization });
      } catch (error) {
        const mayLearn = credentials.isSigned && error instanceof RelayError;
        if (!mayLearn || !this.#clock.learn(error, wasCorrected)) throw error;
      }
    }
  }
}
