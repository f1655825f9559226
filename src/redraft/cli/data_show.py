"""How `redraft data check` shows what it has found."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from redraft.cli import show

if TYPE_CHECKING:
    from redraft.train.checking import Checked, Piece

# Of a sample, from its beginning and from its end.
_SHOWN = 1200
_LEARNED = "\x1b[32m{}\x1b[39m"
# As in a diff of words: what the model learns to write.
_MARKED = "{{+{}+}}"


def print_checked(found: Checked) -> None:
    """The counts as a table, then samples; what is learned in green, or between {+ and +} where there is no colour."""
    turns = ", ".join(f"{count} {role}" for role, count in sorted(found.turns.items()))
    rows = {
        "rows": f"{found.rows:,}",
        "turns": turns or "-",
        "tokens": f"{found.tokens:,}, of which {found.learned_tokens:,} are learned; the longest row {found.longest:,}",
        "replies": f"{found.replies:,}",
        "canvases": f"{found.canvases:,} of {found.canvas_length} tokens, {_share(found)} of them fill",
        "cut": f"{found.cut:,} replies, at {found.max_length:,} tokens",
        "left out": f"{found.beyond:,} replies and {len(found.left_out):,} rows{_lines(found.left_out)}",
        "several rows": f"{len(found.several):,}{_lines(found.several)}",
        "duplicates": f"{len(found.duplicates):,}{_lines(list(found.duplicates))}",
        "bad": f"{len(found.bad):,}{_lines([error.line for error in found.bad])}",
    }
    show.print_table(rows)
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for line, pieces in found.samples.items():
        print(f"\nline {line}:")
        print("".join(_shown(piece, _LEARNED if coloured else _MARKED) for piece in pieces).rstrip("\n"))


def _share(found: Checked) -> str:
    room = found.canvases * found.canvas_length
    return f"{1 - found.learned_tokens / room:.0%}" if room else "none"


def _lines(lines: list[int]) -> str:
    if not lines:
        return ""
    some = ", ".join(str(line) for line in lines[:5])
    return f" (line{'s' * (len(lines) > 1)} {some}{', ...' * (len(lines) > 5)})"


def _shown(piece: Piece, learned: str) -> str:
    text = show.printable(piece.text)
    if len(text) > 2 * _SHOWN:
        text = f"{text[:_SHOWN]} ... {text[-_SHOWN:]}"
    return learned.format(text) if piece.learned else text
