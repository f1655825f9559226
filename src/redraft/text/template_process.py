"""The process of a `GuardedTemplate`: JSON documents come in, the template first, and for each one goes out."""

from __future__ import annotations

import contextlib
import json
import math
import signal
import sys
from collections.abc import Iterator
from typing import Any

from redraft.core.errors import PromptError
from redraft.text.guarded_template import MOST_BYTES, MOST_CHARACTERS, TIMEOUT_S
from redraft.text.template import Template


def main() -> None:
    """Renders until the pipe closes."""
    # An interrupt is for whoever asks here; it closes the pipe when it ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    template = Template(**json.loads(sys.stdin.buffer.readline()))
    _say({})
    for line in sys.stdin.buffer:
        with _bounded():
            answer = _answer(template, json.loads(line))
        _say(answer)


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    """Ends the process where a prompt takes too long and whoever would have ended it is gone."""
    if sys.platform == "win32":
        yield
        return
    signal.alarm(math.ceil(TIMEOUT_S) + 1)
    yield
    signal.alarm(0)


def _answer(template: Template, values: dict[str, Any]) -> dict[str, str]:
    try:
        text = template.render(values)
    except PromptError as error:
        return {"error": str(error)}
    if len(text) > MOST_CHARACTERS:
        return {"error": f"the chat template makes {len(text)} characters of these messages"}
    return {"text": text}


def _say(answer: dict[str, str]) -> None:
    sys.stdout.buffer.write(json.dumps(answer, ensure_ascii=False).encode() + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
