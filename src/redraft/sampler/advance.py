"""The end of a denoising step, in place: what was accepted, the next canvas, and whether there is to be one."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from redraft.kernels.head_stats import HeadStats
from redraft.kernels.triton.fallback import attempt, on_gpu
from redraft.sampler.samplers import NUMBERS, Seen, move
from redraft.sampler.stop import UNSEEN, new_history, remember, stable_and_confident
from redraft.sampler.text_stop import NO_ID, done_by_text, same_text, text_places

# B canvases, L positions, H remembered canvases, S steps of a block of noise, E ids that end a turn, R numbers of a
# rule

# One program of the Triton form holds a whole canvas.
_MAX_LENGTH = 1024
# Ids that end a turn, of one canvas; Gemma has three.
MOST_ENDS = 8


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the end of a step reads of the head's results, at fixed addresses.

    Attributes:
        argmax, sample: token ids.
        entropy: nats.
        best_log_prob: nats, of `argmax`.
    """

    argmax: Int[Tensor, "B L"]
    sample: Int[Tensor, "B L"]
    entropy: Float[Tensor, "B L"]
    best_log_prob: Float[Tensor, "B L"]

    @classmethod
    def empty(cls, batch_size: int, length: int, device: torch.device) -> Found:
        """Of a step that is still to come."""
        argmax, sample = torch.zeros(2, batch_size, length, dtype=torch.long, device=device)
        entropy, best_log_prob = torch.zeros(2, batch_size, length, device=device)
        return cls(argmax=argmax, sample=sample, entropy=entropy, best_log_prob=best_log_prob)


@dataclass(frozen=True, kw_only=True)
class TextStop:
    """What the stop by a canvas's text needs to know of it.

    Attributes:
        end_ids: that end the turn, `MOST_ENDS` at most.
        settled_nats, settled_steps: see `done_by_text`.
        argmax: [L] of the step before; None where there was none.
        stood: steps since its text changed.
    """

    end_ids: Collection[int] = ()
    settled_nats: float = 0.0
    settled_steps: int = 0
    argmax: Tensor | None = None
    stood: int = 0


@dataclass(frozen=True, kw_only=True)
class Canvases:
    """Canvases at fixed addresses, with all that the end of a step reads and writes.

    Attributes:
        tokens: the canvas.
        history: canvases that were the likeliest, the newest last.
        held: positions that keep their tokens.
        argmax, entropy, accepted: of the last step.
        temperatures, uniforms, noise: of the steps of a block.
        place: the step of the block that comes next.
        rules: what is accepted, as `move` reads it.
        confidence: nats below which a canvas may stop.
        ends: ids that end the turn, `NO_ID` where there are no more.
        settled_nats, settled_steps: see `done_by_text`.
        stood: steps since the text changed.
        verdict: of the last step: whether the canvas is settled, by the reference's rule (2) or by its text alone (1);
            whether its entropies are finite, their mean, and whether a sampler holds all positions.
    """

    tokens: Int[Tensor, "B L"]
    held: Bool[Tensor, "B L"]
    history: Int[Tensor, "H B L"]
    argmax: Int[Tensor, "B L"]
    entropy: Float[Tensor, "B L"]
    accepted: Bool[Tensor, "B L"]
    temperatures: Float[Tensor, "S B"]
    uniforms: Float[Tensor, "S B L"]
    noise: Int[Tensor, "S B L"]
    place: Int[Tensor, "B"]
    rules: Float[Tensor, "R B"]
    confidence: Float[Tensor, "B"]
    ends: Int[Tensor, "B E"]
    settled_nats: Float[Tensor, "B"]
    settled_steps: Int[Tensor, "B"]
    stood: Int[Tensor, "B"]
    verdict: Float[Tensor, "4 B"]

    @classmethod
    def empty(cls, batch_size: int, length: int, threshold: int, steps: int, device: torch.device) -> Canvases:
        """Canvases that have seen nothing; `threshold` is H, `steps` S."""
        B, L, S = batch_size, length, steps

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        return cls(
            tokens=zeros(B, L, dtype=torch.long), held=zeros(B, L, dtype=torch.bool),
            history=new_history(threshold, B, L, device),
            argmax=torch.full((B, L), UNSEEN, device=device), entropy=zeros(B, L),
            accepted=zeros(B, L, dtype=torch.bool),
            temperatures=torch.ones(S, B, device=device), uniforms=zeros(S, B, L),
            noise=zeros(S, B, L, dtype=torch.long), place=zeros(B, dtype=torch.long),
            rules=zeros(NUMBERS, B), confidence=zeros(B), ends=torch.full((B, MOST_ENDS), NO_ID, device=device),
            settled_nats=zeros(B), settled_steps=zeros(B, dtype=torch.long), stood=zeros(B, dtype=torch.long),
            verdict=zeros(4, B),
        )  # fmt: skip

    def place_stop(self, row: int, stop: TextStop) -> None:
        """Puts what is known of a canvas's stop into a row."""
        ends = [*sorted(stop.end_ids), *[NO_ID] * (MOST_ENDS - len(stop.end_ids))]
        self.ends[row] = torch.tensor(ends, device=self.ends.device)
        self.settled_nats[row], self.settled_steps[row] = stop.settled_nats, stop.settled_steps
        self.argmax[row] = UNSEEN if stop.argmax is None else stop.argmax
        self.stood[row] = stop.stood

    def draws(self) -> tuple[Float[Tensor, "B L"], Float[Tensor, "B L"]]:
        """(temperature, uniform draw) of each position in the step that comes."""

        def reference() -> tuple[Tensor, Tensor]:
            rows = torch.arange(len(self.place), device=self.place.device)
            uniform = self.uniforms[self.place, rows]
            return self.temperatures[self.place, rows][:, None].expand_as(uniform), uniform

        def fast() -> tuple[Tensor, Tensor]:
            from redraft.kernels.triton.advance import draws_triton

            return draws_triton(self.temperatures, self.uniforms, self.place)

        return attempt("draws", fast, reference) if on_gpu(self.place) else reference()

    def advance(self, stats: HeadStats | Found) -> None:
        """Ends a step that found these statistics."""
        if not on_gpu(self.place) or self.tokens.shape[1] > _MAX_LENGTH:
            self._advance(stats)
            return

        def fast() -> None:
            from redraft.kernels.triton.advance import advance_triton

            advance_triton(
                stats.entropy, stats.best_log_prob, stats.argmax, stats.sample, self.noise, self.rules, self.confidence,
                self.ends, self.settled_nats, self.settled_steps, history=self.history, tokens=self.tokens,
                held=self.held, kept_argmax=self.argmax, kept_entropy=self.entropy, accepted=self.accepted,
                stood=self.stood, verdict=self.verdict, place=self.place,
            )  # fmt: skip

        attempt("advance", fast, lambda: self._advance(stats))

    def _advance(self, stats: HeadStats | Found) -> None:
        fresh = self.noise[self.place, torch.arange(len(self.place), device=self.place.device)]
        moved = move(
            self.rules,
            Seen(
                tokens=self.tokens, argmax=stats.argmax, sample=stats.sample, entropy=stats.entropy,
                best_log_prob=stats.best_log_prob, fresh=fresh, held=self.held,
            ),
        )  # fmt: skip
        settled = stable_and_confident(self.history, stats.argmax, stats.entropy, self.confidence)
        finite = torch.isfinite(stats.entropy).all(-1)
        same = same_text(self.argmax, stats.argmax, self.ends)
        self.stood.copy_(torch.where(same, self.stood + 1, 0))
        by_text = done_by_text(
            self.stood,
            torch.where(text_places(stats.argmax, self.ends), stats.entropy, 0.0).sum(-1),
            stability_threshold=len(self.history),
            settled_nats=self.settled_nats,
            settled_steps=self.settled_steps,
        )
        rule = torch.where(settled, 2.0, by_text.float())
        full = moved.held.all(-1)
        self.verdict.copy_(torch.stack([rule, finite.float(), stats.entropy.mean(-1), full.float()]))
        self.history.copy_(remember(self.history, stats.argmax))
        self.tokens.copy_(moved.tokens)
        self.held.copy_(moved.held)
        self.argmax.copy_(stats.argmax)
        self.entropy.copy_(stats.entropy)
        self.accepted.copy_(moved.accepted)
        self.place.copy_((self.place + 1) % len(self.noise))
