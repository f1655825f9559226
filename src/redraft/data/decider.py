"""A decider's data: requests and typed questions about them, put as they are put to a model, and labelled rows."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from redraft.core.questions import Question
from redraft.data.asked import SLOTS, Asked, Asker, Request
from redraft.data.draws import Draws
from redraft.data.lessons import lessons, opened, put_in_order
from redraft.data.mini import Rows, held_out
from redraft.data.skills import CALLS, INTENTS
from redraft.decide.prompts import messages
from redraft.decide.state import State

# What is answered where no option is right, so that the labels have little of the whole vocabulary there.
NONE = "none"
# Bounds that keep a prompt within a local layer's window: characters of all questions, and lines of a canvas of 48.
_MOST_CHARACTERS = 800
_MOST_QUESTIONS = 11


def split(snips: Iterable[Mapping[str, Any]], clinc150: Iterable[Mapping[str, str]]) -> dict[str, Rows]:
    """Conversations to train on, first lessons apart, and labelled rows to calibrate and to measure with, by file name.

    The held-out tenth is mini's: a half of it is `dev.jsonl`, the other `test.jsonl`. Of the same requests as that one,
    `scope.jsonl` has questions none of whose options is right.
    """
    parts: dict[str, list[Request]] = {"train": [], "dev": [], "test": []}
    for request in (*map(_of_snips, snips), *map(_of_clinc150, clinc150)):
        parts[part_of(request.text)].append(request)
    askers = {name: Asker(values=_values(requests), missing=0.0) for name, requests in parts.items()}
    teaching = Asker(values=askers["train"].values, missing=0.12, wide=0.25)
    tricky = Asker(values=askers["test"].values, missing=1.0)
    first = replace(teaching, missing=0.0)
    return {
        "first.jsonl": list(lessons(parts["train"], first)),
        "train.jsonl": [taught(request, teaching) for request in parts["train"]],
        "dev.jsonl": [row for request in parts["dev"] if (row := labelled(request, askers["dev"]))],
        "test.jsonl": [row for request in parts["test"] if (row := labelled(request, askers["test"]))],
        "scope.jsonl": [row for request in parts["test"] if (row := out_of_scope(request, tricky))],
    }


def part_of(text: str) -> str:
    """Where a text belongs: "train", "dev" or "test"; a property of the text alone."""
    if not held_out(text):
        return "train"
    digest = hashlib.sha256(f"decider:{' '.join(text.lower().split())}".encode()).digest()
    return "dev" if digest[0] % 2 else "test"


def taught(request: Request, asker: Asker) -> dict[str, Any]:
    """A conversation about a request: a question alone, by labels, by its options' own text or without any, or several
    jointly.

    What a text means is learned from questions without options, every token of whose answers is a lesson; long before
    which letter stands for which.
    """
    draws = Draws("taught", request.text)
    if draws.chance(0.2) and (asked := asker.choose(request, draws)) is not None and asked.answer is not None:
        return opened(request, asked)
    if draws.chance(0.3):
        return _conversation(request, asked_about(request, asker, draws, _how_many(draws)), draws, joint=True)
    by_text, choosing = draws.chance(0.4), draws.chance(0.6)
    asked = asker.choose(request, draws) if by_text or choosing else None
    if asked is None:
        return _conversation(request, asked_about(request, asker, draws, 1), draws, joint=False)
    if by_text:
        asked = replace(asked, question=replace(asked.question, form="text"))
    return _conversation(request, [asked], draws, joint=False)


def labelled(request: Request, asker: Asker) -> dict[str, Any] | None:
    """A request and questions in OpenAI's form, each with its answer; None where nothing is known about it."""
    if request.skill is None:
        return None
    draws = Draws("labelled", request.text)
    return _row(request, asked_about(request, asker, draws, 2 + draws.below(5)))


def out_of_scope(request: Request, asker: Asker) -> dict[str, Any] | None:
    """The same with one question, to which no option is an answer."""
    draws = Draws("scope", request.text)
    asked = asker.choose(request, draws)
    return None if asked is None or asked.answer is not None else _row(request, [asked])


def asked_about(request: Request, asker: Asker, draws: Draws, count: int) -> list[Asked]:
    """So many different questions, or fewer where there are no more or they would be too long; one at least."""
    found: dict[str, Asked] = {}
    characters = 0
    for _ in range(4 * count):
        asked = asker.ask(request, draws)
        if asked is None or str(asked.question.name) in found:
            continue
        characters += len(asked.question.instructions) + sum(len(o.text) + 4 for o in asked.question.options) + 36
        if found and characters > _MOST_CHARACTERS:
            break
        found[str(asked.question.name)] = asked
        if len(found) == count:
            break
    return list(found.values()) or [asker.skill(request, draws)]


def _conversation(request: Request, asked: Sequence[Asked], draws: Draws, *, joint: bool) -> dict[str, Any]:
    said = {"role": "user", "content": request.text}
    state = State(messages=(said,)) if draws.chance(0.1) else State(text=request.text)
    puts = [put_in_order(one.question, draws) for one in asked]
    answers = [NONE if one.answer is None else each.texts[one.answer] for one, each in zip(asked, puts, strict=True)]
    lines = [f"{number}: {answer}" for number, answer in enumerate(answers, start=1)] if joint else answers
    prompt = messages(state, puts, joint=joint, behind=draws.chance(0.3))
    return {"messages": [*prompt, {"role": "assistant", "content": "\n".join(lines)}]}


def _how_many(draws: Draws) -> int:
    return 2 + draws.below(_MOST_QUESTIONS - 1 if draws.chance(0.15) else 4)


def _row(request: Request, asked: Sequence[Asked]) -> dict[str, Any]:
    answers = {str(one.question.name): _answer(one) for one in asked}
    return {"state": request.text, "questions": [_sent(one.question) for one in asked], "answers": answers}


def _sent(question: Question) -> dict[str, Any]:
    """As OpenAI's interface takes it."""
    sent: dict[str, Any] = {"type": question.kind, "name": question.name, "instructions": question.instructions}
    if question.kind == "choice":
        sent["choices"] = [{"value": option.value} for option in question.options]
    if question.kind == "score":
        sent["levels"] = [{"label": option.value} for option in question.options]
    return sent


def _answer(asked: Asked) -> str | bool | int | None:
    if asked.answer is None or asked.question.kind == "score":
        return asked.answer
    return asked.question.options[asked.answer].value


def _of_snips(row: Mapping[str, Any]) -> Request:
    function = row["messages"][1]["tool_calls"][0]["function"]
    skill, domain = CALLS[function["name"]]
    arguments = {name: value for name, value in function["arguments"].items() if value}
    text = row["messages"][0]["content"]
    return Request(text=text, skill=skill, domain=domain, call=function["name"], arguments=arguments)


def _of_clinc150(row: Mapping[str, str]) -> Request:
    skill, domain = INTENTS.get(row["intent"], (None, None))
    return Request(text=row["text"], skill=skill, domain=domain)


def _values(requests: Sequence[Request]) -> dict[str, list[str]]:
    """What fills each argument, sorted, so that the order of the requests decides nothing."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for request in requests:
        for name, value in request.arguments.items():
            if name in SLOTS:
                found[name].add(value)
    return {name: sorted(values) for name, values in found.items()}
