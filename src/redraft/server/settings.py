"""What a server is told when it starts."""

from __future__ import annotations

import dataclasses
import hashlib
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from redraft.core.calibration import Calibration
from redraft.core.errors import OptionError

# Short ones can be tried out from elsewhere.
SHORTEST_KEY = 16
# Of a request; where pictures may come, several photographs.
BODY_BYTES, SEEN_BODY_BYTES = 4 * 2**20, 32 * 2**20
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_ABOVE_0 = (
    *("max_body_bytes", "max_running", "max_waiting", "request_bytes", "request_timeout_s"),
    *("head_s", "body_s", "idle_s", "still_s"),
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Doors, limits and queues.

    Attributes:
        host, port: where it listens.
        api_key: what a client must bring as a bearer token; None lets everyone in.
        print_key: whether the link that is printed holds the key: one that someone gave is for them to keep.
        model: the name that clients ask for.
        allowed_hosts: names, beside those of `host`, that a request's Host header may have.
        allowed_origins: origins of pages elsewhere that may ask; none by default.
        max_body_bytes: of a request; None is 4 MiB, or 32 where `run` serves a model that sees.
        max_images: pictures in a request.
        max_videos: videos in a request.
        max_running: requests that take part in each step.
        max_waiting: requests that wait for a place; one more is refused.
        request_bytes: memory that the keys and values of running requests may take; None takes what the engine knows.
        request_timeout_s: after which a request ends with an error, its preparation included.
        drain_s: how long running requests may take once the server is told to stop.
        head_s, body_s: in which a request's head and then its body must be there.
        idle_s: after which a connection without a request is closed.
        still_s: after which a server that does not move says that it is not ready.
        known_tools: whether a request without tools may be answered with a call that the model knows by heart.
        log_prompts: the file that requests and replies are written to, one JSON document a line; None writes none.
        allowed_adapters: a directory whose adapters clients may load and unload; None lets them do neither.
        calibration: of typed questions, for requests whose options it was found with.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    print_key: bool = False
    model: str = "mini"
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    max_body_bytes: int | None = None
    max_images: int = 16
    max_videos: int = 1
    max_running: int = 16
    max_waiting: int = 128
    request_bytes: int | None = None
    request_timeout_s: float = 600.0
    drain_s: float = 30.0
    head_s: float = 10.0
    body_s: float = 30.0
    idle_s: float = 30.0
    still_s: float = 30.0
    known_tools: bool = False
    log_prompts: Path | None = None
    allowed_adapters: Path | None = None
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        if self.api_key is None and self.host not in LOOPBACK:
            raise OptionError(f"a server without a key must listen on 127.0.0.1, not on {self.host}")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable() and self.api_key):
            raise OptionError("the API key must be printable ASCII")
        if self.api_key is not None and len(self.api_key) < SHORTEST_KEY and self.host not in LOOPBACK:
            raise OptionError(
                f"the API key has {len(self.api_key)} characters; beyond this machine it needs {SHORTEST_KEY}: "
                "give none, and one is made"
            )
        for name in (
            "max_body_bytes",
            "max_running",
            "max_waiting",
            "request_timeout_s",
            "head_s",
            "body_s",
            "idle_s",
            "still_s",
        ):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise OptionError(f"{name} must be above 0, got {value}")

    def for_model(self, *, sees: bool) -> Settings:
        """With what follows from the model filled in."""
        most = SEEN_BODY_BYTES if sees else BODY_BYTES
        return self if self.max_body_bytes is not None else dataclasses.replace(self, max_body_bytes=most)

    @property
    def key_id(self) -> str:
        """What stands for the key in a log."""
        return "-" if self.api_key is None else hashlib.sha256(self.api_key.encode()).hexdigest()[:8]

    def is_host(self, name: str) -> bool:
        """Whether a request may call the server so. A page elsewhere can make its own name lead here (DNS rebinding),
        but not an address."""
        if name in (*LOOPBACK, self.host, *self.allowed_hosts):
            return True
        return self.host not in LOOPBACK and _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
