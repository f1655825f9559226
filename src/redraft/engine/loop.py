"""The canvas loop: encode, denoise step by step, commit. One `tick` moves every sequence by one step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Rows
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

import torch
from torch import Tensor

from redraft.core.errors import OptionError
from redraft.core.events import Commit, Draft
from redraft.engine.canvas import NOISE_STEPS, CanvasNoise, CanvasState, new_canvas
from redraft.engine.causal import CausalLoop
from redraft.engine.drafted import begun, draft_canvas
from redraft.engine.graphs import Graphs
from redraft.engine.handover import hand_over, is_due
from redraft.engine.look import freeze, look
from redraft.engine.moves import moves
from redraft.engine.prefill import encode_pending
from redraft.engine.prefix import PrefixCache
from redraft.engine.progress import advance, by_text, count, take
from redraft.engine.prompt_images import SoftTokens
from redraft.engine.read import ReadList
from redraft.engine.reading import ReadLoop
from redraft.engine.sequence import Sequence
from redraft.engine.settle import Settle
from redraft.engine.steer import is_steered, steer
from redraft.engine.verified import verify
from redraft.kernels.constrained import NothingLeftError
from redraft.model.model import DiffusionGemma
from redraft.sampler.schedule import temperature

Emitted = tuple[Sequence, Draft | Commit]
UnderWay = Sequence | ReadList
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class _Step:
    """What a step has found, of each row.

    Attributes:
        finite: whether the model's output is.
        argmax, accepted, entropy: [L] each; what a draft shows.
        advance: takes a row's results into its canvas, and says whether that is done.
    """

    finite: list[bool]
    argmax: Rows[Tensor] | Tensor
    accepted: Rows[Tensor] | Tensor
    entropy: Rows[Tensor] | Tensor
    advance: Callable[[int], bool]


class CanvasLoop:
    """Runs sequences on a model.

    With `exact`, every forward carries one sequence: its rows meet the same matrix shapes alone or in company, so its
    tokens are the same bit for bit. On a CPU, where cost is linear in rows, that costs little. Without it the rows of
    all sequences run as one batch, those of canvases of one length; with `graphs`, a step of those that need nothing of
    the host is one launch, and so is the model's part of those under a constraint.
    """

    def __init__(
        self,
        model: DiffusionGemma,
        *,
        exact: bool,
        graphs: bool = False,
        on_encoded: Callable[[Sequence], None] = lambda sequence: None,
        prefixes: Callable[[UnderWay], PrefixCache] = lambda under_way: PrefixCache(),
        soft: SoftTokens | None = None,
    ) -> None:
        """`on_encoded` is called after each encode of a piece of a prompt or of a canvas; `prefixes` says
        where reads find and keep beginnings of prompts; `soft` makes soft tokens of pictures."""
        self.model = model
        self.exact = exact
        self.graphs = Graphs(model) if graphs else None
        self.on_encoded = on_encoded
        self.causal = CausalLoop(model, on_encoded, soft)
        self.settle = Settle(model)
        encode = None if self.graphs is None else self.graphs.encode
        self.reads = ReadLoop(model, exact=exact, encode=encode, soft=soft)
        self._prefixes, self._soft = prefixes, soft

    def tick(self, sequences: Rows[UnderWay], *, drafts: bool = True) -> Iterator[Emitted]:
        """One step of every sequence that has not finished; a failing one is marked and left behind."""
        unfinished: list[Sequence] = []
        for sequence in sequences:
            if isinstance(sequence, Sequence):
                unfinished += [] if sequence.finished else [sequence]
            elif not sequence.finished:
                self.reads.tick(sequence, self._prefixes(sequence))
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
        alone = [[sequence] for sequence in active if sequence.options.freeze_nats]
        by_shape = sorted((sequence for sequence in active if not sequence.options.freeze_nats), key=self._shape)
        return alone + [list(group) for _, group in groupby(by_shape, key=self._shape)]

    def _shape(self, sequence: Sequence) -> tuple[int, ...]:
        """What sequences of a batch have in common."""
        state = _canvas(sequence)
        if self.graphs is None or not self.graphs.takes(sequence, state):
            return (state.length,)
        return (state.length, len(state.history))

    def _begin(self, sequence: Sequence) -> None:
        """Encodes what is due and starts the next canvas, unless the prompt takes another step."""
        if sequence.pending:
            encode = None if self.graphs is None else self.graphs.encode
            hidden = encode_pending(self.model, sequence, encode, self._soft)
            self.on_encoded(sequence)
            if hidden is None:
                return
            sequence.last_hidden = hidden
        if sequence.options.mode == "verified":
            number = sequence.costs.canvases
            sequence.canvas = self._held(
                sequence,
                lambda: draft_canvas(
                    self.model, sequence, lambda length: self._noise(sequence, number, length), shorter=self.exact
                ),
            )
            return
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
        for sequence, state in zip(group, states, strict=True):
            if state.taken and state.taken % NOISE_STEPS == 0:
                state.uniform, state.noise = self._noise(sequence, state.number, state.length).block(state.steps)
        temperatures = [
            temperature(state.step, sequence.options.max_denoising_steps, *sequence.options.schedule)
            for sequence, state in zip(group, states, strict=True)
        ]
        launched = len(self._shape(group[0])) > 1
        step = self._launched(group, states, temperatures) if launched else self._denoise(group, states, temperatures)
        for row, (sequence, state) in enumerate(zip(group, states, strict=True)):
            if sequence.finished:
                continue
            if not step.finite[row]:
                sequence.fail(f"the model's output is not finite at step {state.step}")
                continue
            done = step.advance(row)
            sequence.costs.denoise_s += time.perf_counter() - started
            if drafts and sequence.drafts:
                yield sequence, _draft(state, step, row, temperatures[row])
            if is_due(sequence, state):
                done = self._handed_over(sequence, state)
            if done:
                commit = self._settled(sequence, state)
                if commit is not None:
                    yield sequence, commit

    def _settled(self, sequence: Sequence, state: CanvasState) -> Commit | None:
        if sequence.options.mode != "verified":
            return self.settle(sequence, state)
        encode = None if self.graphs is None else self.graphs.encode
        return self._held(sequence, lambda: verify(self.model, sequence, state, encode))

    def _handed_over(self, sequence: Sequence, state: CanvasState) -> bool:
        """Makes a canvas the draft of a reply that is verified from here on; False where the request has failed."""
        hand_over(sequence)
        drafting = self._held(sequence, lambda: begun(self.model, sequence))
        if drafting is None:
            return False
        drafting.aside = sequence.cache.set_aside(drafting.start)
        return True

    def _held(self, sequence: Sequence, make: Callable[[], T | None]) -> T | None:
        """What is made of a reply; None where it cannot keep what it is held to, and has failed."""
        try:
            return make()
        except (NothingLeftError, OptionError) as error:
            sequence.fail_held(error)
            return None

    def _launched(self, group: list[Sequence], states: list[CanvasState], temperatures: list[float]) -> _Step:
        """A step whose model's part is one launch, and whose end is in it but where there is a constraint."""
        assert self.graphs is not None
        moved = self.graphs.step(group, states, temperatures)
        found = moved.graph.canvases

        def move(row: int) -> bool:
            choice, verdict = moved.choices[row], moved.verdicts[row]
            states[row].full = verdict.full
            if group[row].drafting is not None:
                states[row].soft = moved.graph.soft[moved.rows[row]].clone()
            if choice is not None:
                return take(group[row], states[row], choice.argmax, choice.entropy)
            # The graph's next step writes over its own.
            states[row].argmax = found.argmax[moved.rows[row]].clone()
            verdict = moved.verdicts[row]
            settled = verdict.settled or by_text(group[row], states[row], verdict.stood, verdict.left_nats)
            return count(group[row], states[row], settled=settled, mean_entropy=lambda: verdict.mean_entropy)

        return _Step(
            finite=[verdict.finite for verdict in moved.verdicts],
            argmax=[found.argmax[row] for row in moved.rows],
            accepted=[found.accepted[row] for row in moved.rows],
            entropy=[found.entropy[row] for row in moved.rows],
            advance=move,
        )

    def _denoise(self, group: list[Sequence], states: list[CanvasState], temperatures: list[float]) -> _Step:
        """A step, operator by operator."""
        hidden, stats = look(self.model, group, states, temperatures)
        for row, (sequence, state) in enumerate(zip(group, states, strict=True)):
            # What is no number, no constraint can make one of; it is told below.
            if is_steered(sequence, state) and bool(torch.isfinite(stats.entropy[row]).all()):
                source = self._noise(sequence, state.number, state.length)
                try:
                    steer(self.model, hidden[row], stats, row, sequence, state, temperatures[row], source)
                except (NothingLeftError, OptionError) as error:
                    sequence.fail_held(error)
            freeze(sequence, state)
        moved, full = moves(group, states, stats, self.model.config.vocab_size)

        def go_on(row: int) -> bool:
            frozen = states[row].frozen
            is_still = frozen is not None and bool(frozen.still.all())
            states[row].kept, states[row].full = moved.held[row], full[row] or is_still
            return advance(group[row], states[row], stats, moved.tokens, row)

        return _Step(
            finite=torch.isfinite(stats.entropy).all(-1).tolist(),
            argmax=stats.argmax,
            accepted=moved.accepted,
            entropy=stats.entropy,
            advance=go_on,
        )


def _canvas(sequence: Sequence) -> CanvasState:
    assert sequence.canvas is not None
    return sequence.canvas


def _draft(state: CanvasState, step: _Step, row: int, degree: float) -> Draft:
    return Draft(
        canvas=state.number,
        step=state.steps - 1,
        token_ids=tuple(step.argmax[row][state.known :].tolist()),
        accepted=tuple(step.accepted[row][state.known :].tolist()),
        entropy_nats=tuple(step.entropy[row][state.known :].tolist()),
        temperature=degree,
    )
