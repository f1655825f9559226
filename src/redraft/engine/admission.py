"""From a prompt and options to a request in flight: what can be wrong with them is found here, before anything runs."""

from __future__ import annotations

import copy
import secrets
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property, partial
from typing import Any

from redraft.core.checks import shown
from redraft.core.engine import Prompt
from redraft.core.errors import ContextLengthError, OptionError, PromptError
from redraft.core.options import EXACT_BITS, GenerationOptions
from redraft.core.presets import PRESETS
from redraft.engine.defaults import Defaults
from redraft.engine.fields import FieldWatch, watch_of
from redraft.engine.given import checked_ids
from redraft.engine.prompt_images import runs_of
from redraft.engine.prompts import Prompts
from redraft.engine.reply import Reply
from redraft.engine.sequence import Sequence
from redraft.engine.sight import Sight
from redraft.engine.steer import check_start
from redraft.engine.stops import Stops
from redraft.engine.variant import Variant
from redraft.model.cache import SequenceCache
from redraft.model.gemma4 import NO_CANVAS
from redraft.model.model import DiffusionGemma
from redraft.sampler.noise import as_int64
from redraft.text import response_format
from redraft.text.call_pattern import function_names
from redraft.text.chat import ChatTemplate
from redraft.text.constraint import Constraint, ConstraintFactory
from redraft.text.grammar.nodes import Node
from redraft.text.markers import CHANNEL_CLOSE, CHANNEL_OPEN, TURN_CLOSE, TURN_OPEN
from redraft.text.output import Reading
from redraft.text.tokenizer import Tokenizer


class Admission:
    """Makes the requests of one model.

    Attributes:
        variant: what they run on; None is the model alone.
    """

    def __init__(
        self,
        model: DiffusionGemma,
        tokenizer: Tokenizer | None,
        template: ChatTemplate | None,
        defaults: Defaults,
        max_context: int,
        sight: Sight,
    ) -> None:
        self.model, self.tokenizer, self.template = model, tokenizer, template
        self.defaults, self.max_context = defaults, max_context
        self.variant: Variant | None = None
        self.prompts = Prompts(tokenizer, template, sight, defaults, model.config.vocab_size, max_context)
        canvas = model.config.canvas_length if model.config.has_canvas else 0
        self.stops = Stops.of_model(tokenizer, template, defaults.end_ids, canvas)

    def beside(self, variant: Variant, defaults: Defaults) -> Admission:
        """The same with other defaults, for what runs on a variant; what is compiled for one serves both."""
        other = copy.copy(self)
        if self.tokenizer is not None and self.defaults.end_ids:
            other.constraints = self.constraints
        other.defaults, other.variant = defaults, variant
        other.prompts = self.prompts.beside(defaults)
        return other

    def __call__(
        self,
        prompt: Prompt,
        options: GenerationOptions | None,
        changes: Mapping[str, Any],
        held_to: Node | None = None,
    ) -> Sequence:
        """A request, checked and laid out; its reply is held to a format, to tools, or to `held_to` alone.

        Raises:
            InputError: a prompt or an option that cannot work.
        """
        resolved = self.resolved(options, changes)
        if held_to is not None:
            resolved = resolved.with_changes(response_format=None, tools=None, tool_choice="auto")
        elif resolved.response_format is not None and response_format.is_any_text(resolved.response_format):
            # Which is what there is without.
            resolved = resolved.with_changes(response_format=None)
        if resolved.response_format is not None and resolved.tools is self.defaults.options.tools:
            # Who asks for a format wants no call that nobody has declared.
            resolved = resolved.with_changes(tools=None)
        if resolved.stop and self.tokenizer is None:
            raise PromptError("stop strings need a tokenizer, and this model's directory has none")
        ids, images = self.prompts.laid_out(prompt, resolved)
        thinking = not resolved.skip_special_tokens and self._opens_thought(ids)
        length = self._canvas_length(resolved)
        room = self.max_context - len(ids)
        if room < length:
            tokens = sum(image.tokens for image in images)
            raise ContextLengthError(len(ids), self.max_context, image_tokens=tokens)
        # Canvases are whole in the cache, so the last of them must fit as one; drafts are as short as what is left.
        whole = 1 if resolved.mode == "verified" else length
        budget = min(resolved.max_new_tokens, room // whole * whole)
        seed = secrets.randbits(EXACT_BITS) if resolved.seed is None else resolved.seed
        resolved = resolved.with_changes(seed=seed)
        formatted = held_to is not None or resolved.response_format is not None
        if held_to is None:
            constraint, *instead = self._constraints_of(resolved, thinking)
        else:
            constraint, instead = self.constraints.held_to(held_to, resolved, thinking=thinking), []
        sequence = Sequence(
            prompt=ids,
            options=resolved,
            seed=as_int64(seed),
            cache=SequenceCache(self.model.config, self.model.dtype, self.model.device),
            pending=ids,
            images=images,
            stops=self.stops(ids, runs_of(images, len(ids))),
            reply=self._reply(resolved, budget, thinking, formatted=formatted, bare_calls=constraint is None),
            budget=budget,
            canvas_length=length,
            positions=self.max_context,
            variant=self.variant,
            constraint=constraint,
            constraint_state=0 if constraint is None else constraint.automaton.start,
            strict=formatted or resolved.tool_choice not in ("auto", "none"),
            wanted_calls=called_names(resolved),
            instead=tuple(found for found in instead if found is not None),
            fields=self._fields(resolved, thinking) if resolved.probabilities else None,
        )
        sequence.cache.adapter = 0 if self.variant is None else self.variant.place
        self._lay_out(sequence)
        check_start(sequence)
        return sequence

    def resolved(self, options: GenerationOptions | None, changes: Mapping[str, Any]) -> GenerationOptions:
        """The engine's defaults, with what was set of `options`, and with `changes`.

        Raises:
            OptionError: a value that cannot work.
        """
        if options is not None:
            if not isinstance(options, GenerationOptions):
                hint = ": write them by name, as in generate(prompt, **options)" * isinstance(options, Mapping)
                raise OptionError(f"options must be GenerationOptions, got {shown(options)}{hint}")
            changes = {**options.given, **changes}
        if not self.model.config.has_canvas:
            _refuse_canvas(self.defaults.options, changes)
        resolved = self.defaults.options.with_changes(**changes)
        if resolved.mode == "verified" and "max_denoising_steps" not in changes:
            # What a second step adds to a draft, the next draft adds too, and that one is verified.
            resolved = resolved.with_changes(max_denoising_steps=1)
        return resolved

    def _reply(
        self, options: GenerationOptions, budget: int, thinking: bool, *, formatted: bool, bare_calls: bool
    ) -> Reply:
        """What the reply gathers in, and how it is read."""
        text_alone = formatted and not _has_parts(options, thinking)
        reading = Reading(plain=text_alone or options.skip_special_tokens, bare_calls=bare_calls, thinking=thinking)
        return Reply(
            self.tokenizer,
            self.defaults.end_ids,
            budget,
            options.stop,
            reading,
            skip_special_tokens=options.skip_special_tokens,
        )

    def _canvas_length(self, options: GenerationOptions) -> int:
        """Positions of each forward that writes: one in the causal mode."""
        longest = self.model.config.canvas_length
        if options.canvas_length is not None and options.canvas_length > longest:
            raise OptionError(f"canvas_length must be at most this model's {longest}, got {options.canvas_length}")
        return 1 if options.mode == "autoregressive" else options.canvas_length or longest

    def _constraints_of(self, options: GenerationOptions, thinking: bool) -> list[Constraint | None]:
        """What the reply is held to, and what it is held to once it would make a call where none is wanted."""
        steered = options.response_format is not None or options.tools or options.tool_choice != "auto"
        if steered and self.tokenizer is None:
            raise OptionError("response_format and tools need a tokenizer, and this model's directory has none")
        if not steered:
            return [None]
        made = partial(self.constraints.of, thinking=thinking)
        told, known = self.defaults.otherwise, self.defaults.options.tools
        # Where it may make its own calls, in canvases that hold them, it does.
        cramped = options.canvas_length is not None
        own = made(options, spells_calls=bool(known) and (cramped or options.tools is not known))
        declared = called_names(options)
        free = options.response_format is None and options.tool_choice in ("auto", "none")
        if not free or told is None or (options.tools is known and options.tool_choice == "auto"):
            return [own]
        if declared and options.mode != "diffusion":
            # There a call's name is known only when the call has begun.
            return [own]
        # What calls a model knows by heart, it would spell in pieces where it may not make them whole.
        more = [
            tool for tool, name in zip(known or (), function_names(known or ()), strict=True) if name not in declared
        ]
        tools = [*(options.tools or () if declared else ()), *more]
        instead = options.with_changes(response_format={"type": "choice", "choices": [told]})
        union = options.with_changes(tools=tools, tool_choice="auto")
        return [made(union, spells_calls=cramped), made(instead), own]

    def _fields(self, options: GenerationOptions, thinking: bool) -> FieldWatch:
        """What watches the fields of a reply that is one JSON value."""
        if options.response_format is not None and _has_parts(options, thinking):
            raise OptionError("probabilities belong to a reply that is its JSON alone: without tools and thoughts")
        return watch_of(self.constraints, options.response_format)

    def _opens_thought(self, ids: list[int]) -> bool:
        """Whether a prompt ends inside a thought."""
        if self.tokenizer is None:
            return False
        opening = self.tokenizer.id_of(CHANNEL_OPEN)
        bounds = {self.tokenizer.id_of(token) for token in (CHANNEL_CLOSE, TURN_OPEN, TURN_CLOSE)} | {opening}
        return opening is not None and next((i for i in reversed(ids) if i in bounds), None) == opening

    @cached_property
    def constraints(self) -> ConstraintFactory:
        """Makes automata of what replies must match."""
        assert self.tokenizer is not None
        config, ends = self.model.config, self.defaults.end_ids
        fill = next((token for token in config.eos_token_ids if token in ends), min(ends))
        return ConstraintFactory(self.tokenizer, ends, config.pad_token_id, fill, config.vocab_size)

    def _lay_out(self, sequence: Sequence) -> None:
        """Lays the initial canvas and what is pinned of it over the reply's positions."""
        draft = sequence.options.initial_canvas
        if draft is None:
            return
        ids = (
            self.prompts.encoded(draft) if isinstance(draft, str) else checked_ids(draft, self.model.config.vocab_size)
        )
        pinned = sequence.options.pinned
        if pinned and pinned[-1] >= sequence.budget:
            raise OptionError(f"pinned position {pinned[-1]} lies beyond the {sequence.budget} tokens of the reply")
        held = set(pinned)
        sequence.initial = ids
        sequence.pinned = [token if place in held else -1 for place, token in enumerate(ids)]


def called_names(options: GenerationOptions) -> frozenset[str]:
    """Names of the functions that a reply may call."""
    if not options.tools or options.tool_choice == "none":
        return frozenset()
    return frozenset(function_names(options.tools))


def _has_parts(options: GenerationOptions, thinking: bool) -> bool:
    """Whether a reply that must match may be something else as well: a call, or a thought before it."""
    calls = bool(options.tools) and options.tool_choice != "none"
    return calls or options.enable_thinking or thinking


def _refuse_canvas(options: GenerationOptions, changes: Mapping[str, Any]) -> None:
    """Raises on what needs the canvas mode, before the options' own checks point to it as the way out."""
    wanted = {**asdict(options), **PRESETS.get(str(changes.get("preset")), {}), **changes}
    if wanted["mode"] in ("diffusion", "verified"):
        raise OptionError(NO_CANVAS)
    for name in ("initial_canvas", "redraft"):
        if wanted[name]:
            raise OptionError(f"{name} needs the canvas mode; {NO_CANVAS} without {name}")
