"""A model of random weights made on the device, tensor by tensor, in the form that it runs in; routers that reach as
many experts as wanted; caches that are full without a prompt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from clock import Clock
from torch import Tensor

from redraft.checkpoint.rounding import RECIPES, Recipe
from redraft.kernels.matrices import Matrix
from redraft.kernels.matrices.float8 import Float8Matrix
from redraft.kernels.matrices.int4 import BYTES, COLUMNS, ROWS, Int4Matrix
from redraft.kernels.matrices.int8 import Int8Matrix
from redraft.model.cache import KVCache
from redraft.model.config import ModelConfig
from redraft.model.feedforward import Router
from redraft.model.model import DiffusionGemma
from redraft.placement.quantized import place
from redraft.placement.runner import place_runner

# As `redraft.load(quantize=...)` has them, but that int4 has float8 beside it, where a CPU has int8.
FORMS: dict[str, Recipe | None] = {"int4": Recipe(experts="int4", rest="fp8"), "fp8": RECIPES["fp8"], "bf16": None}
DTYPE = torch.bfloat16
# Root mean squares of what is drawn: integers from -8..7 times scales of 1 to 31/16, and integers from -127..127.
_INT4_SIZE, _INT8_SIZE = 21.5**0.5 * 1.47, (127 * 128 / 3) ** 0.5
_SCALE_CODES = (0x70, 0x80)
# e4m3 ends at 448, nine of these away.
_FLOAT8_SIZE = 48.0
# All positions attend to much the same. At full size that would make them alike, and a router would send them all
# to the same few experts.
_ATTENTION_SHARE = 0.1


def random_model(config: ModelConfig, form: str, device: torch.device, seed: int = 0) -> DiffusionGemma:
    """A model whose matrices have a root mean square of 1 / sqrt(columns), in one of FORMS."""
    with torch.device("meta"):
        model = DiffusionGemma(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.backbone.state_dict().items()}
    generator = torch.Generator(device).manual_seed(seed)
    recipe = FORMS[form]
    matrices: dict[str, Matrix] = {}
    loaded: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        kind = None if recipe is None else recipe.form_of(shapes, name)
        if kind is None:
            loaded[name] = _plain(name, shape, device, generator)
        else:
            matrices[name] = _MAKERS[kind](shape, device, generator)
    place(model.backbone, matrices, DTYPE)
    model.backbone.load_state_dict(loaded, assign=True)
    model.backbone.build_rotary(device)
    model.quantization = None if recipe is None else form
    place_runner(model)
    return model.eval().requires_grad_(False)


def _plain(name: str, shape: tuple[int, ...], device: torch.device, generator: torch.Generator) -> Tensor:
    if name.endswith(("q_norm.weight", "k_norm.weight")):
        # Attention has no 1 / sqrt(head size): at 1 it would be saturated.
        return torch.full(shape, shape[0] ** -0.25, dtype=DTYPE, device=device)
    if name.endswith("post_attention_layernorm.weight"):
        return torch.full(shape, _ATTENTION_SHARE, dtype=DTYPE, device=device)
    if len(shape) == 1:
        return torch.ones(shape, dtype=DTYPE, device=device)
    return torch.randn(shape, dtype=DTYPE, device=device, generator=generator).mul_(shape[-1] ** -0.5)


def int4_matrix(shape: tuple[int, ...], device: torch.device, generator: torch.Generator) -> Int4Matrix:
    """A stack of random matrices [E, R, K]."""
    E, R, K = shape
    blocks = (E, R // ROWS, K // COLUMNS)
    data = torch.empty(*blocks, BYTES, dtype=torch.uint8, device=device).random_(generator=generator)
    scale = torch.randint(*_SCALE_CODES, (*blocks, ROWS), generator=generator, dtype=torch.uint8, device=device)
    return Int4Matrix(data=data, scale=scale, row_scale=torch.full((E, R), K**-0.5 / _INT4_SIZE, device=device))


def int8_matrix(shape: tuple[int, ...], device: torch.device, generator: torch.Generator) -> Int8Matrix:
    """A random matrix [R, K], or a stack of them."""
    data = torch.empty(shape, dtype=torch.int8, device=device).random_(-127, 128, generator=generator)
    return Int8Matrix(data=data, scale=torch.full(shape[:-1], shape[-1] ** -0.5 / _INT8_SIZE, device=device))


def float8_matrix(shape: tuple[int, ...], device: torch.device, generator: torch.Generator) -> Float8Matrix:
    """A random matrix [R, K], or a stack of them."""
    drawn = torch.randn(shape, dtype=DTYPE, device=device, generator=generator).mul_(_FLOAT8_SIZE)
    scale = torch.full(shape[:-1], shape[-1] ** -0.5 / _FLOAT8_SIZE, device=device)
    return Float8Matrix(data=drawn.to(torch.float8_e4m3fn), scale=scale)


_MAKERS: dict[str, Callable[..., Any]] = {"int4": int4_matrix, "int8": int8_matrix, "fp8": float8_matrix}


class Models:
    """One model at a time: two of the full shape do not fit."""

    def __init__(self, config: ModelConfig, clock: Clock, *, branches: bool = True) -> None:
        """`branches`: whether a layer may do one thing beside another, as far as it does."""
        self.config, self.clock, self._branches = config, clock, branches
        self._form, self._model = "", None

    def get(self, form: str) -> DiffusionGemma:
        """The model of this form, made now unless it was the last one."""
        if self._model is None or self._form != form:
            self.drop()
            self._model, self._form = random_model(self.config, form, self.clock.device), form
            if not self._branches:
                self._model.without_branches()
        return self._model

    def drop(self) -> None:
        """Frees the model."""
        self._model, self._form = None, ""
        self.clock.empty_cache()


def reach(config: ModelConfig, touched: int) -> int:
    """Experts that stand for `touched` of 128 in this config."""
    return max(config.top_k_experts, round(config.num_experts * touched / 128))


def _routers(model: DiffusionGemma) -> list[Router]:
    return [layer.router for layer in model.backbone.layers]  # type: ignore[misc]


def set_routers(model: DiffusionGemma, experts: int, seed: int = 0) -> None:
    """Makes every router choose among that many experts of its layer, others in each.

    A row of zeros has a logit of 0, which is not among the highest of many that are drawn around 0.
    """
    generator = torch.Generator().manual_seed(seed)
    for router in _routers(model):
        weight = router.proj.weight
        drawn = torch.randn(weight.shape, generator=generator)
        drawn[torch.randperm(len(weight), generator=generator)[experts:]] = 0.0
        # In place: a captured step reads it there.
        weight.copy_(drawn)


def experts_touched(model: DiffusionGemma, work: Callable[[], object]) -> dict[str, float]:
    """Distinct experts that a call of `work` reaches in a layer: mean, least and most over the layers."""
    counts: list[Tensor] = []
    # The modules' own run where a prompt or a token is encoded.
    routers = [*_routers(model), *(layer.router for layer in getattr(model.runner, "layers", ()))]
    handles = [
        router.register_forward_hook(lambda module, given, found: counts.append(found[0].unique()))  # type: ignore[union-attr]
        for router in routers
    ]
    try:
        work()
    finally:
        for handle in handles:
            handle.remove()
    sizes = [len(count) for count in counts]
    return {"mean": sum(sizes) / len(sizes), "least": min(sizes), "most": max(sizes)}


def filled_cache(model: DiffusionGemma, batch: int, context: int, room: int, seed: int = 0) -> KVCache:
    """A cache of random keys and values, about as large as normed ones, with room for `room` positions more."""
    generator = torch.Generator(model.device).manual_seed(seed)
    cache = model.new_cache(batch, context + room)
    for sequence in cache.sequences:
        for layer, window in zip(sequence.layers, sequence.windows, strict=True):
            count = context if window is None else min(context, window - 1)
            heads, _, size = layer.keys.shape
            shape = (heads, count, size)
            keys = torch.randn(shape, dtype=model.dtype, device=model.device, generator=generator)
            values = torch.randn(shape, dtype=model.dtype, device=model.device, generator=generator)
            layer.append(keys.mul_(size**-0.25), values)
            layer.start = context - count
        sequence.length = context
    return cache
