// Time: pauses and deadlines that a signal can end, and the pauses between attempts.

import { asRelayError, closedError, RelayError } from "./errors.js";

const FIRST_PAUSE_MS = 100;
const PAUSE_MS_MAX = 10_000;
/** A relay or proxy that asks for more patience than this is asked again after it. */
const RETRY_AFTER_MS_MAX = 300_000;

/** Monotonic, in ms from any start. */
export function monotonicMs(): number {
  return performance.now();
}

/**
 * Waits this long.
 *
 * @throws RelayError `closed` when the signal aborts.
 */
export async function sleep(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) throw closedError();
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", end);
      resolve();
    }, ms);
    const end = () => {
      clearTimeout(timer);
      reject(closedError());
    };
    signal.addEventListener("abort", end, { once: true });
  });
}

/**
 * Runs `work` with a signal that aborts after this time, or with `signal`. Afterwards no timer and
 * no listener is left.
 *
 * @throws RelayError `timeout`, `closed`, or what `work` throws, by default as `unreachable`.
 */
export async function withDeadline<T>(
  ms: number,
  signal: AbortSignal,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  if (signal.aborted) throw closedError();
  const own = new AbortController();
  let reason: RelayError | undefined;
  const end = (error: RelayError) => {
    reason ??= error;
    own.abort();
  };
  const close = () => end(closedError());
  const timer = setTimeout(() => end(new RelayError("timeout", `no response after ${ms} ms`)), ms);
  signal.addEventListener("abort", close, { once: true });
  try {
    return await work(own.signal);
  } catch (thrown) {
    throw reason ?? asRelayError(thrown, "unreachable");
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", close);
  }
}

/** The attempts of one piece of work: how long to pause after each, and when to give up. */
export class Retry {
  #failures = 0;
  #start = monotonicMs();

  constructor(
    /** How long to go on without success; `Infinity` for ever. */
    private readonly timeoutMs: number,
    private readonly signal: AbortSignal,
  ) {}

  /** The work went on, so the time and the pauses begin again. */
  progress(): void {
    this.#failures = 0;
    this.#start = monotonicMs();
  }

  /** What one request of this work may take: `ms`, and no longer than there is time. */
  requestMs(ms: number): number {
    return Math.max(1, Math.min(ms, this.timeoutMs - (monotonicMs() - this.#start)));
  }

  /**
   * Waits until the next attempt is due.
   *
   * @throws RelayError the error itself, if there is no use in another attempt, or no time left.
   */
  async pause(error: unknown): Promise<void> {
    if (!(error instanceof RelayError) || !error.isWorthRetry) throw error;
    const ms = pauseMs(this.#failures, error.retryAfterMs, Math.random());
    this.#failures += 1;
    if (monotonicMs() - this.#start + ms >= this.timeoutMs) throw error;
    await sleep(ms, this.signal);
  }
}

/** The pause after a number of earlier failures. `random` is from 0 to 1. */
export function pauseMs(failures: number, retryAfterMs: number | undefined, random: number): number {
  if (retryAfterMs !== undefined) {
    const asked = Math.min(Math.max(retryAfterMs, 0), RETRY_AFTER_MS_MAX);
    return asked + random * Math.min(FIRST_PAUSE_MS + asked / 10, 1_000);
  }
  const most = Math.min(FIRST_PAUSE_MS * 2 ** Math.min(failures, 20), PAUSE_MS_MAX);
  return most * (0.5 + random / 2);
}
