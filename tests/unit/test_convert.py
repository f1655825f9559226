"""Quantising a checkpoint and back: the same bytes however often it was cut off, and nothing wrong goes unseen."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import redraft
from redraft.checkpoint import convert as convert_module
from redraft.checkpoint.convert import export, quantize
from redraft.checkpoint.formats.headers import TensorFiles, entries, read_header
from redraft.checkpoint.locate import BUNDLED
from redraft.checkpoint.rounding import RECIPES, Recipe
from redraft.cli import main
from redraft.core.errors import CheckpointError, InputError, OptionError
from redraft.engine.calibration import importance

MINI = BUNDLED / "mini"
INT4 = RECIPES["int4"]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def quantised(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("quantised") / "mini-int4"
    quantize(MINI, directory, INT4)
    return directory


def copy_of(directory: Path, to: Path) -> Path:
    to.mkdir()
    for path in directory.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


def logits(model) -> torch.Tensor:
    canvas = torch.randint(3, 4000, (1, 48), generator=torch.Generator().manual_seed(0))
    cache = model.new_cache()
    model.encode(canvas[:, :20], cache)
    return model.denoise(canvas, cache)


def relative(seen: torch.Tensor, expected: torch.Tensor) -> float:
    return float((seen - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_quantised_directory_is_what_rounding_on_the_way_gives(tmp_path, name):
    quantize(MINI, tmp_path / "out", RECIPES[name])
    stored, rounded = redraft.load_model(tmp_path / "out"), redraft.load_model(MINI, quantize=name)
    assert torch.equal(logits(stored), logits(rounded))
    assert stored.quantization == rounded.quantization == name
    assert 0.002 < relative(logits(stored), logits(redraft.load_model(MINI))) < 0.1


def test_it_takes_the_memory_that_it_says(quantised):
    stored = entries(TensorFiles.of(quantised))
    experts = [entry for name, entry in stored.items() if ".experts." in name]
    weights = 6 * 8 * 3 * 64 * 192
    assert sum(entry.nbytes for entry in experts) == pytest.approx(weights * 4.25 / 8, rel=0.1)
    assert sum(entry.nbytes for entry in stored.values()) < 0.5 * (MINI / "model.safetensors").stat().st_size


def test_the_engine_answers_with_it(quantised):
    engine = redraft.load(quantised, threads=1, verify=True)
    found = engine.generate("Play the new Daft Punk album", seed=0)
    assert found.finish_reason in ("stop", "tool_calls")
    assert engine.info.quantization == "int4"


def test_a_second_run_keeps_what_is_there(quantised):
    again = quantize(MINI, quantised, INT4)
    assert again.files == (0, 7)


def test_a_run_that_is_killed_at_any_moment_goes_on_to_the_same_bytes(tmp_path, quantised):
    expected = quantize(MINI, quantised, INT4).checksum
    command = [sys.executable, "-c", "import sys; from redraft.cli import main; sys.exit(main())"]
    command += ["quantize", str(MINI), str(tmp_path / "out"), "--threads", "1", "--json"]
    kills = 0
    for attempt in range(40):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        claimed = tmp_path / "out" / "redraft-conversion.json"
        while attempt < 8 and process.poll() is None and not claimed.exists():
            time.sleep(0.005)
        try:
            output, _ = process.communicate(timeout=0.02 * (attempt % 8) if attempt < 8 else None)
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
    assert kills > 0
    assert json.loads(output)["sha256"] == expected
    assert sorted(os.listdir(tmp_path / "out")) == sorted(os.listdir(quantised))
    for path in quantised.glob("*.safetensors"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_a_run_that_fails_leaves_no_file_under_its_name(tmp_path, monkeypatch):
    write, calls = convert_module.write_safetensors, []

    def broken(path, tensors, metadata):
        write(tensors=tensors, path=path, metadata=metadata)
        calls.append(path)
        if len(calls) == 3:
            raise OSError("no space left on device")

    monkeypatch.setattr(convert_module, "write_safetensors", broken)
    with pytest.raises(OSError, match="no space"):
        quantize(MINI, tmp_path / "out", INT4)
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == 2
    with pytest.raises(CheckpointError, match=r"config\.json"):
        redraft.load_model(tmp_path / "out")
    monkeypatch.setattr(convert_module, "write_safetensors", write)
    assert quantize(MINI, tmp_path / "out", INT4).files == (5, 2)


def test_every_corrupted_byte_is_found_with_its_tensor(tmp_path, quantised):
    directory = copy_of(quantised, tmp_path / "copy")
    path = directory / "redraft-00003-of-00007.safetensors"
    header, data = read_header(path)
    header.pop("__metadata__")
    whole = path.read_bytes()
    for name in (
        "router.proj.weight",
        "experts.down_proj.int4",
        "experts.down_proj.int4_scale",
        "o_proj.weight.row_scale",
    ):
        [full] = [tensor for tensor in header if tensor.endswith(name)]
        begin, end = header[full]["data_offsets"]
        broken = bytearray(whole)
        broken[data + (begin + end) // 2] ^= 1
        path.write_bytes(broken)
        with pytest.raises(CheckpointError, match=full):
            redraft.load_model(directory, verify=True)
    path.write_bytes(whole)
    redraft.load_model(directory, verify=True)


@pytest.mark.parametrize("cut", [1, 1000, 400_000])
def test_a_truncated_file_is_always_found(tmp_path, quantised, cut):
    directory = copy_of(quantised, tmp_path / "copy")
    path = directory / "redraft-00003-of-00007.safetensors"
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(CheckpointError, match="redraft-00003"):
        redraft.load_model(directory)


def test_parts_that_do_not_go_together_are_refused(tmp_path, quantised):
    directory = copy_of(quantised, tmp_path / "copy")
    path = directory / "redraft-00003-of-00007.safetensors"
    tensors = load_file(path)
    [scale] = [name for name in tensors if name.endswith("experts.down_proj.int4_scale")]
    for change in (None, tensors[scale][:, :-1], tensors[scale].to(torch.int32)):
        edited = {name: tensor for name, tensor in tensors.items() if name != scale}
        if change is not None:
            edited[scale] = change.contiguous()
        save_file(edited, path)
        (directory / "redraft.safetensors.index.json").unlink(missing_ok=True)
        _index(directory)
        with pytest.raises(CheckpointError, match="int4"):
            redraft.load_model(directory)


def _index(directory: Path) -> None:
    found = {}
    for path in directory.glob("*.safetensors"):
        found |= dict.fromkeys((name for name in read_header(path)[0] if name != "__metadata__"), path.name)
    (directory / "redraft.safetensors.index.json").write_text(json.dumps({"weight_map": found}))


@pytest.mark.parametrize(
    ("field", "value", "said"), [("version", 2, "version 2"), ("experts", None, "experts is None")]
)
def test_a_layout_that_is_newer_or_says_too_little_is_refused(tmp_path, quantised, field, value, said):
    directory = copy_of(quantised, tmp_path / "copy")
    config = json.loads((directory / "config.json").read_text())
    config["quantization_config"][field] = value
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=said):
        redraft.load_model(directory)


def test_transformers_does_not_take_it_for_something_else(quantised):
    from transformers import DiffusionGemmaForBlockDiffusion

    with pytest.raises(OSError, match="no file named model"):
        DiffusionGemmaForBlockDiffusion.from_pretrained(quantised)


def test_export_writes_what_the_integers_stand_for(tmp_path, quantised):
    export(quantised, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "quantization_config" not in config
    quantised_model, exported = redraft.load_model(quantised), redraft.load_model(tmp_path / "out")
    # Activations are rounded in one and not in the other.
    assert relative(logits(exported), logits(quantised_model)) < 0.05
    direct = redraft.load_model(MINI)
    assert relative(logits(exported), logits(direct)) < 0.1
    assert (tmp_path / "out" / "tokenizer.json").exists()


def test_what_cannot_work_is_said_at_once(tmp_path, quantised, monkeypatch, capsys):
    with pytest.raises(OptionError, match="is the source"):
        quantize(quantised, quantised, INT4)
    with pytest.raises(CheckpointError, match="another conversion"):
        quantize(MINI, quantised, Recipe(experts="int8", rest="int8"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="not empty"):
        quantize(MINI, tmp_path / "full", INT4)
    monkeypatch.setattr(convert_module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(OptionError, match=r"GB are free"):
        quantize(MINI, tmp_path / "small", INT4)
    assert main(["quantize", "mini", str(tmp_path / "x"), "--experts", "int3"]) == 2
    assert "int3" in capsys.readouterr().err
    with pytest.raises(InputError, match="checksums"):
        redraft.load_model(MINI, verify=True)


def test_the_command_says_what_would_do_nothing_or_cannot_be_read(tmp_path, capsys):
    texts, binary = tmp_path / "texts.txt", tmp_path / "binary.txt"
    texts.write_text("play jazz\n")
    binary.write_bytes(b"\xff\xfe")
    target = str(tmp_path / "x")
    for arguments, reason in (
        (["--experts", "int8", "--calibrate", str(texts)], "it would change nothing"),
        (["--calibrate", str(binary)], "is not UTF-8 text"),
    ):
        assert main(["quantize", "mini", target, *arguments]) == 2
        assert reason in capsys.readouterr().err
    for command in ("quantize", "export"):
        assert main([command, "mini", str(texts)]) == 2
        assert "cannot be made" in capsys.readouterr().err


def test_calibration_spares_what_the_texts_use(tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("play the new album\nwhat is the weather in Paris tomorrow\n\n")
    assert main(["quantize", "mini", str(tmp_path / "out"), "--calibrate", str(texts), "--json"]) == 0
    plain, steered = redraft.load_model(MINI, quantize="int4"), redraft.load_model(tmp_path / "out")
    assert not torch.equal(logits(plain), logits(steered))
    assert relative(logits(steered), logits(redraft.load_model(MINI))) < 0.1
    texts.write_text("\n")
    with pytest.raises(OptionError, match="at least one line"):
        importance(MINI, texts.read_text().splitlines())
