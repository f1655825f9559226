"""Texts: how close a reply comes to the one that is expected.

Both are folded first: case, white space and compatibility forms of characters (NFKC). Their tokens are what white space
parts when punctuation is taken out; Chinese and Japanese characters are a token each, since nothing parts their words.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from redraft.core.engine import Engine
from redraft.core.results import Generation
from redraft.eval.answers import answer, share
from redraft.eval.data import Row

# Han with its repetition marks and zero, Hiragana, Katakana.
_UNSPACED = re.compile(
    "[\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


def evaluate(engine: Engine, rows: Sequence[Row], **how: Any) -> dict[str, Any]:
    """Answers the rows, how `redraft.eval.answers.answer` is told, and measures the replies.

    Returns:
        `exact_match, contains, token_f1`: means over all rows, None where there are none, and the costs of
        `redraft.eval.answers.Answers`. A reply that failed scores 0; one is wrong where it is no exact match.
    """
    answers = answer(engine, rows, is_wrong=lambda row, reply: not is_right(row, reply), **how)
    measures = {
        measure.__name__: share([_score(measure, row, reply) for row, reply in answers.pairs])
        for measure in (exact_match, contains, token_f1)
    }
    return measures | answers.costs()


def is_right(row: Row, reply: Generation) -> bool:
    """Whether a reply is the row's text, folded."""
    return bool(_score(exact_match, row, reply))


def exact_match(expected: str, got: str) -> float:
    """1 where the folded texts are equal, else 0."""
    return float(fold(expected) == fold(got))


def contains(expected: str, got: str) -> float:
    """1 where the expected tokens stand in the reply in one piece, else 0; without tokens, the exact match."""
    wanted, found = tokens(expected), tokens(got)
    if not wanted:
        return exact_match(expected, got)
    places = range(len(found) - len(wanted) + 1)
    return float(any(found[start : start + len(wanted)] == wanted for start in places))


def token_f1(expected: str, got: str) -> float:
    """The harmonic mean of precision and recall over bags of tokens; between two texts without any 1, else 0 with one.

    Source: Rajpurkar et al. 2016, arXiv 1606.05250, section 6.1. Articles count here: they are English alone.
    """
    wanted, found = Counter(tokens(expected)), Counter(tokens(got))
    total = wanted.total() + found.total()
    return 2 * (wanted & found).total() / total if total else 1.0


def tokens(text: str) -> list[str]:
    """The tokens of a folded text, in order."""
    words = "".join(character for character in fold(text) if not _is_punctuation(character))
    return _UNSPACED.sub(r" \g<0> ", words).split()


def fold(text: str) -> str:
    """A text in the form in which it is compared.

    Source: the Unicode Standard, section 3.13, D146 (compatibility caseless matching), composed at its end.
    """
    once = unicodedata.normalize("NFD", text).casefold()
    twice = unicodedata.normalize("NFKD", once).casefold()
    return " ".join(unicodedata.normalize("NFKC", twice).split())


def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")


def _score(measure: Callable[[str, str], float], row: Row, reply: Generation) -> float:
    return 0.0 if reply.finish_reason == "error" else measure(row.text, reply.text)
