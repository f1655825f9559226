"""The mixture's kernels compiled, without a GPU, for each family of them: what is launched at the real model's shapes.

A kernel that spills registers, or wants more shared memory than there is, would be found out only on the device. Here
launches are recorded on the meta device and compiled instead of run. Like the interpreter's, these cases need a process
whose Triton was imported their way, so that they are called `case_...` and run in a pytest of their own.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys

import pytest
import torch

E, A, HIDDEN, WIDTH, ROWS = 128, 8, 2816, 704, 256

# Bytes of shared memory that a program may have.
TARGETS = {
    ("cuda", 80, 32): 163 * 1024,
    ("cuda", 90, 32): 227 * 1024,
    ("cuda", 120, 32): 99 * 1024,
    ("hip", "gfx942", 64): 64 * 1024,
    ("hip", "gfx1100", 32): 64 * 1024,
}
KERNELS = ["group_kernel", "gate_up_kernel", "down_kernel", "combine_kernel"]
# One kernel of each family is compiled in every run of the tests.
QUICK = {("cuda", 90, "int4", "gate_up_kernel"), ("hip", "gfx942", "int4", "down_kernel")}
CASES = [
    pytest.param(
        target, weights, kernel, marks=() if (*target[:2], weights, kernel) in QUICK else pytest.mark.full,
        id=f"{target[1]}-{weights}-{kernel}",
    )
    for target in TARGETS for weights in ("int4", "fp8", "bf16") for kernel in KERNELS
]  # fmt: skip
TYPES = {torch.bfloat16: "*bf16", torch.float32: "*fp32", torch.int32: "*i32", torch.int64: "*i64", torch.uint8: "*u8"}


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


def launches(monkeypatch, target, weights):
    """What a call with the real shapes launches on a target: name -> (kernel, arguments, options)."""
    from redraft.kernels.float8 import Float8Matrix
    from redraft.kernels.triton import configs, experts, grouping
    from redraft.kernels.triton.packed import PackedInt4

    seen = {}

    def record(kernel, grid, *arguments, **options):
        seen[kernel.fn.__name__] = kernel, arguments, options

    monkeypatch.setattr(experts, "launch", record)
    monkeypatch.setattr(grouping, "launch", record)
    monkeypatch.setattr(experts, "_target", lambda: target[:2])

    def empty(*shape, dtype=torch.bfloat16):
        return torch.empty(shape, dtype=dtype, device="meta")

    def int4(rows, columns, paired):
        tiles = rows // 128, columns // 64
        return PackedInt4(
            data=empty(E, *tiles, 4096, dtype=torch.uint8), scale=empty(E, *tiles, 256, dtype=torch.uint8),
            row_scale=empty(E, rows, dtype=torch.float32), rows=rows, columns=columns, paired=paired,
            order=configs.order_of(*target[:2]),
        )  # fmt: skip

    inputs = empty(ROWS, HIDDEN), empty(ROWS, A, dtype=torch.int64), empty(ROWS, A, dtype=torch.float32)
    if weights == "int4":
        experts.experts_int4(*inputs, int4(2 * WIDTH, HIDDEN, True), int4(HIDDEN, WIDTH, False))
    elif weights == "fp8":
        shapes = (E, 2 * WIDTH, HIDDEN), (E, HIDDEN, WIDTH)
        stacks = (
            Float8Matrix(
                data=empty(*shape, dtype=torch.float8_e4m3fn), scale=empty(*shape[:-1], dtype=torch.float32)
            )
            for shape in shapes
        )  # fmt: skip
        experts.experts_float8(*inputs, *stacks)
    else:
        experts.experts_bf16(*inputs, empty(E, 2 * WIDTH, HIDDEN), empty(E, HIDDEN, WIDTH))
    return seen


def compiled(kernel, arguments, options, target):
    """As the launch would be compiled: pointers, and numbers that 16 divides, are known to be aligned."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, constants, attributes = {}, {}, {}
    for position, (parameter, value) in enumerate(zip(kernel.params, arguments, strict=True)):
        if parameter.is_constexpr:
            signature[parameter.name], constants[parameter.name] = "constexpr", value
            continue
        tensor = isinstance(value, torch.Tensor)
        signature[parameter.name] = TYPES[value.dtype] if tensor else "i32"
        if tensor or value % 16 == 0:
            attributes[(position,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, attributes)
    return triton.compile(source, target=GPUTarget(*target), options=options)


def tool(name, *arguments):
    """What a tool of NVIDIA's that Triton brings says."""
    from triton.backends import nvidia

    path = os.path.join(os.path.dirname(nvidia.__file__), "bin", name)
    if not os.path.exists(path):
        pytest.skip(f"Triton comes without {name}")
    return subprocess.run([path, *arguments], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(("target", "weights", "kernel"), CASES)
def case_it_fits(monkeypatch, tmp_path, target, weights, kernel):
    import triton
    from triton.backends import backends

    if {"cuda": "nvidia", "hip": "amd"}[target[0]] not in backends:
        pytest.skip(f"Triton comes without {target[0]}")
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))
    made = compiled(*launches(monkeypatch, target, weights)[kernel], target)
    assert made.metadata.shared <= TARGETS[target]
    if target[0] == "hip":
        spills = re.findall(r"\.[sv]gpr_spill_count:\s*(\d+)", made.asm["amdgcn"])
        assert spills
        assert set(spills) == {"0"}
        return
    (tmp_path / "cubin").write_bytes(made.asm["cubin"])
    usage = re.search(r"REG:(\d+) STACK:(\d+) .*?LOCAL:(\d+)", tool("cuobjdump", "-res-usage", str(tmp_path / "cubin")))
    assert usage
    assert usage.groups()[1:] == ("0", "0")
    if kernel in ("gate_up_kernel", "down_kernel"):
        code = tool("nvdisasm", "-c", str(tmp_path / "cubin"))
        products = re.findall(r"\bHGMMA\S* R\d+, (\w+)", code) if target[1] == 90 else re.findall(r"\bHMMA", code)
        assert products
        if weights == "int4" and target[1] == 90:
            # Straight from registers: the order of the tiles is that of the operand.
            assert all(operand.startswith("R") for operand in products)
            assert "HMMA" not in code
