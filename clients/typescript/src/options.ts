// The options of a client, their defaults and bounds.

import type { Credentials } from "./credentials.js";
import { RelayError } from "./errors.js";

/** The most chunks of one message. */
export const CHUNKS_MAX = 65_536;

export interface ClientOptions {
  /** The payload of one chunk of a long message: 256 KiB, and never more than the relay takes. */
  chunkBytes?: number;
  /** How long one request may take: 30 s. A pull may wait for `waitMs` beyond that. */
  requestTimeoutMs?: number;
  /** How long a push is tried without success before it fails: 60 s. */
  pushTimeoutMs?: number;
  /** The pause between pulls from a relay whose pulls cannot wait: 1 s. */
  pollIntervalMs?: number;
  /** How long a pull waits for the next message: 25 s. */
  waitMs?: number;
  /** The most bytes of unfinished messages, and of messages without an ack: 64 MiB each. */
  memoryBytes?: number;
  /** How long after its last chunk an unfinished message is given up: 1 hour. */
  partialAgeMs?: number;
  /** The most entries of one ack: 256. */
  ackMax?: number;
  /** How long an ack waits for others to go with it: 50 ms. */
  ackDelayMs?: number;
  /** The most messages without an ack before the client stops pulling: 1,024. */
  unackedMax?: number;
  /** What pushes show to a relay that asks senders for a token (`auth.push = "token"`). */
  credentials?: Credentials;
  /** In place of the global `fetch`, for example with TLS settings of your own. */
  fetch?: typeof fetch;
  /** The clock that tokens are signed by, in ms since 1970. */
  now?: () => number;
}

/** Options with every value present. */
export interface Settings {
  readonly chunkBytes: number;
  readonly requestTimeoutMs: number;
  readonly pushTimeoutMs: number;
  readonly pollIntervalMs: number;
  readonly waitMs: number;
  readonly memoryBytes: number;
  readonly partialAgeMs: number;
  readonly ackMax: number;
  readonly ackDelayMs: number;
  readonly unackedMax: number;
}

/** A day: timers fire at once for times that are far longer. */
const MS_MAX = 86_400_000;

const DEFAULTS: Settings = {
  chunkBytes: 256 * 1024,
  requestTimeoutMs: 30_000,
  pushTimeoutMs: 60_000,
  pollIntervalMs: 1_000,
  waitMs: 25_000,
  memoryBytes: 64 * 1024 * 1024,
  partialAgeMs: 3_600_000,
  ackMax: 256,
  ackDelayMs: 50,
  unackedMax: 1_024,
};

/** The least and the most of each. */
const BOUNDS: Record<keyof Settings, [number, number]> = {
  chunkBytes: [1, 1024 ** 3],
  requestTimeoutMs: [1, MS_MAX],
  pushTimeoutMs: [1, MS_MAX],
  pollIntervalMs: [1, MS_MAX],
  waitMs: [0, MS_MAX],
  memoryBytes: [1, 2 ** 40],
  partialAgeMs: [1, 365 * MS_MAX],
  ackMax: [1, 1_024],
  ackDelayMs: [0, MS_MAX],
  unackedMax: [1, 1_000_000],
};

/** @throws RelayError `invalid_input` if a value is out of bounds. */
export function settingsOf(options: ClientOptions): Settings {
  const settings = { ...DEFAULTS } as Record<keyof Settings, number>;
  for (const name of Object.keys(DEFAULTS) as (keyof Settings)[]) {
    const value = options[name] ?? DEFAULTS[name];
    const [least, most] = BOUNDS[name];
    if (!Number.isInteger(value) || value < least || value > most) {
      const message = `${name}: expected a whole number from ${least} to ${most}`;
      throw new RelayError("invalid_input", message);
    }
    settings[name] = value;
  }
  return settings;
}
