"""Several requests moved together until all have ended."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from redraft.core.draft import Draft
from redraft.core.engine import Running
from redraft.core.reel import Recorder
from redraft.core.results import Generation
from redraft.engine.running import PreparedRequest


def replies(
    running: Running, prepared: Sequence[PreparedRequest], recorder: Callable[[], Recorder], *, drafts: bool
) -> list[Generation]:
    """Their results in the same order, each with what was recorded of its drafts."""
    done, recorders = dict[int, Generation](), {id(one): recorder() for one in prepared}
    for one in prepared:
        running.add(one, drafts=drafts)
    while len(done) < len(prepared):
        for one, event in running.step():
            if isinstance(event, Draft):
                recorders[id(one)].add(event)
            elif isinstance(event, Generation):
                done[id(one)] = dataclasses.replace(event, reel=recorders.pop(id(one)).reel())
    return [done[id(one)] for one in prepared]
