// What this browser keeps: conversations in IndexedDB, settings in localStorage.

const NAME = "redraft";
const TABLE = "conversations";

const opened = new Promise((resolve, reject) => {
  const request = indexedDB.open(NAME, 1);
  request.onupgradeneeded = () => request.result.createObjectStore(TABLE, { keyPath: "id" });
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

const run = async (mode, work) => {
  const table = (await opened).transaction(TABLE, mode).objectStore(TABLE);
  return new Promise((resolve, reject) => {
    const request = work(table);
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
};

// Whether there is anything to keep them in, once that is known; a private window may have nothing.
let keeps = true;
export const opening = opened.then(() => {}, () => {
  keeps = false;
});

// Where what is said is kept, in a sentence or two. `served` is the model, where it is known.
export const keptWhere = (served) => {
  const here = keeps
    ? "Conversations are kept in this browser, under History"
    : "This browser keeps no conversations for the page: they are gone when it is closed";
  if (!served) return `${here}.`;
  return served.redraft.writes_prompts_down
    ? `${here}. This server also writes every request and reply to a file of its owner's.`
    : `${here}${keeps ? ", and nowhere else" : ""}.`;
};

// All conversations, the latest first.
export const conversations = async () => {
  const all = await run("readonly", (table) => table.getAll());
  return all.sort((a, b) => b.changed - a.changed);
};

// Keeps a conversation; one that cannot be kept (a private window, a full disk) goes on unkept.
export const keep = (conversation) =>
  run("readwrite", (table) => table.put({ ...conversation, changed: Date.now() })).catch(() => {});

export const drop = (id) => run("readwrite", (table) => table.delete(id));

export const saved = (name, otherwise) => {
  try {
    return { ...otherwise, ...JSON.parse(localStorage.getItem(name) ?? "{}") };
  } catch {
    return otherwise;
  }
};

export const save = (name, value) => {
  try {
    localStorage.setItem(name, JSON.stringify(value));
  } catch {
    // A page without storage forgets its settings.
  }
};
