"""Files whose integers are chosen for what the matrices meet are read as what they stand for, too."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from quantised import write_in_format, write_source
from quantised_matrices import compensated
from redraft.checkpoint.formats.headers import TensorFiles, entries
from redraft.checkpoint.formats.modules import stored_tensors

MODULE = "model.decoder.layers.0.self_attn.o_proj"


def correlated(columns: int) -> torch.Tensor:
    """Rows whose columns depend on each other."""
    generator = torch.Generator().manual_seed(3)
    few = torch.randn(400, columns // 8, generator=generator) @ torch.randn(columns // 8, columns, generator=generator)
    return few + 0.3 * torch.randn(400, columns, generator=generator)


def test_with_columns_that_do_not_depend_on_each_other_it_is_rounding_to_nearest():
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    scale, zero = torch.full_like(weight, 0.3), torch.full_like(weight, 8.0)
    codes = compensated(weight, torch.eye(64), scale, zero, 0, 15)
    assert torch.equal(codes, (weight / 0.3 + 8).round().clamp(0, 15))


@pytest.mark.parametrize("fmt", ["gptq", "gptq-act-order", "awq", "w4a16", "w4a16-asymmetric", "w4a16-act-order"])
def test_products_lose_less_and_the_file_is_read_as_what_it_stands_for(fmt, tmp_path):
    source = write_source(tmp_path / "source")
    weight = load_file(source / "model.safetensors")[f"{MODULE}.weight"].float()
    rows = correlated(weight.shape[1])
    lost = {}
    for name, hessians in (("nearest", None), ("calibrated", {MODULE: rows.T @ rows})):
        expected = write_in_format(source, tmp_path / name, fmt, hessians)[f"{MODULE}.weight"]
        config = json.loads((tmp_path / name / "config.json").read_text())
        files = entries(TensorFiles.of(tmp_path / name))
        stored = stored_tensors(files, config["quantization_config"])
        read = next(tensor for key, tensor in stored.items() if key.endswith("layers.0.self_attn.o_proj.weight"))
        torch.testing.assert_close(read.load(None).float(), expected, atol=1e-6, rtol=1e-5)
        lost[name] = (rows @ (expected - weight).T).norm()
    assert lost["calibrated"] < 0.8 * lost["nearest"]
