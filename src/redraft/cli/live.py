"""Draws a canvas while it settles, position by position.

A position that was accepted stands bold, green in the step in which it settled; one that was renoised flickers
in the tint of its entropy: yellow is nearly sure, magenta is not, dim is noise. What the judge doubts is underlined.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter

from rich.cells import cell_len
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from redraft.cli.pump import pump
from redraft.cli.show import count, printable
from redraft.core.engine import Engine
from redraft.core.events import Commit, Draft, Event
from redraft.core.results import Generation

END_OF_TURN = frozenset({"<turn|>", "<eos>", "<|tool_response>"})
PADDING = END_OF_TURN | {"<pad>"}

_DOUBTED = " underline"
_SETTLED, _FRESH, _MARKER, _PADDING = "bold", "bold green", "cyan", "dim"
_TINTS = ((0.5, "yellow"), (2.0, "magenta"), (float("inf"), "dim magenta"))
_BAR_CELLS = 48
_COMMITTED_LINES = 3


@dataclass(kw_only=True)
class Pace:
    """Keeps each frame in sight, within a budget for all frames together.

    Attributes:
        frame_s: how long a frame stays at least.
        budget_s: what waiting may cost in total.
    """

    frame_s: float = 0.04
    budget_s: float = 2.0
    _shown_at_s: float = field(default=0.0, init=False)

    def wait(self) -> None:
        """Returns when the frame before has been seen."""
        pause_s = min(self._shown_at_s + self.frame_s - time.monotonic(), self.budget_s)
        if pause_s > 0:
            time.sleep(pause_s)
            self.budget_s -= pause_s
        self._shown_at_s = time.monotonic()


def console_for_drawing(wanted: bool | None) -> Console | None:
    """Stdout's console if a canvas is to be drawn there; None stands for plain output.

    Args:
        wanted: what the user asked for; None leaves it to whether stdout is a terminal that can.
    """
    if wanted is False:
        return None
    console = Console(force_terminal=wanted, highlight=False)
    return console if wanted or (console.is_terminal and not console.is_dumb_terminal) else None


def draw(console: Console, engine: Engine, events: Iterator[Event], *, max_steps: int | None) -> Generation:
    """Draws the events and returns the last; what remains on the screen is the settled canvas.

    Args:
        max_steps: the most steps a canvas may take, for the header.
    """
    picture = Picture(engine, max_steps=max_steps)
    pace = Pace()
    screen = Live(console=console, auto_refresh=False, transient=True)
    with closing(pump(events)) as stream, screen:
        for event in stream:
            if isinstance(event, Draft):
                pace.wait()
                screen.update(picture.frame(event, console.width), refresh=True)
            elif isinstance(event, Commit):
                picture.commit(event)
                if not picture.drafted:
                    screen.update(picture.written(console.width), refresh=True)
            else:
                pace.wait()
                screen.stop()
                console.print(picture.settled(event, console.width))
                return event
    raise RuntimeError("the engine's stream ended without a generation")


class Picture:
    """The state of the drawing: what has settled so far, and how tall the canvas has been."""

    def __init__(self, engine: Engine, *, max_steps: int | None) -> None:
        self._engine = engine
        self._max_steps = max_steps
        self._before: Draft | None = None
        self._committed: list[Commit] = []
        self._height = 0

    def frame(self, draft: Draft, width: int) -> Group:
        """One step: what was committed before, the header, the canvas."""
        canvas = self._canvas(draft, width)
        # A canvas that shrinks and grows with every draft makes everything below it jump.
        self._height = max(self._height, len(canvas))
        blank = [Text()] * (self._height - len(canvas))
        self._before = draft
        return Group(*self._tail(width), self._header(draft), _bar(draft, width), *canvas, *blank)

    def commit(self, commit: Commit) -> None:
        """The canvas in sight will not change any more; the next one starts from nothing."""
        self._committed.append(commit)
        self._height = 0

    @property
    def drafted(self) -> bool:
        """Whether there has been a draft; the causal mode makes none."""
        return self._before is not None

    def written(self, width: int) -> Group:
        """What has been committed so far."""
        return Group(*self._tail(width))

    def settled(self, generation: Generation, width: int) -> Group:
        """The last canvas as it was committed."""
        if self._before is None or not self._committed:
            return Group()
        stats, commit = generation.stats, self._committed[-1]
        head = " · ".join(
            (
                count(stats.canvases, "canvas", "canvases"),
                f"settled in {count(stats.denoising_steps, 'step', 'steps')}",
                count(stats.generated_tokens, "token", "tokens"),
            )
        )
        pieces = self._engine.pieces(commit.token_ids)
        marks = [
            (_glyph(piece), (_MARKER if _is_marker(piece) else _SETTLED) + _DOUBTED * (place in commit.doubts))
            for place, piece in enumerate(pieces)
        ]
        marks += [("·", _PADDING)] * (len(self._before.token_ids) - len(pieces))
        return Group(_line(head), *_wrap(marks, width), Text())

    def _canvas(self, draft: Draft, width: int) -> list[Text]:
        pieces = self._engine.pieces(draft.token_ids)
        ends = (i for i, piece in enumerate(pieces) if piece in END_OF_TURN and draft.accepted[i])
        end = next(ends, len(pieces))
        before = self._before if self._before and self._before.canvas == draft.canvas else None
        marks = []
        for position, piece in enumerate(pieces):
            if position > end or piece in PADDING:
                marks.append(("·", _PADDING))
            elif not draft.accepted[position]:
                tint = next(style for bound, style in _TINTS if draft.entropy_nats[position] <= bound)
                marks.append((_glyph(piece), tint))
            elif before is None or not before.accepted[position]:
                marks.append((_glyph(piece), _FRESH))
            else:
                marks.append((_glyph(piece), _MARKER if _is_marker(piece) else _SETTLED))
        return _wrap(marks, width)

    def _header(self, draft: Draft) -> Text:
        steps = f"{draft.step + 1}" + (f"/{self._max_steps}" if self._max_steps else "")
        mean_nats = sum(draft.entropy_nats) / max(len(draft.entropy_nats), 1)
        return _line(
            f"canvas {draft.canvas + 1} · step {steps} · T {draft.temperature:.2f} · "
            f"{sum(draft.accepted)}/{len(draft.accepted)} accepted · mean entropy {mean_nats:.2f} nats"
        )

    def _tail(self, width: int) -> list[Text]:
        """The end of what earlier canvases committed; the whole of it comes with the reply."""
        text = printable("".join(commit.text for commit in self._committed)).replace("\n", "⏎")
        return _wrap([(character, "dim") for character in text], width)[-_COMMITTED_LINES:] if text else []


def _line(text: str) -> Text:
    return Text(text, style="dim", no_wrap=True, overflow="ellipsis")


def _bar(draft: Draft, width: int) -> Text:
    cells = min(_BAR_CELLS, width)
    filled = round(cells * sum(draft.accepted) / max(len(draft.accepted), 1))
    return Text.assemble(("━" * filled, "green"), ("─" * (cells - filled), "dim"))


def _is_marker(piece: str) -> bool:
    return piece.startswith("<") and piece.endswith(">") and "|" in piece


def _glyph(piece: str) -> str:
    return printable(piece.replace("\n", "⏎").replace("\t", "⇥")) or "▫"


def _wrap(marks: Sequence[tuple[str, str]], width: int) -> list[Text]:
    """Lines of at most `width` cells that break between positions, not within them."""
    lines: list[list[tuple[str, str]]] = [[]]
    used = 0
    for glyph, style in marks:
        if used + cell_len(glyph) > width and used:
            lines.append([])
            glyph, used = glyph.removeprefix(" "), 0
        lines[-1].append((glyph, style))
        used += cell_len(glyph)
    return [_styled(line) for line in lines]


def _styled(marks: Sequence[tuple[str, str]]) -> Text:
    # One span for neighbours of one style: a canvas is redrawn 25 times a second, perhaps through ssh.
    runs = groupby(marks, key=itemgetter(1))
    spans = (("".join(glyph for glyph, _ in run), style) for style, run in runs)
    return Text.assemble(*spans, no_wrap=True, overflow="crop")
