(frames, id, told) => {
  const make = (tag, name, text = "") => {
    const element = document.createElement(tag);
    element.className = name;
    element.textContent = text;
    return element;
  };
  // Each frame carries what has changed since the one before it on the same canvas.
  const states = [];
  for (const frame of frames) {
    const before = states.at(-1);
    const same = before && before.canvas === frame.canvas;
    const texts = same ? before.texts.slice(0, frame.length) : [];
    for (const [place, text] of frame.set) texts[place] = text;
    const accepted = Array.from({ length: frame.length }, (_, place) =>
      parseInt(frame.accepted[place >> 2], 16) >> (3 - (place & 3)) & 1);
    states.push({ ...frame, texts, taken: accepted, known: same ? before.taken : [] });
  }
  const glyphs = (text) => text.replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/[\u0000-\u001f\u007f-\u009f]/g, "▫") || "▫";
  // Half a nat and two nats, as a terminal tints them; a level is a factor of two, and 0.002 nats the lowest.
  const tint = (level) => level <= 8 ? "sure" : level <= 10 ? "unsure" : "noise";
  const paint = (canvas, state) => {
    let end = state.length;
    while (end > 0 && state.taken[end - 1] && state.texts[end - 1] === state.texts[state.length - 1]) end -= 1;
    const folded = state.length - end;
    if (folded < 3) end = state.length;
    const tokens = state.texts.slice(0, end).map((text, place) => {
      const name = !state.taken[place] ? tint(parseInt(state.entropy[place], 16)) : state.known[place] ? "settled" : "fresh";
      return make("span", `redraft-${name}`, glyphs(text));
    });
    if (end < state.length) tokens.push(make("span", "redraft-fill", ` ${glyphs(state.texts[end])} × ${folded}`));
    canvas.replaceChildren(...tokens);
  };
  const legend = () => {
    const line = make("div", "redraft-legend");
    const meanings = { fresh: "accepted now", settled: "accepted", sure: "nearly sure", unsure: "not sure", noise: "noise" };
    for (const [name, text] of Object.entries(meanings)) line.append(make("span", `redraft-${name}`, text));
    return line;
  };
  const build = (place) => {
    const player = make("div", "redraft-player"), drawn = make("div", "redraft-drawn");
    const play = make("button", "", "▶"), range = make("input", ""), label = make("output", "");
    const canvas = make("div", "redraft-canvas");
    let timer = null;
    Object.assign(play, { type: "button", title: "Play the drafts" });
    Object.assign(range, { type: "range", min: 0, max: states.length - 1 });
    range.value = states.length - 1;
    range.setAttribute("aria-label", "Denoising step");
    play.setAttribute("aria-label", "Play the drafts");
    const name = () => {
      const state = states[range.value], taken = state.taken.filter(Boolean).length;
      label.textContent = `canvas ${state.canvas + 1} · step ${state.step + 1} · T ${state.temperature.toFixed(2)} · ${taken}/${state.length} accepted`;
    };
    const show = () => {
      drawn.hidden = false;
      name();
      paint(canvas, states[range.value]);
      // A canvas that grows and shrinks would move what stands below it.
      canvas.style.minHeight = `${Math.max(parseFloat(canvas.style.minHeight) || 0, canvas.offsetHeight)}px`;
    };
    const halt = () => {
      clearInterval(timer);
      timer = null;
      play.textContent = "▶";
    };
    const next = () => {
      if (Number(range.value) >= states.length - 1 || !range.isConnected) return halt();
      range.value = Number(range.value) + 1;
      show();
    };
    range.addEventListener("input", () => {
      halt();
      show();
    });
    play.addEventListener("click", () => {
      if (timer) return halt();
      range.value = 0;
      show();
      play.textContent = "❚❚";
      timer = setInterval(next, 120);
    });
    canvas.style.boxSizing = "border-box";
    drawn.hidden = true;
    drawn.append(canvas, legend());
    if (told) drawn.append(make("div", "redraft-numbers", told));
    name();
    player.append(play, range, label);
    place.append(player, drawn);
  };
  // One output may be shown twice, and some notebooks run a script elsewhere than where it stands.
  const found = [...document.querySelectorAll(`[data-redraft="${id}"]`), document.currentScript?.closest(".redraft-reply")];
  for (const reply of new Set(found)) {
    const place = reply?.querySelector(".redraft-drafts");
    if (place && !place.hasChildNodes()) build(place);
  }
}
