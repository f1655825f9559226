// The canvas: frames carry what has changed since the frame before, a reel keeps them, a player shows any of them.

import { make } from "./dom.js";

// The states of a reply's canvases, from its frames. A frame is kept as it came, so that a reel is small to store.
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

// Where the fill behind the end of the reply begins: a run of one token up to the canvas's end.
const fillOf = ({ texts }) => {
  let place = texts.length - 1;
  while (place > 0 && texts[place - 1] === texts.at(-1)) place -= 1;
  return place + 1;
};

// Accepted tokens stand, renoised ones shimmer, fill is faint; the tint is the entropy.
export const paint = (element, state) => {
  const fill = fillOf(state);
  while (element.children.length > state.length) element.lastChild.remove();
  while (element.children.length < state.length) element.append(make("span"));
  state.texts.forEach((text, place) => {
    const token = element.children[place];
    const level = parseInt(state.entropy[place] ?? "0", 16);
    const name = !isAccepted(state, place) ? "token renoised" : place < fill ? "token settled" : "token fill";
    if (token.className !== name) token.className = name;
    if (token.dataset.level !== String(level)) {
      token.dataset.level = level;
      token.style.setProperty("--entropy", level);
    }
    if (token.textContent !== text) token.textContent = text;
  });
};

const HOLD_MS = 120;

// A scrubber and a play button over the states of one reply.
export const player = (canvas, states, onShow) => {
  const label = make("output", { className: "numbers" });
  const range = make("input", { type: "range", min: 0, max: states.length - 1, value: states.length - 1, className: "scrubber" });
  range.setAttribute("aria-label", "Replay the steps");
  const play = make("button", { type: "button", textContent: "Replay", className: "replay" });
  let timer = null;

  const show = () => {
    const state = states[range.value];
    const accepted = state.texts.filter((_, place) => isAccepted(state, place)).length;
    onShow();
    paint(canvas, state);
    label.textContent = `canvas ${state.canvas + 1}, step ${state.step + 1}: ${accepted} of ${state.length} accepted`;
  };
  const halt = () => {
    clearInterval(timer);
    timer = null;
    play.textContent = "Replay";
  };
  range.addEventListener("input", () => {
    halt();
    show();
  });
  play.addEventListener("click", () => {
    if (timer) return halt();
    range.value = 0;
    show();
    play.textContent = "Pause";
    timer = setInterval(() => {
      if (Number(range.value) >= states.length - 1) return halt();
      range.value = Number(range.value) + 1;
      show();
    }, HOLD_MS);
  });
  return make("div", { className: "player" }, play, range, label);
};
