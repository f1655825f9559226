"""Questions as clients write them: OpenAI's list of objects, System One's map of names to them, or ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

from redraft.core.checks import shown
from redraft.core.decisions import Refusal
from redraft.core.errors import PromptError, QuestionError
from redraft.core.questions import MOST_QUESTIONS, Form, Kind, Option, Question
from redraft.decide.state import as_text
from redraft.text.messages import check_values

_KINDS: dict[str, Kind] = {
    "predicate": "predicate", "noul": "predicate", "bool": "predicate", "choice": "choice", "score": "score",
}  # fmt: skip
# What the options stand in: OpenAI's name, and System One's.
_PLACES = {"predicate": (), "choice": ("choices",), "score": ("levels",)}
_CRITERIA = "criteria"
_COMMON = ("type", "instructions", "name", "form")


def questions_of(value: Any) -> list[Question | Refusal]:
    """Questions by what a caller gives.

    Args:
        value: a `Question`; a list of them or of objects as OpenAI's API has them; a map of names to objects as System
            One's has them. Either API's fields are understood in either shape.

    Returns:
        Each question, or why it cannot be asked.

    Raises:
        QuestionError: it is neither a list nor a map, or holds none or too many.
    """
    if isinstance(value, Question | Refusal):
        return [value]
    if isinstance(value, Mapping):
        # A question has a type, a map of them has names; one of them may be "type".
        items = [(None, value)] if isinstance(value.get("type"), str) else list(value.items())
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
        items = [(None, each) for each in value]
    else:
        raise QuestionError("questions", f"must be a list of questions, or a map of names to them, got {shown(value)}")
    if not 1 <= len(items) <= MOST_QUESTIONS:
        raise QuestionError("questions", f"must be 1 to {MOST_QUESTIONS}, got {len(items)}")
    return [_asked(name, each) for name, each in items]


def _asked(name: Any, value: Any) -> Question | Refusal:
    if isinstance(value, Question | Refusal):
        return value
    own = name if name is not None or not isinstance(value, Mapping) else value.get("name")
    try:
        if name is not None and isinstance(value, Mapping) and "name" in value:
            raise QuestionError("name", "stands before the question already")
        return _question(own, value)
    except QuestionError as error:
        called = own if isinstance(own, str) and _is_text(own) else None
        return Refusal(question=None, name=called, code="invalid_question", reason=str(error))


def _is_text(value: str) -> bool:
    """Whether it can be written again: half of a surrogate pair cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _question(name: Any, value: Any) -> Question:
    if not isinstance(value, Mapping):
        raise QuestionError("question", f"must be an object, got {shown(value)}")
    try:
        check_values([name, value], "question")
    except PromptError as error:
        raise QuestionError("question", str(error).removeprefix("question: ")) from None
    kind = _KINDS.get(value["type"]) if isinstance(value.get("type"), str) else None
    if kind is None:
        raise QuestionError("type", f"must be one of {', '.join(_KINDS)}, got {shown(value.get('type'))}")
    for field in value:
        if field not in (*_COMMON, *_PLACES[kind], _CRITERIA):
            raise QuestionError(shown(field), f"is no field of a {value['type']}")
    if name is not None and not (isinstance(name, str) and name):
        raise QuestionError("name", f"must be a text, got {shown(name)}")
    form = value.get("form", "auto")
    if form not in get_args(Form):
        raise QuestionError("form", f"must be one of {', '.join(get_args(Form))}, got {shown(form)}")
    return Question(
        kind=kind,
        instructions=_instructions(value.get("instructions"), needed=form != "reply"),
        options=_outcomes(value.get(_CRITERIA)) if kind == "predicate" else _options(kind, value),
        name=name,
        form=cast(Form, form),
    )


def _instructions(value: Any, *, needed: bool) -> str:
    if value is None:
        if needed:
            raise QuestionError("instructions", "are missing: say what is asked")
        return ""
    if isinstance(value, list | tuple) and any(_is_part(part) for part in value):
        return "\n".join(_part(part) for part in value)
    if not isinstance(value, str | Mapping | list | tuple):
        raise QuestionError("instructions", f"must be text or JSON, got {shown(value)}")
    return as_text(value, "instructions") if value else ""


def _is_part(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("type"), str) and value["type"].startswith("input_")


def _part(value: Any) -> str:
    kind = value.get("type") if isinstance(value, Mapping) else None
    if kind == "input_text" and isinstance(value.get("text"), str):
        return value["text"]
    if kind == "input_json" and isinstance(value.get("data"), Mapping | list | tuple):
        return as_text(value["data"], "instructions")
    if kind == "input_image":
        raise QuestionError("instructions", "hold an image: it belongs to the state that is asked about")
    raise QuestionError("instructions", f"hold {shown(value)}, which is neither input_text nor input_json")


def _outcomes(criteria: Any) -> tuple[Option, Option]:
    """What yes and no mean."""
    if criteria is None:
        criteria = {}
    if not isinstance(criteria, Mapping):
        raise QuestionError(_CRITERIA, f"of a yes or no must be an object with true and false, got {shown(criteria)}")
    meant: dict[bool, str | None] = {}
    for outcome, description in criteria.items():
        which = {"true": True, "false": False}.get(str(outcome).lower())
        if which is None or which in meant:
            raise QuestionError(_CRITERIA, f"of a yes or no are true and false, got {shown(outcome)}")
        meant[which] = _description(description, _CRITERIA)
    return Option(value=True, description=meant.get(True)), Option(value=False, description=meant.get(False))


def _options(kind: Kind, value: Mapping[str, Any]) -> tuple[Option, ...]:
    given = [place for place in (*_PLACES[kind], _CRITERIA) if value.get(place) is not None]
    if len(given) != 1:
        wrong = "are missing: say what may be answered" if not given else f"stand beside {given[1]}: give one of them"
        raise QuestionError(_PLACES[kind][0], wrong)
    (place,) = given
    listed = value[place]
    if isinstance(listed, Mapping):
        return tuple(_described(option, meaning, kind, place) for option, meaning in listed.items())
    if isinstance(listed, list | tuple):
        return tuple(_option(item, kind, place) for item in listed)
    raise QuestionError(place, f"must be a list, or a map of each to what it means, got {shown(listed)}")


def _option(item: Any, kind: Kind, place: str) -> Option:
    """One of a list: its value alone, or an object that says more."""
    if not isinstance(item, Mapping):
        return _described(item, None, kind, place)
    called = "label" if kind == "score" else "value"
    for field in item:
        if field not in (called, "description", "reply"):
            raise QuestionError(place, f"hold an option with {shown(field)}, which is no field of one")
    if called not in item:
        raise QuestionError(place, f"hold an option without a {called}: {shown(item)}")
    reply = item.get("reply")
    if reply is not None and not (isinstance(reply, str) and reply):
        raise QuestionError(place, f"hold an option whose reply is no text: {shown(reply)}")
    return _described(item[called], item.get("description"), kind, place, reply)


def _described(value: Any, description: Any, kind: Kind, place: str, reply: str | None = None) -> Option:
    if not isinstance(value, str) and not (kind == "choice" and isinstance(value, bool)):
        wanted = "text" if kind == "score" else "text or true or false"
        raise QuestionError(place, f"must be {wanted}, got {shown(value)}")
    return Option(value=value, description=_description(description, place), reply=reply)


def _description(value: Any, place: str) -> str | None:
    """What something means: text, or JSON written down; an empty text says nothing."""
    if value is not None and not isinstance(value, str | Mapping | list | tuple):
        raise QuestionError(place, f"hold a description that is neither text nor JSON: {shown(value)}")
    return as_text(value, place) if value else None
