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
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from redraft.core.errors import OptionError
from redraft.core.results import FieldProbability, ValueProbability
from redraft.engine.reply import Reply
from redraft.kernels.option_weights import OptionWeights
from redraft.model.model import DiffusionGemma
from redraft.sampler import constrained
from redraft.text.constraint import ConstraintFactory
from redraft.text.grammar.build import size
from redraft.text.labelled import Labelled, labelled
from redraft.text.response_format import schema_of
from redraft.text.schema import schema_node
from redraft.text.schema.fields import SchemaField, fields_of, narrowed
from redraft.text.schema.places import places_of

# Each value is a copy of the schema in an automaton: parts of all copies, which take some seconds to compile.
MOST_PARTS = 40_000
# Rows of logits at a time: of the released vocabulary 16 MB, and as float64 twice that.
ROWS = 16

Path = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class FewValues:
    """A field of few values.

    Attributes:
        values: that the rest of the schema leaves it.
        languages: what the schema allows with each.
    """

    values: tuple[Any, ...]
    languages: Labelled


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
        model: DiffusionGemma,
        hidden: Tensor,
        pinned: Tensor | None,
        written: list[int],
        ids: list[int],
        room: int,
    ) -> None:
        """Takes down what a canvas says of the fields that are decided in it.

        Args:
            model: for logits.
            hidden: [L, D] of its last step.
            pinned: [L] token ids that were held, -1 elsewhere.
            written: tokens of the canvases before it.
            ids: what is committed of it, before end-of-turn.
            room: tokens that the reply may still have, this canvas included.
        """
        weighed: dict[Path, tuple[int, OptionWeights]] = {}
        used = min(len(hidden), room)
        for path, known in self.few.items():
            automaton = known.languages.texts.automaton
            start = automaton.advance(automaton.start, written)
            behind = automaton.advance(start, ids)
            if path in self.decided or behind < 0 or known.languages.label[behind] < 0:
                continue
            used, end = constrained.ends(automaton, room, len(hidden))
            cut = known.languages.cut(end == 0.0)
            weighed[path] = (
                int(known.languages.label[behind]),
                OptionWeights(known.languages.texts, used, start=start, cut=cut),
            )
        for first in range(0, used if weighed else 0, ROWS):
            rows = slice(first, min(first + ROWS, used))
            # Not normalised: a constant of a position is one of every value.
            logits = model.logits(hidden[None, rows])[0]
            if pinned is not None:
                logits = _held(logits, pinned[rows])
            for _, weights in weighed.values():
                weights.add(first, logits)
        for path, (chosen, weights) in weighed.items():
            self.decided[path] = chosen, weights.result()[0]

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


@functools.lru_cache(maxsize=16)
def _fields(factory: ConstraintFactory, asked: str) -> tuple[tuple[SchemaField, ...], Mapping[Path, FewValues]]:
    schema = json.loads(asked)
    fields = fields_of(schema)
    copies = sum(len(known.values) for known in fields if len(known.values) > 1)
    if copies and copies * size(schema_node(schema)) > MOST_PARTS:
        raise OptionError(
            f"probabilities: the fields have {copies} values in all, too many for a schema of this size: bound them"
        )
    few: dict[Path, FewValues] = {}
    for known in fields:
        if len(known.values) > 1:
            left = narrowed(schema, known)
            languages = labelled(factory, [node for _, node in left])
            few[known.path] = FewValues(tuple(value for value, _ in left), languages)
    return fields, few


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


def _held(logits: Tensor, pinned: Tensor) -> Tensor:
    """Logits [R, V] of nothing but the held token where one is held."""
    rows = torch.nonzero(pinned >= 0)[:, 0]
    logits = logits.clone()
    logits[rows] = -torch.inf
    logits[rows, pinned[rows]] = 0.0
    return logits


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
