"""Training as a process of its own that is ended from outside, and goes on."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from redraft.train.run import train
from tiny_recipe import write_recipe, written

REDRAFT = [sys.executable, "-c", "import sys; from redraft.cli import main; sys.exit(main())"]
STEPS = 120
LONG = {"steps": STEPS, "eval_every": 30, "save_every": 50, "learning_rate": 0.005}
WAIT_S = 60


@contextmanager
def started(*command: str) -> Iterator[subprocess.Popen[str]]:
    """In a group of its own, as a shell starts what it waits for; nothing of it is left."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.01)


def logged(recipe: Path, rows: int) -> Callable[[], bool]:
    metrics = recipe.parent / "run" / "metrics.jsonl"
    return lambda: metrics.exists() and metrics.read_bytes().count(b"\n") >= rows


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a run has written that nobody has interrupted."""
    recipe = write_recipe(tmp_path_factory.mktemp("whole"), **LONG)
    train(recipe)
    return written(recipe.parent / "run")


@pytest.mark.parametrize(
    ("number", "code", "workers", "rows"),
    [
        pytest.param(signal.SIGINT, 130, 0, 7, marks=pytest.mark.full),
        (signal.SIGINT, 130, 2, 3),
        pytest.param(signal.SIGTERM, 143, 2, 77, marks=pytest.mark.full),
    ],
)
def test_a_signal_saves_and_the_printed_command_goes_on(tmp_path, whole, number, code, workers, rows):
    """Ctrl-C and `timeout` reach the processes that make batches too."""
    recipe = write_recipe(tmp_path, **LONG, workers=workers)
    with started(*REDRAFT, "train", str(recipe), "--json") as process:
        until(logged(recipe, rows))
        os.killpg(process.pid, number)
        out, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert not {character for character in err if not character.isprintable()} - {"\n"}
    document = json.loads(out)
    assert document["interrupted"] is True
    assert 0 < document["steps"] < STEPS
    assert err.splitlines()[-1].startswith(f"redraft: {number.name}: step {document['steps']} of {STEPS} is saved in ")
    told, *arguments = shlex.split(err.splitlines()[-1].rpartition("to go on: ")[2])
    assert told == "redraft"
    done = subprocess.run([*REDRAFT, *arguments], capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["interrupted"] is False
    assert written(tmp_path / "run") == whole


def test_a_run_that_is_killed_goes_on_and_leaves_no_process(tmp_path, whole):
    recipe = write_recipe(tmp_path, **LONG, workers=2)
    with started(*REDRAFT, "train", str(recipe)) as process:
        until(logged(recipe, 70))
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) >= 2
        process.kill()
        until(lambda: not any(running(child) for child in children))
    train(recipe)
    assert written(tmp_path / "run") == whole


def running(number: str) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(("second", "codes"), [(signal.SIGINT, {130}), (signal.SIGTERM, {143, -signal.SIGTERM})])
def test_a_second_signal_does_not_wait(tmp_path, second, codes):
    """Not even for a state that is being written."""
    recipe = write_recipe(tmp_path, **LONG)
    slow = (
        "import sys, time\nfrom redraft.cli import main\nfrom redraft.train import run\n"
        "def save(*parts):\n    print('saving', flush=True)\n    time.sleep(600)\n"
        "run.save_state = save\nsys.exit(main(['train', sys.argv[1], '--set', 'save_every=1']))\n"
    )
    with started(sys.executable, "-c", slow, str(recipe)) as process:
        errors = process.stderr
        assert errors is not None
        until(lambda: errors.readline() == "saving\n")
        process.send_signal(signal.SIGINT)
        until(lambda: "once more ends at once" in errors.readline())
        time.sleep(0.5)
        process.send_signal(second)
        _, err = process.communicate(timeout=10)
    assert process.returncode in codes
    assert "Traceback" not in err


def test_a_terminal_that_goes_loses_nothing(tmp_path, whole):
    """A connection that breaks: SIGHUP, and nowhere to write to."""
    recipe = write_recipe(tmp_path, **LONG)
    ours, theirs = os.openpty()
    command = [*REDRAFT, "train", str(recipe)]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as process:
        os.close(theirs)
        until(logged(recipe, 7))
        os.close(ours)
        process.send_signal(signal.SIGHUP)
        process.wait(WAIT_S)
    assert process.returncode == 128 + signal.SIGHUP
    assert 0 < json.loads((tmp_path / "run" / "state" / "progress.json").read_text())["step"] < STEPS
    train(recipe)
    assert written(tmp_path / "run") == whole


def test_under_nohup_a_terminal_that_goes_is_no_reason(tmp_path):
    """Not even where it is still written to."""
    recipe = write_recipe(tmp_path, **LONG | {"steps": 40})
    ours, theirs = os.openpty()
    ignoring = ["sh", "-c", f"trap '' HUP; exec {shlex.join([*REDRAFT, 'train', str(recipe), '--json'])}"]
    with subprocess.Popen(
        ignoring, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        until(logged(recipe, 2))
        os.close(ours)
        process.send_signal(signal.SIGHUP)
        out, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0
    assert json.loads(out)["steps"] == 40
