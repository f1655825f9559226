"""Quantised safetensors checkpoints, decoded and compared with what the formats' own tools read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from quantised import FORMATS, SAFETENSORS_FORMATS, write_in_format, write_source
from redraft.checkpoint.formats.headers import TensorFiles, entries
from redraft.checkpoint.formats.modules import stored_tensors
from redraft.checkpoint.stored import StoredTensor
from redraft.core.errors import CheckpointError

# Relative root mean square of what is lost on Gaussian weights, largest over the quantised matrices.
LOSS = {
    "fp8-dynamic": 0.03,
    "int8-dynamic": 0.012,
    "nvfp4": 0.11,
    "w4a16": 0.13,
    "w4a16-asymmetric": 0.12,
    "w4a16-act-order": 0.13,
    "modelopt-nvfp4": 0.11,
    "gptq": 0.13,
    "gptq-asymmetric": 0.12,
    "gptq-v2": 0.12,
    "gptq-act-order": 0.12,
    "auto-round": 0.13,
    "awq": 0.12,
    "mlx-bf16": 0.003,
    "mlx-4bit": 0.11,
    "mlx-6bit": 0.03,
    "mlx-1bit": 2.0,
    "mlx-switch-glu": 0.11,
    "mlx-mxfp4": 0.15,
    "mlx-mxfp8": 0.04,
}
EXPERTS = "model.decoder.layers.0.experts."


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_source(tmp_path_factory.mktemp("source"))


@pytest.fixture
def written(source, tmp_path):
    def write(fmt: str) -> Path:
        write_in_format(source, tmp_path, fmt)
        return tmp_path

    return write


def stored_in(directory: Path) -> dict[str, StoredTensor]:
    config = json.loads((directory / "config.json").read_text())
    return stored_tensors(entries(TensorFiles.of(directory)), config.get("quantization_config"))


def edit(directory: Path, change) -> None:
    path = directory / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)


def relative_loss(decoded: torch.Tensor, original: torch.Tensor) -> float:
    return ((decoded.double() - original.double()).norm() / original.double().norm()).item()


def by_decoder_name(stored: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The text tensors under the decoder's names; its own where both stacks are there."""
    twins = {
        name.replace("model.encoder.language_model.", "model.decoder."): tensor
        for name, tensor in stored.items()
        if name.startswith("model.encoder.language_model.") and not name.endswith("layer_scalar")
    }
    return twins | stored


@pytest.mark.parametrize("fmt", SAFETENSORS_FORMATS)
def test_every_tensor_is_what_the_formats_tools_read(source, tmp_path, fmt):
    expected = write_in_format(source, tmp_path, fmt)
    original = load_file(source / "model.safetensors")
    stored = by_decoder_name(stored_in(tmp_path))
    losses = []
    for name, values in expected.items():
        tensor = stored[name]
        decoded = tensor.read()
        assert decoded.shape == tensor.shape == values.shape, name
        assert decoded.dtype == values.dtype, name
        torch.testing.assert_close(decoded, values, rtol=1e-6, atol=0, msg=lambda text, name=name: f"{name}: {text}")
        if values.ndim > 1:
            losses.append(relative_loss(decoded, original[name]))
    assert 0.3 * LOSS[fmt] < max(losses) < LOSS[fmt]


@pytest.mark.parametrize("fmt", SAFETENSORS_FORMATS)
def test_one_expert_is_read_alone(written, fmt):
    stored = by_decoder_name(stored_in(written(fmt)))
    for name in ("experts.gate_up_proj", "experts.down_proj"):
        tensor = stored[f"model.decoder.layers.1.{name}"]
        assert torch.equal(tensor.read(2), tensor.read()[2])
    row = stored["model.decoder.layers.0.self_attn.q_proj.weight"]
    assert torch.equal(row.read(3), row.read()[3])


@pytest.mark.parametrize("fmt", SAFETENSORS_FORMATS)
def test_every_byte_is_accounted_for(written, fmt):
    directory = written(fmt)
    in_files = load_file(directory / "model.safetensors")
    stored = stored_in(directory)
    used = [name for tensor in stored.values() for name in tensor.files]
    assert len(used) == len(set(used))
    left = set(in_files) - set(used)
    assert {name.rpartition(".")[2] for name in left} <= {"input_scale", "input_global_scale"}
    assert sum(tensor.nbytes for tensor in stored.values()) == sum(in_files[name].nbytes for name in used)


def test_headers_alone_are_read(written, monkeypatch):
    directory = written("nvfp4")
    files = TensorFiles.of(directory)
    monkeypatch.setattr("redraft.checkpoint.formats.headers.safe_open", None)
    assert stored_tensors(entries(files), None)[f"{EXPERTS}gate_up_proj"].form == "nvfp4"


@pytest.mark.parametrize(
    ("fmt", "form"),
    [
        ("fp8-dynamic", "float8_e4m3fn"),
        ("int8-dynamic", "int8"),
        ("modelopt-nvfp4", "nvfp4"),
        ("w4a16", "int4"),
        ("gptq", "gptq-int4"),
        ("awq", "awq-int4"),
        ("mlx-bf16", "bfloat16"),
        ("mlx-6bit", "mlx-int6"),
        ("mlx-mxfp8", "mxfp8"),
    ],
)
def test_forms_are_named(written, fmt, form):
    stored = by_decoder_name(stored_in(written(fmt)))
    assert stored[f"{EXPERTS}down_proj"].form == form


@pytest.mark.parametrize(
    ("fmt", "dropped", "named"),
    [
        ("nvfp4", "experts.2.up_proj.weight_packed", "experts.2.up_proj.weight_scale"),
        ("nvfp4", "experts.2.up_proj.weight_global_scale", "experts.2.up_proj.weight_global_scale"),
        ("modelopt-nvfp4", "experts.1.down_proj.weight_scale_2", "experts.1.down_proj.weight_scale_2"),
        ("modelopt-nvfp4", "experts.1.down_proj.weight_scale", "experts.1.down_proj.weight_scale"),
        ("fp8-dynamic", "mlp.up_proj.weight_scale", "mlp.up_proj.weight_scale"),
        ("w4a16", "self_attn.q_proj.weight_scale", "self_attn.q_proj.weight_scale"),
        ("gptq", "self_attn.q_proj.qzeros", "self_attn.q_proj.qzeros"),
        ("gptq", "self_attn.q_proj.qweight", "self_attn.q_proj.qzeros"),
        ("mlx-4bit", "experts.down_proj.biases", "experts.down_proj.biases"),
        ("mlx-switch-glu", "experts.switch_glu.up_proj", "experts.up_proj"),
    ],
)
def test_a_missing_part_is_named(written, fmt, dropped, named):
    directory = written(fmt)

    def drop(tensors):
        names = [name for name in tensors if ".layers.0." in name and dropped in name]
        assert names
        for name in names:
            del tensors[name]

    edit(directory, drop)
    with pytest.raises(CheckpointError, match=named.replace(".", r"\.")):
        stored_in(directory)


@pytest.mark.parametrize("fmt", ["fp8-dynamic", "nvfp4", "gptq", "modelopt-nvfp4"])
def test_a_missing_expert_is_named(written, fmt):
    directory = written(fmt)

    def drop(tensors):
        for name in [name for name in tensors if ".layers.0.experts.1.gate_proj." in name]:
            del tensors[name]

    edit(directory, drop)
    with pytest.raises(CheckpointError, match=r"layers\.0\.experts\.1\.gate_proj\.weight' is missing"):
        stored_in(directory)


def test_experts_of_different_shapes_are_refused(written):
    directory = written("fp8-dynamic")

    def shrink(tensors):
        for part in ("weight", "weight_scale"):
            name = f"{EXPERTS}3.up_proj.{part}"
            tensors[name] = tensors[name][:32].clone()

    edit(directory, shrink)
    with pytest.raises(CheckpointError, match=r"experts\.3\.up_proj\.weight' has shape \[32, 256\]"):
        stored_in(directory)


def test_a_scale_beside_plain_numbers_is_refused(written):
    directory = written("nvfp4")
    name = "model.decoder.layers.0.self_attn.q_proj.weight_scale"
    edit(directory, lambda tensors: tensors.update({name: torch.ones(128, 1)}))
    with pytest.raises(CheckpointError, match=r"left over .*q_proj\.weight_scale'"):
        stored_in(directory)


def test_a_stack_beside_single_experts_is_refused(written):
    directory = written("nvfp4")
    edit(directory, lambda tensors: tensors.update({f"{EXPERTS}down_proj": torch.ones(4, 256, 64)}))
    with pytest.raises(CheckpointError, match="stored twice"):
        stored_in(directory)


def test_scales_for_other_columns_are_refused(written):
    directory = written("nvfp4")
    name = f"{EXPERTS}0.up_proj.weight_scale"
    edit(directory, lambda tensors: tensors.update({name: tensors[name][:, :8].clone()}))
    with pytest.raises(CheckpointError, match=r"experts\.0\.up_proj\.weight_scale' has shape \[64, 8\]"):
        stored_in(directory)


@pytest.mark.parametrize("packing", ["auto_round", "", None])
def test_symmetric_zero_points_tell_their_version(source, tmp_path, packing):
    expected = write_in_format(source, tmp_path, "auto-round")
    config = json.loads((tmp_path / "config.json").read_text())["quantization_config"] | {"packing_format": packing}
    decoded = stored_tensors(entries(TensorFiles.of(tmp_path)), config)[
        "model.decoder.layers.0.mlp.up_proj.weight"
    ].read()
    assert torch.equal(decoded, expected["model.decoder.layers.0.mlp.up_proj.weight"])


def test_experts_stored_as_a_stack_beside_quantised_ones(written):
    """What quantisers that know no stacks leave behind: each layer may have its own form."""
    directory = written("fp8-dynamic")
    plain = torch.randn(4, 128, 256).bfloat16()

    def fuse(tensors):
        for name in [name for name in tensors if ".layers.0.experts." in name and "down_proj" not in name]:
            del tensors[name]
        for name in [name for name in tensors if ".layers.0.experts." in name]:
            del tensors[name]
        tensors[f"{EXPERTS}gate_up_proj"] = plain
        tensors[f"{EXPERTS}down_proj"] = torch.ones(4, 256, 64)

    edit(directory, fuse)
    stored = stored_in(directory)
    assert torch.equal(stored[f"{EXPERTS}gate_up_proj"].read(1), plain[1])
    assert stored["model.decoder.layers.1.experts.gate_up_proj"].form == "float8_e4m3fn"


def test_losses_are_bounded_for_every_form():
    assert set(LOSS) == set(SAFETENSORS_FORMATS) < set(FORMATS)
