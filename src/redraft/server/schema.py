"""What clients may send. A field that is not here is refused by name; so is one whose value cannot be honoured."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from redraft.core.changes import ImageAttention, SamplerName
from redraft.core.errors import PromptError
from redraft.core.options import EXACT_BITS
from redraft.text.messages import check_values

MAX_MESSAGES = 2048
MAX_CHOICES = 8


def without_paths(message: dict[str, Any]) -> dict[str, Any]:
    """Refuses the parts by which Python names pictures: a path in one would be opened."""
    content = message.get("content")
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict) and (kind := part.get("type")) in ("image", "video"):
            raise ValueError(f"a part of type {kind!r} is Python's alone: send it as {kind}_url, with a data: URL")
    return message


Message = Annotated[dict[str, Any], AfterValidator(without_paths)]


def _read_seed(value: Any) -> Any:
    """A seed that has come through JSON undamaged: a larger one is a text."""
    if isinstance(value, bool):
        raise ValueError("a seed is a number")
    if isinstance(value, int) and value >= 2**EXACT_BITS:
        raise ValueError(f"numbers from 2**{EXACT_BITS} on lose digits in JSON: send the seed as text")
    if not isinstance(value, str):
        return value
    if not (value.isascii() and value.isdecimal() and len(value) <= 20 and int(value) < 2**64):
        raise ValueError("a seed that is text has decimal digits alone, and is below 2**64")
    return int(value)


Seed = Annotated[
    int,
    BeforeValidator(_read_seed, json_schema_input_type=int | str),
    Field(ge=0, lt=2**64),
]
Share = Annotated[float, Field(ge=0, le=1)]


class Body(BaseModel):
    """Base of every body."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _sane(cls, value: Any) -> Any:
        """No text that is no text, and nothing nested so deep that reading it costs more than it can be worth."""
        for name, part in value.items() if isinstance(value, dict) else ():
            try:
                check_values(part, str(name))
                check_values(name, "the body")
            except PromptError as error:
                raise ValueError(str(error)) from None
        return value


class Diffusion(Body):
    """redraft's own options; unset ones come from the checkpoint."""

    preset: str | None = None
    mode: Literal["diffusion", "autoregressive", "verified"] | None = None
    steps: Annotated[int | None, Field(ge=1, le=1000)] = None
    t_max: float | None = None
    t_min: float | None = None
    sampler: SamplerName | None = None
    entropy_bound: float | None = None
    threshold: Share | None = None
    floor: Annotated[int | None, Field(ge=0, le=2**20)] = None
    stability_threshold: Annotated[int | None, Field(ge=0, le=100)] = None
    confidence_threshold: float | None = None
    redraft: Annotated[int | None, Field(ge=0, le=16)] = None
    canvas_length: Annotated[int | None, Field(ge=1)] = None
    adaptive_canvas: bool | None = None
    freeze_nats: Annotated[float | None, Field(ge=0, le=1e6)] = None
    settled_nats: Annotated[float | None, Field(ge=0, le=1e6)] = None
    settled_steps: Annotated[int | None, Field(ge=0, le=4096)] = None
    handover_steps: Annotated[int | None, Field(ge=0, le=4096)] = None
    plateau_steps: Annotated[int | None, Field(ge=0, le=1000)] = None
    retry_empty: bool | None = None
    probabilities: bool | None = None
    known_tools: bool | None = None
    image_tokens: Literal[70, 140, 280, 560, 1120] | None = None
    image_attention: ImageAttention | None = None
    drafts: bool = False


class StreamOptions(Body):
    """What a stream tells beside the text."""

    include_usage: bool = False
    include_obfuscation: Literal[False] | None = None


class TemplateOptions(Body):
    """Of the chat template."""

    enable_thinking: bool = False


class Sampling(Body):
    """What chat and plain completions share. Penalties and biases are taken only where they would do nothing: a canvas
    has no order in which its tokens come."""

    model: str
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: Share | None = None
    seed: Seed | None = None
    max_tokens: Annotated[int | None, Field(ge=1, lt=2**31)] = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    n: Annotated[int | None, Field(ge=1, le=MAX_CHOICES)] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    presence_penalty: Literal[0] | None = None
    frequency_penalty: Literal[0] | None = None
    logit_bias: Annotated[dict[str, float] | None, Field(max_length=0)] = None
    user: str | None = None
    diffusion: Diffusion | None = None

    @model_validator(mode="after")
    def _stream_options_need_a_stream(self) -> Sampling:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream=true")
        if self.diffusion is not None and self.diffusion.drafts and not self.stream:
            raise ValueError("diffusion.drafts needs stream=true")
        return self


class Prediction(Body):
    """A draft of the reply: the canvas starts from it."""

    type: Literal["content"]
    content: str


class ChatRequest(Sampling):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Annotated[int | None, Field(ge=1, lt=2**31)] = None
    logprobs: bool | None = None
    top_logprobs: Literal[0] | None = None
    response_format: dict[str, Any] | None = None
    tools: Annotated[list[dict[str, Any]] | None, Field(max_length=128)] = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    prediction: Prediction | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high"] | None = None
    chat_template_kwargs: TemplateOptions | None = None
    modalities: Annotated[list[Literal["text"]] | None, Field(max_length=1)] = None
    metadata: dict[str, str] | None = None
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


class CompletionRequest(Sampling):
    """`POST /v1/completions`: text or token ids, no chat template."""

    prompt: str | list[str] | list[int] | list[list[int]]
    echo: bool | None = None
    best_of: Annotated[int | None, Field(ge=1, le=MAX_CHOICES)] = None
    logprobs: Literal[0] | None = None
    suffix: Literal[""] | None = None


class InfillRequest(Body):
    """`POST /v1/infill`: a text with holes, `[[...]]`, or a span of it to write anew."""

    model: str
    text: Annotated[str, Field(min_length=1)]
    span: Annotated[tuple[int, int] | None, Field(description="characters to write anew, instead of holes")] = None
    instruction: str | None = None
    messages: Annotated[list[Message] | None, Field(max_length=MAX_MESSAGES)] = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    seed: Seed | None = None
    max_tokens: Annotated[int | None, Field(ge=1, lt=2**31)] = None
    diffusion: Diffusion | None = None


class TokenizeRequest(Body):
    """`POST /v1/tokenize`: a text as it stands, or messages through the chat template."""

    model: str
    text: str | None = None
    messages: Annotated[list[Message] | None, Field(min_length=1, max_length=MAX_MESSAGES)] = None


class AdapterRequest(Body):
    """`POST /v1/adapters`: an adapter from the directory that the operator has allowed."""

    name: str
    path: Annotated[str | None, Field(min_length=1, description="in that directory; unset, the name")] = None
