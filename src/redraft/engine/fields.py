"""What the model thinks of each field of a reply under a schema, beside the text.

A field of few values has the probability of each, from the canvas in which it was decided, as the model saw that in its
last denoising step, at temperature 1: positions are independent given the canvas, the schema ties them, and
P(field = value) = Z(schema, field = value) / Z(schema), summed over everything that the canvas could have become. A
canvas that was drafted again, or whose best draft was not its last, is seen as it stood at the end. What the step is
conditioned on has moved towards what will be committed, which sharpens: it is no first thought.

A text or number of many values has the probability that the causal mode gives its tokens, one behind the other.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from redraft.core.automaton import DEAD, TokenAutomaton
from redraft.core.crossings import Crossings
from redraft.core.errors import OptionError
from redraft.core.results import FieldProbability, ValueProbability
from redraft.engine.reply import Reply
from redraft.kernels.class_masses import ClassMasses
from redraft.kernels.field_weights import reading_weights, what_follows
from redraft.sampler import constrained
from redraft.text.constraint import ConstraintFactory
from redraft.text.labelled import Labelled, labelled
from redraft.text.response_format import schema_of
from redraft.text.schema.fields import SchemaField, fields_of, told_apart
from redraft.text.schema.places import places_of

# Fields of few values, each with an automaton of its own, and values of all of them, each a branch of one. What
# was asked for lately is kept: at a vocabulary of 262,144 tokens a field takes some 3 MB.
MOST_FIELDS, MOST_VALUES, KEPT = 64, 512, 4
# Rows of logits at a time: of the released vocabulary 16 MB, and as float64 twice that.
ROWS = 16

Path = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class FewValues:
    """A field of few values.

    Attributes:
        values: that its own schema leaves it.
        apart: texts by the value that they have.
    """

    values: tuple[Any, ...]
    apart: Labelled


@dataclass(eq=False)
class FieldWatch:
    """The fields of one request.

    Attributes:
        fields: of its schema.
        few: those of few values, by path.
        decided: which of its values each has, and what all of them weigh, in nats.
    """

    fields: tuple[SchemaField, ...]
    few: Mapping[Path, FewValues]
    decided: dict[Path, tuple[int, tuple[float, ...]]] = field(default_factory=dict)

    @property
    def is_judged(self) -> bool:
        """Whether the causal mode is asked."""
        return any(not known.values for known in self.fields)

    def see(
        self,
        score: Callable[[int, int], Tensor],
        automaton: TokenAutomaton,
        written: list[int],
        ids: list[int],
        length: int,
        room: int,
    ) -> None:
        """Takes down what a canvas says of the fields that are decided in it.

        Args:
            score: logits [R, V] of the canvas's last step at the positions from one to another.
            automaton: what the reply is held to.
            written: tokens of the canvases before it.
            ids: what is committed of it, before end-of-turn.
            length: positions of the canvas.
            room: tokens that the reply may still have, this canvas included.
        """
        asked: dict[Path, tuple[int, int, Crossings, ClassMasses]] = {}
        used, end = constrained.ends(automaton, room, length)
        state = automaton.advance(automaton.start, written)
        for path, known in self.few.items():
            apart = known.apart.automaton
            before = apart.advance(apart.start, written)
            behind = apart.advance(before, ids)
            if path in self.decided or DEAD in (before, behind) or known.apart.label[behind] < 0:
                continue
            crossings = _crossings(automaton, known.apart)
            masses = ClassMasses(crossings.class_of, crossings.num_classes, used)
            asked[path] = int(known.apart.label[behind]), crossings.pairs[state, before], crossings, masses
        if not asked:
            return
        own = ClassMasses(automaton.class_of, automaton.num_classes, used)
        for first in range(0, used, ROWS):
            # Not normalised: a constant of a position is one of every value.
            logits = score(first, min(first + ROWS, used))
            for masses in (own, *(masses for *_, masses in asked.values())):
                masses.add(first, logits)
        follows = what_follows(own.mass, automaton, end)
        for path, (chosen, pair, crossings, masses) in asked.items():
            weights = reading_weights(masses.mass, crossings, pair, follows, len(self.few[path].values))
            self.decided[path] = chosen, weights

    def told(self, reply: Reply, logprobs: list[float]) -> tuple[FieldProbability, ...]:
        """What is known of each field that the reply has.

        Args:
            reply: the request's.
            logprobs: nats, of its tokens, by the causal mode; none where that was not asked.
        """
        places, found = places_of(reply.text), []
        for known in self.fields:
            few = self.few.get(known.path)
            if few is not None:
                if known.path in self.decided:
                    found.append(_of_few(known.path, few, *self.decided[known.path]))
            elif known.path in places and len(known.values) == 1:
                only = ValueProbability(value=known.values[0], probability=1.0)
                found.append(FieldProbability(path=known.path, source="canvas", probabilities=(only,), **vars(only)))
            elif known.path in places:
                first, behind = places[known.path]
                total = sum(logprobs[place] for place in _tokens(reply, first, behind))
                value = _read(reply.text, first, behind)
                found.append(
                    FieldProbability(path=known.path, value=value, probability=math.exp(total), source="causal")
                )
        return tuple(found)


def watch_of(factory: ConstraintFactory, response_format: Mapping[str, Any] | None) -> FieldWatch:
    """The fields of a format's schema.

    Raises:
        OptionError: it has no schema, or too many values.
    """
    schema = None if response_format is None else schema_of(response_format)
    if schema is None:
        raise OptionError("probabilities need a response_format with a JSON schema")
    return FieldWatch(*_fields(factory, json.dumps(schema)))


@functools.lru_cache(maxsize=KEPT)
def _fields(factory: ConstraintFactory, asked: str) -> tuple[tuple[SchemaField, ...], Mapping[Path, FewValues]]:
    schema = json.loads(asked)
    fields = fields_of(schema)
    several = [known for known in fields if len(known.values) > 1]
    count = sum(len(known.values) for known in several)
    if count > MOST_VALUES or len(several) > MOST_FIELDS:
        raise OptionError(
            f"probabilities: {len(several)} fields of the schema have {count} values in all, and at most {MOST_FIELDS} "
            f"with {MOST_VALUES} can be told"
        )
    few: dict[Path, FewValues] = {}
    for known in several:
        head, found = told_apart(schema, known)
        apart = labelled(factory, head, [node for _, node in found])
        few[known.path] = FewValues(tuple(value for value, _ in found), apart)
    return fields, few


@functools.lru_cache(maxsize=MOST_FIELDS)
def _crossings(automaton: TokenAutomaton, apart: Labelled) -> Crossings:
    return Crossings.of(automaton, apart.automaton, apart.label)


def _of_few(path: Path, few: FewValues, chosen: int, weights: tuple[float, ...]) -> FieldProbability:
    # Where something was held that the step itself had ruled out, nothing weighs anything.
    top = max(weights)
    shares = [math.exp(weight - top) if top > -math.inf else 0.0 for weight in weights]
    total = sum(shares) or 1.0
    each = tuple(
        ValueProbability(value=value, probability=share / total)
        for value, share in zip(few.values, shares, strict=True)
    )
    return FieldProbability(path=path, source="canvas", probabilities=each, **vars(each[chosen]))


def _tokens(reply: Reply, first: int, behind: int) -> range:
    """Places of the tokens that write some characters."""

    def length(count: int) -> int:
        return len(reply.decoded(reply.token_ids[:count]))

    begin, end = 0, len(reply.token_ids)
    while begin < end:
        middle = (begin + end) // 2
        begin, end = (begin, middle) if length(middle + 1) > first else (middle + 1, end)
    stop, end = begin, len(reply.token_ids)
    while stop < end:
        middle = (stop + end) // 2
        stop, end = (stop, middle) if length(middle) >= behind else (middle + 1, end)
    return range(begin, stop)


def _read(text: str, first: int, behind: int) -> Any:
    """A value by its place in a JSON text."""
    written = text[first:behind]
    return json.loads(f'"{written}"' if first and text[first - 1] == '"' else written)
