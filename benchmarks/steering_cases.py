"""The schemas and tools that `steering.py` measures, and how long they may take."""

from __future__ import annotations

from typing import Any

BOUNDS_S = {
    "one integer": 0.05,
    "ten nested fields": 0.3,
    "five tools": 0.5,
    "thirty tools": 2.0,
    "128 tools": 8.0,
    "ten strings of 80, one of 2,000": 0.5,
}


def cases() -> dict[str, dict[str, Any]]:
    """Options of each case, by its name."""
    bounded = {f"field_{place}": {"type": "string", "maxLength": 80} for place in range(10)}
    bounded["story"] = {"type": "string", "maxLength": 2000}
    return {
        "one integer": schema({"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}),
        "ten nested fields": schema(NESTED),
        "ten strings of 80, one of 2,000": schema(
            {"type": "object", "properties": bounded, "required": list(bounded), "additionalProperties": False}
        ),
        **{
            name: {"tools": tools(count)}
            for name, count in (("five tools", 5), ("thirty tools", 30), ("128 tools", 128))
        },
    }


def schema(of: dict[str, Any]) -> dict[str, Any]:
    """Options that hold a reply to a schema."""
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": of}}}


def tools(count: int, suffix: str = "") -> list[dict[str, Any]]:
    """Declarations with names and arguments of their own."""
    found = []
    for number in range(count):
        name, properties, required = TOOLS[number % len(TOOLS)]
        own = suffix + (f"_{number // len(TOOLS)}" if number >= len(TOOLS) else "")
        parameters = {
            "type": "object",
            "properties": {f"{key}{own}": value for key, value in properties.items()},
            "required": [f"{key}{own}" for key in required],
        }
        found.append({"type": "function", "function": {"name": name + own, "parameters": parameters}})
    return found


STRING = {"type": "string"}
WHEN = {"type": "string", "format": "date-time"}
NESTED = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "title": STRING,
        "status": {"type": "string", "enum": ["open", "in progress", "blocked", "closed"]},
        "priority": {"type": "integer", "minimum": 1, "maximum": 5},
        "tags": {"type": "array", "items": STRING, "maxItems": 5},
        "created": WHEN,
        "owner": {
            "type": "object",
            "properties": {
                "name": STRING,
                "email": {"type": "string", "format": "email"},
                "role": {"enum": ["admin", "user", "guest"]},
            },
            "required": ["name", "email", "role"],
            "additionalProperties": False,
        },
        "estimate": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        "steps": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"what": STRING, "done": {"type": "boolean"}},
                "required": ["what", "done"],
            },
            "minItems": 1,
        },
        "note": {"type": ["string", "null"]},
    },
    "required": ["id", "title", "status", "priority", "tags", "created", "owner", "estimate", "steps", "note"],
    "additionalProperties": False,
}
GUEST = {
    "type": "object",
    "properties": {"name": STRING, "role": {"enum": ["host", "guest"]}},
    "required": ["name"],
}
TOOLS: list[tuple[str, dict[str, Any], list[str]]] = [
    (
        "get_weather",
        {
            "city": STRING,
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            "days": {"type": "integer", "minimum": 1, "maximum": 14},
        },
        ["city"],
    ),
    (
        "send_mail",
        {"to": {"type": "array", "items": STRING}, "subject": STRING, "body": STRING, "urgent": {"type": "boolean"}},
        ["to", "subject", "body"],
    ),
    ("search_files", {"query": STRING, "path": STRING, "limit": {"type": "integer"}}, ["query"]),
    (
        "create_event",
        {"title": STRING, "start": WHEN, "attendees": {"type": "array", "items": GUEST}},
        ["title", "start"],
    ),
    ("run_sql", {"statement": STRING, "parameters": {"type": "object"}}, ["statement"]),
]
