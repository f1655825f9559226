"""What a model says where it would make a call and may not: see `Defaults.otherwise`."""

from __future__ import annotations

from redraft.core.automaton import DEAD
from redraft.engine.judge import cut_at_end
from redraft.engine.sequence import Sequence
from redraft.text.markers import CALL_OPEN


def calls(sequence: Sequence, token_ids: list[int]) -> bool:
    """Whether these tokens, which would come next, make a call where none is wanted."""
    if not sequence.instead:
        return False
    assert sequence.reply.tokenizer is not None
    return sequence.reply.tokenizer.id_of(CALL_OPEN) in cut_at_end(token_ids, sequence.reply.end_ids, len(token_ids))


def say_instead(sequence: Sequence) -> bool:
    """Holds the reply to what is said in a call's place; returns whether that is one certain text."""
    for place, constraint in enumerate(sequence.instead):
        reached = constraint.automaton.advance(constraint.automaton.start, sequence.reply.token_ids)
        if reached != DEAD:
            sequence.constraint, sequence.constraint_state, sequence.instead = constraint, reached, ()
            return place == 0
    raise AssertionError("the last constraint takes any text")
