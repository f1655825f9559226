"""What mkdocs asks of us while it builds: generated pages, and links that leave docs/."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))

from beside import BESIDE, relinked
from command_line import command_line_page
from options_page import options_page

ROOT = Path(__file__).parents[2]
# Pages that follow from the code alone.
GENERATED = {"reference/command-line.md": command_line_page, "reference/options.md": options_page}


def on_files(files: Files, config: Any) -> Files:
    """The generated pages, and files that live elsewhere in the repository and are part of the site."""
    for name, make in GENERATED.items():
        files.append(File.generated(config, name, content=make()))
    for source, name in BESIDE.items():
        content = (ROOT / source).read_bytes()
        files.append(File.generated(config, name, content=content if name.endswith(".png") else content.decode()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links as the site has them; in the repository they point to files."""
    name = page.file.src_uri
    if name in GENERATED:
        return markdown
    origin = next((source for source, target in BESIDE.items() if target == name), f"docs/{name}")
    return relinked(markdown, origin, name, ROOT)
