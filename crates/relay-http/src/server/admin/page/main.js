// Follows the relay's events, and shows each snapshot. When the connection is lost, it says so and tries again.

import { AlertStates } from "./alerts.js";
import { mark, say } from "./draw.js";
import { Figures } from "./figures.js";
import { AlertPanel, Panels, showState } from "./panels.js";

// Without an event for this long, the connection counts as lost. The relay sends one each second.
const SILENCE_MS = 5000;

// The pauses between two attempts to connect.
const PAUSE_MS = 1000;
const PAUSE_MAX_MS = 10_000;

const seconds = () => performance.now() / 1000;

class Watcher {
  #figures = new Figures();
  #states = new AlertStates();
  #panels = new Panels();
  #alerts = new AlertPanel();
  #events = null;
  #pause = PAUSE_MS;
  #timer = 0;
  #isUp = false;
  #hasFigures = false;

  connect() {
    clearTimeout(this.#timer);
    this.#events?.close();
    const events = new EventSource("/events");
    this.#events = events;
    this.#expectEvent();
    events.addEventListener("message", ({ data }) => this.#show(JSON.parse(data)));
    events.addEventListener("error", () => this.#lose());
    events.addEventListener("replaced", () => this.#leave());
  }

  #expectEvent() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#lose(), SILENCE_MS);
  }

  #show(snapshot) {
    this.#expectEvent();
    this.#pause = PAUSE_MS;
    this.#isUp = true;
    this.#hasFigures = true;
    if (!this.#figures.add(snapshot)) this.#states = new AlertStates();
    this.#panels.show(this.#figures, seconds(), Date.now() / 1000);
    this.#setLink("live", "Live");
    this.judge();
  }

  #lose() {
    this.#events.close();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.connect(), this.#pause);
    this.#pause = Math.min(this.#pause * 2, PAUSE_MAX_MS);
    if (this.#isUp || !this.#hasFigures) this.#setLink("lost", `Connection lost at ${clock()}; trying again`);
    this.#isUp = false;
    this.judge();
  }

  // Another page watches instead of this one.
  #leave() {
    this.#events.close();
    clearTimeout(this.#timer);
    this.#setLink("replaced", `Stopped at ${clock()}: too many pages watch this relay`);
  }

  #setLink(state, text) {
    mark(document.body, "data-link", state);
    say(document.getElementById("link"), text);
    document.getElementById("again").hidden = state !== "replaced";
  }

  // Judges the rules, also while there are no new figures.
  judge() {
    if (document.body.dataset.link === "replaced") return;
    const states = this.#states.judge(this.#figures, { now: seconds(), unixSeconds: Date.now() / 1000, isUp: this.#isUp });
    this.#alerts.show(states);
    const readiness = showState(this.#figures, this.#isUp);
    const firing = states.filter(({ state }) => state === "firing").length;
    document.title = `${firing > 0 ? `(${firing}) ` : ""}relay ${location.host}: ${readiness}`;
  }
}

function clock() {
  return new Date().toLocaleTimeString();
}

say(document.getElementById("host"), location.host);
const watcher = new Watcher();
document.getElementById("again").addEventListener("click", () => watcher.connect());
watcher.connect();
setInterval(() => watcher.judge(), 1000);
