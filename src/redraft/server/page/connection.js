// What is served, and whether it is there. Where the server goes away, the page waits until it answers again.

import * as api from "./api.js";
import { find, make } from "./dom.js";
import { isAbsence } from "./problems.js";

const LOOK_MS = 1500;
const READ_MS = 5000;

let served = null;
let loading = null;
let waiting = false;
const listeners = [];

// The model that is served, or null as long as nobody has said.
export const model = () => served;

// Calls back with the model whenever it is known anew.
export const onModel = (listener) => listeners.push(listener);

const say = (text, className, ...more) => {
  find("trouble").replaceChildren(...(text ? [make("p", { className, textContent: text }), ...more] : []));
};

const load = async () => {
  const found = await api.model();
  const tools = await api.tools();
  served = { ...found, calls: tools.map(({ function: { name } }) => name) };
  for (const listener of listeners) listener(served);
};

const untilReady = async () => {
  if (waiting) return;
  waiting = true;
  while (!(await api.isReady())) await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  waiting = false;
  if (!(await connect())) return;
  say("The server answers again.", "hint");
  setTimeout(() => !waiting && say(""), READ_MS);
};

// Takes note of what went wrong: says what the page waits for, or asks anew what is served.
export const note = (problem) => {
  if (isAbsence(problem)) {
    say("No connection to the server. The page looks for it every few seconds.", "error");
    untilReady();
  } else if (problem.kind === "model") {
    connect();
  }
};

// Asks what is served; throws what stands in the way.
export const demand = () => {
  loading ??= load().finally(() => {
    loading = null;
  });
  return loading;
};

// The same, where nobody waits for it: what stands in the way is said at the top of the page. Whether nothing does.
export const connect = async () => {
  try {
    await demand();
    say("");
    return true;
  } catch (problem) {
    const again = make("button", { type: "button", textContent: problem.kind === "key" ? "Enter the key" : "Try again" });
    again.addEventListener("click", connect);
    say(problem.message, "error", again);
    if (isAbsence(problem)) untilReady();
    return false;
  }
};
