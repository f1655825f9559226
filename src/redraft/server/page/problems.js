// What can go wrong between the page and its server, in words for whoever reads the page.

// Attributes beside the message: `kind`, which says what the page may do about it.
//   gone: nothing answers; broken: the answer stopped before its end; ending: the server shuts down;
//   busy: it has no place; key: it wants another key; model: it serves another model; refused: anything else it said.
export class Problem extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

// Whether the page should wait for the server to come back.
export const isAbsence = ({ kind }) => ["gone", "broken", "ending"].includes(kind);

export const gone = () => new Problem(
  "gone",
  `Nothing answers at ${location.host}. The server has stopped, or the way to it is cut. `
  + "Start “redraft serve” again there; the page notices when it answers.",
);

export const broken = () => new Problem(
  "broken",
  "The server went away in the middle of this reply. What had come is kept. Try again when it answers.",
);

const ending = () => new Problem(
  "ending",
  "The server is shutting down and takes no new requests. Nothing is lost: try again when it is back.",
);

const busy = (wait) => {
  const seconds = Number(wait) === 1 ? "a second" : `${wait} seconds`;
  return new Problem("busy", `The server is busy with other requests. Try again ${wait ? `in ${seconds}` : "in a while"}.`);
};

export const keyless = () => new Problem("key", "The server wants its key, and this page has none that fits.");

// What an error of the API means. `status` is of HTTP; within a stream there is none.
export const ofError = ({ message, code }, status = 0, wait = null) => {
  if (code === "shutting_down") return ending();
  if (code === "queue_full" || status === 429) return busy(wait);
  if (code === "model_not_found") return new Problem("model", "The server has another model by now. Try again with that one.");
  return new Problem("refused", message);
};

// What an answer that is none means.
export const ofResponse = async (response) => {
  const { status, headers } = response;
  const error = (await response.json().catch(() => null))?.error;
  if (error) return ofError(error, status, headers.get("retry-after"));
  if (status === 429) return busy(headers.get("retry-after"));
  // A proxy says this where the server behind it is gone.
  if (status >= 502 && status <= 504) return gone();
  return new Problem("refused", `The server answered ${status}, and said no more.`);
};
