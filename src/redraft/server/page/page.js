// The page: views, what is typed, and the keys.

import * as connection from "./connection.js";
import * as conversation from "./conversation.js";
import * as decide from "./decide.js";
import { find, hasKeyboard } from "./dom.js";
import { follow } from "./follow.js";
import * as history from "./history.js";
import * as infill from "./infill.js";
import * as key from "./key.js";
import * as known from "./known.js";
import * as pictures from "./pictures.js";
import * as settings from "./settings.js";
import { opening } from "./store.js";
import { welcome } from "./welcome.js";

const view = (name) => {
  for (const other of ["chat", "infill", "decide"]) {
    find(other).hidden = other !== name;
    find(`show-${other}`).setAttribute("aria-pressed", other === name);
  }
};

const introduce = () => find("conversation").querySelector(".welcome")?.replaceWith(welcome());

const begin = () => {
  view("chat");
  conversation.begin();
  pictures.take();
  if (hasKeyboard()) find("text").focus();
};

find("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = find("text").value.trim();
  if (conversation.isRunning()) return;
  const shown = pictures.take();
  if (!text && !shown.length) return;
  find("text").value = "";
  conversation.ask(text, shown);
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
  if (event.key === "Escape") for (const one of [conversation, infill, decide]) one.stop();
  else if (event.altKey && event.code === "KeyN") find("new").click();
  else if (event.key === "/" && !typing && !find("chat").hidden) find("text").focus();
  else return;
  if (event.key !== "Escape") event.preventDefault();
});
find("stop").addEventListener("click", conversation.stop);
find("new").addEventListener("click", begin);
find("show-chat").addEventListener("click", () => view("chat"));
find("show-infill").addEventListener("click", () => view("infill"));
find("show-decide").addEventListener("click", () => view("decide"));
find("open-settings").addEventListener("click", () => find("settings").showModal());
find("open-history").addEventListener("click", () => history.show(() => view("chat")));

connection.onModel(({ id, redraft }) => {
  find("model").textContent = id;
  find("model").title = id;
  find("infill-about").textContent = redraft.about ?? "";
  // There is nothing to set beside a model that writes token by token anyway.
  find("compare").parentElement.hidden = redraft.canvas_length === 1;
  for (const name of ["text", "send", "draft", "redraft"]) {
    find(name).disabled = !redraft.has_tokenizer || (name === "send" && conversation.isRunning());
  }
  introduce();
});
known.install();
settings.install();
pictures.install();
infill.install();
decide.install();
conversation.install({ empty: welcome, toInfill: () => view("infill"), ...follow(find("conversation")) });
begin();
key.install(connection.connect);
opening.then(introduce);
connection.connect();
