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


class Prepared(Protocol):
    """A request that was found to be in order, and that nothing has been computed for yet."""

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""
        ...

    @property
    def memory_bytes(self) -> int:
        """What its keys and values may come to take."""
        ...

    @property
    def options(self) -> GenerationOptions:
        """With every default filled in, the seed too."""
        ...


class Running(Protocol):
    """Requests under way together. One thread owns it."""

    @property
    def moved(self) -> int:
        """Grows with every step that has ended; any thread may ask."""
        ...

    def add(self, prepared: Prepared, *, drafts: bool = True) -> None:
        """The request takes part from the next step on; its drafts come only where someone looks at them."""
        ...

    def cancel(self, prepared: Prepared) -> None:
        """The request takes part no more; its `Generation` comes with the next step."""
        ...

    def clear(self) -> None:
        """Gives up every request, without a word of it."""
        ...

    def step(self) -> list[tuple[Prepared, Event]]:
        """One denoising step of each request, or a piece of its prompt, or a token of the causal mode; whatever one of
        them dies of, it alone ends with an error."""
        ...


class Engine(Protocol):
    """Runs one model. Every call may raise `InputError`; a request that fails while it runs ends alone."""

    @property
    def info(self) -> ModelInfo:
        """What is loaded."""
        ...

    @property
    def request_bytes(self) -> int:
        """Memory that the keys and values of requests under way may take together."""
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

    def prepare(self, prompt: Prompt, options: GenerationOptions | None = None, **changes: Any) -> Prepared:
        """What can be checked and laid out of a `generate` before it runs; any thread may."""
        ...

    def prepare_infill(
        self, text: str, prompt: Prompt | None = None, options: GenerationOptions | None = None, **changes: Any
    ) -> Prepared:
        """The same of an `infill`."""
        ...

    def prepare_edit(
        self,
        text: str,
        span: tuple[int, int],
        instruction: str,
        options: GenerationOptions | None = None,
        **changes: Any,
    ) -> Prepared:
        """The same of an `edit`."""
        ...

    def running(self) -> Running:
        """A set of running requests, empty; there should be one at a time."""
        ...

    def tokenize(self, prompt: Prompt, options: GenerationOptions | None = None, **changes: Any) -> list[int]:
        """The token ids that `generate` would encode for this prompt."""
        ...

    def encode(self, text: str, most: int | None = None) -> list[int]:
        """The token ids of a text as it stands, no template around it; more than `most` are an error."""
        ...

    def pieces(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> list[str]:
        """Each token's own text, for drawing a canvas position by position; markers are spelled out or empty."""
        ...
