"""What is counted of a run's memory besides the weights: by the dtype asked for, the libraries that run, the texts."""

from __future__ import annotations

import math
from typing import Any

from redraft.bench.shapes import shape_config
from redraft.checkpoint.locate import BUNDLED
from redraft.checkpoint.rounding import RECIPES
from redraft.engine.footprint import FORMS, tensor_shapes, weight_bytes, workspace_bytes

FORM = {form.name: form for form in FORMS}


def test_what_is_not_quantised_takes_the_dtype_that_it_is_asked_for():
    config, form = shape_config("tiny"), FORM["int8"]
    narrow, wide = (weight_bytes(config, form, on_cpu=True, itemsize=size)[1] for size in (2, 4))
    shapes = tensor_shapes(config)
    kept = sum(math.prod(shape) for name, shape in shapes.items() if RECIPES["int8"].form_of(shapes, name) is None)
    assert wide - narrow == 2 * kept
    few, many = (
        workspace_bytes(config, form, context=64, batch=1, on_cpu=True, itemsize=size)["hidden"] for size in (2, 4)
    )
    assert many == 2 * few


def test_texts_count_where_a_checkpoint_has_them():
    config = shape_config("tiny")
    options: dict[str, Any] = dict(context=64, batch=1, on_cpu=True)
    work = workspace_bytes(config, FORM["int8"], **options, path=BUNDLED / "mini")
    assert work["text"] > 20e6
    assert work | {"text": 0} == workspace_bytes(config, FORM["int8"], **options)


def test_a_library_counts_where_it_multiplies(monkeypatch):
    sizes = []
    for exact in (True, False):
        monkeypatch.setattr("redraft.engine.footprint.has_exact_products", lambda exact=exact: exact)
        options: dict[str, Any] = dict(context=64, batch=1, on_cpu=True, itemsize=4)
        sizes.append([workspace_bytes(shape_config("tiny"), form, **options)["process"] for form in FORMS])
    least = min(sizes[0])
    assert [size > least for size in sizes[0]] == [form.name in ("int8", "int4") for form in FORMS]
    assert sizes[1] == [least] * len(FORMS)


def test_the_workspace_grows_with_what_it_is_for():
    config = shape_config("full")
    small = workspace_bytes(config, FORM["int8"], context=512, batch=1, on_cpu=True)
    large = workspace_bytes(config, FORM["int8"], context=8192, batch=1, on_cpu=True)
    assert set(small) == set(large)
    assert large["mask"] > small["mask"]
    # A shape has no texts, and a CPU captures nothing.
    assert all((value > 0) == (name not in ("text", "launches")) for name, value in small.items())
    gpu = workspace_bytes(config, FORM["int8"], context=512, batch=1, on_cpu=False)
    assert all((value > 0) == (name != "text") for name, value in gpu.items())
    batched = workspace_bytes(config, FORM["int8"], context=512, batch=8, on_cpu=False)
    assert batched["experts"] > workspace_bytes(config, FORM["int8"], context=512, batch=1, on_cpu=False)["experts"]
