"""mini's kind of tokenizer: text survives it, and a word's tokens do not depend on where it stands."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redraft.text.tokenizer import Tokenizer
from redraft.train.tokenizer import SPECIAL_TOKENS, train_tokenizer

WORDS = ["play", "Daft", "Punk", "Paris", "R&B", "don't", "1999", "caf\u00e9", "playlist", "tomorrow's"]
LINES = [f"{a} {b} the {c}" for a in WORDS for b in WORDS for c in WORDS[:3]]
TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\u2581"), max_size=60)
PARTS = st.lists(st.one_of(st.sampled_from(SPECIAL_TOKENS), st.sampled_from(WORDS), st.sampled_from(" \n,:{}'"), TEXT))


@pytest.fixture(scope="module")
def backend():
    return train_tokenizer(LINES, 600)


@pytest.fixture(scope="module")
def tokenizer(backend):
    return Tokenizer(backend)


@settings(max_examples=200, deadline=None)
@given(parts=PARTS)
def test_decoding_gives_the_text_back(tokenizer, parts):
    text = "".join(parts)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("word", WORDS)
def test_a_word_has_the_same_tokens_everywhere(tokenizer, word):
    alone = tokenizer.encode(word)
    for text in (f"play {word}", f"<|turn>user\n{word}<turn|>", f'who:<|"|>{word}<|"|>}}', f"play {word} now"):
        ids = tokenizer.encode(text)
        assert any(ids[i : i + len(alone)] == alone for i in range(len(ids)))


def test_the_library_itself_decodes_alike(backend, tokenizer):
    text = '<bos><|turn>user\nplay Daft Punk\nnow<turn|>\n<|turn>model\n<|tool_call>call:A{b:<|"|>c d<|"|>}<tool_call|>'
    ids = backend.encode(text, add_special_tokens=False).ids
    assert backend.decode(ids, skip_special_tokens=False) == text


def test_ids_fill_the_vocabulary_and_specials_come_first(tokenizer, backend):
    assert tokenizer.vocab_size <= 600
    assert [tokenizer.id_of(token) for token in SPECIAL_TOKENS] == list(range(len(SPECIAL_TOKENS)))
    assert len(tokenizer.end_of_turn_ids()) == 3
    assert tokenizer.pieces(tokenizer.encode("\u4e16"))[-3:] == ["<0xE4>", "<0xB8>", "<0x96>"]
