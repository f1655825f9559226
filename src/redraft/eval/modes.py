"""The three modes of one model beside each other on the same rows, with the same seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from redraft.core.engine import Engine
from redraft.core.errors import OptionError
from redraft.core.option_bounds import OF_CANVASES
from redraft.core.results import Generation
from redraft.eval.answers import Answers, answer, evenly
from redraft.eval.data import Row
from redraft.eval.paired import bootstrapped, mcnemar, wilson

MODES = ("diffusion", "autoregressive", "verified")
# Rows that a mode answers before the next one does, so that what else the machine does meets them alike.
_IN_TURN = 16
# Options that neither of the causal ones has.
_OF_DIFFUSION = ("redraft", "probabilities", "initial_canvas", "pinned")


def side_by_side(
    engine: Engine,
    rows: Sequence[Row],
    is_right: Callable[[Row, Generation], bool],
    modes: Sequence[str] = MODES,
    *,
    seed: int = 0,
    limit: int | None = None,
    options: Mapping[str, Any] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    on_wrong: Callable[[Mapping[str, Any]], None] | None = None,
) -> list[dict[str, Any]]:
    """Answers the rows in each mode, turn about, and compares every mode with the first.

    Each mode answers the first row once before, which nothing counts: what happens once must not be the first one's.

    Args:
        is_right: whether a reply is what a row asks for; a reply that failed is not.
        modes: which, the first being what others are compared with.
        seed, limit, options, on_progress: as in `redraft.eval.answers.answer`. Options that a mode cannot have are left
            out of it. Modes that write token by token are greedy unless `options` name a temperature.
        on_wrong: as there, with the reply's `mode`.

    Returns:
        One mapping a mode: `mode, n, right` (a share) and its Wilson interval `low, high`; of all but the first
        `against` (the difference to it) with its bootstrap interval over rows `against_low, against_high`, `won, lost`
        (rows that this mode, or the first, alone has right) and McNemar's exact `p`, None in the first; the share of
        replies that were `cut` off; `tokens_per_pass`, of either kind, a prompt's apart; and the costs of
        `redraft.eval.answers.Answers`.

    Raises:
        OptionError: no modes, one twice, or an unknown one; or there are no rows.
    """
    check_modes(modes)
    chosen = evenly(rows, limit)
    if not chosen:
        raise OptionError("there are no rows to compare modes on")
    asked = {mode: _of(mode, options or {}) for mode in modes}
    for mode in modes:
        answer(engine, chosen[:1], is_wrong=_never, seed=seed, options=asked[mode])
    found: dict[str, list[Answers]] = {mode: [] for mode in modes}
    for turn, start in enumerate(range(0, len(chosen), _IN_TURN)):
        part = chosen[start : start + _IN_TURN]
        for mode in _turned(modes, turn):
            answers = answer(
                engine, part, is_wrong=lambda row, reply: not _holds(is_right, row, reply), seed=seed + start,
                options=asked[mode], on_wrong=None if on_wrong is None else _named(on_wrong, mode),
            )  # fmt: skip
            found[mode].append(answers)
        if on_progress is not None:
            on_progress(start + len(part), len(chosen))
    verdicts = {
        mode: [_holds(is_right, row, reply) for answers in parts for row, reply in answers.pairs]
        for mode, parts in found.items()
    }
    return [_line(mode, verdicts[mode], verdicts[modes[0]], mode == modes[0], _whole(found[mode])) for mode in modes]


def check_modes(modes: Sequence[str]) -> None:
    """Makes sure that these are modes, each once.

    Raises:
        OptionError: they are not.
    """
    unknown = [mode for mode in modes if mode not in MODES]
    if not modes or unknown or len(set(modes)) < len(modes):
        raise OptionError(f"modes must be some of {', '.join(MODES)}, each once, got {', '.join(modes) or 'none'}")


def _of(mode: str, options: Mapping[str, Any]) -> dict[str, Any]:
    if mode == "diffusion":
        strange, greedy = {"top_p"}, {}
    else:
        strange, greedy = set(_OF_DIFFUSION), {"temperature": 0}
        if mode == "autoregressive":
            strange |= {*OF_CANVASES, "preset"}
    return {**greedy, **{name: value for name, value in options.items() if name not in strange}, "mode": mode}


def _turned(modes: Sequence[str], by: int) -> list[str]:
    place = by % len(modes)
    return [*modes[place:], *modes[:place]]


def _named(on_wrong: Callable[[Mapping[str, Any]], None], mode: str) -> Callable[[Mapping[str, Any]], None]:
    return lambda wrong: on_wrong({"mode": mode, **wrong})


def _never(row: Row, reply: Generation) -> bool:
    return False


def _holds(is_right: Callable[[Row, Generation], bool], row: Row, reply: Generation) -> bool:
    return reply.finish_reason != "error" and is_right(row, reply)


def _whole(parts: Sequence[Answers]) -> Answers:
    return Answers(
        pairs=[pair for part in parts for pair in part.pairs], elapsed_s=sum(part.elapsed_s for part in parts)
    )


def _line(
    mode: str, verdicts: Sequence[bool], first: Sequence[bool], is_first: bool, answers: Answers
) -> dict[str, Any]:
    low, high = wilson(sum(verdicts), len(verdicts))
    line = {"mode": mode, "right": sum(verdicts) / len(verdicts), "low": low, "high": high}
    line |= dict.fromkeys(("against", "against_low", "against_high", "won", "lost", "p"))
    if not is_first:
        differences = [float(here) - float(there) for here, there in zip(verdicts, first, strict=True)]
        won, lost = differences.count(1.0), differences.count(-1.0)
        line |= dict(zip(("against", "against_low", "against_high"), bootstrapped(differences), strict=True))
        line |= {"won": won, "lost": lost, "p": mcnemar(lost, won)}
    replies = [reply for _, reply in answers.pairs]
    tokens = sum(reply.stats.generated_tokens for reply in replies)
    passes = sum(max(0, reply.stats.denoising_steps + reply.stats.encode_passes - 1) for reply in replies)
    line["cut"] = sum(reply.finish_reason == "length" for reply in replies) / len(replies)
    line["tokens_per_pass"] = tokens / passes if passes else None
    return line | answers.costs()
