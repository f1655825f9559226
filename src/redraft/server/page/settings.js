// Settings: what every request carries, and how the page looks.

import { onModel } from "./connection.js";
import { find, make } from "./dom.js";
import { save, saved } from "./store.js";

const EMPTY = { preset: "", temperature: "", seed: "", max_tokens: "", schema: "", tools: "", system: "", judge: false, redraft: "", theme: "auto" };
const FIELDS = [
  ["preset", "Preset", [""], "a named set of options, for speed or for care"],
  ["temperature", "Temperature", "number", "0 is greedy; empty leaves the schedule as it is"],
  ["seed", "Seed", "number", "the same seed gives the same text; empty draws one"],
  ["max_tokens", "Longest reply", "number", "tokens"],
  ["redraft", "Redraft rounds", "number", "doubted tokens are drafted again, up to so many times"],
  ["judge", "Underline what the causal mode doubts", "checkbox", "costs one more pass a canvas"],
  ["system", "System message", "textarea", ""],
  ["schema", "JSON schema", "textarea", "every reply is valid under it"],
  ["tools", "Tools", "textarea", "a list of functions, as JSON"],
  ["theme", "Colours", ["auto", "light", "dark"], ""],
];

let values = saved("settings", EMPTY);

const json = (name, what) => {
  if (!values[name].trim()) return undefined;
  try {
    return JSON.parse(values[name]);
  } catch (error) {
    throw new Error(`${what} in the settings is no JSON: ${error.message}`);
  }
};

const number = (name) => (values[name] === "" ? undefined : Number(values[name]));

// Beyond 2^53 a number is another one here: such a seed is sent as the text that it is.
const seed = () => (Number.isSafeInteger(number("seed") ?? 0) ? number("seed") : values.seed);

// The fields of a request. Throws where a schema or tools are no JSON.
export const options = () => {
  const schema = json("schema", "The schema");
  const tools = json("tools", "The list of tools");
  const diffusion = { preset: values.preset || undefined, redraft: number("redraft") };
  return {
    temperature: number("temperature"),
    seed: seed(),
    max_tokens: number("max_tokens"),
    logprobs: values.judge || undefined,
    tools: tools && (Array.isArray(tools) ? tools : tools.tools ?? [tools]),
    response_format: schema && { type: "json_schema", json_schema: { name: "reply", schema } },
    diffusion,
  };
};

export const system = () => (values.system.trim() ? [{ role: "system", content: values.system }] : []);

const apply = () => {
  document.documentElement.dataset.theme = values.theme;
};

const choice = (value) => make("option", { value, textContent: value || "model's own" });

const control = (name, kind) => {
  const id = `set-${name}`;
  if (Array.isArray(kind)) return make("select", { id, name }, ...kind.map(choice));
  if (kind === "textarea") return make("textarea", { id, name, rows: 3, spellcheck: false, dir: "auto" });
  const element = make("input", { id, name, type: kind });
  if (kind === "number") Object.assign(element, { min: 0, step: name === "temperature" ? 0.1 : 1 });
  return element;
};

const field = ([name, title, kind, hint]) => {
  const element = control(name, kind);
  element[kind === "checkbox" ? "checked" : "value"] = values[name];
  const label = make("label", { htmlFor: element.id, textContent: title });
  const row = make("div", { className: `field ${Array.isArray(kind) ? "select" : kind}` }, label, element);
  if (hint) {
    row.append(make("small", { id: `${element.id}-hint`, textContent: hint }));
    element.setAttribute("aria-describedby", `${element.id}-hint`);
  }
  return row;
};

// The presets are the server's to name; one that it no longer has is left for the model's own options.
const offer = (presets) => {
  const select = find("set-preset");
  if (!presets.includes(values.preset)) values.preset = "";
  // "default" is what no preset is.
  select.replaceChildren(...["", ...presets.filter((name) => name !== "default")].map(choice));
  select.value = values.preset;
};

// Fills the dialog.
export const install = () => {
  const form = find("settings-form");
  form.append(...FIELDS.map(field));
  form.append(make("p", { className: "numbers", textContent: "Enter sends, Shift+Enter breaks a line, Escape stops, Alt+N begins anew, / goes to the box." }));
  form.append(make("button", { textContent: "Close" }));
  const take = ({ target }) => {
    values = { ...values, [target.name]: target.type === "checkbox" ? target.checked : target.value };
    save("settings", values);
    apply();
  };
  for (const event of ["input", "change"]) form.addEventListener(event, take);
  onModel(({ redraft }) => offer(redraft.presets));
  apply();
};
