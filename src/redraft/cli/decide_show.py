"""Decisions for people: a bar for each option, and doubts in words."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.text import Text

from redraft.cli.show import count, print_rich, printable
from redraft.core.decisions import Answer, Decisions, DecisionStats, Refusal

_WIDTH = 24
_EIGHTHS = " ▏▎▍▌▋▊▉"
# Of many options the likeliest are drawn, the others summed up.
_MOST = 12
# Below it, what else the model would have written is worth a word.
_LITTLE = 0.5
_DOUBTS = {
    "entropy": "in doubt: the options are too close ({entropy:.2f} nats)",
    "disagreement": "in doubt: the canvas and the causal mode disagree",
    "confidence": "in doubt: too little confidence",
    "label mass": "in doubt: the model would rather write something else",
}


def print_decisions(decisions: Decisions) -> None:
    """Every question with its options, on stdout."""
    for number, answer in enumerate(decisions.answers, start=1):
        print_rich(Group(*_told(number, answer)))


def costs(stats: DecisionStats) -> str:
    """What decisions cost, in a line."""
    readers = [
        count(number, f"{name} read", f"{name} reads")
        for name, number in (("canvas", stats.canvas_reads), ("causal", stats.causal_reads))
        if number
    ]
    parts = [*readers, count(stats.forwards, "forward", "forwards"), f"{stats.prompt_tokens} tokens"]
    if stats.cached_tokens:
        parts[-1] += f", {stats.cached_tokens} cached"
    if stats.reread:
        parts.append(f"{stats.reread} looked at again")
    if stats.abstained:
        parts.append(f"{stats.abstained} left unanswered")
    return " · ".join([*parts, f"{stats.total_s:.2f} s"])


def _told(number: int, answer: Answer | Refusal) -> list[Text]:
    question = answer.question
    name = answer.name if isinstance(answer, Refusal) else answer.question.name
    called = name or (question.instructions.splitlines()[0] if question and question.instructions else f"{number}")
    if isinstance(answer, Answer):
        return [_head(called, _said(answer)), *_bars(answer), *_notes(answer)]
    if answer.answer is None:
        return [_head(called, f"cannot be asked: {answer.reason}", style="red")]
    head = _head(called, f"no answer: {answer.reason}", style="yellow")
    return [head, *_bars(answer.answer), *_notes(answer.answer, but=("confidence", "label mass"))]


def _head(called: str, said: str, style: str = "bold") -> Text:
    return Text.assemble((printable(called), "bold"), ": ", (printable(said), style))


def _said(answer: Answer) -> str:
    question = answer.question
    if question.kind == "predicate":
        return f"{'yes' if answer.value else 'no'}"
    value = question.options[answer.index].text
    return f"{value}, {answer.score:.2f} of {len(question.options) - 1}" if question.kind == "score" else value


def _bars(answer: Answer) -> list[Text]:
    question = answer.question
    names = ["yes", "no"] if question.kind == "predicate" else [option.text for option in question.options]
    places: Sequence[int] = range(len(names))
    if len(names) > _MOST:
        places = sorted(sorted(places, key=lambda place: -answer.probabilities[place])[:_MOST])
    width = min(max(len(printable(names[place])) for place in places), 40)
    lines = []
    for place in places:
        style = "green" if place == answer.index else ""
        lines.append(_bar(printable(names[place])[:width].ljust(width), answer.probabilities[place], style))
    rest = 1 - sum(answer.probabilities[place] for place in places)
    if len(places) < len(names):
        lines.append(_bar(f"{len(names) - len(places)} others".ljust(width), max(rest, 0.0), "dim"))
    return lines


def _bar(name: str, share: float, style: str) -> Text:
    eighths = round(share * _WIDTH * 8)
    drawn = "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
    return Text.assemble("  ", name, "  ", (drawn.ljust(_WIDTH), style or "dim"), f"  {100 * share:5.1f} %")


def _notes(answer: Answer, but: Sequence[str] = ()) -> list[Text]:
    """What speaks against an answer, and what was done about it."""
    said = [_DOUBTS[doubt].format(entropy=answer.entropy_nats) for doubt in answer.doubts if doubt not in but]
    if answer.label_mass < _LITTLE and "label mass" not in answer.doubts:
        said.append(f"the options hold {100 * answer.label_mass:.1f} % of what the model would write here")
    if answer.spread and answer.draws > 1:
        said.append(f"{answer.draws} draws, up to {100 * answer.spread:.1f} points apart")
    if answer.calibrated:
        said.append("calibrated")
    return [Text(f"  {each}", style="yellow" if each.startswith("in doubt") else "dim") for each in said]
