"""Prompts beyond any context are refused before all of their tokens are counted."""

from __future__ import annotations

import time

import pytest

import redraft
from redraft.core.errors import ContextLengthError
from redraft.text import prompt_text
from redraft.text.prompt_text import PromptText, Shield

TEXTS = ["play some jazz by Nina Simone, and then ", "é中 ", "<x|", "<|turn>", "\n\n  x", "a"]


@pytest.fixture(scope="module")
def mini():
    return redraft.load("mini", dtype="float32", threads=1)


@pytest.mark.parametrize("text", TEXTS)
def test_megabytes_take_a_moment(mini, text):
    long = text * (3_900_000 // len(text))
    began = time.monotonic()
    with pytest.raises(ContextLengthError, match="at least"):
        mini.prepare([{"role": "user", "content": long}])
    with pytest.raises(ContextLengthError, match="at least"):
        mini.encode(long, most=2048)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("shielded", [False, True])
def test_what_fits_is_never_refused(mini, monkeypatch, text, shielded):
    monkeypatch.setattr(prompt_text, "_PIECE", 1000)
    tokenizer = mini.tokenizer
    for length in (1001, 5000, 30_011):
        typed = (text * length)[:length]
        shield = Shield.against(tokenizer.beginnings if shielded else (), typed)
        prompt = PromptText(shield.over(typed), shield)
        count = len(prompt.encode(tokenizer))
        assert prompt.more_than(count, tokenizer) is None
        found = prompt.more_than(count // 2, tokenizer)
        assert found is None or count // 2 < found <= count
        if count > 2 * length // 1000 * prompt_text._AT_A_CUT + 2000:
            assert found is not None


def test_a_short_one_is_counted_once(mini, monkeypatch):
    monkeypatch.setattr(PromptText, "encode", lambda *_: [1, 2, 3])
    assert mini.encode("play some jazz", most=2) == [1, 2, 3]
