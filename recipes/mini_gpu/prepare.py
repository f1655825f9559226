"""Makes what mini_gpu.yaml trains on beside the tool calls of `redraft data get mini`: puzzles and damaged prose.

python recipes/mini_gpu/prepare.py --books books --out data/mini_gpu
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from redraft.train import repair, sudoku

# From nearly solved to hard; few are below 24.
CLUES = (24, 56)
# In characters: 96 tokens of mini's vocabulary, its canvas, hold about 300.
LONGEST = 220
HELD_OUT = 10

Messages = list[dict[str, Any]]


def puzzle(seed: int) -> Messages:
    """The puzzle of this number."""
    rng = np.random.default_rng([7, seed])
    return sudoku.conversation(*sudoku.puzzle(rng, int(rng.integers(CLUES[0], CLUES[1] + 1))))


def passages(books: Path, count: int) -> list[Messages]:
    """Passages of all books, as many of each as its length asks for; none stands there twice."""
    rng = np.random.default_rng(8)
    found = sorted({p for b in books.glob("*.txt") for p in repair.passages(b.read_text(encoding="utf-8"), LONGEST)})
    if not found:
        raise SystemExit(f"{books} holds no .txt file with a passage in it")
    return [repair.conversation(found[i], rng) for i in rng.permutation(len(found))[:count]]


def write(out: Path, name: str, rows: Sequence[Messages]) -> None:
    """Every tenth row is held out."""
    for split, wanted in (("train", False), ("test", True)):
        chosen = [row for i, row in enumerate(rows) if (i % HELD_OUT == 0) is wanted]
        text = "".join(json.dumps({"messages": row}, ensure_ascii=False) + "\n" for row in chosen)
        (out / f"{name}.{split}.jsonl").write_text(text, encoding="utf-8")
        print(f"{name}.{split}.jsonl: {len(chosen)} conversations, {len(text.encode()) / 1e6:.1f} MB")


def main() -> None:
    """Writes sudoku.train, sudoku.test, repair.train and repair.test as JSONL."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--books", type=Path, required=True, help="a folder of .txt files, a paragraph a line")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--puzzles", type=int, default=4000, help="training sees each in ever new forms")
    parser.add_argument("--passages", type=int, default=60_000)
    parser.add_argument("--processes", type=int, default=None, help="default: one for each core")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    write(arguments.out, "repair", passages(arguments.books, arguments.passages))
    with ProcessPoolExecutor(arguments.processes) as pool:
        write(arguments.out, "sudoku", list(pool.map(puzzle, range(arguments.puzzles), chunksize=20)))


if __name__ == "__main__":
    main()
