// What the relay has reported in the last minutes, and what follows from it: rates, and quantiles of histograms, as
// Prometheus computes them. It shows nothing.

// The longest time that a rule of alerts.js looks back.
const KEPT_SECONDS = 15 * 60;

const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

function parse(key) {
  const brace = key.indexOf("{");
  if (brace < 0) return [key, {}];
  const labels = {};
  for (const [, label, value] of key.slice(brace).matchAll(LABEL)) labels[label] = value;
  return [key.slice(0, brace), labels];
}

// A value that labels are compared with: a text, several, or whatever is no text of these.
export const not = (...texts) => (value) => !texts.includes(value);

function matches(labels, wanted) {
  return Object.entries(wanted).every(([label, value]) => {
    if (typeof value === "function") return value(labels[label]);
    return Array.isArray(value) ? value.includes(labels[label]) : labels[label] === value;
  });
}

export class Figures {
  // Series by the name of their metric: labels, and their place in a snapshot.
  #series = new Map();
  #places = new Map();
  #snapshots = [];

  // Takes a snapshot of the relay. Returns false if it is the first one of another run of the relay.
  add({ at_seconds: at, samples, unready }) {
    const uptime = samples.relay_uptime_seconds ?? 0;
    const last = this.#snapshots.at(-1);
    const isSameRun = last === undefined || (at >= last.at && uptime >= last.uptime);
    if (!isSameRun) this.#snapshots = [];
    for (const key of Object.keys(samples)) if (!this.#places.has(key)) this.#learn(key);
    const values = new Float64Array(this.#places.size).fill(NaN);
    for (const [key, value] of Object.entries(samples)) values[this.#places.get(key)] = value;
    this.#snapshots.push({ at, uptime, values, unready });
    while (this.#snapshots[0].at < at - KEPT_SECONDS - 1) this.#snapshots.shift();
    return isSameRun;
  }

  #learn(key) {
    const [name, labels] = parse(key);
    const place = this.#places.size;
    this.#places.set(key, place);
    if (!this.#series.has(name)) this.#series.set(name, []);
    this.#series.get(name).push({ labels, place });
  }

  get unready() {
    return this.#snapshots.at(-1)?.unready;
  }

  // The current series of a metric that match.
  series(name, wanted = {}) {
    const { values } = this.#snapshots.at(-1) ?? {};
    const series = (values && this.#series.get(name)) ?? [];
    return series.filter(({ labels, place }) => !Number.isNaN(values[place]) && matches(labels, wanted));
  }

  // The values of a label that the series of a metric have.
  labels(name, label, wanted = {}) {
    return [...new Set(this.series(name, wanted).map(({ labels }) => labels[label]))];
  }

  // The labels of a metric that always has the value 1.
  info(name) {
    return this.series(name)[0]?.labels ?? {};
  }

  // The sum of the current values that match; undefined if there are none.
  value(name, wanted = {}) {
    const { values } = this.#snapshots.at(-1) ?? {};
    const series = this.series(name, wanted);
    return series.length === 0 ? undefined : series.reduce((sum, { place }) => sum + values[place], 0);
  }

  // How much a counter has grown in this time, or since the first snapshot; undefined if there is none.
  increase(name, wanted, seconds) {
    const series = this.series(name, wanted);
    const [first, last] = this.#window(seconds);
    return series.length === 0 || !first ? undefined : sumOfIncreases(series, first, last);
  }

  // The same per second.
  rate(name, wanted, seconds) {
    const [first, last] = this.#window(seconds);
    const increase = this.increase(name, wanted, seconds);
    return increase === undefined || last.at <= first.at ? undefined : increase / (last.at - first.at);
  }

  // The quantile of what a histogram has counted in this time; undefined if that is nothing.
  quantile(quantile, name, wanted, seconds) {
    const [first, last] = this.#window(seconds);
    if (!first) return undefined;
    const counts = new Map();
    for (const one of this.series(`${name}_bucket`, wanted)) {
      const bound = one.labels.le === "+Inf" ? Infinity : Number(one.labels.le);
      counts.set(bound, (counts.get(bound) ?? 0) + sumOfIncreases([one], first, last));
    }
    return quantileOf(quantile, [...counts].sort(([one], [other]) => one - other));
  }

  #window(seconds) {
    const last = this.#snapshots.at(-1);
    if (!last) return [];
    // Half a second more, since snapshots do not come on the dot.
    return [this.#snapshots.find(({ at }) => at >= last.at - seconds - 0.5), last];
  }
}

// A series that did not exist before was zero.
function sumOfIncreases(series, first, last) {
  const grown = ({ place }) => Math.max(0, last.values[place] - (first.values[place] || 0));
  return series.reduce((sum, one) => sum + grown(one), 0);
}

// By the cumulative counts of ascending buckets, evenly spread within a bucket.
function quantileOf(quantile, buckets) {
  const total = buckets.at(-1)?.[1] ?? 0;
  if (total === 0) return undefined;
  const rank = quantile * total;
  const index = buckets.findIndex(([, count]) => count >= rank);
  const [bound, count] = buckets[index];
  const [lower, before] = index === 0 ? [0, 0] : buckets[index - 1];
  return bound === Infinity ? lower : lower + ((bound - lower) * (rank - before)) / (count - before);
}
