"""Every fenced block of a page, in order, with what the page says of it."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Neither is a page that tells how something is used: what they show was so on its day.
UNREAD = {"docs/log.md"}
_OPENS = re.compile(r"^(?P<indent> *)(?P<fence>```+|~~~+) *(?P<language>[\w-]*) *(?P<more>.*)$")
_TITLE = re.compile(r'title="([^"]+)"')
_REASON = re.compile(r"<!-- *not run: *(.+?) *-->\s*$")


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block.

    Attributes:
        page: the file, from the repository's root.
        line: of its first fence, from 1.
        language: behind the fence; empty where there is none.
        title: the file that it is, where it has `title="..."`.
        reason: why it is not run, from the comment above it.
        text: what stands between the fences.
    """

    page: str
    line: int
    language: str
    title: str | None
    reason: str | None
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """README.md and every page under docs/."""
    found = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").rglob("*.md"))]
    return ["README.md", *(page for page in found if page not in UNREAD)]


def blocks_of(page: str, text: str | None = None) -> list[Block]:
    """The blocks of one page.

    Raises:
        ValueError: a fence that nothing closes.
    """
    text = (ROOT / page).read_text(encoding="utf-8") if text is None else text
    return list(_blocks(page, text.splitlines()))


def _blocks(page: str, lines: list[str]) -> Iterator[Block]:
    number = 0
    while number < len(lines):
        opens = _OPENS.match(lines[number])
        if opens is None:
            number += 1
            continue
        closes = re.compile(rf"^ *{opens['fence']}\s*$")
        end = next((n for n in range(number + 1, len(lines)) if closes.match(lines[n])), None)
        if end is None:
            raise ValueError(f"{page}:{number + 1}: nothing closes this fence")
        title = _TITLE.search(opens["more"])
        reason = _REASON.search(lines[number - 1]) if number else None
        yield Block(
            page=page,
            line=number + 1,
            language=opens["language"],
            title=title and title[1],
            reason=reason and reason[1],
            text=textwrap.dedent("\n".join(lines[number + 1 : end]) + "\n"),
        )
        number = end + 1


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command of a console block, and what the page shows below it; None where it shows nothing."""

    text: str
    shown: str | None


def commands_of(block: Block) -> list[Command]:
    """The commands of a console block: lines that begin with `$`, and those that a backslash joins to them."""
    found: list[tuple[list[str], list[str]]] = []
    goes_on = False
    for line in block.text.splitlines():
        if goes_on:
            found[-1][0].append(line)
        elif line.startswith("$ "):
            found.append(([line[2:]], []))
        elif found:
            found[-1][1].append(line)
        elif line.strip():
            raise ValueError(f"{block}: output stands above the first command: {line!r}")
        goes_on = (goes_on or line.startswith("$ ")) and line.endswith("\\")
    return [
        Command(text="\n".join(said), shown="\n".join(shown).strip("\n") if any(s.strip() for s in shown) else None)
        for said, shown in found
    ]
