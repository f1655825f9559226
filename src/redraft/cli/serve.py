"""`redraft serve`: OpenAI's API and a page, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from redraft.cli.command import DOORS, LIMITS, SERVED
from redraft.cli.options import Model, option, with_loading_flags


@with_loading_flags(workers=True, adapter=False, vision=True)
def serve(
    model: Model = "mini",
    host: Annotated[str, option("Where to listen.", panel=DOORS, metavar="ADDRESS")] = "127.0.0.1",
    port: Annotated[
        int, option("Where to listen; 0 takes a free one.", panel=DOORS, min=0, max=65535, metavar="N")
    ] = 8000,
    api_key: Annotated[
        str | None,
        option(
            "What clients must bring; REDRAFT_API_KEY hides it from this machine's other users. Unset, one is "
            "made and printed.",
            panel=DOORS,
            metavar="KEY",
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        option(
            "A file with the key; made with a new one if it is not there, for each start.",
            panel=DOORS,
            metavar="FILE",
        ),
    ] = None,
    no_auth: Annotated[bool, option("No key; only on 127.0.0.1.", "--no-auth", panel=DOORS)] = False,
    allow_host: Annotated[
        list[str] | None,
        option("A name that clients may call this server by.", panel=DOORS, metavar="NAME"),
    ] = None,
    allow_origin: Annotated[
        list[str] | None, option("An origin whose pages may ask.", panel=DOORS, metavar="ORIGIN")
    ] = None,
    served_name: Annotated[str | None, option("The model's name for clients.", panel=SERVED, metavar="NAME")] = None,
    adapter: Annotated[
        list[str] | None,
        option(
            "An adapter of this model, ours or peft's, under a name of yours, for requests that ask for that as their "
            "model; repeat it for several.",
            panel=SERVED,
            metavar="NAME=DIR",
        ),
    ] = None,
    allow_adapters: Annotated[
        Path | None,
        option(
            "A directory of adapters that clients may load and unload as it runs.",
            panel=SERVED,
            metavar="DIR",
        ),
    ] = None,
    max_running: Annotated[int, option("Replies that are denoised together.", panel=LIMITS, min=1, metavar="N")] = 16,
    max_waiting: Annotated[int, option("Replies that may wait for a place.", panel=LIMITS, min=1, metavar="N")] = 128,
    request_memory: Annotated[
        float | None,
        option(
            "For keys and values of running requests; unset, what is free beside the model.",
            panel=LIMITS,
            min=0.001,
            metavar="GB",
        ),
    ] = None,
    max_images: Annotated[int, option("Pictures in a request.", panel=LIMITS, min=0, metavar="N")] = 16,
    max_videos: Annotated[int, option("Videos in a request.", panel=LIMITS, min=0, metavar="N")] = 1,
    timeout: Annotated[float, option("Seconds that a request may take.", panel=LIMITS, min=0.1, metavar="S")] = 600,
    drain: Annotated[float, option("Seconds for running requests at the end.", panel=LIMITS, min=0, metavar="S")] = 30,
    prefix_cache: Annotated[
        int,
        option("MiB that the prompts of earlier turns may keep.", panel=LIMITS, min=0, metavar="MIB"),
    ] = 512,
    known_tools: Annotated[
        bool,
        option(
            "Answer requests without tools with calls that the model knows by heart.",
            "--known-tools",
            panel=SERVED,
        ),
    ] = False,
    log_prompts: Annotated[
        Path | None,
        option(
            "Write requests and replies to this file, for your eyes only.",
            panel=SERVED,
            metavar="FILE.jsonl",
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        option(
            "What `redraft decide calibrate` wrote, for typed questions. A request with other options than it was "
            "found with gets answers that say they are not calibrated.",
            panel=SERVED,
            metavar="CAL.json",
        ),
    ] = None,
    loading: dict[str, Any] | None = None,
) -> None:
    """Serve a model over HTTP, to OpenAI's clients and to a page."""
    import os

    from redraft.cli import show
    from redraft.cli.values import named_adapters
    from redraft.core.errors import OptionError
    from redraft.server.keys import find_key
    from redraft.server.run import run
    from redraft.server.settings import Settings

    if no_auth and (api_key is not None or api_key_file is not None):
        raise OptionError("--no-auth and a key exclude each other: drop one of them")
    known_calibration = None
    if calibration is not None:
        from redraft.decide.calibration_file import read

        known_calibration = read(calibration)
    name = served_name or Path(model).resolve().name
    adapters = named_adapters(adapter or (), name)
    if allow_adapters is not None and not allow_adapters.is_dir():
        raise OptionError(f"--allow-adapters: {allow_adapters} is no directory")
    key, is_new = find_key(api_key, api_key_file, os.environ)
    settings = Settings(
        host=host,
        port=port,
        api_key=None if no_auth else key,
        print_key=is_new,
        model=name,
        allowed_hosts=tuple(allow_host or ()),
        allowed_origins=tuple(allow_origin or ()),
        max_running=max_running,
        max_waiting=max_waiting,
        max_images=max_images,
        max_videos=max_videos,
        request_bytes=None if request_memory is None else int(request_memory * 1e9),
        request_timeout_s=timeout,
        drain_s=drain,
        known_tools=known_tools,
        log_prompts=log_prompts,
        allowed_adapters=allow_adapters,
        calibration=known_calibration,
    )
    engine = show.load(model, loading or {}, prefix_cache_mb=prefix_cache, adapters=adapters)
    if known_calibration is not None:
        from redraft.decide.calibration import check_model, identity_of

        check_model(known_calibration, identity_of(engine.info))
    known = len(engine.info.defaults.get("tools") or ())
    by_heart = [each for each, one in engine.adapters.items() if one.info.defaults.get("tools")]
    if known_tools and not (known or by_heart):
        raise OptionError("--known-tools: this model knows no calls by heart")
    if known and not known_tools:
        show.print_note(
            f"{known} calls are known by heart: --known-tools lets requests without tools be answered with them"
        )
    if adapters:
        show.print_note(f"beside it: {', '.join(adapters)}")
    run(engine, settings, announce=show.print_note)
