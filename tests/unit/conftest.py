"""Models that several files of tests ask for; each file has its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from decide_commands import QUESTIONS, use
from decide_fakes import FakeDecider

import redraft
from checkpoints import write_checkpoint


@pytest.fixture(scope="module")
def mini():
    """The bundled model, in float32 on one thread."""
    return redraft.load("mini", dtype="float32", threads=1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A random model whose replies have no end."""
    return redraft.load(
        write_checkpoint(tmp_path_factory.mktemp("tiny"), eos_token_id=None), dtype="float32", threads=1
    )


@pytest.fixture
def decider(monkeypatch, tmp_path):
    """What `redraft decide` asks, in a directory of its own with questions.json."""
    monkeypatch.chdir(tmp_path)
    Path("questions.json").write_text(json.dumps(QUESTIONS))
    return use(monkeypatch, FakeDecider())
