"""Schemas as trees: which JSON texts a schema takes, and which schemas are refused."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from grammar_matches import matches
from redraft.core.errors import OptionError, SchemaError
from redraft.text.schema import schema_node
from redraft.text.schema.numbers import INTEGER, NUMBER, integers, numbers

STRING = {"type": "string"}
RECORD = {"type": "object", "properties": {"a": STRING, "b": {"type": "integer"}, "c": {"type": "boolean"}}}
NODE = {
    "type": "object",
    "properties": {"v": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
    "required": ["v", "next"],
}


def takes(schema: Any, text: str) -> bool:
    return matches(schema_node(schema), text)


@pytest.mark.parametrize("low", [*range(-120, 121, 12), -9, -1, 1, 99, 100, 101])
def test_integers_between_bounds(low):
    for high in range(low, 121, 7):
        pattern = re.compile(integers(low, high) or "")
        assert [n for n in range(-130, 131) if pattern.fullmatch(str(n))] == list(range(low, high + 1))
        assert not pattern.fullmatch("-0")
        assert not pattern.fullmatch("007")
        assert not pattern.fullmatch(f"{low}.0")


@pytest.mark.parametrize("bound", [-1000, -987, -100, -10, -9, -1, 0, 1, 9, 10, 11, 99, 345, 1000])
def test_integers_with_one_bound(bound):
    above, below = re.compile(integers(bound, None) or ""), re.compile(integers(None, bound) or "")
    for n in (*range(-1200, 1200), 10**15 - 1, 1 - 10**15):
        assert bool(above.fullmatch(str(n))) == (n >= bound), n
        assert bool(below.fullmatch(str(n))) == (n <= bound), n


def test_no_number_between_its_bounds():
    assert integers(3, 2) is None
    assert numbers(Fraction(2), Fraction(1), open_low=False, open_high=False) is None
    assert numbers(Fraction(1), Fraction(1), open_low=True, open_high=False) is None


@pytest.mark.parametrize("open_low", [False, True])
@pytest.mark.parametrize("open_high", [False, True])
@pytest.mark.parametrize(
    ("low", "high"),
    [
        (0, 1), (0, 0), (-1, 1), (0.1, 0.2), (0.1, 0.1), (-0.25, 0.75), (3.14, 3.15), (9.99, 10.01), (-12.5, -3),
        (0, None), (None, 0), (0.5, None), (None, -0.5), (99.5, 100), (1, 1000), (-7, 12.25),
    ],
)  # fmt: skip
def test_decimal_numbers_are_compared_exactly(low, high, open_low, open_high):
    ends = [None if end is None else Fraction(end) for end in (low, high)]
    pattern = numbers(*ends, open_low=open_low, open_high=open_high)
    floor, ceiling = Decimal(repr(low or 0)), Decimal(repr(high or 0))
    steps = [Decimal(step) for step in ("0", "0.00000000001", "0.001", "0.1", "0.25", "0.5", "1", "9", "10")]
    near = {end + sign * step for end in (floor, ceiling) for step in steps for sign in (1, -1)}
    for number in near:
        above = low is None or number > floor or (number == floor and not open_low)
        below = high is None or number < ceiling or (number == ceiling and not open_high)
        text = f"{number:f}"
        assert bool(pattern and re.fullmatch(pattern, text)) == (above and below), text
        if above and below:
            # The float that a reader makes of it keeps to the bounds too.
            assert low is None or json.loads(text) > low or (json.loads(text) == low and not open_low)
            assert high is None or json.loads(text) < high or (json.loads(text) == high and not open_high)


@pytest.mark.parametrize("text", ["0", "-0.5", "12.25", "1e5", "2E-07", "999999999999999.123456789012345e99"])
def test_numbers_are_as_json_has_them(text):
    assert re.fullmatch(NUMBER, text)
    assert abs(json.loads(text)) < float("inf")


@pytest.mark.parametrize("text", ["", "-", "01", "1.", ".5", "1e", "+1", "1e999", "1" * 16])
def test_what_is_no_number(text):
    assert not re.fullmatch(NUMBER, text)
    assert not re.fullmatch(INTEGER, text)


@pytest.mark.parametrize(
    ("schema", "yes", "no"),
    [
        (STRING, ['""', '"é😀\uf8ff"', r'"\"\\\/\b\n"'], ['"\ue000"', '"\n"', '"a', r'"\q"']),
        ({**STRING, "minLength": 2, "maxLength": 3}, ['"ab"', r'"\"\n"', '"😀😀😀"'], ['"a"', '"abcd"', '""']),
        ({**STRING, "pattern": "b"}, ['"b"', '"abc"'], ['"a"', '""']),
        ({**STRING, "pattern": "^b"}, ['"bc"'], ['"ab"']),
        ({**STRING, "pattern": "b$"}, ['"ab"'], ['"ba"']),
        ({**STRING, "pattern": '^"[^a]\\\\$'}, [r'"\"b\\"'], [r'"\"a\\"']),
        ({**STRING, "format": "date"}, ['"2025-01-31"'], ['"2025-02-29"', '"2025-04-31"', '"2025-13-01"']),
        ({**STRING, "format": "ipv4"}, ['"255.0.0.19"'], ['"256.0.0.1"', '"1.2.3"', '"01.2.3.4"']),
        ({"type": "integer", "exclusiveMinimum": 0.5, "maximum": 3}, ["1", "3"], ["0", "4", "1.0"]),
        ({"type": ["integer", "null"]}, ["-7", "null"], ["true", '"a"', "1.5"]),
        ({"enum": ["a", 1, None, {"k": [1]}]}, ['"a"', "1", "null", '{"k": [1]}'], ['"b"', "2"]),
        ({"enum": ["a", 1, True], "type": "integer"}, ["1"], ['"a"', "true"]),
        ({"enum": [0, True], "const": True}, ["true"], ["0", "1"]),
        ({"oneOf": [{"const": 1}, {"const": True}]}, ["1", "true"], ["0"]),
        ({"const": 'q"\\'}, [r'"q\"\\"'], ['"q"']),
        (RECORD, ["{}", '{"b":1}', '{\n  "a": "x",\n  "b": 2\n}', '{"a": "", "c": true}'], ['{"b":1,"a":""}']),
        ({**RECORD, "required": ["b"]}, ['{"b":1}', '{"a":"","b":1,"c":false}'], ["{}", '{"a":""}', '{"a":"",}']),
        ({"type": "object", "properties": {}}, ["{}"], ['{"a":1}']),
        ({"type": "object", "additionalProperties": STRING, "maxProperties": 1}, ["{}", '{"ä":""}'], ['{"a":1}']),
        ({"type": "array", "items": STRING, "minItems": 1, "maxItems": 2}, ['["a", "b"]'], ["[]", '["","",""]']),
        ({"type": "array", "prefixItems": [STRING, {"type": "null"}]}, ['["a",null]'], ['[null,"a"]']),
        ({"oneOf": [STRING, {"type": "integer"}]}, ['"a"', "1"], ["1.5", "null"]),
        ({"allOf": [{"$ref": "#/$defs/s"}], "$defs": {"s": STRING}, "title": "t"}, ['"a"'], ["1"]),
        ({"$ref": "#/$defs/node", "$defs": {"node": NODE}}, ['{"v":1,"next":{"v":2,"next":null}}'], ['{"v":1}']),
    ],
)  # fmt: skip
def test_a_schema_takes_what_it_allows(schema, yes, no):
    assert [text for text in yes if not takes(schema, text)] == []
    assert [text for text in no if takes(schema, text)] == []


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"type": "object", "properties": {"age": {"type": "integer", "multipleOf": 7}}}, "properties.age.multipleOf"),
        ({"not": {"minimum": 3}}, "not"),
        ({"type": "strin"}, "type"),
        ({**STRING, "format": "phone"}, "format"),
        ({**STRING, "minLength": 3, "maxLength": 2}, "minLength"),
        ({**STRING, "minLength": 10**6}, "minLength"),
        ({**STRING, "pattern": "a(?=b)c"}, "pattern"),
        ({**STRING, "pattern": r"(a)\1"}, "pattern"),
        ({"enum": []}, "enum"),
        ({"enum": [1, 2], "const": True}, "const"),
        ({"const": float("nan")}, ""),
        ({"enum": ["\ud800"]}, ""),
        ({"enum": ["a"], "type": "integer"}, "enum"),
        ({**RECORD, "required": ["z"], "additionalProperties": False}, "required"),
        ({"type": "array", "prefixItems": [STRING], "uniqueItems": True}, "uniqueItems"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
        ({"$ref": "#/$defs/missing"}, "$ref"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, ""),
        (False, ""),
    ],
)
def test_what_cannot_be_enforced_is_named(schema, path):
    with pytest.raises(SchemaError) as caught:
        schema_node(schema)
    assert caught.value.path == path
    assert isinstance(caught.value, OptionError)
    assert "\n" not in str(caught.value)


def test_a_schema_that_asks_for_itself_without_end():
    with pytest.raises(SchemaError, match="without end"):
        schema_node({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]})
