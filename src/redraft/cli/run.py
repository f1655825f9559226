"""`redraft run`: one prompt, one reply."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from redraft.cli.options import (
    Images,
    Json,
    Live,
    Model,
    Quiet,
    Videos,
    with_generation_options,
    with_loading_flags,
)
from redraft.cli.values import text_of
from redraft.core.errors import InputError


@with_generation_options
@with_loading_flags(vision=True)
def run(
    text: Annotated[
        str | None, typer.Argument(help='What to say to the model; "-" reads standard input.', metavar="TEXT")
    ] = None,
    image: Images = None,
    video: Videos = None,
    model: Model = "mini",
    loading: dict[str, Any] | None = None,
    live: Live = None,
    as_json: Json = False,
    quiet: Quiet = False,
    options: dict[str, Any] | None = None,
) -> None:
    """Answer one prompt, the canvas drawn live on a terminal."""
    from redraft.cli import show
    from redraft.cli.live import console_for_drawing, draw

    if live and as_json:
        raise InputError("--live and --json exclude each other: drop one of them")
    if text is None:
        raise InputError("no TEXT to answer: give one, or - to read standard input, as in: echo hi | redraft run -")
    prompt = show.read_text() if text == "-" else text_of(text, "TEXT")
    if image or video:
        # Before the text, as the model card advises.
        given = (("image", image), ("video", video))
        shown = [{"type": kind, kind: str(path)} for kind, paths in given for path in paths or ()]
        prompt = [{"role": "user", "content": [*shown, {"type": "text", "text": prompt}]}]
    changes = options or {}
    engine = show.load(model, loading or {})
    if engine.info.sees and not quiet:
        show.note_animations(image or ())
    if as_json:
        generation = engine.generate(prompt, **changes)
        show.print_json(generation.to_dict())
        show.raise_failure(generation)
        return
    if engine.info.has_tokenizer and not engine.info.has_chat_template:
        show.print_note("this model has no chat template: the text is encoded as it stands")
    console = console_for_drawing(live)
    if console is None:
        generation = engine.generate(prompt, **changes)
    else:
        max_steps = {**engine.info.defaults, **changes}.get("max_denoising_steps")
        generation = draw(console, engine, engine.stream(prompt, **changes), max_steps=max_steps)
    show.print_reply(generation)
    show.print_judgement(engine, generation, changes)
    if not quiet:
        show.print_note(show.summary(generation, changes, show.known_calls(engine, changes)))
