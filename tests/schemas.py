"""Random JSON schemas within what redraft enforces, valid values of them, and random texts of automata."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from redraft.core.automaton import DEAD, TokenAutomaton

WORDS = ["name", "age", "größe", "a b", "x-1", "Ort", 'quote"d', "back\\slash", "漢字", "emoji😀", "n", "value", "tags"]


def random_schema(rng: random.Random, depth: int = 3) -> dict[str, Any]:
    """A schema whose parts nest at most `depth` deep."""
    kinds = ["string", "integer", "number", "boolean", "null", "enum", "const", "format", "pattern"]
    if depth:
        kinds += ["object", "object", "object", "array", "array", "anyOf", "ref", "map", "types"]
    kind = rng.choice(kinds)
    if kind == "string":
        low, high = sorted((rng.randint(0, 4), rng.randint(0, 12)))
        bounds = {"minLength": low, "maxLength": high}
        return {"type": "string", **{key: bounds[key] for key in bounds if rng.random() < 0.6}}
    if kind in ("integer", "number"):
        low, high = sorted((rng.randint(-200, 200), rng.randint(-200, 2000)))
        bounds: dict[str, Any] = {}
        if rng.random() < 0.7:
            bounds[rng.choice(["minimum", "exclusiveMinimum"])] = low
        if rng.random() < 0.7:
            bounds[rng.choice(["maximum", "exclusiveMaximum"])] = high + 2
        return {"type": kind, **bounds}
    if kind in ("boolean", "null"):
        return {"type": kind}
    if kind == "enum":
        values = [rng.choice(WORDS), rng.randint(-5, 5), None, True, [1, "zwei"], {"k": "v"}, 2.5]
        return {"enum": rng.sample(values, rng.randint(1, 4))}
    if kind == "const":
        return {"const": rng.choice([*WORDS, 7, False, {"deep": [1, {"er": None}]}])}
    if kind == "format":
        return {"type": "string", "format": rng.choice(["date", "time", "date-time", "uuid", "email", "ipv4"])}
    if kind == "pattern":
        return {
            "type": "string",
            "pattern": rng.choice(["^[A-Z]{2}[0-9]{1,3}$", "ab+c", r"^\d{3}-\w+", "(eins|zwei)$", "^[^a-z]*$"]),
        }
    if kind == "array":
        low, high = sorted((rng.randint(0, 2), rng.randint(0, 4)))
        if rng.random() < 0.2:
            return {
                "type": "array",
                "prefixItems": [random_schema(rng, depth - 1) for _ in range(high + 1)],
                "items": False,
            }
        bounds = {"minItems": low, "maxItems": high}
        return {"type": "array", "items": random_schema(rng, depth - 1), **bounds}
    if kind == "anyOf":
        return {"anyOf": [random_schema(rng, depth - 1) for _ in range(rng.randint(1, 3))]}
    if kind == "ref":
        inner = {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}}
        inner["properties"]["v"] = random_schema(rng, 0)
        return (
            {"$ref": "#/$defs/node", "$defs": {"node": {**inner, "required": ["v"]}}}
            if depth == 3
            else {"type": "null"}
        )
    if kind == "map":
        return {
            "type": "object",
            "additionalProperties": random_schema(rng, depth - 1),
            "maxProperties": rng.randint(0, 3),
        }
    if kind == "types":
        return {"type": rng.sample(["string", "integer", "boolean", "null"], 2)}
    keys = rng.sample(WORDS, rng.randint(1, 4))
    required = [key for key in keys if rng.random() < 0.5]
    properties = {key: random_schema(rng, depth - 1) for key in keys}
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def random_tokens(automaton: TokenAutomaton, rng: np.random.Generator, longest: int = 60) -> list[int]:
    """Random tokens to the end, the shortest way once they are many."""
    state, tokens = automaton.start, []
    while state != automaton.done:
        kinds = np.flatnonzero(automaton.following(state) != DEAD)
        if len(tokens) >= longest:
            targets = automaton.following(state)[kinds]
            closer = automaton.shortest[targets] < automaton.shortest[state]
            kinds = kinds[(targets == automaton.done) | closer]
        token = int(rng.choice(np.flatnonzero(automaton.class_of == rng.choice(kinds))))
        state = automaton.advance(state, [token])
        tokens.append(token)
    return tokens
