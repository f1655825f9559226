// The dialog with the conversations that this browser keeps.

import * as conversation from "./conversation.js";
import { model } from "./connection.js";
import { find, make } from "./dom.js";
import * as store from "./store.js";

const item = (kept, onOpen) => {
  const title = make("button", { type: "button", textContent: kept.title, className: "title", dir: "auto" });
  const remove = make("button", { type: "button", textContent: "Delete" });
  remove.setAttribute("aria-label", `Delete: ${kept.title}`);
  const element = make("li", {}, title, remove);
  title.addEventListener("click", () => {
    find("history").close();
    onOpen();
    // What is in the page is newer than what was read.
    if (kept.id !== conversation.current().id) conversation.open(kept);
  });
  remove.addEventListener("click", async () => {
    await store.drop(kept.id);
    const next = element.nextElementSibling ?? element.previousElementSibling;
    element.remove();
    find("none-kept").hidden = next !== null;
    (next ?? find("history")).querySelector("button").focus();
    if (kept.id === conversation.current().id) conversation.forget();
  });
  return element;
};

// Shows the dialog; `onOpen` is called when one of them is opened.
export const show = async (onOpen) => {
  const list = await store.conversations().catch(() => []);
  find("conversations").replaceChildren(...list.map((kept) => item(kept, onOpen)));
  find("none-kept").hidden = list.length > 0;
  find("kept-where").textContent = store.keptWhere(model());
  find("history").showModal();
};
