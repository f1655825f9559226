// One reply: the canvas while it forms, then text, calls, numbers, doubts, and its steps to replay.

import { stream } from "./api.js";
import { next, paint, statesOf } from "./canvas.js";
import { make } from "./dom.js";
import { doubtsLegend, legend } from "./legend.js";
import { player } from "./player.js";
import { doubtsIn, marked, plain } from "./words.js";

const argumentsOf = (call) => {
  try {
    return Object.entries(JSON.parse(call.arguments)).map(([key, value]) => `${key}=${JSON.stringify(value)}`).join(", ");
  } catch {
    return call.arguments;
  }
};

const readable = (calls) => calls.map(({ function: call }) => `${call.name}(${argumentsOf(call)})`).join("\n");

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

// The view of a reply, empty or of a record that was kept. `ends` are the texts of tokens that end a reply.
export class Reply {
  constructor(title, ends) {
    this.states = [];
    this.record = { frames: [], content: "", reasoning: "", calls: [], extras: null, ends };
    this.canvas = make("div", { className: "canvas", dir: "auto" });
    // Read out at every step, a canvas would be noise.
    this.canvas.setAttribute("aria-hidden", "true");
    this.drawing = make("div", { className: "drawing", hidden: true }, this.canvas, legend());
    this.answer = make("div", { className: "answer", dir: "auto" });
    this.element = make("article", { className: "reply" });
    if (title) this.element.append(make("h3", { textContent: title }));
    this.element.append(this.drawing, this.answer);
  }

  // The message that the conversation goes on with.
  get message() {
    const { content, calls } = this.record;
    const message = { role: "assistant", content: content || (calls.length ? null : "") };
    return calls.length ? { ...message, tool_calls: calls } : message;
  }

  // What it says, as text.
  get text() {
    return [this.record.content, readable(this.record.calls)].filter(Boolean).join("\n");
  }

  // Asks, and shows what comes; throws what goes wrong, once that which has come is shown.
  async run(path, body, signal) {
    const { record } = this;
    try {
      for await (const chunk of stream(path, { ...body, diffusion: { ...body.diffusion, drafts: true } }, signal)) {
        if (chunk.redraft?.draft) this.draft(chunk.redraft.draft);
        const choice = chunk.choices[0] ?? {};
        const delta = choice.delta ?? {};
        record.content += delta.content ?? choice.text ?? "";
        record.reasoning += delta.reasoning_content ?? "";
        record.calls.push(...(delta.tool_calls ?? []).map(({ index, ...call }) => call));
        if (chunk.redraft?.stats) record.extras = chunk.redraft;
        else if (record.content || record.calls.length) this.write();
      }
    } finally {
      this.finish();
    }
  }

  draft(frame) {
    this.record.frames.push(frame);
    next(this.states, frame);
    this.draw(this.states.at(-1));
  }

  draw(state) {
    this.drawing.hidden = false;
    paint(this.canvas, state, this.record.ends ?? []);
  }

  write() {
    const { content, calls, extras } = this.record;
    const doubts = extras ? doubtsIn(content, extras.raw, extras.doubts) : [];
    const called = calls.length ? [make("pre", { className: "calls", textContent: readable(calls) })] : [];
    this.answer.replaceChildren(...marked(content, doubts), ...called);
  }

  // Shows a record that was kept.
  show(record) {
    this.record = { ...record, ends: record.ends ?? this.record.ends };
    this.states = statesOf(record.frames);
    this.finish();
    return this;
  }

  // Shows what there is when nothing more comes: all of it, or what had come when it broke off.
  finish() {
    const { extras, reasoning, calls } = this.record;
    this.element.classList.add("still");
    if (reasoning) {
      this.element.insertBefore(make("details", {}, make("summary", { textContent: "Thought" }), make("div", { textContent: reasoning, dir: "auto" })), this.answer);
    }
    this.write();
    if (extras) {
      this.drawing.hidden = true;
      if (calls.length && extras.doubts.length) {
        this.element.append(make("pre", { className: "raw" }, ...plain(extras.raw, doubtsIn(extras.raw, extras.raw, extras.doubts))));
      }
      if (extras.doubts.length) this.element.append(doubtsLegend());
      this.element.append(numbers(extras));
    } else if (this.states.length) {
      this.draw(this.states.at(-1));
    }
    if (this.states.length) this.element.append(player(this.states, (state) => this.draw(state)));
  }
}
