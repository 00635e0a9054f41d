// The rules of deploy/alerts.yaml, for this relay and the time that this page has seen. A test compares the two lists.

import * as units from "./units.js";

const MINUTE = 60;
const FAULTS = ["internal_error", "storage_error"];

// A condition: what is compared, with what, and whether the rule holds. It does not if either is unknown.
const above = (now, limit, unit) => compared(now, ">", limit, unit, now > limit);
const below = (now, limit, unit) => compared(now, "<", limit, unit, now < limit);

function compared(now, sign, limit, unit, holds) {
  return { now: unit(now), limit: Number.isFinite(limit) ? `${sign} ${unit(limit)}` : unit(undefined), holds };
}

// `after` is how long a condition has to hold, in seconds. `judge` gets the figures, what the time is in seconds since
// 1970, and whether the relay can be reached.
export const ALERTS = [
  {
    name: "RelayDown", severity: "critical", after: 60,
    expr: `up{job="relay"} == 0`,
    text: "The relay does not respond.",
    judge: (figures, { isUp }) => ({ now: isUp ? "up" : "down", limit: "down", holds: !isUp }),
  },
  {
    name: "RelayFaults", severity: "critical", after: 120,
    expr: `sum by (instance) (rate(relay_requests_total{code=~"internal_error|storage_error"}[5m])) > 0
      or sum by (instance) (rate(relay_batch_item_errors_total{code=~"internal_error|storage_error"}[5m])) > 0`,
    text: "The relay returns internal errors; its log has the reason.",
    judge: (figures) => {
      const names = ["relay_requests_total", "relay_batch_item_errors_total"];
      const rates = names.map((name) => figures.rate(name, { code: FAULTS }, 5 * MINUTE) ?? 0);
      return above(Math.max(...rates), 0, units.rate);
    },
  },
  {
    name: "RelayStorageFull", severity: "critical", after: 0,
    expr: `max by (instance) (relay_storage_full) > 0`,
    text: "The relay rejects pushes: too little free space, or storage.max_bytes is reached.",
    judge: (figures) => {
      const isFull = figures.value("relay_storage_full") > 0;
      return { now: isFull ? "full" : "has space", limit: "full", holds: isFull };
    },
  },
  {
    name: "RelayDamage", severity: "critical", after: 0,
    expr: `sum by (instance) (increase(relay_damaged_items_total[15m])) > 0`,
    text: "The relay found corrupt items; clients do not receive them.",
    judge: (figures) => above(figures.increase("relay_damaged_items_total", {}, 15 * MINUTE), 0, units.count),
  },
  {
    name: "RelayOverloaded", severity: "warning", after: 300,
    expr: `sum by (instance) (rate(relay_requests_total{code="overloaded"}[5m])) > 0`,
    text: "The relay rejects requests because too many are in flight.",
    judge: (figures) =>
      above(figures.rate("relay_requests_total", { code: "overloaded" }, 5 * MINUTE) ?? 0, 0, units.rate),
  },
  {
    name: "RelayPushesFail", severity: "warning", after: 900,
    expr: `sum by (instance) (rate(relay_pushes_total{outcome="failed"}[15m]))
      > sum by (instance) (rate(relay_pushes_total{outcome="stored"}[15m]))`,
    text: "More pushes fail than are stored.",
    judge: (figures) => {
      const rate = (outcome) => figures.rate("relay_pushes_total", { outcome }, 15 * MINUTE);
      return above(rate("failed"), rate("stored"), units.rate);
    },
  },
  {
    name: "RelaySlowPushes", severity: "warning", after: 600,
    expr: `histogram_quantile(0.99, sum by (instance, le) (rate(relay_request_seconds_bucket{endpoint="push"}[10m]))) > 1`,
    text: "1% of pushes take longer than a second.",
    judge: (figures) =>
      above(figures.quantile(0.99, "relay_request_seconds", { endpoint: "push" }, 10 * MINUTE), 1, units.seconds),
  },
  {
    name: "RelaySlowDisk", severity: "warning", after: 600,
    expr: `histogram_quantile(0.99, sum by (instance, le) (rate(relay_journal_sync_seconds_bucket[10m]))) > 0.2`,
    text: "The disk takes more than 200 ms for 1% of its syncs.",
    judge: (figures) => above(figures.quantile(0.99, "relay_journal_sync_seconds", {}, 10 * MINUTE), 0.2, units.seconds),
  },
  {
    name: "RelaySpaceShort", severity: "warning", after: 600,
    expr: `relay_disk_free_bytes < 2 * relay_storage_min_free_bytes
      or sum by (instance) (relay_disk_bytes) > on (instance) 0.9 * relay_storage_max_bytes`,
    text: "The relay will soon reject pushes: little free space, or the store is near storage.max_bytes.",
    judge: (figures) => {
      const free = below(figures.value("relay_disk_free_bytes"), 2 * figures.value("relay_storage_min_free_bytes"), units.bytes);
      const size = above(figures.value("relay_disk_bytes"), 0.9 * figures.value("relay_storage_max_bytes"), units.bytes);
      return size.holds ? size : free;
    },
  },
  {
    name: "RelayCheckpointsFail", severity: "warning", after: 0,
    expr: `increase(relay_checkpoints_failed_total[15m]) > 3`,
    text: "The relay cannot write its index; it will reject pushes if this continues.",
    judge: (figures) => above(figures.increase("relay_checkpoints_failed_total", {}, 15 * MINUTE), 3, units.count),
  },
  {
    name: "RelaySweepBehind", severity: "warning", after: 600,
    expr: `relay_sweep_lag_seconds > 3600`,
    text: "No sweep of expired messages was completed for an hour.",
    judge: (figures) => above(figures.value("relay_sweep_lag_seconds"), 3600, units.seconds),
  },
  {
    name: "RelayReclaimBehind", severity: "warning", after: 600,
    expr: `relay_reclaim_lag_seconds > 21600`,
    text: "There has been unreclaimed disk space for six hours.",
    judge: (figures) => above(figures.value("relay_reclaim_lag_seconds"), 21600, units.seconds),
  },
  {
    name: "RelayClockOff", severity: "warning", after: 300,
    expr: `abs(relay_clock_offset_seconds) > 3600`,
    text: "The clock is over an hour off the store's own time; the store does not trust it.",
    judge: (figures) => above(Math.abs(figures.value("relay_clock_offset_seconds")), 3600, units.seconds),
  },
  {
    name: "RelayDatabaseAway", severity: "critical", after: 60,
    expr: `relay_database_available == 0`,
    text: "The relay cannot use its database, or one of several, or that waits for its standby.",
    judge: (figures) => {
      const isAvailable = figures.value("relay_database_available");
      return { now: ["away", "serves"][isAvailable] ?? units.count(), limit: "away", holds: isAvailable === 0 };
    },
  },
  {
    name: "RelayDatabaseSnapshotHeld", severity: "warning", after: 60,
    expr: `relay_database_oldest_transaction_seconds > 60`,
    text: "A transaction in the database has been open for over a minute; the relays become slower.",
    judge: (figures) => above(figures.value("relay_database_oldest_transaction_seconds"), 60, units.seconds),
  },
  {
    name: "RelayCertificateEnds", severity: "warning", after: 3600,
    expr: `relay_tls_certificate_expiry_seconds - time() < 14 * 86400`,
    text: "The TLS certificate expires within 14 days, or has expired.",
    judge: (figures, { unixSeconds }) =>
      below(figures.value("relay_tls_certificate_expiry_seconds") - unixSeconds, 14 * 86400, units.seconds),
  },
  {
    name: "RelayWakesDropped", severity: "warning", after: 600,
    expr: `sum by (instance) (increase(relay_wakes_total{outcome=~"refused|failed|full"}[10m]))
      > sum by (instance) (increase(relay_wakes_total{outcome="sent"}[10m]))`,
    text: "The relay drops more wakes than its gateway accepts: sleeping clients do not learn of messages.",
    judge: (figures) => {
      const increase = (outcome) => figures.increase("relay_wakes_total", { outcome }, 10 * MINUTE);
      return above(increase(["refused", "failed", "full"]), increase("sent"), units.count);
    },
  },
  {
    name: "RelayManyBans", severity: "warning", after: 0,
    expr: `increase(relay_rate_limit_bans_total[10m]) > 20`,
    text: "Many addresses are banned: an attack, or a proxy that is missing in rate_limit.trusted_proxies.",
    judge: (figures) => above(figures.increase("relay_rate_limit_bans_total", {}, 10 * MINUTE), 20, units.count),
  },
];

// For how long each condition has held.
export class AlertStates {
  #since = new Map();

  // The state of every rule at `now`, in seconds of any clock: "ok", "pending", or "firing". While the relay cannot be
  // reached, its figures are old, and all rules but the first stay as they are.
  judge(figures, { now, unixSeconds, isUp }) {
    return ALERTS.map((alert) => {
      const judged = alert.judge(figures, { unixSeconds, isUp });
      if (judged.holds && !this.#since.has(alert.name)) this.#since.set(alert.name, now);
      if (!judged.holds) this.#since.delete(alert.name);
      const since = this.#since.get(alert.name);
      const state = since === undefined ? "ok" : now - since >= alert.after ? "firing" : "pending";
      return { ...alert, ...judged, state, left: since === undefined ? 0 : alert.after - (now - since) };
    });
  }
}
