// The key comes in the fragment of the printed link, which no server sees, and stays in this tab.
const fragment = new URLSearchParams(location.hash.slice(1));
if (fragment.has("key")) {
  sessionStorage.setItem("key", fragment.get("key"));
  history.replaceState(null, "", location.pathname);
}
const headers = () => {
  const key = sessionStorage.getItem("key");
  return { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) };
};

const find = (id) => document.getElementById(id);
const messages = [];
let model = null;
let running = null;

const add = (kind, text = "") => {
  const element = document.createElement("div");
  element.className = kind;
  element.textContent = text;
  find("conversation").append(element);
  element.scrollIntoView({ block: "end" });
  return element;
};

async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const parts = rest.split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

// A frame carries what has changed; a canvas keeps the texts, so that any step can be painted again.
const apply = (texts, frame) => {
  const next = texts.slice(0, frame.length);
  for (const [place, text] of frame.set) next[place] = text;
  return next;
};

const paint = (element, state) => {
  element.replaceChildren(...state.texts.map((text, place) => {
    const token = document.createElement("span");
    const bit = parseInt(state.accepted[place >> 2] ?? "0", 16) >> (3 - (place & 3)) & 1;
    token.className = bit ? "token" : "token renoised";
    token.style.setProperty("--entropy", parseInt(state.entropy[place] ?? "0", 16));
    token.textContent = text;
    return token;
  }));
};

const scrubber = (reply, canvas, states) => {
  const input = document.createElement("input");
  input.type = "range";
  input.max = states.length - 1;
  input.value = states.length - 1;
  input.setAttribute("aria-label", "Replay the steps");
  input.addEventListener("input", () => {
    canvas.hidden = false;
    paint(canvas, states[input.value]);
  });
  reply.append(input);
};

const readable = (calls) => calls.map(({ function: f }) => {
  const values = Object.entries(JSON.parse(f.arguments)).map(([key, value]) => `${key}=${JSON.stringify(value)}`);
  return `${f.name}(${values.join(", ")})`;
}).join("\n");

async function ask(text) {
  add("user", text);
  messages.push({ role: "user", content: text });
  const reply = add("reply");
  const canvas = document.createElement("div");
  const answer = document.createElement("div");
  canvas.className = "canvas";
  reply.append(canvas, answer);
  const states = [];
  const calls = [];
  let content = "";
  let number = -1;
  running = new AbortController();
  find("stop").hidden = false;
  try {
    const response = await fetch("/v1/chat/completions", {
      method: "POST", headers: headers(), signal: running.signal,
      body: JSON.stringify({ model, messages, stream: true, diffusion: { drafts: true } }),
    });
    if (!response.ok) throw new Error((await response.json()).error.message);
    for await (const chunk of eventsOf(response)) {
      if (chunk.error) throw new Error(chunk.error.message);
      const draft = chunk.redraft?.draft;
      if (draft) {
        const before = draft.canvas === number ? states.at(-1).texts : [];
        number = draft.canvas;
        states.push({ ...draft, texts: apply(before, draft) });
        paint(canvas, states.at(-1));
      }
      const delta = chunk.choices[0]?.delta ?? {};
      content += delta.content ?? "";
      calls.push(...(delta.tool_calls ?? []));
      answer.textContent = content + readable(calls);
      if (chunk.redraft?.stats) {
        const s = chunk.redraft.stats;
        canvas.hidden = true;
        const numbers = document.createElement("div");
        numbers.className = "numbers";
        numbers.textContent = `${s.time_to_first_canvas_s.toFixed(2)} s to the first canvas, ${s.denoising_steps} steps, ` +
          `${s.tokens_per_forward.toFixed(1)} tokens a forward, ${s.tokens_per_second.toFixed(0)} tokens/s`;
        reply.append(numbers);
        if (states.length) scrubber(reply, canvas, states);
      }
    }
    const message = { role: "assistant", content: content || null };
    if (calls.length) message.tool_calls = calls.map(({ index, ...call }) => call);
    messages.push(message);
  } catch (error) {
    messages.pop();
    answer.textContent = running.signal.aborted ? "stopped" : error.message;
    answer.className = "error";
  } finally {
    running = null;
    find("stop").hidden = true;
  }
}

find("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = find("text").value.trim();
  if (!text || running) return;
  find("text").value = "";
  ask(text);
});
find("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    find("ask").requestSubmit();
  }
});
find("stop").addEventListener("click", () => running?.abort());

const listed = await fetch("/v1/models", { headers: headers() });
if (listed.ok) {
  model = (await listed.json()).data[0].id;
  find("model").textContent = model;
} else {
  add("error", "This page needs the key: open the link that the server printed.");
}
