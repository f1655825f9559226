"""The constraint's part of a step whose model's part is one launch: statistics leave the device, a choice comes back.

Of each canvas and step there is one copy down and one up, of `step_bytes`. Where a sample falls into a broad class, its
token is asked for by another pair of some bytes; where the constraint is narrowed within the step, its statistics come
down again. Nothing else waits for the device.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from redraft.core.automaton import Parts
from redraft.core.errors import OptionError
from redraft.engine.canvas import CanvasNoise, CanvasState
from redraft.engine.graph import StepGraph
from redraft.engine.launch import Launch
from redraft.engine.sequence import Sequence
from redraft.engine.steer import constrain, draws
from redraft.kernels.constrained import NothingLeftError
from redraft.kernels.transfer import moved
from redraft.kernels.walk import Walk
from redraft.model.model import DiffusionGemma
from redraft.sampler.held_stop import HeldStep

# Automata whose statistics have a place, and those of them that may keep a graph with the tiles of its walk.
KEPT, CAPTURED = 32, 2
# A capture costs three walks and a collection of garbage: it is made for an automaton that was asked for so often.
WORTH = 16
HOST = torch.device("cpu")


def step_bytes(length: int, explicit: int, broad: int) -> tuple[int, int]:
    """(down, up) of one canvas and step, where the device has float64.

    Down come the explicit tokens' scores, three numbers and a token of each broad class, the model's own argmax and
    entropy, and two draws a position; up go an argmax, a sample, an entropy and a log-probability.

    Args:
        length: positions.
        explicit: tokens whose scores are looked at one by one.
        broad: classes that are summed as a whole.
    """
    down = 4 * explicit + (3 * 8 + 8) * broad + (8 + 4) + 2 * 4
    return length * down, length * (8 + 8 + 4 + 4)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a step under a constraint has made of a canvas, on the host; the model's own where that is no number.

    Attributes:
        argmax: the likeliest sequence.
        entropy: nats.
    """

    argmax: Int[Tensor, "L"]
    entropy: Float[Tensor, "L"]

    @property
    def is_finite(self) -> bool:
        """Whether the model's output is."""
        return bool(torch.isfinite(self.entropy).all())


@dataclass(kw_only=True)
class _Scoring:
    """An automaton's walk, and how often it was asked for."""

    walk: Walk
    asked: int = 0
    launch: Launch | None = None

    def close(self) -> None:
        if self.launch is not None:
            self.launch.close()


class Beside:
    """Scores automata on the device and draws under them on the host."""

    def __init__(self, model: DiffusionGemma) -> None:
        self._model = model
        self._scorings: OrderedDict[tuple[Parts, int], _Scoring] = OrderedDict()

    def choose(self, graph: StepGraph, row: int, sequence: Sequence, state: CanvasState, temperature: float) -> Choice:
        """Writes what a held graph has found in one row anew, and what that says of the canvas's stop into `held`.

        A request whose constraint leaves nothing has failed after it.
        """
        hidden, found = graph.hidden, graph.found
        assert hidden is not None
        assert found is not None
        assert sequence.constraint is not None
        source = CanvasNoise(
            sequence.seed, state.number, state.length, self._model.config.vocab_size, self._model.device
        )
        walk = self._scored(sequence.constraint.automaton.parts, hidden[row], temperature)
        own = (found.argmax[row], found.entropy[row])
        *statistics, argmax, entropy, uniform = moved([*walk.statistics(), *own, draws(state, source)], HOST)
        choice = Choice(argmax=argmax, entropy=entropy)
        # What is no number, no constraint can make one of.
        if not choice.is_finite:
            return choice
        first, before = [walk.told(*statistics)], sequence.constraint
        try:
            drawn = constrain(
                lambda parts: first.pop() if first else self._scored(parts, hidden[row], temperature).result(),
                sequence, state, temperature, uniform,
            )  # fmt: skip
        except (NothingLeftError, OptionError) as error:
            sequence.fail_held(error)
            return choice
        if sequence.fields is not None:
            # The graph's next step writes over its own.
            state.seen = hidden[row].clone()
        state.held = HeldStep(own=argmax, own_entropy=entropy, entropy=drawn.entropy, local=drawn.local)
        sure = torch.maximum(drawn.local, drawn.entropy).to(entropy.dtype)
        likely = drawn.best_log_prob.to(entropy.dtype)
        written = moved([drawn.argmax, drawn.sample, sure, likely], found.argmax.device)
        places = (found.argmax, found.sample, found.entropy, found.best_log_prob)
        for place, values in zip(places, written, strict=True):
            place[row] = values
        if sequence.constraint is not before:
            # As `let_go`, of which the graph knows nothing.
            graph.canvases.held[row] = False
        return Choice(argmax=drawn.argmax, entropy=sure)

    def _scored(self, parts: Parts, hidden: Float[Tensor, "L D"], temperature: float) -> Walk:
        """An automaton's walk, which has run over these positions."""
        scoring = self._scoring(parts, hidden)
        walk = scoring.walk
        walk.hidden.copy_(hidden)
        walk.heat(temperature)
        scoring.asked += 1
        if scoring.launch is None and self._is_worth_it(scoring):
            scoring.launch = Launch(walk.run, hidden.device)
        if scoring.launch is None:
            walk.run()
        else:
            scoring.launch()
        return walk

    def _is_worth_it(self, scoring: _Scoring) -> bool:
        """Whether a capture is: without a broad class, a walk is a handful of launches."""
        captured = sum(other.launch is not None for other in self._scorings.values())
        return bool(len(scoring.walk.parts.broad)) and scoring.asked >= WORTH and captured < CAPTURED

    def _scoring(self, parts: Parts, hidden: Tensor) -> _Scoring:
        key = (parts, len(hidden))
        if key not in self._scorings:
            while len(self._scorings) >= KEPT:
                self._scorings.popitem(last=False)[1].close()
            self._scorings[key] = _Scoring(walk=self._model.walk(parts, torch.empty_like(hidden)))
        self._scorings.move_to_end(key)
        return self._scorings[key]
