"""What the code for a GPU would launch, recorded on the meta device: to be counted, or compiled for any of them."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

# Bytes of shared memory that a program may have, and processors.
TARGETS = {
    ("cuda", 80, 32): (163 * 1024, 108),
    ("cuda", 90, 32): (227 * 1024, 132),
    ("cuda", 120, 32): (99 * 1024, 170),
    ("hip", "gfx942", 64): (64 * 1024, 304),
    ("hip", "gfx1100", 32): (64 * 1024, 48),
}
TYPES = {
    torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.float32: "*fp32", torch.float8_e4m3fn: "*fp8e4nv",
    torch.int64: "*i64", torch.int32: "*i32", torch.int8: "*i8", torch.uint8: "*u8", torch.bool: "*i1",
}  # fmt: skip
# Operators that launch nothing, as far as their names do not say so.
_FREE = {
    "empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided", "detach", "_unsafe_view", "alias",
    "lift_fresh", "unbind", "split", "split_with_sizes", "_reshape_alias", "view", "expand", "as_strided", "permute",
    "transpose", "slice", "select", "squeeze", "unsqueeze", "t", "narrow", "view_as", "chunk",
}  # fmt: skip


@dataclass
class Launches:
    """Kernels of ours, with what they were given, and operators of torch's."""

    kernels: list[tuple[Any, tuple[int, ...], tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    operators: list[str] = field(default_factory=list)

    @property
    def counts(self) -> Counter[str]:
        """By name."""
        return Counter(kernel.fn.__name__ for kernel, *_ in self.kernels) + Counter(self.operators)


class _Operators(TorchDispatchMode):
    def __init__(self, seen: list[str]) -> None:
        super().__init__()
        self._seen = seen

    def __torch_dispatch__(self, operator, types, arguments=(), options=None):  # type: ignore[no-untyped-def]
        name = operator._schema.name.removeprefix("aten::")
        if name not in _FREE:
            self._seen.append(name)
        return operator(*arguments, **(options or {}))


@contextmanager
def recording(monkeypatch: pytest.MonkeyPatch, target: tuple[str, int | str, int]) -> Iterator[Launches]:
    """Everything that happens inside happens as on this GPU, but that nothing is launched."""
    shared, processors = TARGETS[target]
    found = Launches()

    def record(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
        found.kernels.append((kernel, grid, arguments, options))

    from redraft.kernels.triton.dense import operands_of

    replaced = {
        "launch": record,
        "shared_bytes": lambda _, dtype=torch.bfloat16: shared * 2 // max(2, dtype.itemsize),
        "processors": lambda _: processors,
        "lanes": lambda _: target[2],
        "float8_operands": lambda _: operands_of(*target[:2]),
        "target_of": lambda _: target[:2],
        "interpreted": lambda: False,
        "on_gpu": lambda *_: True,
        "attempt": lambda name, fast, reference, form="": fast(),
    }
    for module in _modules():
        for name, value in replaced.items():
            if name in vars(module):
                monkeypatch.setattr(module, name, value)
    with _Operators(found.operators):
        yield found


def _modules() -> list[Any]:
    """All that may hold one of the names."""
    for room in ("kernels", "kernels.triton", "model", "sampler", "engine"):
        package = importlib.import_module(f"redraft.{room}")
        for each in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"redraft.{room}.{each.name}")
    return [module for name, module in sys.modules.items() if name.startswith("redraft.")]


def resources(launched: tuple[Any, ...], target: tuple[str, int | str, int]) -> dict[str, int]:
    """{shared, registers, spilled, and for cuda waits} of a recorded launch, compiled for a GPU as it would be there:
    ones are known, and that pointers, and numbers that 16 divides, are aligned."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel, _, arguments, options = launched
    parameters = {parameter.name: parameter for parameter in kernel.params}
    given = dict(zip(parameters, arguments, strict=False)) | {k: v for k, v in options.items() if k in parameters}
    launch = {key: value for key, value in options.items() if key not in parameters}
    signature, constants, attributes = {}, {}, {}
    for position, (name, value) in enumerate((name, given[name]) for name in parameters):
        if parameters[name].is_constexpr:
            signature[name], constants[(position,)] = "constexpr", value
            continue
        if isinstance(value, int) and value == 1 and not parameters[name].do_not_specialize:
            signature[name], constants[(position,)] = "constexpr", 1
            continue
        is_tensor = isinstance(value, torch.Tensor)
        signature[name] = TYPES[value.dtype] if is_tensor else "fp32" if isinstance(value, float) else "i32"
        if is_tensor or (isinstance(value, int) and value % 16 == 0):
            attributes[(position,)] = [["tt.divisibility", 16]]
    made = triton.compile(
        ASTSource(kernel, signature, constants, attributes), target=GPUTarget(*target), options=launch
    )
    if target[0] == "hip":
        count = {key: int(re.findall(rf"\.{key}:\s+(\d+)", made.asm["amdgcn"])[0]) for key in _HIP}
        return {"shared": made.metadata.shared, "registers": count[_HIP[0]], "spilled": count[_HIP[1]]}
    tool = os.path.join(os.path.dirname(triton.__file__), "backends", "nvidia", "bin", "cuobjdump")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        report = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) .*?LOCAL:(\d+)", report)
    assert found
    registers, stack, local = map(int, found.groups())
    # What programmatic dependent launch needs.
    waits = made.asm["ptx"].count("griddepcontrol.wait")
    return {"shared": made.metadata.shared, "registers": registers, "spilled": stack + local, "waits": waits}


_HIP = ("vgpr_count", "vgpr_spill_count")


def meta_model(form: str, target: tuple[str, int | str, int], config: Any = None) -> Any:
    """The released shape, or another, on the meta device as a GPU holds it: int4 beside e4m3, int8, fp8 or bf16."""
    from redraft.bench.shapes import shape_config
    from redraft.kernels.float8 import Float8Matrix
    from redraft.kernels.int8 import Int8Matrix
    from redraft.kernels.triton.configs import order_of
    from redraft.kernels.triton.packed import PackedInt4
    from redraft.model.model import DiffusionGemma
    from redraft.model.quantized import place
    from redraft.model.rounding import RECIPES, Recipe

    def empty(*shape: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    def made(name: str, shape: tuple[int, ...], kind: str) -> Any:
        rows = empty(*shape[:-1], dtype=torch.float32)
        if kind == "fp8":
            return Float8Matrix(data=empty(*shape, dtype=torch.float8_e4m3fn), scale=rows)
        if kind == "int8":
            return Int8Matrix(data=empty(*shape, dtype=torch.int8), scale=rows)
        E, R, K = shape
        tiles = (E, -(-R // 128), -(-K // 64))
        return PackedInt4(
            data=empty(*tiles, 4096, dtype=torch.uint8), scale=empty(*tiles, 256, dtype=torch.uint8), row_scale=rows,
            rows=R, columns=K, paired="gate_up" in name, order=order_of(*target[:2]),
        )  # fmt: skip

    with torch.device("meta"):
        model = DiffusionGemma(config or shape_config("full"))
    model.backbone.to(torch.bfloat16)
    recipe = {"int4": Recipe(experts="int4", rest="fp8"), "bf16": None}.get(form, RECIPES.get(form))
    shapes = {name: tuple(tensor.shape) for name, tensor in model.backbone.state_dict().items()}
    kinds = {} if recipe is None else {name: recipe.form_of(shapes, name) for name in shapes}
    matrices = {name: made(name, shapes[name], kind) for name, kind in kinds.items() if kind is not None}
    place(model.backbone, matrices, torch.bfloat16)
    return model
