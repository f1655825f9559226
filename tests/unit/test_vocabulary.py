"""A vocabulary's spellings as a tree, and what is kept of it on disk."""

from __future__ import annotations

import numpy as np
import pytest
from test_spelling import MARKS, TOKENIZER, VOCABULARY

from redraft.text import vocabulary as module
from redraft.text.native import library
from redraft.text.vocabulary import vocabulary_of

pytestmark = pytest.mark.skipif(library("tree") is None, reason="no compiler")


def spellings(tree) -> dict[int, tuple[int, ...]]:
    """What the tree says that each token spells."""
    found, way = {}, []
    for node, (symbol, depth) in enumerate(zip(tree.symbol.tolist(), tree.depth.tolist(), strict=True)):
        way = [*way[: depth - 1], symbol]
        for rank in range(tree.rank[node], tree.rank[node + 1]):
            found[int(tree.order[rank])] = tuple(way)
    for rank in range(tree.rank[0]):
        found[int(tree.order[rank])] = ()
    return found


@pytest.mark.parametrize("place", [0, 1], ids=["inside", "at a start"])
def test_the_tree_holds_every_spelling(place):
    tree = VOCABULARY.trees[place]
    texts = (VOCABULARY.readings.inside, VOCABULARY.readings.at_start)[place]
    expected = {token: tuple(text) for token, text in enumerate(texts) if text is not None}
    expected |= {token: (int(symbol),) for token, symbol in enumerate(VOCABULARY.marked) if symbol >= 0}
    assert spellings(tree) == expected
    assert tree.fits(VOCABULARY.size)
    for node in range(0, len(tree.symbol), 50):
        below = {int(symbol) for symbol in tree.symbol[node + 1 : tree.end[node]]}
        if tree.mask[node] >= 0:
            bits = np.unpackbits(tree.masks[tree.mask[node]].view(np.uint8), bitorder="little")
            assert set(np.flatnonzero(bits).tolist()) == below


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """Where it is kept; small vocabularies are, too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(module, "LEAST_KEPT", 0)
    return lambda: sorted((tmp_path / "redraft" / "vocabularies").glob("*.npz"))


def test_what_was_read_once_is_kept(kept, monkeypatch):
    first = vocabulary_of(TOKENIZER, MARKS, TOKENIZER.num_ids)
    assert len(kept()) == 1
    monkeypatch.setattr(module, "token_bytes", None)
    again = vocabulary_of(TOKENIZER, MARKS, TOKENIZER.num_ids)
    assert again.readings.inside == first.readings.inside
    assert again.readings.at_start == first.readings.at_start
    assert dict(again.readings.marked) == dict(first.readings.marked)
    assert spellings(again.trees[1]) == spellings(first.trees[1])


def test_other_marks_and_sizes_are_kept_by_themselves(kept):
    vocabulary_of(TOKENIZER, MARKS, TOKENIZER.num_ids)
    vocabulary_of(TOKENIZER, {}, TOKENIZER.num_ids)
    padded = vocabulary_of(TOKENIZER, MARKS, TOKENIZER.num_ids + 64)
    assert len(kept()) == 3
    assert padded.size == TOKENIZER.num_ids + 64
    assert not padded.inside.written[-64:].any()


@pytest.mark.parametrize("damage", ["cut", "empty", "far"])
def test_what_was_damaged_is_made_anew(kept, damage):
    first = vocabulary_of(TOKENIZER, MARKS, TOKENIZER.num_ids)
    (path,) = kept()
    if damage == "far":
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        arrays["tree_end0"][5] = 2**30
        with path.open("wb") as file:
            np.savez(file, **arrays)
    else:
        path.write_bytes(path.read_bytes()[: 1000 if damage == "cut" else 0])
    again = vocabulary_of(TOKENIZER, MARKS, TOKENIZER.num_ids)
    assert spellings(again.trees[0]) == spellings(first.trees[0])


def test_a_cache_that_cannot_be_written_is_done_without(monkeypatch, tmp_path):
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "LEAST_KEPT", 0)
    assert vocabulary_of(TOKENIZER, MARKS, TOKENIZER.num_ids).size == TOKENIZER.num_ids
