"""Checkpoints are written and loaded once a session; the tests only read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from reference import Reference

import redraft
from checkpoints import flatten_config, write_checkpoint


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint as transformers writes it (`per_layer_config`)."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def flat_checkpoint(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the flat keys of the released config."""
    return flatten_config(checkpoint, tmp_path_factory.mktemp("flat"))


@pytest.fixture(scope="session")
def reference(checkpoint: Path) -> Reference:
    return Reference(checkpoint)


@pytest.fixture(scope="session")
def model(checkpoint: Path) -> Any:
    return redraft.load_model(checkpoint)
