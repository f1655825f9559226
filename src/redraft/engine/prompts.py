"""From a prompt, whatever kind it is, to token ids and pictures."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from redraft.core.engine import Prompt
from redraft.core.errors import ContextLengthError, PromptError
from redraft.core.options import GenerationOptions
from redraft.engine.defaults import Defaults
from redraft.engine.given import check_text, checked_ids, kind_of
from redraft.engine.sight import Laid, Sight
from redraft.text.chat import ChatTemplate
from redraft.text.image_parts import ImagePart, Shown
from redraft.text.messages import checked_messages
from redraft.text.prompt_text import PromptText, Shield
from redraft.text.tokenizer import Tokenizer


class Prompts:
    """Prompts of one model."""

    def __init__(
        self,
        tokenizer: Tokenizer | None,
        template: ChatTemplate | None,
        sight: Sight,
        defaults: Defaults,
        vocab_size: int,
        max_context: int,
    ) -> None:
        self.tokenizer, self.template, self.sight = tokenizer, template, sight
        self.defaults = defaults
        self.vocab_size, self.max_context = vocab_size, max_context

    def beside(self, defaults: Defaults) -> Prompts:
        """The same with other defaults."""
        other = copy.copy(self)
        other.defaults = defaults
        return other

    def laid_out(self, prompt: Prompt, options: GenerationOptions) -> Laid:
        """The token ids that a prompt is encoded as, with its pictures."""
        kind = kind_of(prompt)
        if kind == "ids" or (isinstance(prompt, str) and self.template is None):
            given: Any = prompt
            ids = checked_ids(given, self.vocab_size) if kind == "ids" else self.encoded(given, self.max_context)
            self.sight.check_ids(ids)
            return Laid(ids, ())
        if isinstance(prompt, str):
            prompt = [{"role": "user", "content": prompt}]
        if self.template is None:
            raise PromptError("this model's directory has no chat template: give text or token ids, not messages")
        messages: Any = prompt
        if self.tokenizer is None:
            raise PromptError("this model's directory has no tokenizer: give token ids")
        # What a model knows by heart stood in no prompt that it learned from.
        tools = None if options.tools is self.defaults.options.tools else options.tools
        parts: list[Shown] = []
        thinking = options.enable_thinking
        try:
            rendered = self.template.prompt(
                self.tokenizer, messages, tools=tools, enable_thinking=thinking, images=parts
            )
        finally:
            # A template that knows no pictures refuses them in words of its own.
            self.sight.check_sees(parts)
        if not parts:
            return Laid(self._bounded(rendered, self.max_context), ())
        rendered, pictures = self.sight.with_frames(rendered, parts, self.max_context)
        ids = self._bounded(rendered, self.max_context)
        return self.sight.laid_out(ids, pictures, options, self.max_context)

    def looked_at(self, messages: Sequence[Mapping[str, Any]], options: GenerationOptions) -> list[Mapping[str, Any]]:
        """Messages whose pictures are opened and brought to their size, so that nothing of that is done again.

        Raises:
            PromptError: one cannot be read, or the model does not see.
        """
        parts: list[Shown] = []
        checked_messages(messages, parts)
        self.sight.check_sees(parts)
        shown = iter(parts)
        return [
            {**message, "content": [self._looked_at(part, shown, options) for part in message["content"]]}
            if isinstance(message.get("content"), list)
            else message
            for message in messages
        ]

    def _looked_at(self, part: Mapping[str, Any], shown: Iterator[Shown], options: GenerationOptions) -> Any:
        if part["type"] == "text" or not isinstance(found := next(shown), ImagePart):
            return part
        sized, budget = self.sight.sized(found, options)
        return {"type": "image", "image": sized, "image_tokens": budget}

    def encoded(self, text: str, most: int | None = None) -> list[int]:
        """The ids of a text as it stands; more than `most` are an error before all are counted."""
        check_text("text", text)
        if self.tokenizer is None:
            raise PromptError("this model's directory has no tokenizer: give token ids")
        return self._bounded(PromptText(text, Shield({})), most)

    def encoded_text(self, text: str) -> list[int]:
        """The ids of a text in which a marker is text, as in what someone typed."""
        assert self.tokenizer is not None
        shield = Shield.against(self.tokenizer.beginnings, text)
        return PromptText(shield.over(text), shield).encode(self.tokenizer)

    def _bounded(self, text: PromptText, most: int | None) -> list[int]:
        assert self.tokenizer is not None
        least = None if most is None else text.more_than(most, self.tokenizer)
        if least is not None:
            raise ContextLengthError(least, self.max_context, at_least=True)
        return text.encode(self.tokenizer)
