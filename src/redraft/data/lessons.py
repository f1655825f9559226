"""A decider's first lessons: questions alone, whose answers say in words what a letter alone would hide.

Which letter stands for an option is learned late, and by a letter alone hardly at all: each answer is one bit or two.
Where the option's words follow the letter, the words are learned first, and then the letter beside which they stand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from redraft.core.questions import Question
from redraft.data.asked import Asked, Asker, Request
from redraft.data.draws import Draws
from redraft.decide.prompts import Put, before, label_kinds, messages, text_of
from redraft.decide.state import State

# Questions about each request.
TURNS = 3
# Of a hundred lessons, those whose answer is given in words without options, in an option's own words, and as a letter
# with its words; then as a letter, and the rest by yes or no.
_OPEN, _TEXT, _BOTH, _LETTER = 10, 15, 40, 25
_ONE, _AND_WORDS = "Answer with one letter.", "Answer with one letter and its words."


def lessons(requests: Iterable[Request], asker: Asker) -> Iterator[dict[str, Any]]:
    """Conversations, some for each request."""
    asked = list(requests)
    for turn in range(TURNS):
        for request in asked:
            if (row := lesson(request, asker, turn)) is not None:
                yield row


def lesson(request: Request, asker: Asker, turn: int) -> dict[str, Any] | None:
    """The lesson of one turn; None where what was drawn does not go with the request."""
    draws = Draws("stage", str(turn), request.text)
    place, asked = draws.below(100), asker.choose(request, draws)
    if asked is None or asked.answer is None:
        return None
    if place < _OPEN:
        return opened(request, asked)
    if place < _OPEN + _TEXT:
        asked = replace(asked, question=replace(asked.question, form="text"))
        return _answered(request, asked, draws, in_words=False)
    if place < _OPEN + _TEXT + _BOTH + _LETTER:
        return _answered(request, asked, draws, in_words=place < _OPEN + _TEXT + _BOTH)
    predicate = asker.is_for(request, draws) or asker.is_about(request, draws)
    return None if predicate is None else _answered(request, predicate, draws, in_words=False)


def opened(request: Request, asked: Asked) -> dict[str, Any]:
    """A question whose options are not told."""
    assert asked.answer is not None
    told = f"{before(State(text=request.text))}Question: {asked.question.instructions}\nAnswer in a few words."
    answer = text_of(asked.question, asked.question.options[asked.answer])
    return {"messages": [{"role": "user", "content": told}, {"role": "assistant", "content": answer}]}


def put_in_order(question: Question, draws: Draws | None = None) -> Put:
    """A question as it is put, its options in the order that is given or drawn."""
    order = range(len(question.options))
    drawn = draws.shuffled(order) if draws is not None and question.kind == "choice" else order
    return Put(question=question, labels=label_kinds(question)[0], order=tuple(drawn))


def _answered(request: Request, asked: Asked, draws: Draws, *, in_words: bool) -> dict[str, Any]:
    assert asked.answer is not None
    put = put_in_order(asked.question, draws)
    (said,) = messages(State(text=request.text), [put], joint=False, behind=False)
    content, answer = said["content"], put.texts[asked.answer]
    if in_words:
        content = content.replace(_ONE, _AND_WORDS)
        answer = f"{answer}: {text_of(asked.question, asked.question.options[asked.answer])}"
    return {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]}
