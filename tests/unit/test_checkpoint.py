"""A checkpoint that cannot be read says which file, field or tensor is at fault."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import redraft
from checkpoints import VOCAB, edit_json, flatten_config, write_checkpoint
from redraft.checkpoint.formats.headers import CACHE_LINE, TensorFiles, entries
from redraft.core.errors import CheckpointError, InputError, ModelNotFoundError

QUERY = "model.decoder.layers.3.self_attn.q_proj.weight"
SCALAR = "model.encoder.language_model.layers.2.layer_scalar"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("sound"))


@pytest.fixture(scope="module")
def sound_sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("sharded"), max_shard_size="100KB")


@pytest.fixture
def directory(sound: Path, tmp_path: Path) -> Path:
    """A sound checkpoint to be broken."""
    return shutil.copytree(sound, tmp_path / "model")


@pytest.fixture
def sharded(sound_sharded: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sound_sharded, tmp_path / "sharded")


def edit_tensors(directory: Path, edit: Callable[[dict[str, Tensor]], Any]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(directory / "model.safetensors").items()}
    edit(tensors)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def refusal(directory: Path, kind: type[InputError] = CheckpointError) -> str:
    """The one-line message with which loading is refused."""
    with pytest.raises(kind) as raised:
        redraft.load_model(directory)
    message = str(raised.value)
    assert "\n" not in message
    assert str(directory) in message
    return message


def test_a_sound_checkpoint_loads(directory: Path, sharded: Path) -> None:
    for path in (directory, sharded):
        model = redraft.load_model(path)
        assert not model.training
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        assert model.config.vocab_size == VOCAB


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_dtype_is_what_was_asked_for(directory: Path, dtype: torch.dtype) -> None:
    model = redraft.load_model(directory, dtype=dtype)
    assert {tensor.dtype for tensor in model.parameters()} == {dtype}


def test_no_such_directory(tmp_path: Path) -> None:
    refusal(tmp_path / "nowhere", ModelNotFoundError)


def test_a_file_is_no_directory(directory: Path) -> None:
    refusal(directory / "model.safetensors", ModelNotFoundError)


def test_missing_config(directory: Path) -> None:
    (directory / "config.json").unlink()
    assert "config.json" in refusal(directory)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"model_type": '])
def test_config_is_no_json_object(directory: Path, content: str) -> None:
    (directory / "config.json").write_text(content)
    assert "config.json" in refusal(directory)


@pytest.mark.parametrize("model_type", ["gemma4", None])
def test_unknown_model_type(directory: Path, model_type: str | None) -> None:
    edit_json(directory / "config.json", lambda config: config.update(model_type=model_type))
    message = refusal(directory)
    assert "model_type" in message
    assert repr(model_type) in message


@pytest.mark.parametrize("missing", [True, False], ids=["absent", "null"])
@pytest.mark.parametrize(
    "field",
    [
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "num_experts",
        "top_k_experts",
        "moe_intermediate_size",
        "sliding_window",
    ],
)
def test_missing_field(directory: Path, field: str, missing: bool) -> None:
    def edit(config: dict[str, Any]) -> None:
        if missing:
            del config["text_config"][field]
        else:
            config["text_config"][field] = None

    edit_json(directory / "config.json", edit)
    message = refusal(directory)
    assert field in message
    assert "config.json" in message


def test_missing_text_config(directory: Path) -> None:
    edit_json(directory / "config.json", lambda config: config.pop("text_config"))
    assert "text_config" in refusal(directory)


def test_missing_flat_field(sound: Path, tmp_path: Path) -> None:
    flatten_config(sound, tmp_path)
    edit_json(tmp_path / "config.json", lambda config: config["text_config"].pop("global_head_dim"))
    assert "global_head_dim" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_size", "48"),
        ("hidden_size", -1),
        ("num_experts", 2.5),
        ("top_k_experts", 9),
        ("num_key_value_heads", 3),
        ("layer_types", ["full_attention"]),
        ("layer_types", ["linear_attention"] * 8),
        ("hidden_activation", "relu"),
        ("use_bidirectional_attention", "all"),
        ("attention_bias", True),
        ("tie_word_embeddings", False),
        ("rms_norm_eps", "a"),
        ("rms_norm_eps", -1e-6),
        ("final_logit_softcapping", [1]),
        ("final_logit_softcapping", 0),
        ("layer_types", 3),
        ("eos_token_id", "x"),
        ("per_layer_config", [1]),
        ("per_layer_config", {"5": 3}),
        ("per_layer_config", {"5": {"head_dim": "wide"}}),
        ("rope_parameters", [1]),
        ("rope_parameters", {"full_attention": {"rope_type": "proportional", "rope_theta": "x"}}),
    ],
)
def test_field_that_cannot_be_used(directory: Path, field: str, value: Any) -> None:
    edit_json(directory / "config.json", lambda config: config["text_config"].update({field: value}))
    assert field in refusal(directory).replace("key-value heads", "num_key_value_heads")


@pytest.mark.parametrize("field", ["rms_norm_eps", "final_logit_softcapping", "rope_parameters", "layer_types"])
def test_null_is_unset(directory: Path, sound: Path, field: str) -> None:
    edit_json(directory / "config.json", lambda config: config["text_config"].update({field: None}))
    assert redraft.load_model(directory).config == redraft.load_model(sound).config


@pytest.mark.parametrize("length", [0, -3, 8.5, "x"])
def test_canvas_length_that_cannot_be_used(directory: Path, length: Any) -> None:
    edit_json(directory / "config.json", lambda config: config.update({"canvas_length": length}))
    assert "canvas_length" in refusal(directory)


def test_a_tensor_of_integers(directory: Path) -> None:
    edit_tensors(directory, lambda tensors: tensors.update({QUERY: tensors[QUERY].to(torch.int8)}))
    assert QUERY in refusal(directory)


def test_weights_start_at_cache_lines(directory: Path, sharded: Path) -> None:
    """Or else the last bits of the logits would depend on how the checkpoint is cut into files."""
    for place in (directory, sharded):
        assert all(p.data_ptr() % 64 == 0 for p in redraft.load_model(place).parameters())


@pytest.mark.parametrize("kept", [0, 5, 1000, -1])
def test_truncated_file(directory: Path, kept: int) -> None:
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    assert "model.safetensors" in refusal(directory)


def test_no_weights(directory: Path) -> None:
    (directory / "model.safetensors").unlink()
    assert "model.safetensors" in refusal(directory)


def test_pickled_weights_are_not_read(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    assert "safetensors" in refusal(directory)


@pytest.mark.parametrize("name", [QUERY, SCALAR, "model.decoder.embed_tokens.weight"])
def test_missing_tensor(directory: Path, name: str) -> None:
    edit_tensors(directory, lambda tensors: tensors.pop(name))
    message = refusal(directory)
    assert name in message
    assert "missing" in message


@pytest.mark.parametrize("name", ["model.decoder.layers.8.router.scale", "model.decoder.bias", "stray"])
def test_surplus_tensor(directory: Path, name: str) -> None:
    edit_tensors(directory, lambda tensors: tensors.update({name: torch.zeros(3)}))
    message = refusal(directory)
    assert name in message
    assert "surplus" in message


@pytest.mark.parametrize("name", [QUERY, SCALAR, "model.decoder.layers.0.experts.gate_up_proj"])
def test_misshapen_tensor(directory: Path, name: str) -> None:
    edit_tensors(directory, lambda tensors: tensors.update({name: torch.zeros(3, 2)}))
    message = refusal(directory)
    assert name in message
    assert "(3, 2)" in message


def test_a_copy_that_differs_from_its_owner(directory: Path) -> None:
    copy = "model.encoder.language_model.norm.weight"
    edit_tensors(directory, lambda tensors: tensors.update({copy: torch.zeros(48)}))
    assert copy in refusal(directory)


def test_missing_shard(sharded: Path) -> None:
    shard = sorted(sharded.glob("*.safetensors"))[1]
    shard.unlink()
    assert shard.name in refusal(sharded)


def test_truncated_shard(sharded: Path) -> None:
    shard = sorted(sharded.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-1])
    assert shard.name in refusal(sharded)


def test_index_lists_a_tensor_that_no_file_holds(sharded: Path) -> None:
    index = sharded / "model.safetensors.index.json"
    file = sorted(sharded.glob("*.safetensors"))[0].name
    edit_json(index, lambda content: content["weight_map"].update(stray=file))
    message = refusal(sharded)
    assert "stray" in message
    assert index.name in message


@pytest.mark.parametrize("content", ["", "{}", '{"weight_map": []}'])
def test_broken_index(sharded: Path, content: str) -> None:
    (sharded / "model.safetensors.index.json").write_text(content)
    assert "model.safetensors.index.json" in refusal(sharded)


def test_only_what_begins_at_a_cache_line_shares_memory_with_its_file(tmp_path):
    tensors = {"a": torch.ones(32), "b": torch.ones(24), "c": torch.ones(16)}
    shared = set()
    for fill in range(0, CACHE_LINE, 8):
        save_file(tensors, tmp_path / "model.safetensors", metadata={"fill": "x" * fill})
        for name, entry in entries(TensorFiles.of(tmp_path)).items():
            first, second = entry.read(None), entry.read(None)
            assert torch.equal(first, tensors[name])
            assert first.data_ptr() % CACHE_LINE == 0
            assert (first.data_ptr() == second.data_ptr()) == (entry.offset % CACHE_LINE == 0)
            shared.add(first.data_ptr() == second.data_ptr())
    assert shared == {True, False}
