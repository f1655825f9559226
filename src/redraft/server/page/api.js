// The server's API. The key comes in the fragment of the printed link, which no server sees, and stays in this tab.

const fragment = new URLSearchParams(location.hash.slice(1));
if (fragment.has("key")) {
  sessionStorage.setItem("key", fragment.get("key"));
  history.replaceState(null, "", location.pathname);
}

const headers = () => {
  const key = sessionStorage.getItem("key");
  return { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) };
};

const checked = async (response) => {
  if (response.ok) return response;
  if (response.status === 401) throw new Error("This page needs the key: open the link that the server printed, or add #key=… to its address.");
  const body = await response.json().catch(() => null);
  throw new Error(body?.error?.message ?? `the server answered ${response.status}`);
};

// The name of the model that is served.
export const model = async () => {
  const response = await checked(await fetch("/v1/models", { headers: headers() }));
  return (await response.json()).data[0];
};

// Declarations of the calls that it knows by heart.
export const tools = async () => {
  const response = await checked(await fetch("/v1/tools", { headers: headers() }));
  return (await response.json()).data;
};

// The answer of a route, as JSON.
export const post = async (path, body, signal) => {
  const sent = { method: "POST", headers: headers(), body: JSON.stringify(body), signal };
  return (await checked(await fetch(path, sent))).json();
};

// The chunks of a chat completion.
export async function* stream(body, signal) {
  const sent = { method: "POST", headers: headers(), body: JSON.stringify({ ...body, stream: true }), signal };
  const response = await checked(await fetch("/v1/chat/completions", sent));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(chunk.error.message);
      yield chunk;
    }
  }
}
