// The calls that the model knows by heart: the page uses them where its settings declare none, and says that it does.

import { model, onModel } from "./connection.js";
import { find } from "./dom.js";

// Shows how many there are.
export const install = () => onModel(({ calls }) => {
  const count = calls.length === 1 ? "one call" : `${calls.length} calls`;
  find("known").textContent = calls.length ? `knows ${count} by heart` : "";
  find("known").title = calls.join(", ");
});

// The request with them allowed, where it declares no tools of its own.
export const allowed = (body) =>
  model().calls.length && !body.tools?.length ? { ...body, diffusion: { ...body.diffusion, known_tools: true } } : body;
