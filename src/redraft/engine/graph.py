"""A whole denoising step of a batch, and the encoding of a canvas, as one launch each: nothing of a step goes to the
host but what decides whether to go on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from redraft.engine.canvas import NOISE_STEPS
from redraft.engine.launch import Launch
from redraft.kernels.head_stats import HeadStats
from redraft.model.cache import SequenceCache
from redraft.model.model import DiffusionGemma
from redraft.placement.canvas_cache import CanvasCache, DenoiseStatic, EncodeStatic
from redraft.sampler.advance import Canvases, Found, TextStop
from redraft.sampler.samplers import Rule

# B canvases, L positions, H remembered canvases, S steps of a block of noise, D hidden


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the host learns of a step.

    Attributes:
        settled: the canvas stands still and the model is sure.
        stood, left_nats: of its text, see `done_by_text`.
        finite: the model's output is.
        mean_entropy: nats.
        full: a sampler holds all positions.
    """

    settled: bool
    stood: int
    left_nats: float
    finite: bool
    mean_entropy: float
    full: bool


class StepGraph:
    """Canvases at fixed addresses, and the step that moves them: embedding, self-conditioning, backbone, head, accept,
    renoise, stop. Lengths, temperatures, noise and rules are read from the device, so one capture serves every batch
    of this shape.

    The host reads a verdict of six numbers a canvas after each step. Reading it a step late would hide a copy of some
    microseconds, and cost every canvas a step.

    Where the graph is `held`, somebody beside it has the last word on some rows: the launch ends behind the head, with
    `hidden` and `found` at fixed addresses, and what comes after it is told by itself once they have been written.

    Attributes:
        cache: what the canvases see of their prefixes.
        canvases: what a step reads and writes.
        soft: what the next step is conditioned on.
        hidden: of the last step; None where the graph is not held.
        found: what the head has found in it; None likewise.
    """

    def __init__(
        self,
        model: DiffusionGemma,
        *,
        batch_size: int,
        length: int,
        capacity: int,
        threshold: int,
        held: bool = False,
    ) -> None:
        """`threshold` is H, the stability threshold; see `CanvasCache` for `capacity`."""
        B, L, device = batch_size, length, model.device
        self._model = model
        self.cache = CanvasCache(model.config, B, capacity, model.dtype, device)
        self.canvases = Canvases.empty(B, L, threshold, NOISE_STEPS, device)
        # Zeros are a true zero signal: the conditioning MLP has no bias.
        self.soft: Float[Tensor, "B L D"] = torch.zeros(
            B, L, model.config.hidden_size, dtype=model.dtype, device=device
        )
        self.hidden: Float[Tensor, "B L D"] | None = torch.zeros_like(self.soft) if held else None
        self.found = Found.empty(B, L, device) if held else None
        self._launch = Launch(self._find if held else self._step, device, model.without_branches)

    def place(
        self,
        row: int,
        sequence: SequenceCache,
        *,
        tokens: Int[Tensor, "L"],
        soft: Float[Tensor, "L D"] | None,
        history: Int[Tensor, "H 1 L"],
        kept: Bool[Tensor, "L"] | None,
        rule: Rule,
        confidence_threshold: float,
        stop: TextStop | None = None,
    ) -> None:
        """Puts a canvas, and what it sees of its prefix, into a row; `stop` is what is known of its text."""
        self.cache.fill(row, sequence)
        self.soft[row] = 0.0 if soft is None else soft
        canvases = self.canvases
        canvases.tokens[row] = tokens
        canvases.history[:, row] = history[:, 0]
        canvases.held[row] = False if kept is None else kept
        canvases.rules[:, row] = torch.tensor(rule.numbers, device=self._model.device)
        canvases.confidence[row] = confidence_threshold
        canvases.place_stop(row, stop or TextStop())

    def feed(
        self, row: int, uniform: Float[Tensor, "S L"], noise: Int[Tensor, "S L"], temperatures: list[float], place: int
    ) -> None:
        """Gives a row a block of noise and the temperatures of its steps; the next step is number `place` of it."""
        canvases = self.canvases
        canvases.uniforms[:, row] = uniform
        canvases.noise[:, row] = noise
        canvases.temperatures[:, row] = torch.tensor(temperatures, device=self._model.device)
        canvases.place[row] = place

    def clear(self, row: int) -> None:
        """Leaves a row without a canvas: it is moved all the same, and nobody looks at it."""
        self.cache.clear(row)
        self.soft[row] = 0.0

    def close(self) -> None:
        """Gives its memory back."""
        self._launch.close()

    def step(self) -> list[Verdict]:
        """Moves every canvas by one step."""
        self._launch()
        return self.verdicts()

    def find(self) -> None:
        """The first part of a step of a held graph: all that is the model's."""
        self._launch()

    def end(self) -> None:
        """The second part: moves every canvas by what `found` says now."""
        assert self.found is not None
        self.canvases.advance(self.found)

    def verdicts(self) -> list[Verdict]:
        """Of the last step; the host waits for it."""
        return [
            Verdict(
                settled=bool(settled),
                finite=bool(finite),
                mean_entropy=mean,
                full=bool(full),
                stood=int(stood),
                left_nats=left,
            )
            for settled, finite, mean, full, stood, left in self.canvases.verdict.T.tolist()
        ]

    def _step(self) -> None:
        _, stats = self._forward()
        self.canvases.advance(stats)
        self.soft.copy_(stats.soft_embedding)

    def _find(self) -> None:
        assert self.hidden is not None
        assert self.found is not None
        hidden, stats = self._forward()
        self.hidden.copy_(hidden)
        self.found.argmax.copy_(stats.argmax)
        self.found.sample.copy_(stats.sample)
        self.found.entropy.copy_(stats.entropy)
        self.found.best_log_prob.copy_(stats.best_log_prob)
        self.soft.copy_(stats.soft_embedding)

    def _forward(self) -> tuple[Float[Tensor, "B L D"], HeadStats]:
        hidden = self._model.denoise_with(
            self.canvases.tokens, self.cache.lengths, DenoiseStatic(self.cache), self.soft
        )  # fmt: skip
        return hidden, self._model.head(hidden, *self.canvases.draws())


class EncodeGraph:
    """The encoding of a committed canvas, behind a prefix of up to `capacity` positions."""

    def __init__(self, model: DiffusionGemma, *, length: int, capacity: int) -> None:
        self._model, self.capacity = model, capacity
        self._cache = CanvasCache(model.config, 1, capacity, model.dtype, model.device)
        self._attend = EncodeStatic(self._cache, length)
        self._token_ids: Int[Tensor, "1 L"] = torch.zeros(1, length, dtype=torch.long, device=model.device)
        self._hidden: Float[Tensor, "1 L D"] = torch.zeros(
            1, length, model.config.hidden_size, dtype=model.dtype, device=model.device
        )
        self._launch = Launch(self._encode, model.device, model.without_branches)

    def __call__(self, token_ids: Int[Tensor, "1 L"], sequence: SequenceCache) -> Float[Tensor, "1 L D"]:
        """Appends the ids to a sequence; returns their hidden states, which the next call writes over."""
        self._cache.fill(0, sequence)
        self._token_ids.copy_(token_ids)
        self._launch()
        for layer, keys, values in zip(sequence.layers, self._attend.new_keys, self._attend.new_values, strict=True):
            layer.append(keys[0], values[0])
        sequence.advance(token_ids.shape[1])
        return self._hidden

    def close(self) -> None:
        """Gives its memory back."""
        self._launch.close()

    def _encode(self) -> None:
        self._attend.begin()
        self._hidden.copy_(self._model.encode_with(self._token_ids, self._cache.lengths, self._attend))
