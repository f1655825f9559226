"""Flags of the commands that ask typed questions, read off `DecideOptions`; and what their files hold."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from redraft.cli.command import ASKED
from redraft.cli.options import descriptions, one_of, option, scalar, with_flags
from redraft.core.errors import InputError, OptionError, QuestionError
from redraft.core.questions import DecideOptions, Place, Reader

if TYPE_CHECKING:
    from redraft.core.decisions import Refusal
    from redraft.core.questions import Question

# Where a field has another name than its flag, since `--state` is what is asked about.
_FLAGS = {"state": "place"}
_CHOICES = {"reader": typing.get_args(Reader), "state": typing.get_args(Place)}
_METAVARS = {int: "N", float: "X", str: "TEXT", Path: "FILE"}
_SPELLED: dict[str, Any] = {"calibration": Path, "gate_nats": str}
_NO_GATE = "none"

Questions = Annotated[
    str | None,
    typer.Option(
        help="What is asked: OpenAI's list of questions or System One's map of names to them, in a JSON or YAML file "
        "or as JSON itself.",
        metavar="FILE|JSON",
    ),
]


def decide_flags() -> dict[str, inspect.Parameter]:
    """One keyword parameter for each field of `DecideOptions`, unset by default, as typer wants it."""
    hints, said = typing.get_type_hints(DecideOptions), descriptions(DecideOptions)
    flags = {}
    for field in fields(DecideOptions):
        kind = _SPELLED.get(field.name) or scalar(hints[field.name])
        assert kind is not None, field.name
        choices = _CHOICES.get(field.name)
        metavar = "|".join(choices) if choices else _METAVARS.get(kind)
        if field.name == "gate_nats":
            metavar = f"X|{_NO_GATE}"
        completing = one_of(*choices) if choices else None
        text = said[field.name].replace("None:", "none:" if field.name == "gate_nats" else "unset:")
        if field.default is not None and not isinstance(field.default, bool):
            text = f"{text.rstrip('.')} [default: {field.default}]."
        flag = option(text, panel=ASKED, metavar=metavar, autocompletion=completing)
        name = _FLAGS.get(field.name, field.name)
        annotation = Annotated[kind | None, flag]
        flags[name] = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
    return flags


def with_decide_options(*, calibration: bool = True) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command with a flag for each of `DecideOptions`, which arrive in its `options` as such; `calibration`: whether
    it takes one."""
    flags = decide_flags()
    if not calibration:
        del flags["calibration"]
    return lambda command: with_flags(command, "options", flags, _gathered)


def questions_in(given: str | None) -> list[Question | Refusal]:
    """The questions that `--questions` names.

    Raises:
        InputError: there are none, or the file cannot be read.
    """
    from redraft.decide.files import read_questions

    if given is None:
        raise InputError("--questions is missing: give a JSON or YAML file of questions; see 'redraft decide --help'")
    try:
        return read_questions(given)
    except QuestionError as error:
        raise InputError(f"--questions: {error}") from None


def askable(questions: Sequence[Question | Refusal]) -> list[Question]:
    """The questions, where each can be asked: what runs over many states begins with no broken one.

    Raises:
        InputError: one that cannot be asked.
    """
    from redraft.core.decisions import Refusal

    for number, question in enumerate(questions, start=1):
        if isinstance(question, Refusal):
            called = f" ({question.name})" if question.name else ""
            raise InputError(f"--questions: question {number}{called} cannot be asked: {question.reason}")
    return [question for question in questions if not isinstance(question, Refusal)]


@contextmanager
def flags_named(*others: str) -> Iterator[None]:
    """What an option is called in here is called as its flag outside.

    Args:
        others: names of arguments of the same name, dashes aside, that are no options of `DecideOptions`.

    Raises:
        OptionError: one that was raised within, in the command line's words.
    """
    try:
        yield
    except OptionError as error:
        name, _, reason = str(error).partition(" ")
        if name not in (*others, *(field.name for field in fields(DecideOptions))):
            raise
        raise OptionError(f"--{_FLAGS.get(name, name).replace('_', '-')} {reason}") from None


def _gathered(values: dict[str, Any]) -> DecideOptions:
    names = {flag: name for name, flag in _FLAGS.items()}
    given = {names.get(flag, flag): value for flag, value in values.items() if value is not None}
    if "calibration" in given:
        from redraft.decide.calibration_file import read

        given["calibration"] = read(given["calibration"])
    if "gate_nats" in given:
        given["gate_nats"] = _gate(given["gate_nats"])
    with flags_named():
        return DecideOptions(**given)


def _gate(value: str) -> float | None:
    if value == _NO_GATE:
        return None
    try:
        return float(value)
    except ValueError:
        raise InputError(f"--gate-nats must be a number of nats or {_NO_GATE}, got {value!r}") from None
