"""Experts that stay on disk give the same tokens, and take the memory that they are given."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import pytest
import torch

import redraft
from redraft.bench.shapes import shape_config
from redraft.checkpoint import offload
from redraft.checkpoint.convert import quantize
from redraft.checkpoint.locate import BUNDLED
from redraft.checkpoint.random import random_source
from redraft.checkpoint.rounding import RECIPES
from redraft.core.errors import CheckpointError, OptionError
from redraft.engine import offload as planner
from redraft.engine.footprint import FORMS, kv_bytes, weight_bytes, workspace_bytes
from redraft.engine.offload import CONTEXT, streamed_layers

MINI = BUNDLED / "mini"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """mini in each form, by its name."""
    directory = tmp_path_factory.mktemp("forms")
    for name, recipe in RECIPES.items():
        quantize(MINI, directory / name, recipe)
    return {"float32": MINI} | {name: directory / name for name in RECIPES}


def logits(model, cache=None):
    canvas = torch.randint(3, 4000, (1, 48), generator=torch.Generator().manual_seed(0))
    cache = cache or model.new_cache()
    model.encode(canvas[:, :20], cache)
    return model.denoise(canvas, cache)


@pytest.mark.parametrize("form", ["float32", *RECIPES])
@pytest.mark.parametrize("layers", [{0, 1, 2, 3, 4, 5}, {1, 4}, {5}])
def test_streamed_experts_are_the_same(stored, form, layers):
    streamed = redraft.load_model(stored[form], streamed=frozenset(layers))
    assert torch.equal(logits(streamed), logits(redraft.load_model(stored[form])))
    readers = {layer.experts.reader for number, layer in enumerate(streamed.backbone.layers) if number in layers}
    assert len(readers) == 1
    assert readers.pop().bytes_read > 0


def test_a_forward_that_breaks_off_does_not_confuse_the_next(stored):
    model = redraft.load_model(stored["int4"], streamed=frozenset({0, 2, 4}))
    expected = logits(model)
    layer = model.backbone.layers[3]
    handle = layer.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        logits(model)
    handle.remove()
    assert torch.equal(logits(model), expected)


def test_a_file_that_has_become_shorter_is_an_error_not_noise(stored, tmp_path):
    quantize(MINI, tmp_path / "out", RECIPES["int4"])
    model = redraft.load_model(tmp_path / "out", streamed=frozenset({1, 3}))
    path = sorted((tmp_path / "out").glob("*.safetensors"))[2]
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="shorter"):
        logits(model)


def test_pages_are_dropped_where_they_would_push_each_other_out(stored, monkeypatch):
    dropped = []
    monkeypatch.setattr(offload, "available_bytes", lambda: 1000)
    monkeypatch.setattr(offload, "forget", lambda entry: dropped.append(entry.name))
    model = redraft.load_model(stored["int4"], streamed=frozenset({1, 3}))
    expected = logits(redraft.load_model(stored["int4"]))
    assert torch.equal(logits(model), expected)
    assert any("layers.1.experts" in name for name in dropped)


def test_the_engine_takes_what_it_is_given(stored):
    whole = redraft.load(stored["int4"], dtype="float32", threads=1)
    prompt = "Play the new Daft Punk album"
    form = next(form for form in FORMS if form.name == "int4")
    config = whole.model.config
    experts, others = weight_bytes(config, form, on_cpu=True, itemsize=4)
    context = min(CONTEXT, config.max_position_embeddings)
    work = workspace_bytes(config, form, context=CONTEXT, batch=1, on_cpu=True, itemsize=4, path=stored["int4"])
    rest = others + sum(work.values()) + kv_bytes(config, context=CONTEXT, batch=1, itemsize=4)
    assert context <= CONTEXT
    for share, count in ((1.01, 0), (0.7, 4), (0.34, 6)):
        engine = redraft.load(stored["int4"], dtype="float32", threads=1, memory_gb=(rest + share * experts) / 1e9)
        kinds = [type(layer.experts).__name__ for layer in engine.model.backbone.layers]
        assert kinds.count("StreamedExperts") == count
        assert engine.generate(prompt, seed=0).token_ids == whole.generate(prompt, seed=0).token_ids
    with pytest.raises(OptionError, match="without experts"):
        redraft.load(stored["int4"], memory_gb=0.1)
    with pytest.raises(OptionError, match="redraft quantize"):
        redraft.load("mini", quantize="int4", memory_gb=0.1)


def test_streamed_layers_are_spread_evenly():
    source = random_source(shape_config("full"), "full")
    options = dict(device=torch.device("cpu"), dtype=torch.float32, quantize=None, max_context=None)
    assert streamed_layers(source, memory_bytes=20 * 10**9, **options) == frozenset()
    few = sorted(streamed_layers(source, memory_bytes=12 * 10**9, **options))
    assert 8 < len(few) < 30
    assert max(b - a for a, b in itertools.pairwise(few)) <= 30 / len(few) + 1
    more = streamed_layers(source, memory_bytes=8 * 10**9, **options)
    assert len(more) > len(few)


LIMITED = """
import os, resource, sys
import torch
import redraft
from redraft.engine.load import load
redraft.load("mini", threads=1).generate("warm up", max_new_tokens=4, max_denoising_steps=2)
torch.set_num_threads(1)
directory, limit = sys.argv[1], int(sys.argv[2])
# What Python, torch and their libraries address already counts for nothing here.
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + limit, used + limit))
options = dict(threads=1, max_context=256, dtype="float32")
if sys.argv[3] != "-":
    options["memory_gb"] = float(sys.argv[3])
try:
    engine = load(directory, **options)
    print(engine.generate([3, 5, 7, 9], seed=0, max_new_tokens=32, max_denoising_steps=3).token_ids, flush=True)
except (MemoryError, RuntimeError, OSError) as error:
    print("failed", type(error).__name__, error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_half_the_address_space_gives_the_same_text(tmp_path):
    # Experts are nearly all of it.
    config = shape_config("tiny", hidden_size=512, moe_intermediate_size=1024, num_experts=12, num_hidden_layers=16)
    quantize(random_source(config, "wide"), tmp_path / "model", RECIPES["int4"])
    size = sum(path.stat().st_size for path in (tmp_path / "model").glob("*.safetensors"))
    assert size > 150 * 10**6

    def run(limit, memory):
        command = [sys.executable, "-c", LIMITED, str(tmp_path / "model"), str(limit), memory]
        # An arena of its own for each thread would be 64 MB of addresses.
        arenas = {"MALLOC_ARENA_MAX": "1"}
        return subprocess.run(
            command, capture_output=True, text=True, check=True, env=os.environ | arenas
        ).stdout.strip()

    expected = run(1 << 40, "-")
    assert expected.startswith("(")
    assert run(size // 2, "0.5").startswith("failed"), "mapping the whole fits: the limit is none"
    form = next(form for form in FORMS if form.name == "int4")
    workspace = sum(workspace_bytes(config, form, context=256, batch=1, on_cpu=True, itemsize=4).values())
    others = weight_bytes(config, form, on_cpu=True, itemsize=4)[1]
    rest = others + kv_bytes(config, context=256, batch=1, itemsize=4)
    assert run(size // 2, str((workspace + rest + 0.18 * size) / 1e9)) == expected


def test_beside_a_gpu_experts_wait_in_host_memory(monkeypatch):
    source = random_source(shape_config("full"), "full")
    gpu = torch.device("cuda")
    options = dict(device=gpu, dtype=torch.bfloat16, max_context=None)
    free = 24 * 10**9
    monkeypatch.setattr(planner, "_free_bytes", lambda device: free)
    assert streamed_layers(source, quantize=None, memory_bytes=None, **options) == frozenset()
    free = 12 * 10**9
    found = streamed_layers(source, quantize=None, memory_bytes=None, **options)
    assert 5 < len(found) < 25
    assert len(streamed_layers(source, quantize=None, memory_bytes=free, **options)) < len(found)
    # What is rounded on the way can wait there, too, unless it is int8, which would be packed once more.
    assert len(streamed_layers(source, quantize="fp8", memory_bytes=free, **options)) > len(found)
    with pytest.raises(OptionError, match="int8 experts cannot wait"):
        streamed_layers(source, quantize="int8", memory_bytes=free, **options)
    with pytest.raises(OptionError, match="mps has no host memory beside"):
        streamed_layers(source, quantize=None, memory_bytes=free, **options | {"device": torch.device("mps")})
    with pytest.raises(OptionError, match="without experts"):
        streamed_layers(source, quantize=None, memory_bytes=10**9, **options)
