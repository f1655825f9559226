// The calls that the model knows by heart: the page uses them where its settings declare none, and says that it does.

import * as api from "./api.js";
import { find } from "./dom.js";

let names = [];

// Asks for them, and shows how many there are.
export const install = async () => {
  names = (await api.tools()).map(({ function: { name } }) => name);
  const count = names.length === 1 ? "one call" : `${names.length} calls`;
  find("known").textContent = names.length ? `knows ${count} by heart` : "";
  find("known").title = names.join(", ");
};

// The request with them allowed, where it declares no tools of its own.
export const allowed = (body) =>
  names.length && !body.tools?.length ? { ...body, diffusion: { ...body.diffusion, known_tools: true } } : body;
