// The server's API. Whatever goes wrong here is thrown as a Problem, but for what was stopped on purpose.

import * as key from "./key.js";
import { broken, gone, ofError, ofResponse } from "./problems.js";

// The answer to a request. Where the server wants another key, it is asked for, and the request made again.
const ask = async (path, { body, signal } = {}) => {
  for (;;) {
    const used = key.current();
    const sent = { headers: key.headers(), signal, ...(body ? { method: "POST", body: JSON.stringify(body) } : {}) };
    const response = await fetch(path, sent).catch((error) => {
      throw signal?.aborted ? error : gone();
    });
    if (response.ok) return response;
    if (response.status !== 401) throw await ofResponse(response);
    await key.ask(used);
    signal?.throwIfAborted();
  }
};

const json = async (path, options) => (await ask(path, options)).json().catch((error) => {
  throw options?.signal?.aborted ? error : broken();
});

// The model that is served.
export const model = async () => (await json("/v1/models")).data[0];

// Declarations of the calls that it knows by heart.
export const tools = async () => (await json("/v1/tools")).data;

// Whether the server takes requests. Needs no key.
export const isReady = () => fetch("/ready", { cache: "no-store" }).then(({ ok }) => ok, () => false);

// The answer of a route, as JSON.
export const post = (path, body, signal) => json(path, { body, signal });

const events = async function* (response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    yield* parts.map((part) => part.replace(/^data: /, ""));
  }
};

// The chunks of a completion; a stream that ends without its last word is broken.
export async function* stream(path, body, signal) {
  const response = await ask(path, { body: { ...body, stream: true }, signal });
  const chunks = events(response);
  for (;;) {
    let chunk;
    try {
      const { value, done } = await chunks.next();
      if (value === "[DONE]") return;
      if (done) throw broken();
      chunk = JSON.parse(value);
    } catch (error) {
      throw signal?.aborted ? error : broken();
    }
    if (chunk.error) throw ofError(chunk.error);
    yield chunk;
  }
}
