// The infill view: a selected part of a text, or its holes, written anew; the rest stays.

import { post } from "./api.js";
import { find } from "./dom.js";
import { options } from "./settings.js";

const past = [];

const characters = (text, units) => [...text.slice(0, units)].length;

const show = (text, start, end) => {
  const draft = find("draft");
  draft.value = text;
  draft.focus();
  draft.setSelectionRange(start, end);
  find("undo").disabled = !past.length;
};

const redraft = async (model) => {
  const draft = find("draft");
  const { value: text, selectionStart: start, selectionEnd: end } = draft;
  const { temperature, seed, max_tokens, diffusion } = options();
  const body = { model, text, temperature, seed, max_tokens, diffusion };
  if (end > start) {
    body.span = [characters(text, start), characters(text, end)];
    body.instruction = find("instruction").value || undefined;
  } else if (!text.includes("[[...")) {
    throw new Error("Select the part to write anew, or mark a hole with [[...]].");
  }
  const answer = await post("/v1/infill", body);
  past.push({ text, start, end });
  const at = end > start ? start : text.indexOf("[[...");
  show(answer.text, at, at + (answer.filled[0] ?? "").length);
  const { stats } = answer.redraft[0];
  return `${stats.denoising_steps} steps, ${stats.total_s.toFixed(2)} s` + (answer.filled.length ? "" : ", cut short");
};

// Puts a text into the view, with a part of it selected.
export const edit = (text, part) => {
  past.length = 0;
  const at = Math.max(text.indexOf(part), 0);
  show(text, at, text.startsWith(part, at) ? at + part.length : at);
};

// Wires the view to a model.
export const install = (model) => {
  find("fill").addEventListener("submit", async (event) => {
    event.preventDefault();
    const note = find("fill-note");
    const button = find("redraft");
    button.disabled = true;
    note.textContent = "…";
    note.className = "numbers";
    try {
      note.textContent = await redraft(model());
    } catch (error) {
      note.textContent = error.message;
      note.className = "error";
    } finally {
      button.disabled = false;
    }
  });
  find("undo").addEventListener("click", () => {
    const { text, start, end } = past.pop();
    show(text, start, end);
  });
};
