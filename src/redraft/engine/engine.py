"""`LocalEngine`: one model in this process, behind the `Engine` protocol."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Generator, Iterable, Iterator
from collections.abc import Sequence as Rows
from functools import cached_property
from pathlib import Path
from typing import Any, Unpack

from redraft.checkpoint.vision import LazyVision
from redraft.core.changes import GenerationChanges
from redraft.core.checks import shown
from redraft.core.decisions import Decisions
from redraft.core.draft import Draft
from redraft.core.engine import Engine, Prompt, Request, Running
from redraft.core.errors import InputError, PromptError
from redraft.core.events import Event, Final
from redraft.core.options import GenerationOptions
from redraft.core.questions import DecideOptions
from redraft.core.reads import Read, Reading
from redraft.core.reel import Recorder
from redraft.core.results import Generation, ModelInfo
from redraft.decide.calibration import identity_of
from redraft.engine import filling
from redraft.engine.adapted import LoadedAdapters
from redraft.engine.admission import Admission
from redraft.engine.batch import replies
from redraft.engine.deciding import driven, each_state, known_of, options_with, prepared_reads, readings_of, rounds_of
from redraft.engine.defaults import Defaults
from redraft.engine.described import described
from redraft.engine.fingerprint import fingerprint
from redraft.engine.given import requests_of
from redraft.engine.lanes import Lanes
from redraft.engine.loop import CanvasLoop, Emitted, UnderWay
from redraft.engine.outcome import outcome
from redraft.engine.prefix import BUDGET_BYTES, PrefixCache
from redraft.engine.read import ReadList
from redraft.engine.resume import remember, resume
from redraft.engine.running import PreparedReads, PreparedRequest, RunningRequests
from redraft.engine.sequence import Sequence
from redraft.engine.sight import Sight
from redraft.engine.variant import Variant
from redraft.model.model import DiffusionGemma
from redraft.text.chat import ChatTemplate
from redraft.text.tokenizer import Tokenizer


class LocalEngine(Engine):
    """Runs a model that is loaded here. `redraft.load` makes one; what its calls do, `Engine` says.

    Each adapter beside the model has an engine of its own, which hands what it has prepared to this one.
    """

    def __init__(
        self,
        model: DiffusionGemma,
        *,
        name: str,
        directory: Path,
        adapter: Path | None = None,
        exact: bool,
        max_context: int | None = None,
        prefix_cache_bytes: int = BUDGET_BYTES,
        request_bytes: int = 2**62,
        tower: LazyVision | None = None,
    ) -> None:
        self.model = model
        self._root, self._copies = self, 1
        self._workers: Running | None = None
        self.tokenizer = Tokenizer.from_directory(directory)
        self.template = ChatTemplate.from_directory(directory)
        defaults = Defaults.of(directory, model.config, self.tokenizer, adapter)
        self.max_context = max_context or model.config.max_position_embeddings
        self.sight = Sight(tower, model.config, directory)
        self.admission = Admission(model, self.tokenizer, self.template, defaults, self.max_context, self.sight)
        self.prefixes = PrefixCache(prefix_cache_bytes)
        self._exact, self._request_bytes = exact, request_bytes
        self._loop = self._loop_on(model)
        self._lanes = Lanes(self._loop_on)
        self._name, self._directory, self._adapter = name, directory, adapter
        self._adapters = LoadedAdapters[LocalEngine](
            model, lambda: self.prefixes, self._beside, self._room, together=not exact
        )

    def __repr__(self) -> str:
        count, model = self.model.num_parameters, self._name
        size = f"{count / 1e9:.1f} billion" if count >= 1e9 else f"{count / 1e6:.1f} million"
        return f"<redraft engine: {model}, {size} parameters, {self.info.dtype} on {self.model.device}>"

    @property
    def defaults(self) -> Defaults:
        """What applies when the caller sets nothing."""
        return self.admission.defaults

    @property
    def info(self) -> ModelInfo:
        return described(
            self.model,
            self.admission,
            name=self._name,
            path=str(self._directory),
            fingerprint=self._fingerprint,
            sees=self.sight.sees,
            adapter=None if self._adapter is None else str(self._adapter),
        )

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint(self.model)

    @property
    def adapters(self) -> LoadedAdapters[LocalEngine]:
        return self._adapters

    @property
    def request_bytes(self) -> int:
        root = self._root
        return root._request_bytes - root._copies * root._adapters.nbytes

    def generate(
        self, prompt: Prompt, options: GenerationOptions | None = None, **changes: Unpack[GenerationChanges]
    ) -> Generation:
        return self._whole(self.prepare(prompt, options, **changes))

    def stream(
        self, prompt: Prompt, options: GenerationOptions | None = None, **changes: Unpack[GenerationChanges]
    ) -> Iterator[Event]:
        return self._events(self.prepare(prompt, options, **changes))

    def generate_batch(self, requests: Rows[Request | Prompt]) -> list[Generation]:
        prepared = []
        for number, request in enumerate(requests_of(requests)):
            whole = request.options if isinstance(request.options, GenerationOptions) else None
            changes: dict[str, Any] = {} if isinstance(request.options, GenerationOptions) else {**request.options}
            try:
                prepared.append(self.prepare(request.prompt, whole, **changes))
            except InputError as error:
                error.add_note(f"It is request {number} of the batch.")
                raise
        # From another process drafts would have to be sent.
        drafts = self._drafts_are_free and self._root._workers is None
        return replies(self.running(), prepared, lambda: Recorder(self.pieces), drafts=drafts)

    def infill(
        self,
        text: str,
        prompt: Prompt | None = None,
        options: GenerationOptions | None = None,
        **changes: Unpack[GenerationChanges],
    ) -> Generation:
        return self._whole(self.prepare_infill(text, prompt, options, **changes))

    def edit(
        self,
        text: str,
        span: tuple[int, int],
        instruction: str,
        options: GenerationOptions | None = None,
        **changes: Unpack[GenerationChanges],
    ) -> Generation:
        return self._whole(self.prepare_edit(text, span, instruction, options, **changes))

    def decide(self, state: Any, questions: Any, /, options: DecideOptions | None = None, **changes: Any) -> Decisions:
        return driven(self.deciding(state, questions, options, **changes), self.read)

    def decide_many(
        self, states: Iterable[Any], questions: Any, /, options: DecideOptions | None = None, **changes: Any
    ) -> Iterator[Decisions]:
        shared = options_with(options, changes)
        if shared.state == "auto":
            shared = shared.with_changes(state="behind")
        return each_state(states, lambda state: self.decide(state, questions, shared))

    def deciding(
        self, state: Any, questions: Any, /, options: DecideOptions | None = None, **changes: Any
    ) -> Generator[list[Read], list[Reading], Decisions]:
        chosen = options_with(options, changes)
        return rounds_of(known_of(self.admission, identity_of(self.info), chosen), state, questions, chosen)

    def read(self, reads: Rows[Read]) -> list[Reading]:
        under_way = prepared_reads(self.admission, reads).sequence
        while under_way.reads and not under_way.finished:
            list(self._root._tick([under_way]))
        under_way.finish = under_way.finish or "stop"
        return readings_of(under_way.result())

    def prepare_reads(self, reads: Rows[Read]) -> PreparedReads:
        return prepared_reads(self.admission, reads)

    def prepare(
        self, prompt: Prompt, options: GenerationOptions | None = None, **changes: Unpack[GenerationChanges]
    ) -> PreparedRequest:
        return PreparedRequest(self.admission(prompt, options, changes))

    def prepare_infill(
        self,
        text: str,
        prompt: Prompt | None = None,
        options: GenerationOptions | None = None,
        **changes: Unpack[GenerationChanges],
    ) -> PreparedRequest:
        return filling.infill(self.admission, text, prompt, options, dict(changes))

    def prepare_edit(
        self,
        text: str,
        span: tuple[int, int],
        instruction: str,
        options: GenerationOptions | None = None,
        **changes: Unpack[GenerationChanges],
    ) -> PreparedRequest:
        return filling.edit(self.admission, text, span, instruction, options, dict(changes))

    def running(self) -> Running:
        # Within this process it shares the prefix cache with the other calls.
        root = self._root
        if root._workers is None:
            return RunningRequests(root._tick, root._begin, self.result)
        root._workers.clear()
        return root._workers

    def share(self, workers: Running, copies: int = 1) -> None:
        """From now on, these move the requests that are under way together; the model is there so many times."""
        self._workers, self._copies = workers, copies

    def tokenize(
        self, prompt: Prompt, options: GenerationOptions | None = None, **changes: Unpack[GenerationChanges]
    ) -> list[int]:
        return self.admission.prompts.laid_out(prompt, self.admission.resolved(options, changes)).ids

    def encode(self, text: str, most: int | None = None) -> list[int]:
        return self.admission.prompts.encoded(text, most)

    def pieces(self, token_ids: Rows[int], *, skip_special_tokens: bool = False) -> list[str]:
        try:
            if self.tokenizer is None:
                return [f"<{token_id}>" for token_id in token_ids]
            return self.tokenizer.pieces(token_ids, skip_special_tokens=skip_special_tokens)
        except (TypeError, OverflowError):
            raise PromptError(f"token_ids must be a list of token ids, got {shown(token_ids)}") from None

    def _begin(self, prepared: PreparedRequest | PreparedReads) -> UnderWay:
        """The request with what is known of its prompt; the clock starts."""
        return prepared.sequence if isinstance(prepared, PreparedReads) else self._begun(prepared)

    def _begun(self, prepared: PreparedRequest) -> Sequence:
        resume(prepared.sequence, self._prefixes_of(prepared.sequence))
        return prepared.sequence

    @property
    def _drafts_are_free(self) -> bool:
        # An accelerator would have to stop for each of them.
        return self._root._loop.exact

    def _whole(self, prepared: PreparedRequest) -> Generation:
        *_, generation = self._events(prepared, drafts=self._drafts_are_free)
        assert isinstance(generation, Generation)
        return generation

    def _events(self, prepared: PreparedRequest, *, drafts: bool = True) -> Iterator[Event]:
        sequence, recorder = self._begun(prepared), Recorder(self.pieces)
        while not sequence.finished:
            for _, event in self._root._tick([sequence], drafts=drafts):
                if isinstance(event, Draft):
                    recorder.add(event)
                yield event
        yield dataclasses.replace(outcome(sequence, self.tokenizer), reel=recorder.reel())

    def _remember(self, sequence: Sequence) -> None:
        remember(sequence, self._prefixes_of(sequence), self.admission.stops)

    def _loop_on(self, model: DiffusionGemma) -> CanvasLoop:
        exact, soft, known = self._exact, self.sight.soft_tokens, self._prefixes_of
        return CanvasLoop(model, exact=exact, graphs=not exact, on_encoded=self._remember, prefixes=known, soft=soft)

    def _tick(self, sequences: Rows[UnderWay], *, drafts: bool = True) -> Iterator[Emitted]:
        return self._lanes.tick(self._loop, sequences, drafts=drafts)

    def _prefixes_of(self, sequence: UnderWay) -> PrefixCache:
        return self._root.prefixes if sequence.variant is None else sequence.variant.prefixes

    def _beside(self, name: str, directory: Path, variant: Variant) -> LocalEngine:
        """The engine of an adapter."""
        other = copy.copy(self)
        vars(other).pop("_fingerprint", None)
        defaults = Defaults.of(self._directory, self.model.config, self.tokenizer, directory)
        other.admission = self.admission.beside(variant, defaults)
        other.model, other.prefixes, other._name, other._adapter = variant.model, variant.prefixes, name, directory
        return other

    def _room(self) -> int:
        """Bytes that the factors of one more adapter may take: half stays for keys and values."""
        return self._request_bytes // (2 * self._copies) - self._adapters.nbytes

    def result(self, sequence: UnderWay) -> Final:
        """What the user gets of a request."""
        return sequence.result() if isinstance(sequence, ReadList) else outcome(sequence, self.tokenizer)
