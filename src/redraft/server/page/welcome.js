// The empty page: what the model is and can do, requests to try, and where what is said is kept.

import { ask } from "./conversation.js";
import { model } from "./connection.js";
import { make } from "./dom.js";
import { keptWhere } from "./store.js";

const UNITS = [[1e9, "billion"], [1e6, "million"], [1e3, "thousand"]];

const amount = (count) => {
  const [size, unit] = UNITS.find(([size]) => count >= size) ?? [1, ""];
  return `${Number((count / size).toPrecision(2))} ${unit}`.trim();
};

const facts = ({ redraft, max_model_len: context }) => [
  `${amount(redraft.parameters)} parameters`,
  redraft.canvas_length > 1 ? `a canvas of ${redraft.canvas_length.toLocaleString("en")} tokens` : "no canvas: one token after the other",
  `a context of ${context.toLocaleString("en")} tokens`,
  `${redraft.quantization ?? redraft.dtype} on ${redraft.device}`,
].join(" · ");

const ability = ({ has_tokenizer: reads, has_chat_template: talks }) => {
  if (!reads) return "Its directory has no tokenizer: it takes token ids at /v1/completions, and no text that is typed here.";
  if (!talks) return "Its directory has no chat template: what is typed here goes on as it stands, each time on its own.";
  return "";
};

const named = (calls) => make("p", {}, "It knows these calls by heart: ", ...calls.flatMap((name, place) => [
  make("code", { textContent: name }), place < calls.length - 1 ? ", " : ".",
]));

const tryOut = (text) => {
  const button = make("button", { type: "button", textContent: text, className: "example", dir: "auto" });
  button.addEventListener("click", () => ask(text));
  return make("li", {}, button);
};

const paragraph = (textContent, className = "") => (textContent ? [make("p", { className, textContent, dir: "auto" })] : []);

const introduction = (served) => {
  const { id, redraft, calls } = served;
  return [
    make("h2", { textContent: id }),
    ...paragraph(facts(served), "facts"),
    ...paragraph(redraft.about),
    ...paragraph(ability(redraft)),
    ...(calls.length ? [named(calls)] : []),
    ...(redraft.examples.length && redraft.has_tokenizer
      ? [make("h3", { textContent: "Try one" }), make("ul", { className: "examples" }, ...redraft.examples.map(tryOut))]
      : []),
    ...(redraft.canvas_length > 1 ? paragraph("The reply is a canvas that is denoised as a whole: settled tokens stand, the others are drawn anew at every step.", "hint") : []),
  ];
};

// The element, with what is known of the model by now.
export const welcome = () => {
  const served = model();
  return make("div", { className: "welcome" }, ...(served ? introduction(served) : []), ...paragraph(keptWhere(served), "hint"));
};
