"""The dense 8-bit products in Triton's interpreter, against torch's forms."""

from __future__ import annotations

import pytest
import torch

from interpreted import interpreting, loop_bounds

with interpreting():
    from redraft.kernels import float8, int8
    from redraft.kernels.float8 import float8_linear
    from redraft.kernels.int8 import PackedInt8, int8_linear
    from redraft.kernels.matrices.float8 import Float8Matrix
    from redraft.kernels.matrices.int8 import Int8Matrix, quantise_rows
    from redraft.kernels.triton import dense
    from redraft.placement.quantized import Float8Linear

interpreted = loop_bounds
SMALL = dense.DenseConfig(rows=16, columns=32, depth=32, warps=4, stages=2)
# Rows, columns, rows of the matrix: one of each, none that a tile divides, all of them.
SHAPES = [(1, 1, 1), (5, 33, 7), (18, 100, 70), (32, 64, 64)]


def inputs(rows, columns, matrix_rows):
    generator = torch.Generator().manual_seed(rows + columns)
    x = torch.randn(rows, columns, generator=generator)
    return x, torch.randn(matrix_rows, columns, generator=generator) * columns**-0.5


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (5, 33), (3, 2816)])
def test_rows_are_rounded_as_the_reference_does(rows, columns):
    x, _ = inputs(rows, columns, 1)
    x[0] = 0
    values, scale = dense.rounded_rows(x, torch.int8)
    expected, expected_scale = quantise_rows(x)
    torch.testing.assert_close(scale, expected_scale)
    # A product with the reciprocal may fall on the other side of a half.
    assert int((values.int() - expected.int()).abs().max()) <= 1
    assert (values != expected).float().mean() < 0.01
    assert not values[0].any()
    # Every second row of a wider tensor.
    apart = torch.cat([x, x], dim=1)[:, :columns]
    assert torch.equal(dense.rounded_rows(apart, torch.int8)[0], values)


def test_halves_go_to_even_numbers():
    x = torch.tensor([[127.0, 0.5, 1.5, -0.5, -2.5, 126.5]])
    assert dense.rounded_rows(x, torch.int8)[0].tolist() == [[127, 0, 2, 0, -2, 126]]


@pytest.mark.parametrize(("rows", "columns", "matrix_rows"), SHAPES)
def test_int8_products_are_exact(rows, columns, matrix_rows):
    x, weight = inputs(rows, columns, matrix_rows)
    matrix = Int8Matrix.of(weight)
    values, scale = dense.rounded_rows(x, torch.int8)
    exact = (values.long() @ matrix.data.long().T).float() * matrix.scale * scale[:, None]
    assert torch.equal(dense.dense_int8(x, matrix.data, matrix.scale, SMALL), exact)


def test_every_byte_of_float8_is_widened_exactly():
    codes = torch.arange(256, dtype=torch.uint8)
    codes = codes[(codes & 0x7F) != 0x7F].view(1, -1)
    # Products with the rows of a unit matrix.
    found = dense.dense_float8(
        torch.eye(codes.numel()), codes.view(torch.float8_e4m3fn), torch.ones(1), "widened", SMALL
    )
    assert torch.equal(found.T, codes.view(torch.float8_e4m3fn).float())


@pytest.mark.parametrize("operands", ["widened", "float8"])
@pytest.mark.parametrize(("rows", "columns", "matrix_rows"), SHAPES)
def test_float8_products(rows, columns, matrix_rows, operands):
    x, weight = inputs(rows, columns, matrix_rows)
    matrix = Float8Matrix.of(weight)
    found = dense.dense_float8(x, matrix.data, matrix.scale, operands, SMALL)
    if operands == "float8":
        values, scale = dense.rounded_rows(x, torch.float8_e4m3fn)
        x = values.float() * scale[:, None]
    # The sums are float32 on both sides; values are about 1.
    torch.testing.assert_close(found, x @ matrix.dequantised().T, atol=1e-5, rtol=1e-5)


def test_rows_are_rounded_to_float8():
    x, _ = inputs(6, 200, 1)
    values, scale = dense.rounded_rows(x, torch.float8_e4m3fn)
    assert torch.allclose(scale * 448, x.abs().amax(-1))
    expected = (x * (1 / scale[:, None])).to(torch.float8_e4m3fn)
    assert torch.equal(values.float(), expected.float())


def test_configurations_cover_what_is_asked_for():
    few = dense.dense_config(1, 2816, "int8", shared=232_448, programs=132)
    assert (few.rows, few.columns) == (16, 64)
    many = dense.dense_config(256, 8192, "int8", shared=232_448, programs=132)
    assert (many.rows, many.columns) == (128, 128)
    assert dense.operands_of("cuda", 90) == dense.operands_of("cuda", 120) == "float8"
    assert dense.operands_of("cuda", 80) == dense.operands_of("hip", "gfx942") == "widened"


def test_a_gpu_picks_these(monkeypatch):
    x, weight = inputs(6, 40, 24)
    narrow, eight = Float8Matrix.of(weight), Int8Matrix.of(weight)
    plain = PackedInt8(data=eight.data, scale=eight.scale, columns=40, layout="plain")
    rows = x.view(2, 3, 40)
    picked = []
    for module in (float8, int8):
        monkeypatch.setattr(module, "on_gpu", lambda *_: True)
        monkeypatch.setattr(module, "attempt", lambda name, fast, reference, form="": (picked.append(name), fast())[1])
    torch.testing.assert_close(int8_linear(rows, plain), int8._reference(*quantise_rows(x), plain).view(2, 3, 24))
    found = Float8Linear(narrow)(rows.bfloat16())
    assert (found.shape, found.dtype) == ((2, 3, 24), torch.bfloat16)
    expected = x.bfloat16().float() @ narrow.dequantised().T
    torch.testing.assert_close(found.float().view(6, 24), expected, atol=2.0**-7, rtol=2.0**-7)
    assert picked == ["dense_int8", "dense_float8"]
    # Wider activations, gradients, and no rows.
    float8_linear(x, narrow)
    float8_linear(rows.bfloat16().requires_grad_(), narrow).sum().backward()
    assert len(picked) == 2
    assert int8_linear(x[:0], plain).shape == (0, 24)
    assert float8_linear(x[:0].bfloat16(), narrow).shape == (0, 24)
