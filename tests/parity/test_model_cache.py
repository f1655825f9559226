"""The cache from the outside: what denoise, fork and cut may and may not change."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from reference import prefilled, random_ids

from checkpoints import CANVAS


@pytest.mark.parametrize("length", [7, 50])
def test_denoise_leaves_no_trace(model: Any, length: int) -> None:
    prompt, canvas = random_ids(1, length, seed=11), random_ids(1, CANVAS, seed=12)
    untouched, cache = prefilled(model, prompt), prefilled(model, prompt)
    first = model.denoise(canvas, cache)
    assert torch.equal(first, model.denoise(canvas, cache))
    assert cache.lengths.tolist() == [length]
    assert torch.equal(model.encode(canvas, cache), model.encode(canvas, untouched))
    assert torch.equal(model.denoise(canvas, cache), model.denoise(canvas, untouched))


@pytest.mark.parametrize("length", [7, 50])
def test_forks_are_independent(model: Any, length: int) -> None:
    prompt, pieces = random_ids(1, length, seed=13), random_ids(3, 1, CANVAS, seed=14)
    trunk = prefilled(model, prompt)
    branch = trunk.fork()
    results = {}
    for name, cache, order in (("branch", branch, (0, 1)), ("trunk", trunk, (1, 2))):
        results[name] = [model.encode(pieces[i], cache) for i in order]
    results["branch"].append(model.denoise(pieces[2], branch))
    results["trunk"].append(model.denoise(pieces[0], trunk))
    for name, order in (("branch", (0, 1, 2)), ("trunk", (1, 2, 0))):
        alone = prefilled(model, prompt)
        expected = [*(model.encode(pieces[i], alone) for i in order[:2]), model.denoise(pieces[order[2]], alone)]
        assert all(torch.equal(a, b) for a, b in zip(results[name], expected, strict=True)), name


@pytest.mark.parametrize("max_length", [1, 128])
@pytest.mark.parametrize(("length", "n"), [(20, 13), (20, 0), (60, 60), (60, 60 - CANVAS), (60, 56), (60, 30), (60, 3)])
def test_cut_and_go_on_equals_never_having_gone_further(model: Any, length: int, n: int, max_length: int) -> None:
    prompt, tail, canvas = (random_ids(1, t, seed=15) for t in (length, 5, CANVAS))
    cache = model.new_cache(batch_size=1, max_length=max_length)
    for piece in prompt.split(CANVAS, dim=1):
        model.encode(piece, cache)
    kept = cache.cut(n)
    assert kept <= n
    assert kept == n or length - n > CANVAS, "one canvas can always be taken back"
    assert cache.lengths.tolist() == [kept]
    if kept < n:
        model.encode(prompt[:, kept:n], cache)
    expected = prefilled(model, prompt[:, :n])
    for _ in range(4):  # far enough for sliding layers to drop positions again
        assert torch.allclose(model.encode(tail, cache), model.encode(tail, expected), rtol=0, atol=5e-4)
        assert torch.allclose(model.denoise(canvas, cache), model.denoise(canvas, expected), rtol=0, atol=5e-4)


def test_cut_in_a_fork_leaves_the_trunk(model: Any) -> None:
    prompt, canvas = random_ids(1, 40, seed=16), random_ids(1, CANVAS, seed=17)
    trunk = prefilled(model, prompt)
    before = model.denoise(canvas, trunk)
    branch = trunk.fork()
    assert branch.cut(35) == 35
    model.encode(canvas, branch)
    assert trunk.lengths.tolist() == [40]
    assert torch.equal(model.denoise(canvas, trunk), before)
