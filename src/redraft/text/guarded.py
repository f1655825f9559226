"""Compiles a stranger's pattern in a process of its own, which has bounds of time and memory.

A short pattern can need 2^n states, `(a|b)*a(a|b){30}` for one, and the compiler cannot be interrupted from outside.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys

import numpy as np

from redraft.core.errors import OptionError
from redraft.text.byte_automaton import ByteAutomaton

TIMEOUT_S = 10
MOST_BYTES = 2 * 2**30


def compile_guarded(pattern: str) -> ByteAutomaton:
    """As `compile_pattern`.

    Raises:
        OptionError: also where the bounds are reached.
    """
    # Nothing is imported from the folder that someone stands in, which may be a download.
    command = [sys.executable, "-P", "-m", __name__]
    try:
        done = subprocess.run(command, input=json.dumps(pattern).encode(), capture_output=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise _too_much() from None
    if done.returncode == 2:
        raise OptionError(done.stderr.decode())
    if done.returncode:
        raise _too_much()
    table, start, final = np.load(io.BytesIO(done.stdout), allow_pickle=False).values()
    return ByteAutomaton(table, int(start), final)


def _too_much() -> OptionError:
    return OptionError("response_format: the pattern takes too long or too much memory to compile: simplify it")


def _main() -> int:
    from redraft.text.pattern import compile_pattern

    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    try:
        automaton = compile_pattern(json.load(sys.stdin))
    except OptionError as error:
        sys.stderr.write(str(error))
        return 2
    np.savez(sys.stdout.buffer, automaton.next, automaton.start, automaton.final)
    return 0


if __name__ == "__main__":
    sys.exit(_main())
