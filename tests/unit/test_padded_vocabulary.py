"""Embeddings with more rows than the tokenizer has tokens, as checkpoints are padded; bounds before native calls."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import redraft
from redraft.checkpoint.locate import BUNDLED
from redraft.core.automaton import Edges, TokenAutomaton
from redraft.kernels.class_scores import of_logits
from redraft.kernels.constrained import draw
from redraft.kernels.int4 import int4_products
from redraft.kernels.int8 import PackedInt8, quantised_linear
from redraft.kernels.matrices.int4 import Int4Matrix, quantise_int4
from redraft.kernels.matrices.int8 import Int8Matrix, gate_quantised
from redraft.kernels.native.build import library
from redraft.kernels.norm import rms_norm
from redraft.kernels.watched import Watch

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
        "table": np.array([[1, 0], [1, 1]], np.int32),
        "start": 0,
        "accepting": np.array([False, True]),
        "done": 1,
        "shortest": np.array([1, 0], np.int32),
        "fill": 0,
    }
    return TokenAutomaton.of_table(**{**tables, **changes})


@pytest.mark.parametrize(
    "changes",
    [{"class_of": np.array([0, 2], np.int32)}, {"class_of": np.array([0, -2], np.int32)},
     {"table": np.array([[2, 0], [1, 1]], np.int32)}, {"start": 2}],
)  # fmt: skip
def test_an_automaton_names_nothing_that_it_has_not(changes):
    with pytest.raises(ValueError, match="not"):
        automaton(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"member": np.array([0, 2])},
        {"kinds": np.array([0, 2])},
        {"target": np.array([0, -1])},
        {"source": np.array([0, 7])},
        {"source": np.array([1, 0])},
        {"target": np.array([1])},
        {"begins": np.array([0, 1, 3])},
        {"begins": np.array([0, 0, 2])},
    ],
    ids=str,
)
def test_edges_name_nothing_that_is_not_there(changes):
    good = {"source": [0, 1], "target": [1, 1], "kinds": [0, 1], "member": [0, 1], "begins": [0, 1, 2]}
    arrays = {name: np.array(values, np.int64) for name, values in good.items()}
    whole = automaton()
    made = dataclasses.replace(whole, edges=Edges(**arrays))
    assert made.advance(0, [0, 1]) == 1
    with pytest.raises(ValueError, match="not"):
        dataclasses.replace(whole, edges=Edges(**{**arrays, **changes}))


@pytest.mark.parametrize("V", [3, 5, 4096])
def test_logits_of_another_vocabulary_are_refused_before_c(V):
    with pytest.raises(ValueError, match="classes"):
        of_logits(torch.zeros(2, V), 1.0, automaton().parts)
    with pytest.raises(ValueError, match="classes"):
        Watch(automaton().parts, 2, V, 64, torch.device("cpu"))


def test_other_arguments_of_a_canvas_are_bounded_too():
    whole = automaton()
    scores, uniform = of_logits(torch.zeros(2, 4), 1.0, whole.parts), torch.zeros(2, 2)
    with pytest.raises(ValueError, match="ends"):
        draw(scores, 1.0, whole, 0, np.zeros(1), 2, uniform)
    with pytest.raises(ValueError, match="no state 7"):
        draw(scores, 1.0, whole, 7, np.zeros(2), 2, uniform)
    with pytest.raises(ValueError, match="draws"):
        draw(scores, 1.0, whole, 0, np.zeros(2), 2, torch.zeros(2, 1))
    with pytest.raises(ValueError, match="another automaton"):
        draw(scores, 1.0, automaton(), 0, np.zeros(2), 2, uniform)
    with pytest.raises(ValueError, match="explicit scores"):
        draw(dataclasses.replace(scores, explicit=torch.zeros(2, 9)), 1.0, whole, 0, np.zeros(2), 2, uniform)


needs_compiler = pytest.mark.skipif(library("paths") is None, reason="no compiler")


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
