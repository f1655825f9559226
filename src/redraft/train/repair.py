"""Damaged passages of prose as conversations whose reply is the passage as it was."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

REQUEST = "Repair this text."

# Before a small letter, a sentence goes on: "Who is there?" asked Ann.
_SENTENCE_END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][”’]))\s+(?=[“‘A-Z])")
# Share of the words that is damaged, from the mildest passage to the worst.
_SHARES = (0.05, 0.35)
# Of those, the share that is left out whole. Few: what stood there can only be guessed.
_MISSING = 0.1


def passages(text: str, longest: int, shortest: int = 40) -> Iterator[str]:
    """Runs of whole sentences of one paragraph (a line), `shortest` to `longest` characters; what does not fit is
    left out."""
    for line in text.split("\n"):
        run = ""
        for sentence in _SENTENCE_END.split(" ".join(line.split())):
            longer = f"{run} {sentence}" if run else sentence
            if len(longer) > longest:
                if len(run) >= shortest:
                    yield run
                longer = sentence if len(sentence) <= longest else ""
            run = longer
        if len(run) >= shortest:
            yield run


def damaged(text: str, rng: np.random.Generator) -> str:
    """The text with letters swapped, missing, doubled or replaced in some words, and a few words missing.

    How many is drawn for each text; at least one word is hit.
    """
    words = text.split(" ")
    share = rng.uniform(*_SHARES)
    hit = rng.random(len(words)) < share
    hit[rng.integers(len(words))] = True
    kept = []
    for word, is_hit in zip(words, hit, strict=True):
        if not is_hit:
            kept.append(word)
        elif len(words) < 4 or rng.random() >= _MISSING:
            kept.append(_misspelt(word, rng))
    return " ".join(kept)


def _misspelt(word: str, rng: np.random.Generator) -> str:
    letters = [i for i, sign in enumerate(word) if sign.isalpha()]
    if not letters:
        return word
    at = letters[int(rng.integers(len(letters)))]
    kind = int(rng.integers(4))
    if kind == 0 and at + 1 < len(word) and word[at + 1].isalpha():
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind == 1 and len(letters) > 1:
        return word[:at] + word[at + 1 :]
    if kind == 2:
        return word[: at + 1] + word[at].lower() + word[at + 1 :]
    return word[:at] + chr(ord("a") + int(rng.integers(26))) + word[at + 1 :]


def conversation(text: str, rng: np.random.Generator) -> list[dict[str, Any]]:
    """The messages that ask for a passage and give it."""
    return [
        {"role": "user", "content": f"{REQUEST}\n{damaged(text, rng)}"},
        {"role": "assistant", "content": text},
    ]


def varied(messages: list[dict[str, Any]], rng: np.random.Generator) -> list[dict[str, Any]]:
    """The same passage, damaged anew."""
    return conversation(messages[1]["content"], rng)
