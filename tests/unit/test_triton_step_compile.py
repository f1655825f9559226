"""The Triton kernels of the denoising step, compiled for GPUs that need not be here, at the released shapes.

This file is also the program that compiles them, in a process that has not imported Triton's interpreter.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

# (backend, architecture, threads of a warp, shared bytes that a program may take)
TARGETS = {
    "sm80": ("cuda", 80, 32, 166_912),
    "sm90": ("cuda", 90, 32, 232_448),
    "sm120": ("cuda", 120, 32, 101_376),
    "gfx942": ("hip", "gfx942", 64, 65_536),
    "gfx1100": ("hip", "gfx1100", 32, 65_536),
}
VOCABULARY, ROWS = 262_144, 256
# Those that shared memory or registers bind; the others take seconds more, and are small.
BINDING = ["logits", "soft", "attention_512", "attention_512_used", "heads", "dense_int8"]
SHORT = [("sm90", BINDING), ("gfx942", BINDING)]
LONG = [(target, []) for target in TARGETS]
POINTERS = {
    "*i8": "weight embedding hidden",
    "*i32": "bests",
    "*i64": "argmaxes samples used",
    "*bf16": "weights soft embed_scale queries cached_keys cached_values keys values out x residual scalar "
    "q_weight k_weight cos sin q_out k_out v_out",
    "*fp32": "row_scale column_scale temperature logits uniform tops masses moments entropies log_probs row_tops "
    "row_masses partial totals",
}
OPERANDS = {"int8": "*i8", "float8": "*fp8e4nv", "widened": "*u8"}
FLOATS = ("cap", "eps")
# The others may be any number: positions, parts, tiles.
MULTIPLES_OF_16 = re.compile(r"N|V|D|K|R|[a-z]+_(token|head|slot|row)")


def cases(backend, arch, shared):
    """name -> (kernel, constants, options of the launch, types of pointers that differ from POINTERS)."""
    import torch
    import triton.language as tl

    from redraft.kernels.triton import (
        attention_kernels,
        dense,
        head,
        head_kernels,
        norm,
        rows,
        rows_kernels,
    )
    from redraft.kernels.triton.attention import attention_config

    tiles = head.head_config(ROWS, shared)
    form = {"ROWS": tiles.rows, "COLUMNS": tiles.columns, "DEPTH": tiles.depth, "EVEN": True}
    soft = {"ROWS": tiles.rows, "WIDTH": tiles.width, "DEPTH": tiles.depth, "COMPUTE": tl.bfloat16}
    draw = {"COLUMNS": tiles.columns, "TILES": VOCABULARY // tiles.columns}
    wide = dict.fromkeys(("hidden", "weight", "embedding", "logits"), "*bf16")
    first = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    second = {"num_warps": tiles.warps, "num_stages": tiles.soft_stages}
    kernels, block = head_kernels, {"BLOCK": head.WEIGHTS_BLOCK}
    found = {
        "logits": (kernels.logits_kernel, form | {"INTEGER": False, "COMPUTE": tl.bfloat16}, first, wide),
        "logits_int8": (kernels.logits_kernel, form | {"INTEGER": True, "COMPUTE": tl.int8}, first, {}),
        "finish": (kernels.finish_kernel, draw, {}, wide),
        "weights": (kernels.weights_kernel, block | {"INTEGER": False}, {}, wide),
        "weights_int8": (kernels.weights_kernel, block | {"INTEGER": True}, {}, {}),
        "soft": (kernels.soft_kernel, soft, second, wide),
        "soft_int8": (kernels.soft_kernel, soft, second, {}),
        "sum": (kernels.sum_kernel, {"BLOCK": head.SUM_BLOCK, "INTEGER": False}, {}, wide),
    }
    for size, groups in ((256, 2), (512, 8)):
        chosen = attention_config(size, shared)
        form = {"G": groups, "ROWS": chosen.rows, "KEYS": chosen.keys, "D": size, "DEPTH": 256, "WIDTH": 256}
        form |= {"COMPUTE": tl.bfloat16, "USED": False}
        options = {"num_warps": chosen.warps, "num_stages": chosen.stages}
        found[f"attention_{size}"] = (attention_kernels.attention_kernel, form, options, {})
        found[f"attention_{size}_used"] = (attention_kernels.attention_kernel, form | {"USED": True}, options, {})
        found[f"combine_{size}"] = (attention_kernels.combine_kernel, {"G": groups, "D": size}, {}, {})
    flags = {"BLOCK": 4096, "WEIGHTED": True, "ADDS": True, "SCALES": True}
    for operands in ("int8", dense.operands_of(backend, arch)):
        found[f"dense_{operands}"] = dense_case(operands, shared)
    for kind, dtype in {"int8": torch.int8, "float8": torch.float8_e4m3fn}.items():
        # Where e4m3 is not multiplied, nothing is rounded to it.
        if f"dense_{kind}" in found:
            found[f"round_{kind}"] = (
                rows_kernels.round_kernel, {"MOST": rows.MOST[dtype], "BLOCK": 4096}, {"num_warps": 8},
                {"values": OPERANDS[kind], "scales": "*fp32"},
            )  # fmt: skip
    found["norm"] = (norm.norm_kernel, flags, {"num_warps": 8}, {"weight": "*bf16"})
    found["heads"] = (norm.heads_kernel, {"F": 256}, {"num_warps": 2}, {})
    return found


def dense_case(operands, shared):
    """The widest dense product, of the queries, keys and values of a layer."""
    import triton.language as tl

    from redraft.kernels.triton import dense, dense_kernels

    chosen = dense.dense_config(ROWS, 8192, operands, shared=shared, programs=132)
    form = {"ROWS": chosen.rows, "COLUMNS": chosen.columns, "DEPTH": chosen.depth, "KIND": dense.KINDS[operands]}
    form |= {"EVEN": True, "COMPUTE": tl.bfloat16}
    own = {"weight": OPERANDS[operands], "x": "*bf16" if operands == "widened" else OPERANDS[operands]}
    options = {"num_warps": chosen.warps, "num_stages": chosen.stages}
    return dense_kernels.dense_kernel, form, options, own


def measured(kernel, constants, options, own, target):
    """{shared, and for cuda: registers, stack} of one kernel."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    pointers = {name: kind for kind, names in POINTERS.items() for name in names.split()}
    pointers |= own
    names = list(kernel.arg_names)
    types = {name: pointers.get(name, "fp32" if name in FLOATS else "i32") for name in names}
    types |= dict.fromkeys(constants, "constexpr")
    aligned = [i for i, name in enumerate(names) if types[name][0] == "*" or MULTIPLES_OF_16.fullmatch(name)]
    source = ASTSource(
        kernel,
        types,
        {(names.index(name),): value for name, value in constants.items()},
        # Without it no load is more than one element wide.
        {(i,): [["tt.divisibility", 16]] for i in aligned if types[names[i]] != "constexpr"},
    )
    compiled = triton.compile(source, target=GPUTarget(*target[:3]), options=options)
    found = {"shared": compiled.metadata.shared}
    if target[0] == "cuda":
        tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(compiled.asm["cubin"])
            file.flush()
            report = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
        found |= {key: int(re.findall(rf"{key}:(\d+)", report)[-1]) for key in ("REG", "STACK")}
    else:
        found["REG"] = int(re.findall(r"\.vgpr_count:\s+(\d+)", compiled.asm["amdgcn"])[0])
        found["SPILLED"] = int(re.findall(r"\.vgpr_spill_count:\s+(\d+)", compiled.asm["amdgcn"])[0])
    return found


def main(name, *chosen):
    target = TARGETS[name]
    given = {case: kernel for case, kernel in cases(*target[:2], target[3]).items() if not chosen or case in chosen}
    print(json.dumps({case: measured(*kernel, target=target) for case, kernel in given.items()}))


def missing(name):
    """What cannot be compiled with here, if anything."""
    backend = {"cuda": "nvidia", "hip": "amd"}[TARGETS[name][0]]
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    folder = Path(str(importlib.util.find_spec("triton").origin)).parent / "backends" / backend  # type: ignore[union-attr]
    needed = [folder / "bin" / tool for tool in ("ptxas", "cuobjdump")] if backend == "nvidia" else [folder]
    return next((f"Triton has no {path.name} here" for path in needed if not path.exists()), None)


@pytest.mark.parametrize(
    ("name", "chosen"),
    [*(pytest.param(*case, id=f"{case[0]}-binding") for case in SHORT)]
    + [pytest.param(*case, id=f"{case[0]}-all", marks=pytest.mark.full) for case in LONG],
)
def test_kernels_fit_their_target(name, chosen, tmp_path):
    reason = missing(name)
    if reason:
        pytest.skip(reason)
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    command = [sys.executable, __file__, name, *chosen]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == set(chosen) if chosen else len(found) in (19, 20)
    backend, *_, limit = TARGETS[name]
    assert not {case: x["shared"] for case, x in found.items() if x["shared"] > limit}
    if backend == "cuda":
        assert not {case: x for case, x in found.items() if x["STACK"]}
    elif name == "gfx942":
        assert not {case: x for case, x in found.items() if x["SPILLED"]}


if __name__ == "__main__":
    main(*sys.argv[1:])
