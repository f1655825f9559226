"""`LocalEngine`: one model in this process, behind the `Engine` protocol."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from collections.abc import Sequence as Rows
from pathlib import Path
from typing import Any

from redraft.core.engine import Prompt, Request, Running
from redraft.core.errors import PromptError
from redraft.core.events import Event
from redraft.core.options import GenerationOptions
from redraft.core.results import Generation, ModelInfo
from redraft.engine.admission import Admission
from redraft.engine.defaults import Defaults
from redraft.engine.infill import holes_of, pattern_of
from redraft.engine.loop import CanvasLoop
from redraft.engine.outcome import outcome
from redraft.engine.prefix import BUDGET_BYTES, PrefixCache
from redraft.engine.running import PreparedRequest, RunningRequests
from redraft.engine.sequence import Sequence
from redraft.engine.stops import ENCODE_CHUNK
from redraft.model.model import DiffusionGemma
from redraft.text.chat import ChatTemplate
from redraft.text.output import Reading
from redraft.text.tokenizer import Tokenizer


class LocalEngine:
    """Runs a model that is loaded here. `redraft.load` makes one."""

    def __init__(
        self,
        model: DiffusionGemma,
        *,
        name: str,
        directory: Path,
        exact: bool,
        max_context: int | None = None,
        prefix_cache_bytes: int = BUDGET_BYTES,
        request_bytes: int = 2**62,
    ) -> None:
        self.model = model
        self._workers: Running | None = None
        self.tokenizer = Tokenizer.from_directory(directory)
        self.template = ChatTemplate.from_directory(directory)
        defaults = Defaults.of(directory, model.config, self.tokenizer)
        self.max_context = max_context or model.config.max_position_embeddings
        self.admission = Admission(model, self.tokenizer, self.template, defaults, self.max_context)
        self.prefixes = PrefixCache(prefix_cache_bytes)
        self._loop = CanvasLoop(model, exact=exact, graphs=not exact, on_encoded=self._remember)
        self._name, self._directory = name, directory
        self.request_bytes = request_bytes

    @property
    def defaults(self) -> Defaults:
        """What applies when the caller sets nothing."""
        return self.admission.defaults

    @property
    def info(self) -> ModelInfo:
        """What is loaded."""
        pad = self.model.config.pad_token_id
        return ModelInfo(
            name=self._name,
            path=str(self._directory),
            parameters=self.model.num_parameters,
            vocab_size=self.model.config.vocab_size,
            canvas_length=self.model.config.canvas_length,
            max_context=self.max_context,
            device=str(self.model.device),
            dtype=str(self.model.dtype).removeprefix("torch."),
            quantization=self.model.quantization,
            has_tokenizer=self.tokenizer is not None,
            has_chat_template=self.template is not None,
            defaults=dataclasses.asdict(self.defaults.options),
            end_ids=tuple(sorted(self.defaults.end_ids | (set() if pad is None else {pad}))),
        )

    def generate(self, prompt: Prompt, options: GenerationOptions | None = None, **changes: Any) -> Generation:
        """The whole reply. Keyword arguments override `options`, which override the engine's defaults.

        Raises:
            InputError: a prompt or an option that cannot work, before anything runs.
        """
        return self._whole(self.prepare(prompt, options, **changes))

    def stream(self, prompt: Prompt, options: GenerationOptions | None = None, **changes: Any) -> Iterator[Event]:
        """The reply as it forms: drafts, commits, and its `Generation` last. Closing the iterator cancels it."""
        return self._events(self.prepare(prompt, options, **changes))

    def generate_batch(self, requests: Rows[Request | Prompt]) -> list[Generation]:
        """Several replies, in the order of the requests; each is what it would be alone (see `CanvasLoop`)."""
        whole = [request if isinstance(request, Request) else Request(prompt=request) for request in requests]
        prepared = [self.prepare(request.prompt, **request.options) for request in whole]
        running, done = self.running(), dict[int, Generation]()
        for one in prepared:
            running.add(one, drafts=False)
        while len(done) < len(prepared):
            done |= {id(one): event for one, event in running.step() if isinstance(event, Generation)}
        return [done[id(one)] for one in prepared]

    def infill(
        self, text: str, prompt: Prompt | None = None, options: GenerationOptions | None = None, **changes: Any
    ) -> Generation:
        """The text with its holes filled: `[[...]]`, or `[[...12]]` for twelve characters. The rest stays as it is.

        Args:
            text: the reply with holes; markers such as `<|tool_call>` are read as such.
            prompt: what it answers; None asks for the gaps to be filled.
            options, changes: as in `generate`. The result's `filled` has what the holes got.

        Raises:
            InputError: no hole, or options that cannot work.
        """
        return self._whole(self.prepare_infill(text, prompt, options, **changes))

    def edit(
        self,
        text: str,
        span: tuple[int, int],
        instruction: str,
        options: GenerationOptions | None = None,
        **changes: Any,
    ) -> Generation:
        """The text with the characters of one span written anew, and the rest as it was.

        Args:
            text: what to edit.
            span: characters (start, end).
            instruction: what should become of them.
            options, changes: as in `generate`. The result's `filled` has what the span got.

        Raises:
            InputError: a span that is none, or options that cannot work.
        """
        return self._whole(self.prepare_edit(text, span, instruction, options, **changes))

    def prepare(self, prompt: Prompt, options: GenerationOptions | None = None, **changes: Any) -> PreparedRequest:
        """A request that is checked and laid out; any thread may.

        Raises:
            InputError: a prompt or an option that cannot work.
        """
        return PreparedRequest(self.admission(prompt, options, changes))

    def prepare_infill(
        self, text: str, prompt: Prompt | None = None, options: GenerationOptions | None = None, **changes: Any
    ) -> PreparedRequest:
        """As `infill`, not run yet."""
        pieces, lengths = holes_of(text)
        if prompt is None:
            prompt = "Fill in the gaps: " + "___".join(pieces)
        return self._prepare_fill(pieces, lengths, prompt, options, changes)

    def prepare_edit(
        self,
        text: str,
        span: tuple[int, int],
        instruction: str,
        options: GenerationOptions | None = None,
        **changes: Any,
    ) -> PreparedRequest:
        """As `edit`, not run yet."""
        start, end = span
        if not 0 <= start < end <= len(text):
            raise PromptError(f"span {span} is no part of a text of {len(text)} characters")
        prompt = f"{instruction}\n\n{text}"
        if text[:start] and (options or self.defaults.options).with_changes(**changes).mode == "diffusion":
            changes.setdefault("initial_canvas", text[:start])
        return self._prepare_fill([text[:start], text[end:]], [None], prompt, options, changes)

    def _prepare_fill(
        self,
        pieces: list[str],
        lengths: list[int | None],
        prompt: Prompt,
        options: GenerationOptions | None,
        changes: dict[str, Any],
    ) -> PreparedRequest:
        if self.tokenizer is None:
            raise PromptError("holes need a tokenizer, and this model's directory has none")
        pattern = pattern_of(pieces, lengths, self.admission.constraints.marked)
        wanted = {"type": "regex", "pattern": pattern}
        prepared = self.prepare(prompt, options, **{**changes, "response_format": wanted})
        prepared.sequence.pieces = pieces
        # What stands around the holes may be a call or a thought.
        prepared.sequence.reply.read_as(Reading(bare_calls=False))
        return prepared

    def running(self) -> Running:
        """A set of running requests, empty. Within this process it shares the prefix cache with the other calls."""
        if self._workers is None:
            return RunningRequests(self._loop, self._begin, self.result)
        self._workers.clear()
        return self._workers

    def share(self, workers: Running) -> None:
        """From now on, these move the requests that are under way together."""
        self._workers = workers

    def tokenize(self, prompt: Prompt, options: GenerationOptions | None = None, **changes: Any) -> list[int]:
        """The token ids that `generate` would encode for this prompt."""
        return self.admission.prompt_ids(prompt, (options or self.defaults.options).with_changes(**changes))

    def encode(self, text: str, most: int | None = None) -> list[int]:
        """The token ids of a text as it stands, no template around it."""
        return self.admission.encoded(text, most)

    def pieces(self, token_ids: Rows[int], *, skip_special_tokens: bool = False) -> list[str]:
        """Each token's own text, of markers their spelling or nothing; <number> where there is no tokenizer."""
        if self.tokenizer is None:
            return [f"<{token_id}>" for token_id in token_ids]
        return self.tokenizer.pieces(token_ids, skip_special_tokens=skip_special_tokens)

    def _begin(self, prepared: PreparedRequest) -> Sequence:
        """The request with what is known of its prompt; the clock starts."""
        sequence = prepared.sequence
        # What follows the prompt depends on its last token, and no snapshot holds what the causal mode makes of it.
        most = len(sequence.prompt) - sequence.judged
        known = self.prefixes.take(sequence.prompt, [stop for stop in sequence.stops if stop <= most])
        if known is not None:
            sequence.cache, sequence.pending = known, sequence.prompt[known.length :]
            sequence.costs.cached_tokens = known.length
        return sequence

    def _whole(self, prepared: PreparedRequest) -> Generation:
        sequence = self._begin(prepared)
        while not sequence.finished:
            for _ in self._loop.tick([sequence], drafts=False):
                pass
        return self.result(sequence)

    def _events(self, prepared: PreparedRequest) -> Iterator[Event]:
        sequence = self._begin(prepared)
        while not sequence.finished:
            for _, event in self._loop.tick([sequence]):
                yield event
        yield self.result(sequence)

    def _remember(self, sequence: Sequence) -> None:
        """Keeps a place that a longer conversation can go on from. Of a long prompt, that is its last one."""
        if len(sequence.pending) > ENCODE_CHUNK:
            return
        ids = (sequence.prompt + sequence.reply.token_ids)[: sequence.cache.length]
        if sequence.cache.ends == self.admission.stops(ids):
            self.prefixes.put(ids, sequence.cache)

    def result(self, sequence: Sequence) -> Generation:
        """What the user gets of a request."""
        return outcome(sequence, self.tokenizer)
