"""The help text is frozen: a flag that comes, goes or changes must be meant.

After a change that is: `REDRAFT_FREEZE_HELP=1 python -m pytest tests/unit/test_cli_help.py`, then read the diff.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from redraft.cli import app, main

FROZEN = Path(__file__).with_name("cli_help.txt")
WIDTH = 100


def command_lines() -> Iterator[list[str]]:
    def below(command, path: list[str]) -> Iterator[list[str]]:
        yield path
        for name, child in getattr(command, "commands", {}).items():
            yield from below(child, [*path, name])

    yield from below(typer.main.get_command(app), [])


def test_help_is_as_frozen(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    monkeypatch.setenv("TERMINAL_WIDTH", str(WIDTH))
    monkeypatch.setenv("NO_COLOR", "1")
    parts = []
    for path in command_lines():
        assert main([*path, "--help"]) == 0
        parts.append(f"$ {' '.join(['redraft', *path, '--help'])}\n{capsys.readouterr().out.strip()}\n")
    text = "\n".join(parts)
    if os.environ.get("REDRAFT_FREEZE_HELP") == "1":
        FROZEN.write_text(text, encoding="utf-8")
    assert text == FROZEN.read_text(encoding="utf-8"), "see the top of this file"


def test_no_command_prints_the_help(capsys):
    assert main([]) == 0
    alone = capsys.readouterr().out
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == alone


@pytest.mark.parametrize(
    "path",
    [
        [],
        ["run"],
        ["eval", "tool-calls"],
        ["data", "get"],
        ["bench"],
        ["plan"],
        ["quantize"],
        ["decide"],
        ["decide", "calibrate"],
        ["eval", "decisions"],
    ],
)
def test_help_waits_for_nothing_heavy(path):
    """How long it takes is measured in benchmarks/first_answer.py."""
    script = (
        "import sys; from redraft.cli import main; code = main(sys.argv[1:]); "
        "heavy = {'torch', 'numpy', 'pydantic', 'transformers', 'matplotlib'} & set(sys.modules); "
        "sys.exit(code or str(heavy) if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", script, *path, "--help"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
