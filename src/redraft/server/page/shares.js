// An answer as it is shown: a bar an option, what it was read from, and why it should not be relied on.

import { make } from "./dom.js";

const NAMED = { true: "yes", false: "no" };

const percent = (share) => `${(100 * share).toFixed(1)} %`;

// Of a share that may be next to nothing, which is then what one wants to know.
const fine = (share) => (share > 0 && share < 0.001 ? `${(100 * share).toPrecision(1)} %` : percent(share));

const name = (value) => (typeof value === "boolean" ? NAMED[value] : value);

const line = ({ value, probability }, isLikeliest) => {
  const bar = make("span", { className: "bar" });
  bar.style.setProperty("--share", 100 * probability);
  bar.setAttribute("aria-hidden", "true");
  const label = make("span", { textContent: name(value), dir: "auto" });
  const share = make("span", { className: "share", textContent: percent(probability) });
  return make("li", { className: isLikeliest ? "likeliest" : "" }, label, bar, share);
};

const several = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

const read = ({ type, score, probabilities, label_mass, entropy_nats, draws, spread, stages, calibrated }) => [
  ...(type === "score" ? [`level ${score.toFixed(2)} of 0 to ${probabilities.length - 1}`] : []),
  `labels hold ${fine(label_mass)} of the vocabulary`,
  `entropy ${entropy_nats.toFixed(3)} nats`,
  ...(draws ? [`${several(draws, "draw")}${draws > 1 ? `, apart by ${percent(spread)}` : ""}`] : []),
  ...(stages.length ? [stages.join(", then ")] : []),
  calibrated ? "calibrated" : "not calibrated",
].join(" · ");

const shares = (answer) => {
  const most = Math.max(...answer.probabilities.map(({ probability }) => probability));
  const at = answer.probabilities.findIndex(({ probability }) => probability === most);
  const list = make("ul", { className: "shares" }, ...answer.probabilities.map((one, place) => line(one, place === at)));
  list.setAttribute("aria-label", `Answer: ${name(answer.answer)}`);
  return [list, make("p", { className: "numbers", textContent: read(answer) })];
};

// Elements for an answer, or for what there is in its place; `answer` is what stands under `redraft` in a reply.
export const shown = (answer) => {
  if (answer.type !== "refusal") {
    const doubts = answer.doubts.length ? [make("p", { className: "hint", textContent: `Doubtful: ${answer.doubts.join(", ")}.` })] : [];
    return [...shares(answer), ...doubts];
  }
  const reason = make("p", { className: "error", textContent: answer.code === "abstained" ? `Left unanswered: ${answer.reason}` : answer.reason });
  return answer.would_be ? [reason, ...shares(answer.would_be)] : [reason];
};
