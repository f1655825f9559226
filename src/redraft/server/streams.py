"""Server-sent events: chunks of text as it is committed, frames of drafts, the result at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

from redraft.core.events import Commit, Draft
from redraft.core.frames import Frames
from redraft.core.results import Generation
from redraft.core.strict_json import strict_json
from redraft.server.choices import extras_of, usage_of
from redraft.server.errors import ApiError, api_error, sse_error
from redraft.server.flight import Flight

DONE = "data: [DONE]\n\n"


class Writer(Protocol):
    """The parts of a stream that differ between chat and plain completions; each is a list of choices' fields."""

    def first(self, number: int) -> list[dict[str, Any]]:
        """What opens a choice."""
        ...

    def commit(self, number: int, commit: Commit) -> list[dict[str, Any]]:
        """What a commit adds."""
        ...

    def last(self, number: int, generation: Generation) -> list[dict[str, Any]]:
        """What the whole reply adds, its finish reason included."""
        ...


async def events(
    flight: Flight, writer: Writer, envelope: dict[str, Any], frames: Callable[[], Frames], include_usage: bool
) -> AsyncIterator[str]:
    """The stream of one request.

    Args:
        flight: its replies.
        writer: what chunks hold.
        envelope: fields of every chunk.
        frames: makes the frames of a choice.
        include_usage: whether a chunk with the usage of all choices ends it.
    """

    def chunk(choices: list[dict[str, Any]], **more: Any) -> str:
        usage = {"usage": None} if include_usage else {}
        return f"data: {strict_json({**envelope, 'choices': choices, **usage, **more}, ensure_ascii=False)}\n\n"

    of_choice = [frames() for _ in range(flight.count)]
    try:
        for number in range(flight.count):
            for fields in writer.first(number):
                yield chunk([_choice(number, fields)])
        while len(flight.done) < flight.count:
            number, event = await flight.inbox.get()
            if isinstance(event, Draft):
                frame = of_choice[number].frame(event)
                yield chunk([_choice(number, {"delta": {}} if "chat" in envelope["object"] else {"text": ""})],
                            redraft={"draft": frame})  # fmt: skip
            elif isinstance(event, Commit):
                for fields in writer.commit(number, event):
                    yield chunk([_choice(number, fields)])
            elif isinstance(event, Generation):
                flight.check(number, event)
                *before, last = writer.last(number, event)
                for fields in before:
                    yield chunk([_choice(number, fields)])
                extras = {**extras_of(event), "frames_dropped": flight.inbox.dropped}
                yield chunk([_choice(number, last)], redraft=extras)
        if include_usage:
            done = [flight.done[number] for number in range(flight.count)]
            yield chunk([], usage={**usage_of(done), "redraft": [extras_of(one)["stats"] for one in done]})
    except ApiError as error:
        yield sse_error(error)
    except Exception as error:
        yield sse_error(api_error(error))
    yield DONE


def _choice(number: int, fields: dict[str, Any]) -> dict[str, Any]:
    return {"index": number, "logprobs": None, "finish_reason": None, **fields}
