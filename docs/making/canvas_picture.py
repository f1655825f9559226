"""Draws a canvas of mini as it settles: an SVG made of the real drafts of one run.

python docs/making/canvas_picture.py [--text TEXT] [--seed N] [--out docs/pictures/canvas.svg]
"""

from __future__ import annotations

import argparse
import html
from dataclasses import dataclass
from pathlib import Path

import redraft

OUT = Path(__file__).parents[1] / "pictures" / "canvas.svg"
TEXT, SEED = "add this song by Daft Punk to my Sunday morning playlist", 0
WIDTH, MARGIN, LINE, LETTER = 620, 8, 21, 7.85
# What ends a reply, and what fills the canvas behind it.
_ENDS = {"<turn|>", "<eos>", "<pad>", "<|tool_response>"}
FILL = "·"
# Colours that are legible on white and on black: the picture has no ground of its own.
STYLE = """
text { font: 13px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
.head { fill: #777; font-size: 12px; }
.kept { fill: #0d8a96; font-weight: 600; }
.near { fill: #b7791f; }
.far { fill: #b05cc4; }
.noise { fill: #8d8d8d; }
.bar { fill: #8883; } .full { fill: #0d8a96; }
@media (prefers-color-scheme: dark) { .kept { fill: #3fc4cf; } .full { fill: #3fc4cf; } .near { fill: #dba646; }
  .far { fill: #cf8be0; } .head { fill: #999; } }
"""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One position of a draft: its text, and how sure the model is of it."""

    text: str
    kind: str


def marks_of(engine: redraft.Engine, draft: redraft.Draft) -> list[Mark]:
    """The positions of a draft, each by its fate: accepted, or renoised with so much doubt."""
    marks = []
    for piece, accepted, nats in zip(
        engine.pieces(draft.token_ids), draft.accepted, draft.entropy_nats, strict=True
    ):  # fmt: skip
        ends = piece in _ENDS
        kind = "kept" if accepted and not ends else "noise" if ends or nats > 4 else "near" if nats <= 0.5 else "far"
        shown = FILL if ends else piece.replace("\n", "⏎") or "▫"
        marks.append(Mark(text="".join(c if c.isprintable() else "▫" for c in shown), kind=kind))
    return marks


def chosen(drafts: list[redraft.Draft]) -> list[redraft.Draft]:
    """The first three steps, where most happens, and the last."""
    return drafts if len(drafts) <= 4 else [*drafts[:3], drafts[-1]]


def picture(engine: redraft.Engine, drafts: list[redraft.Draft]) -> str:
    """The SVG: a strip of drafts, one below the other."""
    rows, y = [], 0.0
    for draft in chosen(drafts):
        y += LINE
        share = sum(draft.accepted) / len(draft.accepted)
        rows.append(
            f'<text class="head" x="{MARGIN}" y="{y:.0f}">step {draft.step + 1}</text>'
            f'<rect class="bar" x="80" y="{y - 8:.0f}" width="200" height="6" rx="3"/>'
            f'<rect class="full" x="80" y="{y - 8:.0f}" width="{200 * share:.0f}" height="6" rx="3"/>'
            f'<text class="head" x="292" y="{y:.0f}">{sum(draft.accepted)} of {len(draft.accepted)} positions accepted'
            "</text>"
        )
        for line in _lines(marks_of(engine, draft)):
            y += LINE
            rows.append(f'<text x="{MARGIN}" y="{y:.0f}" xml:space="preserve">{line}</text>')
        y += LINE / 2
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y:.0f}" width="{WIDTH}" role="img" '
        f'aria-label="A canvas of mini settles, step by step"><style>{STYLE}</style>{"".join(rows)}</svg>\n'
    )


def _lines(marks: list[Mark]) -> list[str]:
    """The marks as spans, broken between words; of what fills the canvas behind its end, one line."""
    most = int((WIDTH - 2 * MARGIN) / LETTER)
    lines, used = [""], 0
    for word in _words(marks):
        length = sum(len(mark.text) for mark in word)
        if used and used + length > most:
            if word[0].text == FILL:
                break
            lines.append("")
            used = 0
        for mark in word:
            text = mark.text if used else mark.text.removeprefix(" ")
            lines[-1] += f'<tspan class="{mark.kind}">{html.escape(text)}</tspan>'
            used += len(text)
    return lines


def _words(marks: list[Mark]) -> list[list[Mark]]:
    """Positions that are read together."""
    words: list[list[Mark]] = []
    for mark in marks:
        if not words or mark.text[:1] in (" ", "<", FILL):
            words.append([])
        words[-1].append(mark)
    return words


def main() -> None:
    """Runs mini once and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", default=TEXT)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    engine = redraft.load("mini")
    drafts = [event for event in engine.stream(arguments.text, seed=arguments.seed) if isinstance(event, redraft.Draft)]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(picture(engine, drafts), encoding="utf-8")
    print(f"{arguments.out}: {len(drafts)} steps")


if __name__ == "__main__":
    main()
