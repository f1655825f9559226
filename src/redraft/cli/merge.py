"""`redraft merge`: a base with an adapter added to its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from redraft.cli.options import Json


def merge(
    adapter: Annotated[Path, typer.Argument(help="A directory with an adapter, ours or peft's.", metavar="ADAPTER")],
    base: Annotated[str, typer.Option(help='What it was made for: "mini", a directory or a Hub id.', metavar="NAME")],
    out: Annotated[Path, typer.Option(help="Made if missing; a run that was cut off goes on.", metavar="DIR")],
    as_json: Json = False,
) -> None:
    """Write a checkpoint with an adapter added to its weights.

    The base is bfloat16 or float32. A small change of a quantised weight would be rounded away: quantise the result.
    """
    from redraft.adapters.merge import merge as merged
    from redraft.checkpoint.locate import locate
    from redraft.cli import show

    with show.stages("merge") as on_progress:
        found = merged(adapter, locate(base), out, on_progress=on_progress)
    written, kept = found.written.files
    if as_json:
        show.print_json(
            {
                "directory": str(out),
                "bytes": found.written.nbytes,
                "files": {"written": written, "kept": kept},
                "sha256": found.written.checksum,
                "changed": found.changed,
            }
        )
        return
    print(f"{out}: {found.written.nbytes / 1e6:.1f} MB in {written + kept} files, sha256 {found.written.checksum}")
    if found.changed:
        largest = max(found.changed.values())
        print(
            f"{len(found.changed)} tensors changed, in the median by {found.median_change:.1%} of their size, "
            f"at most by {largest:.1%}"
        )
