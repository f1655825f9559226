"""Which canvases are where in which `StepGraph`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence as Rows

from jaxtyping import Float, Int
from torch import Tensor

from redraft.engine.canvas import NOISE_STEPS, CanvasState
from redraft.engine.graph import EncodeGraph, StepGraph, Verdict
from redraft.engine.sequence import Sequence
from redraft.engine.steer import is_steered
from redraft.model.cache import KVCache, SequenceCache
from redraft.model.canvas_cache import room_for
from redraft.model.model import DiffusionGemma
from redraft.sampler.schedule import temperature

# Graphs that are kept; each has room for the prefixes of its batch.
KEPT = 4


class Graphs:
    """Graphs by the shape of their batch. Canvases stay in their rows while the batch is the same."""

    def __init__(self, model: DiffusionGemma) -> None:
        self._model = model
        self._graphs: OrderedDict[tuple[int, ...], StepGraph] = OrderedDict()
        self._placed: dict[tuple[int, ...], list[CanvasState]] = {}
        self._encoder: EncodeGraph | None = None

    @staticmethod
    def takes(sequence: Sequence, state: CanvasState) -> bool:
        """Whether a step of this canvas needs nothing of the host: no steering, and a length that stays."""
        return not (is_steered(sequence, state) or sequence.options.adaptive_canvas)

    def step(self, group: Rows[Sequence], states: Rows[CanvasState]) -> tuple[StepGraph, list[Verdict]]:
        """Moves canvases of one length and one stability threshold by one step.

        Returns:
            The graph, whose rows are those of the group, and a verdict each.
        """
        capacity = room_for(max(sequence.cache.length for sequence in group))
        key = (len(group), states[0].length, len(states[0].history), capacity)
        graph = self._graph(key)
        if not _same(self._placed.get(key, []), states):
            self._place(key, graph, group, states)
        else:
            for row, (sequence, state) in enumerate(zip(group, states, strict=True)):
                if state.taken % NOISE_STEPS == 0:
                    _feed(graph, row, sequence, state)
        return graph, graph.step()

    def encode(self, token_ids: Int[Tensor, "1 T"], sequence: SequenceCache) -> Float[Tensor, "1 T D"]:
        """As the model's `encode`, of one sequence. Canvases of the usual length that follow something are launched:
        a first prompt's length comes once."""
        if not sequence.length or token_ids.shape[1] != self._model.config.canvas_length:
            return self._model.encode(token_ids, KVCache([sequence]))
        capacity = room_for(sequence.length)
        if self._encoder is None or self._encoder.capacity < capacity:
            self._encoder = EncodeGraph(self._model, length=token_ids.shape[1], capacity=capacity)
        return self._encoder(token_ids, sequence)

    def _graph(self, key: tuple[int, ...]) -> StepGraph:
        if key not in self._graphs:
            if len(self._graphs) == KEPT:
                oldest, graph = self._graphs.popitem(last=False)
                for row, state in enumerate(self._placed.pop(oldest, [])):
                    _take_out(graph, row, state)
            batch_size, length, threshold, capacity = key
            self._graphs[key] = StepGraph(
                self._model, batch_size=batch_size, length=length, capacity=capacity, threshold=threshold
            )
        self._graphs.move_to_end(key)
        return self._graphs[key]

    def _place(self, key: tuple[int, ...], graph: StepGraph, group: Rows[Sequence], states: Rows[CanvasState]) -> None:
        for other, placed in list(self._placed.items()):
            if other != key and not any(state is one for one in placed for state in states):
                continue
            # Those that these leave, or whose rows they take, have ended or will be placed anew.
            for row, state in enumerate(placed):
                _take_out(self._graphs[other], row, state)
            del self._placed[other]
        for row, (sequence, state) in enumerate(zip(group, states, strict=True)):
            graph.place(
                row,
                sequence.cache,
                tokens=state.tokens,
                soft=state.soft,
                history=state.history,
                entropy_bound=sequence.options.entropy_bound,
                confidence_threshold=sequence.options.confidence_threshold,
            )
            _feed(graph, row, sequence, state)
        self._placed[key] = list(states)


def _feed(graph: StepGraph, row: int, sequence: Sequence, state: CanvasState) -> None:
    options = sequence.options
    place = state.taken % NOISE_STEPS
    first = state.step - place
    temperatures = [
        temperature(step, options.max_denoising_steps, *options.schedule)
        for step in range(first, first + NOISE_STEPS)
    ]  # fmt: skip
    graph.feed(row, state.uniform, state.noise, temperatures, place)


def _take_out(graph: StepGraph, row: int, state: CanvasState) -> None:
    """Gives a canvas what the graph has made of it."""
    state.tokens, state.soft = graph.canvases.tokens[row].clone(), graph.soft[row].clone()
    state.history = graph.canvases.history[:, row : row + 1].clone()


def _same(placed: list[CanvasState], states: Rows[CanvasState]) -> bool:
    return len(placed) == len(states) and all(one is other for one, other in zip(placed, states, strict=True))
