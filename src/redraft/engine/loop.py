"""The canvas loop: encode, denoise step by step, commit. One `tick` moves every sequence by one step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from collections.abc import Sequence as Rows

import torch
from torch import Tensor

from redraft.core.events import Commit, Draft
from redraft.engine.causal import CausalLoop
from redraft.engine.prefill import encode_pending
from redraft.engine.sequence import CanvasState, Sequence
from redraft.kernels.head import HeadStats
from redraft.model.cache import KVCache
from redraft.model.model import DiffusionGemma
from redraft.sampler import noise
from redraft.sampler.accept import accept, renoise
from redraft.sampler.noise import Stream
from redraft.sampler.schedule import temperature
from redraft.sampler.stop import new_history, remember, stable_and_confident

NOISE_STEPS = 16

Emitted = tuple[Sequence, Draft | Commit]


class CanvasLoop:
    """Runs sequences on a model.

    With `exact`, every forward carries one sequence: its rows meet the same matrix shapes alone or in company, so its
    tokens are the same bit for bit. On a CPU, where cost is linear in rows, that costs little. Without it the rows of
    all sequences run as one batch.
    """

    def __init__(
        self, model: DiffusionGemma, *, exact: bool, on_encoded: Callable[[Sequence], None] = lambda sequence: None
    ) -> None:
        """`on_encoded` is called after each encode, when a sequence's cache stands at the end of a turn or canvas."""
        self.model = model
        self.exact = exact
        self.on_encoded = on_encoded
        self.causal = CausalLoop(model, on_encoded)

    def tick(self, sequences: Rows[Sequence], *, drafts: bool = True) -> Iterator[Emitted]:
        """One step of every sequence that has not finished; a failing one is marked and left behind."""
        unfinished = [sequence for sequence in sequences if not sequence.finished]
        for sequence in unfinished:
            if sequence.options.mode == "autoregressive":
                yield from self.causal.tick(sequence)
        active = [sequence for sequence in unfinished if sequence.options.mode == "diffusion"]
        for sequence in active:
            self._encode(sequence)
        for group in [[sequence] for sequence in active] if self.exact else [active]:
            if group:
                yield from self._step(group, drafts)

    def _encode(self, sequence: Sequence) -> None:
        if sequence.canvas is not None:
            return
        encode_pending(self.model, sequence)
        self.on_encoded(sequence)
        sequence.canvas = self._start_canvas(sequence)

    def _start_canvas(self, sequence: Sequence) -> CanvasState:
        length, vocab_size = self.model.config.canvas_length, self.model.config.vocab_size
        seed, canvas, step = self._coordinates(sequence, 0, 1)
        history = new_history(sequence.options.stability_threshold, 1, length, self.model.device)
        tokens = noise.token_ids(seed, Stream.START, canvas, step, length, vocab_size)[0]
        state = CanvasState(tokens=tokens, history=history, uniform=tokens, noise=tokens)
        self._draw(sequence, state)
        return state

    def _draw(self, sequence: Sequence, state: CanvasState) -> None:
        """Makes the noise of the next steps at once: for one step, it would cost as many operators as a layer."""
        length, vocab_size = self.model.config.canvas_length, self.model.config.vocab_size
        coordinates = self._coordinates(sequence, state.step, NOISE_STEPS)
        state.uniform = noise.uniform(coordinates[0], Stream.SAMPLE, *coordinates[1:], length)
        state.noise = noise.token_ids(coordinates[0], Stream.RENOISE, *coordinates[1:], length, vocab_size)

    def _coordinates(self, sequence: Sequence, first: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """(seed, canvas, step) of `count` steps, each [count]."""
        step = torch.arange(first, first + count, device=self.model.device)
        return torch.full_like(step, sequence.seed), torch.full_like(step, sequence.costs.canvases), step

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
                sequence.failed = f"the model's output is not finite at step {state.step}"
                sequence.reply.close("error")
                continue
            done = _advance(sequence, state, stats, canvas, row)
            sequence.costs.denoise_s += time.perf_counter() - started
            if drafts:
                yield sequence, _draft(sequence, state, stats, accepted, row, temperatures[row])
            if done:
                yield sequence, self._commit(sequence, state)

    def _denoise(
        self, group: list[Sequence], states: list[CanvasState], temperatures: list[float]
    ) -> tuple[HeadStats, Tensor, Tensor]:
        """(statistics, accepted positions, next canvas) of every row, each [B, L]."""
        device = self.model.device
        for sequence, state in zip(group, states, strict=True):
            if state.step and state.step % NOISE_STEPS == 0:
                self._draw(sequence, state)
        hidden = self.model.denoise_hidden(
            torch.stack([state.tokens for state in states]),
            KVCache(sequence.cache for sequence in group),
            self._soft(states),
        )
        uniform = torch.stack([state.uniform[state.step % NOISE_STEPS] for state in states])
        stats = self.model.head(hidden, torch.tensor(temperatures, device=device), uniform)
        bounds = torch.tensor([[sequence.options.entropy_bound] for sequence in group], device=device)
        accepted = accept(stats.entropy, bounds)
        fresh = torch.stack([state.noise[state.step % NOISE_STEPS] for state in states])
        return stats, accepted, renoise(accepted, stats.sample, fresh)

    def _soft(self, states: list[CanvasState]) -> Tensor | None:
        known = [state.soft for state in states if state.soft is not None]
        if not known:
            return None
        # A row of zeros is a true zero signal: the conditioning MLP has no bias.
        zero = torch.zeros_like(known[0])
        return torch.stack([zero if state.soft is None else state.soft for state in states])

    def _commit(self, sequence: Sequence, state: CanvasState) -> Commit:
        assert state.argmax is not None
        costs, number = sequence.costs, sequence.costs.canvases
        costs.canvases += 1
        if costs.first_canvas_s is None:
            costs.first_canvas_s = time.perf_counter() - costs.started
        canvas = state.argmax.tolist()
        ids, text = sequence.reply.add(canvas)
        if not sequence.finished and costs.canvases == sequence.max_canvases:
            text += sequence.reply.close("length")
        if not sequence.finished:
            # Encoded only because another canvas follows it.
            sequence.pending = canvas
        sequence.canvas = None
        return Commit(canvas=number, token_ids=tuple(ids), text=text, denoising_steps=state.step)


def _canvas(sequence: Sequence) -> CanvasState:
    assert sequence.canvas is not None
    return sequence.canvas


def _advance(sequence: Sequence, state: CanvasState, stats: HeadStats, canvas: Tensor, row: int) -> bool:
    """Takes a row of the step's results into the sequence's canvas; returns whether the canvas is done."""
    argmax, entropy = stats.argmax[row : row + 1], stats.entropy[row : row + 1]
    options = sequence.options
    stop = stable_and_confident(state.history, argmax, entropy, options.confidence_threshold)
    state.history = remember(state.history, argmax)
    state.argmax, state.tokens, state.soft = argmax[0], canvas[row], stats.soft_embedding[row]
    state.step += 1
    sequence.costs.denoising_steps += 1
    return bool(stop) or state.step == options.max_denoising_steps


def _draft(
    sequence: Sequence,
    state: CanvasState,
    stats: HeadStats,
    accepted: Tensor,
    row: int,
    degree: float,
) -> Draft:
    return Draft(
        canvas=sequence.costs.canvases,
        step=state.step - 1,
        token_ids=tuple(stats.argmax[row].tolist()),
        accepted=tuple(accepted[row].tolist()),
        entropy_nats=tuple(stats.entropy[row].tolist()),
        temperature=degree,
    )
