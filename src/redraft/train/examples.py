"""From conversations to padded batches: one supervised span for each assistant turn, length-bucketed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from redraft.core.errors import DataError, PromptError
from redraft.text.chat import ChatTemplate
from redraft.text.conversations import THOUGHTS, Conversation
from redraft.text.prompt_text import PromptText
from redraft.text.tokenizer import Tokenizer
from redraft.train.objective import Batch


@dataclass(frozen=True)
class Example:
    """A prompt and the response that the model should give to it.

    Attributes:
        prompt: ids up to where the reply begins.
        response: ids up to and with end-of-turn.
        values: for each response id, whether it stands inside an argument's value.
        complete: False where the response was cut to fit, so that it has no real end.
    """

    prompt: list[int]
    response: list[int]
    values: list[bool]
    complete: bool = True


def rendered(
    template: ChatTemplate, conversation: Conversation, path: str, upto: int | None = None, **how: bool
) -> str:
    """A conversation's first messages as text, its tools declared as they are at inference.

    Raises:
        DataError: the template refuses them.
    """
    try:
        return template.render(conversation.messages[:upto], tools=conversation.tools, **how)
    except PromptError as error:
        raise DataError(path, conversation.line, str(error)) from None
    except RecursionError:
        raise DataError(path, conversation.line, "nests too deeply for the chat template") from None


class Encoder:
    """Renders and tokenizes conversations."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate, max_length: int) -> None:
        self.tokenizer, self.template, self.max_length = tokenizer, template, max_length
        self.quote = tokenizer.id_of('<|"|>')
        self.ends = set(tokenizer.end_of_turn_ids())

    def examples(self, conversation: Conversation, path: str) -> list[Example]:
        """One example for each assistant turn of the row's own; turns whose prompt leaves no room are left out.

        Raises:
            DataError: see `whole`.
        """
        fitted = (self.fitted(example) for example in self.whole(conversation, path))
        return [example for example in fitted if example is not None]

    def whole(self, conversation: Conversation, path: str) -> list[Example]:
        """The same, of whatever length, without those of turns of weight 0.

        Raises:
            DataError: the template refuses the conversation or leaves a field of it out, or no turn is to be learned.
        """
        turns = [
            place
            for place, message in enumerate(conversation.messages)
            if place >= conversation.context and message["role"] == "assistant" and message.get("weight") != 0
        ]
        if not turns:
            raise DataError(path, conversation.line, "has no assistant message to learn from")
        self._check_names(conversation, path)
        return [self._example(conversation, path, turn) for turn in turns]

    def fitted(self, example: Example) -> Example | None:
        """The example, its response cut to `max_length`; None where not even its first token would fit."""
        room = self.max_length - len(example.prompt)
        if room < 1:
            return None
        complete = len(example.response) <= room
        return Example(example.prompt, example.response[:room], example.values[:room], complete)

    def _example(self, conversation: Conversation, path: str, turn: int) -> Example:
        before = self._text(conversation, path, turn)
        whole = self._text(conversation, path, turn + 1, add_generation_prompt=False)
        reply = whole.after(before)
        if reply is None:
            reason = f"the chat template rewrites the prompt when the reply, message {turn}, is added"
            raise DataError(path, conversation.line, reason)
        message = conversation.messages[turn]
        for thought in {message[name] for name in THOUGHTS if message.get(name)}:
            fields = [name for name in THOUGHTS if message.get(name) == thought]
            self._check_printed(conversation, path, turn, fields, whole.text)
        try:
            prompt, response = before.encode(self.tokenizer), reply.encode(self.tokenizer)
        except PromptError as error:
            raise DataError(path, conversation.line, str(error)) from None
        end = next((i for i, token in enumerate(response) if token in self.ends), len(response) - 1)
        response = response[: end + 1]
        return Example(prompt, response, self._values(response))

    def _text(self, conversation: Conversation, path: str, upto: int, **how: bool) -> PromptText:
        """The first messages; what others than the model have said is text, as it is at inference."""
        messages = conversation.messages[:upto]
        try:
            return self.template.prompt(self.tokenizer, messages, tools=conversation.tools, own=("assistant",), **how)
        except PromptError as error:
            raise DataError(path, conversation.line, str(error)) from None

    def _check_names(self, conversation: Conversation, path: str) -> None:
        # A tool's name stands in the call that it answers; who else speaks is known from the name alone.
        for place, message in enumerate(conversation.messages):
            if message.get("name") and message["role"] != "tool":
                text = rendered(self.template, conversation, path, place + 1, add_generation_prompt=False)
                self._check_printed(conversation, path, place, ["name"], text)

    def _check_printed(self, conversation: Conversation, path: str, place: int, fields: list[str], text: str) -> None:
        """Fields that the template leaves out would be dropped without a word."""
        message = {name: value for name, value in conversation.messages[place].items() if name not in fields}
        without = replace(conversation, messages=[*conversation.messages[:place], message])
        if rendered(self.template, without, path, add_generation_prompt=False) == text:
            reason = f"message {place} has {fields[0]!r}, which the chat template does not print: take it out"
            raise DataError(path, conversation.line, reason)

    def _values(self, response: list[int]) -> list[bool]:
        inside, marks = False, []
        for token in response:
            if token == self.quote:
                inside = not inside
                marks.append(False)
            else:
                marks.append(inside)
        return marks


def bucketed(
    examples: Sequence[Example], batch_size: int, rng: np.random.Generator, buckets: int = 16
) -> list[list[int]]:
    """Indices in batches of like length, in random order: shuffled, sorted within pools, shuffled again."""
    order = rng.permutation(len(examples))
    batches = []
    for pool in np.array_split(order, max(1, len(order) // (batch_size * buckets))):
        by_length = sorted(pool.tolist(), key=lambda i: (len(examples[i].response), len(examples[i].prompt)))
        batches += [by_length[i : i + batch_size] for i in range(0, len(by_length), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def collate(
    examples: Sequence[Example],
    canvas_length: int,
    fill: int,
    rng: np.random.Generator,
    *,
    trim: bool = False,
    value_weight: float = 1.0,
    prompt_weight: float = 1.0,
) -> Batch:
    """Pads examples and picks one canvas of each response at random.

    Args:
        examples: of like length, or padding is wasted.
        canvas_length: of the model.
        fill: the end-of-sequence id that fills the last canvas.
        rng: picks the canvases and, when trimming, how much fill is left.
        trim: ends all canvases a little behind the longest response in them, since fill is learned quickly.
        value_weight: weight of tokens inside argument values; others have 1.
        prompt_weight: weight of the prompt's own tokens in the causal loss.
    """
    lengths = [len(e.prompt) + len(e.response) for e in examples]
    B, T = len(examples), max(lengths)
    chosen = [int(rng.integers((len(e.response) - 1) // canvas_length + 1)) * canvas_length for e in examples]
    L = canvas_length
    if trim:
        longest = max(min(canvas_length, len(e.response) - c) for e, c in zip(examples, chosen, strict=True))
        L = min(canvas_length, longest + int(rng.integers(0, 16)))
    tokens = np.full((B, T), fill)
    canvas = np.full((B, L), fill)
    scored, values = np.ones((B, L), np.float32), np.zeros((B, L), bool)
    causal, causal_values = np.zeros((B, T), np.float32), np.zeros((B, T), bool)
    for b, (example, start) in enumerate(zip(examples, chosen, strict=True)):
        prompt = len(example.prompt)
        tokens[b, : lengths[b]] = example.prompt + example.response
        piece = example.response[start : start + L]
        canvas[b, : len(piece)] = piece
        values[b, : len(piece)] = example.values[start : start + L]
        scored[b, len(piece) :] = example.complete
        causal[b, : prompt - 1] = prompt_weight
        causal[b, prompt - 1 : lengths[b] - 1] = 1
        causal_values[b, prompt - 1 : lengths[b] - 1] = example.values
    scored[values] *= value_weight
    causal[causal_values] *= value_weight
    return Batch(
        tokens=torch.from_numpy(tokens),
        lengths=torch.tensor(lengths),
        prefix=torch.tensor([len(e.prompt) + c for e, c in zip(examples, chosen, strict=True)]),
        canvas=torch.from_numpy(canvas),
        scored=torch.from_numpy(scored),
        causal=torch.from_numpy(causal),
        values=torch.from_numpy(values),
        causal_values=torch.from_numpy(causal_values),
    )
