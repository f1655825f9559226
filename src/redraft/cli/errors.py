"""Errors become exit codes here and nowhere else.

0 done; 2 bad usage or bad input, one line on stderr; 1 anything else, one line; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import typer

from redraft.cli.show import printable
from redraft.core.errors import InputError, RedraftError

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

# typer exports BadParameter but not its base, and where the base lives depends on typer's version.
_UsageError = typer.BadParameter.__bases__[0]


@dataclass
class State:
    """What the commands of one invocation share.

    Attributes:
        debug: whether errors show their traceback.
    """

    debug: bool = False


def guard(invoke: Callable[[], object], state: State) -> int:
    """Calls `invoke` and returns the exit code; an error is told in one line on stderr."""
    try:
        result = invoke()
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort) as error:
        if isinstance(error.__cause__, EOFError):
            return _tell(error.__cause__, state)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; without this the interpreter complains once more as it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        return _tell(error, state)
    return result if isinstance(result, int) else OK


def describe(error: BaseException) -> str:
    """One line, fit for a terminal, that says what went wrong."""
    if isinstance(error, _UsageError):
        message = getattr(error, "format_message", error.__str__)()
        context = getattr(error, "ctx", None)
        place = context.command_path if context else "redraft"
        if "extra argument" in message:
            message = f"{message.rstrip('.')}: put a text of several words in quotes, and a flag before a value"
        message = f"{message.rstrip('.')}{'' if message.endswith('?') else ';'} see '{place} --help'"
    elif isinstance(error, RedraftError):
        message = str(error)
    else:
        message = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return " ".join(printable(message).split())


def _tell(error: BaseException, state: State) -> int:
    bad_input = isinstance(error, InputError | _UsageError)
    line = describe(error)
    if state.debug and not isinstance(error, _UsageError):
        traceback.print_exception(error)
    elif not bad_input:
        line += " ('redraft --debug ...' shows where)"
    print(f"redraft: {line}", file=sys.stderr)
    return BAD_INPUT if bad_input else FAILED
