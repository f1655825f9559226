"""`redraft decide calibrate`: what labelled rows say of a model's probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from redraft.cli.decide_options import Questions, askable, flags_named, questions_in, with_decide_options
from redraft.cli.options import Json, Model, with_loading_flags
from redraft.cli.values import check_writable
from redraft.core.questions import DecideOptions

ROWS = (
    "Lines of a state and what is right about it, "
    '{"state": "...", "answers": {"spam": true, "tone": "angry", "urgency": 3}}; '
    "a line may bring questions of its own."
)
Plot = Annotated[
    Path | None,
    typer.Option(help="Draw a reliability diagram, and risk over coverage; needs matplotlib.", metavar="FILE.png"),
]


@with_decide_options(calibration=False)
@with_loading_flags()
def calibrate(
    rows: Annotated[Path, typer.Argument(help=ROWS, metavar="ROWS.jsonl")],
    out: Annotated[Path, typer.Option(help="What `--calibration` takes.", metavar="CAL.json")],
    questions: Questions = None,
    target: Annotated[
        float | None,
        typer.Option(help="The accuracy wanted of what is answered: sets a least confidence.", metavar="X"),
    ] = None,
    fit_share: Annotated[float, typer.Option(help="Share of the states that is fitted on.", metavar="X")] = 0.5,
    split_seed: Annotated[int, typer.Option(help="Which states these are.", min=0, metavar="N")] = 0,
    plot: Plot = None,
    model: Model = "mini",
    loading: dict[str, Any] | None = None,
    options: DecideOptions | None = None,
    as_json: Json = False,
) -> None:
    """Fit temperatures and thresholds on labelled rows, and check them on others."""
    from redraft.cli import show
    from redraft.decide.calibration_file import save, to_dict
    from redraft.decide.fit import COLDEST, HOTTEST
    from redraft.decide.rows import read_rows
    from redraft.eval.calibration import calibrate as calibrated_on
    from redraft.eval.decision_plot import check_plot
    from redraft.eval.decision_plot import plot as draw

    labelled = read_rows(rows, None if questions is None else askable(questions_in(questions)))
    check_writable("--out", out)
    if plot is not None:
        check_plot(plot)
        check_writable("--plot", plot)
    engine = show.load(model, loading or {})
    with show.progress("calibrate", len(labelled)) as on_progress, flags_named("target"):
        found = calibrated_on(
            engine,
            labelled,
            options or DecideOptions(),
            target=target,
            seed=split_seed,
            fit_share=fit_share,
            on_progress=on_progress,
        )
    save(found.calibration, out)
    if plot is not None:
        draw(plot, {"as read": found.before, "calibrated": found.after})
    if as_json:
        show.print_json(to_dict(found.calibration) | {"questions": list(found.questions), "out": str(out)})
        return
    from redraft.cli.decide_tables import print_calibration

    print_calibration(found.calibration.measured, found.questions)
    measured = found.calibration.measured
    parts = [f"{measured[part]['answers']} answers about {measured[part]['states']} states {said}"
             for part, said in (("fitted_on", "fitted on"), ("checked_on", "checked on"))]  # fmt: skip
    show.print_note(f"{', '.join(parts)}: {out}")
    bounded = []
    for line in found.questions:
        if line["fitted_on"] and not line["fitted_wrong"]:
            many = show.count(line["fitted_on"], "row", "rows")
            said = f"so the temperature is only as sure as {many} can make one; harder rows would say more"
            show.print_note(f"{line['question']}: none of {line['fitted_on']} was wrong, {said}")
        elif not 1.01 * COLDEST < line["temperature"] < HOTTEST / 1.01:
            bounded.append(str(line["question"]))
    if bounded:
        said = "at its bound: these rows are too easy, or too few, to say what a probability is worth"
        show.print_note(f"{', '.join(bounded)}: the temperature is {said}")
