"""Devices that the model may run on: published figures, each with its source, and this machine's own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from redraft.bench.floor import cpu_rates
from redraft.bench.machine import Machine, cpu_name
from redraft.core.errors import InputError
from redraft.core.files import read_json

_FILE = Path(__file__).with_name("devices.json")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a figure stands. `status` says whether it was checked, and against what."""

    name: str
    url: str
    date: str
    status: str


@dataclass(frozen=True, kw_only=True)
class Published:
    """What others report of DiffusionGemma on a device, one request at a time.

    Attributes:
        tokens_per_second: least and most.
        autoregressive_tokens_per_second: of the autoregressive model of the same size beside it, if they say.
        what: form of the weights and software, as far as they say.
        source: who reports it.
    """

    tokens_per_second: tuple[float, float]
    autoregressive_tokens_per_second: float | None
    what: str
    source: Source


@dataclass(frozen=True, kw_only=True)
class Device:
    """A processor with its memory.

    Attributes:
        key: what `--device` calls it.
        name: for people.
        is_cpu: whether the model would run on the CPU.
        memory_bytes: in all.
        read_bytes_per_s: of that memory; None where nobody says.
        operations_per_s: of matrix products by "float32", "bfloat16", "fp8", "int8", "int4" (a product and a sum are
            two), without sparsity; a kind that is missing has no products of its own.
        host_bytes_per_s: from the host's memory; None where there is no other memory to stream from.
        published: what others report.
        sources: of the figures above.
    """

    key: str
    name: str
    is_cpu: bool
    memory_bytes: int
    read_bytes_per_s: float | None
    operations_per_s: dict[str, float]
    host_bytes_per_s: float | None
    published: tuple[Published, ...] = ()
    sources: tuple[Source, ...] = ()

    @property
    def is_here(self) -> bool:
        """Whether it is one of this machine's."""
        return self.is_cpu or ":" in self.key or self.key == "mps"

    def limited(self, memory_bytes: int | None) -> Device:
        """The device with at most so much memory."""
        return self if memory_bytes is None else replace(self, memory_bytes=min(memory_bytes, self.memory_bytes))

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def catalogue() -> tuple[Device, ...]:
    """Every device in `devices.json`."""
    raw = read_json(_FILE)
    sources = {key: Source(**fields) for key, fields in raw["sources"].items()}
    return tuple(_device(fields, sources) for fields in raw["devices"])


def _device(fields: dict[str, Any], sources: dict[str, Source]) -> Device:
    rates, host = fields["operations_per_s"], fields["host_bytes_per_s"]
    figures = [fields["memory_bytes"], fields["read_bytes_per_s"], *rates.values(), *([host] if host else [])]
    return Device(
        key=fields["key"],
        name=fields["name"],
        is_cpu=False,
        memory_bytes=fields["memory_bytes"]["value"],
        read_bytes_per_s=fields["read_bytes_per_s"]["value"],
        operations_per_s={kind: figure["value"] for kind, figure in rates.items()},
        host_bytes_per_s=host["value"] if host else None,
        published=tuple(
            Published(
                tokens_per_second=tuple(entry["tokens_per_second"]),
                autoregressive_tokens_per_second=entry["autoregressive_tokens_per_second"],
                what=entry["what"],
                source=sources[entry["source"]],
            )
            for entry in fields["published"]
        ),
        sources=tuple(sources[key] for key in dict.fromkeys(figure["source"] for figure in figures)),
    )


def find_devices(names: Sequence[str]) -> list[Device]:
    """Devices of the catalogue by key or by a part of their name; "all" is every one.

    Raises:
        InputError: a name that fits none.
    """
    known = catalogue()
    found: dict[str, Device] = {}
    for name in names or ["all"]:
        words = name.lower().replace(" ", "-")
        hits = [device for device in known if words in (device.key, "all")]
        hits = hits or [device for device in known if words and words in device.name.lower().replace(" ", "-")]
        if not hits:
            keys = ", ".join(device.key for device in known)
            raise InputError(f"no device {name!r}: there are {keys}, and 'all'")
        found |= {device.key: device for device in hits}
    return list(found.values())


def this_cpu(machine: Machine | None) -> Device:
    """This machine's CPU with all of its memory; without measurements only that is known."""
    return Device(
        key="this",
        name=cpu_name(),
        is_cpu=True,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        read_bytes_per_s=machine.read_bytes_per_s if machine else None,
        operations_per_s=cpu_rates(machine.peak_flops) if machine else {},
        host_bytes_per_s=None,
    )


def these_accelerators() -> list[Device]:
    """Accelerators of this machine: their memory, and the published rates of their kind where the catalogue has it."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    found = []
    for key, name, memory_bytes in _present(accelerator):
        known = next((device for device in catalogue() if _same(device, name)), None)
        found.append(
            Device(
                key=key,
                name=name,
                is_cpu=False,
                memory_bytes=memory_bytes,
                read_bytes_per_s=known.read_bytes_per_s if known else None,
                operations_per_s=known.operations_per_s if known else {},
                host_bytes_per_s=known.host_bytes_per_s if known else None,
                published=known.published if known else (),
                sources=known.sources if known else (),
            )
        )
    return found


def _present(accelerator: torch.device | None) -> list[tuple[str, str, int]]:
    """(what torch calls it, its name, bytes of its memory) of each."""
    if accelerator is not None and accelerator.type in ("cuda", "xpu"):
        module = torch.get_device_module(accelerator)
        every = [module.get_device_properties(index) for index in range(torch.accelerator.device_count())]
        return [(f"{accelerator.type}:{index}", one.name, one.total_memory) for index, one in enumerate(every)]
    if accelerator is not None and accelerator.type == "mps":
        # Apple's memory is that of the CPU; some of it stays with the system.
        return [("mps", cpu_name(), torch.mps.recommended_max_memory())]
    return []


def _same(device: Device, name: str) -> bool:
    """Whether a driver's name ("NVIDIA H100 80GB HBM3") means a device of the catalogue, and no slower sister of it."""
    words = set(name.lower().replace("-", " ").split())
    return set(device.key.split("-")) <= words and not words & {"pcie", "nvl", "laptop", "q"}
