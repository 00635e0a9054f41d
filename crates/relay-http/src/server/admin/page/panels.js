// The parts of the page that show figures.

import { Chart, Rows, element, mark, say, shownSeconds } from "./draw.js";
import { not } from "./figures.js";
import * as units from "./units.js";

// Over how many seconds rates and percentiles are.
const RATE = 10;
const LATENCY = 60;

const REQUESTS = "relay_requests_total";
const TIMES = "relay_request_seconds";

// Endpoints that are shown even before somebody uses them.
const ALWAYS = ["push", "pull", "ack"];

const isError = not("ok", "gone");

const sum = (one, other) => (one === undefined ? other : one + (other ?? 0));

// Title, value, unit of the value, and a note.
const TILES = [
  ["Requests", (f) => f.rate(REQUESTS, {}, RATE), units.rate,
    (f) => `total: ${units.count(f.value(REQUESTS))}`],
  ["Errors", (f) => f.rate(REQUESTS, { code: isError }, RATE), units.rate,
    (f) => `total: ${units.count(f.value(REQUESTS, { code: isError }) ?? 0)}`],
  ["Push, p99", (f) => f.quantile(0.99, TIMES, { endpoint: "push" }, LATENCY), units.seconds,
    (f) => `p50 ${units.seconds(f.quantile(0.5, TIMES, { endpoint: "push" }, LATENCY))}`],
  ["Sync, p99", (f) => f.quantile(0.99, "relay_journal_sync_seconds", {}, LATENCY), units.seconds,
    (f) => `syncs: ${units.rate(f.rate("relay_journal_sync_seconds_count", {}, RATE))}`],
  ["Items in queues", (f) => f.value("relay_live_items"), units.count,
    (f) => units.bytes(f.value("relay_live_bytes"))],
  ["Size of the store", (f) => storeBytes(f), units.bytes,
    (f) => (f.value("relay_disk_free_bytes") === undefined ? "in memory" : `${units.bytes(f.value("relay_disk_free_bytes"))} free`)],
  ["Waiting pulls", (f) => f.value("relay_waiting_pulls"), units.count,
    (f) => `for the rate limit: ${units.count(f.value("relay_rate_limit_waiting"))}`],
  ["Connections", (f) => f.value("relay_connections"), units.count,
    (f) => `in flight: ${units.count(f.value("relay_requests_in_flight"))}`],
];

function storeBytes(figures) {
  return figures.value("relay_disk_bytes") ?? figures.value("relay_live_bytes");
}

// Rows of two cells, by panel. A row without a value is not shown.
const LISTS = {
  queues: (f) => [
    ["Items in queues", units.count, f.value("relay_live_items")],
    ["Size of these items", units.bytes, f.value("relay_live_bytes")],
    ["Waits to be written", units.bytes, f.value("relay_waiting_bytes")],
    ["Acked", units.rate, f.rate("relay_acked_items_total", {}, RATE)],
    ["Expired and swept", units.rate, f.rate("relay_swept_items_total", {}, RATE)],
    ["Age at delivery, p50", units.seconds, f.quantile(0.5, "relay_delivery_age_seconds", {}, LATENCY)],
    ...f.labels("relay_disk_bytes", "kind").map((kind) => [
      `Files: ${kind} (${units.count(f.value("relay_disk_files", { kind }))})`,
      units.bytes,
      f.value("relay_disk_bytes", { kind }),
    ]),
    ["Free on the disk", units.bytes, f.value("relay_disk_free_bytes")],
    ["Rejects pushes below, free", units.bytes, f.value("relay_storage_min_free_bytes")],
    ["Rejects pushes above, size", units.bytes, f.value("relay_storage_max_bytes")],
    ["Of that size, in use", units.ratio, storeBytes(f) / f.value("relay_storage_max_bytes")],
  ],
  work: (f) => [
    ["Sync, p50", units.seconds, f.quantile(0.5, "relay_journal_sync_seconds", {}, LATENCY)],
    ["Sync, p99", units.seconds, f.quantile(0.99, "relay_journal_sync_seconds", {}, LATENCY)],
    ["Syncs", units.rate, f.rate("relay_journal_sync_seconds_count", {}, RATE)],
    ["Requests per sync", units.count, mean(f, "relay_batch_requests")],
    ["Checkpoint, mean of 10 min", units.seconds, mean(f, "relay_checkpoint_seconds")],
    ["Checkpoints, in 10 min", units.count, f.increase("relay_checkpoint_seconds_count", {}, 600)],
    ["Failed checkpoints", units.count, f.value("relay_checkpoints_failed_total")],
    ["Since the last full sweep", units.seconds, f.value("relay_sweep_lag_seconds")],
    ["Space waits to be reclaimed for", units.seconds, f.value("relay_reclaim_lag_seconds")],
    ["Corrupt items found", units.count, f.value("relay_damaged_items_total")],
  ],
  limits: (f) => [
    ["Refused by the rate limit (429)", units.rate, f.rate("relay_rate_limit_refusals_total", {}, RATE)],
    ["The same, total", units.count, f.value("relay_rate_limit_refusals_total")],
    ["Bans, in 10 min", units.count, f.increase("relay_rate_limit_bans_total", {}, 600)],
    ["Bans, total", units.count, f.value("relay_rate_limit_bans_total")],
    ...f.labels("relay_refused_connections_total", "reason").map((reason) => [
      `Connections refused: ${reason}`,
      units.count,
      f.value("relay_refused_connections_total", { reason }),
    ]),
    ["Store is full (507), total", units.count, f.value(REQUESTS, { code: "storage_full" }) ?? 0],
    ["Queue is full (409), total", units.count, f.value(REQUESTS, { code: "quota_exceeded" }) ?? 0],
    ["Overloaded (503), total", units.count, f.value(REQUESTS, { code: "overloaded" }) ?? 0],
    ["Proofs refused, total", units.count, f.value("relay_auth_refusals_total")],
  ],
  waits: (f) => [
    ["Pulls and streams that wait", units.count, f.value("relay_waiting_pulls")],
    ["Requests that wait for the rate limit", units.count, f.value("relay_rate_limit_waiting")],
    ["Requests in flight", units.count, f.value("relay_requests_in_flight")],
    ["Memory of requests", units.bytes, f.value("relay_inflight_bytes")],
    ["Connections", units.count, f.value("relay_connections")],
    ["HTTP/1.1 in clear text", units.count, f.value("relay_protocol_connections", { protocol: "http1" })],
    ["HTTP/1.1 over TLS", units.count, f.value("relay_protocol_connections", { protocol: "http1_tls" })],
    ["HTTP/2", units.count, f.value("relay_protocol_connections", { protocol: "http2" })],
    ["TLS handshakes", units.rate, f.rate("relay_tls_handshakes_total", { outcome: "ok" }, RATE)],
    ["Failed handshakes, total", units.count, f.value("relay_tls_handshakes_total", { outcome: "failed" })],
  ],
  more: (f, unixSeconds) => [
    ["Clock, ahead of the store", units.seconds, f.value("relay_clock_offset_seconds")],
    ["Certificate expires in", units.seconds, f.value("relay_tls_certificate_expiry_seconds") - unixSeconds],
    ...f.labels("relay_wakes_total", "outcome").map((outcome) => [
      `Wakes: ${outcome}`,
      units.count,
      f.value("relay_wakes_total", { outcome }),
    ]),
    ["Wakes that are due", units.count, f.value("relay_wakes_pending")],
    ["Database serves (1) or is away (0)", units.count, f.value("relay_database_available")],
    ["Size of the database", units.bytes, f.value("relay_database_bytes")],
    ["Oldest transaction", units.seconds, f.value("relay_database_oldest_transaction_seconds")],
  ],
};

function mean(figures, name) {
  return figures.increase(`${name}_sum`, {}, 600) / figures.increase(`${name}_count`, {}, 600);
}

export class Panels {
  #tiles = TILES.map(([title, value, unit, note]) => new Tile(title, value, unit, note));
  #endpoints = new Rows(document.getElementById("endpoints"));
  #charts = new Map();
  #outcomes = new Rows(document.getElementById("outcomes"));
  #lists = Object.entries(LISTS).map(([id, rows]) => [new Rows(document.getElementById(id)), rows]);

  constructor() {
    document.getElementById("tiles").append(...this.#tiles.map(({ node }) => node));
  }

  // Shows the figures at `now`, in seconds since the page was opened.
  show(figures, now, unixSeconds) {
    for (const tile of this.#tiles) tile.show(figures, now);
    say(document.getElementById("shown"), units.seconds(Math.round(shownSeconds(now))));
    this.#showEndpoints(figures, now);
    this.#showOutcomes(figures);
    for (const [rows, list] of this.#lists) {
      const known = list(figures, unixSeconds).filter(([, , value]) => Number.isFinite(value));
      rows.show(known.map(([key, unit, value]) => ({ key, cells: [key, unit(value)] })));
    }
  }

  #showEndpoints(figures, now) {
    const others = figures.labels(REQUESTS, "endpoint").filter((endpoint) => {
      return !ALWAYS.includes(endpoint) && figures.value(REQUESTS, { endpoint }) > 0;
    });
    const rows = [...ALWAYS, ...others].map((endpoint) => {
      const rate = figures.rate(REQUESTS, { endpoint }, RATE);
      const errors = figures.rate(REQUESTS, { endpoint, code: isError }, RATE) ?? 0;
      const quantile = (part) => units.seconds(figures.quantile(part, TIMES, { endpoint }, LATENCY));
      const total = units.count(figures.value(REQUESTS, { endpoint }));
      const name = endpoint === "none" ? "unknown path" : `/${endpoint}`;
      return {
        key: endpoint,
        cells: [name, units.rate(rate), quantile(0.5), quantile(0.99), units.rate(errors), total],
        state: errors > 0 ? "warning" : "",
        extra: () => this.#chart(endpoint, name).node,
        rate,
      };
    });
    this.#endpoints.show(rows);
    for (const { key, rate } of rows) this.#charts.get(key).add(now, rate);
  }

  #chart(endpoint, name) {
    if (!this.#charts.has(endpoint)) this.#charts.set(endpoint, new Chart(`Requests to ${name}`, units.rate));
    return this.#charts.get(endpoint);
  }

  #showOutcomes(figures) {
    const seen = figures.series(REQUESTS).map(({ labels: { endpoint, code } }) => ({ endpoint, code }));
    const rows = seen.map(({ endpoint, code }) => {
      const [total, now] = [figures.value(REQUESTS, { endpoint, code }), figures.rate(REQUESTS, { endpoint, code }, RATE)];
      const cells = [`${endpoint} · ${code}`, units.rate(now), units.count(total)];
      return { key: `${endpoint} ${code}`, total, cells, state: isError(code) && now > 0 ? "warning" : "" };
    });
    this.#outcomes.show(rows.filter(({ total }) => total > 0).sort((one, other) => one.key.localeCompare(other.key)));
  }
}

// One figure, large, with its chart.
class Tile {
  constructor(title, value, unit, note) {
    Object.assign(this, { value, unit, note });
    this.chart = new Chart(title, unit);
    this.now = element("p", { class: "value", text: unit(undefined) });
    this.hint = element("p", { class: "hint", text: " " });
    this.peak = element("p", { class: "peak", text: "" });
    this.node = element("li", { "data-tile": title }, element("h3", { text: title }), this.now, this.hint, this.chart.node, this.peak);
  }

  show(figures, now) {
    const value = this.value(figures);
    this.chart.add(now, value);
    say(this.now, this.unit(value));
    say(this.hint, this.note(figures));
    say(this.peak, `peak ${this.unit(this.chart.highest)}`);
  }
}

// The alerts that fire or would, and the table of all rules.
export class AlertPanel {
  #list = document.getElementById("alerts");
  #rules = new Rows(document.getElementById("rules"));
  #shown = "";

  show(states) {
    this.#rules.show(
      states.map(({ name, state, now, limit, after }) => {
        const time = after === 0 ? "at once" : units.seconds(after);
        return { key: name, state, cells: [name, state, now, limit, time] };
      }),
    );
    this.#showActive(states.filter(({ state }) => state !== "ok"));
  }

  // The list is built anew only if it changes, so that a screen reader says only changes.
  #showActive(active) {
    const shown = active.map(({ name, state }) => `${name} ${state}`).join();
    if (shown === this.#shown && this.#list.children.length > 0) return;
    this.#shown = shown;
    const items = active.map(({ name, severity, state, text, after }) => {
      const when = state === "firing" ? severity : `${severity}, if it holds for ${units.seconds(after)}`;
      const item = element("li", { "data-state": state, "data-severity": severity });
      item.append(element("strong", { text: name }), element("span", { class: "badge", text: when }), element("p", { text }));
      return item;
    });
    const none = element("li", { "data-state": "ok" }, element("p", { text: "No alert would fire." }));
    this.#list.replaceChildren(...(items.length > 0 ? items : [none]));
  }
}

// Readiness, version and uptime.
export function showState(figures, isUp) {
  const readiness = document.getElementById("readiness");
  const text = !isUp ? "no contact" : figures.unready ? `not ready: ${figures.unready}` : "ready";
  say(readiness, text);
  mark(readiness, "data-state", !isUp ? "unknown" : figures.unready ? "bad" : "good");
  const { version, commit } = figures.info("relay_build_info");
  if (version === undefined) return text;
  const uptime = units.seconds(Math.floor(figures.value("relay_uptime_seconds")));
  say(document.getElementById("build"), `version ${version}, commit ${commit.slice(0, 12)}, up for ${uptime}`);
  return text;
}
