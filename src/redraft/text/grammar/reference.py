"""What a counting automaton means, without counting: every register as states of its own.

It is the definition of `spelled` and `expanded`, and what runs where there is no compiler.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from redraft.core.automaton import DEAD
from redraft.core.errors import OptionError
from redraft.text.grammar.core import Core, full_table
from redraft.text.grammar.registers import Registers, applied
from redraft.text.token_automaton import ByteAutomaton

MOST_STATES = 20_000


def counted_out(core: Core, enabled: NDArray[np.uint8]) -> ByteAutomaton:
    """The texts of an automaton that keep the rules that are enabled, [n] each.

    Raises:
        OptionError: it takes too many states.
    """
    held = [(rule, bool(on)) for rule, on in zip(core.rules, enabled, strict=True)]
    sequences = [[held[rule] for rule in rules] for rules in core.steps]
    begin = (core.start, Registers())
    number = {begin: 0}
    rows: list[NDArray[np.int32]] = []
    final: list[bool] = []
    for state, registers in (queue := [begin]):
        row = np.full(core.next.shape[1], DEAD, np.int32)
        for column in np.flatnonzero(core.next[state] != DEAD).tolist():
            after = applied(registers, sequences[core.act[state, column]])
            if isinstance(after, int):
                continue
            found = (int(core.next[state, column]), after)
            if found not in number:
                number[found] = len(number)
                queue.append(found)
            row[column] = number[found]
        rows.append(row)
        end = core.final[state]
        final.append(end != DEAD and not isinstance(applied(registers, sequences[end]), int))
        if len(number) > MOST_STATES:
            raise OptionError(f"response_format: it needs more than {MOST_STATES} states: lower its bounds")
    table = full_table(Core(np.stack(rows), core.act, core.kind, 0, core.final, core.steps, core.rules))
    return ByteAutomaton(table, 0, np.array(final))
