"""New requests from old ones: argument values exchanged between requests, in the text and in the call alike."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from redraft.text.conversations import Conversation


class ValueSwap:
    """Replaces string values of a call that its request spells out once.

    A value comes from another request with the same call and argument, or, for arguments that take many values, now
    and then from random words, so that only copying can get it right.
    """

    def __init__(
        self, conversations: Sequence[Conversation], *, swap: float, random_words: float, open_class: int = 200
    ) -> None:
        """`swap`: probability for each value; `random_words`: share of the replacements of open-class arguments."""
        self.swap, self.random_words = swap, random_words
        self.values: dict[tuple[str, str], list[str]] = defaultdict(list)
        for conversation in conversations:
            for function in _functions(conversation.messages):
                for key, value in function["arguments"].items():
                    if isinstance(value, str):
                        self.values[function["name"], key].append(value)
        self.open = {slot for slot, values in self.values.items() if len(set(values)) >= open_class}
        self.words = sorted({w for values in self.values.values() for value in values for w in value.split()})

    def __call__(self, conversation: Conversation, rng: np.random.Generator) -> Conversation:
        """A changed copy, or the conversation itself where nothing can be swapped."""
        messages = conversation.messages
        if len(messages) != 2 or len(_functions(messages)) != 1 or not isinstance(messages[0].get("content"), str):
            return conversation
        messages = copy.deepcopy(messages)
        function = _functions(messages)[0]
        text = messages[0]["content"]
        for key, old in function["arguments"].items():
            slot = function["name"], key
            if not isinstance(old, str) or rng.random() >= self.swap or not _once(text, old):
                continue
            new = self._draw(slot, rng)
            # A second occurrence would make the copy ambiguous.
            if new in text or any(new in other or other in new for other in function["arguments"].values()):
                continue
            text = text.replace(old, new)
            function["arguments"][key] = new
        messages[0]["content"] = text
        return Conversation(messages, conversation.line, conversation.tools)

    def _draw(self, slot: tuple[str, str], rng: np.random.Generator) -> str:
        if slot in self.open and rng.random() < self.random_words:
            return " ".join(self.words[rng.integers(len(self.words))] for _ in range(rng.integers(1, 5)))
        return self.values[slot][rng.integers(len(self.values[slot]))]


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
