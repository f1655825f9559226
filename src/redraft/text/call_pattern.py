"""Tool declarations as the tree of the calls that a reply may make, in the model's own protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redraft.core.errors import OptionError, SchemaError
from redraft.text.grammar.build import any_of, optional, sequence
from redraft.text.grammar.nodes import AnyOrder, Node, Repeat, Text
from redraft.text.markers import CALL_CLOSE, CALL_OPEN, NAME, QUOTE
from redraft.text.schema import schema_node
from redraft.text.schema.keywords import ANNOTATIONS
from redraft.text.schema.notation import Notation, call_notation

# Each required argument of a function doubles the automaton that knows which have been written, and of all arguments
# no more can be told apart.
MOST_IN_ANY_ORDER, MOST_ARGUMENTS = 4, 48


def calls_node(
    tools: Sequence[Mapping[str, Any]], tool_choice: str, marks: Mapping[str, str], parallel: bool = True
) -> Node:
    """The tree of one or more calls; of one call where `tool_choice` names a function, or unless `parallel`.

    The arguments of a call come in any order, as models write them in the order of the request. A function with more
    than `MOST_IN_ANY_ORDER` required arguments, or `MOST_ARGUMENTS` of all kinds, has them in the order in which they
    are declared.

    Args:
        tools: OpenAI-style declarations, or bare functions.
        tool_choice: "auto", "required" or a name.
        marks: what stands for the special tokens in the tree.

    Raises:
        OptionError: a declaration without name, a name that is none, or a tokenizer without the marks.
        SchemaError: parameters that are no schema, or, of a function that is `strict`, cannot be enforced. Values
            of other functions that cannot be held to their schema may be any.
    """
    try:
        return _calls(_functions(tools), tool_choice, marks, parallel)
    except SchemaError as error:
        error.option = "tools"
        raise


def _calls(functions: dict[str, _Function], tool_choice: str, marks: Mapping[str, str], parallel: bool) -> Node:
    if tool_choice not in ("auto", "required"):
        if tool_choice not in functions:
            raise OptionError(f"tool_choice={tool_choice!r} is none of the tools: {', '.join(functions)}")
        return _call(tool_choice, functions[tool_choice], marks)
    one = any_of(_call(name, function, marks) for name, function in functions.items())
    return Repeat(one, 1, None) if parallel else one


@dataclass(frozen=True)
class _Function:
    parameters: Mapping[str, Any]
    properties: Mapping[str, Any]
    required: list[str]
    strict: bool


def function_names(tools: Sequence[Mapping[str, Any]]) -> list[str]:
    """The name of each declaration, in their order."""
    return list(_functions(tools))


def _functions(tools: Sequence[Mapping[str, Any]]) -> dict[str, _Function]:
    functions: dict[str, _Function] = {}
    for number, tool in enumerate(tools):
        function = tool.get("function", tool) if isinstance(tool, Mapping) else {}
        function = function if isinstance(function, Mapping) else {}
        name = function.get("name")
        if not isinstance(name, str) or not NAME.fullmatch(name) or name in functions:
            raise OptionError(f"tools: number {number} needs a name of its own, of letters, digits, '_', '-' and '.'")
        functions[name] = _function(name, function)
    if not functions:
        raise OptionError("tools: the list is empty")
    return functions


def _function(name: str, function: Mapping[str, Any]) -> _Function:
    parameters = function.get("parameters") or {}
    if not isinstance(parameters, Mapping) or parameters.get("type", "object") != "object":
        raise SchemaError(name, "parameters must be a schema of type object")
    properties, required = parameters.get("properties") or {}, parameters.get("required") or []
    if not isinstance(properties, Mapping):
        raise SchemaError(f"{name}.properties", f"must be a mapping, got {properties!r:.60}")
    unnamed = [key for key in properties if not isinstance(key, str)]
    if unnamed:
        raise SchemaError(f"{name}.properties", f"a name must be a string, got {unnamed[0]!r:.60}")
    if not isinstance(required, list | tuple) or not all(isinstance(key, str) for key in required):
        raise SchemaError(f"{name}.required", f"must be a list of names, got {required!r:.60}")
    return _Function(parameters, properties, list(required), bool(function.get("strict")))


def _call(name: str, function: _Function, marks: Mapping[str, str]) -> Node:
    for token in (CALL_OPEN, CALL_CLOSE, QUOTE):
        if token not in marks:
            raise OptionError(f"tools: this model's tokenizer has no {token}, so calls cannot be enforced")
    arguments = _arguments(name, function, call_notation(marks[QUOTE]))
    return sequence([Text(f"{marks[CALL_OPEN]}call:{name}"), arguments, Text(marks[CALL_CLOSE])])


def _arguments(name: str, function: _Function, notation: Notation) -> Node:
    properties, required = function.properties, function.required
    plain = ANNOTATIONS | {"type", "properties", "required", "additionalProperties"}
    unknown = {key for key in function.parameters if key not in plain and not str(key).startswith("x-")}
    if not properties and not unknown and not required:
        return notation.record([])
    many = len(required) > MOST_IN_ANY_ORDER or len(properties) > MOST_ARGUMENTS
    if unknown or many or not set(required) <= set(properties):
        try:
            return schema_node({"type": "object", **function.parameters}, notation, name)
        except SchemaError:
            if function.strict or not properties:
                raise
    fields, needed = list[tuple[Node, Node]](), set[int]()
    for key, schema in properties.items():
        path = f"{name}.{key}"
        if schema is False and key not in required:
            continue
        if key in required:
            needed.add(len(fields))
        fields.append((sequence([notation.key(key, path), Text(":")]), _value(schema, path, function, notation)))
    if not fields:
        return notation.record([])
    some = AnyOrder(tuple(fields), frozenset(needed), Text(","))
    return sequence([Text("{"), some if needed else optional(some), Text("}")])


def _value(schema: Any, path: str, function: _Function, notation: Notation) -> Node:
    try:
        return schema_node(schema, notation, path, root=function.parameters)
    except SchemaError:
        if function.strict:
            raise
    # What can be held of it by itself is its type.
    try:
        return schema_node({"type": schema["type"]}, notation, path)
    except (SchemaError, KeyError, TypeError):
        return schema_node(True, notation, path)
