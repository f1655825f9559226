"""What streams are told: a branch waits for the main one before it begins, the main one for the branch at the join."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from redraft.placement.beside import Beside


@pytest.fixture
def told(monkeypatch):
    found = []

    class Stream:
        def __init__(self, name):
            self.name = name if isinstance(name, str) else "aside"

        def wait_stream(self, other):
            found.append(f"{self.name} waits for {other.name}")

    current = [Stream("main")]

    @contextmanager
    def within(stream):
        current.append(stream)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", within)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current[-1])
    found.append(lambda: current[-1].name)
    return found


def test_a_branch_is_between_two_waits(told):
    where = told.pop()
    beside = Beside(torch.device("cuda"))
    for _ in range(2):
        told.append(f"work in {where()}")
        with beside.branch():
            told.append(f"work in {where()}")
        told.append(f"work in {where()}")
        beside.join()
    once = ["work in main", "aside waits for main", "work in aside", "work in main", "main waits for aside"]
    assert told == once * 2


def test_a_branch_that_is_closed_is_none(told):
    where = told.pop()
    beside = Beside(torch.device("cuda"))
    assert beside.close()
    assert not beside.close()
    with beside.branch():
        assert where() == "main"
    beside.join()
    assert told == []


def test_elsewhere_work_is_done_where_it_stands(told):
    where = told.pop()
    beside = Beside(torch.device("cpu"))
    with beside.branch():
        assert where() == "main"
    beside.join()
    assert told == []
