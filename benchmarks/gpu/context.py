"""What every part is given, and the sizes that it measures."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from clock import Clock
from store import Store
from weights import Models

from redraft.bench.shapes import shape_config
from redraft.engine import launch
from redraft.kernels.triton import fallback
from redraft.model.config import ModelConfig

# The shape's own are too small for blocks of int4.
_CHANGES: dict[str, dict[str, int]] = {"tiny": {"moe_intermediate_size": 32}}
CONTEXTS = {"full": (1024, 8192, 32768), "mid": (1024, 8192, 32768), "tiny": (64, 256)}
BATCHES = {"full": (1, 2, 4, 8), "mid": (1, 2, 4, 8), "tiny": (1, 2)}
_STEPS = (12, 16, 24, 48)


@dataclass(frozen=True, kw_only=True)
class Context:
    """Of one part.

    Attributes:
        store: where its results go.
        directory: of all parts' results.
        clock: of the device.
        models: makes and keeps a model.
        shape: "full", "mid" or "tiny".
        config: of that shape.
        contexts, batches: cached positions and canvases that are measured, the most valuable first.
        steps: fixed denoising steps of a canvas that tokens a second are given for.
        deadline: of the run, as `time.time` has it.
        share: (which, of how many) of the part's cases are this process's.
    """

    store: Store
    directory: Path
    clock: Clock
    models: Models
    shape: str
    config: ModelConfig
    contexts: tuple[int, ...]
    batches: tuple[int, ...]
    steps: tuple[int, ...]
    deadline: float
    share: tuple[int, int] = (0, 1)

    def close(self) -> None:
        """Keeps, and says, which kernels did not run in this part, so that torch's forms were measured."""
        self.store.fell_back = sorted({*self.store.fell_back, *fallback.failed()})
        self.store.save()
        if self.store.fell_back:
            print(f"{self.store.part}: torch stood in for {', '.join(self.store.fell_back)}", flush=True)

    @property
    def small(self) -> bool:
        """Whether this is a trial of the script: what it measures means nothing."""
        return self.clock.quick

    def found(self, part: str) -> dict[str, Any]:
        """The results of another part so far."""
        return Store(self.directory, part).results

    @property
    def read_bytes_per_s(self) -> float:
        """The measured bandwidth: of the copy or of the sum, whichever moved more.

        Raises:
            ValueError: the part `machine` has not run.
        """
        machine = self.found("machine")
        rates = [machine[name]["bytes_per_s"] for name in ("copy", "read") if "bytes_per_s" in machine.get(name, {})]
        if not rates:
            raise ValueError("no bandwidth: run the part machine first")
        return max(rates)

    @property
    def rates(self) -> dict[str, float]:
        """Operations a second by dtype, as far as they were measured."""
        products = self.found("machine").get("products", {})
        return {name: of["operations_per_s"] for name, of in products.items() if "operations_per_s" in of}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all parts of a process share."""

    directory: Path
    clock: Clock
    models: Models
    shape: str
    config: ModelConfig
    deadline: float
    share: tuple[int, int]

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Setting:
        """From the command line."""
        device = torch.device(arguments.device)
        if device.type != "cpu":
            if device.index is None:
                device = torch.device(device.type, torch.accelerator.current_device_index())
            # Events, and what torch is asked without a device, are of the current one.
            torch.accelerator.set_device_index(device.index)
        if arguments.capture == "none":
            launch.forbid()
        clock = Clock(device, quick=arguments.shape == "tiny")
        config = shape_config(arguments.shape, **_CHANGES.get(arguments.shape, {}))
        return cls(
            directory=arguments.out,
            clock=clock,
            models=Models(config, clock, branches=arguments.capture == "all"),
            shape=arguments.shape,
            config=config,
            deadline=arguments.deadline,
            share=arguments.share,
        )

    def context(self, part: str) -> Context:
        """For one part, or this process's share of it."""
        which, count = self.share
        store = Store(
            self.directory,
            part if count == 1 else f"{part}.{which}",
            deadline=self.deadline,
            is_alive=self.clock.is_alive,
            is_spent=lambda: bool(launch.failures),
        )
        # What failed in another part may run here, with other sizes.
        fallback.clear()
        return Context(
            store=store,
            directory=self.directory,
            clock=self.clock,
            models=self.models,
            shape=self.shape,
            config=self.config,
            contexts=CONTEXTS[self.shape],
            batches=BATCHES[self.shape],
            steps=_STEPS,
            deadline=self.deadline,
            share=self.share,
        )
