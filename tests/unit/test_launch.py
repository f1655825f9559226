"""How work is captured, with a device module that writes down what it is told, and one that keeps torch's books."""

from __future__ import annotations

import gc
import itertools
import weakref
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from pretended import Cards
from redraft.engine import launch
from redraft.engine.launch import Launch
from redraft.kernels.triton import fallback


class Device(Cards):
    """Stands for torch.cuda or torch.xpu."""

    def __init__(self, name):
        super().__init__()
        self.told, self.waits = [], "default"
        told, streams = self.told, itertools.count()

        class Graph:
            def replay(self):
                told.append("replay")

        class Stream:
            def __init__(stream, device):
                stream.name = f"stream {next(streams)} of {self.at}"

            def wait_stream(self, other):
                told.append("wait")

        self.Stream = Stream
        self.main = SimpleNamespace(wait_stream=lambda other: told.append("wait"), name="main")
        self.now = self.main
        setattr(self, name, Graph)
        if name == "CUDAGraph":
            self.get_sync_debug_mode = lambda: self.waits
            self.set_sync_debug_mode = lambda mode: setattr(self, "waits", mode)

    def current_stream(self, device):
        return self.now

    def set_stream(self, stream):
        self.now = stream

    @contextmanager
    def stream(self, stream):
        before, self.now = self.now, stream
        self.told.append(f"on {stream.name} (")
        yield
        self.told.append(")")
        self.now = before

    @contextmanager
    def graph(self, graph, stream=None, **options):
        self.told.append(f"capture on {stream.name} (")
        self.now = stream
        yield
        self.told.append(")")
        self.now = self.main


@pytest.fixture
def device(monkeypatch):
    monkeypatch.setattr(launch, "failures", [])

    def of(kind, name):
        found = Device(name)
        monkeypatch.setattr(torch, "get_device_module", lambda _: found)
        return found, torch.device(kind)

    return of


@pytest.mark.parametrize(("kind", "name"), [("cuda", "CUDAGraph"), ("xpu", "XPUGraph")])
def test_work_is_captured_on_the_stream_that_it_ran_on_before(device, kind, name):
    found, where = device(kind, name)
    made = Launch(lambda: found.told.append("work"), where)
    assert made.is_captured
    aside = "stream 0 of 0 ("
    assert found.told == ["wait", f"on {aside}", "work", "work", ")", "wait", f"capture on {aside}", "work", ")"]
    found.told.clear()
    made()
    made()
    assert found.told == ["replay", "replay"]


def test_only_other_threads_may_use_a_cuda_device_meanwhile(device):
    found, where = device("cuda", "CUDAGraph")
    given, capture = [], found.graph
    found.graph = lambda graph, **options: (given.append(options), capture(graph, **options))[1]
    Launch(lambda: None, where)
    assert given[0]["capture_error_mode"] == "thread_local"
    assert "pool" not in given[0], "a pool that graphs share dies with the first of them"


def test_a_second_card_is_the_current_one_meanwhile(device):
    found, _ = device("cuda", "CUDAGraph")
    at = []
    made = Launch(lambda: at.append(found.at), torch.device("cuda:1"))
    assert made.is_captured
    assert set(at) == {1}
    assert "capture on stream 0 of 1 (" in found.told
    assert found.at == 0


def test_where_torch_has_no_graphs_work_is_called(device):
    found, where = device("xpu", "SomethingElse")
    made = Launch(lambda: found.told.append("work"), where)
    assert not made.is_captured
    assert found.told == []
    made()
    assert found.told == ["work"]


def test_work_that_waits_for_the_device_is_never_captured(device, caplog):
    """torch 2.11 does not recover from a capture that fails at its end."""
    found, where = device("cuda", "CUDAGraph")

    def waits():
        if found.waits == "error":
            raise RuntimeError("called a synchronizing CUDA operation")

    made = Launch(waits, where)
    assert not made.is_captured
    assert not [said for said in found.told if said.startswith("capture")]
    assert found.waits == "default"
    assert launch.failures == []
    assert "synchronizing" in caplog.text


def test_a_capture_that_fails_says_nothing_of_the_kernels(device, monkeypatch):
    """What stands for the layers is tried again without its branch, and not given up."""
    found, where = device("cuda", "CUDAGraph")
    monkeypatch.setattr(fallback, "_failed", set())
    simple, ran = [], []

    def layers():
        if "capture" in found.told[-1] and not simple:
            raise RuntimeError("a branch")
        ran.append("joint")

    made = Launch(
        lambda: fallback.attempt("layers", layers, lambda: ran.append("modules"), "int4"), where,
        lambda: simple.append(True) or True,
    )  # fmt: skip
    assert made.is_captured
    assert "modules" not in ran
    assert fallback.failed() == []


def test_what_was_told_aside_is_waited_for_whatever_became_of_it(device):
    found, where = device("cuda", "CUDAGraph")

    def fails():
        raise ValueError("no such kernel")

    Launch(fails, where)
    assert found.told == ["wait", "on stream 0 of 0 (", "wait"]


def test_what_is_closed_lets_go_of_its_work(device):
    _, where = device("cuda", "CUDAGraph")

    class Owner:
        def __init__(self):
            self.launch = Launch(self.work, where)

        def work(self):
            pass

    owner = Owner()
    gone = weakref.ref(owner)
    owner.launch.close()
    gc.disable()
    try:
        del owner
        assert gone() is None
    finally:
        gc.enable()


def broken(found, message="not while capturing"):
    @contextmanager
    def graph(graph, stream=None, **options):
        # As torch leaves it: the stream stays what it was within.
        found.now = stream
        yield
        raise RuntimeError(message)

    return graph


def test_what_cannot_be_captured_is_called_after_a_warning(device, caplog):
    found, where = device("cuda", "CUDAGraph")
    found.graph = broken(found)
    made = Launch(lambda: found.told.append("work"), where)
    assert not made.is_captured
    assert "not while capturing" in caplog.text
    assert launch.failures == [made.reason] == ["RuntimeError: not while capturing"]
    assert found.now is found.main, "the stream that was to be captured is not left behind"
    made()
    assert found.told[-1] == "work"


def test_what_can_be_made_simpler_is_tried_again(device, caplog):
    found, where = device("cuda", "CUDAGraph")
    capture, failing, simple = found.graph, broken(found, "a branch"), []
    found.graph = lambda graph, **options: (capture if simple else failing)(graph, **options)
    made = Launch(lambda: found.told.append("work"), where, lambda: simple.append(True) or True)
    assert made.is_captured
    assert made.reason is None
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
    made = Launch(lambda: None, torch.device("cpu"))
    assert "this is cpu" in made.reason


class Books(Device):
    """What torch 2.11 remembers of private pools, as its allocator's and its graphs' sources have it; libraries make a
    workspace for each stream at its first product, and keep it for ever."""

    def __init__(self):
        super().__init__("CUDAGraph")
        self.pools, self.underway, self.workspaces, self.numbers = {}, [], set(), itertools.count()
        books = self

        class Graph:
            pool = None

            def replay(self):
                pass

            def end(self):
                books.pools[self.pool]["uses"] -= 1

        self.CUDAGraph = Graph
        self.capture_stream = SimpleNamespace(name="the default capture stream")

    def graph_pool_handle(self):
        return ("handle", next(self.numbers))

    def product(self):
        """A library's."""
        if self.now not in self.workspaces:
            self.workspaces.add(self.now)
            if self.underway:
                self.pools[self.underway[-1]]["live"] += 1

    def empty_cache(self):
        assert not self.underway, "captures_underway.empty() INTERNAL ASSERT FAILED"
        self.pools = {pool: books for pool, books in self.pools.items() if books["uses"] or books["live"]}

    @contextmanager
    def graph(self, graph, pool=None, stream=None, **options):
        self.empty_cache()
        before, self.now = self.now, stream or self.capture_stream
        graph.pool = pool or ("own", next(self.numbers))
        if graph.pool in self.pools:
            assert self.pools[graph.pool]["uses"] > 0, "use_count > 0 INTERNAL ASSERT FAILED"
        self.pools.setdefault(graph.pool, {"uses": 0, "live": 0})["uses"] += 1
        self.underway.append(graph.pool)
        yield
        self.underway.remove(graph.pool)
        self.now = before


@pytest.mark.parametrize("work", ["a product of a library", "kernels of ours"])
def test_graphs_that_go_leave_no_pool_behind(monkeypatch, work):
    """A step and an encoding are captured, used, and let go of; then the next two."""
    books = Books()
    monkeypatch.setattr(torch, "get_device_module", lambda _: books)
    for _ in range(3):
        made = [Launch(books.product if "library" in work else lambda: None, torch.device("cuda")) for _ in range(2)]
        assert [one.reason for one in made] == [None, None]
        for one in made:
            one._graph.end()
        books.empty_cache()
        assert books.pools == {}
