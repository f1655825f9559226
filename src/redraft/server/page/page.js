// The page: views, the conversation, and the keys.

import * as api from "./api.js";
import { find, make } from "./dom.js";
import * as infill from "./infill.js";
import * as known from "./known.js";
import { Reply } from "./reply.js";
import * as settings from "./settings.js";
import * as store from "./store.js";

let model = null;
let running = null;
let conversation = null;

const begin = () => {
  conversation = { id: crypto.randomUUID?.() ?? String(Date.now()), title: "", turns: [] };
  find("conversation").replaceChildren(make("p", {
    className: "hint",
    textContent: "The reply is a canvas that is denoised as a whole: accepted tokens stand, the others are drawn anew at every step.",
  }));
  find("text").focus();
};

const messages = () => conversation.turns.flatMap(({ user, reply }) => [{ role: "user", content: user }, reply.message]);

const showTurn = (user) => {
  find("conversation").querySelector(".hint")?.remove();
  const turn = make("div", { className: "turn" }, make("div", { className: "user", textContent: user }));
  find("conversation").append(turn);
  turn.scrollIntoView({ block: "end" });
  return turn;
};

const addEdit = (reply) => {
  if (!reply.record.content) return;
  const button = make("button", { type: "button", textContent: "Redraft a part", className: "edit" });
  // A press would take the selection away.
  button.addEventListener("mousedown", (event) => event.preventDefault());
  button.addEventListener("click", () => {
    const part = String(getSelection());
    view("infill");
    infill.edit(reply.record.content, part);
  });
  reply.element.append(button);
};

const ask = async (user) => {
  const turn = showTurn(user);
  running = new AbortController();
  find("stop").hidden = false;
  find("send").disabled = true;
  try {
    const said = [...settings.system(), ...messages(), { role: "user", content: user }];
    const body = known.allowed({ model, messages: said, ...settings.options() });
    const reply = new Reply(find("compare").checked ? "Diffusion" : "");
    const row = make("div", { className: "replies" }, reply.element);
    turn.append(row);
    await reply.run(body, running.signal);
    addEdit(reply);
    const kept = { user, reply: { message: reply.message, record: reply.record } };
    conversation.turns.push(kept);
    conversation.title ||= user.slice(0, 80);
    if (find("compare").checked) {
      // One after the other: beside each other, each would slow the other down.
      const causal = new Reply("Autoregressive");
      row.append(causal.element);
      const seed = body.seed ?? reply.record.extras.seed;
      await causal.run(known.allowed({ ...body, seed, diffusion: { mode: "autoregressive" } }), running.signal);
      kept.beside = causal.record;
    }
  } catch (error) {
    // Where a reply has begun it says itself what went wrong.
    if (!turn.querySelector(".error")) turn.append(make("p", { className: "error", textContent: error.message }));
  } finally {
    running = null;
    find("stop").hidden = true;
    find("send").disabled = false;
    if (conversation.turns.length) store.keep(conversation);
    turn.scrollIntoView({ block: "end" });
  }
};

const open = (kept) => {
  begin();
  conversation = kept;
  for (const { user, reply, beside } of kept.turns) {
    const first = new Reply(beside ? "Diffusion" : "").show(reply.record);
    addEdit(first);
    const others = beside ? [new Reply("Autoregressive").show(beside).element] : [];
    showTurn(user).append(make("div", { className: "replies" }, first.element, ...others));
  }
};

const showHistory = async () => {
  const list = await store.conversations().catch(() => []);
  find("conversations").replaceChildren(...list.map((kept) => {
    const title = make("button", { type: "button", textContent: kept.title, className: "title" });
    const remove = make("button", { type: "button", textContent: "Delete" });
    const item = make("li", {}, title, remove);
    title.addEventListener("click", () => {
      find("history").close();
      view("chat");
      running?.abort();
      open(kept);
    });
    remove.addEventListener("click", async () => {
      await store.drop(kept.id);
      item.remove();
      if (kept.id === conversation.id) begin();
    });
    return item;
  }));
  find("history").showModal();
};

const view = (name) => {
  for (const other of ["chat", "infill"]) {
    find(other).hidden = other !== name;
    find(`show-${other}`).setAttribute("aria-pressed", other === name);
  }
};

find("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = find("text").value.trim();
  if (!text || running || !model) return;
  find("text").value = "";
  ask(text);
});
find("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    find("ask").requestSubmit();
  }
});
document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input, textarea, select");
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "Escape") running?.abort();
  else if (event.altKey && event.code === "KeyN") find("new").click();
  else if (event.key === "/" && !typing) find("text").focus();
  else return;
  if (event.key !== "Escape") event.preventDefault();
});
find("stop").addEventListener("click", () => running?.abort());
find("new").addEventListener("click", () => {
  running?.abort();
  view("chat");
  begin();
});
find("show-chat").addEventListener("click", () => view("chat"));
find("show-infill").addEventListener("click", () => view("infill"));
find("open-settings").addEventListener("click", () => find("settings").showModal());
find("open-history").addEventListener("click", showHistory);

settings.install();
infill.install(() => model);
begin();
try {
  model = (await api.model()).id;
  find("model").textContent = model;
  await known.install();
} catch (error) {
  find("trouble").hidden = false;
  find("trouble").textContent = error.message;
}
