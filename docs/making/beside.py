"""Files outside docs/ that the site has as pages, and what becomes of links to them."""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path

# Of the repository -> of the site.
BESIDE = {
    "CHANGELOG.md": "beside/changelog.md",
    "src/redraft/models/mini/README.md": "beside/mini.md",
    "examples/README.md": "beside/examples.md",
    "benchmarks/gpu/README.md": "beside/gpu-benchmark.md",
    "benchmarks/2026-11-25-cpu.md": "beside/2026-11-25-cpu.md",
    "benchmarks/2026-11-25-cpu-growth.png": "beside/2026-11-25-cpu-growth.png",
    "benchmarks/2026-11-25-cpu-step.png": "beside/2026-11-25-cpu-step.png",
    "benchmarks/2026-11-25-formats.md": "beside/2026-11-25-formats.md",
}
_LINK = re.compile(r"(!?)\[([^\]\n]*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^(?:```|~~~).*?^(?:```|~~~)\s*$", re.MULTILINE | re.DOTALL)


def relinked(markdown: str, origin: str, name: str, root: Path) -> str:
    """A page's text with links as the site needs them.

    Args:
        markdown: as it stands in the repository.
        origin: the file, from the repository's root.
        name: the page, from the site's root.
        root: of the repository.

    Raises:
        ValueError: a link to a file that does not exist.
    """

    def link(match: re.Match[str]) -> str:
        mark, text, target = match.groups()
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        path, hash_, anchor = target.partition("#")
        found = posixpath.normpath(posixpath.join(posixpath.dirname(origin), path))
        page = BESIDE.get(found) or (found.removeprefix("docs/") if found.startswith("docs/") else None)
        if page is not None:
            return f"{mark}[{text}]({os.path.relpath(page, posixpath.dirname(name) or '.')}{hash_}{anchor})"
        if not (root / found).exists():
            raise ValueError(f"{origin}: {target}: no such file")
        # The site has no pages for source files.
        return text if "`" in text or text.strip("`") == found else f"{text} (`{found}`)"

    parts, end = [], 0
    for fence in _FENCE.finditer(markdown):
        parts += [_LINK.sub(link, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, _LINK.sub(link, markdown[end:])])
