"""`redraft plan`: what fits where and how fast it can be at best, before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from redraft.cli.options import Json


def plan(
    model: Annotated[
        str | None, typer.Option(help='"mini", a directory, a GGUF file or a Hub id.', metavar="NAME")
    ] = None,
    shape: Annotated[
        str | None, typer.Option(help='"tiny", "mid" or "full" (the released model, the default).', metavar="NAME")
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(help='Of the catalogue, such as "h100"; repeat it for several; unset, all.', metavar="NAME"),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(help="Cached tokens of each sequence; unset, 8192 or the model's most.", min=1, metavar="N"),
    ] = None,
    batch: Annotated[int, typer.Option(help="Sequences at a time.", min=1, metavar="N")] = 1,
    memory: Annotated[
        float | None, typer.Option(help="Use no more than so many GB (10^9 bytes) of any device.", metavar="GB")
    ] = None,
    disk: Annotated[
        float, typer.Option(help="GB/s at which experts are read that no memory holds.", metavar="GB/s")
    ] = 3.0,
    quick: Annotated[
        bool, typer.Option("--quick", help="Do not measure this machine: only what fits, not how fast.")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw every device into this file.", metavar="FILE.png")] = None,
    as_json: Json = False,
) -> None:
    """Say what fits where, and how fast it can be; loads nothing."""
    from redraft.bench.plan import plan as make_plan
    from redraft.bench.plan_tables import (
        CAPTION,
        catalogue_table,
        forms_table,
        kernels_table,
        machine_lines,
        model_line,
        reported_lines,
        source_lines,
    )
    from redraft.cli import show
    from redraft.core.errors import InputError

    if memory is not None and memory <= 0:
        raise InputError(f"--memory {memory}: must be above 0")
    if disk <= 0:
        raise InputError(f"--disk {disk}: must be above 0")
    with show.status("counting" if quick else "measuring this machine"):
        document = make_plan(
            model=model,
            shape=shape,
            devices=device or [],
            context=context,
            batch=batch,
            memory_bytes=None if memory is None else int(memory * 1e9),
            disk_bytes_per_s=disk * 1e9,
            measure=not quick,
        )
    if plot is not None:
        from redraft.bench.plan_plot import plot_plan

        plot_plan(document, plot)
    if as_json:
        show.print_json(document)
        return
    here = [entry for entry in document["devices"] if entry["kernels"]]
    others = [entry for entry in document["devices"] if entry not in here]
    print(model_line(document))
    print(CAPTION)
    for entry in here:
        print("\n" + "\n".join(machine_lines(entry, document)))
        show.print_rich(forms_table(entry))
        print("\nwhat runs there:")
        show.print_rich(kernels_table(entry))
    if others:
        print("\nother devices, each in the form that is fastest there:")
        show.print_rich(catalogue_table(others))
    for line in reported_lines([*here, *others]):
        print(line)
    print("\nsources (--json has what exactly was checked):")
    for line in source_lines([*here, *others]):
        print(line)
