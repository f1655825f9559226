"""Every form of a checkpoint is the same model, and what we write transformers reads back bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import Reference, Story, load_reference, prefilled, random_ids
from torch import Tensor

import redraft
from checkpoints import CANVAS, quiet, write_checkpoint
from redraft.checkpoint.locate import BUNDLED
from redraft.checkpoint.save import save_checkpoint


def our_logits(model: Any) -> Tensor:
    prompt, canvas = random_ids(1, 20, seed=0), random_ids(1, CANVAS, seed=1)
    return model.denoise(canvas, prefilled(model, prompt))


def their_logits(model: Any) -> Tensor:
    story = Story(model)
    return torch.cat([story.encode(random_ids(1, 20, seed=0)), story.denoise(random_ids(1, CANVAS, seed=1))], dim=1)


def assert_same_model(left: Any, right: Any) -> None:
    """The same bits in every weight. Mapped weights lie at other addresses, so the logits may differ in the last."""
    ours, theirs = left.state_dict(), right.state_dict()
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert torch.allclose(our_logits(left), our_logits(right), rtol=0, atol=1e-4)


def assert_same_weights(left: Any, right: Any) -> None:
    theirs, ours = left.state_dict(), right.state_dict()
    assert theirs.keys() == ours.keys()
    assert any("vision_tower" in name for name in ours)
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_both_config_forms_are_the_same_model(model: Any, flat_checkpoint: Path, reference: Reference) -> None:
    text = json.loads((flat_checkpoint / "config.json").read_text())["text_config"]
    assert "per_layer_config" not in text
    assert torch.equal(our_logits(redraft.load_model(flat_checkpoint)), our_logits(model))
    assert torch.equal(their_logits(load_reference(flat_checkpoint)), their_logits(reference.sdpa))


def test_a_sharded_checkpoint_is_the_same_model(model: Any, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    sharded = redraft.load_model(tmp_path)
    assert_same_model(sharded, model)
    save_checkpoint(sharded, tmp_path / "saved")
    assert_same_weights(load_reference(tmp_path), load_reference(tmp_path / "saved"))


@pytest.mark.parametrize("shard_bytes", [10**9, 20_000])
@pytest.mark.parametrize("form", ["checkpoint", "flat_checkpoint"])
def test_save_round_trip(
    form: str, shard_bytes: int, request: pytest.FixtureRequest, reference: Reference, tmp_path: Path
) -> None:
    model = redraft.load_model(request.getfixturevalue(form))
    save_checkpoint(model, tmp_path, shard_bytes=shard_bytes)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard_bytes == 20_000)
    saved = load_reference(tmp_path)
    assert_same_weights(reference.sdpa, saved)
    assert (their_logits(saved) - their_logits(reference.sdpa)).abs().max() == 0
    assert_same_model(redraft.load_model(tmp_path), model)


def test_saved_config_serves_readers_of_both_forms(checkpoint: Path, tmp_path: Path) -> None:
    save_checkpoint(redraft.load_model(checkpoint), tmp_path)
    before, after = (json.loads((path / "config.json").read_text()) for path in (checkpoint, tmp_path))
    assert after["text_config"].pop("global_head_dim") == 16
    assert after["text_config"].pop("num_global_key_value_heads") == 1
    assert after == before
    assert (tmp_path / "generation_config.json").read_bytes() == (checkpoint / "generation_config.json").read_bytes()


def test_save_in_bfloat16(checkpoint: Path, tmp_path: Path) -> None:
    save_checkpoint(redraft.load_model(checkpoint), tmp_path, dtype=torch.bfloat16)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    rounded, saved = load_reference(checkpoint, torch.bfloat16), load_reference(tmp_path, torch.bfloat16)
    assert_same_weights(rounded, saved)


def test_the_tied_head_may_be_stored_as_well(model: Any, checkpoint: Path, tmp_path: Path) -> None:
    """Some re-saves write lm_head.weight beside the embedding it is tied to."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(checkpoint / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.decoder.embed_tokens.weight"].clone()
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_bytes((checkpoint / "config.json").read_bytes())
    assert_same_model(redraft.load_model(tmp_path), model)


def test_transformers_reads_a_config_that_names_no_tower() -> None:
    """It builds its default one then, of random weights that nothing runs through."""
    with quiet():
        from transformers import DiffusionGemmaForBlockDiffusion

        theirs = DiffusionGemmaForBlockDiffusion.from_pretrained(BUNDLED / "mini", dtype=torch.float32)
    ours = redraft.load_model(BUNDLED / "mini")
    embedding = theirs.get_input_embeddings().weight
    assert torch.equal(embedding, ours.backbone.embed_tokens.weight)
