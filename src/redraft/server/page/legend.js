// The legend of a canvas: each word is drawn as what it names.

import { make } from "./dom.js";

const token = (textContent, className, level = 0) => {
  const element = make("span", { textContent, className: `token ${className}` });
  element.style.setProperty("--entropy", level);
  return element;
};

const doubted = () => make("mark", { className: "doubt", textContent: "doubted" });

const entry = (title, ...parts) => make("li", { title }, ...parts);

// Of a canvas.
export const legend = () => {
  const moving = [token("moving,", "renoised", 3), token(" less and", "renoised", 8), token(" less sure", "renoised", 15)];
  const list = make(
    "ul", { className: "legend" },
    entry("accepted: the token stands", token("settled", "settled")),
    entry("drawn anew at the next step; the stronger the colour, the higher the entropy", ...moving),
    entry("the causal mode would hardly have written this", doubted()),
    entry("tokens that end the reply and fill the canvas, folded into one mark", token("end ×9", "settled end"), " end of the reply"),
  );
  list.setAttribute("aria-label", "Legend of the canvas");
  return list;
};

// Of an answer with doubts in it.
export const doubtsLegend = () =>
  make("p", { className: "legend" }, doubted(), ": the causal mode would hardly have written this");
