"""What comes before a scored pass: the first pass that gives its signal, or steps of the sampler."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from redraft.model.model import DiffusionGemma
from redraft.sampler.accept import accept, renoise
from redraft.sampler.stop import UNSEEN, stable_and_confident
from redraft.train.behind import Behind, denoise
from redraft.train.draws import Ahead
from redraft.train.precision import moved

# Devices that leave settled rows out, which spares their work. An accelerator would have to be waited for.
DROPS_SETTLED = ("cpu",)

# B canvases, L positions of a canvas


@torch.no_grad()
def go_ahead(
    model: DiffusionGemma,
    noisy: Int[Tensor, "B L"],
    behind: Behind,
    ahead: Ahead,
    *,
    entropy_bound: float,
    confidence_threshold: float,
) -> tuple[Int[Tensor, "B L"], Float[Tensor, "B L D"]]:
    """(canvas, soft embedding) of every row before its scored pass.

    The chosen rows get the soft embedding of a first pass, or, in a rollout, the canvas and the soft embedding of one
    of the steps that the sampler takes before the row settles, each as likely as the others. The other rows keep their
    canvas and a true zero signal. See `Objective` for the rest.
    """
    device = model.device
    rows, temperature = moved(ahead.rows, device), moved(ahead.temperature, device)
    canvas, soft = noisy[rows], None
    canvases = noisy.clone()
    signal = model.backbone.norm.weight.new_zeros(*noisy.shape, model.config.hidden_size)
    seen = torch.full_like(canvas, UNSEEN)
    held = behind.of(rows)
    # Which of the chosen rows are still worked on, and which of these have not settled.
    live, going = torch.arange(len(rows), device=device), torch.ones(len(rows), dtype=torch.bool, device=device)
    for number, step in enumerate(ahead.steps):
        hidden = denoise(model, canvas, soft, held)
        stats = model.head(hidden, temperature[live], moved(step.uniform, device)[live])
        soft = stats.soft_embedding
        assert soft is not None
        if step.fresh is not None:
            accepted = accept(stats.entropy, entropy_bound)
            canvas = renoise(accepted, stats.sample, moved(step.fresh, device)[live])
        # The one that is kept of several, none more likely than another: the s-th takes over with probability 1 / s.
        kept = (moved(step.lot, device)[live] * (number + 1) < 1) & going
        canvases[rows] = torch.where(kept[:, None], canvas, canvases[rows])
        signal[rows] = torch.where(kept[:, None, None], soft, signal[rows])
        settled = stable_and_confident(seen[None], stats.argmax, stats.entropy, confidence_threshold)
        seen, going = stats.argmax, going & ~settled
        if device.type in DROPS_SETTLED and not bool(going.all()):
            live, rows, canvas, soft, seen = live[going], rows[going], canvas[going], soft[going], seen[going]
            held, going = held.of(going), going[going]
            if len(rows) == 0:
                break
    return canvases, signal
