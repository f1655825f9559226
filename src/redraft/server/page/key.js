// The key. It comes in the fragment of the printed link, which no server sees, or is typed; it stays in this tab.

import { find } from "./dom.js";
import { keyless } from "./problems.js";

let key = null;
let asking = null;

const remember = (value) => {
  key = value;
  try {
    sessionStorage.setItem("key", value);
  } catch {
    // A page without storage asks again after a reload.
  }
};

const inFragment = (text) => new URLSearchParams(text.slice(text.indexOf("#") + 1)).get("key");

const fromAddress = () => {
  const found = location.hash && inFragment(location.hash);
  if (found) remember(found);
  // Who looks at the screen, or at the history, should not read it there.
  if (found) history.replaceState(null, "", location.pathname);
  return found;
};

export const current = () => key;

// Headers of a request that brings a key.
export const headers = (value = key) => ({
  "content-type": "application/json",
  ...(value ? { authorization: `Bearer ${value}` } : {}),
});

const isRight = async (value) => (await fetch("/v1/models", { headers: headers(value) })).status !== 401;

const wrong = (text) => {
  find("key-wrong").textContent = text;
  find("key-field").setAttribute("aria-invalid", text !== "");
};

const attempt = async (typed) => {
  const value = inFragment(typed) ?? typed.trim();
  // A header holds nothing else, and no key of a server has anything else.
  if (!/^[\x20-\x7e]+$/.test(value)) return wrong("A key has letters, digits and signs of ASCII only.");
  find("use-key").disabled = true;
  try {
    if (!(await isRight(value))) return wrong("This is not the server's key.");
    remember(value);
    find("key").close("given");
  } catch {
    wrong(`Nothing answers at ${location.host}. Start the server again, then continue.`);
  } finally {
    find("use-key").disabled = false;
  }
};

// Waits for a key that the server takes, other than the one that it has just refused. Throws where none is given.
export const ask = (refused) => {
  if (key !== refused) return Promise.resolve();
  asking ??= new Promise((resolve, reject) => {
    const dialog = find("key");
    wrong(refused ? "The key that this page has is not the server's." : "");
    find("key-field").value = "";
    dialog.returnValue = "";
    dialog.addEventListener("close", () => {
      asking = null;
      // Chromium gives the focus back without a caret: what is typed then goes nowhere.
      const { activeElement } = document;
      activeElement.blur();
      activeElement.focus();
      if (dialog.returnValue === "given") resolve();
      else reject(keyless());
    }, { once: true });
    dialog.showModal();
    find("key-field").focus();
  });
  return asking;
};

// Wires the dialog, and takes the key that the address or this tab has. `onNew` is called when another one arrives.
export const install = (onNew) => {
  try {
    key = sessionStorage.getItem("key");
  } catch {
    // As above.
  }
  fromAddress();
  // Opening the printed link where the page is open already loads nothing.
  addEventListener("hashchange", () => {
    const found = fromAddress();
    if (found && asking) attempt(found);
    else if (found) onNew();
  });
  find("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(find("key-field").value).then(() => find("key").open && find("key-field").select());
  });
  find("no-key").addEventListener("click", () => find("key").close());
};
