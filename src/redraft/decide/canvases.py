"""Canvases that are read and never committed: noise where an answer stands, all else as a reply would have it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from redraft.core.errors import OptionError, QuestionError
from redraft.core.reads import NOISE, Slot
from redraft.decide.known import Known
from redraft.decide.labels import Labels, Line
from redraft.decide.prompts import Put

SIXTEEN = 16
# A label and the end of the turn.
_LEAST = 2


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """A canvas and where it is read.

    Attributes:
        ids: [L] token ids, `NOISE` where a draw's own noise stands.
        slots: of each question on it, in their order; none where the whole canvas is read.
    """

    ids: tuple[int, ...]
    slots: tuple[Slot, ...] = ()


def widest(known: Known, width: int | None) -> int:
    """Positions that a canvas may have at most, `width` where that was asked for.

    Raises:
        OptionError: more than this model's canvas.
    """
    if width is not None and width > known.canvas_length:
        raise OptionError(f"width must be at most this model's {known.canvas_length}, got {width}")
    if width is not None and width < _LEAST:
        raise OptionError(f"width must be at least {_LEAST}, a label and the end of the turn, got {width}")
    return width or known.canvas_length


def of_label(known: Known, tokens: Sequence[int], width: int | None) -> Canvas:
    """One question's canvas: its label, the end of the turn, padding.

    Args:
        known: the model.
        tokens: of the labels.
        width: positions; None: the first sixteen.

    Raises:
        OptionError: a width that has no room for it.
    """
    wide = _wide(known, _LEAST, 0, width)
    slot = Slot(position=0, token_ids=tuple(tokens))
    return Canvas(ids=_filled(known, (NOISE,), wide), slots=(slot,))


def of_text(known: Known, longest: int, width: int | None, *, part: str = "choices") -> Canvas:
    """A canvas of noise alone, for options by their own text.

    Args:
        known: the model.
        longest: tokens of the longest option, with what must stand behind it.
        width: positions; None: as few sixteens as hold it.
        part: of the question, what an error calls its options.

    Raises:
        QuestionError: no canvas of this model has room for it, or none of the width that is asked for.
    """
    if longest > known.canvas_length:
        reason = f"hold a text of {longest} tokens with its end, and a canvas of this model has {known.canvas_length}"
        raise QuestionError(part, f"{reason}: shorten it, or ask with reader 'causal'")
    wide = _wide(known, longest, 0, width)
    if wide < longest:
        raise QuestionError(part, f"hold a text of {longest} tokens with its end: width {wide} has no room for it")
    return Canvas(ids=(NOISE,) * wide)


def of_lines(known: Known, lines: Sequence[Line], width: int | None) -> Canvas:
    """Several questions' canvas: a line each, the end of the turn, and one padding at least where there is room."""
    ids = tuple(token for line in lines for token in line.ids)
    wide = _wide(known, len(ids) + 1, 1, width)
    slots, start = [], 0
    for line in lines:
        slots.append(Slot(position=start + line.place, token_ids=line.tokens))
        start += len(line.ids)
    return Canvas(ids=_filled(known, ids, wide), slots=tuple(slots))


def lines_of(labels: Labels, puts: Sequence[Put], most: int) -> list[Line] | None:
    """The lines of several questions, None where they do not fit a canvas of so many positions."""
    found: list[Line] = []
    length = 1
    for number, put in enumerate(puts, start=1):
        line = labels.line(put, number, last=number == len(puts))
        length += 0 if line is None else len(line.ids)
        if line is None or length > most:
            return None
        found.append(line)
    return found


def evenly(count: int, parts: int) -> list[range]:
    """So many things in so many runs, of which none is longer than another by more than one."""
    starts = [part * count // parts for part in range(parts + 1)]
    return [range(start, end) for start, end in pairwise(starts)]


def _wide(known: Known, least: int, spare: int, width: int | None) -> int:
    most = widest(known, width)
    return most if width is not None else min(-(-(least + spare) // SIXTEEN) * SIXTEEN, most)


def _filled(known: Known, ids: tuple[int, ...], wide: int) -> tuple[int, ...]:
    return (*ids, known.end_id, *[known.pad_id] * (wide - len(ids) - 1))
