"""Draws the data of icons.yaml: pictures of icons, each with the call that says what it is.

    python recipes/icons/prepare.py
    redraft train recipes/icons/icons.yaml

Writes data/icons: pictures, train.jsonl, and test.jsonl of pictures that train.jsonl has not.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

from drawn import COLOURS, KINDS, icon
from PIL import Image

QUESTION = "what is this?"


def row(path: str, colour: str, kind: str) -> dict[str, Any]:
    """A conversation: the picture and the question, then the call."""
    call = {"name": "Seen", "arguments": {"colour": colour, "kind": kind}}
    asked = [{"type": "image", "image": path}, {"type": "text", "text": QUESTION}]
    return {
        "messages": [
            {"role": "user", "content": asked},
            {"role": "assistant", "tool_calls": [{"type": "function", "function": call}]},
        ]
    }


def draw(out: Path, name: str, count: int, seed: int) -> None:
    """`count` pictures and the file that names them, the same for the same seed."""
    (out / name).mkdir(parents=True, exist_ok=True)
    generator = random.Random(seed)
    lines = []
    for number in range(count):
        colour, kind = generator.choice(list(COLOURS)), generator.choice(KINDS)
        path = f"{name}/{number:05d}.png"
        Image.fromarray(icon(kind, colour, generator)).save(out / path)
        lines.append(json.dumps(row(path, colour, kind)) + "\n")
    (out / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    print(f"{out / name}.jsonl: {count} rows")


def main() -> None:
    """Draws both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("data/icons"))
    parser.add_argument("--train", type=int, default=8000)
    parser.add_argument("--test", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    draw(given.out, "train", given.train, 2 * given.seed)
    draw(given.out, "test", given.test, 2 * given.seed + 1)


if __name__ == "__main__":
    main()
