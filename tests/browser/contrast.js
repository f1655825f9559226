// Text of the page whose contrast with what lies behind it is below a bound: [[ratio, text, selector], ...].
// Colours are blended by the browser itself, on a canvas of one pixel, so that it does not matter how they are written.
const bound = arguments[0];
const context = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });

const layers = (element) => {
  const above = [];
  for (let at = element; at; at = at.parentElement) {
    above.unshift(at);
    // A dialog lies on its backdrop, not on its parent, and is opaque.
    if (at.matches("dialog")) break;
  }
  return above;
};

const lay = (colour, alpha) => {
  context.globalAlpha = alpha;
  context.fillStyle = colour;
  context.fillRect(0, 0, 1, 1);
};

const luminance = () => {
  const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].slice(0, 3).map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};

const ratio = (element, colour) => {
  lay(getComputedStyle(document.body).backgroundColor, 1);
  let opacity = 1;
  for (const layer of layers(element)) {
    const style = getComputedStyle(layer);
    opacity *= Number(style.opacity);
    lay(style.backgroundColor, opacity);
  }
  const behind = luminance();
  lay(colour, opacity);
  const [dark, light] = [behind, luminance()].sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
};

const open = document.querySelector("dialog[open]");
const found = [];
let seen = 0;
for (const element of (open ?? document.body).querySelectorAll("*")) {
  if (!element.checkVisibility({ visibilityProperty: true }) || element.matches("option, script") || element.closest(":disabled, .unseen")) continue;
  const style = getComputedStyle(element);
  const own = [...element.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
  const texts = own.map((node) => [node.data.trim(), style.color]);
  if (element.matches("textarea, select, input:not([type=range], [type=checkbox])")) texts.push([element.value || "field", style.color]);
  if (element.placeholder) {
    const placeholder = getComputedStyle(element, "::placeholder");
    if (placeholder.opacity !== "1") found.push([0, "placeholder with opacity", element.id]);
    texts.push([element.placeholder, placeholder.color]);
  }
  for (const [text, colour] of texts) {
    seen += 1;
    const value = ratio(element, colour);
    if (value < bound) found.push([Math.round(value * 100) / 100, text, `${element.tagName}#${element.id}.${element.className}`]);
  }
}
return { seen, found };
