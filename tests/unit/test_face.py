"""The face of the package: what `redraft` shows, to people, to type checkers, and before torch is there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

import redraft
from redraft.core.engine import Engine
from redraft.engine.engine import LocalEngine

PACKAGE = Path(redraft.__file__).parent
PROGRAM = """
import redraft
from redraft import Commit, Draft, Generation, GenerationOptions, Request


def answers(text: str) -> list[str]:
    engine = redraft.load("mini", device="cpu", dtype="float32", quantize=None, threads=1)
    reveal_type(engine)
    messages = [{"role": "user", "content": text}]
    reply = engine.generate(messages, seed=0, mode="verified", stop=["."], tools=None)
    reveal_type(reply)
    for call in reply.tool_calls:
        reveal_type(call)
        print(call.name, call.arguments["artist"])
    for event in engine.stream("play jazz", GenerationOptions(seed=1), max_new_tokens=64):
        reveal_type(event)
        if isinstance(event, Draft):
            print(sum(event.accepted), event.entropy_nats[0] < 0.1)
        elif isinstance(event, Commit):
            print(event.text)
        else:
            reveal_type(event)
    batch: list[Request] = [Request(prompt="a", options=GenerationOptions(seed=1)), Request(prompt=[1, 2])]
    batch.append(Request(prompt="b", options={"seed": 2, "max_new_tokens": 8}))
    reveal_type(engine.generate_batch([*batch, "c"]))
    filled = engine.infill("at [[...]] o'clock", seed=0).filled
    reveal_type(filled)
    changed: Generation = engine.edit("play jazz", (5, 9), "make it rock", preset="fast")
    reveal_type(engine.tokenize("hi"))
    reveal_type(engine.pieces([1, 2]))
    reveal_type(engine.info.canvas_length)
    try:
        engine.generate("")
    except redraft.ContextLengthError as error:
        reveal_type(error.prompt_tokens)
    except redraft.RedraftError as error:
        print(error)
    return [reply.text, changed.raw, *(doubt.text for doubt in reply.doubts)]
"""
MISTAKES = """
import redraft

engine = redraft.load("mini")
engine.generate("hi", max_new_token=3)
engine.generate("hi", seed="three")
engine.generate(5)
engine.edit("hello", "hell", "shout")
redraft.GenerationOptions(sed=1)
redraft.GenerationOptions().with_changes(sed=1)
redraft.Request(prompt="hi", options=1)
redraft.load("mini", quantize="int3")
redraft.lode("mini")
"""


def output(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout


def checked(folder: Path, program: str) -> list[tuple[int, str, str]]:
    """(line, severity, message) of what a strict type checker says of a program outside of the project."""
    (folder / "program.py").write_text(program, encoding="utf-8")
    settings = {"typeCheckingMode": "strict", "extraPaths": [str(PACKAGE.parent)], "pythonVersion": "3.11"}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "program.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)
    # What it says of its own version comes before.
    report = json.loads(done.stdout[done.stdout.index("{") :])
    return [(d["range"]["start"]["line"], d["severity"], d["message"]) for d in report["generalDiagnostics"]]


def test_everything_public_is_found_by_dir():
    assert {*redraft.__all__, "__version__"} <= set(dir(redraft))
    assert redraft.__all__ == sorted(redraft.__all__)
    with pytest.raises(AttributeError, match="'lode'"):
        redraft.lode  # noqa: B018


def test_the_package_comes_without_torch_and_lists_what_needs_it():
    said = output(
        "import sys, redraft\n"
        "print('load' in dir(redraft), [name for name in ('torch', 'numpy', 'rich') if name in sys.modules])"
    )
    assert said.split(maxsplit=1) == ["True", "[]\n"]


def test_everything_public_comes_with_a_star():
    assert output("from redraft import *\nprint(load.__name__, load_model.__name__)") == "load load_model\n"


def test_changes_are_the_options():
    """Two lists of one thing: a type checker knows keyword arguments only where they are spelt out."""
    changes, options = get_type_hints(redraft.GenerationChanges), get_type_hints(redraft.GenerationOptions)
    assert list(changes.items()) == list(options.items())


def test_every_call_of_the_engine_has_its_documentation():
    for name in (name for name in vars(Engine) if not name.startswith("_")):
        own = getattr(LocalEngine, name)
        said = (own if own.__doc__ else getattr(Engine, name)).__doc__
        assert said, name


def test_a_strict_type_checker_sees_the_surface_as_it_is_meant(tmp_path):
    found = checked(tmp_path, PROGRAM)
    assert [one for one in found if one[1] != "information"] == []
    types = [message.split('is "')[1].removesuffix('"') for _, _, message in found]
    assert types == [
        "Engine",
        "Generation",
        "ToolCall",
        "Draft | Commit | Generation",
        "Generation",
        "list[Generation]",
        "tuple[str, ...]",
        "list[int]",
        "list[str]",
        "int",
        "int",
    ]


def test_a_type_checker_finds_what_the_engine_would_refuse(tmp_path):
    lines = {line for line, severity, _ in checked(tmp_path, MISTAKES) if severity == "error"}
    assert lines == {number for number, line in enumerate(MISTAKES.splitlines()) if number > 3}
