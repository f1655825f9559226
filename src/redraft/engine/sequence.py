"""One request in flight: what it has, where its canvas stands, what it has cost."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from torch import Tensor

from redraft.core.automaton import DEAD
from redraft.core.options import GenerationOptions
from redraft.core.results import GenerationStats
from redraft.engine.canvas import CanvasState
from redraft.engine.drafting import Drafting
from redraft.engine.fields import FieldWatch
from redraft.engine.prompt_images import PromptImage, identity
from redraft.engine.reply import Reply
from redraft.engine.variant import Variant
from redraft.kernels.constrained import NothingLeftError
from redraft.model.cache import SequenceCache
from redraft.text.constraint import Constraint

# More tokens than any reply has.
NO_END = 2**31


@dataclass
class Costs:
    """Counters and clocks of one request."""

    cached_tokens: int = 0
    canvases: int = 0
    denoising_steps: int = 0
    encode_passes: int = 0
    empty_retries: int = 0
    redrafts: int = 0
    redrafts_kept: int = 0
    plateaus: int = 0
    handovers: int = 0
    repeats: int = 0
    disagreements: int = 0
    drafted_tokens: int = 0
    verified_tokens: int = 0
    encode_s: float = 0.0
    denoise_s: float = 0.0
    started: float = field(default_factory=time.perf_counter)
    first_canvas_s: float | None = None

    def finish(
        self, prompt_tokens: int, generated_tokens: int, *, verified: bool, image_tokens: int = 0
    ) -> GenerationStats:
        """The final figures; a draft that is verified takes a forward of each kind."""
        total = time.perf_counter() - self.started
        # The causal mode has no denoising steps; each of its tokens took one encode.
        forwards = self.denoising_steps or self.encode_passes
        if verified:
            forwards = self.denoising_steps + self.encode_passes
        return GenerationStats(
            prompt_tokens=prompt_tokens,
            cached_tokens=self.cached_tokens,
            generated_tokens=generated_tokens,
            canvases=self.canvases,
            denoising_steps=self.denoising_steps,
            encode_passes=self.encode_passes,
            tokens_per_forward=generated_tokens / max(1, forwards),
            time_to_first_canvas_s=total if self.first_canvas_s is None else self.first_canvas_s,
            encode_s=self.encode_s,
            denoise_s=self.denoise_s,
            total_s=total,
            tokens_per_second=generated_tokens / total,
            empty_retries=self.empty_retries,
            redrafts=self.redrafts,
            redrafts_kept=self.redrafts_kept,
            plateaus=self.plateaus,
            handovers=self.handovers,
            repeats=self.repeats,
            disagreements=self.disagreements,
            drafted_tokens=self.drafted_tokens,
            verified_tokens=self.verified_tokens,
            image_tokens=image_tokens,
        )


@dataclass
class Sequence:
    """A request from admission to its last canvas.

    Attributes:
        prompt: token ids.
        options: with every default filled in; of the mode that writes, which a handover changes.
        seed: as an int64 bit pattern.
        cache: what has been encoded.
        pending: ids to encode before the next denoising step.
        images: the pictures in the prompt, in their order.
        stops: lengths at which the prompt's pieces end, see `Stops`.
        reply: what the user gets.
        budget: tokens that the reply may have; canvases of `canvas_length` positions cover it.
        canvas_length: positions of each canvas.
        constraint: what the reply must match.
        constraint_state: where that stands behind the committed canvases.
        strict: whether the reply must be whole within its budget; else it may be cut off there.
        wanted_calls: functions that the reply may call.
        instead: constraints of which the first that can still be kept takes over where a canvas would call another.
        initial: token ids that the reply's canvases start from, -1 where they start from noise.
        pinned: token ids that never change, -1 elsewhere.
        canvas: None between canvases.
        last_hidden: [1, 1, D] of the last encoded token, from which the next one's probability follows.
        logprobs: of the reply's tokens so far, where they are wanted.
        doubts: places of tokens that the judge doubts.
        drafts: whether anyone looks at the drafts of its canvases.
        pieces: the text around the holes, where the reply fills a text.
        fields: what is known of the fields of its schema, where that is wanted.
        drafting: where its drafts stand, in the verified mode.
        positions: of the prompt and all canvases, at most.
        variant: what it runs on; None is the model alone.
        failed: why it ended early.
        ignored: names of options that were given and have no effect.
    """

    prompt: list[int]
    options: GenerationOptions
    seed: int
    cache: SequenceCache
    pending: list[int]
    reply: Reply
    budget: int
    canvas_length: int
    constraint: Constraint | None = None
    constraint_state: int = 0
    strict: bool = True
    wanted_calls: frozenset[str] = frozenset()
    instead: tuple[Constraint, ...] = ()
    initial: list[int] = field(default_factory=list)
    pinned: list[int] = field(default_factory=list)
    stops: list[int] = field(default_factory=list)
    canvas: CanvasState | None = None
    last_hidden: Tensor | None = None
    logprobs: list[float] = field(default_factory=list)
    doubts: list[int] = field(default_factory=list)
    drafts: bool = True
    pieces: list[str] = field(default_factory=list)
    costs: Costs = field(default_factory=Costs)
    fields: FieldWatch | None = None
    drafting: Drafting | None = None
    positions: int = NO_END
    variant: Variant | None = None
    images: tuple[PromptImage, ...] = ()
    failed: str | None = None
    ignored: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.ignored = self.options.ignored

    @property
    def identity(self) -> list[int]:
        """What tells its prompt from others: its ids, but for its pictures."""
        return identity(self.prompt, self.images)

    @property
    def image_tokens(self) -> int:
        """How many of the prompt's stand for pictures."""
        return sum(image.tokens for image in self.images)

    @property
    def committed(self) -> int:
        """Tokens of the canvases that the reply consists of so far."""
        return len(self.reply.token_ids)

    def room(self, ahead: int = 0) -> int:
        """Tokens within which a constraint has to come to its end, `ahead` of them behind the committed ones.

        Where the reply may be cut off, these are whole canvases: what the last of them holds does not depend on how
        much of it is wanted.
        """
        budget = self.budget
        if not self.strict:
            causal = self.canvas_length == 1 or self.options.mode == "verified"
            budget = NO_END if causal else -(-budget // self.canvas_length) * self.canvas_length
        return budget - self.committed - ahead

    @property
    def judged(self) -> bool:
        """Whether the causal mode has a say in this request."""
        options = self.options
        if self.fields is not None and self.fields.is_judged:
            return True
        return bool(
            options.logprobs
            or options.redraft
            or options.plateau_steps
            or options.mode != "diffusion"
            or options.handover_steps
        )

    def fail(self, reason: str) -> None:
        """Ends the reply with an error."""
        self.failed = reason
        self.reply.close("error")

    def cancel(self) -> None:
        """Ends the reply where it is, unless it has ended."""
        self.reply.close("cancelled")

    def fail_held(self, error: Exception) -> None:
        """Ends a reply that cannot keep what it turned out to be held to."""
        self.fail(f"the reply cannot be brought to an end that matches: {error}")

    def hold_to(self, constraint: Constraint | None) -> None:
        """Holds the reply to a constraint that its committed tokens keep."""
        if constraint is not self.constraint and constraint is not None:
            self.constraint = constraint
            self.constraint_state = constraint.automaton.advance(constraint.automaton.start, self.reply.token_ids)

    def narrow(self, token_ids: list[int]) -> bool:
        """Narrows the constraint where these tokens, behind the committed ones, break a rule that it leaves open.

        Raises:
            NothingLeftError: the committed tokens cannot be followed by anything that keeps it.
            OptionError: it needs more than may be compiled.
        """
        narrower = self.constraint and self.constraint.narrowed(self.reply.token_ids + token_ids)
        if not narrower:
            return False
        self.constraint = narrower
        self.constraint_state = narrower.automaton.advance(narrower.automaton.start, self.reply.token_ids)
        if self.constraint_state == DEAD:
            raise NothingLeftError("nothing that keeps every rule can follow what is written")
        return True

    @property
    def finished(self) -> bool:
        """Whether the reply has ended."""
        return self.reply.finish is not None
