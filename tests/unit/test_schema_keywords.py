"""Keywords that people's schemas have, alone and beside others: what is taken, what is not, what is refused and how."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema
import pytest

from grammar_matches import matches, some_texts
from redraft.core.errors import SchemaError
from redraft.text.grammar.build import size
from redraft.text.schema import schema_node
from redraft.text.schema.formats import FORMATS

CHECKER = jsonschema.Draft202012Validator.FORMAT_CHECKER
STRING, INTEGER, NULL = {"type": "string"}, {"type": "integer"}, {"type": "null"}
AB = {"type": "object", "properties": {"a": STRING, "b": INTEGER, "c": NULL}}
CAT = {"type": "object", "properties": {"kind": {"const": "cat"}, "lives": INTEGER}, "required": ["kind", "lives"]}
DOG = {"type": "object", "properties": {"kind": {"const": "dog"}, "good": {"type": "boolean"}}}
COLOURS = {"enum": ["red", "green", "blue"]}


def a_list(**keywords: Any) -> dict[str, Any]:
    return {"type": "array", **keywords}


@pytest.mark.parametrize(
    ("schema", "yes", "no"),
    [
        # Beside each other.
        ({"$ref": "#/$defs/s", "maxLength": 2, "$defs": {"s": {**STRING, "minLength": 1}}}, ['"a"'], ['""', '"abc"']),
        ({"anyOf": [{"minLength": 3}, {"maxLength": 1}], **STRING}, ['"a"', '"abc"'], ['"ab"', "1"]),
        ({**AB, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, ['{"a":""}', '{"b":1}'], ["{}", '{"c":null}']),
        ({**AB, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}, ['{"a":""}'], ["{}", '{"a":"","b":1}']),
        ({"enum": ["a", "bcd", 1, None], "type": ["string", "null"], "maxLength": 2}, ['"a"', "null"], ['"bcd"', "1"]),
        ({"const": 5, "minimum": 5}, ["5"], ["6"]),
        ({"allOf": [{"minimum": 3}, {"maximum": 5}, INTEGER]}, ["3", "5"], ["2", "6", "4.5"]),
        ({"allOf": [{**INTEGER, "minimum": 3, "maximum": 9}, {"minimum": 5, "maximum": 20}]}, ["5", "9"], ["4", "10"]),
        ({"allOf": [{**STRING, "maxLength": 2}, {"minLength": 1}, {"minLength": 2, "maxLength": 5}]}, ['"ab"'],
         ['"a"', '"abc"']),
        ({"allOf": [a_list(items=INTEGER, minItems=1), {"items": {"minimum": 5}, "minItems": 2}]}, ["[5,6]"],
         ["[5]", "[5,4]"]),
        ({"allOf": [{**INTEGER, "multipleOf": 4}, {"multipleOf": 10}]}, ["20", "100"], ["4", "10", "40.0"]),
        ({"oneOf": [{**AB, "additionalProperties": False},
                    {"type": "object", "properties": {"d": NULL}, "required": ["d"]}]},
         ['{"b":1}', '{"d":null}'], ['{"a":"","d":null}']),
        ({"allOf": [{"pattern": "^a"}, {"pattern": "b$"}]}, ['"ab"', '"aXb"'], ['"a"', '"b"', '"ba"']),
        ({"allOf": [AB, {"properties": {"b": {"minimum": 5}, "d": NULL}}]}, ['{"b":5,"d":null}'], ['{"b":4}']),
        ({"allOf": [{**AB, "additionalProperties": False}, {"properties": {"d": NULL}}]}, ['{"b":5}'], ['{"d":null}']),
        ({"oneOf": [CAT, DOG], "discriminator": {"propertyName": "kind"}},
         ['{"kind":"cat","lives":9}', '{"kind":"dog","good":true}'], ['{"kind":"cat"}', '{"good":true}']),
        ({"oneOf": [{**INTEGER, "maximum": 0}, {**INTEGER, "minimum": 10}]}, ["-1", "10"], ["5"]),
        ({**INTEGER, "nullable": True}, ["1", "null"], ['"a"']),
        ({"type": ["string", "null"], "not": {"type": "null"}}, ['"a"'], ["null"]),
        ({**COLOURS, "not": {"const": "red"}}, ['"blue"'], ['"red"']),
        ({**AB, "not": {"required": ["a"]}}, ['{"b":1}'], ['{"a":""}']),
        ({"type": "object", "properties": {"k": {"enum": ["x", "y"]}, "v": STRING}, "required": ["k"],
          "if": {"properties": {"k": {"const": "x"}}}, "then": {"required": ["v"]}},
         ['{"k":"x","v":""}', '{"k":"y"}'], ['{"k":"x"}']),
        # References.
        ({"$ref": "#/$defs/a~1b~0%25", "$defs": {"a/b~%": NULL}}, ["null"], ["1"]),
        ({"$ref": "#/prefixItems/1", "prefixItems": [STRING, {"type": "null"}], "type": "null"}, ["null"], ['"a"']),
        ({"$ref": "#here", "$defs": {"x": {"$anchor": "here", **INTEGER}}}, ["1"], ['"a"']),
        ({"$id": "http://a/b", "$ref": "c", "$defs": {"x": {"$id": "c", **INTEGER}}}, ["1"], ['"a"']),
        ({"definitions": {"p": COLOURS}, "items": {"$ref": "#/definitions/p"}}, ['["red"]'], ['["pink"]']),
        # Strings.
        ({**STRING, "maxLength": 5000}, [json.dumps("a" * 5000)], [json.dumps("a" * 5001)]),
        ({**STRING, "pattern": "^[a-z]+$", "maxLength": 3}, ['"abc"'], ['"abcd"', '""', '"A"']),
        ({**STRING, "pattern": "ab", "minLength": 3}, ['"abc"', '"cab"'], ['"ab"', '"abb']),
        ({**STRING, "format": "uri", "maxLength": 12}, ['"http://ab.de"'], ['"http://abc.de"', '"ab.de"']),
        ({**STRING, "pattern": r"^(?!.*\\)[^x]*$"}, ['"a"', r'"\"\n"'], [r'"\\"', '"x"']),
        ({**STRING, "format": "password"}, ['"a"'], ["1"]),
        ({**INTEGER, "format": "int32"}, ["2147483647"], ["2147483648"]),
        # Numbers.
        ({**INTEGER, "multipleOf": 25}, ["0", "-75", "1025"], ["24", "5", "110"]),
        ({**INTEGER, "multipleOf": 6, "minimum": 10}, ["12", "600"], ["6", "14", "15"]),
        ({**INTEGER, "multipleOf": 7, "minimum": -8, "maximum": 20}, ["-7", "0", "14"], ["21", "7.0", "-14", "6"]),
        ({"type": "number", "multipleOf": 0.25, "minimum": 0}, ["0.25", "3", "1.5"], ["0.3", "-0.5"]),
        # Arrays.
        (a_list(prefixItems=[STRING, INTEGER]), ["[]", '["a"]', '["a", 1]'], ["[1]", '["a",1,2]', '["a",]']),
        (a_list(prefixItems=[STRING], items=INTEGER, minItems=2, maxItems=3), ['["a",1]', '["a",1,2]'], ['["a"]']),
        (a_list(items=[STRING], additionalItems=INTEGER), ['["a",1,2]'], ['["a","b"]']),
        (a_list(items=COLOURS, uniqueItems=True, minItems=2), ['["red","blue"]', '["blue","red","green"]'],
         ['["red"]', '["red","red"]', '["red","blue","red"]']),
        (a_list(items={"type": ["boolean", "null"]}, uniqueItems=True, maxItems=2), ["[]", "[null,true]"],
         ["[true,true]", "[true,false,null]"]),
        (a_list(items=INTEGER, uniqueItems=True), ["[]", "[1,12,2]"], ["[1,1]", "[1,2,1]", "[1.0]"]),
        (a_list(items=STRING, uniqueItems=True, maxItems=2), ['["a","/"]'],
         ['["a","a"]', r'["/","\/"]', '["a","b","c"]']),
        (a_list(items={"enum": [1, 12, 2]}, uniqueItems=True, minItems=1), ["[12,1]"], ["[]", "[1,1]"]),
        # Objects.
        ({**AB, "minProperties": 2}, ['{"a":"","c":null}'], ["{}", '{"a":""}']),
        ({**AB, "maxProperties": 1}, ["{}", '{"c":null}'], ['{"b":1,"c":null}']),
        ({**AB, "dependentRequired": {"a": ["b"]}}, ["{}", '{"a":"","b":1}', '{"b":1}'], ['{"a":""}']),
        ({**AB, "dependencies": {"a": {"properties": {"b": {"minimum": 5}}}}}, ['{"b":1}', '{"a":"","b":5}'],
         ['{"a":"","b":1}']),
        ({"type": "object", "required": ["z"]}, ['{"z":[1]}'], ["{}"]),
        ({"type": "object", "patternProperties": {"^x-": INTEGER}}, ["{}", '{"x-a":1}'], ['{"x-a":""}', '{"a":1}']),
        ({"type": "object", "patternProperties": {"^s_": STRING, "^i_[a-z]": INTEGER}, "additionalProperties": False},
         ["{}", '{"s_":"a","i_a":1}'], ['{"s_a":1}', '{"i_a":"a"}', '{"i_":1}', '{"a":1}']),
        ({**AB, "patternProperties": {"^b": {"minimum": 3}}}, ['{"b":3}'], ['{"b":2}']),
        ({"type": "object", "propertyNames": {"pattern": "^[a-z]+$"}, "additionalProperties": NULL}, ['{"ab":null}'],
         ['{"A":null}']),
        ({"type": "object", "propertyNames": {"enum": ["a", "b"]}}, ['{"a":1}'], ['{"c":1}']),
        ({"type": "object", "properties": {"ü": INTEGER, 'q"': NULL}}, ['{"ü":1,"q\\"":null}'], []),
        ({**AB, "unevaluatedProperties": False, "allOf": [{"properties": {"d": NULL}}]}, ['{"b":1,"d":null}'], []),
        ({"type": "object", "properties": {"never": False, "a": True}}, ['{"a":[{"b":1}]}'], ['{"never":1}']),
        ({"x-order": 1, "markdownDescription": "b", **NULL}, ["null"], []),
    ],
)  # fmt: skip
def test_what_keywords_allow(schema, yes, no):
    node = schema_node(schema)
    assert [text for text in yes if not matches(node, text)] == []
    assert [text for text in no if matches(node, text)] == []


@pytest.mark.parametrize(
    ("schema", "path", "instead"),
    [
        (a_list(contains=STRING), "contains", "prefixItems"),
        ({"$dynamicRef": "#x"}, "$dynamicRef", r"\$ref"),
        ({"minimun": 3}, "minimun", "x-"),
        ({"if": {"minimum": 3}, "then": {"maximum": 5}}, "if", "anyOf"),
        ({**INTEGER, "not": {"minimum": 3}}, "not", "bounds"),
        ({"type": "number", "multipleOf": 0.01}, "multipleOf", "cents"),
        ({**INTEGER, "multipleOf": 7}, "multipleOf", "minimum and a maximum"),
        ({**INTEGER, "exclusiveMinimum": True, "minimum": 1}, "exclusiveMinimum", "itself with the bound"),
        ({**STRING, "format": "phone"}, "format", "pattern"),
        ({**STRING, "pattern": r"^(?!a?b)\w+$"}, "pattern", "alternatives"),
        ({**STRING, "pattern": r"\bword\b"}, "pattern", "write the characters"),
        ({**STRING, "pattern": r"^a{9999999}$"}, "pattern", "100000"),
        ({**STRING, "pattern": "^a", "minLength": 5000, "maxLength": 6000, "format": "uri"}, "minLength", "change one"),
        ({"$ref": "other.json"}, "$ref", r"\$defs"),
        ({"oneOf": [AB, CAT, {"minProperties": 1}]}, "oneOf", "const of its own"),
        ({"type": "object", "minProperties": 2}, "minProperties", "name them"),
        ({"type": "object", "patternProperties": {"^a": STRING, "^ab": INTEGER}}, "patternProperties", "properties"),
        (a_list(uniqueItems=True, items={"type": "object"}), "items", "name their properties"),
        ({**AB, "minProperties": 4}, "minProperties", "declare more"),
        ({"allOf": [STRING, INTEGER]}, "", "exclude each other"),
    ],
)
def test_a_refusal_says_what_to_write_instead(schema, path, instead):
    with pytest.raises(SchemaError, match=instead) as caught:
        schema_node({"type": "object", "properties": {"p": schema}, "required": ["p"]})
    assert caught.value.path == f"properties.p.{path}".rstrip(".")


@pytest.mark.parametrize("name", FORMATS)
def test_formats_are_what_validators_take(name):
    validator = jsonschema.Draft202012Validator({"format": name}, format_checker=CHECKER)
    texts = some_texts(schema_node({"type": "string", "format": name}), random.Random(0), 60)
    assert len(texts) == 60
    assert [text for text in texts if not validator.is_valid(json.loads(text))] == []


def test_a_model_of_pydantic_reads_what_is_written():
    pydantic = pytest.importorskip("pydantic")
    import datetime
    import ipaddress
    import uuid

    fields: dict[str, Any] = {
        "when": (datetime.datetime, ...), "day": (datetime.date, ...), "clock": (datetime.time, ...),
        "long": (datetime.timedelta, ...), "url": (pydantic.HttpUrl, ...), "six": (ipaddress.IPv6Address, ...),
        "four": (ipaddress.IPv4Address | None, None), "key": (uuid.UUID, ...), "numbers": (set[int], ...),
        "flags": (frozenset[bool], ...), "pair": (tuple[int, str], ...), "words": (dict[str, list[float]], {}),
        "kind": (str, pydantic.Field(pattern="^[a-z]+$", max_length=10)), "data": (bytes, ...),
        "price": (int, pydantic.Field(multiple_of=5, gt=0, lt=1000)), "net": (ipaddress.IPv4Network, ...),
    }  # fmt: skip
    model = pydantic.create_model("Model", **fields)
    for text in some_texts(schema_node(model.model_json_schema()), random.Random(0), 60):
        model.model_validate_json(text)


def test_recursion_that_grows_too_fast_is_followed_less_deep():
    tree = {"type": "object", "properties": {"v": INTEGER, "left": {"$ref": "#"}, "right": {"$ref": "#"}}}
    found = schema_node(tree)
    assert matches(found, '{"v":1,"left":{"right":{"v":2}}}')
    assert not matches(found, '{"left":{"left":{"left":{"left":{}}}}}')
    assert size(found) < 50_000
    names = [f"n{number}" for number in range(9)]
    few = {name: {"$ref": f"#/$defs/{name}"} for name in names[:3]}
    wide = {"$ref": "#/$defs/n0", "$defs": {name: {"type": "object", "properties": few} for name in names}}
    assert matches(schema_node(wide), '{"n1": {"n2": {}}}')
    wide["$defs"] = {name: {"properties": {name: {"$ref": f"#/$defs/{name}"} for name in names}} for name in names}
    with pytest.raises(SchemaError, match="too large"):
        schema_node(wide)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"$defs": {f"r{i}": {"$ref": f"#/$defs/r{i + 1}"} for i in range(500)}, "$ref": "#/$defs/r0"},
        json.loads('{"items":' * 150 + "{}" + "}" * 150),
        json.loads('{"allOf":[' * 150 + "{}" + "]}" * 150),
        {"allOf": [{"anyOf": [{"minLength": i}, {"maxLength": i}]} for i in range(30)]},
        {"enum": ["x" * 1000 + str(i) for i in range(1000)]},
    ],
    ids=["itself", "itself inside", "long chain", "deep", "deep in place", "many alternatives", "large"],
)  # fmt: skip
def test_what_is_too_much_is_refused_quickly(schema):
    with pytest.raises(SchemaError):
        schema_node(schema)


def test_an_enum_is_filtered_by_what_its_pattern_writes():
    """Blanks of Unicode are none for ECMA's \\S, in an enum as elsewhere."""
    node = schema_node({"type": "string", "pattern": r"^\S$", "enum": ["\u00a0", "\u2003", "\ufeff", "z", "zz"]})
    assert matches(node, '"z"')
    assert not any(matches(node, f'"{text}"') for text in ("\u00a0", "\u2003", "\ufeff", "zz"))
