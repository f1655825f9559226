"""What a caller can ask of a generation: one frozen dataclass, in the reference's own names."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, Unpack

from redraft.core.changes import GenerationChanges, ImageAttention, Mode, Sampler, SamplerName
from redraft.core.checks import at_least, declarations, flag, integer, integers, one_of_integers, shown, texts
from redraft.core.errors import OptionError, UnknownOptionError
from redraft.core.option_bounds import IMAGE_TOKENS, LEAST, MOST, OF_CANVASES
from redraft.core.presets import PRESETS

# Integers of more bits are no longer exact to many readers of JSON, browsers among them.
EXACT_BITS = 53


def exact(number: int) -> int | str:
    """An integer as JSON carries it exactly to every reader: as text where it is too large for some."""
    return number if abs(number) < 2**EXACT_BITS else str(number)


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """Options of one generation. Unset ones come from the checkpoint's `generation_config.json`.

    Attributes:
        max_new_tokens: exact upper bound of generated tokens; the last canvas is cut.
        max_denoising_steps: N, the most denoising steps of one canvas; also the length of the schedule. A draft that is
            verified takes 1 where nobody says otherwise.
        t_max: temperature of the schedule's start. `t_max = t_min = 0` is the limit: argmax everywhere.
        t_min: temperature that the schedule approaches at its end.
        sampler: which tokens the next step keeps: "entropy-bound" chooses them anew each time, "confidence" keeps them
            for good, and a canvas is done once all are. In Python, also a `Sampler` of your own; it runs operator by
            operator.
        entropy_bound: nats; tokens are accepted in ascending entropy while the sum before them is within it.
        threshold: probability from which on sampler="confidence" keeps a token.
        floor: positions that are kept at each step however unsure they are, the surest of those that are left.
        stability_threshold: steps for which the argmax canvas must not have changed before a stop.
        confidence_threshold: nats; the mean entropy of a canvas must be below it for a stop. This and
            `stability_threshold`, given by themselves, are the reference's rule, and turn off `settled_nats`,
            `settled_steps` and `handover_steps`.
        settled_nats: nats left in the whole text of a canvas, below which one that stands is done, too; 0 for never.
        settled_steps: steps after which a text that has not changed is done, however unsure; in the last third of the
            schedule one is enough. 0 for never.
        handover_steps: steps after which a canvas that is not done is handed over: the causal mode keeps what it would
            have written of it, and writes the rest of the reply, as "verified" does, at `t_min`. 0 for never.
        seed: same seed, same text; None draws a fresh one, which the result reports.
        mode: "diffusion" denoises canvases; "autoregressive" writes token by token with the same weights; "verified"
            drafts by canvases and writes what the causal mode writes, token for token, in fewer forwards.
        temperature: scales t_max and t_min; 0 is greedy, and scales nothing where a sampler needs probabilities. None
            leaves the schedule as it is. In the other modes it is the causal mode's temperature itself, and None is 1.
        top_p: nucleus bound of the causal mode.
        preset: a named set of options, which others given beside it override: see `redraft presets`.
        initial_canvas: a draft to start from instead of noise, as text or token ids, from the reply's first token on.
        pinned: positions of `initial_canvas` that never change.
        stop: strings that end the reply; the reply ends before the first of them.
        enable_thinking: asks the chat template for a thought before the answer.
        tools: OpenAI-style tool declarations, handed to the chat template; calls are held to them. Unset, those that a
            model knows by heart.
        tool_choice: "auto", "none", "required" or the name of a tool.
        parallel_tool_calls: whether a reply may make several calls.
        response_format: a JSON schema, regex or choice list that the reply must match.
        probabilities: whether the fields of a JSON schema come with the probabilities of their values, beside the text.
        logprobs: whether the causal mode's log-probabilities are wanted; they cost one encode a canvas.
        redraft: most rounds in which doubted tokens of a canvas are drafted again.
        canvas_length: positions of a canvas, at most the checkpoint's; None is the checkpoint's. Short replies in short
            canvases cost less.
        adaptive_canvas: whether what lies behind a settled end-of-turn leaves the canvas.
        freeze_nats: positions whose likeliest token stands in the canvas with less than so many nats left are no longer
            computed: an approximation, for machines on which a position costs. 0 for never.
        plateau_steps: steps without progress after which a canvas that does not settle is given up, and the best it
            has seen is committed; 0 lets it use all its steps.
        retry_empty: whether a reply that would be empty is drafted once more, with end-of-turn barred where it stood.
        skip_special_tokens: whether the reply is plain text: without its markers, and nothing in it is a call or a
            thought.
        image_tokens: most tokens that a picture may become: 70, 140, 280, 560 or 1120. None is the checkpoint's, mostly
            280. Small print needs many; a picture is brought to the size that fills them.
        image_attention: who sees whom inside a picture: "google" as the weights were trained, "gemma4", "generate" as
            transformers' generate has it, "causal" as its forward.
    """

    max_new_tokens: int = 256
    max_denoising_steps: int = 48
    t_max: float = 0.8
    t_min: float = 0.4
    sampler: Sampler = "entropy-bound"
    entropy_bound: float = 0.1
    threshold: float = 0.95
    floor: int = 1
    stability_threshold: int = 1
    confidence_threshold: float = 0.005
    settled_nats: float = 1.0
    settled_steps: int = 16
    handover_steps: int = 0
    seed: int | None = None
    mode: Mode = "diffusion"
    temperature: float | None = None
    top_p: float = 1.0
    preset: str | None = None
    initial_canvas: Sequence[int] | str | None = None
    pinned: Sequence[int] = ()
    stop: Sequence[str] = ()
    enable_thinking: bool = False
    tools: Sequence[Mapping[str, Any]] | None = None
    tool_choice: str = "auto"
    parallel_tool_calls: bool = True
    response_format: Mapping[str, Any] | None = None
    probabilities: bool = False
    logprobs: bool = False
    redraft: int = 0
    canvas_length: int | None = None
    adaptive_canvas: bool = False
    freeze_nats: float = 0.0
    plateau_steps: int = 0
    retry_empty: bool = True
    skip_special_tokens: bool = False
    image_tokens: int | None = None
    image_attention: ImageAttention = "google"

    # Type checkers read the signature of `__init__`, which this leaves as it is.
    if not TYPE_CHECKING:

        def __new__(cls, **given: Any) -> Self:
            options = super().__new__(cls)
            vars(options)["_given"] = frozenset(given)
            return options

    def __post_init__(self) -> None:
        if self.preset is not None and (not isinstance(self.preset, str) or self.preset not in PRESETS):
            raise OptionError(f"preset must be one of {', '.join(PRESETS)}, got {shown(self.preset)}")
        for name, value in PRESETS.get(self.preset or "", {}).items():
            if getattr(self, name) == _DEFAULTS[name]:
                object.__setattr__(self, name, value)
        for name, (least, kind) in LEAST.items():
            value = getattr(self, name)
            if value is not None or _DEFAULTS[name] is not None:
                object.__setattr__(self, name, at_least(name, value, least, kind))
        for name, most in MOST.items():
            if getattr(self, name) > most:
                raise OptionError(f"{name} must be at most {most}, got {shown(getattr(self, name))}")
        for name in _FLAGS:
            flag(name, getattr(self, name))
        if self.t_min > self.t_max:
            raise OptionError(f"t_min ({self.t_min}) must not exceed t_max ({self.t_max})")
        if self.seed is not None:
            seed = integer(self.seed)
            if seed is None or not 0 <= seed < 2**64:
                raise OptionError(f"seed must be an integer from 0 to 2**64 - 1, got {shown(self.seed)}")
            object.__setattr__(self, "seed", seed)
        object.__setattr__(self, "stop", texts("stop", self.stop))
        self._check_mode()
        self._check_steering()
        self._check_images()

    def _check_mode(self) -> None:
        if self.mode not in ("diffusion", "autoregressive", "verified"):
            raise OptionError(f"mode must be 'diffusion', 'autoregressive' or 'verified', got {shown(self.mode)}")
        names = typing.get_args(SamplerName)
        if not (callable(self.sampler) or (isinstance(self.sampler, str) and self.sampler in names)):
            wanted = " or ".join(map(repr, names))
            own = "" if isinstance(self.sampler, str) else ", or one of your own that can be called"
            raise OptionError(f"sampler must be {wanted}{own}, got {shown(self.sampler)}")
        if not 0 < self.top_p <= 1:
            raise OptionError(f"top_p must be above 0 and at most 1, got {self.top_p!r}")
        if self.top_p < _WIDE and self.mode == "diffusion":
            raise OptionError(
                f"top_p={self.top_p!r} belongs to mode='autoregressive'; a canvas has no nucleus, and ignores one from "
                f"{_WIDE} on"
            )

    def _check_steering(self) -> None:
        declarations("tools", self.tools)
        choice = self.tool_choice
        if not isinstance(choice, str) or not choice:
            raise OptionError(
                f"tool_choice must be 'auto', 'none', 'required' or a name, got {shown(self.tool_choice)}"
            )
        if choice not in ("auto", "none") and not self.tools:
            raise OptionError(f"tool_choice={choice!r} needs tools")
        if self.response_format is not None and not isinstance(self.response_format, Mapping):
            raise OptionError(f"response_format must be a mapping with a 'type', got {shown(self.response_format)}")
        self._check_canvas()
        for name in _OF_WHOLE_CANVASES:
            if getattr(self, name) and self.mode != "diffusion":
                raise OptionError(f"{name} belongs to mode='diffusion', not to {self.mode!r}")
            if getattr(self, name) and self.handover_steps:
                raise OptionError(f"{name} is of canvases, and with handover_steps a reply may end without")

    def _check_canvas(self) -> None:
        canvas, pinned = self.initial_canvas, integers("pinned", self.pinned)
        if pinned and (canvas is None or isinstance(canvas, str)):
            raise OptionError("pinned positions need an initial_canvas of token ids")
        if canvas is None:
            return
        if not isinstance(canvas, str):
            if isinstance(canvas, bytes) or not hasattr(canvas, "__iter__"):
                raise OptionError(f"initial_canvas must be text or a list of token ids, got {shown(canvas)}")
            canvas = integers("initial_canvas", canvas)
            if any(not 0 <= place < len(canvas) for place in pinned):
                raise OptionError(f"pinned must be positions of initial_canvas, 0 to {len(canvas) - 1}")
            object.__setattr__(self, "initial_canvas", canvas)
            object.__setattr__(self, "pinned", tuple(sorted(set(pinned))))
        if self.mode != "diffusion":
            raise OptionError(f"initial_canvas belongs to mode='diffusion', not to {self.mode!r}")

    def _check_images(self) -> None:
        known = typing.get_args(ImageAttention)
        if self.image_attention not in known:
            raise OptionError(f"image_attention must be one of {', '.join(known)}, got {shown(self.image_attention)}")
        if self.image_tokens is not None:
            object.__setattr__(self, "image_tokens", one_of_integers("image_tokens", self.image_tokens, IMAGE_TOKENS))

    def with_changes(self, **changes: Unpack[GenerationChanges]) -> Self:
        """These options with some of them replaced.

        Raises:
            UnknownOptionError: a name that is no option.
            OptionError: a value that cannot work.
        """
        return self._changed(dict(changes))

    def _changed(self, changes: dict[str, Any]) -> Self:
        for name in changes:
            if name not in _DEFAULTS:
                close = difflib.get_close_matches(name, _DEFAULTS, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise UnknownOptionError(f"unknown generation option {name!r}{hint}")
        for name in OF_CANVASES if changes.get("mode", self.mode) == "autoregressive" else ():
            # To say that there is none of it is no mistake.
            if changes.get(name) is not None and changes[name] not in (getattr(self, name), _DEFAULTS[name]):
                raise OptionError(f"{name} belongs to canvases; mode='autoregressive' has none")
        preset = changes.get("preset")
        if preset not in (None, "default", "reference") and changes.get("mode") == "autoregressive":
            raise OptionError(f"preset={preset!r} is of canvases; mode='autoregressive' has none")
        if isinstance(preset, str) and preset in PRESETS:
            # Its options are filled in here, where those given beside it are still known as given.
            changes = {**PRESETS[preset], **changes, "preset": None}
        by_text = any(changes.get(name) for name in ("settled_nats", "settled_steps"))
        if not by_text and any(changes.get(name) is not None for name in _BY_REFERENCE):
            changes = {**_NOT_BY_TEXT, **changes}
        if any(changes.get(name) for name in _OF_WHOLE_CANVASES):
            # A model's own habit is no wish.
            changes = {"handover_steps": 0, **changes}
        changed = dataclasses.replace(self, **changes)
        vars(changed)["_given"] = vars(self)["_given"] | changes.keys()
        return changed

    @property
    def given(self) -> dict[str, Any]:
        """Names and values of the options that were set, be it to what they are anyway."""
        return {name: getattr(self, name) for name in _DEFAULTS if name in vars(self)["_given"]}

    @property
    def ignored(self) -> tuple[str, ...]:
        """Names of options that were given and have no effect."""
        idle = {
            "top_p": self.mode == "diffusion",
            "threshold": self.sampler != "confidence",
        }
        return tuple(name for name, is_idle in idle.items() if is_idle and getattr(self, name) != _DEFAULTS[name])

    @property
    def schedule(self) -> tuple[float, float]:
        """(t_max, t_min) after `temperature` has scaled them. A draft that is verified has the plain schedule:
        temperature is the causal mode's there, and 0 makes poor drafts. To a sampler that looks at probabilities, 0
        means the likeliest tokens: a schedule of 0 would make all of them certain."""
        scale = 1.0 if self.temperature is None or self.mode != "diffusion" else self.temperature
        if scale == 0 and self.sampler != "entropy-bound":
            scale = 1.0
        return self.t_max * scale, self.t_min * scale


# Of `top_p`: clients send such a one whether they mean it or not.
_WIDE = 0.9
# What no reply has whose canvas was handed over.
_OF_WHOLE_CANVASES = ("redraft", "probabilities")
# Who asks for the reference's rule, and for no other, gets that alone.
_BY_REFERENCE = ("stability_threshold", "confidence_threshold")
_NOT_BY_TEXT = {"settled_nats": 0.0, "settled_steps": 0, "handover_steps": 0}
_DEFAULTS: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(GenerationOptions)}
_FLAGS = tuple(name for name, value in _DEFAULTS.items() if isinstance(value, bool))
