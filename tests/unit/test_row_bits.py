"""In int8 what a token gets does not depend on how many are encoded with it, so that a verified text is the causal
mode's own."""

from __future__ import annotations

import pytest
import torch

import redraft
from redraft.kernels.native import build

TEXT = "Book a table for six at a French restaurant near the station tomorrow at noon, and play some jazz until then"


@pytest.fixture(scope="module")
def engine():
    if build.library("attend") is None or build.library("dots") is None:
        pytest.skip("no compiler")
    return redraft.load("mini", dtype="float32", quantize="int8")


@pytest.mark.parametrize("at_once", [1, 3, 8, 20])
def test_encoding_in_parts_changes_no_bit(engine, at_once):
    ids = torch.tensor([engine.tokenize(TEXT)])
    with torch.inference_mode():
        whole = engine.model.encode(ids, engine.model.new_cache())
        cache = engine.model.new_cache()
        parts = [engine.model.encode(part, cache) for part in ids.split(at_once, dim=1)]
    assert torch.equal(torch.cat(parts, dim=1), whole)
