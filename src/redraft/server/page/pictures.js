// Pictures that go with the next message: chosen, dropped or pasted, each with a small view of it.

import * as connection from "./connection.js";
import { find, make } from "./dom.js";

const KINDS = ["image/png", "image/jpeg", "image/webp", "image/gif"];
// What a model looks at has no more; what is larger would only take longer to send.
const LONGEST_SIDE = 2048;
const MOST_BYTES = 1.4e6;
const MOST_READ = 100e6;

// { url, name, note } each.
let chosen = [];
let drops = 0;

const limit = () => connection.model()?.redraft.max_images ?? 0;
const sees = () => Boolean(connection.model()?.redraft.sees && connection.model().redraft.has_chat_template);

const urlOf = (blob) => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result);
  reader.onerror = () => reject(reader.error);
  reader.readAsDataURL(blob);
});

// A picture drawn anew, smaller, on white.
const drawn = (bitmap, scale, quality) => {
  const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(side * scale)));
  const canvas = make("canvas", { width, height });
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  return new Promise((resolve) => canvas.toBlob((blob) => resolve({ blob, width, height }), "image/jpeg", quality));
};

// The file as it can be sent: as it is, or scaled down with a word about it. Throws what a reader can be told.
const sendable = async (file) => {
  const name = file.name || "the picture";
  if (!KINDS.includes(file.type)) throw new Error(`${name} is no PNG, JPEG, WebP or GIF.`);
  if (file.size > MOST_READ) throw new Error(`${name} has ${Math.round(file.size / 1e6)} MB, at most 100 are read.`);
  const bitmap = await createImageBitmap(file).catch(() => {
    throw new Error(`${name} cannot be read as a picture.`);
  });
  let scale = Math.min(1, LONGEST_SIDE / Math.max(bitmap.width, bitmap.height));
  if (scale === 1 && file.size <= MOST_BYTES) return { name, url: await urlOf(file), note: "" };
  for (; ; scale *= 0.7) {
    const { blob, width, height } = await drawn(bitmap, scale, 0.88);
    if (!blob) throw new Error(`${name} is too large for this browser.`);
    if (blob.size <= MOST_BYTES) return { name, url: await urlOf(blob), note: `scaled to ${width} x ${height}` };
  }
};

const say = (text) => {
  find("pictures-note").textContent = text;
};

const show = () => {
  find("pictures").replaceChildren(...chosen.map((picture) => {
    const drop = make("button", { type: "button", textContent: "×", title: `Remove ${picture.name}` });
    drop.setAttribute("aria-label", `Remove ${picture.name}`);
    drop.addEventListener("click", () => {
      chosen = chosen.filter((other) => other !== picture);
      show();
      find("text").focus();
    });
    const small = make("small", { textContent: picture.note });
    return make("li", {}, make("img", { src: picture.url, alt: picture.name }), drop, ...(picture.note ? [small] : []));
  }));
  find("pictures").hidden = !chosen.length;
};

const add = async (files) => {
  if (!files.length) return;
  say(sees() ? "" : "This model takes no pictures.");
  if (!sees()) return;
  const attempt = drops;
  for (const file of files) {
    if (chosen.length >= limit()) {
      say(`At most ${limit()} pictures go with a message.`);
      break;
    }
    try {
      const picture = await sendable(file);
      // Sent or begun anew meanwhile.
      if (attempt !== drops) return;
      chosen = [...chosen, picture];
      show();
    } catch (problem) {
      say(problem.message);
    }
  }
};

const filesOf = (data) => [...(data?.files ?? [])];

// Takes them off the box: data: URLs, each with its name.
export const take = () => {
  const taken = chosen.map(({ url, name }) => ({ url, name }));
  chosen = [];
  drops += 1;
  show();
  say("");
  return taken;
};

// Small views of what was sent.
export const views = (pictures) =>
  pictures.map(({ url, name }) => make("img", { src: url, alt: name, className: "picture" }));

// A message's content with its pictures, which stand before the text.
export const content = (text, pictures) => {
  if (!pictures?.length) return text;
  const parts = pictures.map(({ url }) => ({ type: "image_url", image_url: { url } }));
  return text ? [...parts, { type: "text", text }] : parts;
};

export const install = () => {
  const input = find("picture-files");
  input.accept = KINDS.join();
  find("add-picture").addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    add([...input.files]);
    input.value = "";
  });
  const isHere = () => !find("chat").hidden && !document.querySelector("dialog[open]");
  document.addEventListener("paste", (event) => {
    const files = filesOf(event.clipboardData);
    if (!files.length || !isHere()) return;
    event.preventDefault();
    add(files);
  });
  // Wherever it is dropped: a browser would leave the page for it.
  const isFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragover", (event) => {
    if (isFiles(event)) event.preventDefault();
    find("ask").classList.toggle("over", isFiles(event) && isHere() && sees());
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) find("ask").classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    find("ask").classList.remove("over");
    if (!isFiles(event)) return;
    event.preventDefault();
    if (isHere()) add(filesOf(event.dataTransfer));
  });
  connection.onModel(() => {
    find("add-picture").hidden = !sees();
    if (!sees()) take();
  });
};
