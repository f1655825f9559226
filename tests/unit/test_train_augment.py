"""Augmentation keeps replies right: values stay in their requests, words change around them, turns come before."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from checkpoints import write_checkpoint
from redraft.checkpoint.load import load_model
from redraft.text.conversations import Conversation
from redraft.train.augment import Augmentation
from redraft.train.dropout import BranchDropout


def request(text: str, **arguments: str) -> Conversation:
    call = {"type": "function", "function": {"name": "PlayMusic", "arguments": arguments}}
    return Conversation([{"role": "user", "content": text}, {"role": "assistant", "tool_calls": [call]}], 1)


ROWS = [
    request("please play the song Blue Train by John Coltrane", track="Blue Train", artist="John Coltrane"),
    request("could you put on Kind of Blue from Miles Davis now", album="Kind of Blue", artist="Miles Davis"),
    request("i want to hear something by Björk", artist="Björk"),
]


def arguments_of(conversation: Conversation) -> dict[str, str]:
    return conversation.messages[-1]["tool_calls"][0]["function"]["arguments"]


def test_values_are_swapped_in_text_and_call():
    augment = Augmentation(ROWS, swap=1.0)
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(50):
        changed = augment(ROWS[0], rng)
        assert all(value in changed.messages[0]["content"] for value in arguments_of(changed).values())
        seen.add(arguments_of(changed)["artist"])
    assert seen == {"John Coltrane", "Miles Davis", "Björk"}
    assert arguments_of(ROWS[0])["artist"] == "John Coltrane", "the original is left alone"


def test_words_change_but_not_those_of_values():
    augment = Augmentation(ROWS, word_noise=0.5)
    rng = np.random.default_rng(1)
    texts = {augment(ROWS[0], rng).messages[0]["content"] for _ in range(50)}
    assert len(texts) > 25
    assert all("Blue Train" in text and "John Coltrane" in text for text in texts)


def test_a_turn_comes_before():
    augment = Augmentation(ROWS, earlier_turn=1.0)
    messages = augment(ROWS[2], np.random.default_rng(2)).messages
    assert [message["role"] for message in messages] == ["user", "assistant", "user", "assistant"]
    assert messages[2:] == ROWS[2].messages


def test_nothing_is_changed_unasked():
    augment = Augmentation(ROWS)
    assert augment(ROWS[0], np.random.default_rng(3)).messages == ROWS[0].messages


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("dropout"))


def test_dropout_acts_on_training_passes_alone(directory):
    model = load_model(directory)
    ids = torch.arange(5, 25)[None]
    plain = model.encode(ids, model.new_cache())
    dropout = BranchDropout(model, 0.5)
    torch.testing.assert_close(model.encode(ids, model.new_cache()), plain, rtol=0, atol=0)
    norm = model.backbone.layers[0].post_attention_layernorm
    x = torch.randn(3, 7, model.config.hidden_size)
    dropout.generator.manual_seed(0)
    dropped = norm(x)
    zeros = dropped == 0
    assert 0.3 < zeros.float().mean() < 0.7
    assert torch.equal(zeros, zeros[:, :1].expand_as(zeros)), "one mask a row"
    with torch.no_grad():
        torch.testing.assert_close(dropped[~zeros], 2 * norm(x)[~zeros])


def test_a_request_never_becomes_blank():
    rows = [request("Oslo", city="Oslo"), request("a b", city=" "), request("x  ", artist="y")]
    augment, rng = Augmentation(rows, swap=1.0, word_noise=0.9), np.random.default_rng(4)
    assert all(augment(row, rng).messages[0]["content"].strip() for row in rows for _ in range(100))
