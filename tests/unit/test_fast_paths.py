"""The fast forms against our own torch reference, on whole generations."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

import redraft
from checkpoints import CANVAS, write_checkpoint
from redraft.checkpoint.load import load_model
from redraft.checkpoint.save import save_checkpoint
from redraft.core.errors import CheckpointError
from redraft.kernels import head_tiles, int8, norm
from redraft.kernels.class_scores import of_logits
from redraft.kernels.groups import Groups
from redraft.kernels.head import head_reference, raw_logits, softcap
from redraft.model import model as model_module

TEXTS = [
    "play some music by Nina Simone",
    "add this tune to my gym playlist",
    "what is the weather in Oslo tomorrow",
    "book a table for two in Rome",
    "give the saga three stars",
    "find the film Casablanca",
    "when is the next showing nearby",
    "how do i change the oil in my car",
]


@pytest.fixture(scope="module")
def mini():
    return redraft.load("mini", dtype="float32", threads=1)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("fast"), eos_token_id=None)


def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes every fast form away: the head's tiles and all that is compiled."""

    def reference(hidden, embedding, *, parts=None, **options):
        stats = head_reference(hidden, embedding, **options)
        if parts is None:
            return stats
        logits = softcap(raw_logits(hidden, embedding), options["cap"])
        return replace(stats, classes=(of_logits(logits, float(options["temperature_N"][0]), parts),))

    monkeypatch.setattr(model_module, "head", reference)
    for module in (norm, int8):
        monkeypatch.setattr(module, "runs_natively", lambda *_, **__: False)


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {}])
def test_float32_is_the_reference_token_for_token_on_mini(mini, monkeypatch, options):
    fast = [mini.generate(text, seed=i, **options).token_ids for i, text in enumerate(TEXTS)]
    plain(monkeypatch)
    slow = [mini.generate(text, seed=i, **options).token_ids for i, text in enumerate(TEXTS)]
    assert fast == slow


@pytest.mark.parametrize("arguments", [{"dtype": "bfloat16"}, {"quantize": "int8"}])
def test_other_kinds_answer_alike(mini, arguments):
    other = redraft.load("mini", threads=1, **arguments)
    ours = [mini.generate(text, seed=0).tool_calls for text in TEXTS]
    theirs = [other.generate(text, seed=0).tool_calls for text in TEXTS]
    assert sum(a == b for a, b in zip(ours, theirs, strict=True)) >= len(TEXTS) - 1


def test_int8_keeps_the_logits_near(directory):
    exact, rounded = load_model(directory), load_model(directory, quantize="int8")
    ids = torch.randint(3, 199, (1, 20), generator=torch.Generator().manual_seed(0))
    canvas = torch.randint(3, 199, (1, CANVAS), generator=torch.Generator().manual_seed(1))
    results = []
    for model in (exact, rounded):
        cache = model.new_cache()
        model.encode(ids, cache)
        results.append(model.denoise(canvas, cache).flatten())
    # A router may choose otherwise where two experts are as likely.
    assert torch.corrcoef(torch.stack(results))[0, 1] > 0.95
    assert not torch.equal(results[0], results[1])


def test_int8_has_the_same_text_alone_and_in_a_batch(directory):
    engine = redraft.load(directory, quantize="int8", threads=1)
    options = {"max_new_tokens": 2 * CANVAS, "max_denoising_steps": 4}
    prompts = [[5, 6, 7], [9] * 30, [11]]
    alone = [engine.generate(prompt, seed=i, **options).token_ids for i, prompt in enumerate(prompts)]
    requests = [redraft.Request(prompt=p, options={"seed": i, **options}) for i, p in enumerate(prompts)]
    assert [reply.token_ids for reply in engine.generate_batch(requests)] == alone


def test_int8_tells_what_it_is_and_cannot_be_saved(directory, tmp_path):
    engine = redraft.load(directory, quantize="int8", threads=1)
    assert engine.info.quantization == "int8"
    assert engine.info.parameters == redraft.load(directory, threads=1).info.parameters
    with pytest.raises(CheckpointError, match="int8"):
        save_checkpoint(engine.model, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_rows_are_rounded_up_only_where_kernels_are_kept(monkeypatch):
    index = torch.tensor([[0, 1], [1, 3], [1, 0]])
    whole = Groups.of(index, 4)
    assert whole.counts == [2, 3, 0, 1]
    assert whole.source.tolist() == [0, 2, 0, 1, 2, 1]
    filled = Groups.of(index, 4, 4)
    assert filled.counts == [4, 4, 0, 4]
    assert filled.source[filled.slot].tolist() == [0, 0, 1, 1, 2, 2]


def test_a_step_leaves_no_memory_behind(tmp_path):
    """In a process of its own: what 40 steps needed is enough for 400."""
    script = f"""
import redraft, sys
from redraft.bench.memory import peak_bytes, reset_peak
engine = redraft.load({str(write_checkpoint(tmp_path / "model", eos_token_id=None))!r}, dtype="float32", threads=1)
run = lambda steps: engine.generate([5, 6, 7], seed=1, max_new_tokens=8, confidence_threshold=0.0,
                                    max_denoising_steps=steps)
run(40)
before = reset_peak()
assert run(400).stats.denoising_steps == 400
print(peak_bytes() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 2 * 2**20


def test_without_a_compiler_the_torch_forms_answer_the_same(mini, monkeypatch):
    fast = [mini.generate(text, seed=1).token_ids for text in TEXTS[:4]]
    for module in (norm, int8):
        monkeypatch.setattr(module, "runs_natively", lambda *_, **__: False)
    monkeypatch.setattr(head_tiles, "library", lambda name: None)
    assert [mini.generate(text, seed=1).token_ids for text in TEXTS[:4]] == fast


def test_loading_imports_no_symbolic_algebra(directory):
    """sympy and torch's decompositions cost 67 MB and most of a second; making a model on the meta device may pull them
    in."""
    script = (
        f"import sys, redraft; redraft.load({str(directory)!r}, dtype='float32', threads=1); "
        "sys.exit('sympy' if 'sympy' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
