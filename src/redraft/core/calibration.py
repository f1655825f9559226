"""What labelled rows say of a model's probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What labelled rows have said about a model's probabilities.

    Attributes:
        temperatures: by the key of a question (see `redraft.decide.calibration.key_of`), or by its kind.
        thresholds: by the same, the confidence from which on answers were as accurate as was wanted.
        questions: keys of those that it was found with; any other stays as it is read.
        bound_to: what it was found out with: model, quantisation, prompt form, reader, draws; another is refused.
        measured: figures of the rows that it was not fitted on.
    """

    temperatures: Mapping[str, float]
    thresholds: Mapping[str, float] = field(default_factory=dict)
    questions: tuple[str, ...] = ()
    bound_to: Mapping[str, Any] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)
