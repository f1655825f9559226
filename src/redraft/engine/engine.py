"""`LocalEngine`: one model in this process, behind the `Engine` protocol."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Rows
from pathlib import Path
from typing import Any

from redraft.core.engine import Prompt, Request
from redraft.core.errors import ContextLengthError, PromptError
from redraft.core.events import Event
from redraft.core.options import GenerationOptions
from redraft.core.results import Generation, ModelInfo
from redraft.engine.defaults import Defaults
from redraft.engine.loop import CanvasLoop
from redraft.engine.prefix import PrefixCache
from redraft.engine.reply import Reply
from redraft.engine.sequence import Costs, Sequence
from redraft.model.cache import SequenceCache
from redraft.model.model import DiffusionGemma
from redraft.sampler.noise import as_int64
from redraft.text.chat import ChatTemplate
from redraft.text.output import parse_reply
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
        self.defaults = Defaults.of(directory, model.config, self.tokenizer)
        self.max_context = max_context or model.config.max_position_embeddings
        self.prefixes = PrefixCache()
        self._loop = CanvasLoop(model, exact=exact, on_encoded=self._remember)
        self._name, self._directory = name, directory

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

    def tokenize(self, prompt: Prompt, options: GenerationOptions | None = None, **changes: Any) -> list[int]:
        """The token ids that `generate` would encode for this prompt."""
        return self._prompt_ids(prompt, (options or self.defaults.options).with_changes(**changes))

    def pieces(self, token_ids: Rows[int]) -> list[str]:
        """Each token's own text; a number in angle brackets where there is no tokenizer."""
        if self.tokenizer is None:
            return [f"<{token_id}>" for token_id in token_ids]
        return self.tokenizer.pieces(token_ids)

    def _admit(self, prompt: Prompt, options: GenerationOptions | None, changes: Mapping[str, Any]) -> Sequence:
        costs = Costs()
        resolved = (options or self.defaults.options).with_changes(**changes)
        if resolved.stop and self.tokenizer is None:
            raise PromptError("stop strings need a tokenizer, and this model's directory has none")
        ids = self._prompt_ids(prompt, resolved)
        causal = resolved.mode == "autoregressive"
        length = self.model.config.canvas_length
        if len(ids) + (1 if causal else length) > self.max_context:
            raise ContextLengthError(len(ids), self.max_context)
        seed = secrets.randbits(63) if resolved.seed is None else resolved.seed
        resolved = resolved.with_changes(seed=seed)
        # The causal mode begins with what the prompt's last token makes of the rest, which no snapshot holds.
        cache = self.prefixes.take(ids[:-1] if causal else ids) or SequenceCache(
            self.model.config, self.model.dtype, self.model.device
        )
        costs.cached_tokens = cache.length
        return Sequence(
            prompt=ids,
            options=resolved,
            seed=as_int64(seed),
            cache=cache,
            pending=ids[cache.length :],
            reply=Reply(self.tokenizer, self.defaults.end_ids, resolved.max_new_tokens, resolved.stop),
            max_context=self.max_context,
            max_canvases=min(-(-resolved.max_new_tokens // length), (self.max_context - len(ids)) // length),
            costs=costs,
        )

    def _prompt_ids(self, prompt: Prompt, options: GenerationOptions) -> list[int]:
        if isinstance(prompt, str):
            if not prompt.strip():
                raise PromptError("the prompt is empty")
            if self.template is None:
                return self._encoded(prompt)
            prompt = [{"role": "user", "content": prompt}]
        if not isinstance(prompt, Rows) or not prompt:
            raise PromptError("the prompt is empty: give text, messages or token ids")
        if isinstance(prompt[0], int):
            return self._checked_ids(list(prompt))  # type: ignore[arg-type]
        if self.template is None:
            raise PromptError("this model's directory has no chat template: give text or token ids, not messages")
        messages: Any = prompt
        text = self.template.render(messages, tools=options.tools, enable_thinking=options.enable_thinking)
        return self._encoded(text)

    def _encoded(self, text: str) -> list[int]:
        if self.tokenizer is None:
            raise PromptError("this model's directory has no tokenizer: give token ids")
        return self.tokenizer.encode(text)

    def _checked_ids(self, ids: list[int]) -> list[int]:
        vocab_size = self.model.config.vocab_size
        for position, token_id in enumerate(ids):
            if not isinstance(token_id, int) or not 0 <= token_id < vocab_size:
                raise PromptError(f"token id {token_id!r} at position {position} is not in 0..{vocab_size - 1}")
        return ids

    def _remember(self, sequence: Sequence) -> None:
        """Keeps the end of the prompt, and of each canvas that was encoded, as a place to go on from."""
        self.prefixes.put((sequence.prompt + sequence.reply.token_ids)[: sequence.cache.length], sequence.cache)

    def _result(self, sequence: Sequence) -> Generation:
        reply = sequence.reply
        parsed = parse_reply(reply.text)
        finish = reply.finish or "cancelled"
        if finish == "stop" and parsed.tool_calls:
            finish = "tool_calls"
        assert sequence.options.seed is not None
        return Generation(
            text=parsed.text,
            reasoning=parsed.reasoning,
            tool_calls=parsed.tool_calls,
            token_ids=tuple(reply.token_ids),
            finish_reason=finish,
            seed=sequence.options.seed,
            stats=sequence.costs.finish(len(sequence.prompt), len(reply.token_ids)),
            error=sequence.failed,
        )
