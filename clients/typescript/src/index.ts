// A client of a store-and-forward relay: pushes messages in chunks, delivers them whole and in
// order.

export { Client } from "./client.js";
export { Credentials, generateSecret, recipientOfKey, recipientOfSecret } from "./credentials.js";
export { RelayError } from "./errors.js";
export { Deliveries } from "./deliveries.js";

export type { SkipReason } from "./assembler.js";
export type { PrivateKey } from "./credentials.js";
export type { DeliveryOptions, Message } from "./deliveries.js";
export type { ClientOptions } from "./options.js";
export type { Payload, PushOptions } from "./outgoing.js";
export type { PushEntry, PushResult } from "./push.js";
