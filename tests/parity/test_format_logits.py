"""A checkpoint in any published form gives the logits of what its format's own tools read from it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import redraft
from quantised import FORMATS, write_in_format, write_source
from redraft.checkpoint.convert import export, quantize
from redraft.checkpoint.rounding import RECIPES

# A form's error in the logits, relative to those of the unquantised model: by the bits of its experts. Random weights
# have no outliers to spoil a scale, and no structure to forgive an error.
LOSS = {"1": 0.9, "4": 0.35, "5": 0.15, "6": 0.1, "8": 0.1, "mx8": 0.15, "16": 0.02}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return write_source(tmp_path_factory.mktemp("source") / "model")


def logits(path: Path, **options) -> torch.Tensor:
    model = redraft.load_model(path, **options)
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(3, model.config.vocab_size, (1, 21), generator=generator)
    canvas = torch.randint(3, model.config.vocab_size, (1, 8), generator=generator)
    cache = model.new_cache()
    hidden = model.encode(prompt, cache)
    first = model.denoise(canvas, cache)
    second = model.denoise(canvas, cache, self_conditioning=model.soft_embedding(first))
    return torch.cat([model.logits(hidden), first, second], dim=1)


def relative(seen: torch.Tensor, expected: torch.Tensor) -> float:
    return float((seen - expected).norm() / expected.norm())


def as_floats(source: Path, expected: dict[str, torch.Tensor], directory: Path) -> Path:
    """A float checkpoint of what a form stands for."""
    directory.mkdir()
    for name in ("config.json", "generation_config.json"):
        shutil.copyfile(source / name, directory / name)
    tensors = load_file(source / "model.safetensors")
    save_file({n: expected.get(n, t).float().contiguous() for n, t in tensors.items()}, directory / "model.safetensors")
    return directory


def bits_of(fmt: str) -> str:
    if fmt.endswith("bf16"):
        return "16"
    # Scales that are powers of two cost half a bit.
    named = {"mxfp8": "mx8", "int8": "8", "fp8": "8", "q8": "8", "1bit": "1", "6bit": "6", "q6": "6", "q5": "5"}
    return next((bits for name, bits in named.items() if name in fmt), "4")


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.filterwarnings("ignore:.*differs from.*is used for both")
def test_logits_are_those_of_what_the_tools_read(source, tmp_path, fmt):
    expected = write_in_format(source, tmp_path / "form", fmt)
    path = tmp_path / "form"
    if fmt.startswith("gguf"):
        [path] = path.glob("*.gguf")
    floats = as_floats(source, expected, tmp_path / "floats")
    seen, wanted, original = logits(path), logits(floats), logits(source)
    torch.testing.assert_close(seen, wanted, atol=2e-4, rtol=1e-4)
    assert relative(seen, original) < LOSS[bits_of(fmt)]
    if bits_of(fmt) != "16":
        assert not torch.equal(seen, original)


@pytest.mark.parametrize("fmt", ["fp8-dynamic", "modelopt-nvfp4", "w4a16", "gptq", "gguf-q4_k_m"])
def test_any_form_becomes_ours_and_bfloat16_again(source, tmp_path, fmt):
    from transformers import DiffusionGemmaForBlockDiffusion

    write_in_format(source, tmp_path / "form", fmt)
    path = tmp_path / "form"
    if fmt.startswith("gguf"):
        [path] = path.glob("*.gguf")
    seen = logits(path)
    quantize(path, tmp_path / "int8", RECIPES["int8"])
    assert relative(logits(tmp_path / "int8"), seen) < 0.06
    quantize(path, tmp_path / "int4", RECIPES["int4"])
    assert relative(logits(tmp_path / "int4"), seen) < LOSS["4"]
    export(path, tmp_path / "out")
    assert relative(logits(tmp_path / "out"), seen) < 0.02
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "quantization_config" not in config
    theirs, info = DiffusionGemmaForBlockDiffusion.from_pretrained(
        tmp_path / "out", dtype=torch.float32, output_loading_info=True
    )
    assert not [name for name in info["missing_keys"] if "vision" not in name]
    assert not info["unexpected_keys"]
    ours = redraft.load_model(tmp_path / "out")
    name = "layers.1.experts.gate_up_proj"
    assert torch.equal(
        theirs.model.decoder.state_dict()[name].to(torch.float32), ours.backbone.state_dict()[name].to(torch.float32)
    )


def test_a_gguf_file_alone_is_a_model(source, tmp_path):
    write_in_format(source, tmp_path / "form", "gguf-q8_0")
    [path] = (tmp_path / "form").glob("*.gguf")
    engine = redraft.load(path, threads=1)
    assert engine.info.has_tokenizer
    assert engine.generate([5, 6, 7], seed=0, max_new_tokens=8, max_denoising_steps=2).token_ids
