// One reply: the canvas while it forms, then text, calls, numbers, doubts, and its steps to replay.

import { stream } from "./api.js";
import { next, paint, player, statesOf } from "./canvas.js";
import { make } from "./dom.js";
import { doubtsIn, marked, plain } from "./words.js";

const readable = (calls) => calls.map(({ function: call }) => {
  const values = Object.entries(JSON.parse(call.arguments)).map(([key, value]) => `${key}=${JSON.stringify(value)}`);
  return `${call.name}(${values.join(", ")})`;
}).join("\n");

const numbers = (extras) => {
  const { stats: s, seed, finish_reason: reason } = extras;
  const parts = [
    `${s.time_to_first_canvas_s.toFixed(2)} s to the first ${s.denoising_steps ? "canvas" : "token"}`,
    s.denoising_steps ? `${s.denoising_steps} steps` : `${s.encode_passes} forwards`,
    `${s.tokens_per_forward.toFixed(1)} tokens a forward`,
    `${s.tokens_per_second.toFixed(0)} tokens/s`,
    `seed ${seed}`,
  ];
  if (s.redrafts) parts.push(`${s.redrafts_kept} of ${s.redrafts} redrafts kept`);
  if (reason !== "stop" && reason !== "tool_calls") parts.push(reason);
  return make("div", { className: "numbers", textContent: parts.join(" · ") });
};

// The view of a reply, empty or of a record that was kept.
export class Reply {
  constructor(title = "") {
    this.states = [];
    this.record = { frames: [], content: "", reasoning: "", calls: [], extras: null };
    this.canvas = make("div", { className: "canvas", hidden: true });
    this.answer = make("div", { className: "answer" });
    this.element = make("article", { className: "reply" });
    if (title) this.element.append(make("h3", { textContent: title }));
    this.element.append(this.canvas, this.answer);
  }

  // The message that the conversation goes on with.
  get message() {
    const { content, calls } = this.record;
    const message = { role: "assistant", content: content || (calls.length ? null : "") };
    return calls.length ? { ...message, tool_calls: calls } : message;
  }

  // Asks, and shows what comes; throws what goes wrong, once it is shown.
  async run(body, signal) {
    const { record } = this;
    try {
      for await (const chunk of stream({ ...body, diffusion: { ...body.diffusion, drafts: true } }, signal)) {
        if (chunk.redraft?.draft) this.draft(chunk.redraft.draft);
        const delta = chunk.choices[0]?.delta ?? {};
        record.content += delta.content ?? "";
        record.reasoning += delta.reasoning_content ?? "";
        record.calls.push(...(delta.tool_calls ?? []).map(({ index, ...call }) => call));
        if (chunk.redraft?.stats) record.extras = chunk.redraft;
        else if (record.content || record.calls.length) this.write();
      }
      if (!record.extras) throw new Error("the server ended the reply before it was whole");
    } catch (error) {
      const text = signal.aborted ? "stopped" : error.message;
      this.element.append(make("p", { className: "error", textContent: text }));
      throw error;
    }
    this.finish();
  }

  draft(frame) {
    this.record.frames.push(frame);
    next(this.states, frame);
    this.canvas.hidden = false;
    paint(this.canvas, this.states.at(-1));
  }

  write() {
    const { content, calls, extras } = this.record;
    const doubts = extras ? doubtsIn(content, extras.raw, extras.doubts) : [];
    this.answer.replaceChildren(...marked(content, doubts), ...(calls.length ? [make("pre", { className: "calls", textContent: readable(calls) })] : []));
  }

  // Shows a record that was kept.
  show(record) {
    this.record = record;
    this.states = statesOf(record.frames);
    this.finish();
    return this;
  }

  finish() {
    const { extras, reasoning } = this.record;
    if (reasoning) {
      this.element.insertBefore(make("details", {}, make("summary", { textContent: "Thought" }), make("div", { textContent: reasoning })), this.answer);
    }
    this.write();
    this.canvas.hidden = true;
    this.element.append(numbers(extras));
    if (this.record.calls.length && extras.doubts.length) {
      this.element.append(make("pre", { className: "raw" }, ...plain(extras.raw, doubtsIn(extras.raw, extras.raw, extras.doubts))));
    }
    if (this.states.length) {
      this.element.append(player(this.canvas, this.states, () => {
        this.canvas.hidden = false;
      }));
    }
  }
}
