"""`redraft decide`: typed questions about a state, or about many; and what labelled rows say of the answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from redraft.cli.calibrate import calibrate
from redraft.cli.command import SETTINGS, Debug, Group, add_command
from redraft.cli.decide_options import Questions, askable, flags_named, questions_in, with_decide_options
from redraft.cli.options import EagerHelp, Images, Json, Model, Quiet, with_loading_flags
from redraft.cli.values import text_of
from redraft.core.errors import InputError
from redraft.core.questions import DecideOptions

if TYPE_CHECKING:
    from redraft.core.decisions import Decisions

app = typer.Typer(
    cls=Group,
    context_settings=SETTINGS,
    help="Answer typed questions about a state, with probabilities.",
    rich_markup_mode=None,
    invoke_without_command=True,
    epilog="redraft decide --text 'my card is gone' --questions questions.yaml\n"
    "redraft decide --states tickets.csv --questions questions.yaml --out answered.csv",
)

_STATE = "A text, or JSON (.json): a conversation or any value; - reads standard input."
_STATES = "Many states, a row each; OUT has the rows with their answers, and goes on where it ended."


@with_decide_options()
@with_loading_flags(vision=True)
def decide(
    context: typer.Context,
    state: Annotated[str | None, typer.Option(help=_STATE, metavar="FILE|-")] = None,
    text: Annotated[str | None, typer.Option(help="The state itself, as text.", metavar="TEXT")] = None,
    image: Images = None,
    states: Annotated[Path | None, typer.Option(help=_STATES, metavar="IN.jsonl|IN.csv")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the rows of --states go.", metavar="OUT.jsonl|OUT.csv")
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(help="Which column of --states; unset, state, text, or the whole row as JSON.", metavar="NAME"),
    ] = None,
    questions: Questions = None,
    model: Model = "mini",
    loading: dict[str, Any] | None = None,
    options: DecideOptions | None = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
    show_help: EagerHelp = False,
) -> None:
    given = [name for name, value in (("--state", state), ("--text", text), ("--states", states)) if value is not None]
    if image:
        if state is not None or states is not None:
            raise InputError(f"--image stands beside --text or alone: {given[0]} may hold pictures itself")
        given = given or ["--image"]
    if context.invoked_subcommand is not None:
        if given or questions is not None:
            raise InputError(f"options of {context.invoked_subcommand} stand behind its name")
        return
    if not (given or questions):
        typer.echo(context.get_help())
        raise typer.Exit
    if len(given) != 1:
        wrong = f"{' and '.join(given)} exclude each other" if given else "the state is missing"
        raise InputError(
            f"{wrong}: give one of --state FILE, --text TEXT, --image FILE with or without it, --states FILE --out FILE"
        )
    if (states is None) != (out is None):
        raise InputError("--states and --out go together: what is read, and where the answers go")
    if column is not None and states is None:
        raise InputError("--column says which of --states is meant: give those, or leave it out")
    asked = questions_in(questions)
    if states is not None and out is not None:
        _many(states, out, column, askable(asked), model, loading or {}, options or DecideOptions(), as_json)
        return
    shown = image or ()
    _one(_state(state, text, shown), asked, model, loading or {}, options or DecideOptions(), as_json, quiet, shown)


def _one(
    state: Any,
    questions: list[Any],
    model: str,
    loading: dict[str, Any],
    options: DecideOptions,
    as_json: bool,
    quiet: bool,
    image: Sequence[Path],
) -> None:
    from redraft.cli import show
    from redraft.core.decisions import Refusal

    if all(isinstance(question, Refusal) for question in questions):
        askable(questions)
    engine = show.load(model, loading)
    if engine.info.sees and not quiet:
        show.note_animations(image)
    with flags_named():
        decisions = engine.decide(state, questions, options)
    if as_json:
        show.print_json(decisions.to_dict())
    else:
        from redraft.cli.decide_show import costs, print_decisions

        print_decisions(decisions)
        if not quiet:
            show.print_note(costs(decisions.stats))
    if all(isinstance(answer, Refusal) and answer.answer is None for answer in decisions.answers):
        # What was asked is wrong, whether its words say so or only this model does.
        raise typer.Exit(2)


def _many(
    states: Path,
    out: Path,
    column: str | None,
    questions: list[Any],
    model: str,
    loading: dict[str, Any],
    options: DecideOptions,
    as_json: bool,
) -> None:
    from redraft.cli import show
    from redraft.core.errors import QuestionError
    from redraft.decide.answered import Answered, asked_key, columns_of
    from redraft.decide.calibration import identity_of
    from redraft.decide.fill import check, fill
    from redraft.decide.sheets import form_of, read_sheet

    sheet, form = read_sheet(states, column), form_of(out)
    if out.exists() and out.samefile(states):
        raise InputError("--out is what --states reads: name another file")
    try:
        columns = columns_of(questions, sheet)
    except QuestionError as error:
        raise InputError(f"--questions: {error}") from None
    if options.state == "auto":
        # As a calibration was found; without one behind the questions, which all states share then.
        bound = options.calibration.bound_to.get("state") if options.calibration else None
        options = options.with_changes(state=bound or "behind")
    engine = show.load(model, loading)
    key = asked_key(identity_of(engine.info), questions, options, sheet)
    answered = Answered(path=out, form=form, sheet=sheet, columns=columns, key=key)

    def ask(state: Any) -> Decisions:
        with flags_named():
            return engine.decide(state, questions, options)

    with flags_named():
        check(sheet.states, lambda state: engine.deciding(state, questions, options))
    first = answered.begin()
    try:
        with show.progress("decide", len(sheet.rows), first) as on_progress:
            counts = fill(answered, questions, ask, first=first, on_progress=on_progress)
    except KeyboardInterrupt:
        show.print_note(f"{out} keeps what it has; the same command goes on")
        raise
    if as_json:
        show.print_json({"out": str(out), **counts})
        return
    parts = [
        f"{counts['asked']} of {show.count(counts['rows'], 'row', 'rows')} asked",
        f"{show.count(counts['abstained'], 'answer', 'answers')} withheld",
        show.count(counts["errors"], "error", "errors"),
    ]
    show.print_note(f"{' · '.join(parts)}: {out}")


def _state(state: str | None, text: str | None, image: Sequence[Path]) -> Any:
    from redraft.cli import show
    from redraft.decide.files import read_state, state_in

    said = None if text is None else text_of(text, "--text")
    if image:
        shown = [{"type": "image", "image": str(path)} for path in image]
        return [{"role": "user", "content": shown if said is None else [*shown, {"type": "text", "text": said}]}]
    if said is not None:
        return said
    assert state is not None
    return state_in(show.read_text()) if state == "-" else read_state(state)


app.callback(add_help_option=False)(decide)
add_command(
    app,
    calibrate,
    "calibrate",
    "redraft decide calibrate rows.jsonl --questions questions.yaml --out calibration.json --target 0.95",
)
