"""Random schemas of every keyword: their trees spell what validates, and hold nothing that does not."""

from __future__ import annotations

import json
import random

import jsonschema
import pytest

from grammar_matches import matches, some_texts
from redraft.core.errors import SchemaError
from redraft.text.schema import schema_node
from schemas import random_schema
from wide_schemas import WideSchemas, changed, listed

FORMS = ({}, {"separators": (",", ":")}, {"ensure_ascii": False})


def holds_what_is_valid(schema: dict, seed: int) -> bool:
    """Whether the schema is written at all; fails where it is written wrong."""
    rng = random.Random(seed)
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    validator = jsonschema.Draft202012Validator(schema, format_checker=checker)
    try:
        node = schema_node(schema)
    except SchemaError:
        return False
    for text in some_texts(node, rng, 5):
        assert matches(node, text), (schema, text)
        value = json.loads(text)
        other = changed(value, rng)
        try:
            assert validator.is_valid(value), (schema, text)
            if not validator.is_valid(other):
                assert not any(matches(node, json.dumps(other, **form)) for form in FORMS), (schema, other)
        except RecursionError:
            # The validator follows a reference to itself without end.
            continue
    return True


@pytest.mark.parametrize("seed", range(0, 1000, 10))
def test_plain_schemas_are_written_as_they_are(seed):
    assert holds_what_is_valid(random_schema(random.Random(seed)), seed)


@pytest.mark.parametrize("first", range(0, 600, 20))
def test_wide_schemas_are_written_right_or_refused(first):
    written = sum(
        holds_what_is_valid(listed(WideSchemas(random.Random(seed)).schema()), seed)
        for seed in range(first, first + 20)
    )
    assert written >= 8


@pytest.mark.full
@pytest.mark.parametrize("first", range(1000, 11000, 500))
def test_wide_schemas_at_length(first):
    for seed in range(first, first + 500):
        holds_what_is_valid(listed(WideSchemas(random.Random(seed)).schema()), seed)
