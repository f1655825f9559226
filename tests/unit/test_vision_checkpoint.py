"""Towers in checkpoints: read when asked for, whatever form the rest is in, and named when something is wrong."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from checkpoints import CANVAS, TEXT_CONFIG, edit_json
from quantised import SAFETENSORS_FORMATS, write_in_format, write_source
from redraft.checkpoint.convert import export, quantize
from redraft.checkpoint.load import load_model
from redraft.checkpoint.locate import BUNDLED
from redraft.checkpoint.rounding import RECIPES
from redraft.checkpoint.save import save_checkpoint
from redraft.checkpoint.source import Source
from redraft.checkpoint.stored import StoredTensor
from redraft.checkpoint.vision import LazyVision, default_image_tokens, load_vision
from redraft.core.errors import CheckpointError, ImageError
from redraft.model.model import DiffusionGemma
from redraft.model.scratch import initialise, scratch_config
from redraft.vision.config import VisionConfig
from redraft.vision.patches import patches_of
from redraft.vision.scratch import scratch_vision
from seeing import TOWER, noise_pixels, randomise_tower

PREFIX = "model.encoder."
Q = "vision_tower.encoder.layers.0.self_attn.q_proj.linear.weight"


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("seeing")
    config = scratch_config(TEXT_CONFIG, CANVAS, vision=TOWER)
    model = DiffusionGemma(config)
    initialise(model, seed=0)
    vision = scratch_vision(VisionConfig.from_dict(config.raw, config.hidden_size), seed=1)
    randomise_tower(vision, seed=2)
    save_checkpoint(model, directory, vision=vision)
    return directory


def changed(source: Path, directory: Path, change) -> Path:
    """A copy whose tower has other tensors, by our names."""
    tensors = load_file(source / "model.safetensors")
    own = {name.removeprefix(PREFIX): tensors.pop(name) for name in list(tensors) if "vision" in name}
    change(own)
    tensors |= {PREFIX + name: tensor for name, tensor in own.items()}
    directory.mkdir()
    save_file(tensors, directory / "model.safetensors")
    (directory / "config.json").write_bytes((source / "config.json").read_bytes())
    return directory


def features(vision) -> torch.Tensor:
    return vision(patches_of(noise_pixels(37, 91), vision.config, 70))


def test_only_the_tower_is_read_and_once(seeing, monkeypatch):
    names = []
    read = StoredTensor.read

    def spy(self, part=None):
        names.append(self.name)
        return read(self, part)

    monkeypatch.setattr(StoredTensor, "read", spy)
    lazy = LazyVision(Source.open(seeing))
    assert lazy.is_there
    assert not lazy.is_loaded
    assert names == []
    found = []
    threads = [threading.Thread(target=lambda: found.append(lazy())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(vision) for vision in found}) == 1
    assert lazy.is_loaded
    assert len(names) == len(set(names)) == len(found[0].state_dict())
    assert all(".vision_tower." in name or ".embed_vision." in name for name in names)
    assert not any(parameter.requires_grad for parameter in found[0].parameters())


def test_who_cannot_see_says_so(tmp_path):
    assert not LazyVision(Source.open(BUNDLED / "mini")).is_there
    with pytest.raises(CheckpointError, match="holds no vision tower: load a checkpoint with one in safetensors form"):
        load_vision(BUNDLED / "mini")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop(Q), f"the vision tower is missing tensor '{Q}'"),
        (lambda t: t.pop("vision_tower.std_bias"), "missing tensor 'vision_tower.std_bias'"),
        (lambda t: t.pop("embed_vision.embedding_projection.weight"), "missing tensor 'embed_vision"),
        (
            lambda t: t.update({Q: torch.zeros(48, 47)}),
            r"q_proj.linear.weight' has shape \(48, 47\), vision_config asks",
        ),
        (lambda t: t.update({Q + "s": torch.zeros(3)}), "surplus tensor 'vision_tower.*weights'"),
        (lambda t: t["vision_tower.std_bias"].fill_(float("inf")), "std_bias' holds numbers that are not finite"),
    ],
    ids=["one", "buffer", "projector", "misshapen", "surplus", "infinite"],
)
def test_what_is_wrong_with_a_tower_is_named(seeing, tmp_path, change, said):
    path = changed(seeing, tmp_path / "changed", change)
    with pytest.raises(CheckpointError, match=said):
        load_vision(path)
    # Whoever sends text does not miss it.
    load_model(path, device=torch.device("meta"))


def test_bounds_that_nobody_asks_for_are_ignored(seeing, tmp_path):
    bounds = {Q.replace("linear.weight", name): torch.tensor(0.1) for name in ("input_min", "output_max")}
    path = changed(seeing, tmp_path / "changed", lambda tensors: tensors.update(bounds))
    assert torch.equal(features(load_vision(path)), features(load_vision(seeing)))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("hidden_activation", "silu", "hidden_activation must be 'gelu_pytorch_tanh', got 'silu'"),
        ("attention_bias", True, "attention_bias must be False, got True"),
        ("model_type", "siglip_vision_model", "model_type must be 'gemma4_vision'"),
        ("rope_parameters", {"rope_type": "yarn"}, "rope_type must be 'axial' or 'default', got 'yarn'"),
        ("rope_parameters", {"rope_theta": 0}, "rope_parameters.rope_theta must be a positive number, got 0"),
        ("rope_parameters", 5, "rope_parameters must be a mapping"),
        ("pooling_kernel_size", 1, "pooling_kernel_size must be at least 2, got 1"),
        ("num_key_value_heads", 3, "num_key_value_heads must be a divisor of 4 heads, got 3"),
        ("head_dim", 10, "head_dim must be a multiple of 4"),
        ("standardize", "yes", "standardize must be true or false, got 'yes'"),
        ("num_hidden_layers", 10**9, "num_hidden_layers must be at most 1024"),
        ("patch_size", -1, "patch_size must be a positive integer"),
    ],
)
def test_configs_that_are_not_run(field, value, said):
    with pytest.raises(CheckpointError, match=said):
        VisionConfig.from_dict({"vision_config": TOWER | {field: value}}, text_hidden_size=8)


def test_a_picture_with_more_places_than_the_table(seeing, tmp_path):
    vision = load_vision(seeing)
    with pytest.raises(ImageError, match=r"840 patches along a side, this checkpoint knows 256 places"):
        vision(patches_of(noise_pixels(1, 1000), vision.config, 280))


def test_conversions_keep_the_tower(seeing, tmp_path):
    """Rounded to int8 elsewhere, it is kept as it was; and exported, in bfloat16."""
    quantize(seeing, tmp_path / "int8", RECIPES["int8"])
    export(seeing, tmp_path / "bfloat16")
    exact = features(load_vision(seeing))
    assert torch.equal(features(load_vision(tmp_path / "int8")), exact)
    exported = features(load_vision(tmp_path / "bfloat16"))
    assert 0 < (exported - exact).norm() / exact.norm() < 0.05
    export(tmp_path / "int8", tmp_path / "again")
    assert torch.equal(features(load_vision(tmp_path / "again")), exported)


def test_standardisation_is_not_rounded_again(seeing, tmp_path):
    """Into a narrower form its numbers stay as they are, unless that holds them."""
    model, vision = load_model(seeing, dtype=torch.bfloat16), load_vision(seeing)
    save_checkpoint(model, tmp_path / "narrow", vision=vision)
    again = load_vision(tmp_path / "narrow", dtype=torch.bfloat16).vision_tower
    assert torch.equal(again.get_buffer("std_bias"), vision.vision_tower.get_buffer("std_bias"))
    forms = {name: t.form for name, t in Source.open(tmp_path / "narrow").passed_through().items()}
    assert forms[PREFIX + Q] == "bfloat16"
    assert forms[PREFIX + "vision_tower.std_bias"] == "float32"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounded_to_int8_it_sees_about_the_same(seeing, tmp_path, dtype):
    exact, vision = features(load_vision(seeing)), load_vision(seeing, dtype=dtype, quantize="int8")
    made = features(vision)
    assert made.dtype == dtype
    assert 1e-4 < (made.float() - exact).norm() / exact.norm() < 0.06
    assert not any(name.endswith(".linear.weight") for name in vision.state_dict())
    with pytest.raises(CheckpointError, match="a tower that was loaded as int8 has lost digits"):
        save_checkpoint(load_model(seeing), tmp_path, vision=vision)


@pytest.mark.parametrize("forms", [SAFETENSORS_FORMATS[::4], pytest.param(SAFETENSORS_FORMATS, marks=pytest.mark.full)])
def test_published_forms_keep_their_towers(tmp_path, forms):
    source = write_source(tmp_path / "source")
    wanted = load_vision(source).state_dict()
    for form in forms:
        write_in_format(source, tmp_path / form, form)
        found = load_vision(tmp_path / form).state_dict()
        for name, tensor in wanted.items():
            # Plain in float16 or bfloat16, some of them rounded further.
            error = (found[name] - tensor).norm() / tensor.norm()
            assert error < 0.2, (form, name)
            assert found[name].dtype == torch.float32


def test_image_tokens_where_nobody_says(tmp_path):
    assert default_image_tokens(tmp_path) == 280
    path = tmp_path / "processor_config.json"
    released = {
        "do_convert_rgb": True,
        "do_normalize": False,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.0, 0.0, 0.0],
        "image_std": [1.0, 1.0, 1.0],
        "max_soft_tokens": 560,
        "resample": 3,
    }
    path.write_text(json.dumps({"image_processor": released}))
    assert default_image_tokens(tmp_path) == 560
    for field, value in {"resample": 2, "do_resize": False, "max_soft_tokens": 300, "max_soft_tokens ": 5}.items():
        edit_json(path, lambda c, f=field, v=value: c.update(image_processor=released | {f.strip(): v}))
        with pytest.raises(CheckpointError, match=field.strip()):
            default_image_tokens(tmp_path)
    edit_json(path, lambda c: c.update(image_processor=released | {"do_normalize": True}))
    assert default_image_tokens(tmp_path) == 560
    edit_json(path, lambda c: c.update(image_processor=released | {"do_normalize": True, "image_mean": [0.5] * 3}))
    with pytest.raises(CheckpointError, match="image_mean and image_std must be 0 and 1"):
        default_image_tokens(tmp_path)
    path.write_text(json.dumps({"image_processor": 5}))
    with pytest.raises(CheckpointError, match="image_processor must be a mapping"):
        default_image_tokens(tmp_path)
