"""From either body to a state, questions and options, and from decisions to the reply that its sender reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from redraft.core.checks import shown
from redraft.core.decisions import Answer, Decisions, Refusal
from redraft.core.errors import ContextLengthError, InputError, PromptError, QuestionError
from redraft.core.questions import DecideOptions, Question
from redraft.decide.given import questions_of
from redraft.decide.state import State, as_text, state_of
from redraft.server.decision_input import state_of_input
from redraft.server.decision_schema import Decide, DecisionsRequest, SystemOneRequest
from redraft.server.errors import ApiError

# What Jev's clients send where nobody has named a model.
ANY_MODEL = "jev-latest"

# What is asked where a question of System One has criteria alone.
_UNSAID = {"noul": "Is this so?", "choice": "Which of these is it?", "score": "Which of these levels is it?"}

AnyBody = DecisionsRequest | SystemOneRequest


def asked(body: AnyBody) -> tuple[Any, list[Question | Refusal]]:
    """(state, questions).

    Raises:
        ApiError: a state that is none; in System One's body, which knows no refusals, a question that is none.
        QuestionError: no state, or no questions.
    """
    if isinstance(body, DecisionsRequest):
        return state_of_input(body.input), questions_of(body.questions)
    questions = questions_of({name: _spelled_out(name, each) for name, each in body.questions.items()})
    for name, question in zip(body.questions, questions, strict=True):
        if isinstance(question, Refusal):
            raise _unasked(name, question.reason)
        _check_keys(name, question)
    state = _shown(state_of(body.state), body.images or ())
    if body.instructions:
        before = {"role": "system", "content": as_text(body.instructions, "instructions")}
        state = State(messages=(before, *state.conversation))
    return state, questions


def _shown(state: State, images: Sequence[str]) -> State:
    """A state with these pictures before it."""
    if not images:
        return state
    parts = [{"type": "image_url", "image_url": url} for url in images]
    said = state.parts or (({"type": "text", "text": state.text},) if state.text else ())
    if state.messages:
        return state_of([{"role": "user", "content": parts}, *state.messages])
    return state_of([{"role": "user", "content": [*parts, *said]}])


def _check_keys(name: str, question: Question) -> None:
    """Makes sure that the options are apart as keys of an object, which is how this format tells of them."""
    texts = [option.text for option in question.options]
    if len(set(texts)) < len(texts):
        twice = next(text for text in texts if texts.count(text) > 1)
        raise _unasked(name, f"choices hold {shown(twice)} twice, as text: this format cannot tell them apart")


def _spelled_out(name: str, question: Any) -> dict[str, Any]:
    """A question with what this format may leave out, its levels as text."""
    if not isinstance(question, dict):
        raise _unasked(name, f"must be an object, got {shown(question)}")
    kind, found = question.get("type"), dict(question)
    unsaid = found.get("instructions") is None and found.get("form") != "reply"
    if unsaid and isinstance(kind, str) and kind in _UNSAID:
        found["instructions"] = _UNSAID[kind]
    levels = found.get("criteria")
    if kind == "score" and isinstance(levels, list):
        try:
            found["criteria"] = [as_text(x, "criteria") if isinstance(x, dict | list) else x for x in levels]
        except QuestionError as error:
            raise _unasked(name, str(error)) from None
    return found


def options_of(body: AnyBody) -> DecideOptions:
    """How the questions are to be found out.

    Raises:
        OptionError: a value that cannot work.
    """
    given: dict[str, Any] = {} if body.decide is None else body.decide.model_dump(exclude_unset=True)
    # To look at no question again is a wish; elsewhere null is none.
    found = {name: value for name, value in given.items() if value is not None or name == "gate_nats"}
    return DecideOptions().with_changes(**(found if body.joint is None else {**found, "joint": body.joint}))


def reply(body: AnyBody, model: str, request_id: str, decisions: Decisions) -> dict[str, Any]:
    """The reply in the body's own format, and beside it what the format has no place for.

    Raises:
        ApiError: a question of System One's body that turned out to be none.
    """
    stats = decisions.stats
    if isinstance(body, DecisionsRequest):
        answers: Any = [_of_openai(answer) for answer in decisions.answers]
        told: Any = [answer.to_dict() for answer in decisions.answers]
        usage = {
            "input_tokens": stats.prompt_tokens,
            "input_tokens_details": {"cached_tokens": stats.cached_tokens, "cache_write_tokens": 0},
            "output_tokens": 0,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": stats.prompt_tokens,
        }
    else:
        by_name = dict(zip(body.questions, decisions.answers, strict=True))
        answers = {name: _of_system_one(name, body.questions[name], answer) for name, answer in by_name.items()}
        told = {name: answer.to_dict() for name, answer in by_name.items()}
        usage = {"input_tokens": stats.prompt_tokens, "output_tokens": 0}
    extras = {"id": request_id, "answers": told, "stats": asdict(stats)}
    return {"model": model, "answers": answers, "usage": usage, "redraft": extras}


def refused(error: InputError, body: AnyBody) -> ApiError:
    """What a client is told of a state, a question or an option that cannot work, in its own words."""
    state = "input" if isinstance(body, DecisionsRequest) else "state"
    if isinstance(error, ContextLengthError):
        return ApiError(400, str(error), param=_longest(body), code="context_length_exceeded")
    if isinstance(error, PromptError):
        return ApiError(400, f"{state}: {error}", param=state)
    if isinstance(error, QuestionError):
        field = state if error.field == "state" else error.field
        return ApiError(400, f"{field} {error.reason}", param=field)
    option = str(error).split(" ", 1)[0]
    known = option in Decide.model_fields
    return ApiError(400, f"decide.{error}" if known else str(error), param=f"decide.{option}" if known else None)


def _longest(body: AnyBody) -> str:
    """What of a body, apart from its questions, takes the most room."""
    if isinstance(body, DecisionsRequest):
        return "input"
    instructions = as_text(body.instructions or "", "instructions")
    return "instructions" if len(instructions) > len(as_text(body.state, "state")) else "state"


def _of_openai(answer: Answer | Refusal) -> dict[str, Any]:
    if isinstance(answer, Refusal):
        return {"type": "refusal", "name": answer.name}
    question, shares = answer.question, answer.probabilities
    found: dict[str, Any] = {"type": question.kind, "name": question.name}
    if question.kind == "predicate":
        return {**found, "probability": answer.score}
    if question.kind == "choice":
        each = [{"value": value, "probability": p} for value, p in zip(question.values, shares, strict=True)]
        return {**found, "choice": answer.value, "probabilities": each, "confidence": answer.confidence}
    each = [
        {"value": level, "label": label, "probability": p}
        for level, (label, p) in enumerate(zip(question.values, shares, strict=True))
    ]
    return {**found, "score": answer.score, "probabilities": each, "confidence": answer.confidence}


def _of_system_one(name: str, given: Mapping[str, Any], answer: Answer | Refusal) -> dict[str, Any]:
    """An abstained question is answered with what the answer would be: this format has no other word for it."""
    if isinstance(answer, Refusal):
        if answer.answer is None:
            raise _unasked(name, answer.reason)
        answer = answer.answer
    kind, shares = answer.question.kind, answer.probabilities
    if kind == "predicate":
        return {"type": "noul", "noul": answer.score}
    if kind == "choice":
        each = dict(zip(answer.question.values, shares, strict=True))
        return {"type": "choice", "choice": answer.value, "probabilities": each, "confidence": answer.confidence}
    levels = given.get("criteria")
    legend = {str(n): meant for n, meant in enumerate(answer.question.values if levels is None else levels)}
    each = {str(level): p for level, p in enumerate(shares)}
    return {
        "type": "score", "score": answer.score, "legend": legend, "probabilities": each,
        "confidence": answer.confidence,
    }  # fmt: skip


def _unasked(name: str, reason: str) -> ApiError:
    where = f"questions.{name}"[:200]
    return ApiError(400, f"{where}: {reason}", param=where, code="invalid_question")
