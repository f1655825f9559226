"""Texts with holes, and spans that are written anew, as requests."""

from __future__ import annotations

from typing import Any

from redraft.core.engine import Prompt
from redraft.core.errors import OptionError, PromptError
from redraft.core.options import GenerationOptions
from redraft.engine.admission import Admission
from redraft.engine.given import check_text, checked_span
from redraft.engine.infill import holes_of, tree_of
from redraft.engine.running import PreparedRequest
from redraft.text.output import Reading


def infill(
    admission: Admission, text: str, prompt: Prompt | None, options: GenerationOptions | None, changes: dict[str, Any]
) -> PreparedRequest:
    """See `Engine.infill`."""
    check_text("text", text)
    pieces, lengths = holes_of(text)
    if prompt is None:
        prompt = "Fill in the gaps: " + "___".join(pieces)
    return _filled(admission, pieces, lengths, prompt, options, changes)


def edit(
    admission: Admission,
    text: str,
    span: tuple[int, int],
    instruction: str,
    options: GenerationOptions | None,
    changes: dict[str, Any],
) -> PreparedRequest:
    """See `Engine.edit`."""
    check_text("text", text)
    check_text("instruction", instruction)
    start, end = checked_span(text, span)
    prompt = f"{instruction}\n\n{text}"
    if text[:start] and admission.resolved(options, changes).mode == "diffusion":
        changes.setdefault("initial_canvas", text[:start])
    return _filled(admission, [text[:start], text[end:]], [None], prompt, options, changes)


def _filled(
    admission: Admission,
    pieces: list[str],
    lengths: list[int | None],
    prompt: Prompt,
    options: GenerationOptions | None,
    changes: dict[str, Any],
) -> PreparedRequest:
    if admission.tokenizer is None:
        raise PromptError("holes need a tokenizer, and this model's directory has none")
    given = {**(options.given if isinstance(options, GenerationOptions) else {}), **changes}
    for name in ("response_format", "tools"):
        if given.get(name):
            raise OptionError(f"{name}: a text with holes is held to what stands around them: leave it out")
    tree = tree_of(pieces, lengths, admission.constraints.marked)
    prepared = PreparedRequest(admission(prompt, options, changes, held_to=tree))
    prepared.sequence.pieces = pieces
    # What stands around the holes may be a call or a thought.
    prepared.sequence.reply.read_as(Reading(bare_calls=False))
    return prepared
