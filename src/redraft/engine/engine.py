"""`LocalEngine`: one model in this process, behind the `Engine` protocol."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Rows
from pathlib import Path
from typing import Any

from redraft.core.engine import Prompt, Request
from redraft.core.errors import PromptError
from redraft.core.events import Event
from redraft.core.options import GenerationOptions
from redraft.core.results import Generation, ModelInfo
from redraft.engine.admission import Admission
from redraft.engine.defaults import Defaults
from redraft.engine.infill import filled, holes_of, pattern_of
from redraft.engine.judge import spans
from redraft.engine.loop import CanvasLoop
from redraft.engine.prefix import PrefixCache
from redraft.engine.sequence import Sequence
from redraft.model.model import DiffusionGemma
from redraft.text.chat import ChatTemplate
from redraft.text.output import ParsedReply, parse_reply
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
    ) -> None:
        self.model = model
        self.tokenizer = Tokenizer.from_directory(directory)
        self.template = ChatTemplate.from_directory(directory)
        defaults = Defaults.of(directory, model.config, self.tokenizer)
        self.max_context = max_context or model.config.max_position_embeddings
        self.admission = Admission(model, self.tokenizer, self.template, defaults, self.max_context)
        self.prefixes = PrefixCache()
        self._loop = CanvasLoop(model, exact=exact, on_encoded=self._remember)
        self._name, self._directory = name, directory

    @property
    def defaults(self) -> Defaults:
        """What applies when the caller sets nothing."""
        return self.admission.defaults

    @property
    def info(self) -> ModelInfo:
        """What is loaded."""
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
        )

    def generate(self, prompt: Prompt, options: GenerationOptions | None = None, **changes: Any) -> Generation:
        """The whole reply. Keyword arguments override `options`, which override the engine's defaults.

        Raises:
            InputError: a prompt or an option that cannot work, before anything runs.
        """
        sequence = self._admit(prompt, options, changes)
        while not sequence.finished:
            for _ in self._loop.tick([sequence], drafts=False):
                pass
        return self._result(sequence)

    def stream(self, prompt: Prompt, options: GenerationOptions | None = None, **changes: Any) -> Iterator[Event]:
        """The reply as it forms: drafts, commits, and its `Generation` last. Closing the iterator cancels it."""
        return self._events(self._admit(prompt, options, changes))

    def _events(self, sequence: Sequence) -> Iterator[Event]:
        while not sequence.finished:
            for _, event in self._loop.tick([sequence]):
                yield event
        yield self._result(sequence)

    def generate_batch(self, requests: Rows[Request | Prompt]) -> list[Generation]:
        """Several replies, in the order of the requests; each is what it would be alone (see `CanvasLoop`)."""
        whole = [request if isinstance(request, Request) else Request(prompt=request) for request in requests]
        sequences = [self._admit(request.prompt, None, request.options) for request in whole]
        while not all(sequence.finished for sequence in sequences):
            for _ in self._loop.tick(sequences, drafts=False):
                pass
        return [self._result(sequence) for sequence in sequences]

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
        pieces, lengths = holes_of(text)
        if prompt is None:
            prompt = "Fill in the gaps: " + "___".join(pieces)
        return self._fill(pieces, lengths, prompt, options, changes)

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
        start, end = span
        if not 0 <= start < end <= len(text):
            raise PromptError(f"span {span} is no part of a text of {len(text)} characters")
        prompt = f"{instruction}\n\n{text}"
        if text[:start] and (options or self.defaults.options).with_changes(**changes).mode == "diffusion":
            changes.setdefault("initial_canvas", text[:start])
        return self._fill([text[:start], text[end:]], [None], prompt, options, changes)

    def _fill(
        self,
        pieces: list[str],
        lengths: list[int | None],
        prompt: Prompt,
        options: GenerationOptions | None,
        changes: dict[str, Any],
    ) -> Generation:
        if self.tokenizer is None:
            raise PromptError("holes need a tokenizer, and this model's directory has none")
        pattern = pattern_of(pieces, lengths, self.admission.constraints.marked)
        wanted = {"type": "regex", "pattern": pattern}
        generation = self.generate(prompt, options, **{**changes, "response_format": wanted})
        parsed = parse_reply(generation.raw, bare_calls=False)
        return dataclasses.replace(
            generation, filled=filled(generation.raw, pieces), text=parsed.text, tool_calls=parsed.tool_calls
        )

    def tokenize(self, prompt: Prompt, options: GenerationOptions | None = None, **changes: Any) -> list[int]:
        """The token ids that `generate` would encode for this prompt."""
        return self.admission.prompt_ids(prompt, (options or self.defaults.options).with_changes(**changes))

    def pieces(self, token_ids: Rows[int]) -> list[str]:
        """Each token's own text; a number in angle brackets where there is no tokenizer."""
        if self.tokenizer is None:
            return [f"<{token_id}>" for token_id in token_ids]
        return self.tokenizer.pieces(token_ids)

    def _admit(self, prompt: Prompt, options: GenerationOptions | None, changes: Mapping[str, Any]) -> Sequence:
        sequence = self.admission(prompt, options, changes)
        # What follows the prompt depends on its last token, and no snapshot holds what the causal mode makes of it.
        known = self.prefixes.take(sequence.prompt[:-1] if sequence.judged else sequence.prompt)
        if known is not None:
            sequence.cache, sequence.pending = known, sequence.prompt[known.length :]
            sequence.costs.cached_tokens = known.length
        return sequence

    def _remember(self, sequence: Sequence) -> None:
        """Keeps the end of the prompt, and of each canvas that was encoded, as a place to go on from."""
        self.prefixes.put((sequence.prompt + sequence.reply.token_ids)[: sequence.cache.length], sequence.cache)

    def _result(self, sequence: Sequence) -> Generation:
        reply = sequence.reply
        options = sequence.options
        if sequence.constraint is None or options.tools or options.enable_thinking:
            parsed = parse_reply(reply.text, bare_calls=sequence.constraint is None)
        else:
            # A text that must match is that text, whatever it spells.
            parsed = ParsedReply(text=reply.text, reasoning=None, tool_calls=())
        finish = reply.finish or "cancelled"
        if finish == "stop" and parsed.tool_calls:
            finish = "tool_calls"
        assert options.seed is not None
        places = [place for place in sequence.doubts if place < len(reply.token_ids)]
        return Generation(
            text=parsed.text,
            reasoning=parsed.reasoning,
            tool_calls=parsed.tool_calls,
            token_ids=tuple(reply.token_ids),
            finish_reason=finish,
            seed=options.seed,
            stats=sequence.costs.finish(len(sequence.prompt), len(reply.token_ids)),
            error=sequence.failed,
            raw=reply.text,
            logprobs=tuple(sequence.logprobs[: len(reply.token_ids)]) if options.logprobs else None,
            doubts=spans(reply.token_ids, places, sequence.logprobs, self.tokenizer),
        )
