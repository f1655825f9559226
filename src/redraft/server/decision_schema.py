"""What clients may send to have questions decided: OpenAI's body and System One's, told apart by what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, StrictBool, StrictInt, Tag, WithJsonSchema, model_validator

from redraft.core.options import EXACT_BITS
from redraft.core.questions import MOST_QUESTIONS
from redraft.server.decision_document import INPUT, QUESTIONS, QUESTIONS_BY_NAME
from redraft.server.schema import MAX_MESSAGES, Body, Share, without_paths

OPENAI, SYSTEM_ONE = "OpenAI's body", "System One's body"


def _input(value: Any) -> Any:
    if isinstance(value, str) or (isinstance(value, list) and 1 <= len(value) <= MAX_MESSAGES):
        return value
    raise ValueError(f"must be a text or a list of 1 to {MAX_MESSAGES} messages")


def _state(value: Any) -> Any:
    if isinstance(value, str | dict | list):
        messages = value.get("messages") if isinstance(value, dict) else value
        for message in messages if isinstance(messages, list) else ():
            if isinstance(message, dict):
                without_paths(message)
        return value
    raise ValueError("must be a text, an object or an array")


def _questions(kind: type, wanted: str) -> BeforeValidator:
    def checked(value: Any) -> Any:
        if isinstance(value, kind) and 1 <= len(value) <= MOST_QUESTIONS:  # type: ignore[arg-type]
            return value
        raise ValueError(f"must be {wanted}, 1 to {MOST_QUESTIONS} of them")

    return BeforeValidator(checked)


def _absent(value: Any) -> None:
    if value:
        raise ValueError("pictures belong to the state itself; sound and films are not read yet")


Absent = Annotated[None, BeforeValidator(_absent, json_schema_input_type=None)]


class Decide(Body):
    """redraft's own options; see `DecideOptions`."""

    joint: StrictBool | None = None
    reader: Literal["auto", "canvas", "causal"] | None = None
    state: Literal["auto", "before", "behind"] | None = None
    draws: Annotated[StrictInt | None, Field(ge=1, le=64)] = None
    gate_nats: Annotated[float | None, Field(ge=0, description="null looks at no question again")] = None
    more_draws: Annotated[StrictInt | None, Field(ge=0, le=64)] = None
    second_reader: StrictBool | None = None
    least_mass: Share | None = None
    least_confidence: Share | None = None
    agree: StrictBool | None = None
    steps: Annotated[StrictInt | None, Field(ge=1, le=64)] = None
    width: Annotated[StrictInt | None, Field(ge=1, lt=2**31)] = None
    seed: Annotated[StrictInt | None, Field(ge=0, lt=2**EXACT_BITS)] = None


class Asked(Body):
    """What both bodies share."""

    joint: StrictBool | None = None
    cache_salt: str | None = None
    user: str | None = None
    decide: Decide | None = None
    audio: Absent = None
    videos: Absent = None
    assets: Absent = None

    @model_validator(mode="after")
    def _joint_once(self) -> Asked:
        if self.joint is not None and self.decide is not None and self.decide.joint not in (None, self.joint):
            raise ValueError("joint and decide.joint differ: give one of them")
        return self


class CacheOptions(Body):
    """Of a cache elsewhere; here a beginning that was read before is always taken up."""

    mode: Literal["implicit", "explicit"] | None = None
    ttl: Literal["30m"] | None = None


class DecisionsRequest(Asked):
    """A state as `input`, and a list of questions."""

    model: str
    input: Annotated[str | list[Any], BeforeValidator(_input), WithJsonSchema(INPUT)]
    questions: Annotated[
        list[Any],
        _questions(list, "a list of questions"),
        WithJsonSchema(QUESTIONS),
    ]
    images: Absent = None
    prompt_cache_key: str | None = None
    prompt_cache_options: CacheOptions | None = None
    safety_identifier: str | None = None


class TemplateWithoutThoughts(Body):
    """Of the chat template."""

    enable_thinking: Literal[False] | None = None


class SystemOneRequest(Asked):
    """A `state`, and questions by names of the caller's own."""

    model: str | None = None
    state: Annotated[str | dict[str, Any] | list[Any], BeforeValidator(_state)]
    questions: Annotated[
        dict[str, Any],
        _questions(dict, "questions by your own names"),
        WithJsonSchema(QUESTIONS_BY_NAME),
    ]
    instructions: str | dict[str, Any] | list[Any] | None = None
    chat_template_kwargs: TemplateWithoutThoughts | None = None
    priority: Literal[0] | None = None
    images: Annotated[list[str] | None, Field(description="`data:` URLs of what stands before the state")] = None
    request_id: str | None = None


def _form_of(value: Any) -> str:
    """Whose body it is. The route does not say: clients send either to both."""
    if isinstance(value, SystemOneRequest):
        return SYSTEM_ONE
    if not isinstance(value, Mapping) or "input" in value:
        return OPENAI
    return SYSTEM_ONE if "state" in value or isinstance(value.get("questions"), Mapping) else OPENAI


AnyRequest = Annotated[
    Annotated[DecisionsRequest, Tag(OPENAI)] | Annotated[SystemOneRequest, Tag(SYSTEM_ONE)], Discriminator(_form_of)
]
