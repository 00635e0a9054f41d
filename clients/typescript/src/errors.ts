// The one error of this module, and which errors are worth another attempt.

/** Statuses after which the same request may succeed later. */
const STATUSES_WORTH_A_RETRY = new Set([408, 429, 500, 502, 503, 504, 507]);

/** Codes of the relay with these statuses, for items of a batch, and this module's own codes. */
const CODES_WORTH_A_RETRY = new Set([
  "request_timeout",
  "rate_limited",
  "internal_error",
  "storage_error",
  "overloaded",
  "draining",
  "not_ready",
  "storage_full",
  "unreachable",
  "timeout",
  "broken_answer",
]);

/** What a `RelayError` knows beside its code and message. */
export interface ErrorFacts {
  status?: number;
  details?: Record<string, unknown>;
  retryAfterMs?: number;
  cause?: unknown;
}

/**
 * Every error that this module throws.
 *
 * `code` is a code of the relay, such as `quota_exceeded`, or one of this module: `unreachable` (no
 * response), `timeout`, `broken_answer` (cut off, or not what the API says), `http_NNN` (an error
 * response that is not the relay's), `answer_too_large`, `closed` (the client or the deliveries were
 * closed), `invalid_input`, `unsupported` (this runtime lacks Ed25519, or WebCrypto).
 */
export class RelayError extends Error {
  readonly code: string;
  /** The status of the response, if there was one. */
  readonly status: number | undefined;
  /** What the relay says about the error, by its documentation. */
  readonly details: Record<string, unknown>;
  /** How long the relay wants the client to wait. */
  readonly retryAfterMs: number | undefined;

  constructor(code: string, message: string, facts: ErrorFacts = {}) {
    super(message, { cause: facts.cause });
    this.name = "RelayError";
    this.code = code;
    this.status = facts.status;
    this.details = facts.details ?? {};
    this.retryAfterMs = facts.retryAfterMs;
  }

  /** Whether the same request may succeed later. */
  get isWorthRetry(): boolean {
    const { code, status } = this;
    return CODES_WORTH_A_RETRY.has(code) || (status !== undefined && STATUSES_WORTH_A_RETRY.has(status));
  }
}

/** The response is longer than this client reads. Another attempt gets the same. */
export function answerTooLarge(bytesMax: number): RelayError {
  return new RelayError("answer_too_large", `the relay's answer is longer than ${bytesMax} bytes`);
}

export function closedError(): RelayError {
  return new RelayError("closed", "the client was closed");
}

export function brokenAnswer(message: string, cause?: unknown): RelayError {
  return new RelayError("broken_answer", message, { cause });
}

/** Whatever was thrown as a `RelayError`. */
export function asRelayError(thrown: unknown, code: string): RelayError {
  if (thrown instanceof RelayError) return thrown;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return new RelayError(code, message, { cause: thrown });
}
