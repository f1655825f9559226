"""Where stderr is no terminal, work says where it is in plain lines; on one, a bar does."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time

import pytest

from redraft.cli import show
from redraft.core import progress as module
from redraft.core.progress import progress
from redraft.train.bars import checking_bar, training_bar

FIGURES = {"diffusion": 1.25, "causal": 2.5, "values": 0.75, "tokens_per_s": 530.4}


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(module, "EVERY_S", 0.05)


def said(capsys) -> list[str]:
    lines = capsys.readouterr().err.splitlines()
    assert all(line.isprintable() for line in lines)
    return lines


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize(
    ("shown", "moved", "line"),
    [
        (lambda: show.progress("tool-calls"), (3, 9), r"tool-calls, 3 of 9, 0:00:00 so far, 0:00:0\d left"),
        (
            lambda: show.stages("quantize"),
            ("[/a] \x1b[2Jb", 3, 9),
            r"quantize, 3 of 9, \[/a\] b, 0:00:00 so far, .* left",
        ),
        (
            lambda: training_bar(9, 0),
            (3, FIGURES),
            r"training, 3 of 9, diffusion 1.250  causal 2.500  values 0.750  530 .*",
        ),
        (lambda: checking_bar(9), (3,), r"checking rows, 3 of 9, 0:00:00 so far, 0:00:0\d left"),
        (lambda: show.status("loading x"), None, "loading x, 0:00:00 so far"),
    ],
    ids=["progress", "stages", "training", "checking", "status"],
)
def test_every_kind_speaks_now_and_then(shown, moved, line, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with shown() as move:
        if moved is not None:
            move(*moved)
        time.sleep(0.3)
    lines = said(capsys)
    assert len(lines) >= 2, "also while a part takes long"
    assert all(re.fullmatch(f"redraft: {line}", one) for one in lines), lines


def test_short_work_says_nothing_and_training_its_first_figures(capsys):
    for shown in (show.progress("tool-calls"), show.stages("quantize"), show.status("loading x"), checking_bar(9)):
        with shown:
            pass
    assert said(capsys) == []
    with training_bar(9, 0) as move:
        move(1, None)
        assert said(capsys) == []
        move(2, FIGURES)
        move(3, None)
        move(4, FIGURES)
    assert len(said(capsys)) == 1


@pytest.mark.usefixtures("often")
def test_a_run_that_goes_on_reckons_with_its_own_steps(capsys):
    with progress("training", 100, first=90) as move:
        move(90, 100, "")
        time.sleep(0.08)
        move(95, 100, "")
        time.sleep(0.08)
    lines = said(capsys)
    assert lines[0] == "redraft: training, 90 of 100, 0:00:00 so far"
    assert lines[-1] == "redraft: training, 95 of 100, 0:00:00 so far, 0:00:00 left"


def test_figures_that_are_no_numbers_are_left_out(capsys):
    with training_bar(9, 0) as move:
        move(1, FIGURES | {"values": float("nan")})
    assert "diffusion 1.250  causal 2.500  530 tokens/s" in said(capsys)[0]
    with training_bar(9, 0) as move:
        move(1, dict.fromkeys(FIGURES, float("nan")) | {"tokens_per_s": 1.0})
    assert "no finite loss  1 tokens/s" in said(capsys)[0]


def test_a_reader_that_has_gone_ends_no_work(monkeypatch):
    read, write = os.pipe()
    os.close(read)
    monkeypatch.setattr(sys, "stderr", os.fdopen(write, "w", buffering=1))
    with training_bar(9, 0) as move:
        move(1, FIGURES)
    with pytest.raises(BrokenPipeError):
        sys.stderr.close()


def test_a_terminal_gets_a_bar():
    """Names of files are no markup."""
    script = (
        "from redraft.cli import show\n"
        "with show.stages('quantize') as move:\n    move('a [/b] file', 1, 2)\n    move('', 2, 2)\n"
        "    import time; time.sleep(0.3)\n"
    )
    master, slave = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    code = subprocess.call([sys.executable, "-c", script], stderr=slave, env=environment)
    os.close(slave)
    drawn = os.read(master, 65536).decode()
    os.close(master)
    assert code == 0
    assert "quantize" in drawn
    assert "2/2" in drawn
    assert "so far" not in drawn
