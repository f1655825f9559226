"""Sudoku puzzles with exactly one solution, made here, as conversations whose reply is the solved grid.

A grid is written as nine lines of nine cells, "." for an empty one. Every cell is one token, and the same one wherever
it stands, so that a cell has one place in the request and one in the canvas.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

REQUEST = "Solve this sudoku."

# Grids are 81 numbers by rows, 0 for an empty cell.
Grid = list[int]
# For each cell, the row, the column and the box that it is in, numbered through.
_UNITS = [(c // 9, 9 + c % 9, 18 + c // 27 * 3 + c % 9 // 3) for c in range(81)]
_EVERY = (1 << 9) - 1


def puzzle(rng: np.random.Generator, clues: int) -> tuple[Grid, Grid]:
    """(puzzle, solution): cells of a random solution are emptied in random order as long as it stays the only one.

    Args:
        rng: makes the puzzle.
        clues: given cells to stop at, the measure of difficulty; below about 24, a grid may end with a few more.
    """
    solution = next(_solutions([0] * 81, rng))
    grid, left = list(solution), 81
    for cell in rng.permutation(81).tolist():
        if left == clues:
            break
        value, grid[cell] = grid[cell], 0
        if next(_solutions(grid, barred=(cell, value)), None) is None:
            left -= 1
        else:
            grid[cell] = value
    return grid, solution


def solutions(grid: Grid) -> Iterator[Grid]:
    """Every solution of a grid, one at a time."""
    return _solutions(grid)


def _solutions(
    grid: Grid, rng: np.random.Generator | None = None, barred: tuple[int, int] | None = None
) -> Iterator[Grid]:
    """Solutions in random order if there is an `rng`; without `barred`'s value in its cell."""
    grid, used = list(grid), [0] * 27
    for cell, value in enumerate(grid):
        if value:
            if any(used[unit] >> value - 1 & 1 for unit in _UNITS[cell]):
                return
            _toggle(used, cell, value)
    yield from _search(grid, used, [cell for cell in range(81) if not grid[cell]], rng, barred)


def _search(
    grid: Grid, used: list[int], empty: list[int], rng: np.random.Generator | None, barred: tuple[int, int] | None
) -> Iterator[Grid]:
    if not empty:
        yield list(grid)
        return
    # The cell with the fewest candidates.
    best, place, candidates = 10, 0, 0
    for i, cell in enumerate(empty):
        row, column, box = _UNITS[cell]
        free = _EVERY & ~(used[row] | used[column] | used[box])
        if barred is not None and cell == barred[0]:
            free &= ~(1 << barred[1] - 1)
        count = free.bit_count()
        if count < best:
            best, place, candidates = count, i, free
            if count < 2:
                break
    if best == 0:
        return
    cell, empty[place] = empty[place], empty[-1]
    empty.pop()
    values = [value for value in range(1, 10) if candidates >> value - 1 & 1]
    if rng is not None:
        rng.shuffle(values)
    for value in values:
        grid[cell] = value
        _toggle(used, cell, value)
        yield from _search(grid, used, empty, rng, barred)
        _toggle(used, cell, value)
    grid[cell] = 0
    empty.append(cell)
    empty[place], empty[-1] = empty[-1], empty[place]


def _toggle(used: list[int], cell: int, value: int) -> None:
    for unit in _UNITS[cell]:
        used[unit] ^= 1 << value - 1


def conversation(grid: Grid, solution: Grid) -> list[dict[str, Any]]:
    """The messages of a puzzle and its solution."""
    return [
        {"role": "user", "content": f"{REQUEST}\n{written(grid)}"},
        {"role": "assistant", "content": written(solution)},
    ]


def written(grid: Grid) -> str:
    """A grid as text."""
    cells = [str(value) if value else "." for value in grid]
    return "\n".join(" ".join(cells[row : row + 9]) for row in range(0, 81, 9))


def read(text: str) -> Grid:
    """The grid that a text ends with."""
    return [0 if cell == "." else int(cell) for cell in text.split()[-81:]]


def varied(messages: list[dict[str, Any]], rng: np.random.Generator) -> list[dict[str, Any]]:
    """The same puzzle in another of its 6^8 * 2 * 9! forms: digits renamed, lines moved within and with their bands,
    rows and columns exchanged. It keeps its number of clues and its one solution."""
    names = np.concatenate([[0], 1 + rng.permutation(9)])
    rows, columns = _lines(rng), _lines(rng)
    turned = rng.random() < 0.5
    grids = []
    for message in messages:
        grid = names[np.array(read(message["content"])).reshape(9, 9)][rows][:, columns]
        grids.append((grid.T if turned else grid).flatten().tolist())
    return conversation(*grids)


def _lines(rng: np.random.Generator) -> np.ndarray:
    return np.concatenate([3 * band + rng.permutation(3) for band in rng.permutation(3)])
