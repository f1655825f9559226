"""Which base an adapter belongs to, in a few digits that do not depend on the machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from redraft.checkpoint.source import Source
from redraft.kernels.int8 import PackedInt8
from redraft.kernels.matrices.float8 import Float8Matrix
from redraft.kernels.matrices.int8 import Int8Matrix
from redraft.model.config import ModelConfig
from redraft.model.feedforward import Experts
from redraft.model.model import DiffusionGemma, shapes_of
from redraft.placement.quantized import Float8Linear, FrozenExperts, Int8Embedding, Int8Linear

# Numbers that are looked at of each tensor, evenly spaced.
_LOOKED_AT = 64


def fingerprint(model: DiffusionGemma) -> dict[str, str]:
    """What tells a base from others; of a model without an adapter.

    Returns:
        family: digits of what no form rounds, norms, scalars and routers, and of all shapes. The same checkpoint has
            the same in every form.
        weights: digits of the matrices in the form that they are held in.
        experts: those of the experts; empty where they lie on disk or in host memory.
        form: "float", or how they are quantised.
    """
    held = all(isinstance(layer.experts, (Experts, FrozenExperts)) for layer in model.backbone.layers)
    modules = sorted(model.backbone.named_modules())
    scales = ((f"{name}.{n}", scale) for name, module in modules for n, scale in enumerate(_scales(module)))
    found = _digits(model.config, sorted(model.backbone.state_dict().items()), scales)
    return found | {"experts": found["experts"] if held else "", "form": model.quantization or "float"}


def fingerprint_of(source: Source) -> dict[str, str]:
    """The same of a checkpoint of floats that nobody has loaded."""
    tensors = source.parameters(shapes_of(source.config))
    return _digits(source.config, ((name, tensors[name].read()) for name in sorted(tensors)), ()) | {"form": "float"}


def _digits(
    config: ModelConfig, tensors: Iterable[tuple[str, Tensor]], scales: Iterable[tuple[str, Tensor]]
) -> dict[str, str]:
    digests = {part: hashlib.sha256() for part in ("family", "weights", "experts")}
    digests["family"].update(repr(config).encode())
    for name, tensor in tensors:
        never_rounded = tensor.ndim < 2 or ".router." in name
        _add(digests["family" if never_rounded else _part(name)], name, tensor)
    for name, scale in scales:
        _add(digests[_part(name)], name, scale)
    return {part: digest.hexdigest()[:16] for part, digest in digests.items()}


def differs(known: Mapping[str, str], here: Mapping[str, str]) -> bool:
    """Whether two fingerprints are of two bases, as far as what both say can tell."""
    parts = ["family"] if known.get("form") != here.get("form") else ["family", "weights", "experts"]
    return any(known.get(part) and here.get(part) and known[part] != here[part] for part in parts)


def _part(name: str) -> str:
    return "experts" if ".experts." in name else "weights"


def _add(digest: hashlib._Hash, name: str, tensor: Tensor) -> None:
    """Values rounded to bfloat16: a base in it and the same one widened are one."""
    digest.update(f"{name} ".encode())
    flat = tensor.detach().reshape(-1)
    sample = flat[:: max(1, flat.numel() // _LOOKED_AT)][:_LOOKED_AT].to("cpu", torch.bfloat16).contiguous()
    digest.update(sample.view(torch.uint8).numpy().tobytes())


def _scales(module: nn.Module) -> list[Tensor]:
    """What says most of quantised weights, and lies the same in every layout: the scales of their rows."""
    if isinstance(module, Int8Linear):
        return [module.packed.scale]
    if isinstance(module, (Float8Linear, Int8Embedding)):
        return [module.matrix.scale]
    if not isinstance(module, FrozenExperts):
        return []
    found = []
    for stack in (module.gate_up, module.down):
        if isinstance(stack, Sequence):
            found.append(torch.stack([part.scale for part in stack if isinstance(part, PackedInt8)]))
        elif isinstance(stack, (Int8Matrix, Float8Matrix)):
            found.append(stack.scale)
        else:
            # Tiles of a GPU are filled up with rows of no weight.
            rows = stack.row_scale  # type: ignore[union-attr]
            found.append(rows.amax(-1))
    return found
