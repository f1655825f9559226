"""A tower without a checkpoint: random weights."""

from __future__ import annotations

import torch
from torch import nn

from redraft.vision.config import VisionConfig
from redraft.vision.tower import Vision


@torch.no_grad()
def scratch_vision(config: VisionConfig, seed: int) -> Vision:
    """A tower with random weights, the same for the same seed.

    As in the text model attention has no 1/sqrt(head_dim), so its norms start at head_dim^-0.25. Places start small:
    at the size of a patch's features, where it lies would drown what it shows.
    """
    vision = Vision(config)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in vision.named_parameters():
        if name.endswith(("q_norm.weight", "k_norm.weight")):
            parameter.fill_(config.head_dim**-0.25)
        elif name.endswith("position_embedding_table"):
            nn.init.normal_(parameter, std=0.1, generator=generator)
        elif parameter.ndim == 1:
            parameter.fill_(1.0)
        else:
            nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5, generator=generator)
    return vision
