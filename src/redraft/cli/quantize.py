"""`redraft quantize` and `redraft export`: a checkpoint in another form."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from redraft.cli.options import Json

if TYPE_CHECKING:
    from redraft.checkpoint.convert import Converted

_Source = Annotated[str, typer.Argument(help='"mini", a directory, a GGUF file or a Hub id.', metavar="SRC")]
_Directory = Annotated[Path, typer.Argument(help="Made if missing; a run that was cut off goes on.", metavar="DST")]


def quantize(
    source: _Source,
    directory: _Directory,
    experts: Annotated[str, typer.Option(help='"int4", "int8" or "fp8".', metavar="FORM")] = "int4",
    rest: Annotated[
        str, typer.Option(help='"int8" or "fp8": attention, dense MLP; the embedding is int8.', metavar="FORM")
    ] = "int8",
    calibrate: Annotated[
        Path | None,
        typer.Option(
            help="Texts, one a line: columns of experts weigh what runs through them.",
            exists=True,
            dir_okay=False,
            metavar="FILE.txt",
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads; unset, all.", min=1, metavar="N")] = None,
    as_json: Json = False,
) -> None:
    """Write a checkpoint with quantised weights.

    It loads at once, and takes a quarter of the memory.
    """
    import torch

    from redraft.checkpoint.convert import quantize as convert
    from redraft.checkpoint.locate import locate
    from redraft.checkpoint.rounding import Recipe
    from redraft.core.errors import OptionError
    from redraft.core.threads import checked
    from redraft.engine.calibration import importance
    from redraft.text.lines import numbered_lines

    if experts not in ("int4", "int8", "fp8"):
        raise OptionError(f"--experts {experts!r}: 'int4', 'int8' or 'fp8'")
    if rest not in ("int8", "fp8"):
        raise OptionError(f"--rest {rest!r}: 'int8' or 'fp8'")
    if calibrate is not None and experts != "int4":
        raise OptionError(f"--calibrate is for int4 experts: with --experts {experts} it would change nothing")
    if threads is not None:
        torch.set_num_threads(checked(threads, "threads"))
    path = locate(source)
    from redraft.cli import show

    weights = None
    if calibrate is not None:
        with show.status("calibrating"):
            weights = importance(path, [text for _, text in numbered_lines(calibrate)])
    with show.stages("quantize") as on_progress:
        recipe = Recipe(experts=experts, rest=rest)  # type: ignore[arg-type]
        found = convert(path, directory, recipe, importance=weights, on_progress=on_progress)
    _report(found, directory, as_json=as_json)


def export(source: _Source, directory: _Directory, as_json: Json = False) -> None:
    """Write a checkpoint in bfloat16, for every other tool.

    It may be stored in any form; what comes has Hugging Face's layout.
    """
    from redraft.checkpoint.convert import export as convert
    from redraft.checkpoint.locate import locate
    from redraft.cli import show

    with show.stages("export") as on_progress:
        found = convert(locate(source), directory, on_progress=on_progress)
    _report(found, directory, as_json=as_json)


def _report(found: Converted, directory: Path, *, as_json: bool) -> None:
    from redraft.cli import show

    if as_json:
        made, kept = found.files
        show.print_json(
            {
                "directory": str(directory),
                "bytes": found.nbytes,
                "files": {"written": made, "kept": kept},
                "sha256": found.checksum,
            }
        )
        return
    size = f"{found.nbytes / 1e9:.2f} GB" if found.nbytes >= 1e9 else f"{found.nbytes / 1e6:.1f} MB"
    print(f"{directory}: {size} in {sum(found.files)} files, sha256 {found.checksum}")
