// The conversation: its turns, each with what was asked, the reply, and another try where there is none.

import * as connection from "./connection.js";
import { find, hasKeyboard, make } from "./dom.js";
import * as infill from "./infill.js";
import * as known from "./known.js";
import * as pictures from "./pictures.js";
import { broken } from "./problems.js";
import { Reply } from "./reply.js";
import * as settings from "./settings.js";
import * as store from "./store.js";

const STOPPED = "Stopped. What had come stays here; the model does not see it in later turns.";

// A turn without a whole reply has its `trouble` instead, and is no part of what the model sees.
let conversation = null;
let running = null;
// What others draw and where they lead to: see `install`.
let views = null;

// `empty` makes the empty page, `toInfill` shows the other view, `toEnd` and `toStart` scroll.
export const install = (given) => {
  views = given;
};

export const current = () => conversation;
export const isRunning = () => running !== null;
export const stop = () => running?.abort();

const ends = () => connection.model()?.redraft.end_tokens ?? [];

// Begins a new conversation.
export const begin = () => {
  stop();
  conversation = { id: crypto.randomUUID?.() ?? String(Date.now()), title: "", turns: [] };
  find("conversation").replaceChildren(views.empty());
  views.toStart();
};

const addEdit = (element, content) => {
  if (!content) return;
  const button = make("button", { type: "button", textContent: "Redraft a part", className: "edit" });
  // A press would take the selection away.
  button.addEventListener("mousedown", (event) => event.preventDefault());
  button.addEventListener("click", () => {
    const part = String(getSelection());
    views.toInfill();
    infill.edit(content, part);
  });
  element.append(button);
};

const addTrouble = (turn, own, trouble) => {
  const again = make("button", { type: "button", textContent: "Try again", className: "again" });
  again.addEventListener("click", () => {
    if (!running) answer(turn, own);
  });
  turn.append(make("p", { className: "error", textContent: trouble, dir: "auto" }), again);
};

const showTurn = ({ user, shown = [] }) => {
  find("conversation").querySelector(".welcome")?.remove();
  // Only the last turn can be tried again: what came later was said without it.
  for (const button of find("conversation").querySelectorAll(".again")) button.remove();
  const asked = make("div", { className: "user", dir: "auto" }, ...pictures.views(shown), user);
  const turn = make("div", { className: "turn" }, asked);
  find("conversation").append(turn);
  return turn;
};

// Where and with what a turn asks. Without a chat template there are no turns: the text goes on as it stands.
const request = (own, turns) => {
  const { id: model, redraft } = connection.model();
  const chosen = settings.options();
  if (!redraft.has_chat_template) {
    const { temperature, seed, max_tokens, diffusion } = chosen;
    return ["/v1/completions", { model, prompt: own.user, temperature, seed, max_tokens, diffusion }];
  }
  const before = turns.filter((turn) => turn !== own && !turn.trouble);
  const said = [...before, own].flatMap(({ user, shown, reply }) => [
    { role: "user", content: pictures.content(user, shown) },
    ...(reply ? [reply.message] : []),
  ]);
  const messages = [...settings.system(), ...said];
  return ["/v1/chat/completions", known.allowed({ model, messages, ...chosen })];
};

const causal = ([path, body], seed) => {
  const { tools } = body;
  const asked = { ...body, seed: body.seed ?? seed, diffusion: { mode: "autoregressive" } };
  return [path, path.includes("chat") ? known.allowed({ ...asked, tools }) : asked];
};

const replies = async (turn, own, turns, signal) => {
  const beside = find("compare").checked;
  const row = make("div", { className: "replies" });
  turn.append(row);
  const [path, body] = request(own, turns);
  const reply = new Reply(beside ? "Diffusion" : "", ends());
  row.append(reply.element);
  try {
    await reply.run(path, body, signal);
    if (!reply.record.extras) throw broken();
  } finally {
    own.reply = { message: reply.message, record: reply.record };
  }
  delete own.trouble;
  addEdit(reply.element, reply.record.content);
  find("said").textContent = reply.text;
  if (!beside) return;
  // One after the other: beside each other, each would slow the other down.
  const other = new Reply("Autoregressive", ends());
  row.append(other.element);
  await other.run(...causal([path, body], reply.record.extras.seed), signal);
  own.beside = other.record;
};

const keep = (whole) => {
  if (!whole.isDropped) store.keep(whole);
};

const answer = async (turn, own) => {
  const { turns } = conversation;
  const whole = conversation;
  const attempt = new AbortController();
  running = attempt;
  for (const old of [...turn.children].slice(1)) old.remove();
  delete own.reply;
  delete own.beside;
  // What the reader finds should the page end before the reply does.
  own.trouble = "The page was left before the reply was whole.";
  keep(whole);
  busy(true);
  views.toEnd();
  try {
    if (!connection.model()) await connection.demand();
    await replies(turn, own, turns, attempt.signal);
  } catch (problem) {
    const trouble = attempt.signal.aborted ? STOPPED : problem.message;
    if (own.trouble) own.trouble = trouble;
    addTrouble(turn, own, trouble);
    if (!attempt.signal.aborted) find("said").textContent = trouble;
    connection.note(problem);
  } finally {
    // Another one may have begun where this one was left.
    if (running === attempt) {
      running = null;
      busy(false);
    }
    keep(whole);
  }
};

const busy = (isBusy) => {
  const hadFocus = hasKeyboard() && [find("stop"), find("send"), document.body].includes(document.activeElement);
  find("stop").hidden = !isBusy;
  find("send").disabled = isBusy;
  if (hadFocus) find("text").focus();
};

// Asks something; the reply becomes part of the conversation.
export const ask = (user, shown = []) => {
  const own = shown.length ? { user, shown } : { user };
  conversation.turns.push(own);
  conversation.title ||= user.slice(0, 80) || shown.map(({ name }) => name).join(", ").slice(0, 80);
  const turn = showTurn(own);
  return answer(turn, own);
};

// Begins anew where this conversation is no longer kept.
export const forget = () => {
  conversation.isDropped = true;
  begin();
};

// Shows a conversation that was kept.
export const open = (kept) => {
  begin();
  conversation = kept;
  for (const own of kept.turns) {
    const { reply, beside, trouble } = own;
    const turn = showTurn(own);
    const row = make("div", { className: "replies" });
    turn.append(row);
    if (reply) {
      const first = new Reply(beside ? "Diffusion" : "", ends()).show(reply.record);
      row.append(first.element);
      if (!trouble) addEdit(first.element, reply.record.content);
    }
    if (beside) row.append(new Reply("Autoregressive", ends()).show(beside).element);
    if (trouble) addTrouble(turn, own, trouble);
  }
  views.toEnd();
};
