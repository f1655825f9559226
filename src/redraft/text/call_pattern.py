"""Tool declarations as the pattern of the calls that a reply may make, in the model's own protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from redraft.core.errors import OptionError, SchemaError
from redraft.text.calls import CALL_CLOSE, CALL_OPEN, NAME, QUOTE
from redraft.text.schema import ANNOTATIONS, schema_pattern
from redraft.text.schema_notation import call_notation
from redraft.text.schema_strings import literal

# Each required argument of a function doubles the automaton that knows which have been written.
MOST_IN_ANY_ORDER = 4


def calls_pattern(tools: Sequence[Mapping[str, Any]], tool_choice: str, marks: Mapping[str, str]) -> str:
    """The pattern of one or more calls; of one call where `tool_choice` names a function.

    The arguments of a call come in any order, as models write them in the order of the request. That each stands
    there once, and required ones at all, is not in the pattern: see `argument_names`. A function with more than
    `MOST_IN_ANY_ORDER` required arguments has them in the order in which they are declared.

    Args:
        tools: OpenAI-style declarations, or bare functions.
        tool_choice: "auto", "required" or a name.
        marks: what stands for the special tokens in the pattern.

    Raises:
        OptionError: a declaration without name, a name that is none, or a tokenizer without the marks.
        SchemaError: parameters that cannot be enforced, by path.
    """
    functions = _functions(tools)
    if tool_choice not in ("auto", "required"):
        if tool_choice not in functions:
            raise OptionError(f"tool_choice={tool_choice!r} is none of the tools: {', '.join(functions)}")
        return _call(tool_choice, functions[tool_choice], marks)
    return f"(?:{'|'.join(_call(name, parameters, marks) for name, parameters in functions.items())})+"


def argument_names(tools: Sequence[Mapping[str, Any]]) -> dict[str, tuple[list[str], list[str]]]:
    """(arguments, required ones) of each function whose arguments come in any order."""
    found = {}
    for name, parameters in _functions(tools).items():
        required = list(parameters.get("required") or ())
        if len(required) <= MOST_IN_ANY_ORDER:
            found[name] = list(parameters.get("properties") or {}), required
    return found


def _functions(tools: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    functions: dict[str, Mapping[str, Any]] = {}
    for number, tool in enumerate(tools):
        function = tool.get("function", tool) if isinstance(tool, Mapping) else {}
        function = function if isinstance(function, Mapping) else {}
        name = function.get("name")
        if not isinstance(name, str) or not NAME.fullmatch(name) or name in functions:
            raise OptionError(f"tools: number {number} needs a name of its own, of letters, digits, '_', '-' and '.'")
        parameters = function.get("parameters") or {}
        if not isinstance(parameters, Mapping) or parameters.get("type", "object") != "object":
            raise SchemaError(name, "parameters must be a schema of type object")
        functions[name] = parameters
    if not functions:
        raise OptionError("tools: the list is empty")
    return functions


def _call(name: str, parameters: Mapping[str, Any], marks: Mapping[str, str]) -> str:
    for token in (CALL_OPEN, CALL_CLOSE, QUOTE):
        if token not in marks:
            raise OptionError(f"tools: this model's tokenizer has no {token}, so calls cannot be enforced")
    return f"{marks[CALL_OPEN]}call:{literal(name)}{_arguments(name, parameters, marks[QUOTE])}{marks[CALL_CLOSE]}"


def _arguments(name: str, parameters: Mapping[str, Any], quote: str) -> str:
    notation = call_notation(quote)
    properties, required = parameters.get("properties") or {}, list(parameters.get("required") or ())
    unknown = set(parameters) - ANNOTATIONS - {"type", "properties", "required", "additionalProperties"}
    if not properties or unknown or len(required) > MOST_IN_ANY_ORDER:
        whole = parameters if properties or unknown else {"type": "object", "properties": {}}
        return schema_pattern({"type": "object", **whole}, notation, name)
    missing = [key for key in required if key not in properties]
    if missing:
        raise SchemaError(f"{name}.required", f"{missing[0]!r} is not among the properties")
    items = []
    for key, schema in properties.items():
        # References are resolved from the root of the parameters.
        held = {k: parameters[k] for k in ("$defs", "definitions") if k in parameters}
        rooted = {**held, **schema} if held and isinstance(schema, Mapping) else schema
        value = schema_pattern(rooted, notation, f"{name}.{key}")
        items.append(notation.pair(notation.key(key, f"{name}.{key}"), value))
    one = f"(?:{'|'.join(items)})"
    some = f"(?:{one},)*{one}"
    return rf"\{{{some}\}}" if required else rf"\{{(?:{some})?\}}"
