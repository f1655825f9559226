"""What stands beside the weights is read or refused by name: special tokens, generation defaults, the tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

import redraft
from redraft.checkpoint.locate import BUNDLED
from redraft.core.errors import CheckpointError
from redraft.engine.defaults import Defaults
from redraft.model.config import ModelConfig

MINI = BUNDLED / "mini"
CONFIG = ModelConfig.from_directory(MINI)
NUMBERS = (
    "max_new_tokens",
    "max_denoising_steps",
    "t_max",
    "t_min",
    "stability_threshold",
    "confidence_threshold",
)


def said(directory: Path, **fields: Any) -> Defaults:
    (directory / "generation_config.json").write_text(json.dumps(fields))
    return Defaults.of(directory, CONFIG, None)


@pytest.mark.parametrize("field", ["eos_token_id", "bos_token_id", "pad_token_id"])
@pytest.mark.parametrize("value", [[1, 999_999], CONFIG.vocab_size, -1, "1", ["1"], 1.0, True, {"a": 1}])
def test_special_tokens_that_are_none(tmp_path: Path, field: str, value: Any) -> None:
    with pytest.raises(CheckpointError, match=rf"generation_config\.json: {field} must be"):
        said(tmp_path, **{field: value})


@pytest.mark.parametrize("field", [*NUMBERS, "sampler_config"])
@pytest.mark.parametrize(
    "value", ["many", [1], {"a": 1}, True, -1, float("nan"), 10**400], ids=lambda value: f"{value!r:.12}"
)
def test_fields_of_another_type(tmp_path: Path, field: str, value: Any) -> None:
    if field == "sampler_config" and isinstance(value, dict):
        value = {"entropy_bound": "wide"}
    with pytest.raises(CheckpointError, match=r"generation_config\.json"):
        said(tmp_path, **{field: value} | ({"t_max": value} if field == "t_min" else {}))


def test_ends_are_those_of_the_file(tmp_path: Path) -> None:
    assert said(tmp_path, eos_token_id=[1, 7]).end_ids == {1, 7}
    assert said(tmp_path, eos_token_id=7).end_ids == {7}
    assert said(tmp_path, eos_token_id=None).end_ids == set(CONFIG.eos_token_ids)


def test_a_reply_never_ends_with_a_token_that_is_not_there(tmp_path: Path) -> None:
    directory = shutil.copytree(MINI, tmp_path / "model")
    path = directory / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": [1, 999_999]}))
    with pytest.raises(CheckpointError, match="below the vocabulary's 4096 tokens"):
        redraft.load(directory, threads=1)


def test_a_tokenizer_that_is_longer_than_the_embedding(tmp_path: Path) -> None:
    directory = shutil.copytree(MINI, tmp_path / "model")
    tokenizer = Tokenizer.from_file(str(MINI / "tokenizer.json"))
    tokenizer.add_special_tokens(["<|another|>"])
    tokenizer.save(str(directory / "tokenizer.json"))
    with pytest.raises(CheckpointError, match="has 4097 tokens, the model's embedding has 4096 rows"):
        redraft.load(directory, threads=1)


def test_what_only_redraft_knows_stands_in_a_file_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "redraft.json"
    path.write_text(json.dumps({"handover_steps": 6, "settled_nats": None}))
    found = said(tmp_path, max_denoising_steps=20).options
    assert (found.handover_steps, found.settled_nats, found.max_denoising_steps) == (6, 1.0, 20)
    for wrong, named in (({"handover": 6}, "'handover'"), ({"settled_nats": "x"}, "settled_nats must be")):
        path.write_text(json.dumps(wrong))
        with pytest.raises(CheckpointError, match=rf"redraft\.json: {named}"):
            said(tmp_path)
    path.write_text("[]")
    with pytest.raises(CheckpointError, match=r"redraft\.json"):
        said(tmp_path)
