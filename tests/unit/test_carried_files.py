"""What goes with weights to another directory, and what stays."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

import redraft
from checkpoints import write_checkpoint
from redraft.checkpoint.convert import export
from redraft.checkpoint.save import save_checkpoint

TEXT = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"}
VISION = {"preprocessor_config.json", "processor_config.json"}
SAMPLING = {"generation_config.json", "redraft.json"}
OTHERS = {"tools.json", "held_out.jsonl", "introduction.json", "presets.json", "README.md"}


@pytest.fixture(scope="module", params=[True, False], ids=["with a tower", "without"])
def source(request, tmp_path_factory):
    """A checkpoint with everything beside it, and what of that speaks of its vision tower."""
    path = write_checkpoint(tmp_path_factory.mktemp("source"))
    for name in TEXT | VISION | OTHERS | SAMPLING:
        if not (path / name).exists():
            (path / name).write_text("{}")
    if not request.param:
        tensors = load_file(path / "model.safetensors")
        text = {name: t for name, t in tensors.items() if not {"vision_tower", "embed_vision"} & set(name.split("."))}
        assert len(text) < len(tensors)
        save_file(text, path / "model.safetensors", metadata={"format": "pt"})
    return path, VISION if request.param else set()


def beside(path):
    return {file.name for file in path.iterdir()} & (TEXT | VISION | OTHERS | SAMPLING)


def test_the_same_weights_keep_what_they_know(source, tmp_path):
    path, vision = source
    kept = TEXT | vision | SAMPLING | {"tools.json", "held_out.jsonl", "introduction.json"}
    save_checkpoint(redraft.load_model(path), tmp_path / "saved")
    assert beside(tmp_path / "saved") == kept
    export(path, tmp_path / "exported")
    assert beside(tmp_path / "exported") == kept


def test_trained_weights_leave_it_behind(source, tmp_path):
    path, vision = source
    model = redraft.load_model(path)
    with torch.no_grad():
        model.backbone.norm.weight.add_(1)
    save_checkpoint(model, tmp_path, same_weights=False)
    assert beside(tmp_path) == TEXT | vision | SAMPLING
