"""Training with pictures: what rows may hold, that it learns from what the engine sees, and that a run goes on."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import redraft
from redraft.checkpoint.load import load_model
from redraft.checkpoint.vision import load_vision
from redraft.core.errors import CheckpointError, DataError, InputError, RecipeError
from redraft.model.cache import KVCache
from redraft.model.images import Placed
from redraft.text.conversations import read_conversations
from redraft.train.behind import encode
from redraft.train.data import open_encoder, read_parts
from redraft.train.forms import form_of
from redraft.train.pictures import open_pictures
from redraft.train.recipe import read_recipe
from redraft.train.run import train
from redraft.train.seeing import Eyes
from redraft.train.soft_cache import SoftCache
from redraft.vision.patches import patches_of
from redraft.vision.tower import Vision
from seeing import noise_pixels
from tiny_recipe import RECIPE, written

ICONS = Path(__file__).parents[2] / "recipes" / "icons"
TOWER = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "patch_size": 4,
    "pooling_kernel_size": 2,
    "position_embedding_size": 160,
    "image_tokens": 70,
}
SCRATCH = {
    "model": RECIPE["model"] | {"vision": TOWER},
    "tokenizer": {"vocab_size": 330, "chat_template": str(ICONS / "chat_template.jinja")},
    "vision": "train",
    "augment": {"swap": 0.5, "word_noise": 0.5, "earlier_turn": 0.3},
    "steps": 4,
    "batch_size": 4,
    "eval_every": 2,
    "held_out": 0.2,
}


def row(number: int, picture: str | None = None) -> dict:
    call = {"name": "Seen", "arguments": {"shade": ["dark", "light"][number % 2]}}
    asked = [{"type": "image", "image": picture or f"shown/{number % 6}.png"}, {"type": "text", "text": "what is it?"}]
    reply = {"role": "assistant", "tool_calls": [{"type": "function", "function": call}]}
    return {"messages": [{"role": "user", "content": asked}, reply]}


def write(folder: Path, rows: list[dict], **changes) -> Path:
    """A recipe with its rows, and six pictures beside them."""
    import yaml

    (folder / "shown").mkdir(parents=True, exist_ok=True)
    for number in range(6):
        Image.fromarray(noise_pixels(20 + number, 30, number)).save(folder / "shown" / f"{number}.png")
    (folder / "data.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    fields = {name: value for name, value in (RECIPE | SCRATCH | changes).items() if value is not None}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(fields))
    return folder / "recipe.yaml"


ROWS = [row(number) for number in range(12)]


def frozen(trained: Path, **changes) -> dict:
    """A recipe that begins with the run from scratch."""
    return {"model": None, "tokenizer": None, "vision": "frozen", "init": str(trained / "whole/run/model")} | changes


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a run from scratch."""
    folder = tmp_path_factory.mktemp("pictures")
    train(write(folder / "whole", ROWS))
    return folder


def test_paths_are_counted_from_a_folder_and_stay_in_it(tmp_path):
    file = tmp_path / "rows" / "data.jsonl"
    file.parent.mkdir()
    (tmp_path / "secret.png").write_bytes(b"")
    (file.parent / "link.png").symlink_to(tmp_path / "secret.png")

    def reads(content, **how):
        asked = {"role": "user", "content": [content, {"type": "text", "text": "what?"}]}
        file.write_text(json.dumps({"messages": [asked, {"role": "assistant", "content": "a cat"}]}))
        [found] = read_conversations(file, **how)
        return found.messages[0]["content"][0]

    inside = {"type": "image", "image": str(file.parent.resolve() / "a" / "b.png")}
    assert reads({"type": "image", "image": "a/b.png"}) == inside
    assert reads({"type": "image", "image": "c/../a/b.png", "text": None}) == inside
    assert reads({"type": "image_url", "image_url": "a/b.png"}) == inside
    detailed = {"type": "image_url", "image_url": {"url": "a/b.png", "detail": "low"}}
    assert reads(detailed) == inside | {"image_tokens": 70}
    assert reads({"type": "image", "image": "secret.png"}, images=tmp_path)["image"] == str(
        (tmp_path / "secret.png").resolve()
    )
    data = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    assert reads(data) == data
    for part, said in [
        ({"type": "image", "image": "../secret.png"}, "leads out of"),
        ({"type": "image", "image": str(tmp_path / "secret.png")}, "leads out of"),
        ({"type": "image", "image": "link.png"}, "leads out of"),
        ({"type": "image_url", "image_url": "../secret.png"}, "leads out of"),
        ({"type": "image", "image": "a\0b"}, "is no path"),
        ({"type": "image", "image": 7}, "the path of a file, got 7"),
        ({"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}, "nothing is fetched"),
        ({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}, "nothing is fetched"),
        ({"type": "image", "image": "a.png", "caption": "x"}, "there is no 'caption'"),
    ]:
        with pytest.raises(DataError, match=rf"data\.jsonl, line 1: message 0, part 0.*{said}"):
            reads(part)


def test_a_row_is_what_the_engine_reads(trained):
    engine = redraft.load(trained / "whole" / "run" / "model", dtype="float32", threads=1)
    assert engine.info.sees
    encoder = open_encoder(trained / "whole" / "run" / "model", 512)
    [first, *_] = read_conversations(trained / "whole" / "data.jsonl")
    [example] = encoder.examples(first, "data.jsonl")
    assert example.prompt == engine.tokenize(first.messages[:1])
    [picture] = example.pictures
    told = [place for place, marked in enumerate(example.told) if marked]
    assert told == list(range(picture.start - 1, picture.end + 1)), "a picture is never foretold"
    reply = engine.generate(first.messages[:1], seed=0)
    assert reply.stats.image_tokens == picture.tokens
    known = json.loads((trained / "whole" / "run" / "model" / "tools.json").read_text())
    assert [tool["function"]["name"] for tool in known["tools"]] == ["Seen"]


@pytest.mark.parametrize("how", [{}, {"canvases": "all"}, {"canvases": "all", "packing": True, "max_length": 200}])
def test_it_encodes_what_inference_encodes(trained, how):
    """Every row of a batch beside the model's own `encode`, and another picture is another row."""
    directory = trained / "whole" / "run" / "model"
    recipe = read_recipe(write(trained / "same", ROWS, **how), [])
    pictures = open_pictures(directory)
    encoder = open_encoder(directory, recipe.max_length, pictures)
    form = form_of(recipe, encoder, 24, 1)
    rows = read_conversations(trained / "same" / "data.jsonl")[:3]
    made = [one for conversation in rows for one in form.found(conversation, "data.jsonl").made]
    batch = form.batch(made, np.random.default_rng(0), trim=False)
    model, vision = load_model(directory), load_vision(directory)
    with torch.no_grad():
        eyes = Eyes(recipe.model_copy(update={"vision": "frozen"}), pictures, directory, torch.device("cpu"))
        states, _ = encode(model, eyes.shown(batch, model))
    begins = {0} if batch.begins is None else set(batch.begins[0].tolist())
    assert len(begins) == (2 if "packing" in how else 1)
    for number, one in enumerate(made[:1] if "packing" in how else made):
        ids = (one.prompt + one.response) if not how else one.ids
        at = next(iter(np.flatnonzero([picture in ids for picture in [ids[0]]])))
        pixels = np.asarray(Image.open(one.pictures[0].source).convert("RGB"))
        soft = vision(patches_of(pixels, vision.config, 70))
        cache = KVCache(model.new_cache().sequences)
        expected = model.encode(torch.tensor([ids]), cache, images=[[Placed(start=one.pictures[0].start, soft=soft)]])
        found = _row_with(batch, states, ids) if "packing" in how else states[number, : len(ids)]
        torch.testing.assert_close(found, expected[0], atol=1e-5, rtol=1e-5)
        assert at == 0


def _row_with(batch, states, ids):
    for row, tokens in enumerate(batch.tokens.tolist()):
        for begin in range(len(tokens) - len(ids) + 1):
            if tokens[begin : begin + len(ids)] == ids:
                return states[row, begin : begin + len(ids)]
    raise AssertionError("no such row")


def test_the_tower_learns_with_the_model(trained):
    run = trained / "whole" / "run"
    before, after = (load_vision(run / name).state_dict() for name in ("initial", "last"))
    assert all(not torch.equal(before[name], after[name]) for name in before)
    state = load_file(run / "state" / "state.safetensors")
    assert any(name.startswith("exp_avg.tower.") for name in state)
    assert any(name.startswith("average.tower.") for name in state)
    assert not (run / "soft_tokens").exists()


@pytest.mark.parametrize("how", ["learns", "frozen"])
def test_a_run_goes_on_bit_for_bit(trained, how):
    changes, whole = ({}, "whole") if how == "learns" else (frozen(trained), "frozen")
    if changes:
        train(write(trained / whole, ROWS, **changes))
    recipe = write(trained / f"{how}-stopped", ROWS, **changes)
    _until(recipe, 3)
    # Made in another process, where a batch names its pictures alone.
    train(recipe, ["workers=1"] if how == "learns" else [])
    assert written(recipe.parent / "run") == written(trained / whole / "run")


def _until(recipe: Path, steps: int) -> None:
    """A run that is told to stop after so many steps."""
    from redraft.train import run
    from redraft.train.stopping import Interrupted, Stop

    class Once(Stop):
        left = steps

        def check(self) -> None:
            if self.deferred:
                self.left -= 1
                if self.left < 0:
                    raise Interrupted(15)

    with pytest.raises(Interrupted):
        run._train(read_recipe(recipe, []), Once())


def test_a_tower_that_stays_looks_at_each_picture_once(trained, monkeypatch):
    looked = []
    forward = Vision.forward
    monkeypatch.setattr(Vision, "forward", lambda self, patches: looked.append(1) or forward(self, patches))
    folder = trained / "cached"
    recipe = write(folder, ROWS, **frozen(trained))
    train(recipe)
    assert len(looked) == 6
    files = sorted((folder / "run" / "soft_tokens").rglob("*.safetensors"))
    assert len(files) == 6
    before, after = (load_vision(path).state_dict() for path in (trained / "whole/run/model", folder / "run/model"))
    assert all(torch.equal(before[name], after[name]) for name in before)
    # Cut off, as by a process that died: that one alone is made again.
    files[0].write_bytes(files[0].read_bytes()[:20])
    train(recipe, ["steps=8"])
    assert len(looked) == 7
    shutil.rmtree(folder / "run")
    train(recipe, ["soft_tokens_gib=0"])
    assert len(looked) > 7 + 6
    assert not (folder / "run" / "soft_tokens").exists()


def test_the_cache_is_bounded_and_of_one_tower(tmp_path):
    soft = torch.ones(64, 8)
    cache = SoftCache(tmp_path, 3 * soft.nbytes, "one")
    for number in range(5):
        assert torch.equal(cache.get(bytes([number]) * 32, 70, lambda n=number: soft * n), soft * number)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2, "a file has a header, too"
    assert torch.equal(cache.get(bytes(32), 70, lambda: pytest.fail("it is there")), soft * 0)
    assert torch.equal(cache.get(bytes(32), 140, lambda: soft * 9), soft * 9)
    SoftCache(tmp_path, 2**20, "two")
    assert not (tmp_path / "one").exists()


def test_bad_pictures_are_named_by_file_and_line(tmp_path):
    rows = [*ROWS[:8], row(0, "shown/none.png"), row(0, "shown/text.png"), row(0, "shown/cut.png")]
    recipe = write(tmp_path, rows)
    (tmp_path / "shown" / "text.png").write_text("no picture")
    whole = (tmp_path / "shown" / "0.png").read_bytes()
    (tmp_path / "shown" / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"data\.jsonl, line 9: .*none\.png: cannot be read"):
        train(recipe)
    result = train(recipe, ["skip_bad=true"])
    assert result["rows_bad"] == 3
    for line, said in ((10, "no PNG, JPEG"), (11, "damaged or cut off")):
        (tmp_path / "data.jsonl").write_text("".join(json.dumps(one) + "\n" for one in [*ROWS[:9], *rows[line - 1 :]]))
        with pytest.raises(DataError, match=rf"data\.jsonl, line 10: .*{said}"):
            train(recipe, ["output=other"])


@pytest.mark.parametrize("how", ["learns", "frozen"])
def test_half_precision_leaves_what_must_be_exact(trained, how):
    from redraft.train.precision import Working

    model = load_model(trained / "whole/run/model").requires_grad_(True)
    config = load_vision(trained / "whole/run/model").config
    model.tower = Vision(dataclasses.replace(config, standardize=True))
    copied = Working(model, torch.bfloat16).model
    tower = copied.tower.vision_tower
    assert (tower.std_bias.dtype, tower.patch_embedder.input_proj.weight.dtype) == (torch.float32, torch.bfloat16)
    changes = {} if how == "learns" else frozen(trained)
    result = train(write(trained / f"half-{how}", ROWS, precision="bfloat16", steps=2, **changes))
    assert result["best_loss"] < 20


def test_what_cannot_be_is_refused(trained, tmp_path):
    with pytest.raises(RecipeError, match="a tower from scratch has nothing to stay as"):
        train(write(tmp_path, ROWS, vision="frozen"))
    adapter = {"model": None, "tokenizer": None, "init": "mini", "adapter": {"rank": 2}}
    with pytest.raises(RecipeError, match="an adapter leaves the tower as it is"):
        train(write(tmp_path, ROWS, **adapter))
    with pytest.raises(DataError, match="line 1: .*there is no vision tower in"):
        train(write(tmp_path, ROWS, **frozen(trained, init="mini")))
    words = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}
    with pytest.raises(RecipeError, match="vision: train needs rows with pictures"):
        train(write(tmp_path, [words] * 12, held_out=0))
    recipe = write(trained / "changed", ROWS)
    train(recipe, ["steps=2"])
    Image.fromarray(noise_pixels(20, 30, 77)).save(trained / "changed" / "shown" / "0.png")
    with pytest.raises(CheckpointError, match="the content of a picture has changed"):
        train(recipe)


def test_an_adapter_learns_from_pictures(trained):
    import redraft.cli.train_judge as judging

    folder = trained / "adapter"
    changes = frozen(trained, adapter={"rank": 2}, grader="calls", canvases="all")
    result = train(write(folder, ROWS, **changes), judge=judging.judge)
    assert result["best_quality"] is not None
    engine = redraft.load(trained / "whole/run/model", adapter=folder / "run" / "adapter", threads=1)
    shown = read_parts(read_recipe(folder / "recipe.yaml", []))[0].train[0].messages[:1]
    assert engine.generate(shown, seed=0, max_new_tokens=24).stats.image_tokens > 0


def test_a_picture_that_changes_under_a_run_ends_it(trained):
    folder = trained / "under"
    recipe = read_recipe(write(folder, ROWS, **frozen(trained)), [])
    directory = trained / "whole" / "run" / "model"
    pictures = open_pictures(directory)
    encoder = open_encoder(directory, 512, pictures)
    [example] = encoder.examples(read_conversations(folder / "data.jsonl")[0], "data.jsonl")
    Image.fromarray(noise_pixels(20, 30, 78)).save(folder / "shown" / "0.png")
    eyes = Eyes(recipe, pictures, directory, torch.device("cpu"))
    with pytest.raises(InputError, match=r"0\.png: has changed since the run began"):
        eyes._soft(example.pictures[0], load_model(directory))
