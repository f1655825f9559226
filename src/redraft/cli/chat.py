"""`redraft chat`: a conversation on the terminal, or line by line from a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from redraft.cli.options import (
    Live,
    Model,
    Quiet,
    with_generation_options,
    with_loading_flags,
)
from redraft.cli.values import text_of
from redraft.core.errors import InputError, RedraftError

if TYPE_CHECKING:
    from rich.console import Console

    from redraft.core.engine import Engine
    from redraft.core.results import Generation

_HELP = """/new      forget the conversation
/image F  show a picture with your next message
/video F  show a video with it: 32 frames, with their times
/seed N   repeat every reply from seed N on; /seed alone draws fresh ones again
/stats    what the last reply cost
/help     this
/quit     leave (so does Ctrl-D); Ctrl-C cancels a reply"""


@with_generation_options
@with_loading_flags(vision=True)
def chat(
    model: Model = "mini",
    loading: dict[str, Any] | None = None,
    live: Live = None,
    quiet: Quiet = False,
    options: dict[str, Any] | None = None,
) -> None:
    """Talk with the model; /help lists what else you can type."""
    from redraft.cli import show
    from redraft.cli.live import console_for_drawing

    engine = show.load(model, loading or {})
    interactive = sys.stdin.isatty()
    talk = Talk(
        engine=engine,
        options=dict(options or {}),
        console=console_for_drawing(live),
        interactive=interactive,
        quiet=quiet,
    )
    if interactive:
        show.print_note(f"{engine.info.name} on {engine.info.device} · /help lists the commands, Ctrl-D quits")
    for line in _ask() if interactive else _lines():
        if not talk.take(line):
            break


@dataclass(kw_only=True)
class Talk:
    """One conversation.

    Attributes:
        engine: what answers.
        options: generation options of every reply.
        console: where replies are drawn; None prints them plainly.
        interactive: whether someone is there to read of an error and go on; otherwise the first one ends it.
        quiet: whether to leave out what each reply cost.
        messages: the conversation so far, OpenAI-style.
        shown: pictures that go with the next message, as parts of it.
        last: the last reply.
    """

    engine: Engine
    options: dict[str, Any]
    console: Console | None
    interactive: bool
    quiet: bool
    messages: list[dict[str, Any]] = field(default_factory=list)
    shown: list[dict[str, Any]] = field(default_factory=list)
    last: Generation | None = None

    def take(self, line: str) -> bool:
        """Obeys a command or answers a message; False when the conversation is over."""
        line = line.strip()
        if line.startswith("/"):
            return self._obey(*line.split(maxsplit=1))
        if line:
            self._answer(line)
        return True

    def _obey(self, command: str, argument: str = "") -> bool:
        from redraft.cli import show

        if command in ("/quit", "/exit"):
            return False
        if command == "/new":
            self.messages.clear()
            self.shown.clear()
            show.print_note("a new conversation")
        elif command in ("/image", "/video"):
            self._show(command, argument)
        elif command == "/seed":
            self._set_seed(argument)
        elif command == "/stats":
            show.print_note(self._summary(self.last) if self.last else "no reply yet")
        elif command == "/help":
            show.print_note(_HELP)
        else:
            self._complain(InputError(f"unknown command {command}: /help lists them"))
        return True

    def _set_seed(self, argument: str) -> None:
        from redraft.cli import show

        if not argument:
            self.options.pop("seed", None)
            show.print_note("a fresh seed for each reply")
        elif argument.isdecimal():
            self.options["seed"] = int(argument)
            show.print_note(f"seed {int(argument)} for each reply")
        else:
            self._complain(InputError(f"/seed takes a number of at least 0, got {argument!r}"))

    def _show(self, command: str, name: str) -> None:
        """Takes a picture or a video up for the next message."""
        from pathlib import Path

        from redraft.cli import show

        path = Path(name).expanduser()
        if not name:
            example = "photo.jpg" if command == "/image" else "clip.mp4"
            self._complain(InputError(f"{command} takes a file, as in {command} {example}"))
        elif not self.engine.info.sees:
            self._complain(InputError(f"this model does not see: {command} needs one with a vision tower"))
        elif not path.is_file():
            self._complain(InputError(f"{command}: {name} is no file"))
        else:
            kind = command.removeprefix("/")
            self.shown.append({"type": kind, kind: str(path)})
            show.print_note(f"{path.name} goes with your next message")
            show.note_animations([path] if kind == "image" else ())

    def _answer(self, text: str) -> None:
        from redraft.cli import show

        content: Any = [*self.shown, {"type": "text", "text": text}] if self.shown else text
        self.messages.append({"role": "user", "content": content})
        try:
            generation = self._reply()
            show.print_reply(generation)
        except KeyboardInterrupt:
            self.messages.pop()
            if not self.interactive:
                raise
            show.print_note("cancelled, and your message taken back")
        except RedraftError as error:
            self.messages.pop()
            # One that cannot be read would stand in the way of every message.
            self.shown.clear()
            self._complain(error)
        else:
            self.last = generation
            self.messages.append(as_message(generation))
            self.shown.clear()
            show.print_judgement(self.engine, generation, self.options)
            if not self.quiet:
                show.print_note(self._summary(generation))

    def _summary(self, generation: Generation) -> str:
        from redraft.cli import show

        return show.summary(generation, self.options, show.known_calls(self.engine, self.options))

    def _reply(self) -> Generation:
        from redraft.cli.live import draw
        from redraft.cli.pump import last_of

        # A copy: the engine may keep what it was given, and this list goes on growing.
        events = self.engine.stream(list(self.messages), **self.options)
        if self.console is None:
            return last_of(events)
        max_steps = {**self.engine.info.defaults, **self.options}.get("max_denoising_steps")
        return draw(self.console, self.engine, events, max_steps=max_steps)

    def _complain(self, error: RedraftError) -> None:
        from redraft.cli import show
        from redraft.cli.errors import describe

        if not self.interactive:
            raise error
        show.print_note(describe(error))


def as_message(generation: Generation) -> dict[str, Any]:
    """The reply as an assistant message that the next turn can carry."""
    message: dict[str, Any] = {"role": "assistant", "content": generation.text}
    if generation.tool_calls:
        message["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in generation.tool_calls
        ]
    return message


def _lines() -> Iterator[str]:
    """Lines of a pipe.

    Raises:
        InputError: one is no text.
    """
    try:
        for line in sys.stdin:
            yield text_of(line, "standard input")
    except UnicodeDecodeError as error:
        raise InputError(f"standard input is not {error.encoding} text: convert it first") from error


def _ask() -> Iterator[str]:
    """Lines typed at a terminal, until Ctrl-D."""
    from redraft.cli import show

    with suppress(ImportError):
        import readline  # noqa: F401  (input() edits lines and keeps a history once it is loaded)
    while True:
        try:
            yield input("› " if sys.stdout.isatty() else "")
        except EOFError:
            show.print_note("")
            return
        except KeyboardInterrupt:
            show.print_note("\n(Ctrl-D quits)")
