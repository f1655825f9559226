"""Embeddings with more rows than the tokenizer has tokens, as checkpoints are padded; bounds before native calls."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import redraft
from redraft.checkpoint.locate import BUNDLED
from redraft.core.automaton import TokenAutomaton
from redraft.kernels.constrained import draw
from redraft.kernels.int4 import int4_products
from redraft.kernels.int8 import PackedInt8, quantised_linear
from redraft.kernels.matrices.int4 import Int4Matrix, quantise_int4
from redraft.kernels.matrices.int8 import Int8Matrix, gate_quantised
from redraft.kernels.native.build import library
from redraft.kernels.norm import rms_norm

PADDING = 64
MODES = ({}, {"temperature": 0}, {"mode": "autoregressive", "temperature": 0}, {"mode": "verified"})


@pytest.fixture(scope="module")
def padded(tmp_path_factory):
    directory = tmp_path_factory.mktemp("padded")
    shutil.copytree(BUNDLED / "mini", directory, dirs_exist_ok=True)
    tensors = load_file(str(directory / "model.safetensors"))
    name = "model.decoder.embed_tokens.weight"
    tensors[name] = torch.cat([tensors[name], torch.zeros(PADDING, tensors[name].shape[1], dtype=tensors[name].dtype)])
    save_file(tensors, str(directory / "model.safetensors"), metadata={"format": "pt"})
    config = json.loads((directory / "config.json").read_text())
    config["text_config"]["vocab_size"] += PADDING
    (directory / "config.json").write_text(json.dumps(config))
    return redraft.load(directory, dtype="float32", threads=1)


@pytest.mark.parametrize("options", MODES, ids=str)
def test_it_answers_as_it_did(padded, options):
    """Its noise is drawn from a larger vocabulary, so it is the answer that is the same, not each step."""
    for text, name in (("play jazz", "PlayMusic"), ("book a table for two", "BookRestaurant")):
        got = padded.generate(text, seed=0, **options)
        assert [call.name for call in got.tool_calls] == [name]
        assert max(got.token_ids) < 4096


def test_constraints_of_every_kind_hold(padded):
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    for wanted in ({"type": "json_schema", "schema": schema}, {"type": "choice", "choices": ["a", "b"]}):
        got = padded.generate("how old", seed=1, response_format=wanted, max_denoising_steps=4)
        assert got.finish_reason == "stop"
    constraint = padded.prepare("play jazz").sequence.constraint
    assert len(constraint.automaton.class_of) == 4096 + PADDING
    assert set(constraint.automaton.class_of[4096:]) == {-1}


def automaton(**changes):
    tables = {
        "class_of": np.array([0, 1, 0, -1], np.int32),
        "next": np.array([[1, 0], [1, 1]], np.int32),
        "start": 0,
        "accepting": np.array([False, True]),
        "done": 1,
        "shortest": np.array([1, 0], np.int32),
        "fill": 0,
    }
    return TokenAutomaton(**{**tables, **changes})


@pytest.mark.parametrize(
    "changes",
    [{"class_of": np.array([0, 2], np.int32)}, {"class_of": np.array([0, -2], np.int32)},
     {"next": np.array([[2, 0], [1, 1]], np.int32)}, {"start": 2}],
)  # fmt: skip
def test_an_automaton_names_nothing_that_it_has_not(changes):
    with pytest.raises(ValueError, match="not"):
        automaton(**changes)


needs_compiler = pytest.mark.skipif(library("paths") is None, reason="no compiler")


@needs_compiler
@pytest.mark.parametrize("V", [3, 5, 4096])
def test_logits_of_another_vocabulary_are_refused_before_c(V):
    with pytest.raises(ValueError, match="classes"):
        draw(torch.zeros(2, V), 1.0, automaton(), 0, np.zeros(2), 2, torch.zeros(2, 2))


@needs_compiler
def test_other_arguments_of_a_canvas_are_bounded_too():
    logits, uniform = torch.zeros(2, 4), torch.zeros(2, 2)
    with pytest.raises(ValueError, match="ends"):
        draw(logits, 1.0, automaton(), 0, np.zeros(1), 2, uniform)
    with pytest.raises(ValueError, match="no state 7"):
        draw(logits, 1.0, automaton(), 7, np.zeros(2), 2, uniform)
    with pytest.raises(ValueError, match="draws"):
        draw(logits, 1.0, automaton(), 0, np.zeros(2), 2, torch.zeros(2, 1))


def _int4(E, R, K):
    data, scale, row_scale = (
        torch.stack(parts) for parts in zip(*map(quantise_int4, torch.randn(E, R, K)), strict=True)
    )
    return Int4Matrix(data=data, scale=scale, row_scale=row_scale)


@needs_compiler
def test_every_native_product_refuses_what_does_not_fit():
    matrix = _int4(2, 64, 64)
    rows = torch.zeros(3, 64, dtype=torch.int8)
    for counts in ([3], [1, 1], [4, -1], [1, 1, 1]):
        with pytest.raises(ValueError, match="expected"):
            int4_products(rows, counts, matrix)
    with pytest.raises(ValueError, match="expected"):
        int4_products(torch.zeros(3, 32, dtype=torch.int8), [1, 2], matrix)
    with pytest.raises(ValueError, match="expected"):
        rms_norm(torch.zeros(2, 8), torch.ones(4), 1e-6)
    with pytest.raises(ValueError, match="expected"):
        gate_quantised(torch.zeros(3, 8), torch.ones(2))
    packed = PackedInt8.of(Int8Matrix.of(torch.randn(32, 64)))
    if packed.layout == "blocks":
        with pytest.raises(ValueError, match="expected"):
            quantised_linear(torch.zeros(2, 8, dtype=torch.int8), None, packed)
