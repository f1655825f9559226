"""Typed questions: what may be asked of a state, and how it is to be found out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

from redraft.core.calibration import Calibration
from redraft.core.checks import at_least, flag, shown
from redraft.core.errors import OptionError, QuestionError, UnknownOptionError
from redraft.core.options import EXACT_BITS

MOST_QUESTIONS = 400
MOST_OPTIONS = 255
MOST_LEVELS = 10

Kind = Literal["predicate", "choice", "score"]
Reader = Literal["auto", "canvas", "causal"]
Form = Literal["auto", "label", "text", "reply"]
Place = Literal["auto", "before", "behind"]

# What a question's options are called where one of them is wrong.
_PARTS = {"predicate": "options", "choice": "choices", "score": "levels"}


@dataclass(frozen=True, kw_only=True)
class Option:
    """One of the answers that a question offers; the question checks it.

    Attributes:
        value: what it is called, and what comes back; True and "true" are two.
        description: what it means, for the model alone.
        reply: where the question's form is "reply", the text that a reply begins with, markers such as `<|tool_call>`
            read as such; None: the value itself.
    """

    value: str | bool
    description: str | None = None
    reply: str | None = None

    @property
    def text(self) -> str:
        """The value as text; booleans as JSON writes them."""
        return self.value if isinstance(self.value, str) else str(self.value).lower()


YES, NO = Option(value=True), Option(value=False)


@dataclass(frozen=True, kw_only=True)
class Question:
    """A typed question. `predicate`, `choice` and `score` make one, and check it.

    Attributes:
        kind: "predicate" (yes or no), "choice" (one of several options), "score" (one of several levels, in order).
        instructions: what is asked; text, or JSON as text.
        options: the answers; of a predicate (True, False), of a score its levels, the least first.
        name: the caller's own; no model sees it.
        form: how options are read: "label" by a letter, a digit, yes or no that stands for each; "text" by their own
            text, of any number of tokens; "reply": nothing is asked, the options are what the reply to the
            conversation may begin with; "auto" by labels where these are enough.
    """

    kind: Kind
    instructions: str
    options: tuple[Option, ...]
    name: str | None = None
    form: Form = "auto"

    def __post_init__(self) -> None:
        """Checks it.

        Raises:
            QuestionError: it cannot be asked.
        """
        for name, known in (("kind", get_args(Kind)), ("form", get_args(Form))):
            if getattr(self, name) not in known:
                raise QuestionError(name, f"must be one of {', '.join(known)}, got {shown(getattr(self, name))}")
        if self.name is not None and not (isinstance(self.name, str) and self.name):
            raise QuestionError("name", f"must be a text, got {shown(self.name)}")
        if not isinstance(self.instructions, str):
            raise QuestionError("instructions", f"must be text, got {shown(self.instructions)}")
        if bool(self.instructions.strip()) == (self.form == "reply"):
            asked = self.form != "reply"
            wrong = "are empty: say what is asked" if asked else "are not asked with form 'reply': leave them out"
            raise QuestionError("instructions", wrong)
        if not isinstance(self.options, tuple | list):
            raise QuestionError(self.part, f"must be a tuple of Option, got {shown(self.options)}")
        object.__setattr__(self, "options", tuple(self.options))
        for option in self.options:
            self._check(option)
        if self.kind == "predicate":
            if self.values != (True, False):
                raise QuestionError(self.part, f"of a yes or no must be True and False, got {shown(self.values)}")
            return
        most = MOST_LEVELS if self.kind == "score" else MOST_OPTIONS
        if not 2 <= len(self.options) <= most:
            raise QuestionError(self.part, f"must be 2 to {most}, got {len(self.options)}")
        seen: set[tuple[type, str | bool]] = set()
        for value in self.values:
            key = (type(value), value)
            if key in seen:
                raise QuestionError(self.part, f"hold {shown(value)} twice")
            seen.add(key)

    def _check(self, option: Any) -> None:
        """An option by itself."""
        if not isinstance(option, Option):
            raise QuestionError(self.part, f"must each be an Option, got {shown(option)}")
        value, description, reply = option.value, option.description, option.reply
        if not isinstance(value, str) and not (isinstance(value, bool) and self.kind != "score"):
            wanted = "text" if self.kind == "score" else "text or true or false"
            raise QuestionError(self.part, f"must be {wanted}, got {shown(value)}")
        if isinstance(value, str) and not value.strip():
            raise QuestionError(self.part, "hold an empty text")
        if description is not None and not isinstance(description, str):
            raise QuestionError(self.part, f"hold a description that is no text: {shown(description)}")
        if reply is not None and not (isinstance(reply, str) and reply):
            raise QuestionError(self.part, f"hold an option whose reply is no text: {shown(reply)}")
        if reply is not None and self.form != "reply":
            raise QuestionError(self.part, f"hold a reply, {shown(reply)}, which nothing but form 'reply' reads")

    @property
    def part(self) -> str:
        """What its options are called where one of them is wrong: "choices", of a score "levels"."""
        return _PARTS[self.kind]

    @property
    def values(self) -> tuple[str | bool, ...]:
        """What the options are called."""
        return tuple(option.value for option in self.options)


def predicate(
    instructions: str, *, name: str | None = None, true: str | None = None, false: str | None = None
) -> Question:
    """A question that is answered with yes or no; `true` and `false` say what either means."""
    options = (Option(value=True, description=true), Option(value=False, description=false))
    return Question(kind="predicate", instructions=instructions, options=options, name=name)


def choice(
    instructions: str,
    options: Mapping[str, str | None] | tuple[Any, ...] | list[Any],
    *,
    name: str | None = None,
    form: Form = "auto",
) -> Question:
    """A question that is answered with one of these: values, or values with what they mean."""
    made = _options("choices", options)
    return Question(kind="choice", instructions=instructions, options=made, name=name, form=form)


def score(
    instructions: str, levels: Mapping[str, str | None] | tuple[Any, ...] | list[Any], *, name: str | None = None
) -> Question:
    """A question that is answered with one of these levels, the least first."""
    return Question(kind="score", instructions=instructions, options=_options("levels", levels), name=name)


def _options(part: str, given: Any) -> tuple[Option, ...]:
    """Of a list of values or Options, or a map of values to what they mean."""
    if isinstance(given, Mapping):
        return tuple(Option(value=value, description=meant) for value, meant in given.items())
    # A text is no list of its letters, and a set has no order.
    if not isinstance(given, Sequence) or isinstance(given, str | bytes | bytearray):
        raise QuestionError(part, f"must be a list, or a map of each to what it means, got {shown(given)}")
    return tuple(each if isinstance(each, Option) else Option(value=each) for each in given)


@dataclass(frozen=True, kw_only=True)
class DecideOptions:
    """How questions are found out.

    Attributes:
        joint: several questions on one canvas, a line each, so that dozens cost one step; else each by itself.
        reader: "canvas": one denoising step of a canvas that is never committed; "causal": the next token of the
            causal mode; "auto": whichever runs fewer positions through the model, see `redraft.decide.cost`.
        state: where the state stands: "before" the questions, so that many questions share it, or "behind" them, so
            that many states share the questions; "auto": behind where several states are asked the same.
        draws: canvases of their own noise that are averaged from the start.
        gate_nats: a question whose answer has more entropy is looked at again; None: none is.
        more_draws: further draws for those, with their options in other orders; 0: none.
        second_reader: whether those still above the gate are put to the other reader as well.
        least_mass: labels that have less of the whole vocabulary leave the question unanswered.
        least_confidence: a likeliest answer below this leaves the question unanswered.
        agree: whether readers that disagree leave the question unanswered.
        steps: denoising steps; more than one sharpens without being righter.
        width: positions of a canvas; None: as few as hold the answer, in sixteens.
        seed: of the noise; None: a function of the prompt, so that a question asked again has the same answer.
        empty_thought: whether an empty thought stands before the answer, as larger models write one; None: where the
            model's chat template knows thoughts.
        calibration: what `redraft decide calibrate` has found out about this model and these questions.
    """

    joint: bool = False
    reader: Reader = "auto"
    state: Place = "auto"
    draws: int = 1
    gate_nats: float | None = 0.1
    more_draws: int = 3
    second_reader: bool = True
    least_mass: float = 0.0
    least_confidence: float = 0.0
    agree: bool = False
    steps: int = 1
    width: int | None = None
    seed: int | None = None
    empty_thought: bool | None = None
    calibration: Calibration | None = field(default=None)

    def __post_init__(self) -> None:
        """Checks each.

        Raises:
            OptionError: a value that cannot work.
        """
        for name in ("joint", "second_reader", "agree"):
            flag(name, getattr(self, name))
        for name, known in (("reader", ("auto", "canvas", "causal")), ("state", ("auto", "before", "behind"))):
            if getattr(self, name) not in known:
                wanted = ", ".join(map(repr, known))
                raise OptionError(f"{name} must be one of {wanted}, got {shown(getattr(self, name))}")
        for name, least, most in (("draws", 1, 64), ("more_draws", 0, 64), ("steps", 1, 64)):
            if at_least(name, getattr(self, name), least, int) > most:
                raise OptionError(f"{name} must be at most {most}, got {getattr(self, name)}")
        if self.gate_nats is not None:
            at_least("gate_nats", self.gate_nats, 0, float)
        for name in ("least_mass", "least_confidence"):
            if at_least(name, getattr(self, name), 0, float) > 1:
                raise OptionError(f"{name} is a probability, got {getattr(self, name)}")
        if self.width is not None:
            at_least("width", self.width, 1, int)
        if self.seed is not None and at_least("seed", self.seed, 0, int) >= 2**EXACT_BITS:
            raise OptionError(f"seed must be below 2**{EXACT_BITS}, got {self.seed}")
        if self.empty_thought is not None:
            flag("empty_thought", self.empty_thought)
        if self.agree and (self.gate_nats is None or not self.second_reader):
            missing = "a gate: leave gate_nats at a number" if self.second_reader else "second_reader"
            raise OptionError(f"agree compares two readers, so it needs {missing}")
        if self.calibration is not None and not isinstance(self.calibration, Calibration):
            reads = "redraft.decide.calibration_file.read reads one from a file"
            raise OptionError(f"calibration must be a Calibration or None, got {shown(self.calibration)}: {reads}")

    def with_changes(self, **changes: Any) -> DecideOptions:
        """The same with some of them changed.

        Raises:
            UnknownOptionError: the name of one that does not exist.
            OptionError: a value that cannot work.
        """
        known = {each.name for each in fields(self)}
        for name in changes:
            if name not in known:
                raise UnknownOptionError(f"there is no option {name!r} of decide; there is {', '.join(sorted(known))}")
        return replace(self, **changes)
