"""The bytes that each token adds to a text, which is what an automaton over bytes reads.

A decoder may strip the space at which a segment or a line begins, so a token can have two readings: at such a start
and inside a text. Both are asked of the decoder itself instead of guessed from its configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from redraft.core.errors import OptionError
from redraft.text.grammar.nodes import FIRST_MARK
from redraft.text.tokenizer import Tokenizer

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_UNREADABLE = "\ufffd"
# Characters of a token that is written; published vocabularies have up to 48.
LONGEST = 120
# Tokens that are asked for in a second place although no space begins them.
SAMPLE = 2000


@dataclass(frozen=True, eq=False)
class TokenBytes:
    """Readings of a vocabulary.

    Attributes:
        inside: bytes of each token inside a text; None for tokens that no text may hold.
        at_start: the same at the start of a segment or a line, where a space may be read as nothing.
        opens: [V] whether a start follows the token.
        marked: the private-use character that stands for a special token in patterns, by token id.
    """

    inside: list[bytes | None]
    at_start: list[bytes | None]
    opens: NDArray[np.bool_]
    marked: Mapping[int, str]


def marks_of(tokenizer: Tokenizer, tokens: tuple[str, ...]) -> dict[str, str]:
    """A private-use character for each of the special tokens that the vocabulary has."""
    known = [token for token in tokens if tokenizer.id_of(token) is not None]
    return {token: chr(FIRST_MARK + number) for number, token in enumerate(known)}


def token_bytes(tokenizer: Tokenizer, marks: Mapping[str, str], vocab_size: int | None = None) -> TokenBytes:
    """Reads every token of a vocabulary.

    Args:
        tokenizer: of the model.
        marks: see `marks_of`.
        vocab_size: the model's, which has embeddings that are no token where it is padded; None takes the tokenizer's.

    Raises:
        OptionError: the tokenizer has no token for a letter, so that nothing can be asked of its decoder.
    """
    anchor = tokenizer.encode("a")[-1:]
    if not anchor:
        raise OptionError("this model's tokenizer cannot write text, so a reply cannot be constrained")
    V = tokenizer.num_ids if vocab_size is None else vocab_size
    inside = _readings(tokenizer, anchor, range(V))
    at_start = _read_elsewhere(tokenizer, [], inside)
    lines = tokenizer.encode("a\na")
    newline = next((token for token in lines if tokenizer.decode([*anchor, token]).endswith("\n")), None)
    # Where a line's start is read like a segment's, both are one context.
    after_line = inside if newline is None else _read_elsewhere(tokenizer, [*anchor, newline], inside)
    opens = np.zeros(V, np.bool_)
    if after_line != inside:
        opens |= np.array([text.endswith("\n") for text in inside])
    marked = {token: mark for text, mark in marks.items() if (token := tokenizer.id_of(text)) is not None and token < V}
    opens[list(marked)] = True
    written = [_written(tokenizer, token, text) for token, text in enumerate(inside)]
    if at_start == inside:
        return TokenBytes(written, written, opens, marked)
    return TokenBytes(written, [_written(tokenizer, token, text) for token, text in enumerate(at_start)], opens, marked)


def _read_elsewhere(tokenizer: Tokenizer, before: list[int], inside: list[str]) -> list[str]:
    """Readings behind other tokens, of which only spaces are expected to differ; the others are asked now and then."""
    V = len(inside)
    spaced = [token for token, text in enumerate(inside) if text[:1].isspace()]
    sample = range(0, V, max(1, V // SAMPLE))
    if _readings(tokenizer, before, sample) != [inside[token] for token in sample]:
        return _readings(tokenizer, before, range(V))
    found = list(inside)
    for token, text in zip(spaced, _readings(tokenizer, before, spaced), strict=True):
        found[token] = text
    return found


def _written(tokenizer: Tokenizer, token: int, text: str) -> bytes | None:
    if tokenizer.is_special(token) or len(text) > LONGEST:
        return None
    if text and _UNREADABLE not in text:
        return text.encode("utf-8", "ignore")
    # Bytes below 0x80 are characters, and read like any other text.
    byte = _BYTE.fullmatch(tokenizer.text_of(token))
    if byte is not None and int(byte[1], 16) >= 0x80:
        return bytes([int(byte[1], 16)])
    return None if _UNREADABLE in text or not tokenizer.text_of(token) else b""


def _readings(tokenizer: Tokenizer, before: list[int], tokens: Iterable[int]) -> list[str]:
    skipped = len(tokenizer.decode(before))
    texts = tokenizer.decode_many([[*before, token] for token in tokens])
    return [text[skipped:] for text in texts]
