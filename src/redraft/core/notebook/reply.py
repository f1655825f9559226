"""The HTML of a reply: static first, so that it stands where scripts do not run, and its drafts behind a scrubber.

Nothing is fetched. What a model wrote is a stranger's text: every part of it is escaped, in markup and in the script.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from redraft.core.reel import Reel

# Notebooks are kept, and each shows many replies. A canvas of 256 tokens takes some 50 KB at most.
MOST_BYTES = 256 * 1024

_HERE = Path(__file__).parent
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_LIGHT = (
    "color-scheme: light; --ink: #1d2226; --paper: #fbfaf7; --line: #d8d4cb; --faint: #5d6469; --accent: #0a6b76; "
    "--bad: #a3211a; --doubt: #ffe9a8; --fresh: #17612a; --fresh-paper: #dcf1e0; --sure: #7a5300; --unsure: #9c2178;"
)
_DARK = (
    "color-scheme: dark; --ink: #e6e3dc; --paper: #16181a; --line: #3b4045; --faint: #9a9d9f; --accent: #59c7d3; "
    "--bad: #ff8a80; --doubt: #54420f; --fresh: #9be3ab; --fresh-paper: #1b3523; --sure: #e5bd66; --unsure: #f297d4;"
)


def reply_html(
    *,
    text: str,
    raw: str,
    reasoning: str | None,
    calls: Sequence[tuple[str, Mapping[str, Any]]],
    doubts: Sequence[tuple[int, int, float]],
    notes: Iterable[str],
    numbers: str,
    reel: Reel | None,
) -> str:
    """A reply as one element that needs nothing else.

    Args:
        text, raw, reasoning: as `Generation` has them.
        calls: name and arguments of each.
        doubts: (start, end, log-probability in nats) in `raw`.
        notes: what is out of the ordinary, a line each.
        numbers: what it cost.
        reel: its drafts; what is more than `MOST_BYTES` of them is left out, and that is said.
    """
    offset = raw.find(text) if text else -1
    placed = [(start - offset, end - offset, nats) for start, end, nats in doubts if offset >= 0]
    placed = [doubt for doubt in placed if 0 <= doubt[0] < doubt[1] <= len(text)]
    parts = []
    if reasoning:
        parts.append(f"<details><summary>Thought</summary><div>{_lines(reasoning)}</div></details>")
    if text:
        parts.append(f'<div class="redraft-text">{_marked(text, placed)}</div>')
    parts += [_call(name, arguments) for name, arguments in calls]
    if len(placed) < len(doubts):
        # They are of a call or a thought, which are shown in another form than they were written in.
        parts.append(f'<div class="redraft-raw">{_marked(raw, doubts)}</div>')
    parts += [f'<div class="redraft-error">{_lines(note)}</div>' for note in notes]
    parts.append('<div class="redraft-drafts"></div>')
    parts.append(f'<div class="redraft-numbers">{_lines(numbers)}</div>')
    body, script = "".join(parts), ""
    if reel is not None:
        data, told = _frames(reel)
        name = hashlib.sha256((body + data).encode()).hexdigest()[:16]
        script = f'<script>({_file("player.js")})({data},"{name}",{_in_script(told)})</script>'
        return f'<div class="redraft-reply" data-redraft="{name}">{_style()}{body}{script}</div>'
    return f'<div class="redraft-reply">{_style()}{body}</div>'


def _call(name: str, arguments: Mapping[str, Any]) -> str:
    pairs = "".join(
        f"<dt>{_lines(key)}</dt><dd>{_lines(json.dumps(value, ensure_ascii=False, indent=_indent(value)))}</dd>"
        for key, value in arguments.items()
    )
    return f'<div class="redraft-call"><code>{_lines(name)}</code><dl>{pairs}</dl></div>'


def _indent(value: Any) -> int | None:
    """What is long or nested stands on several lines."""
    return 2 if isinstance(value, Mapping | list) and len(json.dumps(value)) > 60 else None


def _marked(text: str, doubts: Iterable[tuple[int, int, float]]) -> str:
    """The text with its doubted parts marked."""
    parts, done = [], 0
    for start, end, nats in sorted(doubts):
        start = max(start, done)
        if start >= end:
            continue
        title = f"the causal mode gives this a probability of {math.exp(nats):.2g}"
        parts += [_lines(text[done:start]), f'<mark title="{title}">{_lines(text[start:end])}</mark>']
        done = end
    return "".join((*parts, _lines(text[done:])))


def _lines(text: str) -> str:
    """The text as markup that shows it and nothing else. Its lines stay lines where the style is taken away."""
    return escape(_UNPRINTABLE.sub("\ufffd", text)).replace("\n", "<br>")


def _frames(reel: Reel) -> tuple[str, str]:
    """(the frames as a script has them, what is to be said of those that are left out)."""
    kept, size, total = [], 0, 0
    for canvas in range(len(reel.canvases)):
        for frame in reel.frames(canvas):
            total += 1
            written = _in_script(frame)
            size += len(written)
            if size <= MOST_BYTES:
                kept.append(written)
    left = f"Only the first {len(kept)} of {total} steps are kept here." if len(kept) < total else ""
    return f"[{','.join(kept)}]", left


def _in_script(value: Any) -> str:
    """A value as JavaScript within an element of HTML, which ends at the first `</script` whatever stands around it."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


@cache
def _style() -> str:
    rules = _file("reply.css").replace("DARK", _DARK).replace("LIGHT", _LIGHT)
    return f"<style>{' '.join(rules.split())}</style>"


@cache
def _file(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8").strip()
