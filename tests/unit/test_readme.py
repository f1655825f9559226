"""What the README's first screen promises: a right answer, whatever the seed, in few steps."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

import redraft
from redraft.checkpoint.locate import BUNDLED

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
SEEDS = range(12)


def demo() -> str:
    [line] = [line for line in MAKEFILE.splitlines() if "redraft run" in line]
    return re.search(r'"(.*)"', line)[1]  # type: ignore[index]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_demo_is_right_over_seeds_and_settles_soon(dtype):
    engine = redraft.load("mini", dtype=dtype, threads=1)
    replies = [engine.generate(demo(), seed=seed) for seed in SEEDS]
    # What somebody would write down who reads the sentence.
    right = {"artist": "Nina Simone", "playlist_owner": "my", "playlist": "Sunday morning"}
    for reply in replies:
        [call] = reply.tool_calls
        assert (call.name, call.arguments) == ("AddToPlaylist", right)
        assert reply.stats.denoising_steps <= 8
    assert str(replies[0].tool_calls[0]) in README, "the README shows what comes"


def test_the_demo_says_what_comes_next():
    assert "bin/activate" in README
    assert re.search(r"^\t@echo 'Next: \. \$\(BIN\)/activate && redraft chat'$", MAKEFILE, re.M)


def test_the_readme_s_comparison_of_modes_is_what_was_measured():
    measured = json.loads((BUNDLED / "mini" / "presets.json").read_text(encoding="utf-8"))["presets"]
    causal, diffusion = measured["autoregressive, greedy"], measured["default"]
    words = " ".join(README.split())
    times = f"({causal['seconds_per_request']:.2f} against {diffusion['seconds_per_request']:.2f} s a request)"
    assert times in words
    assert f"({causal['exact_match']:.3f} against {diffusion['exact_match']:.3f} of 300 calls wholly right)" in words


def test_extras_are_named_and_there():
    rows = re.findall(r"^\| `(\w+)` \|", README[README.index("| extra |") :], re.M)
    assert set(rows) <= set(EXTRAS)
    assert {"formats", "bench", "docs", "dev"} <= set(rows)
