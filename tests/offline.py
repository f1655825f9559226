"""What the code for a GPU would launch, recorded on the meta device: to be counted, or compiled for any of them."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


def loaded(name: str) -> ModuleType:
    """A script of the GPU benchmark. Its folder is on no path here: names in it are others' as well."""
    path = Path(__file__).parents[1] / "benchmarks" / "gpu" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    # Dataclasses look themselves up there.
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


elsewhere = sys.modules.get("elsewhere") or loaded("elsewhere")
TARGETS, Target, target_named = elsewhere.TARGETS, elsewhere.Target, elsewhere.target_named

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
def recording(target: Target) -> Iterator[Launches]:
    """Everything that happens inside happens as on this GPU, but that nothing is compiled or launched."""
    found = Launches()

    def record(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
        found.kernels.append((kernel, grid, arguments, options))

    with elsewhere.on(target), elsewhere.replaced("target", "launch", record), _Operators(found.operators):
        yield found


def compiled(launched: tuple[Any, ...], target: Target) -> Any:
    """A recorded launch, compiled for a GPU as Triton's JIT would there."""
    from redraft.kernels.triton.dependent import DEPENDENT

    kernel, grid, arguments, options = launched
    if DEPENDENT.value:
        options = options | {"launch_pdl": True}
    with elsewhere.on(target):
        return kernel.warmup(*arguments, grid=grid, **options)


def resources(launched: tuple[Any, ...], target: Target) -> dict[str, int]:
    """`elsewhere.resources` of a recorded launch."""
    return elsewhere.resources(compiled(launched, target))


def meta_model(form: str, target: Target, config: Any = None) -> Any:
    """The released shape, or another, on the meta device as a GPU holds it: int4 beside e4m3, int8, fp8 or bf16."""
    from redraft.bench.shapes import shape_config
    from redraft.checkpoint.rounding import RECIPES, Recipe
    from redraft.kernels.matrices.float8 import Float8Matrix
    from redraft.kernels.matrices.int8 import Int8Matrix
    from redraft.kernels.triton.configs import order_of
    from redraft.kernels.triton.packed import PackedInt4
    from redraft.model.model import DiffusionGemma
    from redraft.placement.quantized import place
    from redraft.placement.runner import place_runner

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
    place_runner(model)
    return model
