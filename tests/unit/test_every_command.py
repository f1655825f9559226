"""Every command that takes a model, with every kind of thing that people give for one: it works, or says in one line
why not, and never fails otherwise."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from checkpoints import edit_json, write_gemma4_checkpoint
from quantised import write_in_format, write_source
from quantised_gguf import write_gguf
from redraft.bench.machine import Machine
from redraft.bench.subjects import Redraft, Spec
from redraft.checkpoint.convert import quantize
from redraft.checkpoint.formats.gguf import open_gguf
from redraft.checkpoint.rounding import RECIPES
from redraft.cli import main

MACHINE = Machine(
    cpu="a cpu",
    cores=1,
    threads=1,
    torch="2",
    peak_flops={"float32": 1e9, "bfloat16": 2e9, "int8": 4e9},
    read_bytes_per_s=1e9,
    others_share=0.0,
)
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n"
SHORT = ["--threads", "1", "--max-new-tokens", "4", "--seed", "1"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of each kind, by name."""
    root = tmp_path_factory.mktemp("models")
    plain = write_source(root / "plain")
    gguf, capitals = root / "model.gguf", root / "CAPITALS.GGUF"
    config = json.loads((plain / "config.json").read_text())
    write_gguf(gguf, load_file(plain / "model.safetensors"), config, "gguf-q8_0")
    capitals.write_bytes(gguf.read_bytes())
    open_gguf(gguf).write_tokenizer(plain)
    found = {"plain": plain, "gguf": gguf, "gguf in capitals": capitals}
    for form in ("int8", "int4", "fp8"):
        quantize(plain, root / form, RECIPES[form])
        found[form] = root / form
    for form in ("gptq", "mlx-4bit", "fp8-dynamic"):
        write_in_format(plain, root / f"published-{form}", form)
        found[f"published {form}"] = root / f"published-{form}"
    found["gemma4"] = write_gemma4_checkpoint(root / "gemma4", whole=False)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(plain / name, root / "gemma4" / name)
    return found | refused(root, plain)


def refused(root: Path, plain: Path) -> dict[str, Path]:
    """What is no model."""

    def directory(name: str, *files: str, keep: tuple[str, ...] = ("config.json",)) -> Path:
        made = root / name.replace(" ", "-")
        made.mkdir()
        for kept in keep:
            shutil.copyfile(plain / kept, made / kept)
        for file in files:
            (made / file).write_text(POINTER if file == "model.safetensors" else "{}")
        return made

    for name in ("model.uqff", "notes.txt", "broken.gguf"):
        (root / name).write_text("a text")
    (root / "pointer.gguf").write_text(POINTER)
    found = {
        "a UQFF file": root / "model.uqff",
        "a missing path": root / "missing",
        "a missing file": root / "missing.gguf",
        "a text": root / "notes.txt",
        "a broken GGUF": root / "broken.gguf",
        "a pointer to a GGUF": root / "pointer.gguf",
        "an adapter": directory("adapter", "adapter_config.json", "adapter_model.safetensors", keep=()),
        "an adapter with a config": directory("adapter config", "adapter_config.json", "adapter_model.safetensors"),
        "a pickle": directory("pickle", "pytorch_model.bin"),
        "weights of their makers": directory("makers", "consolidated.safetensors"),
        "a pointer": directory("pointer", "model.safetensors"),
        "weights alone": directory("weights", keep=("model.safetensors",)),
        "nothing": directory("nothing", keep=()),
        "another size": shutil.copytree(plain, root / "sizes"),
        "another model": shutil.copytree(plain, root / "other"),
        "a broken tokenizer": shutil.copytree(plain, root / "tokenizer"),
    }
    edit_json(root / "sizes" / "config.json", lambda config: config["text_config"].update(hidden_size=64))
    edit_json(root / "other" / "config.json", lambda config: config.update(model_type="llama"))
    (root / "tokenizer" / "tokenizer.json").write_text("{}")
    return found


READ = ("plain", "gguf", "gguf in capitals", "int8", "int4", "fp8", "published gptq", "published mlx-4bit",
        "published fp8-dynamic", "gemma4")  # fmt: skip
NOT_READ = ("a UQFF file", "a missing path", "a missing file", "a text", "a broken GGUF", "a pointer to a GGUF",
            "an adapter", "an adapter with a config", "a pickle", "weights of their makers", "a pointer",
            "weights alone", "nothing", "another size", "another model", "a broken tokenizer")  # fmt: skip
MESSAGES = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "world"}]


def command_run(model: str, tmp_path: Path) -> list[str]:
    return ["run", "hello", "--model", model, *SHORT]


def command_chat(model: str, tmp_path: Path) -> list[str]:
    return ["chat", "--model", model, *SHORT]


def command_serve(model: str, tmp_path: Path) -> list[str]:
    return ["serve", "--model", model, "--threads", "1", "--workers", "1"]


def command_eval(model: str, tmp_path: Path) -> list[str]:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"messages": MESSAGES}) + "\n")
    short = [*SHORT[:-2], "--workers", "1"]
    return ["eval", "tool-calls", "--data", str(tmp_path / "rows.jsonl"), "--model", model, *short]


def command_decide(model: str, tmp_path: Path) -> list[str]:
    asked = json.dumps([{"type": "choice", "instructions": "Is it?", "form": "text", "choices": ["a", "b"]}])
    return ["decide", "--text", "hello", "--questions", asked, "--model", model, "--threads", "1"]


def command_bench(model: str, tmp_path: Path) -> list[str]:
    fixed = ["--steps", "1", "--repetitions", "1", "--threads", "1", "--prompt-tokens", "4", "--dtype", "float32"]
    return ["bench", "--model", model, *fixed]


def command_plan(model: str, tmp_path: Path) -> list[str]:
    return ["plan", "--model", model, "--quick", "--device", "h100"]


def command_quantize(model: str, tmp_path: Path) -> list[str]:
    return ["quantize", model, str(tmp_path / "quantised"), "--threads", "1"]


def command_calibrate(model: str, tmp_path: Path) -> list[str]:
    (tmp_path / "texts.txt").write_text("hello world\n")
    return [*command_quantize(model, tmp_path), "--calibrate", str(tmp_path / "texts.txt")]


def command_export(model: str, tmp_path: Path) -> list[str]:
    return ["export", model, str(tmp_path / "exported")]


def command_train(model: str, tmp_path: Path) -> list[str]:
    rows = [{"messages": [{"role": "user", "content": f"hello {i}"}, MESSAGES[1]]} for i in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "output": "run", "data": [{"path": "rows.jsonl"}], "init": model, "steps": 1, "batch_size": 2,
        "warmup_steps": 1, "threads": 1, "held_out": 0.2,
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return ["train", str(tmp_path / "recipe.yaml")]


COMMANDS = (command_run, command_chat, command_serve, command_eval, command_decide, command_bench, command_plan,
            command_quantize, command_calibrate, command_export, command_train)  # fmt: skip
# What cannot work, and is refused; all else that is read does work.
CANNOT = {("gemma4", command_bench), ("gemma4", command_train)}
TRAINS = ("plain", "published gptq", "published mlx-4bit", "published fp8-dynamic")
# A plan needs a config alone, and neither it nor these others need a tokenizer.
WORKS = {("a pickle", command_plan), ("another size", command_plan)}
WORKS |= {("a broken tokenizer", command) for command in (command_plan, command_quantize, command_export)}


class Here:
    """A subject of the bench in this process."""

    def __init__(self, spec: Spec) -> None:
        self.load_s, self.run = 0.0, Redraft(spec).run

    def close(self) -> None:
        pass


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is served, measured of the machine or started in another process."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("redraft.server.run.run", lambda *_, **__: None)
    monkeypatch.setattr("redraft.bench.run.Worker", Here)
    monkeypatch.setattr("redraft.bench.command.measure_machine", lambda: MACHINE)
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n"))


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def code_and_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main(arguments)
    return code, capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__.removeprefix("command_"))
@pytest.mark.parametrize("kind", READ)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("here")
def test_what_is_read_works(
    kind: str,
    command: Callable[[str, Path], list[str]],
    models: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, error = code_and_error(command(str(models[kind]), tmp_path), capsys)
    works = (kind in TRAINS) if command is command_train else (kind, command) not in CANNOT
    assert code == (0 if works else 2), error
    if not works:
        assert error.splitlines()[-1].startswith("redraft: "), error


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__.removeprefix("command_"))
@pytest.mark.parametrize("kind", NOT_READ)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("here")
def test_what_is_not_read_is_said_in_one_line(
    kind: str,
    command: Callable[[str, Path], list[str]],
    models: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, error = code_and_error(command(str(models[kind]), tmp_path), capsys)
    if (kind, command) in WORKS:
        assert code == 0, error
        return
    assert code == 2, error
    assert "Traceback" not in error
    assert error.splitlines()[-1].startswith("redraft: "), error


def test_the_table_is_whole(models: dict[str, Path]) -> None:
    assert set(models) == {*READ, *NOT_READ}
