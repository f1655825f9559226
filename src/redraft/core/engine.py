"""The `Engine` protocol: what the server, the command line and the evaluations see of the machinery."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from redraft.core.events import Event
from redraft.core.options import GenerationOptions
from redraft.core.results import Generation, ModelInfo

Prompt = str | Sequence[Mapping[str, Any]] | Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One entry of a batch.

    Attributes:
        prompt: text (one user message), OpenAI-style messages, or token ids.
        options: names and values that override the engine's defaults.
    """

    prompt: Prompt
    options: Mapping[str, Any] = field(default_factory=dict)


class Engine(Protocol):
    """Runs one model. Every call may raise `InputError`; a request that fails while it runs ends alone."""

    @property
    def info(self) -> ModelInfo:
        """What is loaded."""
        ...

    def generate(self, prompt: Prompt, options: GenerationOptions | None = None, **changes: Any) -> Generation:
        """The whole reply. Keyword arguments override `options`, which override the engine's defaults."""
        ...

    def stream(self, prompt: Prompt, options: GenerationOptions | None = None, **changes: Any) -> Iterator[Event]:
        """The reply as it forms; the last event is its `Generation`. Closing the iterator cancels it."""
        ...

    def generate_batch(self, requests: Sequence[Request | Prompt]) -> list[Generation]:
        """Several replies, in the order of the requests."""
        ...

    def infill(
        self, text: str, prompt: Prompt | None = None, options: GenerationOptions | None = None, **changes: Any
    ) -> Generation:
        """The text with its holes `[[...]]` filled, as the reply to `prompt`."""
        ...

    def edit(
        self,
        text: str,
        span: tuple[int, int],
        instruction: str,
        options: GenerationOptions | None = None,
        **changes: Any,
    ) -> Generation:
        """The text with the characters of one span written anew."""
        ...

    def tokenize(self, prompt: Prompt, options: GenerationOptions | None = None, **changes: Any) -> list[int]:
        """The token ids that `generate` would encode for this prompt."""
        ...

    def pieces(self, token_ids: Sequence[int]) -> list[str]:
        """Each token's own text, for drawing a canvas position by position."""
        ...
