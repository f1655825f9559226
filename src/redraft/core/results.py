"""What a caller gets back."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from redraft.core.checks import shown
from redraft.core.options import exact

if TYPE_CHECKING:
    from redraft.core.reel import Reel

FinishReason = Literal["stop", "length", "tool_calls", "empty", "cancelled", "error"]


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """One call that the model made.

    Attributes:
        name: the function.
        arguments: a mapping of JSON values, in the order the model wrote them.
        repaired: whether the text had to be mended to be read.
    """

    name: str
    arguments: dict[str, Any]
    repaired: bool = False

    def __str__(self) -> str:
        """For people to read: `PlayMusic(artist="Daft Punk", year="2011")`, values as JSON."""
        values = (f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in self.arguments.items())
        return f"{self.name}({', '.join(values)})"


@dataclass(frozen=True, kw_only=True)
class Doubt:
    """A part of the reply that the causal mode would hardly have written.

    Attributes:
        start, end: characters of the raw reply.
        text: what stands there.
        log_prob: nats, of the least likely of its tokens.
    """

    start: int
    end: int
    text: str
    log_prob: float


@dataclass(frozen=True, kw_only=True)
class ValueProbability:
    """One value of a field.

    Attributes:
        value: as JSON has it.
        probability: that the field has it.
    """

    value: Any
    probability: float


@dataclass(frozen=True, kw_only=True)
class FieldProbability:
    """What the model thinks of a field that it has written; `redraft.engine.fields` says how that is found.

    Attributes:
        path: keys from the reply's root on.
        value: what the reply has there.
        probability: of that value.
        source: "canvas": from all that the canvas could have become; "causal": of the value's tokens, as the causal
            mode would have written them.
        probabilities: of each value that the schema allows; empty where these are too many.
    """

    path: tuple[str, ...]
    value: Any
    probability: float
    source: Literal["canvas", "causal"]
    probabilities: tuple[ValueProbability, ...] = ()


@dataclass(frozen=True, kw_only=True)
class GenerationStats:
    """What a generation cost. A token counts when the user gets it.

    Attributes:
        prompt_tokens: tokens of the prompt, cached ones included.
        cached_tokens: those of them that an earlier turn had encoded already.
        generated_tokens: tokens of the reply, without end-of-turn and padding.
        canvases: canvases denoised.
        denoising_steps: `denoise` forwards.
        encode_passes: `encode` forwards: prefill, commits, and what the judge read.
        empty_retries: canvases drafted once more because the reply would have been empty.
        redrafts: rounds in which doubted tokens were drafted again; those kept are `redrafts_kept`.
        plateaus: canvases given up before their last step.
        handovers: canvases that were handed over to the causal mode.
        repeats: canvases in whose text a span repeats itself over and over.
        disagreements: tokens of a reply under a constraint in whose place the model, left free, would have written
            others, as it saw the canvas at its last step. In the other modes 0.
        drafted_tokens: tokens that "verified" had before the causal mode; those kept are `verified_tokens`.
        image_tokens: of the prompt, those that stand for pictures.
        tokens_per_forward: generated tokens / denoising steps, the reference's definition; / encode passes in the
            causal mode, which has no denoising steps; / both in "verified", where a draft takes both.
        time_to_first_canvas_s: from the start to the first committed canvas, or token in the causal mode.
        encode_s: time in `encode`.
        denoise_s: time in denoising steps, sampler included.
        total_s: from the start to the end.
        tokens_per_second: generated tokens / total time.
    """

    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    canvases: int
    denoising_steps: int
    encode_passes: int
    tokens_per_forward: float
    time_to_first_canvas_s: float
    encode_s: float
    denoise_s: float
    total_s: float
    tokens_per_second: float
    empty_retries: int = 0
    redrafts: int = 0
    redrafts_kept: int = 0
    plateaus: int = 0
    handovers: int = 0
    repeats: int = 0
    disagreements: int = 0
    drafted_tokens: int = 0
    verified_tokens: int = 0
    image_tokens: int = 0

    @property
    def kept_per_draft(self) -> float:
        """In "verified", drafted tokens that were kept / canvases. Each draft brings one token more: that which the
        causal mode puts behind them."""
        return self.verified_tokens / max(1, self.canvases)

    def __str__(self) -> str:
        """In one line: canvases, steps, tokens per forward, speed, time to the first canvas."""
        work = [_count(self.canvases, "canvas", "canvases"), _count(self.denoising_steps, "step", "steps")]
        parts = [
            *(work if self.canvases else [_count(self.encode_passes, "forward", "forwards")]),
            _count(self.generated_tokens, "token", "tokens"),
            f"{self.tokens_per_forward:.1f} tokens/forward",
            f"{self.tokens_per_second:.0f} tokens/s",
            f"first {'canvas' if self.canvases else 'token'} in {self.time_to_first_canvas_s:.2f} s",
        ]
        if self.redrafts:
            parts.append(f"{self.redrafts_kept} of {_count(self.redrafts, 'redraft', 'redrafts')} kept")
        if self.disagreements:
            parts.append(f"{_count(self.disagreements, 'token', 'tokens')} against the model")
        if self.drafted_tokens:
            drafted = _count(self.drafted_tokens, "drafted token", "drafted tokens")
            parts.append(f"{self.verified_tokens} of {drafted} kept")
        return " · ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Generation:
    """A finished reply; the last event of a stream.

    Attributes:
        text: the answer, without thought channel and tool calls.
        reasoning: the thought channel's text, None when there was none.
        tool_calls: calls in the order they were written.
        token_ids: what the user got; ends before end-of-turn and padding.
        finish_reason: "stop" (end-of-turn or a stop string), "length", "tool_calls", "empty" (end-of-turn came first,
            and again when it was barred once), "cancelled" or "error".
        seed: the seed that repeats this reply.
        stats: what it cost.
        error: what went wrong when `finish_reason` is "error".
        raw: the reply as it was written, markers included; `doubts` count its characters.
        logprobs: nats, the causal mode's log-probability of each of `token_ids`; None where nobody asked.
        doubts: what it would hardly have written; empty where nobody asked.
        fields: what it thinks of each field of its schema, where `probabilities` were asked for.
        filled: what the holes of `infill` and `edit` got.
        ignored: options that were given and had no effect.
        reel: its drafts, for a notebook to show; None where nobody kept them. It is part of no JSON and of no
            comparison.

    In a notebook a reply shows itself: the answer, its calls and doubts, what it cost, its drafts behind a scrubber.
    `str()` of it is the answer and the calls.
    """

    text: str
    reasoning: str | None
    tool_calls: tuple[ToolCall, ...]
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    seed: int
    stats: GenerationStats
    error: str | None = None
    raw: str = ""
    logprobs: tuple[float, ...] | None = None
    doubts: tuple[Doubt, ...] = ()
    fields: tuple[FieldProbability, ...] = ()
    filled: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    reel: Reel | None = field(default=None, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The reply as JSON values, in the order of the fields; a seed of more than 53 bits is a text. No drafts."""
        values = asdict(replace(self, reel=None)) | {"seed": exact(self.seed)}
        del values["reel"]
        return values

    def __str__(self) -> str:
        return "\n".join([*filter(None, [self.text]), *map(str, self.tool_calls)])

    def __repr__(self) -> str:
        """In one line; the fields have the rest."""
        said = {
            "text": self.text if self.text or not self.tool_calls else None,
            "tool_calls": [str(call) for call in self.tool_calls] or None,
            "finish_reason": self.finish_reason,
            "error": self.error,
            "seed": self.seed,
        }
        parts = [f"{name}={shown(value)}" for name, value in said.items() if value is not None]
        return f"Generation({', '.join(parts)}, stats: {self.stats})"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from redraft.core.notebook.reply import reply_html

        notes = [self.error] if self.error else []
        if self.finish_reason == "length":
            notes.append(f"cut at {_count(self.stats.generated_tokens, 'token', 'tokens')} (max_new_tokens)")
        elif self.finish_reason in ("cancelled", "empty"):
            notes.append({"cancelled": "cancelled", "empty": "(empty reply)"}[self.finish_reason])
        if self.ignored:
            notes.append(f"without effect: {', '.join(self.ignored)}")
        return reply_html(
            text=self.text,
            raw=self.raw,
            reasoning=self.reasoning,
            calls=[(call.name, call.arguments) for call in self.tool_calls],
            doubts=[(doubt.start, doubt.end, doubt.log_prob) for doubt in self.doubts],
            notes=notes,
            numbers=f"{self.stats} · seed {self.seed}",
            reel=self.reel,
        )


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What is loaded.

    Attributes:
        name: as the caller named it.
        path: the directory it was read from.
        parameters: number of distinct parameters.
        vocab_size, canvas_length, max_context: sizes in tokens.
        device, dtype: where and how the weights are held, those that are not quantised.
        quantization: of the matrices: None or "int8".
        has_tokenizer, has_chat_template: what the directory came with.
        defaults: the generation options that apply when the caller sets none.
        end_ids: tokens that end a reply, and the padding behind it.
        fingerprint: of its weights, as they are held.
        sees: whether messages may hold pictures.
        adapter: the directory of the adapter that it runs with.
    """

    name: str
    path: str
    parameters: int
    vocab_size: int
    canvas_length: int
    max_context: int
    device: str
    dtype: str
    quantization: str | None
    has_tokenizer: bool
    has_chat_template: bool
    defaults: dict[str, Any] = field(default_factory=dict)
    end_ids: tuple[int, ...] = ()
    fingerprint: str = ""
    sees: bool = False
    adapter: str | None = None


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
