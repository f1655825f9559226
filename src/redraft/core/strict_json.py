"""JSON that every reader takes: it has no word for infinity or what is no number, though Python writes both."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def strict_json(value: Any, **how: Any) -> str:
    """The value as JSON; a number that is not finite becomes null.

    Args:
        value: as `json.dumps` takes it.
        how: options of `json.dumps`.
    """
    return json.dumps(finite(value), allow_nan=False, **how)


def finite(value: Any) -> Any:
    """The value with null in the place of every number, however deep, that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return value
