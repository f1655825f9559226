"""What a caller can ask of a generation: one frozen dataclass, in the reference's own names."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from redraft.core.errors import OptionError, UnknownOptionError

Mode = Literal["diffusion", "autoregressive", "verified"]


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """Options of one generation. Unset ones come from the checkpoint's `generation_config.json`.

    Attributes:
        max_new_tokens: exact upper bound of generated tokens; the last canvas is cut.
        max_denoising_steps: N, the most denoising steps of one canvas; also the length of the schedule.
        t_max: temperature of the schedule's start. `t_max = t_min = 0` is the limit: argmax everywhere.
        t_min: temperature that the schedule approaches at its end.
        entropy_bound: nats; tokens are accepted in ascending entropy while the sum before them is within it.
        stability_threshold: steps for which the argmax canvas must not have changed before a stop.
        confidence_threshold: nats; the mean entropy of a canvas must be below it for a stop.
        seed: same seed, same text; None draws a fresh one, which the result reports.
        mode: "diffusion" denoises canvases, "autoregressive" writes token by token with the same weights.
        temperature: scales t_max and t_min; 0 is greedy. None leaves the schedule as it is. In the causal mode it is
            the temperature itself, and None is 1.
        top_p: nucleus bound of the causal mode.
        preset: a named set of options.
        initial_canvas: token ids that the first canvas starts from instead of noise.
        pinned: canvas positions that never change.
        stop: strings that end the reply; the reply ends before the first of them.
        enable_thinking: asks the chat template for a thought before the answer.
        tools: OpenAI-style tool declarations, handed to the chat template.
        tool_choice: "auto", "none", "required" or the name of a tool.
        response_format: a JSON schema, regex or choice list that the reply must match.
        logprobs: whether the causal mode's log-probabilities are wanted.
        redraft: rounds in which doubted tokens are drafted again.
    """

    max_new_tokens: int = 256
    max_denoising_steps: int = 48
    t_max: float = 0.8
    t_min: float = 0.4
    entropy_bound: float = 0.1
    stability_threshold: int = 1
    confidence_threshold: float = 0.005
    seed: int | None = None
    mode: Mode = "diffusion"
    temperature: float | None = None
    top_p: float = 1.0
    preset: str | None = None
    initial_canvas: Sequence[int] | None = None
    pinned: Sequence[int] = ()
    stop: Sequence[str] = ()
    enable_thinking: bool = False
    tools: Sequence[Mapping[str, Any]] | None = None
    tool_choice: str = "auto"
    response_format: Mapping[str, Any] | None = None
    logprobs: bool = False
    redraft: int = 0

    def __post_init__(self) -> None:
        _at_least(self, "max_new_tokens", 1, int)
        _at_least(self, "max_denoising_steps", 1, int)
        _at_least(self, "t_max", 0.0, float)
        _at_least(self, "t_min", 0.0, float)
        _at_least(self, "entropy_bound", 0.0, float)
        _at_least(self, "stability_threshold", 0, int)
        _at_least(self, "confidence_threshold", 0.0, float)
        if self.t_min > self.t_max:
            raise OptionError(f"t_min ({self.t_min}) must not exceed t_max ({self.t_max})")
        if self.temperature is not None:
            _at_least(self, "temperature", 0.0, float)
        if self.seed is not None and not (isinstance(self.seed, int) and 0 <= self.seed < 2**64):
            raise OptionError(f"seed must be an integer from 0 to 2**64 - 1, got {self.seed!r}")
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        if not all(isinstance(text, str) and text for text in self.stop):
            raise OptionError(f"stop must be a string or a list of non-empty strings, got {self.stop!r}")
        self._check_mode()
        self._refuse_what_is_not_built()

    def _check_mode(self) -> None:
        if self.mode == "verified":
            raise OptionError("mode='verified' is not available in this version of redraft")
        if self.mode not in ("diffusion", "autoregressive"):
            raise OptionError(f"mode must be 'diffusion' or 'autoregressive', got {self.mode!r}")
        _at_least(self, "top_p", 0.0, float)
        if not 0 < self.top_p <= 1:
            raise OptionError(f"top_p must be above 0 and at most 1, got {self.top_p!r}")
        if self.top_p != 1 and self.mode == "diffusion":
            raise OptionError(f"top_p={self.top_p!r} belongs to mode='autoregressive'; a canvas has no nucleus")

    def _refuse_what_is_not_built(self) -> None:
        for name in _NOT_BUILT:
            if getattr(self, name) != _DEFAULTS[name]:
                raise OptionError(f"{name}={getattr(self, name)!r} is not available in this version of redraft")

    def with_changes(self, **changes: Any) -> Self:
        """These options with some of them replaced.

        Raises:
            UnknownOptionError: a name that is no option.
            OptionError: a value that cannot work.
        """
        for name in changes:
            if name not in _DEFAULTS:
                close = difflib.get_close_matches(name, _DEFAULTS, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise UnknownOptionError(f"unknown generation option {name!r}{hint}")
        return dataclasses.replace(self, **changes)

    @property
    def schedule(self) -> tuple[float, float]:
        """(t_max, t_min) after `temperature` has scaled them."""
        scale = 1.0 if self.temperature is None else self.temperature
        return self.t_max * scale, self.t_min * scale


_DEFAULTS: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(GenerationOptions)}
_NOT_BUILT = ("preset", "initial_canvas", "pinned", "response_format", "logprobs", "redraft")


def usable_options() -> tuple[str, ...]:
    """The names of the generation options that this version acts on; the others are refused unless unset."""
    return tuple(name for name in _DEFAULTS if name not in _NOT_BUILT)


def _at_least(options: GenerationOptions, name: str, least: float, kind: type) -> None:
    value = getattr(options, name)
    wanted = "an integer" if kind is int else "a number"
    fits = isinstance(value, int) if kind is int else isinstance(value, int | float)
    if not fits or isinstance(value, bool) or not least <= value < float("inf"):
        raise OptionError(f"{name} must be {wanted} of at least {least}, got {value!r}")
