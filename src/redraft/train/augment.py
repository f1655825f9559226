"""New requests from old ones: argument values exchanged between requests, words replaced, turns put before them."""

from __future__ import annotations

import copy
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np

from redraft.text.conversations import Conversation
from redraft.train import repair, sudoku


class Augmentation:
    """Changes single-turn conversations so that their replies stay right.

    Values: a string value of a call that its request spells out once is replaced by one of another request with the
    same call and argument, or, for arguments that take many values, now and then by random words, so that only
    copying can get it right. Words: those of the request that are part of no value are dropped or replaced. Turns:
    another conversation is put before, so that a reply follows the last request and not the first. Exercises, which
    are puzzles and damaged texts, are made anew instead of having their words changed.

    A prompt declares one set of tools, under which values and turns of rows with other tools, or of rows with
    instructions, may be wrong: they are taken from rows with equal tools, and turns from those without instructions.
    """

    def __init__(
        self,
        conversations: Sequence[Conversation],
        *,
        swap: float = 0.0,
        random_words: float = 0.0,
        word_noise: float = 0.0,
        earlier_turn: float = 0.0,
        fresh: float = 0.0,
        open_class: int = 200,
    ) -> None:
        """Probabilities: `swap` for each value, `word_noise` for each word, `earlier_turn` for each conversation,
        `fresh` for each exercise; `random_words` is a share of the swaps of open-class arguments."""
        self.swap, self.random_words = swap, random_words
        self.word_noise, self.earlier_turn, self.fresh = word_noise, earlier_turn, fresh
        # An exercise is long, and a batch as long as its longest row.
        self.earlier: dict[str, list[Conversation]] = defaultdict(list)
        self.values: dict[tuple[str, str, str], list[str]] = defaultdict(list)
        for conversation in conversations:
            tools = _declared(conversation)
            if _exercise(conversation.messages) is None and _may_come_before(conversation.messages):
                self.earlier[tools].append(conversation)
            for function in _functions(conversation.messages):
                for key, value in function["arguments"].items():
                    if isinstance(value, str):
                        self.values[tools, function["name"], key].append(value)
        self.open = {slot for slot, values in self.values.items() if len(set(values)) >= open_class}
        self.words = sorted({w for values in self.values.values() for value in values for w in value.split()})

    def __call__(self, conversation: Conversation, rng: np.random.Generator) -> Conversation:
        """A changed copy, or the conversation itself where it is no request with its reply."""
        messages = conversation.messages
        if [message["role"] for message in messages] != ["user", "assistant"]:
            return conversation
        exercise = _exercise(messages)
        if exercise is not None:
            if not self.fresh or rng.random() >= self.fresh:
                return conversation
            return replace(conversation, messages=exercise.varied(messages, rng))
        messages, tools, context = copy.deepcopy(messages), _declared(conversation), 0
        functions = _functions(messages)
        if not isinstance(messages[0]["content"], str):
            # What stands in a picture is no word.
            functions = []
        if len(functions) == 1:
            self._swap_values(messages[0], functions[0], tools, rng)
        if self.word_noise and isinstance(messages[0]["content"], str):
            values = [str(value) for function in functions for value in function["arguments"].values()]
            messages[0]["content"] = self._noised(messages[0]["content"], values, rng)
        if self.earlier_turn and rng.random() < self.earlier_turn and (rows := self.earlier.get(tools)):
            earlier = rows[int(rng.integers(len(rows)))].messages
            # What stands before is context here, and an example where it is a row itself.
            messages, context = [*earlier, *messages], len(earlier)
        return replace(conversation, messages=messages, context=context)

    def _swap_values(
        self, message: dict[str, Any], function: dict[str, Any], tools: str, rng: np.random.Generator
    ) -> None:
        text = message["content"]
        for key, old in function["arguments"].items():
            slot = tools, function["name"], key
            if not isinstance(old, str) or rng.random() >= self.swap or not _once(text, old):
                continue
            new = self._draw(slot, rng)
            # A second occurrence would make the copy ambiguous, and a request must say something.
            if (
                not new.strip()
                or new in text
                or any(new in other or other in new for other in function["arguments"].values())
            ):
                continue
            text = text.replace(old, new)
            function["arguments"][key] = new
        message["content"] = text

    def _noised(self, text: str, values: list[str], rng: np.random.Generator) -> str:
        kept = {_bare(word) for value in values for word in value.split()}
        words = []
        for word in text.split(" "):
            if _bare(word) in kept or rng.random() >= self.word_noise:
                words.append(word)
            elif self.words and rng.random() < 0.5:
                words.append(self.words[rng.integers(len(self.words))])
        noised = " ".join(words)
        return noised if noised.strip() else text

    def _draw(self, slot: tuple[str, str, str], rng: np.random.Generator) -> str:
        if slot in self.open and rng.random() < self.random_words:
            return " ".join(self.words[rng.integers(len(self.words))] for _ in range(rng.integers(1, 5)))
        return self.values[slot][rng.integers(len(self.values[slot]))]


def _exercise(messages: list[dict[str, Any]]) -> ModuleType | None:
    text = str(messages[0].get("content"))
    return next((kind for kind in (sudoku, repair) if text.startswith(f"{kind.REQUEST}\n")), None)


def _may_come_before(messages: list[dict[str, Any]]) -> bool:
    roles = [message["role"] for message in messages]
    return roles[-1] == "assistant" and not {"system", "developer"} & set(roles)


def _declared(conversation: Conversation) -> str:
    return json.dumps(conversation.tools, sort_keys=True) if conversation.tools else ""


def _functions(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    calls = [call["function"] for message in messages for call in message.get("tool_calls") or ()]
    return [function for function in calls if isinstance(function.get("arguments"), dict)]


def _once(text: str, value: str) -> bool:
    """Whether the text holds the value exactly once, as whole words."""
    start = text.find(value)
    if start < 0 or text.find(value, start + 1) >= 0:
        return False
    end = start + len(value)
    return not (start > 0 and text[start - 1].isalnum()) and not (end < len(text) and text[end].isalnum())


def _bare(word: str) -> str:
    return word.casefold().strip(".,;:!?'\"")
