"""The canvas being denoised: how it starts, what noise it meets, what is held fixed in it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from redraft.engine.freeze import Frozen
from redraft.sampler import noise
from redraft.sampler.held_stop import HeldStep, Standstill
from redraft.sampler.noise import Stream
from redraft.sampler.stop import new_history
from redraft.text.constraint import Constraint

NOISE_STEPS = 16


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A canvas that the causal mode has read.

    Attributes:
        token_ids: up to and with end-of-turn.
        log_probs: [n] nats, of each.
        doubts: places that it would hardly have written.
        last_hidden: [1, 1, D] behind the last of them.
    """

    token_ids: list[int]
    log_probs: Tensor
    doubts: list[int]
    last_hidden: Tensor


@dataclass
class CanvasState:
    """The canvas being denoised.

    Attributes:
        number: of the canvas in its reply, from 0.
        tokens: [L] the noisy canvas.
        history: [H, 1, L] the argmax canvases of the last H steps; under a constraint their texts, see `as_text`.
        uniform, noise: [S, L] of this block of steps, the next one's in row `taken` modulo S.
        within: [S, L] the same, of the token on an automaton's edge; None until a constraint asks.
        argmax: [L] what would be committed now; None before the first step.
        soft: [L, D] what the next step is conditioned on; None at the first, a true zero signal.
        step: place in the temperature schedule, of the step that comes next.
        taken: steps that this draft has taken.
        drawn: steps that earlier drafts of this canvas took; noise goes on from there.
        settled: whether it stopped because it was stable and confident, or because the model will not come round to the
            constraint.
        pinned: [L] token ids that never change, -1 elsewhere; None where nothing is held.
        known: positions at its beginning whose tokens are committed already.
        constraint: what its reply was held to before this draft narrowed it, in the verified mode.
        kept: [L] positions that keep their tokens, those that are pinned and those that the sampler holds; None where
            there are none.
        full: whether the sampler holds all of them, which ends the canvas.
        barred: [L] positions at which end-of-turn is barred; None where it may stand anywhere.
        rounds: redrafts that this canvas has had.
        judged: the best draft so far, where the judge chooses between drafts.
        least_entropy: nats, the least mean entropy so far.
        candidates: argmax canvases of the steps in which it fell.
        stale: steps since then.
        seen: [L, D] of the last step's positions, where the fields of a schema are watched.
        text: [L] of the last step under a constraint, see `as_text`; without one, the text is the argmax's.
        stood: steps since the text last changed.
        held: what the last step under a constraint said beside its results; None without one.
        standstill: how long the model has not come round to the constraint.
        frozen: what is known of positions that are no longer computed, where there may be such.

    While a graph moves it, what is the model's lies in the graph; what a constraint has said lies on the host.
    """

    number: int
    tokens: Tensor
    history: Tensor
    uniform: Tensor
    noise: Tensor
    within: Tensor | None = None
    argmax: Tensor | None = None
    soft: Tensor | None = None
    step: int = 0
    taken: int = 0
    drawn: int = 0
    settled: bool = False
    pinned: Tensor | None = None
    known: int = 0
    constraint: Constraint | None = None
    kept: Tensor | None = None
    full: bool = False
    barred: Tensor | None = None
    rounds: int = 0
    judged: Judged | None = None
    least_entropy: float = float("inf")
    candidates: list[Tensor] = field(default_factory=list)
    stale: int = 0
    seen: Tensor | None = None
    text: Tensor | None = None
    stood: int = 0
    held: HeldStep | None = None
    standstill: Standstill = field(default_factory=Standstill)
    frozen: Frozen | None = None

    @property
    def length(self) -> int:
        """L."""
        return len(self.tokens)

    @property
    def steps(self) -> int:
        """Denoising steps of all drafts of this canvas."""
        return self.drawn + self.taken

    def cut(self, length: int) -> None:
        """Drops the positions from `length` on; the noise of the others stays what it was."""
        for name in ("tokens", "argmax", "soft", "pinned", "kept", "barred", "text"):
            value = getattr(self, name)
            if value is not None:
                setattr(self, name, value[:length])
        for name in ("history", "uniform", "noise", "within"):
            value = getattr(self, name)
            if value is not None:
                setattr(self, name, value[..., :length])
        self.candidates = [candidate[:length] for candidate in self.candidates]
        if self.frozen is not None:
            self.frozen.cut(length)

    def let_go(self) -> None:
        """Nothing but what is pinned keeps its token: what the sampler held may be what can no longer be written."""
        self.kept = None if self.pinned is None else self.pinned >= 0
        self.frozen = None


class CanvasNoise:
    """The noise of one canvas: a function of (seed, canvas, step, position)."""

    def __init__(self, seed: int, canvas: int, length: int, vocab_size: int, device: torch.device) -> None:
        self.seed, self.canvas, self.length, self.vocab_size, self.device = seed, canvas, length, vocab_size, device

    def start(self, step: int) -> Tensor:
        """[L] token ids that a draft which begins at noise step `step` starts from."""
        return noise.token_ids(*self._at(Stream.START, step, 1), self.length, self.vocab_size)[0]

    def block(self, step: int) -> tuple[Tensor, Tensor]:
        """([S, L] draws for the samples, [S, L] ids for what is renoised) of the next `NOISE_STEPS` steps.

        Made at once: for one step, they would cost as many operators as a layer.
        """
        uniform = noise.uniform(*self._at(Stream.SAMPLE, step, NOISE_STEPS), self.length)
        fresh = noise.token_ids(*self._at(Stream.RENOISE, step, NOISE_STEPS), self.length, self.vocab_size)
        return uniform, fresh

    def within(self, step: int) -> Tensor:
        """[S, L] draws for the token on an automaton's edge."""
        return noise.uniform(*self._at(Stream.TOKEN, step, NOISE_STEPS), self.length)

    def _at(self, stream: Stream, first: int, count: int) -> tuple[Tensor, Stream, Tensor, Tensor]:
        step = torch.arange(first, first + count, device=self.device)
        return torch.full_like(step, self.seed), stream, torch.full_like(step, self.canvas), step


def new_canvas(
    source: CanvasNoise, threshold: int, *, initial: list[int], pinned: list[int], drawn: int = 0
) -> CanvasState:
    """A canvas of noise, with `initial` ids where they are not -1, and `pinned` ids held.

    Args:
        source: its noise.
        threshold: see `new_history`.
        initial, pinned: ids of the first positions; the others are free.
        drawn: steps that earlier drafts of this canvas took.
    """
    L = source.length
    tokens = source.start(drawn)
    uniform, fresh = source.block(drawn)
    held = _row(pinned, L, source.device)
    barred = None
    if held is not None:
        # A reply that ended before what is pinned would lose it; what is pinned may itself be its end.
        barred = (torch.arange(L, device=source.device) < torch.nonzero(held >= 0).max()) & (held < 0)
    for ids in (_row(initial, L, source.device), held):
        if ids is not None:
            tokens = torch.where(ids >= 0, ids, tokens)
    return CanvasState(
        number=source.canvas,
        tokens=tokens,
        history=new_history(threshold, 1, L, source.device),
        uniform=uniform,
        noise=fresh,
        drawn=drawn,
        pinned=held,
        kept=None if held is None else held >= 0,
        barred=barred,
    )


def _row(ids: list[int], length: int, device: torch.device) -> Tensor | None:
    """[L] ids, -1 where there are none; None when there is none at all."""
    if all(token < 0 for token in ids[:length]):
        return None
    return torch.tensor((ids + [-1] * length)[:length], device=device)
