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
