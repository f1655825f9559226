"""Which canvases are where in which `StepGraph`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence as Rows
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from redraft.engine.beside import Beside, Choice
from redraft.engine.canvas import NOISE_STEPS, CanvasState
from redraft.engine.graph import EncodeGraph, StepGraph, Verdict
from redraft.engine.launch import can_capture
from redraft.engine.sequence import Sequence
from redraft.model.cache import KVCache, SequenceCache
from redraft.model.model import DiffusionGemma
from redraft.placement.canvas_cache import CanvasCache, room_for
from redraft.sampler.advance import MOST_ENDS, TextStop
from redraft.sampler.samplers import Rule, rule_of
from redraft.sampler.schedule import temperature

# Graphs that are kept at most, however small, and at least, however large: shapes that are moved by turns.
KEPT, LEAST = 16, 4


def rows_for(canvases: int) -> int:
    """Rows of the graph that moves so many canvases: a power of two, so that a batch whose size comes and goes meets
    few captures. A row without a canvas costs its share of a step, and waits without a prefix."""
    return 1 << max(0, canvases - 1).bit_length()


@dataclass(frozen=True, kw_only=True)
class Moved:
    """A step of several canvases.

    Attributes:
        graph: which moved them.
        rows: where each of them is in it.
        verdicts: of each of them.
        choices: of each of those that are under a constraint.
    """

    graph: StepGraph
    rows: list[int]
    verdicts: list[Verdict]
    choices: list[Choice | None]


@dataclass(frozen=True, kw_only=True)
class _Shape:
    """What a graph is captured for."""

    rows: int
    length: int
    threshold: int
    capacity: int
    held: bool = False


@dataclass(kw_only=True)
class _Seats:
    """A graph, with the canvas that is in each of its rows."""

    graph: StepGraph
    taken: list[CanvasState | None] = field(default_factory=list)

    def vacate(self, row: int) -> None:
        """Gives a canvas what the graph has made of it."""
        state, graph = self.taken[row], self.graph
        if state is not None:
            state.tokens, state.soft = graph.canvases.tokens[row].clone(), graph.soft[row].clone()
            state.kept = graph.canvases.held[row].clone()
            if state.held is None:
                # Of a text under a constraint, the canvas keeps its own.
                state.history = graph.canvases.history[:, row : row + 1].clone()
                state.stood = int(graph.canvases.stood[row])
            self.taken[row] = None
            graph.clear(row)


class Graphs:
    """Graphs by the shape of their batch.

    A canvas stays in its row while the same graph has room for it and its company, whoever comes and leaves.
    """

    def __init__(self, model: DiffusionGemma) -> None:
        self._model = model
        self._graphs: OrderedDict[_Shape, _Seats] = OrderedDict()
        self._bytes: dict[_Shape, int] = {}
        self._encoder: EncodeGraph | None = None
        self._beside = Beside(model)

    @staticmethod
    def takes(sequence: Sequence, state: CanvasState) -> bool:
        """Whether the model's part of this canvas's step can be a launch: nothing is pinned or barred, its length
        stays, none of its positions may freeze, few ids end it, and its sampler is a rule. What is known of a draft of
        one step stands in it anyway, and is not renoised."""
        options = sequence.options
        at_once = options.mode == "verified" and options.max_denoising_steps == 1
        is_plain = (state.pinned is None or at_once) and state.barred is None
        is_plain &= not options.adaptive_canvas and not options.freeze_nats
        return is_plain and len(sequence.reply.end_ids) <= MOST_ENDS and rule_of(options) is not None

    def step(self, group: Rows[Sequence], states: Rows[CanvasState], temperatures: Rows[float]) -> Moved:
        """Moves canvases of one length and one stability threshold by one step.

        Of those under a constraint, the step's end is the host's: their verdicts leave open whether they are settled.
        """
        shape = _Shape(
            rows=rows_for(len(group)) if can_capture(self._model.device) else len(group),
            length=states[0].length,
            threshold=len(states[0].history),
            capacity=room_for(max(sequence.cache.length for sequence in group)),
            held=any(sequence.constraint is not None for sequence in group),
        )
        seats = self._seats(shape)
        rows = self._seat(seats, group, states)
        graph = seats.graph
        if not shape.held:
            verdicts = graph.step()
            return Moved(
                graph=graph, rows=rows, verdicts=[verdicts[row] for row in rows], choices=[None] * len(rows)
            )  # fmt: skip
        graph.find()
        choices = [
            None if sequence.constraint is None else self._beside.choose(graph, row, sequence, state, degree)
            for row, sequence, state, degree in zip(rows, group, states, temperatures, strict=True)
        ]
        graph.end()
        verdicts = _verdicts(graph, rows, choices, group)
        return Moved(graph=graph, rows=rows, verdicts=verdicts, choices=choices)

    def encode(self, token_ids: Int[Tensor, "1 T"], sequence: SequenceCache) -> Float[Tensor, "1 T D"]:
        """As the model's `encode`, of one sequence. Canvases of the usual length that follow something are launched:
        a first prompt's length comes once."""
        if not sequence.length or token_ids.shape[1] != self._model.config.canvas_length:
            return self._model.encode(token_ids, KVCache([sequence]))
        capacity = room_for(sequence.length)
        if self._encoder is None or self._encoder.capacity < capacity:
            if self._encoder is not None:
                self._encoder.close()
            self._encoder = None
            self._encoder = EncodeGraph(self._model, length=token_ids.shape[1], capacity=capacity)
        return self._encoder(token_ids, sequence)

    def _seats(self, shape: _Shape) -> _Seats:
        if shape not in self._graphs:
            self._make_room(shape)
            graph = StepGraph(
                self._model,
                batch_size=shape.rows,
                length=shape.length,
                capacity=shape.capacity,
                threshold=shape.threshold,
                held=shape.held,
            )
            self._graphs[shape] = _Seats(graph=graph, taken=[None] * shape.rows)
        self._graphs.move_to_end(shape)
        return self._graphs[shape]

    def _make_room(self, shape: _Shape) -> None:
        """Lets go of the graphs that were used longest ago, until few are left, or all others together take no more
        than the largest: of a conversation that grows, or a batch, they halve from one to the next, and stay."""
        self._bytes.setdefault(shape, _bytes_of(self._model, shape))
        while self._graphs:
            sizes = [self._bytes[each] for each in (*self._graphs, shape)]
            fits = sum(sizes) <= 2 * max(sizes) or len(sizes) <= LEAST
            if fits and len(self._graphs) < KEPT:
                return
            _, oldest = self._graphs.popitem(last=False)
            for row in range(len(oldest.taken)):
                oldest.vacate(row)
            oldest.graph.close()

    def _seat(self, seats: _Seats, group: Rows[Sequence], states: Rows[CanvasState]) -> list[int]:
        """Rows of these canvases in a graph, and of nobody else; those that were there are fed."""
        # By identity: tensors cannot be compared.
        wanted = {id(state) for state in states}
        for other in self._graphs.values():
            for row, state in enumerate(other.taken):
                if state is not None and (id(state) in wanted) != (other is seats):
                    # Those that leave have ended, or will be placed anew.
                    other.vacate(row)
        place_of = {id(state): row for row, state in enumerate(seats.taken) if state is not None}
        free = [row for row, state in enumerate(seats.taken) if state is None]
        rows = []
        for sequence, state in zip(group, states, strict=True):
            row = place_of.get(id(state))
            if row is None:
                row = free.pop(0)
                seats.taken[row] = state
                seats.graph.place(
                    row,
                    sequence.cache,
                    tokens=state.tokens,
                    soft=state.soft,
                    history=state.history,
                    kept=state.kept,
                    rule=_rule(sequence),
                    confidence_threshold=sequence.options.confidence_threshold,
                    stop=_stop(sequence, state),
                )
                _feed(seats.graph, row, sequence, state)
            elif state.taken % NOISE_STEPS == 0:
                _feed(seats.graph, row, sequence, state)
            rows.append(row)
        return rows


def _verdicts(
    graph: StepGraph, rows: list[int], choices: list[Choice | None], group: Rows[Sequence]
) -> list[Verdict]:  # fmt: skip
    """Of each canvas; the device is asked only of those whose choice is not on the host, and of what a rule holds."""
    holding = any(_rule(sequence).sticky for sequence in group)
    told = dict(enumerate(graph.verdicts())) if holding or None in choices else {}
    return [
        told[row]
        if choice is None
        else Verdict(
            settled=False,
            stood=0,
            left_nats=0.0,
            finite=choice.is_finite,
            mean_entropy=float(choice.entropy.mean()),
            full=row in told and told[row].full,
        )
        for row, choice in zip(rows, choices, strict=True)
    ]


def _stop(sequence: Sequence, state: CanvasState) -> TextStop:
    return TextStop(
        end_ids=sequence.reply.end_ids,
        argmax=state.argmax,
        stood=state.stood,
    )


def _rule(sequence: Sequence) -> Rule:
    rule = rule_of(sequence.options)
    assert rule is not None, "see `takes`"
    return rule


def _feed(graph: StepGraph, row: int, sequence: Sequence, state: CanvasState) -> None:
    options = sequence.options
    place = state.taken % NOISE_STEPS
    first = state.step - place
    temperatures = [
        temperature(step, options.max_denoising_steps, *options.schedule)
        for step in range(first, first + NOISE_STEPS)
    ]  # fmt: skip
    graph.feed(row, state.uniform, state.noise, temperatures, place)


def _bytes_of(model: DiffusionGemma, shape: _Shape) -> int:
    """About what a graph keeps: prefixes, and the logits of its own scratch."""
    room = CanvasCache(model.config, shape.rows, shape.capacity, model.dtype, torch.device("meta"))
    return room.nbytes + 2 * shape.rows * shape.length * model.config.vocab_size
