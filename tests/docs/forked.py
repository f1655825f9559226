"""A process that has imported what `redraft` needs, and forks for each command: starting Python costs two seconds, this
a tenth of one.

python forked.py serve SOCKET             waits for commands
python -S -E forked.py ask SOCKET ...     runs `redraft ...` there, with its own folder, environment and files
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys

LONGEST = 2**20


def ask(path: str, arguments: list[str]) -> int:
    """Runs one command in a child of the process that waits there, and returns its exit code."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        told = json.dumps({"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)})
        socket.send_fds(connection, [told.encode()], [0, 1, 2])
        # Nothing comes from a child that died.
        return int(connection.recv(16) or b"1")


def serve(path: str) -> None:
    """Forks for each that asks. Nothing has been computed before: threads do not survive a fork."""
    from redraft.core.threads import spin_briefly

    # The command does so before it imports torch, which reads it once.
    spin_briefly()
    for module in ("checkpoint.convert", "cli", "engine.load", "eval.text", "eval.tool_calls", "eval.ways"):
        importlib.import_module(f"redraft.{module}")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        while True:
            connection = listening.accept()[0]
            if os.fork() == 0:
                listening.close()
                _run(connection)
            connection.close()


def _run(connection: socket.socket) -> None:
    """The child's whole life."""
    from redraft.cli import main

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    data, files, _, _ = socket.recv_fds(connection, LONGEST, 3)
    told = json.loads(data)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    # What the process that waits had at these numbers was another kind of file.
    sys.stdin, sys.stdout, sys.stderr = (open(n, "w" if n else "r", closefd=False) for n in (0, 1, 2))  # noqa: SIM115
    os.chdir(told["folder"])
    os.environ.clear()
    os.environ.update(told["environment"])
    sys.argv = ["redraft", *told["arguments"]]
    code = 1
    try:
        code = main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        connection.send(str(code).encode())
        os._exit(code)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    sys.exit(ask(sys.argv[2], sys.argv[3:]))
