"""The training objective: uniform-state diffusion on a canvas, next-token prediction on the clean sequence.

Source: facts shared by Google's reference, NeMo Automodel, TRL and Unsloth: t ~ U(1e-4, 1 - 1e-4) per example, each
canvas token replaced with probability t by a uniform draw from the vocabulary, mean cross entropy over all canvas
positions without a 1/t weight, plus the encoder's mean next-token cross entropy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from redraft.kernels.cross_entropy import weighted_cross_entropy
from redraft.model.model import DiffusionGemma
from redraft.train.ahead import go_ahead
from redraft.train.batch import Batch
from redraft.train.behind import denoise, encode
from redraft.train.draws import Ahead, corrupt
from redraft.train.precision import moved

# R rows, T positions of a row, N canvases, M noisy ones of these, L positions of a canvas


@dataclass(frozen=True, kw_only=True)
class Objective:
    """How the loss is made; the defaults are the published objective.

    Attributes:
        causal_weight: factor of the encoder's loss.
        self_conditioning: probability that an example gets the soft embedding of a first pass.
        soft_temperature: range of the temperature of that soft embedding; generation uses t_min..t_max.
        draws: noisy canvases made of each example over one encoding.
        noise_power: t = 1 - (1 - u)^power of a uniform u; above 1, more canvases are close to pure noise, where a
            reply's shape is decided.
        rollout: share of the batches whose self-conditioned examples go on from where the sampler takes them, so that
            the model learns to mend its own mistakes and not random ids alone.
        rollout_steps: the most steps that such a batch takes before its scored one.
        entropy_bound, confidence_threshold: nats, of those steps.
    """

    causal_weight: float = 1.0
    self_conditioning: float = 0.5
    soft_temperature: tuple[float, float] = (1.0, 1.0)
    draws: int = 1
    noise_power: float = 1.0
    rollout: float = 0.0
    rollout_steps: int = 1
    entropy_bound: float = 0.1
    confidence_threshold: float = 0.005


def loss_of(
    model: DiffusionGemma, batch: Batch, generator: torch.Generator, objective: Objective
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """The loss of a batch, and its parts in nats for the log, all on the model's device.

    Nothing here waits for the device: what decides shapes is drawn and counted on the host.

    Args:
        model: with gradients on.
        batch: rows and canvases.
        generator: on the host; draws t, noise and which canvases are self-conditioned. A seeded one repeats the loss.
        objective: how the loss is made.
    """
    draws, vocab_size = objective.draws, model.config.vocab_size
    clean = batch.canvas.repeat_interleave(draws, 0)
    # Where every canvas of a row is scored, their t are spread over the step.
    noisy, _ = corrupt(clean, vocab_size, generator, draws, objective.noise_power, spread=batch.row is not None)

    def ahead() -> Ahead | None:
        return Ahead.drawn(
            (noisy.shape[0], noisy.shape[1]),
            vocab_size,
            generator,
            self_conditioning=objective.self_conditioning,
            soft_temperature=objective.soft_temperature,
            rollout=objective.rollout,
            rollout_steps=objective.rollout_steps,
        )

    return loss_at(model, batch, noisy, ahead, objective)


def loss_at(
    model: DiffusionGemma,
    batch: Batch,
    noisy: Int[Tensor, "M L"],
    ahead: Callable[[], Ahead | None],
    objective: Objective,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """`loss_of` with noise that is given: M canvases, `draws` of each in turn.

    Args:
        model, batch, objective: as there.
        noisy: the canvases as the model sees them, on the host.
        ahead: draws which of them get a signal, once the clean rows are encoded; layers that drop out draw before it.
    """
    draws = objective.draws
    encoded, behind = encode(model, batch, draws)
    canvas, soft = moved(noisy, model.device), None
    if (drawn := ahead()) is not None:
        canvas, soft = go_ahead(
            model,
            canvas,
            behind,
            drawn,
            entropy_bound=objective.entropy_bound,
            confidence_threshold=objective.confidence_threshold,
        )
    hidden = denoise(model, canvas, soft, behind)

    clean, scored, values = (x.repeat_interleave(draws, 0) for x in (batch.canvas, batch.scored, batch.values))
    targets = batch.tokens.roll(-1, dims=1) if batch.targets is None else batch.targets
    diffusion, diffusion_rows = _mean_loss(model, hidden, clean, scored)
    causal, causal_rows = _mean_loss(model, encoded, targets, batch.causal)
    parts = {
        "diffusion": _mean(diffusion_rows),
        "causal": _mean(causal_rows),
        "values": _mean(_marked(diffusion_rows, values[scored > 0])),
        "causal_values": _mean(_marked(causal_rows, batch.causal_values[batch.causal > 0])),
    }
    if batch.content is not None:
        content = batch.content.repeat_interleave(draws, 0)[scored > 0]
        parts |= {"content": _mean(_marked(diffusion_rows, content)), "fill": _mean(_marked(diffusion_rows, ~content))}
    return diffusion + objective.causal_weight * causal, parts


def _mean_loss(
    model: DiffusionGemma,
    hidden: Float[Tensor, "B T D"],
    targets: Int[Tensor, "B T"],
    weight: Float[Tensor, "B T"],
) -> tuple[Float[Tensor, ""], Float[Tensor, "N"]]:
    """(weighted mean cross entropy, that of each position of positive weight); 0 where there is none, never NaN.

    `targets` and `weight` are on the host, which counts.
    """
    chosen = weight.flatten().nonzero()[:, 0]
    if len(chosen) == 0:
        return hidden.sum() * 0.0, hidden.new_zeros(0)
    chosen_weight = weight.flatten()[chosen]
    return weighted_cross_entropy(
        hidden.flatten(0, 1).index_select(0, moved(chosen, hidden.device)),
        model.embedding,
        moved(targets.flatten()[chosen], hidden.device),
        moved(chosen_weight / chosen_weight.sum(), hidden.device),
        model.config.final_logit_softcapping,
    )


def _marked(losses: Float[Tensor, "N"], marks: Bool[Tensor, "N"]) -> Float[Tensor, "M"]:
    return losses.index_select(0, moved(marks.nonzero()[:, 0], losses.device)) if len(losses) else losses


def _mean(losses: Float[Tensor, "N"]) -> Float[Tensor, ""]:
    return losses.mean() if len(losses) else torch.full((), torch.nan, device=losses.device)
