"""Where a page's blocks run: a folder of its own, `redraft` on the PATH, stand-ins for what the reader has."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shown import difference
from snippets import ROOT, Block, Command, commands_of

from servers import KEY, REDRAFT, Served, ask, wait_until

MINI = ROOT / "src" / "redraft" / "models" / "mini"
# Commands that no test can give, and why. Blocks say it for themselves, in a comment above them.
UNRUN = {
    r"git clone ": "this is the clone",
    r"make |\. ?\.venv|source \.venv": "makes the environment that the test runs in",
    r"pip install|python3? -m venv": "changes the environment",
    r"redraft --install-completion": "changes the reader's shell; tests/unit/test_command_line.py gives it",
    r"redraft data get": "fetches from GitHub",
    r"redraft train recipes/": "takes two hours",
    r"python recipes/": "needs what was to be fetched",
    r"redraft bench .*--shape (mid|full)": "takes minutes, and gigabytes",
    r"python benchmarks/": "takes minutes",
    r"python docs/making/page_pictures": "needs a browser; tests/docs/test_site.py has its own",
}
# What a server's address and key are called where nobody knows them yet.
_ADDRESS, _KEYS = "127.0.0.1:8000", ("the key that was printed", "the-key-that-was-printed", "the-key")
# What is added to commands so that they take seconds: to all what changes no reply, the rest where nothing is shown.
AS_WELL = {r"redraft eval (?!decisions|.*--workers)": "--workers 1"}
SHORTER = {
    r"redraft eval (?!.*--limit)": "--limit 6",
    r"redraft plan\b(?!.*--quick)": "--quick",
    r"redraft run .*\.gguf": "--max-new-tokens 8",
}
_TIMEOUT_S = 120
_SHELL = """
[ -f "$STAGE/exports" ] && . "$STAGE/exports"
[ -f "$STAGE/folder" ] && cd "$(cat "$STAGE/folder")"
{command}
code=$?
export -p > "$STAGE/exports"; pwd > "$STAGE/folder"
exit $code
"""


@dataclass(kw_only=True)
class Stage:
    """One page's.

    Attributes:
        folder: where it runs.
        shims: a folder with `redraft` and `python`.
        names: what its Python blocks share.
        server: the server that the page started last, and its port and key.
    """

    folder: Path
    shims: Path
    names: dict[str, Any] = field(default_factory=dict)
    server: Served | None = None
    port: int = 0
    key: str = KEY

    def __post_init__(self) -> None:
        (self.folder / "path" / "to").mkdir(parents=True)
        (self.folder / "path" / "to" / "diffusiongemma").symlink_to(MINI)
        for name in ("benchmarks", "docs", "examples", "src"):
            (self.folder / name).symlink_to(ROOT / name)
        # A run writes beside its recipe.
        shutil.copytree(ROOT / "recipes", self.folder / "recipes")
        rows = (MINI / "held_out.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        (self.folder / "my.jsonl").write_text("".join(rows[:40]), encoding="utf-8")
        texts = ({"messages": [{"role": "user", "content": f"say {word}"}, {"role": "assistant", "content": word}]}
                 for word in ("yes", "no"))  # fmt: skip
        (self.folder / "my-texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
        asked = [{"name": "music", "type": "predicate", "instructions": "Is it about music?"}]
        labelled = (
            {"state": f"play {word}", "questions": asked, "answers": {"music": True}} for word in ("jazz", "Bach")
        )
        (self.folder / "my-rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labelled))
        (self.folder / "my.csv").write_text("id,text\n1,play jazz\n2,what is the weather in Paris\n")
        (self.folder / "my.yaml").write_text("output: runs/my\ninit: mini\nsteps: 2\nbatch_size: 4\nlog_every: 1\n")
        (self.folder / ".stage").mkdir()

    def close(self) -> None:
        """Ends the page's server."""
        if self.server is not None:
            self.server.end()
            self.server = None

    def run(self, block: Block) -> list[str]:
        """What is wrong with one block; a server that it starts goes on."""
        if block.title is not None:
            path = self.folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.known(block.text), encoding="utf-8")
        runs = getattr(self, f"_{block.language}", None)
        if runs is None:
            return [] if block.title else [f"{block}: a block of {block.language or 'no language'} is not run: say why"]
        try:
            found = runs(block)
        except Exception as error:
            return [f"{block}: {type(error).__name__}: {error}"]
        return [f"{block}: {one}" for one in found]

    def known(self, text: str) -> str:
        """A text with the address and the key that the page's server has."""
        if self.server is not None:
            text = text.replace(_ADDRESS, f"127.0.0.1:{self.port}")
            for key in _KEYS:
                text = text.replace(key, self.key)
        return text

    def _python(self, block: Block) -> list[str]:
        from running import run_python

        if block.title is not None:
            return []
        with contextlib.chdir(self.folder):
            return run_python(self.known(block.text), self.names)

    def _console(self, block: Block) -> list[str]:
        wrong = []
        for name in re.findall(r"[\w.-]+\.gguf", block.text):
            _write_gguf(self.folder / name)
        for command in commands_of(block):
            if not any(re.match(pattern, command.text) for pattern in UNRUN):
                wrong += self._command(command)
        return wrong

    def _command(self, command: Command) -> list[str]:
        if re.match(r"redraft serve\b", command.text):
            came = self._serve(command.text)
            code = 0
        else:
            script = _SHELL.format(command=self.known(_shorter(command)))
            environment = os.environ | {
                "PATH": f"{self.shims}:{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT / "src"),
                "STAGE": str(self.folder / ".stage"),
                "COLUMNS": "100",
            }
            done = subprocess.run(
                ["bash", "-c", script], cwd=self.folder, env=environment, timeout=_TIMEOUT_S, text=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            code, came = done.returncode, done.stdout
        # A page may show an error: then there must be one.
        told = command.shown is not None and command.shown.splitlines()[-1].startswith("redraft: ")
        if (code != 0) != told:
            return [f"$ {command.text}\nended with {code}:\n{came}"]
        differs = None if command.shown is None else difference(command.shown, came)
        return [f"$ {command.text}\n{differs}\n--- all that came:\n{came}"] if differs else []

    def _serve(self, text: str) -> str:
        """Starts a server that goes on, and returns what it says at its start."""
        self.close()
        words = shlex.split(text, comments=True)[1:]
        own = ["--port", "0", "--workers", "1", "--threads", "1"]
        self.server = Served([*REDRAFT, *words, *own], cwd=self.folder)
        self.port = self.server.port()
        said = "".join(self.server.said)
        printed = re.search(r"#key=([\w-]+)", said)
        self.key = printed[1] if printed else KEY
        wait_until(lambda: ask(self.port, "GET", "/ready", key=None)[0] == 200)
        return said

    def _json(self, block: Block) -> list[str]:
        """It is JSON; and where it is a request, it is sent."""
        body = json.loads(block.text)
        if not isinstance(body, dict) or "model" not in body or self.server is None:
            return []
        routes = {
            "messages": "chat/completions", "prompt": "completions", "text": "infill", "input": "decisions",
            "state": "systemone",
        }  # fmt: skip
        route = next((path for name, path in routes.items() if name in body), None)
        if route is None:
            return []
        status, answer = ask(self.port, "POST", f"/v1/{route}", body, key=self.key)
        return [] if status == 200 else [f"/v1/{route} answers {status}: {answer.decode()}"]

    def _jsonl(self, block: Block) -> list[str]:
        for line in block.text.splitlines():
            json.loads(line)
        return []

    def _yaml(self, block: Block) -> list[str]:
        """A recipe loads; so do questions, and each can be asked."""
        from redraft.core.decisions import Refusal
        from redraft.decide.files import read_questions
        from redraft.train.recipe import read_recipe

        path = self.folder / (block.title or ".stage/recipe.yaml")
        path.write_text(block.text, encoding="utf-8")
        if re.search(r"^ +type: (noul|predicate|choice|score)$", block.text, re.MULTILINE):
            return [question.reason for question in read_questions(path) if isinstance(question, Refusal)]
        read_recipe(path, [])
        return []


def _write_gguf(path: Path) -> None:
    """mini's matrices in a GGUF file, with words that are not mini's: it runs, and says nothing of sense."""
    from safetensors.torch import load_file

    from quantised_gguf import write_gguf

    if not path.exists():
        config = json.loads((MINI / "config.json").read_text(encoding="utf-8"))
        write_gguf(path, load_file(MINI / "model.safetensors"), config, "gguf-q8_0")


def _shorter(command: Command) -> str:
    tables = [AS_WELL] if command.shown is not None else [AS_WELL, SHORTER]
    more = [words for table in tables for pattern, words in table.items() if re.match(pattern, command.text)]
    said, hash_, comment = command.text.partition(" #")
    return " ".join([said, *more]) + hash_ + comment


def write_shims(folder: Path, socket: Path) -> Path:
    """`redraft`, which asks the process that waits at the socket, and `python`, which is this one."""
    folder.mkdir()
    forked = Path(__file__).with_name("forked.py")
    shims = {"redraft": [sys.executable, "-S", "-E", str(forked), "ask", str(socket)], "python": [sys.executable]}
    for name, words in shims.items():
        (folder / name).write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
        (folder / name).chmod(0o755)
    return folder
