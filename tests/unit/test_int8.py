"""Int8 rows and their products, in C++ and in torch; and the build that makes the C++ one."""

from __future__ import annotations

import functools
import shutil
import stat
from types import SimpleNamespace

import pytest
import torch

from packed_int8 import packed_as
from pretended import Pretended, Rules, pretending
from redraft.core import native
from redraft.kernels import int8, integers
from redraft.kernels.head import raw_logits
from redraft.kernels.int8 import PackedInt8, int8_linear
from redraft.kernels.integers import integer_mm
from redraft.kernels.matrices.int8 import Int8Matrix, quantise_rows
from redraft.kernels.native import build

# (rows, columns, outputs)
LAYOUTS = ("dots", "onednn", "blocks", "plain")
SHAPES = [(1, 1, 1), (1, 8, 5), (7, 33, 19), (3, 64, 1), (64, 192, 768), (5, 768, 24)]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=["native", "torch"])
def form(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr("redraft.kernels.native.call.library", lambda _: None)
    elif build.library("rows") is None:
        pytest.skip("no compiler")


def matrix(rows, columns, seed=0):
    """Rows of very different sizes."""
    generator = torch.Generator().manual_seed(seed)
    size = 10.0 ** (6 * torch.rand(rows, 1, generator=generator) - 3)
    return torch.randn(rows, columns, generator=generator) * size


def in_float64(values, scale):
    return values.double() * scale.double()[:, None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 8), (7, 33), (64, 768)])
def test_rounding_is_within_half_a_step(form, rows, columns, dtype):
    x = matrix(rows, columns).to(dtype)
    values, scale = quantise_rows(x)
    assert (values.dtype, scale.dtype) == (torch.int8, torch.float32)
    assert torch.allclose(scale, x.float().abs().amax(-1) / 127, rtol=1e-6)
    assert (values.int().abs().amax(-1) == 127).all()
    error = (in_float64(values, scale) - x.double()).abs()
    # The ten thousandth is for float32: a value of 127 steps is off by a few units in its last place.
    assert (error <= 0.5 * scale.double()[:, None] * (1 + 1e-4)).all()


def test_ties_go_to_the_even_value(form):
    values, scale = quantise_rows(torch.tensor([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -127.0]]))
    assert values.tolist() == [[127, 0, 2, 2, 0, -2, -127]]
    assert scale.tolist() == [1.0]


def test_a_row_of_zeros_has_scale_zero_and_leaves_others_alone(form):
    x = matrix(3, 40)
    x[1] = 0
    values, scale = quantise_rows(x)
    assert not values[1].any()
    assert scale[1] == 0
    assert torch.equal(values[::2], quantise_rows(x[::2])[0])
    assert not int8_linear(x, packed_as(matrix(6, 40), "plain"))[1].any()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_stays_so_in_its_row(form, value):
    x = matrix(5, 40)
    x[2, 7] = value
    assert quantise_rows(x)[1].isfinite().tolist() == [True, True, False, True, True]
    assert int8_linear(x, PackedInt8.of(Int8Matrix.of(matrix(6, 40)))).isfinite().all(-1).tolist() == [
        True,
        True,
        False,
        True,
        True,
    ]


def test_layout_does_not_matter(form):
    x = matrix(33, 7)
    for seen, copied in zip(quantise_rows(x.T), quantise_rows(x.T.contiguous()), strict=True):
        assert torch.equal(seen, copied)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("rows", "columns", "outputs"), SHAPES)
def test_linear_is_the_product_of_what_was_rounded(form, rows, columns, outputs, layout):
    x, weight = matrix(rows, columns), matrix(outputs, columns, seed=1)
    (left, left_scale), (right, right_scale) = quantise_rows(x), quantise_rows(weight)
    expected = in_float64(in_float64(left.double() @ right.double().T, left_scale).T, right_scale).T
    got = int8_linear(x, packed_as(weight, layout))
    # Sums are exact in int32, or in float32 as they are below 2^24; then each is scaled twice.
    torch.testing.assert_close(got.double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_linear_keeps_leading_dimensions_and_dtype(form, layout):
    x, weight = matrix(6, 33).to(torch.bfloat16), packed_as(matrix(19, 33, seed=1), layout)
    got = int8_linear(x.view(2, 3, 33), weight)
    assert (got.shape, got.dtype) == ((2, 3, 19), torch.bfloat16)
    wide = int8_linear(x.float(), weight)
    assert torch.equal(got.view(6, 19), wide.to(torch.bfloat16))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("columns", [1, 64, 1040, 4096])
def test_extremes_do_not_saturate(form, columns, layout):
    signs = torch.tensor([1.0, -1.0])
    got = int8_linear(
        signs[:, None].expand(2, columns), packed_as(signs[:, None].expand(2, columns).contiguous(), layout)
    )
    torch.testing.assert_close(got, signs[:, None] * signs * columns, rtol=1e-6, atol=0)


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("form", ["native", "torch", "floats", "transposed"])
@pytest.mark.parametrize("kind", [torch.int8, torch.uint8])
@pytest.mark.parametrize(("rows", "columns", "outputs"), SHAPES)
def test_integer_products_are_exact(monkeypatch, rows, columns, outputs, kind, form, given):
    if form not in ("native", "transposed"):
        monkeypatch.setattr("redraft.kernels.native.call.library", lambda _: None)
    if form == "floats":
        monkeypatch.setattr(integers, "has_integer_mm", lambda: False)
    generator = torch.Generator().manual_seed(0)
    left = torch.randint(0, 256, (rows, columns), generator=generator).to(kind)
    right = torch.randint(-127, 128, (outputs, columns), generator=generator).to(torch.int8).T
    left[0], right[:, 0] = (255 if kind == torch.uint8 else -127), -127
    if form == "transposed":
        right = right.contiguous()
    out = torch.full((rows, outputs), 7, dtype=torch.int32) if given else None
    got = integer_mm(left, right, out=out)
    assert got.dtype == torch.int32
    assert torch.equal(got.long(), left.long() @ right.long())
    assert out is None or torch.equal(out, got)


def test_a_cpu_whose_products_saturate_gets_plain_ones(monkeypatch):
    weight, x = matrix(19, 33, seed=1), matrix(7, 33)
    best = int8_linear(x, PackedInt8.of(Int8Matrix.of(weight)))
    product = int8.quantised_linear
    monkeypatch.setattr(int8, "quantised_linear", lambda *given: product(*given).clamp(-(2**15), 2**15 - 1))
    monkeypatch.setattr(int8, "has_exact_products", functools.cache(int8.has_exact_products.__wrapped__))
    assert not int8.has_exact_products()
    monkeypatch.setattr(int8, "quantised_linear", product)
    plain = PackedInt8.of(Int8Matrix.of(weight))
    assert plain.layout != "onednn"
    torch.testing.assert_close(int8_linear(x, plain), best, rtol=1e-6, atol=0)


def test_a_torch_without_the_operators_gets_plain_ones(monkeypatch):
    def missing(*_, **__):
        raise RuntimeError("not implemented")

    monkeypatch.setattr(int8, "quantised_linear", missing)
    monkeypatch.setattr(integers, "_int_mm", lambda: missing)
    assert not int8.has_exact_products.__wrapped__()
    assert not integers.has_integer_mm.__wrapped__()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_are_those_of_the_whole_matrix(dtype):
    weight = matrix(19, 33)
    made = Int8Matrix.of(weight)
    index = torch.tensor([[0, 18, 3], [3, 3, 7]])
    assert torch.equal(made.rows(index, dtype), made.dequantised(dtype)[index])
    assert made.rows(index, dtype).dtype == dtype
    assert ((made.dequantised() - weight).abs() <= made.scale[:, None] * 0.501).all()


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """`library` that remembers nothing, for a folder of sources and a cache of its own."""
    (tmp_path / "answer.h").write_text("constexpr int ANSWER = 42;\n")
    (tmp_path / "answer.cpp").write_text('#include "answer.h"\nextern "C" int answer() { return ANSWER; }\n')
    monkeypatch.setattr(build, "_HERE", tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return functools.cache(build.library.__wrapped__)


def built(tmp_path):
    return sorted(path.name for path in (tmp_path / "cache" / "redraft" / "kernels").iterdir())


@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler")
def test_a_build_is_kept_until_a_source_changes(fresh, monkeypatch, tmp_path):
    assert fresh("answer").answer() == 42
    (first,) = built(tmp_path)
    assert first.startswith("answer-")
    with monkeypatch.context() as patch:
        patch.setattr(native, "_compile", None)
        fresh.cache_clear()
        assert fresh("answer").answer() == 42
    (tmp_path / "answer.h").write_text("constexpr int ANSWER = 43;\n")
    fresh.cache_clear()
    assert fresh("answer").answer() == 43
    assert len(built(tmp_path)) == 2


def test_no_compiler_is_no_library_and_no_warning(fresh, monkeypatch, tmp_path):
    monkeypatch.setattr(native.shutil, "which", lambda _: None)
    assert fresh("answer") is None
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("script", "reason", "timeout_s"), [("echo boom >&2; exit 1", "boom", 60), ("exec /bin/sleep 9", "timed out", 0.1)]
)
def test_a_compiler_that_fails_is_one_warning(fresh, monkeypatch, tmp_path, script, reason, timeout_s):
    (tmp_path / "g++").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "g++").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(native, "_TIMEOUT_S", timeout_s)
    with pytest.warns(UserWarning, match=f"cannot be built.*{reason}") as caught:
        assert [fresh("answer"), fresh("answer")] == [None, None]
    assert len(caught) == 1
    assert not list((tmp_path / "cache").rglob("*.so"))


@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler")
def test_a_cache_that_cannot_be_written_is_a_warning(fresh, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.warns(UserWarning, match="cannot be made or used"):
        assert fresh("answer") is None


@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler")
@pytest.mark.parametrize("name", sorted(path.stem for path in build._HERE.glob("*.cpp")))
def test_every_kernel_that_we_ship_builds(name):
    assert build.library(name) is not None


@pytest.mark.parametrize(("rows", "columns", "outputs"), [(0, 16, 8), (1, 16, 8), (17, 2816, 24), (256, 64, 520)])
def test_products_of_a_gpu_take_few_rows_and_are_exact(rows, columns, outputs):
    if not integers.has_integer_mm():
        pytest.skip("no integer products here")
    generator = torch.Generator().manual_seed(rows)
    left = torch.randint(-127, 128, (rows, columns), dtype=torch.int8, generator=generator)
    right = torch.randint(-127, 128, (outputs, columns), dtype=torch.int8, generator=generator)
    expected = (left.double() @ right.double().T).to(torch.int32)
    assert torch.equal(integers.integer_mm_padded(left, right.T), expected)


@pytest.mark.parametrize("left_type", [torch.int8, torch.uint8])
def test_products_without_float64_are_exact(monkeypatch, left_type):
    """Of the largest integers, at more columns than a sum of float32 holds, on a device of neither."""
    monkeypatch.setattr(integers, "_BLOCK_BYTES", 4 * integers._EXACT_COLUMNS * 7)
    left = torch.full((3, 3000), torch.iinfo(left_type).max, dtype=left_type)
    right = torch.full((20, 3000), -127, dtype=torch.int8)
    left[1, ::2], right[5, ::3] = 1, 127
    expected = (left.double() @ right.double().T).to(torch.int32)
    with pretending("mps", (torch.float64,)):
        found = integers.integer_mm(left.to("mps"), right.to("mps").T).cpu()
    assert torch.equal(found, expected)


def test_int8_logits_of_a_gpu_are_integer_products(monkeypatch):
    """Float64 would take gigabytes at every call; and a card that has no integer products is asked once."""
    ways = []
    for name in ("integer_mm_padded", "integer_mm_in_blocks"):
        monkeypatch.setattr(integers, name, lambda left, right, *out, way=name: ways.append(way))
    device = torch.device("cuda", 0)
    left, right = (Pretended(torch.ones(size, dtype=torch.int8), device) for size in ((3, 16), (16, 8)))
    out = SimpleNamespace(numel=lambda: 24, copy_=lambda x: x)
    for has_them in (True, False):
        monkeypatch.setattr(integers, "has_device_products", lambda asked, found=has_them: asked == device and found)
        with Rules(device, (torch.float64,)):
            integers.integer_mm(left, right, out)
    assert ways == ["integer_mm_padded", "integer_mm_in_blocks"]


def test_no_rows_have_no_logits():
    matrix = Int8Matrix.of(torch.randn(24, 16))
    assert raw_logits(torch.zeros(1, 0, 16), matrix).shape == (1, 0, 24)
