"""The installed command as a process of its own, with the bundled model."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SENTENCE = "add the new Daft Punk album to my Sunday morning playlist"
REDRAFT = [sys.executable, "-c", "import sys; from redraft.cli import main; sys.exit(main())"]


def redraft(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*REDRAFT, *arguments], capture_output=True, text=True, timeout=120, **options)


def test_run_prints_a_readable_call():
    done = redraft("run", SENTENCE, "--seed", "0")
    assert done.returncode == 0
    assert done.stdout.startswith("AddToPlaylist(")
    assert 'playlist="Sunday morning"' in done.stdout
    assert "steps" in done.stderr


def test_json_is_one_document_and_the_same_in_every_process():
    first, second = (redraft("run", SENTENCE, "--seed", "3", "--json") for _ in range(2))
    document = json.loads(first.stdout)
    assert document["finish_reason"] == "tool_calls"
    assert document["tool_calls"][0]["name"] == "AddToPlaylist"
    assert document["seed"] == 3
    assert set(document["stats"]) >= {"denoising_steps", "tokens_per_forward", "total_s"}
    for key in ("text", "tool_calls", "token_ids", "seed", "finish_reason"):
        assert json.loads(second.stdout)[key] == document[key]
    assert first.stderr == ""


def test_a_prompt_may_come_from_standard_input():
    done = redraft("run", "-", "--seed", "0", input=SENTENCE)
    assert done.stdout.startswith("AddToPlaylist(")


def test_chat_answers_line_by_line():
    done = redraft("chat", "--seed", "0", input=f"{SENTENCE}\n/new\nwhat is the weather in Paris\n/quit\n")
    assert done.returncode == 0
    assert "AddToPlaylist(" in done.stdout
    assert "GetWeather(" in done.stdout


def test_what_the_readme_judges_with_runs_as_it_stands_there():
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    lines = [line.partition("#")[0].split() for line in readme.splitlines() if line.startswith("$ redraft eval tool-")]
    [[_, _, *command]] = lines
    done = redraft(*command, "--limit", "24", "--threads", "1", "--workers", "1")
    assert (done.returncode, done.stderr) == (0, "")
    measures = json.loads(done.stdout)
    assert (measures["n_calls"], measures["n_failed"]) == (24, 0)
    assert measures["exact_match"] > 0.6


@pytest.fixture
def bad_directory(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["run", "hi", "--model", "no-such-model"], "no-such-model"),
        (["run", ""], "empty"),
        (["run", "word " * 3000], "tokens"),
        (["run", "hi", "--max-new-token", "3"], "max-new-token"),
        (["run", "hi", "--max-new-tokens", "0"], "max_new_tokens"),
        (["run", "hi", "--model", "{bad}"], "llama"),
        (["run", "hi", "--model", "{empty}"], "config.json"),
        (["eval", "tool-calls", "--data", "{bad}/config.json"], "line 1"),
        (["train", "{bad}/none.yaml"], "none.yaml"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, reason, bad_directory, tmp_path_factory):
    places = {"{bad}": str(bad_directory), "{empty}": str(tmp_path_factory.mktemp("empty"))}
    for name, path in places.items():
        arguments = [argument.replace(name, path) for argument in arguments]
    done = redraft(*arguments)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert reason in done.stderr
    assert done.stdout == ""


def test_interrupting_a_live_run_leaves_the_terminal_clean():
    """A real terminal, and Ctrl-C in the middle of a long drawing."""
    primary, secondary = pty.openpty()
    command = [*REDRAFT, "run", SENTENCE, "--live", "--confidence-threshold", "0", "--max-denoising-steps", "4000"]
    process = subprocess.Popen(
        command, stdin=secondary, stdout=secondary, stderr=secondary, start_new_session=True, env=os.environ
    )
    os.close(secondary)
    shown = _read_until(primary, b"step 2", 60)
    assert b"\x1b[?25l" in shown
    process.send_signal(signal.SIGINT)
    try:
        shown += _read_until(primary, None, 30)
        assert process.wait(timeout=30) == 130
    finally:
        process.kill()
    assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l")
    assert b"Traceback" not in shown
    os.close(primary)


def _read_until(descriptor: int, mark: bytes | None, seconds: float) -> bytes:
    shown, end = b"", time.monotonic() + seconds
    while time.monotonic() < end and (mark is None or mark not in shown):
        if not select.select([descriptor], [], [], 0.2)[0]:
            continue
        try:
            piece = os.read(descriptor, 65536)
        except OSError:  # the other side has closed
            break
        if not piece:
            break
        shown += piece
    return shown


def test_training_that_is_interrupted_goes_on(tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": f"{i}."}]}
        for i in range(40)
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "output: run\ninit: mini\ndata: [{path: data.jsonl}]\nsteps: 400\nbatch_size: 4\nheld_out: 0\n"
        "eval_every: 1000\nsave_every: 1\nlog_every: 1\nthreads: 1\n"
    )
    process = subprocess.Popen([*REDRAFT, "train", str(recipe)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    metrics = tmp_path / "run" / "metrics.jsonl"
    end = time.monotonic() + 60
    while time.monotonic() < end and not (metrics.exists() and len(metrics.read_text().splitlines()) >= 3):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    try:
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    saved = json.loads((tmp_path / "run" / "state" / "progress.json").read_text())["step"]
    assert saved >= 2
    done = redraft("train", str(recipe), "--set", f"steps={saved + 2}", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == saved + 2
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert steps[-2:] == [saved + 1, saved + 2]
    assert Path(json.loads(done.stdout)["model"], "config.json").exists()
