"""Whether automata over bytes take a text, with everything counted."""

from __future__ import annotations

from redraft.core.automaton import DEAD
from redraft.text.grammar.core import Core
from redraft.text.grammar.registers import Registers, applied
from redraft.text.grammar.words import symbols


def takes(core: Core, text: str) -> bool:
    """Whether a text is one of the automaton's."""
    state, registers = core.start, Registers()

    def after(steps: int) -> Registers | int:
        return applied(registers, [(core.rules[number], True) for number in core.steps[steps]])

    for symbol in symbols(text):
        column = core.kind[symbol]
        if core.next[state, column] == DEAD:
            return False
        found = after(core.act[state, column])
        if isinstance(found, int):
            return False
        state, registers = int(core.next[state, column]), found
    return core.final[state] != DEAD and not isinstance(after(core.final[state]), int)
