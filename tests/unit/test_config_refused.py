"""What a config says of positions, sizes and special tokens is read or refused, and never passed over."""

from __future__ import annotations

import copy
import json
import time
from typing import Any

import pytest

from redraft.checkpoint.locate import BUNDLED
from redraft.core.errors import CheckpointError
from redraft.model.config import ModelConfig

RAW = json.loads((BUNDLED / "mini" / "config.json").read_text())
FULL, SLIDING = "full_attention", "sliding_attention"
TURNS = {
    SLIDING: {"rope_type": "default", "rope_theta": 10_000.0},
    FULL: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0},
}


def read(**changes: Any) -> ModelConfig:
    raw = copy.deepcopy(RAW)
    raw["text_config"].update(changes)
    return ModelConfig.from_dict(raw)


def turning(kind: str = FULL, **changes: Any) -> dict[str, Any]:
    return TURNS | {kind: TURNS[kind] | changes}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rope_scaling": {"rope_type": "linear", "factor": 8.0}}, "rope_scaling"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_scaling"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}, "rope_parameters.rope_type"),
        ({"rope_parameters": TURNS | {FULL: None}}, "rope_parameters.full_attention"),
        ({"rope_parameters": turning(rope_type="yarn", factor=4.0)}, "rope_type 'yarn'"),
        ({"rope_parameters": turning(SLIDING, rope_type="linear", factor=8.0)}, "rope_type 'linear'"),
        ({"rope_parameters": turning(SLIDING, factor=8.0)}, "sliding_attention.factor=8.0"),
        ({"rope_parameters": turning(factor=8.0)}, "full_attention.factor=8.0"),
        ({"rope_parameters": turning(attention_factor=1.2)}, "attention_factor=1.2"),
        ({"rope_parameters": turning(short_factor=[1.0])}, "short_factor"),
        ({"rope_parameters": turning(partial_rotary_factor=1.5)}, "partial_rotary_factor"),
        ({"rope_parameters": TURNS | {FULL: {"rope_theta": 1e6, "partial_rotary_factor": 0.25}}}, "'proportional'"),
        ({"rope_theta": 5e5}, "rope_theta"),
        ({"rope_local_base_freq": 5e5}, "rope_local_base_freq"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ],
)
def test_positions_that_would_turn_otherwise_are_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(CheckpointError, match="config.json") as raised:
        read(**changes)
    assert named in str(raised.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_scaling": None},
        {"rope_theta": 1_000_000.0, "rope_local_base_freq": 10_000, "partial_rotary_factor": 0.25},
        {"rope_parameters": turning(factor=1.0, attention_factor=1.0, beta_fast=None)},
        {"rope_parameters": TURNS | {SLIDING: {"type": "default", "rope_theta": 10_000}}},
    ],
)
def test_what_changes_nothing_is_no_fault(changes: dict[str, Any]) -> None:
    assert read(**changes) == read()


def test_an_older_key_names_the_kind() -> None:
    config = read(rope_parameters=TURNS | {FULL: {"type": "default", "rope_theta": 5e5}})
    assert (config.layers[-1].rope_theta, config.layers[-1].partial_rotary_factor) == (5e5, 1.0)


def test_scaling_at_the_top_is_refused_too() -> None:
    with pytest.raises(CheckpointError, match="rope_scaling"):
        ModelConfig.from_dict(RAW | {"rope_scaling": {"rope_type": "linear", "factor": 8}})


@pytest.mark.parametrize(
    "field",
    ["num_hidden_layers", "vocab_size", "hidden_size", "head_dim", "num_experts", "num_attention_heads",
     "max_position_embeddings", "sliding_window", "intermediate_size", "moe_intermediate_size"],
)  # fmt: skip
@pytest.mark.parametrize("value", [10**9 * 4, 10**400])
def test_sizes_beyond_any_model_are_refused_at_once(field: str, value: int) -> None:
    started = time.perf_counter()
    with pytest.raises(CheckpointError, match=f"{field} must be at most"):
        read(**{field: value, "layer_types": None, "per_layer_config": None})
    assert time.perf_counter() - started < 1


def test_numbers_that_no_float_holds_are_refused() -> None:
    with pytest.raises(CheckpointError, match="rms_norm_eps"):
        read(rms_norm_eps=10**400)


@pytest.mark.parametrize("field", ["eos_token_id", "bos_token_id", "pad_token_id"])
@pytest.mark.parametrize("value", [4096, [1, 999_999], "1", -1, 1.5, True, {"a": 1}])
def test_special_tokens_are_in_the_vocabulary(field: str, value: Any) -> None:
    with pytest.raises(CheckpointError, match=field):
        read(**{field: value})
