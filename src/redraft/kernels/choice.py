"""Which form of each operation runs on a device, by the predicates that the operations themselves ask.

A plan prints this. Nothing is chosen here: each operation does that where it stands, and a test holds the two together.
"""

from __future__ import annotations

import torch

from redraft.kernels.int8 import PackedInt8, has_exact_products
from redraft.kernels.matrices.int8 import Int8Matrix
from redraft.kernels.native.call import runs_natively
from redraft.kernels.triton.fallback import on_gpu

OPERATIONS = ("experts", "dense", "head", "attention", "norm")
_LAYOUTS = {"dots": "C++", "onednn": "oneDNN", "blocks": "C++", "plain": "torch"}


def choices(device: torch.device, form: str, dtype: torch.dtype) -> dict[str, str]:
    """By operation of a denoising step "Triton", "oneDNN", "C++" or "torch".

    "Triton, widened" multiplies e4m3 weights as wide as activations are, on a GPU without products of e4m3. The head's
    is two where what multiplies is not what reduces. Attention's is that over a canvas: on a GPU the one in which a
    prompt is encoded, and everywhere that under a mask of pictures, is torch's. On a CPU few rows meet float weights in
    C++, whatever is said of many. A kernel that does not compile, or does not take a shape, leaves its operation to
    torch; experts that do not divide into int4 blocks are int8.

    Args:
        device: one that is here.
        form: of the weights: "float32", "bfloat16", "fp8", "int8" or "int4".
        dtype: of activations.
    """
    gpu = on_gpu(torch.empty(0, device=device))
    return {
        "experts": _experts(device, form, dtype, gpu),
        "dense": _dense(device, form, dtype, gpu),
        "head": "Triton" if gpu else _head(device, form, dtype),
        "attention": "Triton" if gpu else _native("attend", device, dtype),
        "norm": "Triton" if gpu else _native("rows", device, dtype),
    }


def _experts(device: torch.device, form: str, dtype: torch.dtype, gpu: bool) -> str:
    if gpu and dtype == torch.bfloat16:
        return "Triton, widened" if form == "fp8" and _float8_operands(device) == "widened" else "Triton"
    if form == "int4":
        return _native("int4", device, torch.float32)
    return _int8(device) if form == "int8" else "torch"


def _dense(device: torch.device, form: str, dtype: torch.dtype, gpu: bool) -> str:
    if form in ("int8", "int4"):
        return "Triton" if gpu else _int8(device)
    if form != "fp8" or not gpu or dtype == torch.float32:
        return "torch"
    return "Triton" if _float8_operands(device) == "float8" else "Triton, widened"


def _float8_operands(device: torch.device) -> str:
    from redraft.kernels.triton.dense import float8_operands

    return float8_operands(device)


def _int8(device: torch.device) -> str:
    """The layout that a matrix gets says what multiplies it."""
    matrix = Int8Matrix(data=torch.ones(16, 64, dtype=torch.int8, device=device), scale=torch.ones(16, device=device))
    return _LAYOUTS[PackedInt8.of(matrix).layout]


def _head(device: torch.device, form: str, dtype: torch.dtype) -> str:
    reduces = _native("head", device, dtype)
    multiplies = "torch"
    # The embedding is int8 whatever the rest is rounded to.
    if form in ("int8", "int4", "fp8") and device.type == "cpu" and not has_exact_products():
        multiplies = _native("int8", device, dtype)
    return reduces if multiplies == reduces else f"{multiplies}, {reduces}"


def _native(library: str, device: torch.device, dtype: torch.dtype) -> str:
    return "C++" if runs_natively(library, torch.empty(1, dtype=dtype, device=device)) else "torch"
