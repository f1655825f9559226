"""How work is captured, with a device module that writes down what it is told."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from redraft.engine import launch
from redraft.engine.launch import Launch


class Device:
    """Stands for torch.cuda or torch.xpu."""

    def __init__(self, name):
        self.told = []
        told = self.told

        class Graph:
            def replay(self):
                told.append("replay")

        class Stream:
            def __init__(self, device):
                pass

            def wait_stream(self, other):
                told.append("wait")

        @contextmanager
        def within(name):
            told.append(f"{name} (")
            yield
            told.append(")")

        main = SimpleNamespace(wait_stream=lambda other: told.append("wait"))
        self.Stream, self.stream = Stream, lambda stream: within("aside")
        self.current_stream = lambda device: main
        self.graph_pool_handle = lambda: "pool"
        self.graph = lambda graph, pool: within(f"capture into {pool}")
        setattr(self, name, Graph)


@pytest.fixture
def device(monkeypatch):
    def of(kind, name):
        found = Device(name)
        monkeypatch.setattr(torch, "get_device_module", lambda _: found)
        launch._pool.cache_clear()
        return found, torch.device(kind)

    yield of
    launch._pool.cache_clear()


@pytest.mark.parametrize(("kind", "name"), [("cuda", "CUDAGraph"), ("xpu", "XPUGraph")])
def test_work_is_run_aside_then_captured_then_replayed(device, kind, name):
    found, where = device(kind, name)
    made = Launch(lambda: found.told.append("work"), where)
    assert made.is_captured
    assert found.told == ["wait", "aside (", "work", "work", ")", "wait", "capture into pool (", "work", ")"]
    found.told.clear()
    made()
    made()
    assert found.told == ["replay", "replay"]


def test_where_torch_has_no_graphs_work_is_called(device):
    found, where = device("xpu", "SomethingElse")
    made = Launch(lambda: found.told.append("work"), where)
    assert not made.is_captured
    assert found.told == []
    made()
    assert found.told == ["work"]


def test_what_cannot_be_captured_is_called_after_a_warning(device, caplog):
    found, where = device("cuda", "CUDAGraph")
    found.graph = lambda graph, pool: (_ for _ in ()).throw(RuntimeError("not while capturing"))
    made = Launch(lambda: found.told.append("work"), where)
    assert not made.is_captured
    assert "not while capturing" in caplog.text
    made()
    assert found.told[-1] == "work"


def test_what_can_be_made_simpler_is_tried_again(device, caplog):
    found, where = device("cuda", "CUDAGraph")
    capture, simple = found.graph, []

    def graph(graph, pool):
        if not simple:
            raise RuntimeError("a branch")
        return capture(graph, pool)

    found.graph = graph
    made = Launch(lambda: found.told.append("work"), where, lambda: simple.append(True) or True)
    assert made.is_captured
    assert "a branch" in caplog.text
    simple.clear()
    made = Launch(lambda: found.told.append("work"), where, lambda: False)
    assert not made.is_captured


def test_memory_that_is_missing_is_no_reason_to_go_on(device):
    _, where = device("cuda", "CUDAGraph")

    def work():
        raise torch.OutOfMemoryError("none left")

    with pytest.raises(torch.OutOfMemoryError):
        Launch(work, where)


def test_a_cpu_captures_nothing():
    assert not launch.can_capture(torch.device("cpu"))
