"""The catalogue of devices: every figure says where it stands, and this machine's accelerators find their kind."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from redraft.bench.catalogue import catalogue, find_devices, these_accelerators
from redraft.core.errors import InputError


def test_every_figure_of_the_catalogue_has_a_source_and_a_date():
    devices = catalogue()
    assert len({device.key for device in devices}) == len(devices) == 14
    for entry in devices:
        assert entry.sources
        assert entry.memory_bytes > 2e10
        assert {"bfloat16"} <= set(entry.operations_per_s)
        for source in [*entry.sources, *(published.source for published in entry.published)]:
            assert source.name
            assert source.url.startswith("https://")
            assert source.date[:2] == "20"
            assert source.status
        for published in entry.published:
            least, most = published.tokens_per_second
            assert 0 < least <= most


def test_devices_are_found_by_key_and_by_name():
    assert [found.key for found in find_devices(["h100", "RTX 4090"])] == ["h100", "rtx-4090"]
    assert len(find_devices([])) == len(find_devices(["all"])) == 14
    with pytest.raises(InputError, match="no device 'tpu'.*rtx-4090"):
        find_devices(["tpu"])


def test_accelerators_of_this_machine_have_the_published_rates_of_their_kind(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: None)
    assert these_accelerators() == []
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("mps"))
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 96 * 2**30)
    monkeypatch.setattr("redraft.bench.catalogue.cpu_name", lambda: "Apple M4 Max")
    (apple,) = these_accelerators()
    assert (apple.key, apple.memory_bytes, apple.is_here) == ("mps", 96 * 2**30, True)
    assert apple.read_bytes_per_s == find_devices(["m4-max"])[0].read_bytes_per_s
    cards = [SimpleNamespace(name=name, total_memory=80 * 10**9) for name in ("NVIDIA H100 80GB HBM3", "Some Card")]
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: len(cards))
    monkeypatch.setattr(torch, "get_device_module", lambda _: SimpleNamespace(get_device_properties=cards.__getitem__))
    known, unknown = these_accelerators()
    assert (known.key, unknown.key) == ("cuda:0", "cuda:1")
    assert known.read_bytes_per_s
    assert unknown.read_bytes_per_s is None
