"""What rounding costs on mini: the error of its logits, by how scales are chosen.

    python benchmarks/rounding.py --data data/mini/snips.test.jsonl

Nearest is one positive scale a group by its largest magnitude; searched is what `redraft quantize` does; calibrated
weighs columns by what other texts send through them. Each has int8 for what is no expert. Prompts and replies are
those of the data; logits are those of both modes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

from redraft.checkpoint.load import load_model
from redraft.checkpoint.locate import locate
from redraft.checkpoint.rounding import RECIPES, rounded
from redraft.checkpoint.source import Source
from redraft.engine.calibration import importance
from redraft.kernels.matrices.int4 import COLUMNS, Int4Matrix, quantise_int4
from redraft.model.model import DiffusionGemma
from redraft.placement.quantized import place
from redraft.text.chat import ChatTemplate
from redraft.text.lines import json_lines
from redraft.text.tokenizer import Tokenizer


def main() -> None:
    """Prints one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=60)
    arguments = parser.parse_args()
    path = locate(arguments.model)
    rows = [row for _, row in json_lines(arguments.data)]
    step = max(1, len(rows) // (2 * arguments.rows))
    measured, seen = rows[::step][::2], rows[::step][1::2]
    weights = importance(path, [row["messages"][0]["content"] for row in seen])
    tokenizer, template = Tokenizer.from_directory(path), ChatTemplate.from_directory(path)
    assert tokenizer is not None
    assert template is not None
    prompts = [tokenizer.encode(template.render(row["messages"][:1])) for row in measured]
    exact = load_model(path)
    expected = [logits(exact, ids) for ids in prompts]
    found = {}
    for name, model in {
        "int8": load_model(path, quantize="int8"),
        "int4 nearest": int4_model(path, nearest=True),
        "int4 searched": int4_model(path),
        "int4 calibrated": int4_model(path, weights=weights),
        "int4 searched, activations in float32": float_model(path, None),
        "int4 calibrated, activations in float32": float_model(path, weights),
    }.items():
        pairs = [(logits(model, ids), want) for ids, want in zip(prompts, expected, strict=True)]
        error = sum(float((got - want).square().sum()) for got, want in pairs)
        size = sum(float(want.square().sum()) for _, want in pairs)
        agree = sum(int((got.argmax(-1) == want.argmax(-1)).sum()) for got, want in pairs)
        found[name] = {
            "logit_error": (error / size) ** 0.5,
            "argmax_agreement": agree / sum(want.shape[1] for _, want in pairs),
        }
    print(json.dumps({"model": arguments.model, "prompts": len(prompts), "forms": found}, indent=2))


def logits(model: DiffusionGemma, ids: list[int]) -> Tensor:
    """Of the prompt in the causal mode, and of two denoising steps."""
    generator = torch.Generator().manual_seed(len(ids))
    canvas = torch.randint(3, model.config.vocab_size, (1, model.config.canvas_length), generator=generator)
    cache = model.new_cache()
    hidden = model.encode(torch.tensor([ids]), cache)
    first = model.denoise(canvas, cache)
    second = model.denoise(first.argmax(-1), cache, model.soft_embedding(first / 0.6))
    return torch.cat([model.logits(hidden), first, second], dim=1)


def int4_model(path: Path, *, nearest: bool = False, weights: dict[str, Tensor] | None = None) -> DiffusionGemma:
    """mini in int4 and int8."""
    source, model = Source.open(path), load_model(path, quantize="int8")
    shapes = {name: tensor.shape for name, tensor in parameters(source).items()}
    matrices = {}
    for name, tensor in parameters(source).items():
        if RECIPES["int4"].form_of(shapes, name) == "int4":
            matrices[name] = (
                nearest_int4(tensor.read()) if nearest else rounded(tensor, "int4", (weights or {}).get(name))
            )
    place(model.backbone, matrices, torch.float32)
    return model


def float_model(path: Path, weights: dict[str, Tensor] | None) -> DiffusionGemma:
    """mini with experts that are what int4 stands for, and nothing else rounded."""
    model, source = load_model(path), Source.open(path)
    for name, tensor in parameters(source).items():
        if ".experts." in name:
            matrix = rounded(tensor, "int4", (weights or {}).get(name))
            assert isinstance(matrix, Int4Matrix)
            model.backbone.get_parameter(name).data.copy_(matrix.all_dequantised())
    return model


def parameters(source: Source) -> dict:
    """The tensors by parameter."""
    from redraft.model.model import shapes_of

    return source.parameters(shapes_of(source.config))


def nearest_int4(stack: Tensor) -> Int4Matrix:
    """Each group's step is its largest magnitude / 7: rounding in full precision first makes the search find it."""
    groups = stack.float().unflatten(-1, (-1, COLUMNS))
    step = groups.abs().amax(-1, keepdim=True) / 7
    plain = ((groups / step).round().clamp(-8, 7) * step).flatten(-2)
    parts = [quantise_int4(matrix) for matrix in plain]
    data, scale, row_scale = (torch.stack(tensors) for tensors in zip(*parts, strict=True))
    return Int4Matrix(data=data, scale=scale, row_scale=row_scale)


if __name__ == "__main__":
    main()
