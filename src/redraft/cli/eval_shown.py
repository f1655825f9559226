"""What the tasks of `redraft eval` have in common: flags, the run, how its measures are shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from redraft.core.errors import InputError

Limit = Annotated[int | None, typer.Option(help="Only N of the rows, evenly spaced.", min=1, metavar="N")]
Seed = Annotated[int, typer.Option(help="Row i is answered with seed + i.", min=0)]
Errors = Annotated[Path | None, typer.Option(help="Write each wrong reply to this file.", metavar="FILE.jsonl")]

SHARES = (
    *("exact_match", "intent_accuracy", "slot_f1", "valid_calls", "turned_down", "wrongly_turned_down"),
    *("contains", "token_f1", "flexible_match", "cut", "empty"),
    *("blanks_right", "cells_right", "clues_kept", "by_the_rules"),
    *(f"{name}{of}" for name in ("rep_2", "rep_4", "doubled", "unbalanced") for of in ("", "_of_references")),
)


def measure(
    task: str,
    evaluate: Callable[..., dict[str, Any]],
    rows: Sequence[Any],
    model: str,
    loading: dict[str, Any] | None,
    errors: Path | None,
    as_json: bool,
    **asking: Any,
) -> None:
    """Loads the model, evaluates it on the rows, and prints what was measured."""
    from redraft.cli import show

    with writer(errors) as on_wrong:
        engine = show.load(model, loading or {})
        with show.progress(task) as on_progress:
            measures = evaluate(engine, rows, on_progress=on_progress, on_wrong=on_wrong, **asking)
    if as_json:
        show.print_json(measures)
    else:
        show.print_table({name: _cell(name, value) for name, value in measures.items()})


@contextmanager
def writer(path: Path | None) -> Iterator[Callable[[Mapping[str, Any]], None] | None]:
    """Writes one JSON line per call. The file is opened at once: a long run must not end in a bad path."""
    if path is None:
        yield None
        return
    try:
        file = path.open("w", encoding="utf-8")
    except OSError as error:
        raise InputError(f"--errors: cannot write {path} ({error.strerror}); name another file") from error
    with file:
        yield lambda wrong: print(json.dumps(wrong), file=file, flush=True)


def _cell(name: str, value: float | int | None) -> str:
    if value is None:
        return "-"
    if name in SHARES:
        return f"{100 * value:.1f} %"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
