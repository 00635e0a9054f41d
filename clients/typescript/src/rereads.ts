// When a queue is read again from its start, for chunks that were dropped from memory. Readings
// that help nobody become rare, as each may take the whole queue. Pure: it knows no clock.

const REREAD_MS_MIN = 60_000;
const REREAD_MS_MAX = 3_600_000;

export class Rereads {
  #dueMs = -Infinity;
  #pauseMs = REREAD_MS_MIN;
  #isReading = false;
  #hasCompleted = false;

  /** From when on the queue may be read again. */
  get dueMs(): number {
    return this.#dueMs;
  }

  begin(): void {
    this.#isReading = true;
    this.#hasCompleted = false;
  }

  /** A message that lacked chunks has all of them. */
  completed(): void {
    this.#hasCompleted = true;
  }

  /** The end of the queue is reached. The pause counts from here. */
  end(nowMs: number): void {
    if (!this.#isReading) return;
    this.#isReading = false;
    this.#pauseMs = this.#hasCompleted ? REREAD_MS_MIN : Math.min(2 * this.#pauseMs, REREAD_MS_MAX);
    this.#dueMs = nowMs + this.#pauseMs;
  }
}
