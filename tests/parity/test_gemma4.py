"""Gemma 4 checkpoints, which have the backbone and no canvas mode, against transformers' Gemma 4."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import TOLERANCE, prefilled, random_ids
from safetensors.torch import load_file

import redraft
from checkpoints import WINDOW, edit_json, flatten_config, quiet, write_checkpoint, write_gemma4_checkpoint
from redraft.checkpoint.locate import BUNDLED
from redraft.checkpoint.save import save_checkpoint
from redraft.cli import main
from redraft.core.errors import CheckpointError, OptionError
from redraft.core.options import GenerationOptions
from redraft.engine.stops import Stops

LENGTH = 40
REFUSAL = 'this checkpoint is autoregressive (gemma4); use mode="autoregressive"'
# name: (with towers?, text config)
KINDS: dict[str, tuple[bool, dict[str, Any]]] = {
    "whole": (True, {"eos_token_id": None}),
    "text": (False, {"eos_token_id": None}),
    "own_values": (False, {"eos_token_id": None, "attention_k_eq_v": False}),
}


def reference_of(directory: Path) -> Any:
    with quiet():
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    return model.eval()


@pytest.fixture(scope="module", params=KINDS)
def gemma4(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    whole, text_config = KINDS[request.param]
    return write_gemma4_checkpoint(tmp_path_factory.mktemp(request.param), whole=whole, **text_config)


@pytest.fixture(scope="module")
def theirs(gemma4: Path) -> Any:
    return reference_of(gemma4)


@pytest.fixture(scope="module")
def ours(gemma4: Path) -> Any:
    return redraft.load_model(gemma4)


@pytest.fixture(scope="module")
def engine(gemma4: Path) -> Any:
    return redraft.load(gemma4, dtype="float32", threads=1)


@pytest.fixture
def sound(gemma4: Path, tmp_path: Path) -> Path:
    """A sound checkpoint to be broken."""
    return shutil.copytree(gemma4, tmp_path / "model")


@torch.no_grad()
def their_logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with quiet():
        return model(input_ids=ids).logits.float()


def their_reply(model: Any, prompt: torch.Tensor, **settings: Any) -> list[int]:
    with quiet():
        ids = model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=LENGTH,
            **settings,
        )
    return ids[0, prompt.shape[1] :].tolist()


def scalars(model: Any) -> list[float]:
    return [float(layer.encoder_layer_scalar) for layer in model.backbone.layers]


@pytest.mark.parametrize("length", [1, 7, WINDOW, 61])
def test_encode(ours: Any, theirs: Any, length: int) -> None:
    ids = random_ids(1, length, seed=length)
    expected = their_logits(theirs, ids)
    got = ours.logits(ours.encode(ids, ours.new_cache()))
    assert float(expected.abs().max()) > 5, "the softcap has to bend something"
    assert float((got - expected).abs().max()) <= TOLERANCE


@pytest.mark.parametrize("split", [5, WINDOW, 40])
def test_encode_in_two_pieces(ours: Any, theirs: Any, split: int) -> None:
    ids = random_ids(1, 61, seed=split)
    cache = prefilled(ours, ids[:, :split])
    got = ours.logits(ours.encode(ids[:, split:], cache))
    assert float((got - their_logits(theirs, ids)[:, split:]).abs().max()) <= TOLERANCE


def test_there_is_one_scalar_a_layer_and_it_is_the_files(gemma4: Path, ours: Any) -> None:
    stored = load_file(gemma4 / "model.safetensors")
    by_layer = {name.split(".layers.")[1]: float(t) for name, t in stored.items() if name.endswith("layer_scalar")}
    assert scalars(ours) == [by_layer[f"{i}.layer_scalar"] for i in range(8)]
    assert len(set(scalars(ours))) == 8
    assert not any("self_conditioning" in name for name in ours.state_dict())
    assert sum("layer_scalar" in name for name in ours.state_dict()) == 8


def test_the_flat_config_is_the_same_model(gemma4: Path, ours: Any, tmp_path: Path) -> None:
    flat = flatten_config(gemma4, tmp_path / "flat")
    if not ours.config.layers[-1].shares_key_value:
        # The reference gives such layers the heads of the others, whatever this says.
        edit_json(flat / "config.json", lambda config: config.update(num_global_key_value_heads=1))
    assert redraft.load_model(flat).config == ours.config


def test_denoising_is_refused(ours: Any) -> None:
    canvas = random_ids(1, 8, seed=0)
    for denoise in (ours.denoise, ours.denoise_hidden):
        with pytest.raises(OptionError) as raised:
            denoise(canvas, ours.new_cache())
        assert str(raised.value) == REFUSAL


@pytest.mark.parametrize("length", [1, 13, 40])
def test_greedy_is_the_references_token_for_token(engine: Any, theirs: Any, length: int) -> None:
    prompt = random_ids(1, length, seed=length)
    expected = their_reply(theirs, prompt)
    got = engine.generate(prompt[0].tolist(), mode="autoregressive", temperature=0.0, max_new_tokens=LENGTH)
    assert list(got.token_ids) == expected
    assert len(expected) == LENGTH
    assert len(set(expected)) > 3
    assert got.finish_reason == "length"


def test_the_reply_ends_where_the_references_ends(engine: Any, theirs: Any, sound: Path) -> None:
    prompt = random_ids(1, 20, seed=3)
    whole = their_reply(theirs, prompt)
    place = max(map(whole.index, whole))
    end = whole[place]
    edit_json(sound / "generation_config.json", lambda config: config.update(eos_token_id=[end]))
    expected = their_reply(reference_of(sound), prompt)
    got = redraft.load(sound, dtype="float32", threads=1).generate(prompt[0].tolist(), max_new_tokens=LENGTH)
    assert expected[-1] == end
    assert list(got.token_ids) == expected[:-1] == whole[:place]
    assert place > 2
    assert got.finish_reason == "stop"


def test_a_second_turn_reuses_the_first(engine: Any, theirs: Any) -> None:
    prompt = random_ids(1, 30, seed=8)
    engine.admission.stops = Stops(canvas_length=0, opening=tuple(prompt[0, -2:].tolist()))
    first = engine.generate(prompt[0].tolist(), max_new_tokens=9)
    longer = torch.cat([prompt, torch.tensor([first.token_ids]), random_ids(1, 6, seed=9)], dim=1)
    second = engine.generate(longer[0].tolist(), max_new_tokens=LENGTH)
    assert second.stats.cached_tokens >= 30
    assert list(second.token_ids) == their_reply(theirs, longer)


def test_in_int8_it_still_writes(gemma4: Path) -> None:
    engine = redraft.load(gemma4, dtype="float32", threads=1, quantize="int8")
    assert len(engine.generate([5, 6, 7], max_new_tokens=6).token_ids) == 6


def test_info(engine: Any) -> None:
    assert engine.info.defaults["mode"] == "autoregressive"
    assert engine.info.canvas_length == 1
    assert engine.generate([5, 6, 7], max_new_tokens=5).stats.denoising_steps == 0


@pytest.mark.parametrize("mode", ["diffusion", "verified"])
def test_modes_with_a_canvas_are_refused(engine: Any, mode: str) -> None:
    for request in ({"mode": mode}, {"options": GenerationOptions(mode=mode)}):
        with pytest.raises(OptionError) as raised:
            engine.generate([5, 6, 7], **request)
        assert str(raised.value) == REFUSAL
    with pytest.raises(OptionError, match="gemma4"):
        next(iter(engine.stream([5, 6, 7], mode=mode)))
    with pytest.raises(OptionError, match="gemma4"):
        engine.generate_batch([redraft.Request(prompt=[5, 6, 7], options={"mode": mode})])


@pytest.mark.parametrize("option", [{"initial_canvas": [3, 4]}, {"redraft": 1}, {"preset": "redrafted"}])
def test_options_of_the_canvas_are_refused(engine: Any, option: dict[str, Any]) -> None:
    name = "redraft" if "preset" in option else next(iter(option))
    with pytest.raises(OptionError, match=f"{name} needs the canvas mode; this checkpoint is autoregressive"):
        engine.generate([5, 6, 7], **option)


def test_other_presets_and_a_wrong_mode(engine: Any) -> None:
    assert len(engine.generate([5, 6, 7], preset="trimmed", max_new_tokens=3).token_ids) == 3
    with pytest.raises(OptionError, match="mode must be"):
        engine.generate([5, 6, 7], mode="telepathy")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        # The released one.
        ({"do_sample": True, "temperature": 0.7, "top_k": 64, "top_p": 0.95}, (0.7, 0.95)),
        ({"do_sample": True}, (None, 1.0)),
        ({"temperature": 0.7, "top_p": 0.95}, (0.0, 1.0)),
        ({"do_sample": False, "top_k": 64}, (0.0, 1.0)),
        (None, (None, 1.0)),
    ],
)
def test_generation_defaults(sound: Path, content: dict[str, Any] | None, expected: tuple[Any, float]) -> None:
    if content is None:
        (sound / "generation_config.json").unlink()
    else:
        (sound / "generation_config.json").write_text(json.dumps(content))
    engine = redraft.load(sound, dtype="float32", threads=1)
    options = engine.defaults.options
    assert (options.temperature, options.top_p) == expected
    with pytest.raises(OptionError, match="gemma4"):
        engine.generate([5, 6, 7], mode="diffusion")


def test_a_default_that_cannot_work(sound: Path) -> None:
    (sound / "generation_config.json").write_text('{"do_sample": true, "top_p": 3}')
    with pytest.raises(CheckpointError, match=r"generation_config\.json: top_p"):
        redraft.load(sound, threads=1)


def test_the_command_line_needs_no_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mini = BUNDLED / "mini"
    sizes = json.loads((mini / "config.json").read_text())["text_config"]
    write_gemma4_checkpoint(tmp_path, whole=False, vocab_size=sizes["vocab_size"])
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(mini / name, tmp_path / name)
    command = ["run", "hello", "--model", str(tmp_path), "--max-new-tokens", "4", "--json"]
    assert main(command) == 0
    reply = json.loads(capsys.readouterr().out)
    assert reply["stats"]["denoising_steps"] == 0
    assert main([*command, "--mode", "diffusion"]) == 2
    assert REFUSAL in capsys.readouterr().err


def test_save_round_trip(gemma4: Path, theirs: Any, ours: Any, tmp_path: Path) -> None:
    save_checkpoint(ours, tmp_path)
    before, after = (load_file(path / "model.safetensors") for path in (gemma4, tmp_path))
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    ids = random_ids(1, 40, seed=1)
    assert float((their_logits(reference_of(tmp_path), ids) - their_logits(theirs, ids)).abs().max()) <= TOLERANCE
    assert redraft.load_model(tmp_path).config == ours.config


def test_diffusion_checkpoints_keep_their_canvas(tmp_path: Path) -> None:
    engine = redraft.load(write_checkpoint(tmp_path), dtype="float32", threads=1)
    assert engine.model.config.has_canvas
    assert engine.info.defaults["mode"] == "diffusion"
