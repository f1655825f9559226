"""What runs through the columns of the experts' matrices on given texts: what rounding them should spare."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from redraft.checkpoint.formats.sidecar import sidecar
from redraft.checkpoint.load import load_model
from redraft.checkpoint.source import Source
from redraft.checkpoint.stored import StoredTensor
from redraft.core.errors import OptionError
from redraft.engine.offload import streamed_layers
from redraft.model.model import shapes_of
from redraft.text.tokenizer import Tokenizer

_TOKENS = 512
# Columns that nothing came through in these texts keep a little weight.
_LEAST = 0.01


class _Observed(nn.Module):
    """A layer's experts, and the sums of squares of what is multiplied with their columns."""

    def __init__(self, inner: nn.Module, gate_up: StoredTensor, down: StoredTensor) -> None:
        super().__init__()
        self.inner, self.gate_up, self.down = inner, gate_up, down
        self.wide, self.narrow = (torch.zeros(t.shape[0], t.shape[2]) for t in (gate_up, down))

    def forward(
        self, x: Float[Tensor, "N D"], index: Int[Tensor, "N A"], weight: Float[Tensor, "N A"]
    ) -> Float[Tensor, "N D"]:
        for expert in index.unique().tolist():
            rows = x[(index == expert).any(-1)].float()
            gate, up = (rows @ self.gate_up.read(expert).float().T).chunk(2, dim=-1)
            self.wide[expert] += rows.square().sum(0)
            self.narrow[expert] += (F.gelu(gate, approximate="tanh") * up).square().sum(0)
        return self.inner(x, index, weight)


@torch.no_grad()
def importance(path: Path, texts: Iterable[str]) -> dict[str, Float[Tensor, "E K"]]:
    """The mean square of what each column of the experts is multiplied with, by parameter; see `quantize`.

    Args:
        path: of the checkpoint.
        texts: of the kind that the model will read and write; the first 512 tokens of each count.

    Raises:
        OptionError: the checkpoint has no tokenizer, or there is no text.
    """
    source = Source.open(path)
    tokenizer = Tokenizer.from_directory(sidecar(path))
    if tokenizer is None:
        raise OptionError(f"{path} has no tokenizer: texts cannot be read for calibration")
    lines = [text for text in texts if text.strip()]
    if not lines:
        raise OptionError("calibration needs at least one line of text")
    streamed = streamed_layers(
        source,
        device=torch.device("cpu"),
        dtype=torch.float32,
        quantize=None,
        memory_bytes=None,
        max_context=_TOKENS,
    )
    model = load_model(source, streamed=streamed)
    tensors = source.parameters(shapes_of(source.config))
    observed = {}
    for number, layer in enumerate(model.backbone.layers):
        assert isinstance(layer.experts, nn.Module)
        stacks = (tensors[f"layers.{number}.experts.{name}"] for name in ("gate_up_proj", "down_proj"))
        observed[number] = layer.experts = _Observed(layer.experts, *stacks)
    for text in lines:
        ids = torch.tensor([tokenizer.encode(text)[:_TOKENS]])
        cache = model.new_cache(max_length=ids.shape[1])
        model.encode(ids, cache)
    found = {}
    for number, layer in observed.items():
        found[f"layers.{number}.experts.gate_up_proj"] = _relative(layer.wide)
        found[f"layers.{number}.experts.down_proj"] = _relative(layer.narrow)
    return found


def _relative(squares: Float[Tensor, "E K"]) -> Float[Tensor, "E K"]:
    """Against the mean of each expert's columns; an expert that no row came to weighs all alike."""
    mean = squares.mean(-1, keepdim=True)
    return torch.where(mean > 0, squares / mean, 1.0).clamp_(min=_LEAST)
