"""The training objective: uniform-state diffusion on a canvas, next-token prediction on the clean sequence.

Source: facts shared by Google's reference, NeMo Automodel, TRL and Unsloth: t ~ U(1e-4, 1 - 1e-4) per example, each
canvas token replaced with probability t by a uniform draw from the vocabulary, mean cross entropy over all canvas
positions without a 1/t weight, plus the encoder's mean next-token cross entropy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from redraft.kernels.cross_entropy import weighted_cross_entropy
from redraft.model.model import DiffusionGemma
from redraft.sampler.accept import accept, renoise
from redraft.sampler.stop import UNSEEN, stable_and_confident
from redraft.train.attend import DenoiseBatch, EncodeBatch
from redraft.train.draws import Ahead, corrupt
from redraft.train.precision import moved

# Devices that leave settled rows out, which spares their work. An accelerator would have to be waited for.
DROPS_SETTLED = ("cpu",)

# B examples, T positions of the clean sequence, L positions of the canvas, V vocabulary


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Padded examples, one canvas scored in each. They stay on the host; `loss_of` moves what the model needs.

    Attributes:
        tokens: clean sequences, right-padded.
        lengths: of each sequence.
        prefix: positions that the canvas sees: the prompt and the clean canvases before it.
        canvas: the clean canvas, filled with end-of-sequence.
        scored: weight of each canvas position in the loss; 0 where it is not supervised (a truncated response has no
            real end, so its fill is not).
        causal: weight of each sequence position, whose *next* token is predicted.
        values: canvas positions inside argument values; logged apart.
        causal_values: like `values`, for `causal`.
    """

    tokens: Int[Tensor, "B T"]
    lengths: Int[Tensor, "B"]
    prefix: Int[Tensor, "B"]
    canvas: Int[Tensor, "B L"]
    scored: Float[Tensor, "B L"]
    causal: Float[Tensor, "B T"]
    values: Bool[Tensor, "B L"]
    causal_values: Bool[Tensor, "B T"]


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
        batch: the examples.
        generator: on the host; draws t, noise and which examples are self-conditioned. A seeded one repeats the loss.
        objective: how the loss is made.
    """
    config, draws, device = model.config, objective.draws, model.device
    clean = batch.canvas.repeat_interleave(draws, 0)
    noisy = moved(corrupt(clean, config.vocab_size, generator, draws, objective.noise_power)[0], device)
    prefix = moved(batch.prefix.repeat_interleave(draws, 0), device)
    tokens = moved(batch.tokens, device)
    positions = torch.arange(tokens.shape[1], device=device).expand_as(tokens)
    encode = EncodeBatch(config, tokens.shape[1], device)
    encoded = model.backbone(model.backbone.embed(tokens), positions, encode, causal=True)
    stored = [(keys.repeat_interleave(draws, 0), values.repeat_interleave(draws, 0)) for keys, values in encode.stored]

    ahead = Ahead.drawn(
        (noisy.shape[0], noisy.shape[1]),
        config.vocab_size,
        generator,
        self_conditioning=objective.self_conditioning,
        soft_temperature=objective.soft_temperature,
        rollout=objective.rollout,
        rollout_steps=objective.rollout_steps,
    )
    soft = None
    if ahead is not None:
        noisy, soft = _go_ahead(model, noisy, stored, prefix, ahead, objective)
    hidden = _denoise(model, noisy, soft, stored, prefix)

    scored, values = batch.scored.repeat_interleave(draws, 0), batch.values.repeat_interleave(draws, 0)
    diffusion, diffusion_rows = _mean_loss(model, hidden, clean, scored)
    causal, causal_rows = _mean_loss(model, encoded, batch.tokens.roll(-1, dims=1), batch.causal)
    parts = {
        "diffusion": _mean(diffusion_rows),
        "causal": _mean(causal_rows),
        "values": _mean(_marked(diffusion_rows, values[scored > 0])),
        "causal_values": _mean(_marked(causal_rows, batch.causal_values[batch.causal > 0])),
    }
    return diffusion + objective.causal_weight * causal, parts


def _denoise(
    model: DiffusionGemma,
    canvas: Int[Tensor, "B L"],
    soft: Float[Tensor, "B L D"] | None,
    stored: list[tuple[Tensor, Tensor]],
    prefix: Int[Tensor, "B"],
) -> Float[Tensor, "B L D"]:
    L = canvas.shape[1]
    embedded = model.backbone.self_conditioning.condition(model.backbone.embed(canvas), soft)
    attend = DenoiseBatch(model.config, stored, prefix, L)
    return model.backbone(embedded, prefix[:, None] + torch.arange(L, device=prefix.device), attend, causal=False)


@torch.no_grad()
def _go_ahead(
    model: DiffusionGemma,
    noisy: Int[Tensor, "B L"],
    stored: list[tuple[Tensor, Tensor]],
    prefix: Int[Tensor, "B"],
    ahead: Ahead,
    objective: Objective,
) -> tuple[Int[Tensor, "B L"], Float[Tensor, "B L D"]]:
    """(canvas, soft embedding) of every row before its scored pass.

    The chosen rows get the soft embedding of a first pass, or, in a rollout, the canvas and the soft embedding of one
    of the steps that the sampler takes before the row settles, each as likely as the others. The other rows keep their
    canvas and a true zero signal.
    """
    device = model.device
    rows, temperature = moved(ahead.rows, device), moved(ahead.temperature, device)
    canvas, soft = noisy[rows], None
    canvases = noisy.clone()
    signal = model.backbone.norm.weight.new_zeros(*noisy.shape, model.config.hidden_size)
    seen = torch.full_like(canvas, UNSEEN)
    held = [(keys[rows], values[rows]) for keys, values in stored]
    # Which of the chosen rows are still worked on, and which of these have not settled.
    live, going = torch.arange(len(rows), device=device), torch.ones(len(rows), dtype=torch.bool, device=device)
    for number, step in enumerate(ahead.steps):
        hidden = _denoise(model, canvas, soft, held, prefix[rows])
        stats = model.head(hidden, temperature[live], moved(step.uniform, device)[live])
        soft = stats.soft_embedding
        assert soft is not None
        if step.fresh is not None:
            accepted = accept(stats.entropy, objective.entropy_bound)
            canvas = renoise(accepted, stats.sample, moved(step.fresh, device)[live])
        # The one that is kept of several, none more likely than another: the s-th takes over with probability 1 / s.
        kept = (moved(step.lot, device)[live] * (number + 1) < 1) & going
        canvases[rows] = torch.where(kept[:, None], canvas, canvases[rows])
        signal[rows] = torch.where(kept[:, None, None], soft, signal[rows])
        settled = stable_and_confident(seen[None], stats.argmax, stats.entropy, objective.confidence_threshold)
        seen, going = stats.argmax, going & ~settled
        if device.type in DROPS_SETTLED and not bool(going.all()):
            live, rows, canvas, soft, seen = live[going], rows[going], canvas[going], soft[going], seen[going]
            held, going = [(keys[going], values[going]) for keys, values in held], going[going]
            if len(rows) == 0:
                break
    return canvases, signal


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
