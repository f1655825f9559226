"""The tower against transformers' on small random checkpoints: soft tokens to 1e-5 of the largest, in float32."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference import load_reference
from torch import Tensor

from checkpoints import AUDIO_CONFIG, GEMMA4_TEXT_CONFIG, TEXT_CONFIG, quiet
from redraft.checkpoint.load import load_model
from redraft.checkpoint.save import save_checkpoint
from redraft.checkpoint.vision import load_vision
from redraft.core.errors import CheckpointError
from redraft.model.model import DiffusionGemma
from redraft.model.scratch import initialise, scratch_config
from redraft.vision.config import VisionConfig
from redraft.vision.patches import patches_of
from redraft.vision.scratch import scratch_vision
from redraft.vision.tower import VisionTower
from seeing import BOI, EOI, IMAGE, TOWER, noise_pixels, randomise_tower, reference_features, write_seeing

TOLERANCE = 1e-5
# 5 x 13 units and 12 x 5 at a budget of 70.
PICTURES = [noise_pixels(37, 91, 1), noise_pixels(120, 50, 2)]


def check(directory: Path, image_tokens: int = 70, pictures: Sequence[np.ndarray] = PICTURES) -> list[Tensor]:
    """Asserts that we make of each picture alone what the reference makes of it in a padded batch."""
    vision = load_vision(directory)
    patches = [patches_of(pixels, vision.config, image_tokens) for pixels in pictures]
    theirs = reference_features(load_reference(directory), patches, image_tokens)
    ours = [vision(some) for some in patches]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.shape == other.shape
        assert (mine - other).abs().max() <= TOLERANCE * other.abs().max()
    return ours


@pytest.mark.parametrize("standardize", [True, False])
def test_tower(tmp_path: Path, standardize: bool) -> None:
    ours = check(write_seeing(tmp_path, tower={"standardize": standardize}))
    assert [len(soft) for soft in ours] == [65, 60]


@pytest.mark.parametrize(
    "tower",
    [
        {"use_clipped_linears": True},
        {"num_key_value_heads": 4},
        {"num_key_value_heads": 1, "rope_parameters": {"rope_type": "axial", "rope_theta": 7.0}},
        {"pooling_kernel_size": 2},
        {"patch_size": 16, "num_hidden_layers": 1},
        {"rms_norm_eps": 0.05},
    ],
    ids=lambda tower: next(iter(tower)),
)
def test_other_towers(tmp_path: Path, tower: dict[str, Any]) -> None:
    check(write_seeing(tmp_path, tower=tower))


@pytest.mark.parametrize("image_tokens", [140, 280])
def test_other_budgets(tmp_path: Path, image_tokens: int) -> None:
    check(write_seeing(tmp_path), image_tokens)


def test_sides_of_one_unit(tmp_path: Path) -> None:
    check(write_seeing(tmp_path), 70, [noise_pixels(1, 1000), noise_pixels(1000, 1), noise_pixels(1, 1)])


def test_released_widths() -> None:
    sizes = TOWER | dict(hidden_size=1152, intermediate_size=4304, num_hidden_layers=2, num_attention_heads=16)
    sizes |= dict(num_key_value_heads=16, head_dim=72, patch_size=16, position_embedding_size=1024)
    with quiet():
        from transformers import Gemma4VisionConfig, Gemma4VisionModel

        theirs = Gemma4VisionModel(Gemma4VisionConfig(**sizes)).eval()
    randomise_tower(theirs, seed=1)
    ours = VisionTower(VisionConfig.from_dict({"vision_config": sizes}, text_hidden_size=8))
    ours.load_state_dict(theirs.state_dict())
    patches = patches_of(noise_pixels(60, 40), ours.config, 70)
    with torch.no_grad():
        mine, other = ours(patches), theirs(patches.values[None], patches.places[None]).last_hidden_state
    assert (mine - other).abs().max() <= TOLERANCE * other.abs().max()


def test_half_precision(tmp_path: Path) -> None:
    """No farther from float32 than the reference's bfloat16 is, and within 1 % of that."""
    directory = write_seeing(tmp_path, dtype=torch.bfloat16)
    vision = load_vision(directory, dtype=torch.bfloat16)
    patches = [patches_of(pixels, vision.config, 70) for pixels in PICTURES]
    exact = torch.cat(reference_features(load_reference(directory), patches, 70))
    theirs = torch.cat(reference_features(load_reference(directory, torch.bfloat16), patches, 70)).float()
    ours = torch.cat([vision(some) for some in patches])
    assert ours.dtype == torch.bfloat16

    def apart(left: Tensor, right: Tensor) -> float:
        return float((left.float() - right).norm() / right.norm())

    assert apart(ours, theirs) < 0.01
    assert apart(ours, exact) < 1.25 * apart(theirs, exact)


def test_float16_holds_the_release_s_large_numbers(tmp_path: Path) -> None:
    """Activations of thousands leave float16's range once they are scaled; the shift brings them back."""
    directory = write_seeing(tmp_path)
    for dtype in (torch.float32, torch.float16):
        vision = load_vision(directory, dtype=dtype)
        tower = vision.vision_tower
        with torch.no_grad():
            for name, parameter in tower.named_parameters():
                if name.endswith("position_embedding_table"):
                    parameter.add_(5_500.0)
            tower.get_buffer("std_bias").fill_(54_000.0)
            tower.get_buffer("std_scale").fill_(2.0**-12)
        pooled = tower(patches_of(PICTURES[0], vision.config, 70))
        assert tower.get_buffer("std_bias").dtype == torch.float32
        assert bool(pooled.isfinite().all())
        if dtype == torch.float32:
            exact = pooled
            assert (pooled.abs() * 2**12 + 54_000).max() > 65_504
        else:
            assert float((pooled.float() - exact).norm() / exact.norm()) < 0.01


def test_what_we_save_transformers_sees_with(tmp_path: Path) -> None:
    """Carried over from the source, or trained since."""
    directory = write_seeing(tmp_path / "source")
    model, vision = load_model(directory), load_vision(directory)
    save_checkpoint(model, tmp_path / "carried")
    patches = [patches_of(pixels, vision.config, 70) for pixels in PICTURES]
    theirs = reference_features(load_reference(directory), patches, 70)
    again = reference_features(load_reference(tmp_path / "carried"), patches, 70)
    assert all(torch.equal(one, other) for one, other in zip(theirs, again, strict=True))
    randomise_tower(vision, seed=9)
    save_checkpoint(model, tmp_path / "trained", vision=vision)
    trained = check(tmp_path / "trained")
    assert (trained[0] - theirs[0]).abs().max() > 0.1


def test_a_fresh_tower_is_one_that_transformers_loads(tmp_path: Path) -> None:
    tokens = {"boi_token_id": BOI, "eoi_token_id": EOI, "image_token_id": IMAGE}
    sizes = {name: value for name, value in TOWER.items() if name != "pooling_kernel_size"}
    config = scratch_config(TEXT_CONFIG, 8, vision=sizes, image_tokens=tokens)
    model = DiffusionGemma(config)
    initialise(model, seed=0)
    vision = scratch_vision(VisionConfig.from_dict(config.raw, config.hidden_size), seed=0)
    assert vision.config.pooling_kernel_size == 3
    save_checkpoint(model, tmp_path, vision=vision)
    check(tmp_path)


def test_gemma4(tmp_path: Path) -> None:
    """The same tower under Gemma 4's names."""
    with quiet():
        from transformers import Gemma4Config, Gemma4ForConditionalGeneration

        config = Gemma4Config(
            text_config=GEMMA4_TEXT_CONFIG, vision_config=dict(TOWER), audio_config=dict(AUDIO_CONFIG)
        )
        theirs = Gemma4ForConditionalGeneration(config).eval()
        randomise_tower(theirs.model.vision_tower, 1)
        randomise_tower(theirs.model.embed_vision, 2)
        theirs.save_pretrained(tmp_path)
    vision = load_vision(tmp_path)
    patches = patches_of(PICTURES[0], vision.config, 70)
    with torch.no_grad():
        made = theirs.model.get_image_features(patches.values[None], patches.places[None]).pooler_output
        made = torch.cat(list(made))
    assert (vision(patches) - made).abs().max() <= TOLERANCE * made.abs().max()


def test_what_a_config_leaves_out_is_the_reference_s_default() -> None:
    with quiet():
        from transformers import Gemma4VisionConfig

        theirs = Gemma4VisionConfig()
    ours = VisionConfig.from_dict({"vision_config": {}}, text_hidden_size=8)
    names = set(VisionConfig.__dataclass_fields__) - {"rope_theta", "text_hidden_size"}
    assert {name: getattr(ours, name) for name in names} == {name: getattr(theirs, name) for name in names}
    assert ours.rope_theta == theirs.rope_parameters["rope_theta"]
    released = {"rope_parameters": {"rope_theta": 100.0, "rope_type": "default"}}
    assert VisionConfig.from_dict({"vision_config": released}, text_hidden_size=8) == ours
    with pytest.raises(CheckpointError, match="vision_config is missing"):
        VisionConfig.from_dict({"vision_config": None}, text_hidden_size=8)
