// A scrubber and a button over the states of one reply.

import { settled } from "./canvas.js";
import { make } from "./dom.js";

const HOLD_MS = 120;

// `show` is called with the state to draw.
export const player = (states, show) => {
  const label = make("output", { className: "numbers" });
  const range = make("input", { type: "range", min: 0, max: states.length - 1, value: states.length - 1, className: "scrubber" });
  range.setAttribute("aria-label", "Replay the steps");
  const play = make("button", { type: "button", textContent: "Replay", className: "replay" });
  let timer = null;

  const draw = () => {
    const state = states[range.value];
    show(state);
    label.textContent = `canvas ${state.canvas + 1}, step ${state.step + 1}: ${settled(state)} of ${state.length} settled`;
    range.setAttribute("aria-valuetext", label.textContent);
  };
  const halt = () => {
    clearInterval(timer);
    timer = null;
    play.textContent = "Replay";
  };
  range.addEventListener("input", () => {
    halt();
    draw();
  });
  play.addEventListener("click", () => {
    if (timer) return halt();
    range.value = 0;
    draw();
    play.textContent = "Pause";
    timer = setInterval(() => {
      // A conversation that was left takes its elements along, not the timer.
      if (!range.isConnected || Number(range.value) >= states.length - 1) return halt();
      range.value = Number(range.value) + 1;
      draw();
    }, HOLD_MS);
  });
  return make("div", { className: "player" }, play, range, label);
};
