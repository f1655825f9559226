"""One matrix in each quantised form: what a file holds of it, and the float32 matrix that this stands for.

compressed-tensors' forms are made and read back by the package itself. The others are made here from their layouts,
with numpy and independently of redraft's decoders.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from checkpoints import quiet

Made = tuple[dict[str, Tensor], Tensor]
_MAGNITUDES = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])


def compressed(
    weight: Tensor, preset: str, group_size: int | None, scale_dtype: torch.dtype, hessian: Tensor | None = None
) -> Made:
    """A matrix [O, I] as the compressed-tensors package stores it; see `compensated` for a `hessian`, in 4 bits."""
    with quiet():
        from compressed_tensors.compressors import BaseCompressor
        from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8
        from compressed_tensors.quantization.lifecycle.forward import dequantize
        from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam

        scheme = scheme_of(preset, group_size)
        assert scheme.weights is not None
        group = scheme.weights.group_size or weight.shape[1]
        groups = weight.unflatten(-1, (-1, group))
        lowest, highest = groups.amin(-1), groups.amax(-1)
        state = {"weight": weight}
        if preset == "NVFP4":
            state["weight_global_scale"] = generate_gparam(weight.amin(), weight.amax())
        scale, zero_point = calculate_qparams(lowest, highest, scheme.weights, state.get("weight_global_scale"))
        state["weight_scale"] = scale if preset == "NVFP4" else scale.to(scale_dtype)
        if not scheme.weights.symmetric:
            state["weight_zero_point"] = zero_point
        if hessian is not None:
            own_scale, own_zero = (
                part.float().repeat_interleave(group, 1) for part in (state["weight_scale"], zero_point)
            )
            codes = compensated(weight, hessian, own_scale, own_zero, -8, 7)
            state["weight"] = (codes - own_zero) * own_scale
        compressor: Any = BaseCompressor.get_value_from_registry(FORMAT_OF_PRESET[preset])
        parts = dict(compressor.compress(state, scheme))
        if preset == "NVFP4":
            rows, half = parts["weight_packed"].shape
            codes = unpack_fp4_from_uint8(parts["weight_packed"], rows, 2 * half, dtype=torch.float32)
            expected = dequantize(
                codes,
                parts["weight_scale"].float(),
                args=scheme.weights,
                dtype=torch.float32,
                global_scale=parts["weight_global_scale"],
            )
            parts["input_global_scale"] = torch.tensor([123.0])
        else:
            # The package rounds to the scales' own dtype.
            exact = parts | {"weight_scale": parts["weight_scale"].float()}
            expected = compressor.decompress(exact, scheme)["weight"]
    return {name: part.detach().clone() for name, part in parts.items()}, expected.detach().float()


FORMAT_OF_PRESET = {
    "FP8_DYNAMIC": "float-quantized",
    "INT8": "int-quantized",
    "NVFP4": "nvfp4-pack-quantized",
    "W4A16": "pack-quantized",
    "W4A16_ASYM": "pack-quantized",
}


def scheme_of(preset: str, group_size: int | None) -> Any:
    """compressed-tensors' scheme of this name."""
    with quiet():
        from compressed_tensors.quantization import preset_name_to_scheme

        scheme = preset_name_to_scheme(preset, ["Linear"])
    if group_size is not None:
        assert scheme.weights is not None
        scheme.weights.group_size = group_size
    return scheme


def pack(codes: Tensor, bits: int, dtype: Any = np.int32) -> Tensor:
    """A stream of bits along the last dimension, the lowest first, in whole words."""
    stream = (codes.numpy().astype(np.uint8)[..., None] >> np.arange(bits)) & 1
    flat = stream.reshape(*codes.shape[:-1], -1).astype(np.uint8)
    return torch.from_numpy(np.packbits(flat, axis=-1, bitorder="little").view(dtype).copy())


def e2m1_codes(values: Tensor) -> Tensor:
    """The nearest 4-bit floats."""
    nearest = (values.abs()[..., None] - _MAGNITUDES).abs().argmin(-1)
    return (nearest + 8 * (values < 0)).to(torch.uint8)


def e2m1_values(codes: Tensor) -> Tensor:
    """What 4-bit floats stand for."""
    return _MAGNITUDES[codes.long() % 8] * torch.where(codes >= 8, -1.0, 1.0)


def modelopt_nvfp4(weight: Tensor) -> Made:
    """ModelOpt's: the second scale is small, and multiplies."""
    blocks = weight.unflatten(-1, (-1, 16))
    second = weight.abs().amax() / (6 * 448)
    scale = (blocks.abs().amax(-1) / 6 / second).clamp(min=2**-9).to(torch.float8_e4m3fn)
    factor = (scale.float() * second)[..., None]
    codes = e2m1_codes(blocks / factor)
    parts = {
        "weight": pack(codes.flatten(-2), 4, np.uint8),
        "weight_scale": scale,
        "weight_scale_2": second,
        "input_scale": torch.tensor(0.01),
    }
    return parts, (e2m1_values(codes) * factor).flatten(-2)


def compensated(weight: Tensor, hessian: Tensor, scale: Tensor, zero: Tensor, lowest: int, highest: int) -> Tensor:
    """Codes [O, I] of a matrix, rounded column by column; what a column is off moves into those that are still to come,
    so that the products with what was seen change least.

    Args:
        weight: the matrix.
        hessian: [I, I], the sum of x x^T over what it was multiplied with.
        scale, zero: [O, I], of each weight.
        lowest, highest: codes.

    Source: Frantar et al., GPTQ, arXiv 2210.17323, algorithm 1; the columns that weigh most come first.
    """
    order = hessian.diag().argsort(descending=True)
    damped = hessian.double() + 0.01 * hessian.diag().mean() * torch.eye(len(hessian), dtype=torch.float64)
    upper = torch.linalg.cholesky(torch.linalg.inv(damped[order][:, order]), upper=True)
    left, codes = weight.double()[:, order], torch.empty_like(weight)
    for place, column in enumerate(order.tolist()):
        unit, offset = scale[:, column].double(), zero[:, column].double()
        code = (left[:, place] / unit.clamp(min=1e-30) + offset).round().clamp(lowest, highest)
        codes[:, column] = code
        off = (left[:, place] - (code - offset) * unit) / upper[place, place]
        left[:, place + 1 :] -= off[:, None] * upper[place, place + 1 :]
    return codes


def _integers(
    weight: Tensor, group_of: Tensor, *, symmetric: bool, hessian: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(codes [O, I], scales [O, G], zeros [O, G], the matrix) of 4 bits with each column in its group; rounded to
    nearest, or with a `hessian` as `compensated` does."""
    groups = int(group_of.max()) + 1
    columns = [weight[:, group_of == group] for group in range(groups)]
    if symmetric:
        scale = torch.stack([part.abs().amax(1) / 7 for part in columns], 1).half().float()
        zero = torch.full_like(scale, 8.0)
    else:
        lowest = torch.stack([part.amin(1).clamp(max=0) for part in columns], 1)
        highest = torch.stack([part.amax(1).clamp(min=0) for part in columns], 1)
        scale = ((highest - lowest) / 15).half().float()
        zero = (-lowest / scale).round().clamp(1, 15)
    own_scale, own_zero = scale[:, group_of], zero[:, group_of]
    if hessian is None:
        codes = (weight / own_scale + own_zero).round().clamp(0, 15)
    else:
        codes = compensated(weight, hessian, own_scale, own_zero, 0, 15)
    return codes, scale, zero, (codes - own_zero) * own_scale


def _groups(weight: Tensor, group_size: int, act_order: bool) -> Tensor:
    group_of = torch.arange(weight.shape[1]) // group_size
    return (
        group_of[torch.randperm(len(group_of), generator=torch.Generator().manual_seed(1))] if act_order else group_of
    )


def gptq(
    weight: Tensor,
    *,
    stored_less: int,
    symmetric: bool,
    act_order: bool = False,
    group_size: int = 64,
    hessian: Tensor | None = None,
) -> Made:
    """GPTQ's and auto-round's arrays: words along the inputs."""
    group_of = _groups(weight, group_size, act_order)
    codes, scale, zero, expected = _integers(weight, group_of, symmetric=symmetric, hessian=hessian)
    parts = {
        "qweight": pack(codes, 4).T.contiguous(),
        "qzeros": pack(zero.T.contiguous() - stored_less, 4),
        "scales": scale.T.contiguous().half(),
    }
    return parts | ({"g_idx": group_of.int()} if act_order else {}), expected


def act_order_packed(weight: Tensor, *, group_size: int = 32, hessian: Tensor | None = None) -> Made:
    """compressed-tensors' packed integers with columns in groups of their own."""
    group_of = _groups(weight, group_size, act_order=True)
    codes, scale, _, expected = _integers(weight, group_of, symmetric=True, hessian=hessian)
    parts = {
        "weight_packed": pack(codes, 4),
        "weight_scale": scale.half(),
        "weight_shape": torch.tensor(weight.shape),
        "weight_g_idx": group_of.int(),
    }
    return parts, expected


def awq(weight: Tensor, *, group_size: int = 64, hessian: Tensor | None = None) -> Made:
    """AWQ's GEMM arrays: words along the outputs, nibbles in the order of its kernels."""
    group_of = _groups(weight, group_size, False)
    codes, scale, zero, expected = _integers(weight, group_of, symmetric=False, hessian=hessian)
    order = [0, 2, 4, 6, 1, 3, 5, 7]

    def words(rows: Tensor) -> Tensor:
        return pack(rows.unflatten(-1, (-1, 8))[..., order].flatten(-2), 4)

    parts = {
        "qweight": words(codes.T.contiguous()),
        "qzeros": words(zero.T.contiguous()),
        "scales": scale.T.contiguous().half(),
    }
    return parts, expected


def mlx_affine(weight: Tensor, bits: int, group_size: int = 64) -> Made:
    """MLX's integers with scale and bias, for matrices and stacks of them."""
    groups = weight.unflatten(-1, (-1, group_size))
    bias = groups.amin(-1).bfloat16()
    scale = ((groups.amax(-1) - bias.float()) / (2**bits - 1)).bfloat16()
    codes = ((groups - bias.float()[..., None]) / scale.float()[..., None]).round().clamp(0, 2**bits - 1)
    expected = codes * scale.float()[..., None] + bias.float()[..., None]
    parts = {"weight": pack(codes.flatten(-2), bits, np.uint32), "scales": scale, "biases": bias}
    return parts, expected.flatten(-2)


def mlx_float(weight: Tensor, bits: int) -> Made:
    """MLX's microscaled floats: powers of two in groups of 32."""
    groups = weight.unflatten(-1, (-1, 32))
    exponent = groups.abs().amax(-1).log2().floor() - (2 if bits == 4 else 8)
    scaled = groups / torch.exp2(exponent)[..., None]
    if bits == 4:
        codes = e2m1_codes(scaled)
        values, words = e2m1_values(codes), pack(codes.flatten(-2), 4, np.uint32)
    else:
        floats = scaled.clamp(-448, 448).to(torch.float8_e4m3fn)
        values, words = floats.float(), floats.flatten(-2).view(torch.uint8).view(torch.uint32)
    parts = {"weight": words, "scales": (exponent + 127).to(torch.uint8)}
    return parts, (values * torch.exp2(exponent)[..., None]).flatten(-2)
