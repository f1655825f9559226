"""The help text is frozen: a flag that comes, goes or changes must be meant.

After a change that is: `REDRAFT_FREEZE_HELP=1 python -m pytest tests/unit/test_cli_help.py`, then read the diff.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
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


@pytest.mark.parametrize("path", [[], ["run"], ["eval", "tool-calls"]])
def test_help_takes_less_than_half_a_second(path):
    command = [sys.executable, "-c", "import sys; from redraft.cli import main; sys.exit(main())", *path, "--help"]

    def elapsed_s() -> float:
        began_s = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began_s

    # Some tries: the question is what the command needs, not what else the machine is doing.
    assert any(elapsed_s() < 0.5 for _ in range(5))
