"""Which form of the backbone runs where a model's weights lie."""

from __future__ import annotations

import torch

from redraft.kernels.triton.fallback import on_gpu
from redraft.model.model import DiffusionGemma


def place_runner(model: DiffusionGemma) -> None:
    """Gives a model the joint products of its layers where that is a GPU's, in bfloat16; elsewhere its modules run.

    To be called once its weights lie where they stay: matrices that are joined do not move any more.
    """
    model.run_by(None)
    if not model.config.has_canvas or model.dtype != torch.bfloat16 or not on_gpu(model.backbone.norm.weight):
        return
    # Triton is imported where there is a GPU to run it.
    from redraft.placement.dense import UnfitError
    from redraft.placement.fused import FusedBackbone

    try:
        model.run_by(FusedBackbone(model.backbone))
    except UnfitError:
        return
