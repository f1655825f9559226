"""An engine that decides as its states say: `p=0.8` in one gives a question's first option 0.8, the others the rest."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from cli_fakes import generation

from deciding import Driver, known, options_of, text
from redraft.core.decisions import Decisions
from redraft.core.questions import DecideOptions
from redraft.core.reads import CanvasRead, Read
from redraft.core.results import Generation, ModelInfo
from redraft.decide.given import questions_of
from redraft.decide.rounds import decide
from redraft.decide.state import state_of

SPAM = {"type": "predicate", "name": "spam", "instructions": "Is it spam?"}
TONE = {"type": "choice", "name": "tone", "instructions": "Which tone?", "choices": ["calm", "angry", "sad"]}
URGENCY = {"type": "score", "name": "urgency", "instructions": "How urgent?", "levels": ["low", "some", "high"]}


def as_said(read: Read, draw: int, slot: int) -> Sequence[float]:
    said = re.search(r"p=([\d.]+\d)", text(read.prompt))
    count = options_of(read, slot)
    first = float(said[1]) if said else 1 / count
    return (first, *([(1 - first) / (count - 1)] * (count - 1)))


def by_reader(read: Read, draw: int, slot: int) -> Sequence[float]:
    """The canvas says as said, each draw a little less; the causal mode the reverse."""
    shares = as_said(read, draw, slot)
    if isinstance(read, CanvasRead):
        return (shares[0] - 0.01 * draw, shares[1] + 0.01 * draw, *shares[2:])
    return shares[::-1]


class FakeDecider:
    """Keeps what it was asked."""

    def __init__(
        self,
        shares: Callable[[Read, int, int], Sequence[float]] = as_said,
        on_state: Callable[[Any], None] = lambda state: None,
        reply: Callable[[Any], Generation] = lambda messages: generation(text="A", tool_calls=()),
        mass: float = 1.0,
    ) -> None:
        self.driver, self.on_state, self.reply = Driver(shares, mass), on_state, reply
        self.states: list[Any] = []
        self.options: list[DecideOptions] = []
        self.generated: list[dict[str, Any]] = []
        self.info = ModelInfo(
            name="fake", path="/fake", parameters=1, vocab_size=4096, canvas_length=48, max_context=2048, device="cpu",
            dtype="float32", quantization=None, has_tokenizer=True, has_chat_template=True,
        )  # fmt: skip

    def deciding(self, state: Any, questions: Any, options: DecideOptions | None = None) -> Any:
        return decide(known(), state_of(state), questions_of(questions), options or DecideOptions())

    def decide(self, state: Any, questions: Any, options: DecideOptions | None = None, **changes: Any) -> Decisions:
        self.on_state(state)
        chosen = (options or DecideOptions()).with_changes(**changes)
        found = self.driver(decide(known(), state_of(state), questions_of(questions), chosen))
        self.states.append(state)
        self.options.append(chosen)
        return found

    def generate(self, prompt: Any, options: Any = None, **changes: Any) -> Generation:
        self.generated.append({"prompt": prompt, **changes})
        return self.reply(prompt)
