"""Renders a stranger's chat template in a process of its own, which has bounds of time, memory and output.

A template is a program: loops in loops need no more than two lines to run for years, `'x' * 3000000000` one, and
neither can be interrupted from outside. The process is kept between prompts; what passes its bounds ends it.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from redraft.core.errors import PromptError
from redraft.text.template import Template

TIMEOUT_S = 10.0
MOST_BYTES = 2 * 2**30
# Several times what the longest context holds.
MOST_CHARACTERS = 8 * 2**20
_PROCESS = "redraft.text.template_process"
# Python has to start, and the machine may be busy.
_START_S = 60.0


class GuardedTemplate:
    """One template and its process, which starts with the first prompt. Any thread may render."""

    def __init__(self, template: Template) -> None:
        self._start = {"sources": template.sources, "special_tokens": template.special_tokens}
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._end: Callable[[], object] = lambda: None

    def render(self, values: Mapping[str, Any]) -> str:
        """As `Template.render`.

        Raises:
            PromptError: also where it passes its bounds.
        """
        with self._lock:
            if self._process is None:
                # Nothing is imported from the folder that someone stands in, which may be a download.
                command = [sys.executable, "-P", "-m", _PROCESS]
                self._process = process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                self._end = weakref.finalize(self, _end, process)
                self._asked(self._start, _START_S)
            return self._asked(values, TIMEOUT_S)

    def _asked(self, question: Mapping[str, Any], seconds: float) -> str:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        late = threading.Event()

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(seconds, stop)
        timer.start()
        try:
            process.stdin.write(json.dumps(question, ensure_ascii=False).encode() + b"\n")
            process.stdin.flush()
            # A character of JSON takes six bytes at most.
            line = process.stdout.readline(6 * MOST_CHARACTERS + 1000)
        except OSError:
            line = b""
        except BaseException:
            # Its answer is still to come, and would be taken for the next one's.
            self._stop()
            raise
        finally:
            timer.cancel()
        if line.endswith(b"\n"):
            answer = json.loads(line)
            if "error" in answer:
                raise PromptError(answer["error"])
            return answer.get("text", "")
        self._stop()
        if late.is_set():
            raise PromptError(f"the chat template ran for {seconds:g} s with these messages, and was stopped")
        raise PromptError("the chat template took too much memory with these messages, and was stopped")

    def _stop(self) -> None:
        self._end()
        self._process = None


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            assert pipe is not None
            pipe.close()
    process.wait()
