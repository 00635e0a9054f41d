// Requests over `fetch`: every one has a deadline, every response a bound, every failure is a
// `RelayError`. It repeats nothing.

import { responseError } from "./answers.js";
import { answerTooLarge, asRelayError, brokenAnswer, RelayError } from "./errors.js";
import { withDeadline } from "./timing.js";

/** An error response has 2 KiB; other small responses have less than this. */
export const SMALL_BYTES_MAX = 256 * 1024;

export interface HttpRequest {
  readonly path: string;
  /** The request is a POST of this as JSON, or a GET. */
  readonly body?: unknown;
  readonly authorization?: string | undefined;
  readonly timeoutMs: number;
  readonly bytesMax: number;
  readonly signal: AbortSignal;
}

/** An open response that goes on in lines. */
export interface Lines {
  /**
   * The next line; null at the end of the response.
   *
   * @throws RelayError `timeout` if there is none in this time. The response is then closed.
   */
  next(timeoutMs: number): Promise<string | null>;
  close(): void;
}

export class Http {
  readonly #base: string;
  readonly #fetch: typeof fetch;

  /** @throws RelayError `invalid_input` if this is no address of a server. */
  constructor(baseUrl: string, fetchOfUser: typeof fetch | undefined) {
    let url;
    try {
      url = new URL(baseUrl, globalThis.location?.href);
    } catch (thrown) {
      throw new RelayError("invalid_input", "the address of the relay is no URL", { cause: thrown });
    }
    if (!/^https?:$/.test(url.protocol) || url.username !== "" || url.password !== "") {
      const message = "the address of the relay must begin with http:// or https://, without a user";
      throw new RelayError("invalid_input", message);
    }
    this.#base = url.origin + url.pathname.replace(/\/+$/, "");
    this.#fetch = fetchOfUser ?? ((input, init) => fetch(input, init));
  }

  /** Whether nobody between can have changed a response: over TLS, or on this machine. */
  get isTrusted(): boolean {
    const { protocol, hostname } = new URL(this.#base);
    return protocol === "https:" || /^(127(\.\d+){3}|\[::1\]|localhost|.*\.localhost)$/.test(hostname);
  }

  /** Sends a request and returns the JSON of its response. */
  async json(request: HttpRequest): Promise<unknown> {
    const { timeoutMs, signal, bytesMax } = request;
    const text = await withDeadline(timeoutMs, signal, async (own) => {
      return readSuccess(await this.#send(request, own), bytesMax);
    });
    return parse(text);
  }

  /** Sends a request whose response goes on; the deadline is for its head. */
  async lines(request: HttpRequest): Promise<Lines> {
    const connection = new AbortController();
    const end = () => connection.abort();
    try {
      const response = await withDeadline(request.timeoutMs, request.signal, async (own) => {
        own.addEventListener("abort", end, { once: true });
        const opened = await this.#send(request, connection.signal);
        if (!opened.ok) await readSuccess(opened, SMALL_BYTES_MAX);
        return opened;
      });
      return new ResponseLines(response, connection, request);
    } catch (error) {
      connection.abort();
      throw error;
    }
  }

  #send(request: HttpRequest, signal: AbortSignal): Promise<Response> {
    const headers: Record<string, string> = {};
    if (request.authorization !== undefined) headers.Authorization = request.authorization;
    const common = { headers, signal, redirect: "manual", cache: "no-store" } as const;
    if (request.body === undefined) return this.#fetch(this.#base + request.path, common);
    headers["Content-Type"] = "application/json";
    const body = JSON.stringify(request.body);
    return this.#fetch(this.#base + request.path, { ...common, method: "POST", body });
  }
}

export function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (thrown) {
    throw brokenAnswer("the relay's answer is not JSON", thrown);
  }
}

async function readSuccess(response: Response, bytesMax: number): Promise<string> {
  if (response.ok) return readText(response, bytesMax);
  const text = await readText(response, SMALL_BYTES_MAX).catch((error: unknown) => {
    // The page of a proxy says nothing that its status does not.
    if (error instanceof RelayError && error.code === "answer_too_large") return "";
    throw error;
  });
  throw responseError(response, text);
}

/** The whole body. More than the bound is an error, before it is in memory. */
async function readText(response: Response, bytesMax: number): Promise<string> {
  const reader = response.body?.getReader();
  if (!reader) return "";
  const decoder = new TextDecoder();
  const parts: string[] = [];
  try {
    if (Number(response.headers.get("content-length")) > bytesMax) throw answerTooLarge(bytesMax);
    for (let bytes = 0; ;) {
      const { done, value } = await reader.read();
      if (done) break;
      bytes += value.length;
      if (bytes > bytesMax) throw answerTooLarge(bytesMax);
      parts.push(decoder.decode(value, { stream: true }));
    }
  } catch (thrown) {
    void reader.cancel().catch(() => {});
    throw asRelayError(thrown, "broken_answer");
  }
  parts.push(decoder.decode());
  return parts.join("");
}

class ResponseLines implements Lines {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
  readonly #decoder = new TextDecoder();
  readonly #connection: AbortController;
  readonly #bytesMax: number;
  readonly #signal: AbortSignal;
  /** The beginning of a line whose end has not come yet, in parts. */
  #parts: string[] = [];
  #partsLength = 0;
  readonly #lines: string[] = [];

  constructor(response: Response, connection: AbortController, request: HttpRequest) {
    this.#reader = response.body?.getReader();
    this.#connection = connection;
    this.#bytesMax = request.bytesMax;
    this.#signal = request.signal;
  }

  async next(timeoutMs: number): Promise<string | null> {
    try {
      return await withDeadline(timeoutMs, this.#signal, async (own) => {
        own.addEventListener("abort", () => this.close(), { once: true });
        return this.#read();
      });
    } catch (error) {
      this.close();
      throw error;
    }
  }

  close(): void {
    this.#connection.abort();
  }

  async #read(): Promise<string | null> {
    while (this.#lines.length === 0) {
      const { done, value } = (await this.#reader?.read()) ?? { done: true, value: undefined };
      if (done) return null;
      this.#split(this.#decoder.decode(value, { stream: true }));
    }
    return this.#lines.shift()!;
  }

  #split(text: string): void {
    const [end, ...begun] = text.split("\n");
    this.#append(end!);
    for (const line of begun) {
      this.#lines.push(this.#parts.join(""));
      this.#parts = [];
      this.#partsLength = 0;
      this.#append(line);
    }
  }

  #append(text: string): void {
    this.#partsLength += text.length;
    if (this.#partsLength > this.#bytesMax) throw answerTooLarge(this.#bytesMax);
    this.#parts.push(text);
  }
}
