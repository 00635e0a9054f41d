// Numbers as people read them. Every function takes a number or undefined.

const NOTHING = "–";

const isNumber = (value) => value !== undefined && Number.isFinite(value);

// Three digits at most, and none of them without need.
function short(value) {
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return String(Number(value.toFixed(digits)));
}

export function count(value) {
  if (!isNumber(value)) return NOTHING;
  if (Math.abs(value) < 100_000) return Math.round(value).toLocaleString("en");
  const power = Math.abs(value) < 1e6 ? 0 : Math.abs(value) < 1e9 ? 1 : 2;
  return `${short(value / [1e3, 1e6, 1e9][power])} ${["k", "M", "G"][power]}`;
}

export function rate(value) {
  if (!isNumber(value)) return NOTHING;
  if (value > 0 && value < 0.01) return "< 0.01/s";
  return `${value < 1000 ? short(value) : count(value)}/s`;
}

export function bytes(value) {
  if (!isNumber(value)) return NOTHING;
  const names = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let power = 0;
  while (Math.abs(value) >= 1000 && power < names.length - 1) {
    value /= 1024;
    power += 1;
  }
  return `${power === 0 ? Math.round(value) : short(value)} ${names[power]}`;
}

export function seconds(value) {
  if (!isNumber(value)) return NOTHING;
  const size = Math.abs(value);
  if (size === 0) return "0 s";
  if (size < 0.001) return `${short(value * 1e6)} µs`;
  if (size < 1) return `${short(value * 1e3)} ms`;
  if (size < 120) return `${short(value)} s`;
  if (size < 7200) return `${short(value / 60)} min`;
  if (size < 172_800) return `${short(value / 3600)} h`;
  return `${short(value / 86_400)} days`;
}

export function ratio(value) {
  return isNumber(value) ? `${short(value * 100)}%` : NOTHING;
}
