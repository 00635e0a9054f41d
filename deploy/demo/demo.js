// The page of the demonstration: makes the keys of this window, invites another one, and shows what
// they say. What encrypts is in seal.js; what talks to the relay is in relay.js.

import { Client, Credentials } from "./relay.js";
import { checkCard, makeIdentity, readCard, safetyNumber, seal, unseal, writeCard } from "./seal.js";

/** The oldest messages leave the page. */
const SHOWN_MAX = 500;
/** How long the relay may take to say that it is there. */
const ANSWER_MS_MAX = 10_000;

const element = Object.fromEntries([...document.querySelectorAll("[id]")].map((own) => [own.id, own]));

let client;
let identity;
/** The card of the other window, when it is known. */
let other = null;
/** Messages are numbered, so that one that is sent again is not shown again. */
let sentNumber = 0;
let receivedNumber = 0;

function say(text) {
  element.status.textContent = text;
}

function complain(text) {
  element.error.textContent = text;
}

function show(section) {
  element[section].hidden = false;
}

/** Runs what a form or button does, and shows how it fails. */
function onEvent(id, type, run) {
  element[id].addEventListener(type, async (event) => {
    event.preventDefault();
    complain("");
    try {
      await run();
    } catch (error) {
      complain(`That did not work: ${error.message}`);
    }
  });
}

async function begin() {
  const invited = readCard(location.hash);
  const relay = element.relay.value;
  await findRelay(relay);
  await client?.close();
  client = new Client(relay);
  identity = await makeIdentity(relay);
  receive(client, identity).catch((error) => complain(`Receiving has ended: ${error.message}`));
  if (invited) {
    await meet(invited);
  } else {
    invite();
  }
  element.setup.hidden = true;
  // The link of the other window is not for the history of this browser.
  history.replaceState(null, "", location.href.replace(/#.*$/, ""));
}

/** Pages are not told why a request fails: a relay that is away looks like one that refuses them. */
async function findRelay(relay) {
  say("Looking for the relay.");
  try {
    await fetch(`${relay.replace(/\/+$/, "")}/info`, { signal: AbortSignal.timeout(ANSWER_MS_MAX) });
  } catch {
    say("");
    const origin = `${location.origin} in cors.allowed_origins`;
    throw new Error(`the relay does not answer this page. Does it run, and does it list ${origin}?`);
  }
}

function invite() {
  const link = location.href.replace(/#.*$/, "") + writeCard(identity.card);
  element.link.value = link;
  element.open.href = link;
  show("invite");
  element.link.focus();
  say("Waiting for the other window.");
}

/** Tells the window with this card who this one is, and opens the conversation. */
async function meet(card) {
  await push(card, { hello: identity.card });
  await openChat(card);
}

async function openChat(card) {
  other = card;
  element.safety.textContent = await safetyNumber(identity.card.key, card.key);
  element.invite.hidden = true;
  show("chat");
  element.message.focus();
  say("Connected with the other window.");
}

async function push(card, value) {
  sentNumber += 1;
  const sealed = await seal(identity, card, { ...value, number: sentNumber });
  await client.push(card.recipient, sealed, { sendSecret: card.send });
}

async function receive(from, { card, secret }) {
  for await (const message of from.deliveries(card.recipient, Credentials.secret(secret))) {
    const opened = await unseal(identity, message.payload);
    try {
      if (opened) await take(opened);
      else say("A message came that is not for this window, or was changed.");
    } catch {
      // Whatever others send, this window goes on listening.
      say("A message came that this page does not understand.");
    }
    void message.ack();
  }
}

/** A message that somebody sealed for this window. */
async function take({ value, key }) {
  if (!other && value?.hello) {
    const card = checkCard(value.hello);
    // Who says hello must have the key of the card.
    if (card?.key === key) await openChat(card);
  }
  if (other?.key !== key) {
    say("Somebody else wrote, too. That message is not shown.");
    return;
  }
  if (!Number.isSafeInteger(value?.number) || value.number <= receivedNumber) return;
  receivedNumber = value.number;
  if (typeof value.text === "string") addLine("Other", value.text);
}

/** Adds a message to the log, and returns the place for what happens to it. */
function addLine(author, text) {
  const line = document.createElement("li");
  const name = document.createElement("strong");
  name.textContent = `${author}: `;
  const fate = document.createElement("small");
  line.append(name, text, fate);
  line.classList.toggle("own", author === "You");
  element.log.append(line);
  while (element.log.childElementCount > SHOWN_MAX) element.log.firstElementChild.remove();
  line.scrollIntoView({ block: "nearest" });
  return fate;
}

let sending = Promise.resolve();

/** Messages go one after the other, so that they arrive in their order. */
function send() {
  const text = element.message.value;
  element.message.value = "";
  const fate = addLine("You", text);
  fate.textContent = "sending";
  sending = sending.then(async () => {
    try {
      await push(other, { text });
      fate.textContent = "stored by the relay";
    } catch (error) {
      fate.textContent = `not sent: ${error.message}`;
    }
  });
}

async function copy() {
  element.link.select();
  await navigator.clipboard.writeText(element.link.value);
  say("The link is copied.");
}

async function useLink() {
  const card = readCard(element.pasted.value);
  if (!card) throw new Error("this is not a link of this page");
  if (card.key === identity.card.key) throw new Error("this is the link of this window itself");
  if (card.relay !== identity.card.relay) throw new Error("the other window uses another relay");
  await meet(card);
}

function start() {
  if (!globalThis.crypto?.subtle) {
    complain("This page needs to be served over HTTPS, or from localhost: browsers encrypt nowhere else.");
    return;
  }
  const invited = readCard(location.hash);
  element.relay.value =
    invited?.relay ?? new URLSearchParams(location.search).get("relay") ?? location.origin;
  if (invited) {
    element.relay.readOnly = true;
    element.begin.textContent = "Make keys and join";
  }
  onEvent("setup-form", "submit", begin);
  onEvent("paste-form", "submit", useLink);
  onEvent("send-form", "submit", send);
  onEvent("copy", "click", copy);
  addEventListener("pagehide", () => void client?.close());
  show("setup");
}

start();
