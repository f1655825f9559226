"""Which weights a model has, in a few digits: what is fitted to one model must know another by more than its name."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

# Numbers that are looked at of each tensor, evenly spaced: whoever trains or merges changes nearly all of them.
_LOOKED_AT = 64


def fingerprint(model: nn.Module) -> str:
    """Sixteen hexadecimal digits that follow from names, shapes and a sample of the numbers of every tensor in memory.

    It differs where the same weights are held in another form. Of matrices that a library has packed for itself, name
    and shape alone count: their scales and the other tensors tell models apart.
    """
    digest = hashlib.sha256()
    for name, tensor in _tensors(model):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
        # What oneDNN has packed for itself can only be unpacked as a whole.
        if tensor.layout == torch.strided:
            step = max(1, tensor.numel() // _LOOKED_AT)
            sample = tensor.detach().reshape(-1)[::step][:_LOOKED_AT].cpu().contiguous()
            digest.update(sample.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from sorted(model.state_dict().items())
    for name, module in sorted(model.named_modules()):
        # Quantised matrices are no parameters.
        for key, value in sorted(vars(module).items()):
            if dataclasses.is_dataclass(value):
                for each in dataclasses.fields(value):
                    part = getattr(value, each.name)
                    if isinstance(part, Tensor) and part.numel():
                        yield f"{name}.{key}.{each.name}", part
