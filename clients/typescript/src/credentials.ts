// What opens a queue: secrets, Ed25519 keys, tokens of an issuer; and the names of recipients that
// secrets and keys make. It shows no secret in `console.log` or JSON.

import { base64url, fromBase64url, utf8, type Bytes } from "./encoding.js";
import { asRelayError, RelayError } from "./errors.js";

/** How long a signed token is valid, and how long before its end it is signed anew. */
const TOKEN_SECONDS = 300;
const RENEWED_SECONDS = 60;
/** Tokens are kept for this many recipients. */
const TOKENS_MAX = 64;
const SECRET_BYTES: [number, number] = [32, 64];
/** What a proof may be: the relay takes a header of 4,096 bytes, which begins with `Bearer `. */
const PROOF = /^[\x21-\x7e]{1,4089}$/;
/** What stands before the 32 bytes of a private key in PKCS #8 (RFC 8410). */
const PKCS8_HEAD = Uint8Array.of(48, 46, 2, 1, 0, 48, 5, 6, 3, 43, 101, 112, 4, 34, 4, 32);

/** A private Ed25519 key: of WebCrypto, or its 32 bytes (the seed). */
export type PrivateKey = CryptoKey | Uint8Array;

interface Token {
  readonly text: string;
  readonly iat: number;
}

/** What a request shows to open a queue. */
export class Credentials {
  readonly #proof: (recipient: string, nowMs: number) => Promise<string>;
  /** Whether proofs have times in them, which a wrong clock makes wrong. */
  readonly isSigned: boolean;

  private constructor(proof: (recipient: string, nowMs: number) => Promise<string>, isSigned: boolean) {
    this.#proof = proof;
    this.isSigned = isSigned;
  }

  /** The secret of a `sha256:` recipient, in base64url. */
  static secret(secret: string): Credentials {
    secretBytes(secret);
    return new Credentials(async () => secret, false);
  }

  /** The private key of an `ed25519:` recipient. The audience is the relay's name for itself. */
  static key(key: PrivateKey, audience: string): Credentials {
    const signer = new Signer(key, audience);
    return new Credentials((recipient, nowMs) => signer.token(recipient, nowMs), true);
  }

  /**
   * A token of the operator's issuer, or a function that returns one that is valid now. If the
   * function fails, the request counts as one that got no response, and is repeated like those.
   */
  static token(token: string | (() => string | Promise<string>)): Credentials {
    const proof = async () => {
      try {
        return typeof token === "string" ? token : await token();
      } catch (thrown) {
        throw asRelayError(thrown, "unreachable");
      }
    };
    return new Credentials(proof, false);
  }

  /**
   * The header `Authorization` that opens the queue of this recipient.
   *
   * @throws RelayError `invalid_input`, without the proof's text, if no header can have that.
   */
  async authorization(recipient: string, nowMs: number): Promise<string> {
    const proof = await this.#proof(recipient, nowMs);
    if (!PROOF.test(proof)) {
      const message = "a token is 1 to 4089 printable ASCII characters without spaces";
      throw new RelayError("invalid_input", message);
    }
    return `Bearer ${proof}`;
  }
}

/** Signs tokens for `ed25519:` recipients, and keeps them while they are valid. */
class Signer {
  readonly #key: PrivateKey;
  readonly #audience: string;
  readonly #tokens = new Map<string, Token>();

  constructor(key: PrivateKey, audience: string) {
    this.#key = key;
    this.#audience = audience;
  }

  async token(recipient: string, nowMs: number): Promise<string> {
    const iat = Math.floor(nowMs / 1000);
    const known = this.#tokens.get(recipient);
    if (known && known.iat <= iat && iat <= known.iat + TOKEN_SECONDS - RENEWED_SECONDS) return known.text;
    const text = await this.#sign(recipient, iat);
    if (this.#tokens.size >= TOKENS_MAX) this.#tokens.clear();
    this.#tokens.set(recipient, { text, iat });
    return text;
  }

  async #sign(recipient: string, iat: number): Promise<string> {
    const header = { alg: "EdDSA", typ: "relay-read+jwt" };
    const claims = { iss: recipient, aud: this.#audience, iat, exp: iat + TOKEN_SECONDS };
    const parts = [header, claims].map((part) => base64url(utf8(JSON.stringify(part))));
    const text = parts.join(".");
    const signature = await withEd25519(async () => {
      const key = this.#key instanceof Uint8Array ? await importSeed(this.#key, false) : this.#key;
      return subtle().sign("Ed25519", key, utf8(text));
    });
    return `${text}.${base64url(new Uint8Array(signature))}`;
  }
}

/** A new secret: 32 random bytes, in base64url. */
export function generateSecret(): string {
  return base64url(crypto.getRandomValues(new Uint8Array(SECRET_BYTES[0])));
}

/** The recipient whose queue opens to this secret. With a second secret, pushes need that one. */
export async function recipientOfSecret(secret: string, sendSecret?: string): Promise<string> {
  return `sha256:${await digest("read", secret)}${await sendLock(sendSecret)}`;
}

/**
 * The recipient whose queue opens to tokens of this key: the private key, or the public one as a
 * `CryptoKey`. A private `CryptoKey` must be extractable for that. With a secret, pushes need that.
 */
export async function recipientOfKey(key: PrivateKey, sendSecret?: string): Promise<string> {
  const { x } = await withEd25519(async () => {
    const own = key instanceof Uint8Array ? await importSeed(key, true) : key;
    return subtle().exportKey("jwk", own);
  });
  return `ed25519:${x}${await sendLock(sendSecret)}`;
}

async function sendLock(secret: string | undefined): Promise<string> {
  return secret === undefined ? "" : `+sha256:${await digest("send", secret)}`;
}

async function digest(purpose: "read" | "send", secret: string): Promise<string> {
  const [domain, bytes] = [utf8(`relay/${purpose}/1\0`), secretBytes(secret)];
  const whole = new Uint8Array(domain.length + bytes.length);
  whole.set(domain);
  whole.set(bytes, domain.length);
  return base64url(new Uint8Array(await subtle().digest("SHA-256", whole)));
}

function secretBytes(secret: string): Bytes {
  const [least, most] = SECRET_BYTES;
  let bytes;
  try {
    bytes = fromBase64url(secret);
  } catch {
    // The error below says it.
  }
  if (!bytes || bytes.length < least || bytes.length > most || base64url(bytes) !== secret) {
    const message = `a secret is ${least} to ${most} bytes in base64url without padding`;
    throw new RelayError("invalid_input", message);
  }
  return bytes;
}

function importSeed(seed: Uint8Array, extractable: boolean): Promise<CryptoKey> {
  if (seed.length !== 32) throw new RelayError("invalid_input", "a private key has 32 bytes");
  const pkcs8 = new Uint8Array(PKCS8_HEAD.length + seed.length);
  pkcs8.set(PKCS8_HEAD);
  pkcs8.set(seed, PKCS8_HEAD.length);
  return subtle().importKey("pkcs8", pkcs8, "Ed25519", extractable, ["sign"]);
}

/** @throws RelayError `unsupported` if this runtime does not know Ed25519. */
async function withEd25519<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (thrown) {
    if (thrown instanceof RelayError) throw thrown;
    const isMissing = thrown instanceof Error && thrown.name === "NotSupportedError";
    const code = isMissing ? "unsupported" : "invalid_input";
    const message = isMissing ? "this runtime has no Ed25519 in WebCrypto" : "the key does not work";
    throw new RelayError(code, message, { cause: thrown });
  }
}

/** @throws RelayError `unsupported` on pages over clear text, which have no WebCrypto. */
function subtle(): SubtleCrypto {
  const own: SubtleCrypto | undefined = globalThis.crypto?.subtle;
  if (!own) throw new RelayError("unsupported", "WebCrypto needs a page over HTTPS or on loopback");
  return own;
}
