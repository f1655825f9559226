"""Any value becomes a document that every reader takes, and is itself where it was finite."""

from __future__ import annotations

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from redraft.core.strict_json import finite, strict_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


def as_read(value):
    """What a reader gets of a value, said once more."""
    if isinstance(value, dict):
        return {key: as_read(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_read(inner) for inner in value]
    return None if isinstance(value, float) and (math.isnan(value) or math.isinf(value)) else value


def refuse(name):
    raise AssertionError(f"{name} is no JSON")


@given(VALUES)
def test_every_value_is_read_back(value):
    assert json.loads(strict_json(value), parse_constant=refuse) == as_read(value)


@given(VALUES)
def test_what_is_finite_stays_as_it_is(value):
    assert finite(as_read(value)) == as_read(value)
