"""Cross entropy of canvases at fixed noise, with a first pass's signal and without: where in a reply's making a model
is weak."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from redraft.kernels.cross_entropy import weighted_cross_entropy
from redraft.model.model import DiffusionGemma
from redraft.train.ahead import go_ahead
from redraft.train.batch import Batch
from redraft.train.behind import denoise, encode
from redraft.train.draws import Ahead, StepDraws
from redraft.train.precision import moved
from redraft.train.schedule import generator_of

TIMES = (0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
# Canvases that are looked at: at twelve passes each, more would take longer than the rest of an evaluation.
MOST = 64

# N canvases, L positions


@dataclass(frozen=True)
class AtNoise:
    """Sums over canvas positions.

    Attributes:
        t: the share of tokens that was replaced.
        signal: whether a first pass gave one.
        replaced, kept: (nats, positions) of tokens that noise stood for, and of those that stood as they are.
    """

    t: float
    signal: bool
    replaced: tuple[float, int]
    kept: tuple[float, int]

    def figures(self) -> dict[str, float]:
        """For the log, in nats a token."""
        nats, count = (a + b for a, b in zip(self.replaced, self.kept, strict=True))
        each = {"loss": (nats, count), "replaced": self.replaced, "kept": self.kept}
        means = {name: total / n if n else float("nan") for name, (total, n) in each.items()}
        return {"t": self.t, "signal": float(self.signal)} | means


@torch.no_grad()
def at_fixed_noise(
    model: DiffusionGemma, batches: list[Batch], seed: int, see: Callable[[Batch], Batch] = lambda batch: batch
) -> Iterator[AtNoise]:
    """The cross entropy of the first `MOST` canvases of some batches at each of `TIMES`, on the same noise every time.

    A reply's own tokens count, fill does not. `see` looks at a batch's pictures.
    """
    chosen, count = [], 0
    for batch in batches:
        if count < MOST:
            chosen.append(batch)
            count += len(batch.canvas)
    sums: dict[tuple[float, bool], list[tuple[float, int]]] = {}
    for number, batch in enumerate(chosen):
        _, behind = encode(model, see(batch))
        generator = torch.Generator().manual_seed((seed << 32) + number)
        level = torch.rand(batch.canvas.shape, generator=generator)
        noise = torch.randint(model.config.vocab_size, batch.canvas.shape, generator=generator)
        uniform = torch.rand(batch.canvas.shape, generator=generator)
        for t in TIMES:
            replaced = level < t
            noisy = moved(torch.where(replaced, noise, batch.canvas), model.device)
            every = torch.arange(len(noisy))
            first = Ahead(every, torch.ones(len(noisy)), [StepDraws(uniform, None, torch.zeros(len(noisy)))])
            # Of one pass, neither number is used.
            _, soft = go_ahead(model, noisy, behind, first, entropy_bound=0.0, confidence_threshold=0.0)
            for signal in (False, True):
                hidden = denoise(model, noisy, soft if signal else None, behind)
                found = _sums(model, hidden, batch, replaced)
                before = sums.setdefault((t, signal), [(0.0, 0), (0.0, 0)])
                sums[t, signal] = [(a[0] + b[0], a[1] + b[1]) for a, b in zip(before, found, strict=True)]
    for (t, signal), (of_replaced, of_kept) in sums.items():
        yield AtNoise(t, signal, of_replaced, of_kept)


@torch.no_grad()
def held_out_losses(
    batches: list[Batch], seed: int, loss_of: Callable[[Batch, torch.Generator], tuple[Tensor, Mapping[str, Tensor]]]
) -> dict[str, float]:
    """The means of all parts of the loss over some batches, with the same noise every time; none where none is.

    `loss_of` says what a batch's are, with what draws its noise.
    """
    found: list[dict[str, float]] = []
    for number, batch in enumerate(batches):
        loss, parts = loss_of(batch, generator_of(2**31 + seed, number))
        found.append({key: float(value) for key, value in {**parts, "loss": loss}.items()})
    return {key: _mean([part[key] for part in found]) for key in found[0]} if found else {}


def _mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else float("nan")


def _sums(
    model: DiffusionGemma, hidden: Float[Tensor, "N L D"], batch: Batch, replaced: Bool[Tensor, "N L"]
) -> list[tuple[float, int]]:
    """(nats, positions) of replaced tokens and of others."""
    counts = (batch.scored > 0) if batch.content is None else (batch.scored > 0) & batch.content
    places: Int[Tensor, "K"] = counts.flatten().nonzero()[:, 0]
    if len(places) == 0:
        return [(0.0, 0), (0.0, 0)]
    targets = moved(batch.canvas.flatten()[places], hidden.device)
    rows = hidden.flatten(0, 1).index_select(0, moved(places, hidden.device))
    weight, cap = torch.ones(len(places), device=hidden.device), model.config.final_logit_softcapping
    _, losses = weighted_cross_entropy(rows, model.embedding, targets, weight, cap)
    marks, nats = replaced.flatten()[places], losses.double().cpu()
    return [(float(nats[side].sum()), int(side.sum())) for side in (marks, ~marks)]
