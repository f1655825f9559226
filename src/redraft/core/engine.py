"""The `Engine` protocol: what the server, the command line and the evaluations see of the machinery."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Unpack

from redraft.core.adapters import Adapters
from redraft.core.changes import GenerationChanges
from redraft.core.checks import shown
from redraft.core.decisions import Decisions
from redraft.core.errors import OptionError
from redraft.core.events import Event, Final, News
from redraft.core.options import GenerationOptions
from redraft.core.questions import DecideOptions
from redraft.core.reads import Read, Reading
from redraft.core.results import Generation, ModelInfo

Prompt = str | Sequence[Mapping[str, Any]] | Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One entry of a batch.

    Attributes:
        prompt: text (one user message), OpenAI-style messages, or token ids.
        options: what overrides the engine's defaults: names and values, or `GenerationOptions`.

    Raises:
        OptionError: options that are neither.
    """

    prompt: Prompt
    options: GenerationOptions | Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = self.options if isinstance(self.options, Mapping) else ()
        if not isinstance(self.options, GenerationOptions | Mapping) or not all(isinstance(n, str) for n in names):
            raise OptionError(
                "options of a Request must be GenerationOptions or names with their values, as in "
                f"{{'seed': 0}}, got {shown(self.options)}"
            )


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

    def lost(self, finish_reason: Literal["cancelled", "error"], error: str | None = None) -> Final:
        """What it ends with where the engine has not ended it."""
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
        """The request takes part no more; its last event comes with the next step."""
        ...

    def clear(self) -> None:
        """Gives up every request, without a word of it."""
        ...

    def step(self) -> list[tuple[Prepared, News]]:
        """One denoising step of each request, or a piece of its prompt, or a token of the causal mode; whatever one of
        them dies of, it alone ends with an error."""
        ...


class Engine(Protocol):
    """Runs one model; `redraft.load` makes one.

    A prompt is text (one user message, through the model's chat template where it has one), OpenAI-style messages, or
    token ids, which are taken as they are. Options come as `GenerationOptions`, as keyword arguments, or both; see
    there what each of them means. Where `info.sees`, a message's content may be a list of parts with pictures among
    them: `{"type": "image", "image": ...}` with a path, a file's bytes, a Pillow image or an array [H, W, 3] of uint8,
    or OpenAI's `image_url` with a `data:` URL; videos by `video`, a path or a file's bytes, or `video_url`.

    Every call may raise `InputError`, before anything runs: `PromptError` for a prompt, `OptionError` for an option,
    `UnknownOptionError` for the name of one that does not exist. A request that fails while it runs ends alone, with
    `finish_reason="error"`.
    """

    @property
    def info(self) -> ModelInfo:
        """What is loaded."""
        ...

    @property
    def adapters(self) -> Adapters[Engine]:
        """What is loaded beside the model."""
        ...

    @property
    def request_bytes(self) -> int:
        """Memory that the keys and values of requests under way may take together."""
        ...

    def generate(
        self, prompt: Prompt, options: GenerationOptions | None = None, **changes: Unpack[GenerationChanges]
    ) -> Generation:
        """The whole reply.

        In a notebook it shows itself. On a CPU it shows its drafts as well; on an accelerator each draft would have to
        be fetched while the device waits, so there the last event of a `stream` shows them, and this does not.

        Args:
            prompt: see `Engine`.
            options: what overrides the engine's defaults.
            changes: options by name, which override both.

        Raises:
            InputError: a prompt or an option that cannot work.
        """
        ...

    def stream(
        self, prompt: Prompt, options: GenerationOptions | None = None, **changes: Unpack[GenerationChanges]
    ) -> Iterator[Event]:
        """The reply as it forms: a `Draft` a denoising step, a `Commit` a canvas, its `Generation` last.

        Closing the iterator cancels the reply. In a notebook, the `Generation` shows itself with its drafts.

        Args:
            prompt, options, changes: as in `generate`.

        Raises:
            InputError: a prompt or an option that cannot work, when this is called and not with the first event.
        """
        ...

    def generate_batch(self, requests: Sequence[Request | Prompt]) -> list[Generation]:
        """Several replies, in the order of the requests.

        Raises:
            InputError: a request that cannot work; none has run then.
        """
        ...

    def infill(
        self,
        text: str,
        prompt: Prompt | None = None,
        options: GenerationOptions | None = None,
        **changes: Unpack[GenerationChanges],
    ) -> Generation:
        """The text with its holes filled: `[[...]]`, or `[[...12]]` for twelve characters. The rest stays as it is.

        Args:
            text: the reply with holes; markers such as `<|tool_call>` are read as such.
            prompt: what it answers; None asks for the gaps to be filled.
            options, changes: as in `generate`.

        Returns:
            The reply. Its `raw` is the whole text, and its `filled` has what the holes got.

        Raises:
            InputError: no hole, or options that cannot work.
        """
        ...

    def edit(
        self,
        text: str,
        span: tuple[int, int],
        instruction: str,
        options: GenerationOptions | None = None,
        **changes: Unpack[GenerationChanges],
    ) -> Generation:
        """The text with the characters of one span written anew, and the rest as it was.

        Args:
            text: what to edit.
            span: characters (start, end), counted from 0; `text[start:end]` is what goes.
            instruction: what should become of them.
            options, changes: as in `generate`.

        Returns:
            The reply. Its `raw` is the whole text, and its `filled` has what the span got.

        Raises:
            InputError: a span that is none, or options that cannot work.
        """
        ...

    def decide(self, state: Any, questions: Any, /, options: DecideOptions | None = None, **changes: Any) -> Decisions:
        """Typed questions about a state, each answered with a probability for each of its options.

        Nothing is generated: the probabilities are read from one denoising step of a canvas that is never committed,
        or from the causal mode's next token.

        Args:
            state: text, a conversation (OpenAI-style messages) or any JSON value.
            questions: one or a list of `Question`s (`redraft.predicate`, `choice`, `score` make them), or what a client
                of OpenAI's (a list) or System One's API (a map by name) would send.
            options: see `DecideOptions`.
            changes: options by name, which override those.

        Raises:
            InputError: a state, an option or a number of questions that cannot work. A single question that cannot be
                asked is a `Refusal` among the answers.
            GenerationError: it failed while it ran.
        """
        ...

    def decide_many(
        self, states: Iterable[Any], questions: Any, /, options: DecideOptions | None = None, **changes: Any
    ) -> Iterator[Decisions]:
        """The same questions about several states, which share what is encoded of the questions.

        Args, raises: as in `decide`.
        """
        ...

    def deciding(
        self, state: Any, questions: Any, /, options: DecideOptions | None = None, **changes: Any
    ) -> Generator[list[Read], list[Reading], Decisions]:
        """`decide` as a conversation with whoever runs its reads: yields lists of them, is sent their readings."""
        ...

    def read(self, reads: Sequence[Read]) -> list[Reading]:
        """What the model would write, at the places that are asked for; nothing of it is kept.

        Raises:
            InputError: a read that cannot work.
            GenerationError: one failed while it ran.
        """
        ...

    def prepare_reads(self, reads: Sequence[Read]) -> Prepared:
        """What can be checked of a `read` before it runs; running, its last and only event is a `Readings`."""
        ...

    def prepare(
        self, prompt: Prompt, options: GenerationOptions | None = None, **changes: Unpack[GenerationChanges]
    ) -> Prepared:
        """What can be checked and laid out of a `generate` before it runs; any thread may."""
        ...

    def prepare_infill(
        self,
        text: str,
        prompt: Prompt | None = None,
        options: GenerationOptions | None = None,
        **changes: Unpack[GenerationChanges],
    ) -> Prepared:
        """The same of an `infill`."""
        ...

    def prepare_edit(
        self,
        text: str,
        span: tuple[int, int],
        instruction: str,
        options: GenerationOptions | None = None,
        **changes: Unpack[GenerationChanges],
    ) -> Prepared:
        """The same of an `edit`."""
        ...

    def running(self) -> Running:
        """A set of running requests, empty; there should be one at a time."""
        ...

    def tokenize(
        self, prompt: Prompt, options: GenerationOptions | None = None, **changes: Unpack[GenerationChanges]
    ) -> list[int]:
        """The token ids that `generate` would encode for this prompt."""
        ...

    def encode(self, text: str, most: int | None = None) -> list[int]:
        """The token ids of a text as it stands, no template around it; more than `most` are an error."""
        ...

    def pieces(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> list[str]:
        """Each token's own text, for drawing a canvas position by position; markers are spelled out or empty, and a
        token is <number> where there is no tokenizer."""
        ...
