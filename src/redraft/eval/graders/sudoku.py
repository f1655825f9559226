"""Sudoku: grids of 81 digits, row by row, 0 where a cell is blank."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence

SIDE, CELLS = 9, 81
_UNITS = [
    *([SIDE * row + column for column in range(SIDE)] for row in range(SIDE)),
    *([SIDE * row + column for row in range(SIDE)] for column in range(SIDE)),
    *([SIDE * (3 * (box // 3) + r) + 3 * (box % 3) + c for r in range(3) for c in range(3)] for box in range(SIDE)),
]
_PEERS = [sorted({peer for unit in _UNITS if cell in unit for peer in unit} - {cell}) for cell in range(CELLS)]


def solution_in(text: str) -> str | None:
    """The last 81 digits of a text; None where there are fewer."""
    digits = re.sub(r"[^0-9]", "", text)
    return digits[-CELLS:] if len(digits) >= CELLS else None


def is_valid(grid: Sequence[int] | str) -> bool:
    """Whether every row, column and box holds each of 1 to 9."""
    return all({int(grid[cell]) for cell in unit} == set(range(1, SIDE + 1)) for unit in _UNITS)


def puzzle(clues: int, seed: int) -> tuple[str, str]:
    """(a puzzle that has one solution, that solution), the same for the same seed.

    Cells are blanked in random order as long as the solution stays the only one: with less than about 24 clues there
    may be more than were asked for.
    """
    rng = random.Random(seed)
    whole = next(_solutions([0] * CELLS, rng))
    left = list(whole)
    for cell in rng.sample(range(CELLS), CELLS):
        if sum(map(bool, left)) <= clues:
            break
        kept, left[cell] = left[cell], 0
        found = _solutions(left)
        next(found)
        if next(found, None) is not None:
            left[cell] = kept
    return "".join(map(str, left)), "".join(map(str, whole))


def _solutions(grid: Sequence[int], rng: random.Random | None = None) -> Iterator[list[int]]:
    """All solutions; the cell with the fewest candidates first, its digits in order or at random."""
    filled = list(grid)
    candidates = [
        set() if filled[cell] else set(range(1, 10)) - {filled[peer] for peer in _PEERS[cell]} for cell in range(CELLS)
    ]

    def search() -> Iterator[list[int]]:
        blanks = [cell for cell in range(CELLS) if not filled[cell]]
        if not blanks:
            yield list(filled)
            return
        cell = min(blanks, key=lambda each: len(candidates[each]))
        digits = sorted(candidates[cell])
        if rng is not None:
            rng.shuffle(digits)
        for digit in digits:
            changed = [peer for peer in _PEERS[cell] if not filled[peer] and digit in candidates[peer]]
            filled[cell] = digit
            for peer in changed:
                candidates[peer].discard(digit)
            yield from search()
            filled[cell] = 0
            for peer in changed:
                candidates[peer].add(digit)

    return search()
