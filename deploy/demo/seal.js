// The encryption of the demonstration: a card tells others how to write to a window, and a sealed
// message shows nothing but its sender's key. It has no forward secrecy, and is not to be copied into a
// messenger.

import { generateSecret, recipientOfSecret } from "./relay.js";

const CURVE = { name: "ECDH", namedCurve: "P-256" };
/** An uncompressed point of P-256, and the same in base64url. */
const KEY_BYTES = 65;
const KEY_TEXT = /^[\w-]{87}$/;
const SALT_BYTES = 32;
const INFO = new TextEncoder().encode("relay-demonstration/1");
const CARD_CHARS_MAX = 2_000;

function base64url(bytes) {
  return btoa(String.fromCharCode(...bytes))
    .replace(/\+/g, "-")
    .replace(/\//g, "_")
    .replace(/=+$/, "");
}

function fromBase64url(text) {
  return Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (char) => char.charCodeAt(0));
}

function join(...parts) {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Makes the keys of this window, and the card that others need to write to it. */
export async function makeIdentity(relay) {
  const [secret, send] = [generateSecret(), generateSecret()];
  const { privateKey, publicKey } = await crypto.subtle.generateKey(CURVE, false, ["deriveKey"]);
  const key = new Uint8Array(await crypto.subtle.exportKey("raw", publicKey));
  const recipient = await recipientOfSecret(secret, send);
  return { privateKey, key, secret, card: { relay, recipient, send, key: base64url(key) } };
}

/** A card as the fragment of a link. */
export function writeCard(card) {
  return `#${base64url(new TextEncoder().encode(JSON.stringify(card)))}`;
}

/** The card in a link or in its fragment; null if there is none. */
export function readCard(link) {
  try {
    const fragment = link.slice(link.indexOf("#") + 1).trim();
    if (fragment === "" || fragment.length > CARD_CHARS_MAX) return null;
    return checkCard(JSON.parse(new TextDecoder().decode(fromBase64url(fragment))));
  } catch {
    return null;
  }
}

/** The known fields of a card that somebody else has made; null if one of them is wrong. */
export function checkCard({ relay, recipient, send, key }) {
  const areTexts = [relay, recipient, send, key].every((field) => typeof field === "string");
  const isCard = areTexts && /^https?:/.test(relay) && KEY_TEXT.test(key);
  return isCard ? { relay, recipient, send, key } : null;
}

/** The key of one message, which both sides can make. No other message has the same. */
async function messageKey(privateKey, otherKey, salt, use) {
  const other = await crypto.subtle.importKey("raw", otherKey, CURVE, false, []);
  const hkdf = await crypto.subtle.deriveKey({ name: "ECDH", public: other }, privateKey, "HKDF", false, [
    "deriveKey",
  ]);
  const derive = { name: "HKDF", hash: "SHA-256", salt, info: INFO };
  return crypto.subtle.deriveKey(derive, hkdf, { name: "AES-GCM", length: 256 }, false, [use]);
}

/** The nonce may be constant, as each key is used once. Both keys are authenticated, in this order. */
function cipher(senderKey, readerKey) {
  return { name: "AES-GCM", iv: new Uint8Array(12), additionalData: join(senderKey, readerKey) };
}

/** Encrypts a value for the window with this card. */
export async function seal(identity, card, value) {
  const readerKey = fromBase64url(card.key);
  const salt = crypto.getRandomValues(new Uint8Array(SALT_BYTES));
  const key = await messageKey(identity.privateKey, readerKey, salt, "encrypt");
  const text = new TextEncoder().encode(JSON.stringify(value));
  const sealed = await crypto.subtle.encrypt(cipher(identity.key, readerKey), key, text);
  return join(identity.key, salt, new Uint8Array(sealed));
}

/**
 * Decrypts a message. Returns the value and the sender's key, as in its card; null if nobody has sealed
 * this for this window.
 */
export async function unseal(identity, bytes) {
  try {
    const senderKey = bytes.slice(0, KEY_BYTES);
    const salt = bytes.slice(KEY_BYTES, KEY_BYTES + SALT_BYTES);
    const key = await messageKey(identity.privateKey, senderKey, salt, "decrypt");
    const sealed = bytes.slice(KEY_BYTES + SALT_BYTES);
    const text = await crypto.subtle.decrypt(cipher(senderKey, identity.key), key, sealed);
    return { value: JSON.parse(new TextDecoder().decode(text)), key: base64url(senderKey) };
  } catch {
    return null;
  }
}

/** A number that is the same in two windows if nobody stands between them. */
export async function safetyNumber(...keys) {
  const bytes = join(...keys.sort().map(fromBase64url));
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const groups = Array.from({ length: 8 }, (_, at) => (digest[2 * at] << 8) | digest[2 * at + 1]);
  return groups.map((group) => String(group).padStart(5, "0")).join(" ");
}
