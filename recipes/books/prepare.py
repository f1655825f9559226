"""Makes what books.yaml trains on: the beginning of a passage, and how it goes on.

python recipes/books/prepare.py --books books --out data/books
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path

from redraft.data.mini import held_out

# In characters: some 60 tokens are given, and 190 written, which is three canvases of 64.
GIVEN, WRITTEN = 240, 760
_SENTENCE_END = re.compile(r"(?<=[.!?][”’\"]) |(?<=[.!?]) (?=[“‘\"A-Z])")


def passages(text: str) -> Iterator[tuple[str, str]]:
    """(what is given, how it goes on), each of whole sentences that follow each other; what is left over is dropped."""
    given, written = "", ""
    for sentence in _SENTENCE_END.split(" ".join(text.split())):
        if len(given) < GIVEN:
            given = f"{given} {sentence}".lstrip()
        elif not written or len(written) + len(sentence) < WRITTEN:
            written = f"{written} {sentence}".lstrip()
        else:
            yield given, written
            given, written = sentence, ""


def main() -> None:
    """Writes books.train.jsonl and books.test.jsonl; a tenth, chosen by a hash of what is given, is held out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--books", type=Path, required=True, help="a folder of .txt files")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    books = sorted(arguments.books.glob("*.txt"))
    found = [pair for book in books for pair in passages(book.read_text(encoding="utf-8"))]
    found = [(given, written) for given, written in found if len(given) + len(written) < 2 * (GIVEN + WRITTEN)]
    if not found:
        raise SystemExit(f"{arguments.books} holds no .txt file with a passage in it")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, wanted in (("train", False), ("test", True)):
        lines = [
            json.dumps({"messages": [{"role": "user", "content": a}, {"role": "assistant", "content": b}]},
                       ensure_ascii=False)
            for a, b in found
            if held_out(a) is wanted
        ]  # fmt: skip
        (arguments.out / f"books.{name}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        print(f"books.{name}.jsonl: {len(lines)} passages")


if __name__ == "__main__":
    main()
