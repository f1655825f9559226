"""The Triton forms of the head and of the norms, run by Triton's interpreter."""

from __future__ import annotations

import pytest
import torch

from interpreted import interpreting, loop_bounds

with interpreting():
    from redraft.kernels import attention as torch_attention
    from redraft.kernels import head as torch_head
    from redraft.kernels import norm
    from redraft.kernels.attention import attention, canvas_attention
    from redraft.kernels.head import head, head_reference
    from redraft.kernels.matrices.int8 import Int8Matrix, quantise_rows
    from redraft.kernels.triton import head as fast_head
    from redraft.kernels.triton import norm as fast_norm

interpreted = loop_bounds
CAP, SCALE = 30.0, 4.0
# Tiles that the small shapes below do not divide into.
SMALL_HEAD = fast_head.HeadConfig(rows=16, columns=64, depth=32, width=32, parts=3)
EPS = 1e-6


def head_inputs(rows, vocabulary, width, scale=0.5):
    generator = torch.Generator().manual_seed(rows + vocabulary)
    hidden = torch.randn(rows, width, generator=generator) * scale
    embedding = torch.randn(vocabulary, width, generator=generator)
    temperature = torch.rand(rows, generator=generator) + 0.3
    return hidden, embedding, temperature, torch.rand(rows, generator=generator)


def run_head(function, hidden, embedding, temperature, uniform, **config):
    options = {"cap": CAP, "embed_scale": torch.tensor(SCALE), "temperature_N": temperature, "uniform_N": uniform}
    return function(hidden, embedding, **options, **config)


def log_probs_of(hidden, embedding, temperature):
    logits = torch.tanh(hidden.double() @ embedding.double().T / CAP) * CAP
    return (logits / temperature.double()[:, None]).log_softmax(-1)


def check_head(found, expected, log_probs, uniform, soft_error=2e-5):
    """Sums are float32 on both sides: a unit in the last place of a cap of 30, over the lowest temperature, is 6e-6."""
    assert torch.equal(found.argmax, expected.argmax)
    # Of 16 bits a soft embedding may lack more than of 32.
    assert (found.dropped_mass <= (2.0**-11 if found.soft_embedding.dtype == torch.bfloat16 else 2.0**-24)).all()
    for name in ("entropy", "log_prob", "best_log_prob"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=2e-5, rtol=1e-5)
    # Where the draw falls on the border of two tokens, to float32, either of them is right.
    clear = (log_probs.exp().cumsum(-1) - uniform.double()[:, None]).abs().amin(-1) > 1e-5
    assert int(clear.sum()) >= len(clear) - 1
    assert torch.equal(found.sample[clear], expected.sample[clear])
    torch.testing.assert_close(
        found.soft_embedding.float(), expected.soft_embedding.float(), atol=soft_error * SCALE, rtol=1e-5
    )


@pytest.mark.parametrize(("rows", "vocabulary", "width"), [(1, 1, 16), (9, 53, 16), (16, 128, 32), (37, 300, 40)])
def test_head_against_its_reference(rows, vocabulary, width):
    given = head_inputs(rows, vocabulary, width)
    found = run_head(fast_head.head_triton, *given, config=SMALL_HEAD)
    check_head(found, run_head(head_reference, *given), log_probs_of(*given[:3]), given[3])


def test_head_reads_bfloat16():
    hidden, embedding, temperature, uniform = head_inputs(9, 100, 40)
    hidden, embedding = hidden.bfloat16(), embedding.bfloat16()
    found = run_head(fast_head.head_triton, hidden, embedding, temperature, uniform, config=SMALL_HEAD)
    hidden, embedding = hidden.float(), embedding.float()
    expected = run_head(head_reference, hidden, embedding, temperature, uniform)
    assert found.soft_embedding.dtype == torch.bfloat16
    # The result is cut to 8 bits, twice; the values are about 1.
    check_head(found, expected, log_probs_of(hidden, embedding, temperature), uniform, soft_error=2.0**-6)


def test_head_of_int8():
    hidden, embedding, temperature, uniform = head_inputs(19, 300, 40)
    matrix, (values, scale) = Int8Matrix.of(embedding), quantise_rows(hidden)
    rounded = values * scale[:, None]
    found = run_head(fast_head.head_triton, hidden, matrix, temperature, uniform, config=SMALL_HEAD)
    # Both round the rows that they multiply; only the CPU's form rounds the probabilities.
    expected = run_head(head_reference, rounded, matrix.dequantised(), temperature, uniform)
    check_head(found, expected, log_probs_of(rounded, matrix.dequantised(), temperature), uniform)
    assert torch.equal(found.sample, run_head(head, hidden, matrix, temperature, uniform).sample)


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_head_at_temperature_zero_is_the_limit(kind):
    hidden, embedding, temperature, uniform = head_inputs(12, 100, 32)
    temperature[::2] = 0
    matrix = Int8Matrix.of(embedding) if kind == "int8" else embedding
    found = run_head(fast_head.head_triton, hidden, matrix, temperature, uniform, config=SMALL_HEAD)
    zero = temperature == 0
    assert torch.equal(found.sample[zero], found.argmax[zero])
    assert not found.entropy[zero].any()
    assert not found.log_prob[zero].any()
    assert not found.best_log_prob[zero].any()
    assert float(found.best_log_prob[~zero].max()) < 0
    rows = matrix.rows(found.argmax, torch.float32) if isinstance(matrix, Int8Matrix) else matrix[found.argmax]
    assert torch.equal(found.soft_embedding[zero], rows[zero] * SCALE)
    assert float(found.entropy[~zero].min()) > 0


def test_head_draws_at_the_ends_and_in_passes(monkeypatch):
    monkeypatch.setattr(fast_head, "MAX_ROWS", 8)
    hidden, embedding, _, _ = head_inputs(11, 70, 16)
    uniform = torch.tensor([0.5 * 2.0**-23, 1 - 2.0**-24]).repeat(6)[:11]
    found = run_head(fast_head.head_triton, hidden * 0, embedding, torch.ones(11), uniform, config=SMALL_HEAD)
    assert found.sample.tolist() == [0, 69] * 5 + [0]
    assert torch.allclose(found.entropy, torch.tensor(70.0).log(), atol=1e-5)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_is_not_finite_shows_in_the_entropy():
    hidden, embedding, temperature, uniform = head_inputs(5, 70, 16)
    hidden[3, 2] = float("nan")
    found = run_head(fast_head.head_triton, hidden, embedding, temperature, uniform, config=SMALL_HEAD)
    assert found.entropy.isnan().tolist() == [False, False, False, True, False]
    greedy = run_head(fast_head.head_triton, hidden, embedding, temperature * 0, uniform, config=SMALL_HEAD)
    assert greedy.entropy.isnan().tolist() == [False, False, False, True, False]
    assert 0 <= int(found.sample.min()) <= int(found.sample.max()) < 70


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (3, 40), (2, 2816)])
def test_norm_against_its_reference(rows, width, weighted):
    generator = torch.Generator().manual_seed(width)
    x, weight = torch.randn(rows, 1, width, generator=generator) * 3, torch.randn(width, generator=generator)
    given = (x, weight if weighted else None, EPS)
    torch.testing.assert_close(fast_norm.rms_norm_triton(*given), norm.rms_norm(*given), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scaled", [True, False])
def test_norm_and_residual(scaled):
    generator = torch.Generator().manual_seed(1)
    x, residual = torch.randn(2, 5, 40, generator=generator).unbind(0)
    given = (x, torch.randn(40, generator=generator), residual, torch.tensor([0.7]) if scaled else None, EPS)
    torch.testing.assert_close(fast_norm.norm_add_triton(*given), norm.norm_add(*given), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("size", [16, 256])
def test_heads_are_normed_and_turned(size, shared):
    generator = torch.Generator().manual_seed(size)
    joint = torch.randn(2, 3, 8, size, generator=generator)
    q, k = joint[:, :, :4], joint[:, :, 4:6]
    v = k if shared else joint[:, :, 6:]
    weights = tuple(torch.randn(2, size, generator=generator))
    angles = torch.randn(2, 3, 1, size // 2, generator=generator) * 9
    given = (q, k, v, weights, (angles.cos(), angles.sin()), EPS)
    for found, expected in zip(fast_norm.norm_heads_triton(*given), norm.norm_heads(*given), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_gpu_picks_these(monkeypatch):
    """The same functions on tensors that are said to lie on a GPU."""
    generator = torch.Generator().manual_seed(5)
    logits, q = head_inputs(5, 70, 16), torch.randn(1, 3, 2, 16, generator=generator) / 4
    ck, cv, k, v = (torch.randn(1, 1, count, 16, generator=generator) for count in (5, 5, 3, 3))
    x, residual, weight = torch.randn(3, 16, generator=generator)
    angles = torch.randn(1, 3, 1, 8, generator=generator)
    projected = (q, k.transpose(1, 2), v.transpose(1, 2))
    heads = (*projected, (weight, weight), (angles.cos(), angles.sin()), EPS)
    calls = {
        "head": lambda: run_head(head, *logits).soft_embedding,
        "attention": lambda: attention(q, ck, cv) + canvas_attention(q, ck, cv, k, v),
        "used": lambda: canvas_attention(q, ck, cv, k, v, torch.tensor([3])),
        "norm_add": lambda: norm.norm_add(x, weight, residual, None, EPS),
        "norm_heads": lambda: torch.cat(norm.norm_heads(*heads), dim=2),
    }
    expected, picked = {name: call() for name, call in calls.items()}, []
    for module in (torch_head, torch_attention, norm):
        monkeypatch.setattr(module, "on_gpu", lambda *tensors: True)
        monkeypatch.setattr(module, "attempt", lambda name, fast, reference, form="": (picked.append(name), fast())[1])
    for name, call in calls.items():
        torch.testing.assert_close(call(), expected[name], atol=1e-4, rtol=1e-5)
        assert {"used": "attention"}.get(name, name) == picked[-1]
        picked.clear()
    x.requires_grad_()
    picked.clear()
    norm.norm_add(x, weight, residual, None, EPS).sum().backward()
    assert not picked


@pytest.mark.parametrize(("dtype", "kept"), [(torch.bfloat16, torch.float16), (torch.float32, torch.float32)])
def test_int8_logits_are_as_wide_as_what_they_are_made_of(monkeypatch, dtype, kept):
    """A CPU's draw near a tie is a GPU's only if no digit is lost on the way."""
    seen = {}
    monkeypatch.setattr(fast_head, "stored_dtype", lambda dtype: dtype)
    monkeypatch.setattr(
        fast_head, "launch", lambda kernel, _, *given, **options: seen.setdefault(kernel.__name__, given)
    )
    monkeypatch.setattr(fast_head, "rounded_rows", lambda x, kind: (x.to(kind), x[:, 0].float()))
    hidden, embedding, temperature, uniform = head_inputs(5, 70, 16)
    run_head(fast_head.head_triton, hidden.to(dtype), Int8Matrix.of(embedding), temperature, uniform, config=SMALL_HEAD)
    assert seen["logits_kernel"][5].dtype == kept
    assert seen["weights_kernel"][7].dtype == dtype
