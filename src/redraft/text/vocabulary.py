"""A vocabulary as automata walk it: what each token spells, and all spellings as a tree.

Reading a large vocabulary takes its tokenizer a second or two, so what was found is kept on disk.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import tempfile
import zipfile
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from redraft.core.errors import OptionError
from redraft.core.files import cache_directory
from redraft.text.bytes_of_tokens import TokenBytes, token_bytes
from redraft.text.grammar.nfa import BYTES
from redraft.text.grammar.nodes import FIRST_MARK
from redraft.text.native import converted, library, pointer
from redraft.text.tokenizer import Tokenizer

# Kept with what is on disk: another number, and it is made anew.
_VERSION = 1
# Smaller vocabularies are read in a tenth of a second.
LEAST_KEPT = 10_000

# V vocabulary, R tokens that may be written, N nodes


@dataclass(frozen=True, eq=False)
class Spellings:
    """What each token spells in one place of a text.

    Attributes:
        data: [.] bytes of all tokens, one behind the other.
        begin: [V + 1] where each token's begin.
        written: [V] whether it may be written at all.
    """

    data: NDArray[np.uint8]
    begin: NDArray[np.int64]
    written: NDArray[np.uint8]

    @classmethod
    def of(cls, texts: Sequence[bytes | None]) -> Spellings:
        """From the bytes of each token, None for those that may not be written."""
        lengths = np.array([0 if text is None else len(text) for text in texts], np.int64)
        data = np.frombuffer(b"".join(text or b"" for text in texts), np.uint8)
        written = np.array([text is not None for text in texts], np.uint8)
        return cls(data, np.r_[np.int64(0), np.cumsum(lengths)], written)

    def texts(self) -> list[bytes | None]:
        """The bytes of each token."""
        data = self.data.tobytes()
        ends = self.begin.tolist()
        return [data[ends[v] : ends[v + 1]] if written else None for v, written in enumerate(self.written.tolist())]


@dataclass(frozen=True, eq=False)
class Tree:
    """Spellings in depth-first order; tokens have ranks in the order of their spellings.

    Attributes:
        symbol, depth: [N] of each node; the root is none.
        end: [N] the first node behind each subtree.
        rank: [N + 1] tokens whose spelling ends before each node.
        mask: [N] the place in `masks`, -1 for small subtrees.
        masks: [., 8] the symbols below a node, as 512 bits.
        order: [R] the token of each rank.
    """

    symbol: NDArray[np.int16]
    depth: NDArray[np.int16]
    end: NDArray[np.int32]
    rank: NDArray[np.int32]
    mask: NDArray[np.int32]
    masks: NDArray[np.uint64]
    order: NDArray[np.int32]

    def fits(self, V: int) -> bool:
        """Whether every number in it stays within it: C++ goes where they lead."""
        N, R = len(self.symbol), len(self.order)
        if len(self.depth) != N or len(self.end) != N or len(self.rank) != N + 1 or len(self.mask) != N:
            return False
        inside = (
            (self.symbol, 0, 2 * BYTES), (self.depth, 1, 2 * BYTES), (self.rank, 0, R + 1), (self.order, 0, V),
            (self.mask, -1, len(self.masks)),
        )  # fmt: skip
        if any(len(x) and (int(x.min()) < least or int(x.max()) >= most) for x, least, most in inside):
            return False
        # A node's parent stands one level higher, before it.
        steps = np.diff(np.r_[np.int16(0), self.depth])
        forward = bool((self.end > np.arange(N)).all()) and bool((self.end <= N).all())
        return forward and bool((steps <= 1).all()) and bool((np.diff(self.rank) >= 0).all())


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """What automata need to know of a model's tokens.

    Attributes:
        inside: spellings inside a text.
        at_start: at the start of a segment or a line, where a space may be read as nothing; None where that is alike.
        opens: [V] whether a start follows the token.
        marked: [V] the symbol of each special token that patterns name, -1 for others.
    """

    inside: Spellings
    at_start: Spellings | None
    opens: NDArray[np.uint8]
    marked: NDArray[np.int16]

    @property
    def size(self) -> int:
        """V."""
        return len(self.marked)

    @classmethod
    def of(cls, readings: TokenBytes) -> Vocabulary:
        """From what a tokenizer has told of its tokens."""
        marked = np.full(len(readings.opens), -1, np.int16)
        for token, mark in readings.marked.items():
            marked[token] = BYTES + ord(mark) - FIRST_MARK
        alike = readings.at_start == readings.inside
        at_start = None if alike else Spellings.of(readings.at_start)
        return cls(Spellings.of(readings.inside), at_start, readings.opens.astype(np.uint8), marked)

    @cached_property
    def readings(self) -> TokenBytes:
        """The same, token by token."""
        inside = self.inside.texts()
        marks = {
            int(token): chr(FIRST_MARK + int(self.marked[token]) - BYTES) for token in np.flatnonzero(self.marked >= 0)
        }
        at_start = inside if self.at_start is None else self.at_start.texts()
        return TokenBytes(inside, at_start, self.opens.astype(np.bool_), marks)

    def text_of(self, token_ids: Iterable[int], end_ids: Container[int]) -> bytes:
        """What ordinary tokens spell before the end, a byte that no text holds in place of every other."""
        data, begin = self._data, self.inside.begin
        parts: list[bytes] = []
        for token in token_ids:
            if token in end_ids:
                break
            ordinary = self.inside.written[token] and self.marked[token] < 0
            parts.append(data[begin[token] : begin[token + 1]] if ordinary else b"\xff")
        return b"".join(parts)

    @cached_property
    def _data(self) -> bytes:
        return self.inside.data.tobytes()

    @cached_property
    def trees(self) -> tuple[Tree, ...]:
        """Of the spellings inside a text, and of those at a start where they differ.

        Raises:
            OptionError: there is no compiler for them.
        """
        return tuple(self._tree(spellings) for spellings in (self.inside, self.at_start) if spellings is not None)

    def _tree(self, spellings: Spellings) -> Tree:
        native = library("tree")
        if native is None:
            raise OptionError("the vocabulary's tree needs a C++ compiler")
        sizes = np.zeros(3, np.int64)
        handle = ctypes.c_void_p(
            native.tree_new(
                *map(converted, (spellings.data, spellings.begin, spellings.written, self.marked, self.size, sizes))
            )
        )
        N, R, masks = sizes.tolist()
        symbol, depth = np.empty((2, N), np.int16)
        end, mask = np.empty((2, N), np.int32)
        tree = Tree(
            symbol, depth, end, np.empty(N + 1, np.int32), mask, np.empty((masks, 8), np.uint64), np.empty(R, np.int32)
        )
        parts = (tree.symbol, tree.depth, tree.end, tree.rank, tree.mask, tree.masks, tree.order)
        native.tree_take(handle, *map(pointer, parts))
        native.tree_free(handle)
        return tree


def vocabulary_of(tokenizer: Tokenizer, marks: Mapping[str, str], vocab_size: int) -> Vocabulary:
    """The vocabulary of a model, from disk where it was read before.

    Args:
        tokenizer: of the model.
        marks: see `marks_of`.
        vocab_size: the model's, which may have rows that are no token.
    """
    path = _path(tokenizer, marks, vocab_size)
    found = None if path is None else _kept(path, vocab_size)
    if found is None:
        found = Vocabulary.of(token_bytes(tokenizer, marks, vocab_size))
        if path is not None and library("tree") is not None:
            _keep(path, found)
    return found


def _path(tokenizer: Tokenizer, marks: Mapping[str, str], vocab_size: int) -> Path | None:
    """Where it is kept; None where that cannot be, or is not worth it."""
    if tokenizer.source is None or vocab_size < LEAST_KEPT:
        return None
    digest = hashlib.blake2b(tokenizer.source.read_bytes(), digest_size=16)
    digest.update(repr((_VERSION, vocab_size, sorted(marks.items()))).encode())
    try:
        return cache_directory("vocabularies") / f"{digest.hexdigest()}.npz"
    except OptionError:
        return None


def _keep(path: Path, found: Vocabulary) -> None:
    arrays = {"opens": found.opens, "marked": found.marked}
    for place, spellings in enumerate(s for s in (found.inside, found.at_start) if s is not None):
        arrays |= {f"{field.name}{place}": getattr(spellings, field.name) for field in fields(Spellings)}
        arrays |= {f"tree_{field.name}{place}": getattr(found.trees[place], field.name) for field in fields(Tree)}
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".npz", delete=False) as file:
            np.savez(file, **arrays)
        os.replace(file.name, path)
    except OSError:
        # It is read anew next time.
        return


def _kept(path: Path, vocab_size: int) -> Vocabulary | None:
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        parts = [
            (
                Spellings(*(arrays[f"{field.name}{place}"] for field in fields(Spellings))),
                Tree(*(arrays[f"tree_{field.name}{place}"] for field in fields(Tree))),
            )
            for place in range(2 if "data1" in arrays else 1)
        ]
        found = Vocabulary(parts[0][0], parts[1][0] if len(parts) > 1 else None, arrays["opens"], arrays["marked"])
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    if found.size != vocab_size or not all(tree.fits(vocab_size) for _, tree in parts):
        return None
    found.__dict__["trees"] = tuple(tree for _, tree in parts)
    return found
