// A reply's text as elements: code, bold, and what the judge doubts underlined.

import { make } from "./dom.js";

const MARKED = /```[^\n]*\n([\s\S]*?)(?:```|$)|`([^`\n]+)`|\*\*([^*\n]+)\*\*/g;
const TAGS = ["pre", "code", "strong"];

// Offsets of a server count characters; those of a string here count UTF-16 units.
const units = (text, characters) => [...text].slice(0, characters).join("").length;

// The doubts of a text that stands somewhere in the reply as it was written.
export const doubtsIn = (text, raw, doubts) => {
  const at = raw.indexOf(text);
  if (at < 0 || !text) return [];
  return doubts
    .map((doubt) => ({ ...doubt, start: units(raw, doubt.start) - at, end: units(raw, doubt.end) - at }))
    .filter((doubt) => doubt.start < text.length && doubt.end > 0);
};

const underlined = (text, offset, doubts) => {
  const parts = [];
  let done = 0;
  for (const doubt of doubts) {
    const start = Math.max(doubt.start - offset, done);
    const end = Math.min(doubt.end - offset, text.length);
    if (end <= start) continue;
    const title = `the causal mode gives this a probability of ${Math.exp(doubt.log_prob).toPrecision(2)}`;
    parts.push(text.slice(done, start), make("mark", { className: "doubt", title, textContent: text.slice(start, end) }));
    done = end;
  }
  return [...parts, text.slice(done)];
};

// Elements for a text as it stands.
export const plain = (text, doubts = []) => underlined(text, 0, doubts);

// Elements for a text in which marks mean code and bold.
export const marked = (text, doubts = []) => {
  const parts = [];
  let done = 0;
  for (const found of text.matchAll(MARKED)) {
    parts.push(...underlined(text.slice(done, found.index), done, doubts));
    const kind = [1, 2, 3].find((group) => found[group] !== undefined);
    const start = found.index + found[0].indexOf(found[kind], kind === 1 ? found[0].indexOf("\n") : 1);
    parts.push(make(TAGS[kind - 1], {}, ...underlined(found[kind], start, doubts)));
    done = found.index + found[0].length;
  }
  return [...parts, ...underlined(text.slice(done), done, doubts)];
};
