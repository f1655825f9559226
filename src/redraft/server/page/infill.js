// The infill view: a selected part of a text, or its holes, written anew; the rest stays.

import { post } from "./api.js";
import { demand, model, note as notice, onModel } from "./connection.js";
import { find } from "./dom.js";
import { options } from "./settings.js";

const past = [];
let running = null;

const characters = (text, units) => [...text.slice(0, units)].length;

const show = (text, start, end) => {
  const draft = find("draft");
  draft.value = text;
  draft.focus();
  draft.setSelectionRange(start, end);
  find("undo").disabled = !past.length;
};

const redraft = async (signal) => {
  const draft = find("draft");
  const { value: text, selectionStart: start, selectionEnd: end } = draft;
  const { temperature, seed, max_tokens, diffusion } = options();
  if (!model()) await demand();
  const body = { model: model().id, text, temperature, seed, max_tokens, diffusion };
  if (end > start) {
    body.span = [characters(text, start), characters(text, end)];
    body.instruction = find("instruction").value || undefined;
  } else if (!text.includes("[[...")) {
    throw new Error("Select the part to write anew, or mark a hole with [[...]].");
  } else if (find("instruction").value && model().redraft.has_chat_template) {
    body.messages = [{ role: "user", content: find("instruction").value }];
  }
  const answer = await post("/v1/infill", body, signal);
  past.push({ text, start, end });
  const at = end > start ? start : text.indexOf("[[...");
  show(answer.text, at, at + (answer.filled[0] ?? "").length);
  const { stats } = answer.redraft[0];
  return `${stats.denoising_steps} steps, ${stats.total_s.toFixed(2)} s` + (answer.filled.length ? "" : ", cut short");
};

const busy = (isBusy) => {
  find("redraft").disabled = isBusy;
  find("halt").hidden = !isBusy;
  // What is typed meanwhile would be written over.
  find("draft").readOnly = isBusy;
  find("undo").disabled = isBusy || !past.length;
};

const submit = async () => {
  const note = find("fill-note");
  running = new AbortController();
  const { signal } = running;
  busy(true);
  note.textContent = "writing…";
  note.className = "numbers";
  try {
    note.textContent = await redraft(signal);
  } catch (problem) {
    note.textContent = signal.aborted ? "stopped" : problem.message;
    note.className = "error";
    notice(problem);
  } finally {
    running = null;
    busy(false);
  }
};

export const stop = () => running?.abort();

// Puts a text into the view, with a part of it selected.
export const edit = (text, part) => {
  stop();
  past.length = 0;
  const at = Math.max(text.indexOf(part), 0);
  show(text, at, text.startsWith(part, at) ? at + part.length : at);
};

// Shows what the model can fill, unless somebody has begun to write.
const suggest = ({ redraft: { infill } }) => {
  const [draft, instruction] = [find("draft"), find("instruction")];
  if (!infill || draft.value !== draft.defaultValue || instruction.value) return;
  draft.value = draft.defaultValue = infill.text;
  instruction.value = infill.request;
};

// Wires the view.
export const install = () => {
  onModel(suggest);
  find("fill").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!running) submit();
  });
  find("halt").addEventListener("click", stop);
  find("undo").addEventListener("click", () => {
    const { text, start, end } = past.pop();
    show(text, start, end);
  });
};
