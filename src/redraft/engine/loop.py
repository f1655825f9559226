"""The canvas loop: encode, denoise step by step, commit. One `tick` moves every sequence by one step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Rows
from itertools import groupby

import torch
from torch import Tensor

from redraft.core.events import Commit, Draft
from redraft.engine.canvas import NOISE_STEPS, CanvasNoise, CanvasState, new_canvas
from redraft.engine.causal import CausalLoop
from redraft.engine.prefill import encode_pending
from redraft.engine.progress import advance
from redraft.engine.sequence import Sequence
from redraft.engine.settle import Settle
from redraft.engine.steer import is_steered, steer
from redraft.engine.verified import verify
from redraft.kernels.head import HeadStats
from redraft.model.cache import KVCache
from redraft.model.model import DiffusionGemma
from redraft.sampler.accept import accept, renoise
from redraft.sampler.schedule import temperature

Emitted = tuple[Sequence, Draft | Commit]


class CanvasLoop:
    """Runs sequences on a model.

    With `exact`, every forward carries one sequence: its rows meet the same matrix shapes alone or in company, so its
    tokens are the same bit for bit. On a CPU, where cost is linear in rows, that costs little. Without it the rows of
    all sequences run as one batch, those of canvases of one length.
    """

    def __init__(
        self, model: DiffusionGemma, *, exact: bool, on_encoded: Callable[[Sequence], None] = lambda sequence: None
    ) -> None:
        """`on_encoded` is called after each encode, when a sequence's cache stands at the end of a turn or canvas."""
        self.model = model
        self.exact = exact
        self.on_encoded = on_encoded
        self.causal = CausalLoop(model, on_encoded)
        self.settle = Settle(model)

    def tick(self, sequences: Rows[Sequence], *, drafts: bool = True) -> Iterator[Emitted]:
        """One step of every sequence that has not finished; a failing one is marked and left behind."""
        unfinished = [sequence for sequence in sequences if not sequence.finished]
        for sequence in unfinished:
            if sequence.options.mode == "autoregressive":
                yield from self.causal.tick(sequence)
        active = [sequence for sequence in unfinished if sequence.options.mode != "autoregressive"]
        for sequence in active:
            if sequence.canvas is None:
                self._begin(sequence)
        for group in self._groups([sequence for sequence in active if sequence.canvas is not None]):
            yield from self._step(group, drafts)

    def _groups(self, active: list[Sequence]) -> list[list[Sequence]]:
        if self.exact:
            return [[sequence] for sequence in active]
        by_length = sorted(active, key=lambda sequence: _canvas(sequence).length)
        return [list(group) for _, group in groupby(by_length, key=lambda sequence: _canvas(sequence).length)]

    def _begin(self, sequence: Sequence) -> None:
        """Encodes what is due and starts the next canvas, unless the prompt takes another step."""
        if sequence.pending:
            hidden = encode_pending(self.model, sequence)
            if hidden is None:
                return
            sequence.last_hidden = hidden
            self.on_encoded(sequence)
        sequence.canvas = new_canvas(
            self._noise(sequence, sequence.costs.canvases, sequence.canvas_length),
            sequence.options.stability_threshold,
            initial=sequence.initial,
            pinned=sequence.pinned,
        )

    def _noise(self, sequence: Sequence, canvas: int, length: int) -> CanvasNoise:
        return CanvasNoise(sequence.seed, canvas, length, self.model.config.vocab_size, self.model.device)

    def _step(self, group: list[Sequence], drafts: bool) -> Iterator[Emitted]:
        started = time.perf_counter()
        states = [_canvas(sequence) for sequence in group]
        temperatures = [
            temperature(state.step, sequence.options.max_denoising_steps, *sequence.options.schedule)
            for sequence, state in zip(group, states, strict=True)
        ]
        stats, accepted, canvas = self._denoise(group, states, temperatures)
        broken = ~torch.isfinite(stats.entropy).all(-1)
        for row, (sequence, state) in enumerate(zip(group, states, strict=True)):
            if bool(broken[row]):
                sequence.fail(f"the model's output is not finite at step {state.step}")
                continue
            done = advance(sequence, state, stats, canvas, row)
            sequence.costs.denoise_s += time.perf_counter() - started
            if drafts and sequence.drafts:
                yield sequence, _draft(state, stats, accepted, row, temperatures[row])
            if done:
                commit = self._settled(sequence, state)
                if commit is not None:
                    yield sequence, commit

    def _settled(self, sequence: Sequence, state: CanvasState) -> Commit | None:
        if sequence.options.mode == "verified":
            return verify(self.model, sequence, state)
        return self.settle(sequence, state)

    def _denoise(
        self, group: list[Sequence], states: list[CanvasState], temperatures: list[float]
    ) -> tuple[HeadStats, Tensor, Tensor]:
        """(statistics, accepted positions, next canvas) of every row, each [B, L]."""
        device = self.model.device
        for sequence, state in zip(group, states, strict=True):
            if state.taken and state.taken % NOISE_STEPS == 0:
                state.uniform, state.noise = self._noise(sequence, state.number, state.length).block(state.steps)
        hidden = self.model.denoise_hidden(
            torch.stack([state.tokens for state in states]),
            KVCache(sequence.cache for sequence in group),
            self._soft(states),
        )
        uniform = torch.stack([state.uniform[state.taken % NOISE_STEPS] for state in states])
        stats = self.model.head(hidden, torch.tensor(temperatures, device=device), uniform)
        for row, (sequence, state) in enumerate(zip(group, states, strict=True)):
            if is_steered(sequence, state):
                source = self._noise(sequence, state.number, state.length)
                steer(self.model, hidden[row], stats, row, sequence, state, temperatures[row], source)
        bounds = torch.tensor([[sequence.options.entropy_bound] for sequence in group], device=device)
        accepted = accept(stats.entropy, bounds)
        fresh = torch.stack([state.noise[state.taken % NOISE_STEPS] for state in states])
        canvas = renoise(accepted, stats.sample, fresh)
        for row, state in enumerate(states):
            if state.pinned is not None:
                canvas[row] = torch.where(state.pinned >= 0, state.pinned, canvas[row])
        return stats, accepted, canvas

    def _soft(self, states: list[CanvasState]) -> Tensor | None:
        known = [state.soft for state in states if state.soft is not None]
        if not known:
            return None
        # A row of zeros is a true zero signal: the conditioning MLP has no bias.
        zero = torch.zeros_like(known[0])
        return torch.stack([zero if state.soft is None else state.soft for state in states])


def _canvas(sequence: Sequence) -> CanvasState:
    assert sequence.canvas is not None
    return sequence.canvas


def _draft(state: CanvasState, stats: HeadStats, accepted: Tensor, row: int, degree: float) -> Draft:
    return Draft(
        canvas=state.number,
        step=state.steps - 1,
        token_ids=tuple(stats.argmax[row].tolist()),
        accepted=tuple(accepted[row].tolist()),
        entropy_nats=tuple(stats.entropy[row].tolist()),
        temperature=degree,
    )
