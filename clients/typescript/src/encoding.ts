// Base64, base64url, UTF-8 and message ids, alike in Node and in browsers.

import { brokenAnswer } from "./errors.js";

const STANDARD = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const ASCII = new TextDecoder("latin1");
const CODES = new TextEncoder().encode(STANDARD);
const PADDING = 61;

/** The six bits of each character; 255 for characters that are no digits. */
const DIGITS = new Uint8Array(256).fill(255);
CODES.forEach((code, digit) => (DIGITS[code] = digit));

/** Bytes in memory that nothing else can see, as WebCrypto wants them. */
export type Bytes = Uint8Array<ArrayBuffer>;

/** Standard base64 with padding. */
export function base64(bytes: Uint8Array): string {
  const text = new Uint8Array(Math.ceil(bytes.length / 3) * 4).fill(PADDING);
  let at = 0;
  for (let start = 0; start < bytes.length; start += 3) {
    const left = bytes.length - start;
    const bits = (bytes[start]! << 16) | ((bytes[start + 1] ?? 0) << 8) | (bytes[start + 2] ?? 0);
    text[at] = CODES[bits >> 18]!;
    text[at + 1] = CODES[(bits >> 12) & 63]!;
    if (left > 1) text[at + 2] = CODES[(bits >> 6) & 63]!;
    if (left > 2) text[at + 3] = CODES[bits & 63]!;
    at += 4;
  }
  return ASCII.decode(text);
}

/**
 * The bytes of standard base64 with padding.
 *
 * @throws RelayError `broken_answer` if the text is anything else.
 */
export function fromBase64(text: string): Bytes {
  const padding = text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0;
  const digits = text.length - padding;
  if (text.length % 4 !== 0) throw brokenAnswer("a payload is not base64");
  const bytes = new Uint8Array((text.length / 4) * 3 - padding);
  let at = 0;
  for (let start = 0; start < digits; start += 4) {
    let bits = 0;
    for (let place = start; place < start + 4; place++) {
      const digit = place < digits ? DIGITS[text.charCodeAt(place)] : 0;
      if (digit === undefined || digit > 63) throw brokenAnswer("a payload is not base64");
      bits = (bits << 6) | digit;
    }
    // Bytes past the end are dropped.
    bytes[at] = bits >> 16;
    bytes[at + 1] = bits >> 8;
    bytes[at + 2] = bits;
    at += 3;
  }
  return bytes;
}

/** Base64url without padding. */
export function base64url(bytes: Uint8Array): string {
  return base64(bytes).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

/** The bytes of base64url without padding. */
export function fromBase64url(text: string): Bytes {
  const standard = text.replaceAll("-", "+").replaceAll("_", "/");
  return fromBase64(standard + "=".repeat((4 - (standard.length % 4)) % 4));
}

export function utf8(text: string): Bytes {
  return new TextEncoder().encode(text);
}

/** A random UUID. `crypto.randomUUID` is missing from pages over clear text. */
export function randomMessageId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const digits = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
