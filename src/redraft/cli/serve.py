"""`redraft serve`: OpenAI's API and a page, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from redraft.cli.options import Model, with_loading_flags


@with_loading_flags(workers=True)
def serve(
    model: Model = "mini",
    host: Annotated[str, typer.Option(help="Where to listen.", metavar="ADDRESS")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Where to listen; 0 takes a free one.", min=0, max=65535)] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            help="What clients must bring; REDRAFT_API_KEY hides it from this machine's other users. Unset, one is "
            "made and printed.",
            metavar="KEY",
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            help="A file with the key; made with a new one if it is not there, for each start.", metavar="FILE"
        ),
    ] = None,
    no_auth: Annotated[bool, typer.Option("--no-auth", help="No key; only on 127.0.0.1.")] = False,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A name that clients may call this server by.", metavar="NAME")
    ] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="An origin whose pages may ask.", metavar="ORIGIN")
    ] = None,
    served_name: Annotated[str | None, typer.Option(help="The model's name for clients.", metavar="NAME")] = None,
    max_running: Annotated[int, typer.Option(help="Replies that are denoised together.", min=1)] = 16,
    max_waiting: Annotated[int, typer.Option(help="Replies that may wait for a place.", min=1)] = 128,
    request_memory: Annotated[
        float | None,
        typer.Option(
            help="For keys and values of running requests; unset, what is free beside the model.",
            min=0.001,
            metavar="GB",
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that a request may take.", min=0.1)] = 600,
    drain: Annotated[float, typer.Option(help="Seconds that running requests get at the end.", min=0)] = 30,
    prefix_cache: Annotated[
        int, typer.Option(help="MiB that the prompts of earlier turns may keep.", min=0, metavar="MIB")
    ] = 512,
    known_tools: Annotated[
        bool,
        typer.Option("--known-tools", help="Answer requests without tools with calls that the model knows by heart."),
    ] = False,
    log_prompts: Annotated[
        Path | None,
        typer.Option(help="Write requests and replies to this file, for your eyes only.", metavar="FILE.jsonl"),
    ] = None,
    loading: dict[str, Any] | None = None,
) -> None:
    """Serve a model over HTTP, to OpenAI's clients and to a page."""
    import os

    from redraft.cli import show
    from redraft.core.errors import OptionError
    from redraft.server.keys import find_key
    from redraft.server.run import run
    from redraft.server.settings import Settings

    if no_auth and (api_key is not None or api_key_file is not None):
        raise OptionError("--no-auth and a key exclude each other: drop one of them")
    key, is_new = find_key(api_key, api_key_file, os.environ)
    settings = Settings(
        host=host,
        port=port,
        api_key=None if no_auth else key,
        print_key=is_new,
        model=served_name or Path(model).resolve().name,
        allowed_hosts=tuple(allow_host or ()),
        allowed_origins=tuple(allow_origin or ()),
        max_running=max_running,
        max_waiting=max_waiting,
        request_bytes=None if request_memory is None else int(request_memory * 1e9),
        request_timeout_s=timeout,
        drain_s=drain,
        known_tools=known_tools,
        log_prompts=log_prompts,
    )
    engine = show.load(model, loading or {}, prefix_cache_mb=prefix_cache)
    known = len(engine.info.defaults.get("tools") or ())
    if known_tools and not known:
        raise OptionError("--known-tools: this model knows no calls by heart")
    if known and not known_tools:
        show.print_note(
            f"{known} calls are known by heart: --known-tools lets requests without tools be answered with them"
        )
    run(engine, settings, announce=show.print_note)
