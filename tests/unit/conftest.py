"""Models that several files of tests ask for; each file has its own."""

from __future__ import annotations

import pytest

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
