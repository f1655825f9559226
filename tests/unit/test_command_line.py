"""The command line as a newcomer meets it: help that can be read, words that are understood, mistakes in one line."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from cli_fakes import FakeEngine

import redraft
from redraft.cli import app, main
from redraft.cli.command import EXAMPLES
from redraft.core.option_groups import GROUPS
from redraft.core.options import GenerationOptions

COMMAND = [sys.executable, "-m", "redraft"]
LEAVES = [["run"], ["chat"], ["serve"], ["train"], ["bench"], ["plan"], ["quantize"], ["export"], ["merge"],
          ["presets"], ["eval", "tool-calls"], ["eval", "text"], ["eval", "decisions"], ["decide"],
          ["decide", "calibrate"], ["data", "list"], ["data", "get"]]  # fmt: skip
SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}


def command_of(path: list[str]):
    command = typer.main.get_command(app)
    for name in path:
        command = command.commands[name]
    return command


@pytest.fixture
def engine(monkeypatch):
    made = FakeEngine()
    monkeypatch.setitem(vars(redraft), "load", lambda model, **_: made)
    return made


@pytest.mark.parametrize("path", [[], ["eval"], ["data"], *LEAVES], ids=" ".join)
def test_h_is_help(path, capsys):
    assert main([*path, "-h"]) == 0
    short = capsys.readouterr().out
    assert main([*path, "--help"]) == 0
    assert capsys.readouterr().out == short
    assert "-h, --help" in short


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_has_examples_that_it_takes(path, tmp_path):
    (tmp_path / "my.yaml").write_text("")
    command = command_of(path)
    assert command.epilog
    for line in command.epilog.splitlines():
        words = shlex.split(line[line.index("redraft ") :])[1:]
        assert words[: len(path)] == path
        words = [str(tmp_path / "my.yaml") if word.endswith(".yaml") else word for word in words]
        assert command.make_context("x", words[len(path) :]).params


@pytest.mark.parametrize("title", EXAMPLES)
def test_examples_of_groups_are_taken(title):
    words = shlex.split(EXAMPLES[title])
    takers = [path for path in LEAVES if command_of(path)._takes(EXAMPLES[title])]
    assert takers
    for path in takers:
        needed = {"run": ["hello"], "eval": ["--data", "rows.jsonl"], "calibrate": ["rows.jsonl", "--out", "c.json"]}
        needed = needed.get(path[-1], needed.get(path[0], []))
        given = command_of(path).make_context("x", [*needed, *words]).params
        assert any(value not in (None, False) for value in given.values())


def test_every_option_stands_in_one_group():
    grouped = [name for group in GROUPS for name in group.names]
    assert sorted(grouped) == sorted(GenerationOptions.__dataclass_fields__)


@pytest.mark.parametrize(
    ("words", "format_"),
    [
        (json.dumps(SCHEMA), {"type": "json_schema", "json_schema": {"name": "reply", "schema": SCHEMA}}),
        ('{"type": "choice", "choices": ["a", "b"]}', {"type": "choice", "choices": ["a", "b"]}),
        ('{"enum": [1, 2]}', {"type": "json_schema", "json_schema": {"name": "reply", "schema": {"enum": [1, 2]}}}),
    ],
)
@pytest.mark.parametrize("in_file", [False, True])
def test_a_schema_itself_is_a_response_format(engine, tmp_path, words, format_, in_file):
    if in_file:
        (tmp_path / "schema.json").write_text(words)
        words = str(tmp_path / "schema.json")
    assert main(["run", "hi", "--response-format", words]) == 0
    assert engine.asked[0][1] == {"response_format": format_}


@pytest.mark.parametrize(
    ("words", "option", "value"),
    [
        (["--initial-canvas", "[3, 4]"], "initial_canvas", [3, 4]),
        (["--initial-canvas", "[1 of them"], "initial_canvas", "[1 of them"),
        (["--tools", '{"function": {"name": "f"}}'], "tools", [{"function": {"name": "f"}}]),
        (["--tools", '{"tools": [{"function": {"name": "f"}}]}'], "tools", [{"function": {"name": "f"}}]),
    ],
)
def test_lists_and_structures(engine, words, option, value):
    assert main(["run", "hi", *words]) == 0
    assert engine.asked[0][1] == {option: value}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run"], "give one, or - to read standard input"),
        (["run", "a\udcff"], "TEXT is not UTF-8"),
        (["run", "hi", "--stop", "a\udcff"], "--stop is not UTF-8"),
        (["run", "hi", "--tools", "{}"], "no list of declarations"),
        (["run", "hi", "--tools", "[1, 2"], "no JSON"),
        (["run", "hi", "--response-format", "[1]"], "no JSON object"),
        (["run", "hi", "--response-format", "nowhere.json"], "neither JSON nor a file"),
        (["run", "hi", "--response-format", "BINARY"], "neither JSON nor a file"),
        (["run", "hi", "--threads", "100000"], "threads must be from 1 to"),
        (["eval", "text", "--data", "ROWS", "--workers", "100000"], "workers must be from 1 to"),
        (["quantize", "mini", "OUT", "--threads", "100000"], "threads must be from 1 to"),
        (["bench", "--threads", "100000"], "threads must be from 1 to"),
        (["bench", "--prompt-tokens", "100000000"], "--prompt-tokens 100000000"),
        (["bench", "--steps", "1000000000"], "max_denoising_steps must be at most"),
        (["train", "RECIPE"], "threads must be from 1 to"),
        (["run", "hi", "--max-denoising-steps", "1000000000"], "max_denoising_steps must be at most"),
        (["run", "hi", "--redraft", "1000000000"], "redraft must be at most"),
        (["run", "play some jazz", "--max-context", "3"], "the context holds 3"),
        (["plan", "--quick", "--context", "100000000"], "262144 positions at most"),
        (["plan", "--quick", "--batch", "100000000"], "--batch 100000000"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line(words, said, tmp_path, capsys):
    (tmp_path / "BINARY").write_bytes(b"\xff\xfe\x00")
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    (tmp_path / "ROWS").write_text(json.dumps(row) + "\n")
    (tmp_path / "RECIPE").write_text("output: run\ndata: [{path: ROWS}]\ninit: mini\nsteps: 1\nthreads: 100000\n")
    assert main([str(tmp_path / word) if word.isupper() else word for word in words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("words", [["chat"], ["run", "-"]])
def test_a_pipe_of_bytes_is_one_line(engine, words, monkeypatch, capsys):
    # So does a locale without UTF-8 read them.
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\xff\n"), "utf-8", errors="surrogateescape"))
    assert main(words) == 2
    assert "standard input is not UTF-8 text" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--debug", "run", "hi"], ["run", "--debug", "hi"], ["run", "hi", "--debug"]])
def test_debug_stands_anywhere(words, capsys):
    assert main([*words, "--tools", "nowhere.json"]) == 2
    assert "Traceback" in capsys.readouterr().err
    assert main(["run", "hi", "--tools", "nowhere.json"]) == 2
    assert "Traceback" not in capsys.readouterr().err, "it is not remembered"


def test_debug_of_a_command_below_another(capsys):
    assert main(["eval", "text", "--data", "nowhere.jsonl", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def run_command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words], capture_output=True, text=True, timeout=120, env={**os.environ, **environment}
    )


def test_an_unwritable_cache_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    done = run_command("run", "play some jazz", "--seed", "0", XDG_CACHE_HOME=str(tmp_path / "file"))
    warnings = [line for line in done.stderr.splitlines() if "warning" in line]
    assert len(warnings) == 1
    assert "XDG_CACHE_HOME" in warnings[0]
    assert "Warning:" not in done.stderr
    assert done.stdout.startswith("PlayMusic(")


def test_the_first_run_says_what_it_compiles(tmp_path):
    first, second = (run_command("run", "play jazz", XDG_CACHE_HOME=str(tmp_path)) for _ in range(2))
    [line] = [line for line in first.stderr.splitlines() if "compiling" in line]
    assert re.search(r"compiling \d+ C\+\+ kernels for this CPU, once: some \d+ s at most", line)
    assert "compiling" not in second.stderr


def completed(words: str, home: Path) -> list[str]:
    environment = {"_REDRAFT_COMPLETE": "complete_bash", "COMP_WORDS": words, "HOME": str(home)}
    count = len(words.split()) - (not words.endswith(" "))
    return run_command(**environment, COMP_CWORD=str(count)).stdout.split()


def test_the_shell_completes(tmp_path):
    assert {"run", "serve", "presets"} <= set(completed("redraft ", tmp_path))
    assert completed("redraft run --max-new", tmp_path) == ["--max-new-tokens"]
    assert "fast" in completed("redraft run --preset ", tmp_path)
    assert completed("redraft run --mode aut", tmp_path) == ["autoregressive"]
    assert completed("redraft run --quantize int", tmp_path) == ["int8", "int4"]
    assert completed("redraft data get mi", tmp_path) == ["mini"]


def test_completion_installs_itself(tmp_path):
    script = f"{shlex.join(COMMAND)} --install-completion; exit $?"
    (tmp_path / ".bashrc").write_text("# mine\n")
    environment = {**os.environ, "HOME": str(tmp_path), "SHELL": "/bin/bash"}
    main_end, end = pty.openpty()
    done = subprocess.run(
        ["bash", "--norc", "-c", script], env=environment, stdin=end, capture_output=True, text=True, timeout=60
    )
    os.close(main_end), os.close(end)
    assert done.returncode == 0, done.stderr
    assert "bash completion installed" in done.stdout
    rc = (tmp_path / ".bashrc").read_text()
    assert rc.startswith("# mine")
    assert "redraft.sh" in rc
    installed = tmp_path / ".bash_completions" / "redraft.sh"
    assert subprocess.run(["bash", "-n", str(installed)], timeout=60).returncode == 0
    assert "_REDRAFT_COMPLETE" in installed.read_text()


def test_the_plan_fits_eighty_columns(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["plan", "--quick"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    [row] = [line for line in lines if line.startswith("GeForce RTX 5090 ")]
    assert row.split()[-1] == "700", "what others have seen stands beside the bound"


def test_presets_are_told_of_the_model(tmp_path, capsys):
    assert main(["presets"]) == 0
    said = capsys.readouterr().out
    assert "fast" in said
    assert "held-out requests" in said
    rows = [line for line in said.splitlines() if line.startswith("fast ")]
    assert len(rows) == 1
    assert "%" in rows[0]
    (tmp_path / "config.json").write_text("{}")
    assert main(["presets", "--model", str(tmp_path)]) == 0
    assert "not measured yet" in capsys.readouterr().out


def test_a_stranger_s_measurements_break_nothing(tmp_path, capsys):
    wrong = {"presets": {"default": 3, "reference": {"exact_match": "x\x1b[2J"}}, "task": ["\x1b"], "command": None}
    (tmp_path / "presets.json").write_text(json.dumps(wrong))
    assert main(["presets", "--model", str(tmp_path)]) == 0
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("path", [[], ["eval"], ["data"]], ids=" ".join)
def test_no_summary_of_a_command_is_cut(path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*path, "-h"]) == 0
    assert "..." not in capsys.readouterr().out.partition("\n")[2]


@pytest.mark.parametrize("words", [["presets"], ["data", "list"]], ids=" ".join)
def test_lists_fit_eighty_columns(words, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(words) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_a_slip_says_the_way_out(capsys):
    assert main(["run", "hi", "there"]) == 2
    assert "in quotes" in capsys.readouterr().err
    assert main(["rn"]) == 2
    assert "Did you mean 'run'? see" in capsys.readouterr().err
    for flag in ("--tools", "--response-format", "--initial-canvas"):
        assert main(["run", "hi", flag, ""]) == 2
        assert f"{flag} is empty" in capsys.readouterr().err


def test_an_evaluation_says_how_many_rows_there_are_before_the_first_is_answered(tmp_path):
    from redraft.eval.answers import answer
    from redraft.eval.data import read_rows

    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    (tmp_path / "rows").write_text((json.dumps(row) + "\n") * 3)
    seen: list[tuple[int, int]] = []
    rows, engine = read_rows(tmp_path / "rows"), FakeEngine()
    answer(engine, rows, is_wrong=lambda *_: False, on_progress=lambda *at: seen.append(at))
    assert (seen[0], seen[-1]) == ((0, 3), (3, 3))
