// The clock that tokens are signed by. The relay may correct it once, by little more than a day,
// and only over a connection that nobody between can have changed.

import type { RelayError } from "./errors.js";

/** A day for a wrong date, and an hour for a wrong time zone. */
const OFFSET_MS_MAX = 25 * 3_600_000;
const REASONS = new Set(["token_expired", "token_not_valid_yet"]);

export class Clock {
  readonly #now: () => number;
  readonly #isTrusted: boolean;
  #offsetMs: number | undefined;

  constructor(now: () => number, isTrusted: boolean) {
    this.#now = now;
    this.#isTrusted = isTrusted;
  }

  get isCorrected(): boolean {
    return this.#offsetMs !== undefined;
  }

  nowMs(): number {
    return this.#now() + (this.#offsetMs ?? 0);
  }

  /**
   * Takes the relay's time from its refusal of a token. Returns whether another token may be
   * accepted. `wasCorrected` is `isCorrected` of the time when the refused token was signed.
   */
  learn(refusal: RelayError, wasCorrected: boolean): boolean {
    if (refusal.status !== 401 && refusal.status !== 403) return false;
    const { server_ms: serverMs, reason } = refusal.details;
    if (typeof serverMs !== "number" || (reason !== undefined && !REASONS.has(String(reason)))) return false;
    // Another request corrected it meanwhile.
    if (this.isCorrected) return !wasCorrected;
    const offsetMs = serverMs - this.#now();
    if (!this.#isTrusted || Math.abs(offsetMs) > OFFSET_MS_MAX) return false;
    this.#offsetMs = offsetMs;
    return true;
  }
}
