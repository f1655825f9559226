"""The checkpoint's chat template: from messages to the prompt that the model was trained on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from redraft.text.guarded_template import GuardedTemplate
from redraft.text.image_parts import Shown
from redraft.text.markers import CHANNEL_OPEN
from redraft.text.messages import Message, check_values, checked_messages
from redraft.text.prompt_text import PromptText, Shield
from redraft.text.template import Template
from redraft.text.template_source import DEFAULT, is_bundled, template_sources
from redraft.text.tokenizer import Tokenizer


class ChatTemplate:
    """Turns OpenAI-style messages into the prompt that the model was trained on."""

    def __init__(self, source: str | Mapping[str, str], special_tokens: Mapping[str, str] | None = None) -> None:
        """`source` is a template, or several by name: "default", and "tool_use" for requests with tools.

        Raises:
            CheckpointError: one of them is no template.
        """
        sources = {DEFAULT: source} if isinstance(source, str) else source
        self.knows_thoughts = any(CHANNEL_OPEN in text for text in sources.values())
        template = Template(sources, special_tokens or {})
        # What comes with a download is a stranger's program.
        known = all(is_bundled(text) for text in sources.values())
        self._template = template if known else GuardedTemplate(template)

    @classmethod
    def from_directory(cls, directory: Path) -> ChatTemplate | None:
        """The directory's own (see `template_sources`); None where there is none."""
        sources, special = template_sources(Path(directory))
        return cls(sources, special) if sources else None

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        enable_thinking: bool = False,
        add_generation_prompt: bool = True,
        images: list[Shown] | None = None,
    ) -> str:
        """The conversation as text. For ids, see `prompt`: here, what someone typed may spell a marker.

        Raises:
            PromptError: a message that is none, or one that the template refuses.
        """
        return self._rendered(checked_messages(messages, images), tools, enable_thinking, add_generation_prompt)

    def prompt(
        self,
        tokenizer: Tokenizer,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        enable_thinking: bool = False,
        add_generation_prompt: bool = True,
        own: Collection[str] = (),
        images: list[Shown] | None = None,
    ) -> PromptText:
        """The conversation, ready to be encoded, in which contents, names and declarations are text.

        Args:
            tokenizer: of the model.
            messages, tools, enable_thinking, add_generation_prompt: as the template knows them.
            own: roles whose words are the model's own, in which a marker is one; in training, the assistant's.
            images: gets the messages' pictures and videos, in their order, before anything is rendered; None: there may
                be none.

        Raises:
            PromptError: as `render`, and for declarations that cannot be encoded.
        """
        checked = checked_messages(messages, images)
        return self._shielded(tokenizer, checked, tools, enable_thinking, add_generation_prompt, own)

    def _shielded(
        self,
        tokenizer: Tokenizer,
        checked: list[dict[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        enable_thinking: bool,
        add_generation_prompt: bool,
        own: Collection[str],
    ) -> PromptText:
        if tools:
            check_values(list(tools), "tools")
        shield = Shield.against(tokenizer.beginnings, checked, list(tools or ()))
        shielded = shield.over(list(tools)) if tools else None
        typed = [message if message["role"] in own else shield.over(message) for message in checked]
        text = self._rendered(typed, shielded, enable_thinking, add_generation_prompt)
        return PromptText(text, shield)

    def _rendered(
        self,
        messages: list[dict[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        enable_thinking: bool,
        add_generation_prompt: bool,
    ) -> str:
        return self._template.render({
            "messages": messages,
            "tools": list(tools) if tools else None,
            "enable_thinking": enable_thinking,
            "add_generation_prompt": add_generation_prompt,
        })  # fmt: skip
