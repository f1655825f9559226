// The decide view: typed questions about a text, answered with probabilities.

import { post } from "./api.js";
import { demand, model, note as notice, onModel } from "./connection.js";
import { find, hasKeyboard, make } from "./dom.js";
import { shown } from "./shares.js";

const TYPES = {
  predicate: { title: "yes or no" },
  choice: { title: "one of these", options: "Choices, one a line; what stands behind a colon is what it means", name: "choices" },
  score: { title: "one of these levels", options: "Levels, one a line, the least first; behind a colon what it means", name: "levels" },
};
// What an empty view shows.
const EXAMPLES = [
  ["predicate", "Does this need an answer today?"],
  ["choice", "Which team should take it?", "billing: money, invoices, refunds\nshipping\ntechnical"],
  ["score", "How angry is the writer?", "calm\nannoyed\nfurious"],
];

let running = null;

const rows = () => [...find("questions").children];

const number = () => rows().forEach((row, place) => {
  row.querySelector("legend").textContent = `Question ${place + 1}: ${TYPES[row.dataset.type].title}`;
  row.querySelector(".remove").setAttribute("aria-label", `Remove question ${place + 1}`);
});

const remove = (row) => {
  const place = rows().indexOf(row);
  row.remove();
  number();
  const next = rows()[Math.min(place, rows().length - 1)];
  (next?.querySelector(".remove") ?? find("add-predicate")).focus();
};

// A question; an answer to what it was before it was changed is none.
const question = (type, asked = "", options = "") => {
  const { options: hint, title } = TYPES[type];
  const input = make("input", { className: "instructions", value: asked, placeholder: "What do you want to know?", dir: "auto", required: true });
  input.setAttribute("aria-label", `Question, ${title}`);
  const away = make("button", { type: "button", className: "remove", textContent: "Remove" });
  const parts = [make("legend"), make("div", { className: "asked" }, input, away)];
  if (hint) {
    const area = make("textarea", { className: "options", rows: 3, value: options, dir: "auto", required: true });
    parts.push(make("label", { className: "above", textContent: hint }, area));
  }
  const answered = make("div", { className: "answered" });
  const row = make("li", {}, make("fieldset", { className: "question" }, ...parts, answered));
  row.dataset.type = type;
  away.addEventListener("click", () => remove(row));
  row.addEventListener("input", () => answered.replaceChildren());
  return row;
};

const add = (type) => {
  const row = question(type);
  find("questions").append(row);
  number();
  row.querySelector(".instructions").focus();
};

const option = (line, name) => {
  const at = line.indexOf(": ");
  if (at < 1) return { [name]: line };
  return { [name]: line.slice(0, at).trim(), description: line.slice(at + 2).trim() };
};

const asked = (row) => {
  const { type } = row.dataset;
  const found = { type, instructions: row.querySelector(".instructions").value };
  const { name } = TYPES[type];
  if (!name) return found;
  const lines = row.querySelector(".options").value.split("\n").map((line) => line.trim()).filter((line) => line);
  return { ...found, [name]: lines.map((line) => option(line, type === "score" ? "label" : "value")) };
};

const decide = async (signal) => {
  if (!rows().length) throw new Error("Add a question first.");
  if (!model()) await demand();
  const questions = rows().map(asked);
  const body = { model: model().id, input: find("state").value, questions, decide: { joint: find("joint").checked } };
  const { redraft: { answers, stats } } = await post("/v1/decisions", body, signal);
  rows().forEach((row, place) => row.querySelector(".answered").replaceChildren(...shown(answers[place])));
  const count = answers.filter(({ type }) => type !== "refusal").length;
  const reads = `${stats.reads} ${stats.reads === 1 ? "read" : "reads"}`;
  return `${count} of ${answers.length} answered, ${reads}, ${stats.total_s.toFixed(2)} s`;
};

const busy = (isBusy) => {
  find("ask-questions").disabled = isBusy;
  find("decide-halt").hidden = !isBusy;
  find("decide-form").toggleAttribute("aria-busy", isBusy);
  for (const field of find("decide-form").querySelectorAll("input, textarea")) field.readOnly = isBusy;
  for (const button of find("decide-form").querySelectorAll(".remove, .add")) button.disabled = isBusy;
};

const submit = async () => {
  const note = find("decide-note");
  running = new AbortController();
  const { signal } = running;
  busy(true);
  note.textContent = "reading…";
  note.className = "numbers";
  for (const old of document.querySelectorAll(".answered")) old.replaceChildren();
  try {
    note.textContent = await decide(signal);
  } catch (problem) {
    note.textContent = signal.aborted ? "stopped" : problem.message;
    note.className = "error";
    notice(problem);
  } finally {
    running = null;
    busy(false);
    if (hasKeyboard()) find("ask-questions").focus();
  }
};

export const stop = () => running?.abort();

// Wires the view.
export const install = () => {
  find("questions").append(...EXAMPLES.map((example) => question(...example)));
  number();
  for (const type of Object.keys(TYPES)) find(`add-${type}`).addEventListener("click", () => add(type));
  find("state").addEventListener("input", () => document.querySelectorAll(".answered").forEach((old) => old.replaceChildren()));
  find("decide-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!running) submit();
  });
  find("decide-halt").addEventListener("click", stop);
  onModel(({ redraft }) => {
    find("decide-about").textContent = redraft.about ?? "";
    for (const id of ["state", "ask-questions"]) find(id).disabled = !redraft.has_chat_template || Boolean(running);
  });
};
