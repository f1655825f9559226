"""`redraft bench`: how fast, how near to what the machine can do, and how that compares."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from redraft.cli.options import Adapter, Json, Memory, Threads
from redraft.core.errors import InputError

Dtype = Annotated[str, typer.Option(help='"auto", "float32", "bfloat16", "int8" or "int4".', metavar="NAME")]


def bench(
    model: Annotated[
        str | None, typer.Option(help='"mini" (the default), a directory, a GGUF file or a Hub id.', metavar="NAME")
    ] = None,
    shape: Annotated[str | None, typer.Option(help='Random weights: "tiny", "mid" or "full".', metavar="NAME")] = None,
    layers: Annotated[int | None, typer.Option(help="Layers of the shape, to make it fit.", min=1, metavar="N")] = None,
    steps: Annotated[
        int | None, typer.Option(help="Fixed work: so many denoising steps, no early stop.", min=1, metavar="N")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="The prompt; unset, random token ids.", metavar="TEXT")] = None,
    prompt_tokens: Annotated[
        int | None, typer.Option(help="How many random ids; unset, 128.", min=1, metavar="N")
    ] = None,
    dtype: Dtype = "auto",
    against: Annotated[str | None, typer.Option(help='Measure "transformers" beside redraft.', metavar="NAME")] = None,
    settings: Annotated[
        str | None,
        typer.Option(
            help='Of transformers: "default", or "all" (unset) to try its other experts and its compiled step.',
            metavar="NAME",
        ),
    ] = None,
    repetitions: Annotated[int, typer.Option(help="Measured generations of each.", min=1, metavar="N")] = 3,
    threads: Threads = None,
    memory: Memory = None,
    adapter: Adapter = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the step by part and the roofline into this file.", metavar="FILE.png")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure speed and memory against what the machine can do."""
    from redraft.bench.command import bench as run_bench
    from redraft.bench.report import machine_lines, subjects_table, told_lines
    from redraft.cli import show

    if against not in (None, "transformers"):
        raise InputError(f"--against {against!r}: only 'transformers' is known")
    if settings not in (None, "default", "all"):
        raise InputError(f"--settings {settings!r}: 'default' or 'all'")
    if settings is not None and against is None:
        raise InputError("--settings are those of transformers: add --against transformers, or leave it out")
    if prompt_tokens is not None and prompt is not None:
        raise InputError("--prompt-tokens counts random ids, and --prompt gives others: drop one of them")
    with show.stages("bench") as on_progress:
        report = run_bench(
            model=model,
            shape=shape,
            layers=layers,
            steps=steps,
            prompt=prompt,
            prompt_tokens=prompt_tokens or 128,
            dtype=dtype,
            against=against,
            settings=settings or "all",
            repetitions=repetitions,
            threads=threads,
            memory_gb=memory,
            adapter=adapter,
            on_progress=on_progress,
        )
    if plot is not None:
        from redraft.bench.plot import plot_report

        plot_report(report, plot)
    if as_json:
        show.print_json(report)
        return
    for line in machine_lines(report):
        print(line)
    show.print_rich(subjects_table(report))
    for line in told_lines(report):
        print(line)
    for what, name in (("a step", "ratio"), ("a request", "request_ratio")):
        shown = [f"{kind} {ratio:.2f}" for kind, ratio in report[name].items() if ratio is not None]
        if shown:
            print(f"{what}, times as fast as transformers' default settings: " + ", ".join(shown))
