"""Attention of one sequence's queries over its keys, with grouped heads and scale 1 (q and k are normed)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from redraft.kernels.native.call import KINDS, call, runs_natively
from redraft.kernels.triton.fallback import attempt, on_gpu

# B batch, T queries, S keys, L keys of a canvas, H query heads, K key-value heads, G = H / K, D head size

# Of the Triton form.
_HEAD_SIZES = (16, 32, 64, 128, 256, 512)
_DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def attention(
    q_BTHD: Float[Tensor, "B T H D"],
    k_BKSD: Float[Tensor, "B K S D"],
    v_BKSD: Float[Tensor, "B K S D"],
    mask_BTS: Bool[Tensor, "B T S"] | None = None,
) -> Float[Tensor, "B T H D"]:
    """softmax(q k^T) v; `mask` is True where a query may look, None where it may look everywhere.

    The G query heads of a key-value head become rows of one product, so keys are never repeated.
    """
    if mask_BTS is None and _runs_in_triton(q_BTHD, k_BKSD, v_BKSD):
        return attempt(
            "attention",
            lambda: _fast(q_BTHD, k_BKSD, v_BKSD, k_BKSD[:, :, :0], v_BKSD[:, :, :0], None),
            lambda: _reference(q_BTHD, k_BKSD, v_BKSD, None),
            q_BTHD.dtype,
        )
    if mask_BTS is None and _runs_natively(q_BTHD, k_BKSD, v_BKSD):
        return _native(q_BTHD, k_BKSD, v_BKSD, causal=False, window=None)
    return _reference(q_BTHD, k_BKSD, v_BKSD, mask_BTS)


def causal_attention(
    q_BTHD: Float[Tensor, "B T H D"],
    k_BKSD: Float[Tensor, "B K S D"],
    v_BKSD: Float[Tensor, "B K S D"],
    window: int | None,
) -> Float[Tensor, "B T H D"]:
    """The same of the last T of S positions, each of which sees itself and what is before, within its window."""
    if _runs_natively(q_BTHD, k_BKSD, v_BKSD):
        return _native(q_BTHD, k_BKSD, v_BKSD, causal=True, window=window)
    mask = causal_mask(q_BTHD.shape[1], k_BKSD.shape[2], window, q_BTHD.device)
    return attention(q_BTHD, k_BKSD, v_BKSD, mask.expand(len(q_BTHD), -1, -1))


def causal_mask(queries: int, keys: int, window: int | None, device: torch.device | None = None) -> Bool[Tensor, "T S"]:
    """The last `queries` of `keys` positions look back at themselves and at most window - 1 positions before."""
    ages = torch.arange(keys - queries, keys, device=device)[:, None] - torch.arange(keys, device=device)
    return (ages >= 0) if window is None else (ages >= 0) & (ages < window)


def canvas_attention(
    q_BTHD: Float[Tensor, "B T H D"],
    cached_keys_BKSD: Float[Tensor, "B K S D"],
    cached_values_BKSD: Float[Tensor, "B K S D"],
    keys_BKLD: Float[Tensor, "B K L D"],
    values_BKLD: Float[Tensor, "B K L D"],
    used: Int[Tensor, "B"] | None = None,
) -> Float[Tensor, "B T H D"]:
    """Attention of canvases, each over all of what a layer sees of its cache and over all of itself.

    A sliding layer's part of the cache is cut to its window - 1 last positions before.

    Args:
        q_BTHD: queries.
        cached_keys_BKSD, cached_values_BKSD: the caches' part; finite, where it is not used too.
        keys_BKLD, values_BKLD: the canvases'.
        used: how many of the S slots hold something, on the device, for a launch that is replayed at other lengths;
            None where all do.
    """
    given = (q_BTHD, cached_keys_BKSD, cached_values_BKSD, keys_BKLD, values_BKLD)

    def reference() -> Tensor:
        keys, values = torch.cat([given[1], given[3]], dim=2), torch.cat([given[2], given[4]], dim=2)
        mask = None
        if used is not None:
            slots = torch.arange(keys.shape[2], device=keys.device)
            mask = (slots < used[:, None]) | (slots >= cached_keys_BKSD.shape[2])
            mask = mask[:, None].expand(-1, q_BTHD.shape[1], -1)
        return _reference(q_BTHD, keys, values, mask)

    if _runs_in_triton(*given, *(() if used is None else (used,))):
        return attempt("attention", lambda: _fast(*given, used), reference, q_BTHD.dtype)
    return reference()


def _runs_natively(q: Tensor, k: Tensor, v: Tensor) -> bool:
    # Keys and values may be a part of a buffer: each head's rows lie one behind the other, heads anywhere.
    learning = torch.is_grad_enabled() and any(x.requires_grad for x in (k, v))
    fits = all(x.dtype == q.dtype and x.device == q.device and x.stride()[2:] == (x.shape[3], 1) for x in (k, v))
    return fits and not learning and k.stride() == v.stride() and k.numel() > 0 and runs_natively("attend", q)


def _native(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, window: int | None) -> Tensor:
    (B, T, H, D), (_, K, S, _) = q.shape, k.shape
    if v.shape != k.shape or k.shape[::3] != (B, D) or H % K or (causal and S < T):
        raise ValueError(f"queries {tuple(q.shape)} do not meet keys {tuple(k.shape)} and values {tuple(v.shape)}")
    out = torch.empty_like(q)
    for queries, keys, values, into in zip(q, k, v, out, strict=True):
        call(
            "attend", "attention", queries, keys, values, KINDS[q.dtype], T, H, D, K, S, k.stride(1), int(causal),
            S if window is None else window, into,
        )  # fmt: skip
    return out


def _runs_in_triton(*tensors: Tensor) -> bool:
    # Gradients, and heads that are no power of 2, are torch's.
    differentiable = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
    return on_gpu(*tensors) and not differentiable and _fits(tensors[0])


def _fits(q: Tensor) -> bool:
    return q.shape[-1] in _HEAD_SIZES and q.dtype in _DTYPES


def _fast(*given: Tensor | None) -> Tensor:
    from redraft.kernels.triton.attention import attention_triton

    return attention_triton(*given)  # type: ignore[arg-type]


def _reference(q_BTHD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, mask_BTS: Tensor | None) -> Tensor:
    B, T, H, D = q_BTHD.shape
    K = k_BKSD.shape[1]
    G = H // K
    q = q_BTHD.view(B, T, K, G, D).permute(0, 2, 3, 1, 4).reshape(B, K, G * T, D)
    mask = None if mask_BTS is None else mask_BTS[:, None, None].expand(B, 1, G, T, -1).reshape(B, 1, G * T, -1)
    out = F.scaled_dot_product_attention(q, k_BKSD, v_BKSD, attn_mask=mask, scale=1.0)
    return out.view(B, K, G, T, D).permute(0, 3, 1, 2, 4).reshape(B, T, H, D)
