// The canvas: frames carry what has changed since the frame before, states are kept, any of them can be painted.

import { make } from "./dom.js";

// The states of a reply's canvases, from its frames. A frame is kept as it came, so that a record is small to store.
export const statesOf = (frames) => {
  const states = [];
  for (const frame of frames) next(states, frame);
  return states;
};

// Adds the state that a frame leads to.
export const next = (states, frame) => {
  const before = states.at(-1);
  const texts = before?.canvas === frame.canvas ? before.texts.slice(0, frame.length) : [];
  for (const [place, text] of frame.set) texts[place] = text;
  states.push({ ...frame, texts });
};

const isAccepted = (state, place) => parseInt(state.accepted[place >> 2] ?? "0", 16) >> (3 - (place & 3)) & 1;

// How many positions of a state are accepted.
export const settled = (state) => state.texts.filter((_, place) => isAccepted(state, place)).length;

// What is drawn: a mark a token, but one for each run of tokens that end the reply, which would fill the screen.
const marksOf = (state, ends) => {
  const marks = [];
  state.texts.forEach((text, place) => {
    const moves = !isAccepted(state, place);
    const level = moves ? parseInt(state.entropy[place] ?? "0", 16) : 0;
    const isEnd = ends.includes(text);
    const last = marks.at(-1);
    if (isEnd && last?.count) {
      last.count += 1;
      last.moves ||= moves;
      last.level = Math.max(last.level, level);
    } else {
      marks.push({ text, moves, level, count: isEnd ? 1 : 0 });
    }
  });
  return marks;
};

const endsThere = (count) => `${count === 1 ? "a token that ends" : `${count} tokens that end`} the reply and fill the canvas`;

// Settled tokens are plain, moving ones coloured, the more the less sure they are.
export const paint = (element, state, ends) => {
  const marks = marksOf(state, ends);
  while (element.children.length > marks.length) element.lastChild.remove();
  while (element.children.length < marks.length) element.append(make("span"));
  marks.forEach(({ text, moves, level, count }, place) => {
    const token = element.children[place];
    const name = `token ${moves ? "renoised" : "settled"}${count ? " end" : ""}`;
    const shown = count ? `end ×${count}` : text;
    // What is as it was is left alone: a page of tokens changes many times a second.
    if (token.className !== name) token.className = name;
    if (token.dataset.level !== String(level)) {
      token.dataset.level = level;
      token.style.setProperty("--entropy", level);
    }
    if (token.textContent !== shown) token.textContent = shown;
    const title = count ? endsThere(count) : "";
    if (token.title !== title) token.title = title;
  });
};
