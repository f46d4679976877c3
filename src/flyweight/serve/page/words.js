// Numbers as people read them; the same units as on the report.
const STEPS = ["bytes", "kB", "MB", "GB", "TB"];

/** Bytes in decimal units, as disks are sold: 1_960_000 is "2.0 MB". */
export function size(bytes) {
  let step = 0;
  while (step < STEPS.length - 1 && Number(bytes.toPrecision(3)) >= 1000) {
    bytes /= 1000;
    step += 1;
  }
  return `${bytes.toFixed(step === 0 || bytes >= 99.95 ? 0 : 1)} ${STEPS[step]}`;
}

/** A count in short: 950, 12.3 k, 8.9 M. */
export function quantity(value) {
  for (const [power, letter] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (value >= power) return `${Number((value / power).toPrecision(3))} ${letter}`;
  }
  return String(value);
}

/** A whole number with its thousands set apart: 12,345. */
export const count = (value) => Math.round(value).toLocaleString("en");

/** "1 token", "2 tokens". */
export const plural = (value, word) => `${count(value)} ${word}${value === 1 ? "" : "s"}`;

/** A span of time: 38 ms, 1.4 s, 75 s. */
export function span(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return `${(ms / 1000).toFixed(ms < 10000 ? 1 : 0)} s`;
}

/** Tokens a second: 3.4, 57, 1,210. */
export const speed = (value) => (value < 10 ? value.toFixed(1) : count(value));

/** Joules to two digits: 420 µJ, 38 mJ, 0.19 J, 1.9 J, 12 kJ. */
export function energy(joules) {
  const [factor, prefix] = [[1e-6, "µ"], [1e-3, "m"], [1, ""], [1e3, "k"]]
    .filter(([step]) => joules >= step * (step === 1 ? 0.0995 : 0.995)).at(-1) ?? [1e-6, "µ"];
  return `${Number((joules / factor).toPrecision(2)).toLocaleString("en")} ${prefix}J`;
}

/** A size beside the teacher's: "1/21 of its teacher", or a percentage where it is near. */
export function share(ratio) {
  if (ratio >= 0.4) return `${Math.round(ratio * 100)} % of its teacher`;
  return `1/${count(1 / ratio)} of its teacher`;
}

/** What a model is in one line: size, bits, and its share of the teacher. */
export function facts(model) {
  const known = model.flyweight ?? {};
  return [
    known.bytes ? size(known.bytes) : null,
    known.bits ? `${known.bits} bits` : null,
    known.bytes_ratio ? share(known.bytes_ratio) : null,
  ].filter(Boolean).map(together);
}

/** Numbers stay with their units, wherever a sentence is broken. */
export const together = (text) => text.replace(/(?<=\d) (?=(?:%|[kMGT]?B|bytes|bits|ms|s)(?![\w/]))/g, "\u00a0");

/** A day as one speaks of it: Today, Yesterday, Last 7 days, or the month. */
export function day(time, now = Date.now()) {
  const start = new Date(now).setHours(0, 0, 0, 0);
  if (time >= start) return "Today";
  if (time >= start - 864e5) return "Yesterday";
  if (time >= start - 6 * 864e5) return "Last 7 days";
  return new Date(time).toLocaleDateString("en", { month: "long", year: "numeric" });
}

// Control characters and those that turn the reading direction: what is approved must be seen.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;

/** A text with its invisible characters written out, as on the report. */
export const visible = (text) =>
  text.replace(UNSEEN, (sign) => `\\u${sign.charCodeAt(0).toString(16).padStart(4, "0")}`);

/** The first words of a text, on one line. */
export function firstWords(text, most = 60) {
  const line = text.slice(0, 400).replace(/\s+/g, " ").trim();
  return line.length > most ? `${line.slice(0, most - 1).trimEnd()}…` : line;
}
