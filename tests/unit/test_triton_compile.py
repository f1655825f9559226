"""The mixture's kernels compiled, without a GPU, for each family of them: what is launched at the real model's shapes.

A kernel that spills registers, wants more shared memory than there is, or does not multiply by the instruction that it
was written for, would be found out only on the device. Cases need a process whose Triton was imported without its
interpreter, so that they are called `case_...` and run in a pytest of their own.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys

import pytest
import torch

from offline import TARGETS, compiled, elsewhere, recording

E, A, HIDDEN, WIDTH = 128, 8, 2816, 704
# Of few rows an expert and of many.
ROWS = (64, 256)
FORMS = ("int4", "int8", "fp8", "bf16")
# Compute capability 10 multiplies by instructions, and in memory, of its own, for which nothing here was written.
TESTED = [target for target in TARGETS if target[:2] != ("cuda", 100)]
# Compiled in every run of the tests.
QUICK = {(90, "int4", 256), (90, "fp8", 256), (120, "fp8", 64), ("gfx942", "int8", 256)}
CASES = [
    pytest.param(
        target, form, rows, id=f"{target[1]}-{form}-{rows}",
        marks=() if (target[1], form, rows) in QUICK else pytest.mark.full,
    )
    for target in TESTED for form in FORMS for rows in ROWS
]  # fmt: skip
# What the argument of a compiled kernel is known to be.
KNOWN = re.compile(r"%(\w+): [^ ]+((?: \{[^}]*\})?) loc")


def test_compiled_offline():
    if importlib.util.find_spec("triton") is None:
        pytest.skip("no Triton")
    command = [sys.executable, "-m", "pytest", __file__, "-o", "python_functions=case_*", "-p", "no:cacheprovider"]
    environment = os.environ | {"TRITON_INTERPRET": "0", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for line in done.stdout.splitlines():
        if line.startswith("SKIPPED"):
            pytest.skip(line)


def empty(*shape, dtype=torch.bfloat16):
    return torch.empty(shape, dtype=dtype, device="meta")


def stack(form, rows, columns, order):
    """A matrix of every expert."""
    from redraft.kernels.matrices.float8 import Float8Matrix
    from redraft.kernels.matrices.int8 import Int8Matrix
    from redraft.kernels.triton.packed import PackedInt4

    scale = empty(E, rows, dtype=torch.float32)
    if form == "int4":
        tiles = rows // 128, columns // 64
        return PackedInt4(
            data=empty(E, *tiles, 4096, dtype=torch.uint8), scale=empty(E, *tiles, 256, dtype=torch.uint8),
            row_scale=scale, rows=rows, columns=columns, paired=columns == HIDDEN, order=order,
        )  # fmt: skip
    if form == "int8":
        return Int8Matrix(data=empty(E, rows, columns, dtype=torch.int8), scale=scale)
    if form == "fp8":
        return Float8Matrix(data=empty(E, rows, columns, dtype=torch.float8_e4m3fn), scale=scale)
    return empty(E, rows, columns)


def launches(target, form, rows):
    """What a call with the real shapes launches on a target."""
    from redraft.kernels.triton import configs, experts

    order = configs.order_of(*target[:2])
    stacks = stack(form, 2 * WIDTH, HIDDEN, order), stack(form, HIDDEN, WIDTH, order)
    index, weight = empty(rows, A, dtype=torch.int64), empty(rows, A, dtype=torch.float32)
    with recording(target) as found:
        experts.experts_triton(empty(rows, HIDDEN), index, weight, *stacks)
    return found.kernels


def disassembled(cubin):
    """The instructions, by a tool of NVIDIA's that Triton brings."""
    from triton.backends import nvidia

    path = os.path.join(os.path.dirname(nvidia.__file__), "bin", "nvdisasm")
    if not os.path.exists(path):
        pytest.skip("Triton comes without nvdisasm")
    return subprocess.run([path, "-c", cubin], capture_output=True, text=True, check=True).stdout


def check_products(form, architecture, code):
    """The instruction that multiplies is the one for this form, and nothing stands in its way."""
    kinds = re.findall(r"\b([HQI]G?MMA)\b", code)
    letter = {"int8": "I", "fp8": "Q" if architecture >= 89 else "H"}.get(form, "H")
    assert set(kinds) == {letter + ("GMMA" if architecture == 90 else "MMA")}
    if architecture == 90 and form == "int4":
        # Straight from registers: the order of the tiles is that of the operand.
        assert all(operand.startswith("R") for operand in re.findall(r"\bHGMMA\S* R\d+, (\w+)", code))
    if architecture == 90 and letter != "H":
        # A wait for each step of each width of blocks, not for each product.
        assert code.count("WARPGROUP.DEPBAR") <= 3
    if letter == "Q":
        # A sum of a step or less: these keep too few bits of a longer one.
        fresh = re.findall(r"\bQG?MMA\S* .*\bRZ\b", code)
        assert len(fresh) >= len(kinds) / 4


def begin(monkeypatch, tmp_path, target):
    """Triton's cache is empty, if it can compile for this target."""
    import triton
    from triton.backends import backends

    if {"cuda": "nvidia", "hip": "amd"}[target[0]] not in backends:
        pytest.skip(f"Triton comes without {target[0]}")
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))


@pytest.mark.parametrize("target", [("cuda", 90, 32), ("hip", "gfx942", 64)])
def case_it_is_specialised_as_on_the_device(monkeypatch, tmp_path, target):
    from redraft.kernels.triton.attention import attention_triton

    begin(monkeypatch, tmp_path, target)
    keys, own, used = empty(1, 8, 1024, 256), empty(1, 8, 256, 256), empty(1, dtype=torch.int32)
    with recording(target) as found:
        attention_triton(empty(1, 256, 16, 256), keys, keys, own, own, used)
    kernel, _, arguments, _ = launched = found.kernels[0]
    known = dict(KNOWN.findall(compiled(launched, target).asm["ttir"]))
    given = dict(zip((parameter.name for parameter in kernel.params), arguments, strict=False))
    # They are multiples of 16, but vary from launch to launch: nothing may be compiled for that.
    assert given["S"] == 1024
    assert given["L"] == 256
    assert {name: known[name] for name in ("S", "L")} == {"S": "", "L": ""}
    # A pointer into the middle of a tensor, or to its beginning.
    assert "tt.divisibility" not in known["used"]
    assert "tt.divisibility" in known["size"]
    pointers = [name for name, value in given.items() if isinstance(value, torch.Tensor)]
    assert len(pointers) == 9
    assert {name for name in pointers if "tt.divisibility" in known[name]} == {*pointers} - {"used"}
    # What AMD's instructions for buffers need.
    ranged = {name for name in pointers if "tt.pointer_range" in known[name]}
    assert ranged == (set(pointers) if target[0] == "hip" else set())


@pytest.mark.parametrize(("target", "form", "rows"), CASES)
def case_it_fits(monkeypatch, tmp_path, target, form, rows):
    begin(monkeypatch, tmp_path, target)
    names = set()
    for launched in launches(target, form, rows):
        name = launched[0].fn.__name__
        names.add(name)
        made = compiled(launched, target)
        needs = elsewhere.resources(made)
        assert needs["shared"] <= TARGETS[target][0]
        assert needs["spilled"] == 0, name
        if target[0] == "cuda" and name in ("gate_up_kernel", "down_kernel"):
            (tmp_path / "cubin").write_bytes(made.asm["cubin"])
            check_products(form, target[1], disassembled(str(tmp_path / "cubin")))
    assert names - {"round_kernel"} == {"group_kernel", "gate_up_kernel", "down_kernel", "combine_kernel"}
    eight_bits = form == "int8" or (form == "fp8" and target[0] == "cuda" and target[1] >= 89)
    assert ("round_kernel" in names) == eight_bits
