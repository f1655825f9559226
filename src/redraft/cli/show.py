"""How the commands speak: replies, calls and JSON on stdout; thoughts, summaries and progress on stderr."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redraft.core.errors import GenerationError, InputError
from redraft.core.progress import lines, on_terminal
from redraft.core.progress import progress as bar
from redraft.core.results import Generation
from redraft.core.strict_json import strict_json

if TYPE_CHECKING:
    from rich.console import Console

    from redraft.core.engine import Engine

# An escape sequence whole (CSI, OSC and other strings, two-character forms), so that no tail of it stays
# behind; then every other control character but newline and tab, and the marks that reverse reading order.
_UNPRINTABLE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"
    r"|\x1b[\]PX^_][^\n\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-~]?"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """The text without anything that a terminal would obey instead of show."""
    return _UNPRINTABLE.sub("", text)


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON document on stdout. ASCII only: exact in every encoding, harmless on every terminal."""
    print(strict_json(value, indent=2, default=str), flush=True)


def print_reply(generation: Generation) -> None:
    """The reply for a reader: text and calls on stdout, the thought dimmed on stderr.

    Raises:
        GenerationError: the request failed while it ran; what there was has been printed.
    """
    if generation.reasoning:
        print_note(generation.reasoning)
    lines = [generation.text] if generation.text else []
    for line in lines + [str(call) for call in generation.tool_calls]:
        print(_underlined(printable(line), generation), flush=True)
    raise_failure(generation)
    if not generation.text and not generation.tool_calls:
        print_note("(empty reply)")


def _underlined(line: str, generation: Generation) -> str:
    """The line with what the judge doubts underlined, on a terminal."""
    if not sys.stdout.isatty():
        return line
    for doubt in sorted({doubt.text.strip() for doubt in generation.doubts}, key=len, reverse=True):
        if doubt and printable(doubt) == doubt:
            line = line.replace(doubt, f"\x1b[4m{doubt}\x1b[24m")
    return line


def note_animations(paths: Iterable[Path]) -> None:
    """Says of which pictures the first frame alone is looked at; nothing of what cannot be read."""
    from redraft.vision.picture import picture_of

    for path in paths:
        try:
            animated = picture_of(path).first_of_several
        except InputError:
            continue
        if animated:
            print_note(f"{path.name} is an animation: its first frame is looked at; --video or /video takes it whole")


def print_note(text: str) -> None:
    """A dimmed aside on stderr."""
    from rich.text import Text

    # Whoever reads stderr may have gone, and the work goes on.
    with contextlib.suppress(OSError):
        error_console().print(Text(printable(text), style="dim"), soft_wrap=True)


def raise_failure(generation: Generation) -> None:
    """Raises `GenerationError` if the request failed while it ran."""
    if generation.finish_reason == "error":
        raise GenerationError(generation.error or "the request failed without a reason")


def print_judgement(engine: Engine, generation: Generation, asked: Mapping[str, Any]) -> None:
    """What the causal mode thinks of a reply, on stderr, where `asked` wants to know: each token's log-probability,
    and what it doubts."""
    if generation.logprobs is not None:
        pieces = zip(engine.pieces(generation.token_ids), generation.logprobs, strict=True)
        print_note("log-probabilities: " + " · ".join(f"{piece.strip() or '␣'} {value:.2f}" for piece, value in pieces))
    if generation.logprobs is not None or asked.get("redraft"):
        doubts = [f"{doubt.text.strip()!r} {doubt.log_prob:.2f}" for doubt in generation.doubts]
        print_note("doubted: " + (" · ".join(doubts) or "nothing"))


def known_calls(engine: Engine, asked: Mapping[str, Any]) -> int:
    """How many calls that the model knows by heart its replies may make, where nothing else was asked for."""
    declared = asked.get("tools") or asked.get("response_format") or asked.get("preset") == "reference"
    return 0 if declared or asked.get("tool_choice") == "none" else len(engine.info.defaults.get("tools") or ())


def summary(generation: Generation, asked: Mapping[str, Any] | None = None, known: int = 0) -> str:
    """One line: canvases, steps, tokens per forward, speed, time to first canvas, the seed that repeats it.

    Args:
        generation: the reply.
        asked: options that were given.
        known: see `known_calls`.
    """
    parts = [str(generation.stats), f"seed {generation.seed}"]
    if generation.doubts:
        parts.append(count(len(generation.doubts), "doubt", "doubts"))
    if not generation.stats.redrafts and (asked or {}).get("redraft"):
        parts.append("nothing redrafted")
    if known:
        parts.append(f"{count(known, 'call', 'calls')} known by heart")
    if generation.finish_reason == "length":
        parts.append(f"cut at {generation.stats.generated_tokens} tokens (max_new_tokens)")
    return " · ".join(parts)


def error_console() -> Console:
    """A console on stderr, as it is now."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


@contextlib.contextmanager
def status(text: str) -> Iterator[None]:
    """A spinner on stderr while something takes its time; where that is no terminal, a line now and then."""
    from rich.text import Text

    if not on_terminal():
        with lines(printable(text)):
            yield
        return
    with error_console().status(Text(printable(text)), spinner="dots"):
        yield


def load(model: str, loading: Mapping[str, Any], **more: Any) -> Engine:
    """The engine, loaded under a spinner; `loading` is what the flags of `options.with_loading_flags` say."""
    with status(f"loading {model}"):
        import redraft

        return redraft.load(model, **loading, **more)


def read_text() -> str:
    """All of standard input, without the newline that a shell puts at its end.

    Raises:
        InputError: it is not text.
    """
    from redraft.cli.values import text_of

    try:
        return text_of(sys.stdin.read(), "standard input").rstrip("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"standard input is not {error.encoding} text: convert it first") from error


def count(number: int, one: str, many: str) -> str:
    """The number with its noun."""
    return f"{number} {one if number == 1 else many}"


@contextlib.contextmanager
def progress(name: str, total: int | None = None, first: int = 0) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr; yields what moves it: done, total. `first`: how many an earlier run has done."""
    with bar(name, total, first=first) as move:
        yield lambda done, total: move(done, total, "")


@contextlib.contextmanager
def stages(name: str) -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr for work in turns; yields what moves it: what runs now, done, total."""
    with bar(name) as move:
        yield lambda now, done, total: move(done, total, printable(now))


def print_rich(table: Any) -> None:
    """A rich table on stdout, as wide as it needs to be where stdout is no terminal."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=200)
    console.print(table)


def print_table(cells: Mapping[str, str]) -> None:
    """Two columns on stdout, names and values."""
    width = max(map(len, cells), default=0)
    for name, cell in cells.items():
        print(f"{printable(name):<{width}}  {printable(cell)}")
