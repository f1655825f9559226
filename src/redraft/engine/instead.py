"""What a model says where it would make a call and may not: see `Defaults.otherwise`."""

from __future__ import annotations

import re

from redraft.core.automaton import DEAD
from redraft.engine.judge import cut_at_end
from redraft.engine.sequence import Sequence
from redraft.text.markers import A_NAME, CALL_OPEN

_CALLED = re.compile(rf"{re.escape(CALL_OPEN)}call:({A_NAME})")


def calls(sequence: Sequence, token_ids: list[int]) -> bool:
    """Whether these tokens, which would come next, call a function that is not wanted."""
    if not sequence.instead:
        return False
    reply = sequence.reply
    ids = cut_at_end(token_ids, reply.end_ids, len(token_ids))
    assert reply.tokenizer is not None
    if reply.tokenizer.id_of(CALL_OPEN) not in ids:
        return False
    if not sequence.wanted_calls:
        return True
    called = _CALLED.findall(reply.tokenizer.decode([*reply.token_ids, *ids]))
    return not sequence.wanted_calls.issuperset(called)


def say_instead(sequence: Sequence) -> bool:
    """Holds the reply to what is said in a call's place; returns whether that is one certain text."""
    for place, constraint in enumerate(sequence.instead):
        reached = constraint.automaton.advance(constraint.automaton.start, sequence.reply.token_ids)
        if reached != DEAD:
            sequence.constraint, sequence.constraint_state, sequence.instead = constraint, reached, ()
            return place == 0
    raise AssertionError("the last constraint takes any text")
