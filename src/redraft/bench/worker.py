"""A process that loads one subject and runs the work it is told: `python -m redraft.bench.worker SPEC`.

One JSON document a line, both ways; anything that a library prints goes to stderr instead.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from dataclasses import asdict
from typing import Any

from redraft.bench.subjects import LIBRARIES, Spec, Work


def main() -> None:
    """Answers with what loading took, then with a result for each line of work; an error ends the process."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    warnings.simplefilter("ignore")

    def reply(document: dict[str, Any]) -> None:
        replies.write(json.dumps(document) + "\n")

    try:
        spec = Spec(**json.loads(sys.argv[1]))
        started = time.perf_counter()
        subject = LIBRARIES[spec.library](spec)
        reply({"load_s": time.perf_counter() - started})
        for line in sys.stdin:
            fields = json.loads(line)
            reply(asdict(subject.run(Work(**fields | {"prompt": tuple(fields["prompt"])}))))
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        reply({"error": reason[:300]})
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
