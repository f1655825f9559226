"""What a run does at which step: its learning rate, and the seed of its noise."""

from __future__ import annotations

import math

import torch

from redraft.train.recipe import Recipe


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warmup, then a cosine down to `final_learning_rate`; `step` counts from 0."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    share = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return recipe.final_learning_rate + (recipe.learning_rate - recipe.final_learning_rate) * share


def generator_of(seed: int, step: int) -> torch.Generator:
    """What draws a step's noise."""
    return torch.Generator().manual_seed(seed_of(seed, step))


def seed_of(seed: int, step: int) -> int:
    """Of a step, on its own."""
    return (seed << 32) + step
