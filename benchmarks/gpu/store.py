"""What a part has found, in a file of its own that is written after every measurement: a run may end at any moment."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Of a measurement that is under way. One that is found later did not end by itself.
_STARTED = {"started": True}
# Where measurements are kept during which a capture failed.
_ASIDE = "set aside"


class Skipped(Exception):
    """Something that cannot be measured here; the message says why."""


class OutOfTime(Exception):
    """What is left of the run does not fit into its time."""


class DeviceLost(Exception):
    """The device does not answer in this process any more."""


class ProcessSpent(Exception):
    """A capture failed in this process, from which torch does not recover: what follows is measured in another."""


class Store:
    """The results of one part, a tree of dictionaries.

    Attributes:
        done: whether the part is finished: the next run leaves it out.
        results: what has been measured. An entry may also be {"error": ...} or {"skipped": reason}.
        fell_back: kernels that torch's forms have stood in for.
    """

    def __init__(
        self,
        directory: Path,
        part: str,
        *,
        deadline: float = float("inf"),
        is_alive: Callable[[], bool] = lambda: True,
        is_spent: Callable[[], bool] = lambda: False,
    ) -> None:
        """`deadline` is in seconds of `time.time`; `is_alive` asks the device whether it still answers, `is_spent`
        whether a capture has failed."""
        self.path, self.part = directory / f"{part}.json", part
        self._deadline, self._is_alive, self._is_spent = deadline, is_alive, is_spent
        found = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}
        self.done: bool = found.get("done", False)
        self.results: dict[str, Any] = found.get("results", {})
        self.fell_back: list[str] = found.get("fell_back", [])

    def measure(self, keys: tuple[str, ...], work: Callable[[], Any], *, needs_s: float = 2.0) -> Any:
        """The result of `work`, which is also kept under `keys`; None where it failed. What is there is not repeated.

        Args:
            keys: the way to its place.
            work: makes something that JSON can hold.
            needs_s: it is not begun with less time than this.

        Raises:
            OutOfTime: there is less time.
            DeviceLost: it failed, and so would all that follows.
            ProcessSpent: it is set aside, and belongs into another process, as what follows.
        """
        place = self.results
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        if keys[-1] in place:
            found = place[keys[-1]]
            return None if _is_failure(found) else found
        if time.time() + needs_s > self._deadline:
            raise OutOfTime
        place[keys[-1]] = _STARTED
        self.save()
        started = time.time()
        try:
            place[keys[-1]] = work()
        except OutOfTime:
            del place[keys[-1]]
            self.save()
            raise
        except Skipped as reason:
            place[keys[-1]] = {"skipped": str(reason)}
        except Exception as error:
            place[keys[-1]] = {"error": description(error)}
        self._say(keys, place[keys[-1]], time.time() - started)
        if self._is_spent():
            # Set aside: another process measures it as it is meant to be.
            self.results.setdefault(_ASIDE, []).append({"of": list(keys), "found": place.pop(keys[-1])})
            self.save()
            raise ProcessSpent
        self.save()
        failed = _is_failure(place[keys[-1]])
        if failed and not self._is_alive():
            raise DeviceLost
        return None if failed else place[keys[-1]]

    def finish(self, failure: dict[str, Any] | None = None) -> None:
        """Marks the part as finished; `failure` where it ended early."""
        self.done = True
        if failure is not None:
            self.results.update(failure)
        self.save()

    def save(self) -> None:
        """Writes all of it, in place of what was there."""
        document = {"part": self.part, "done": self.done, "results": self.results, "fell_back": self.fell_back}
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        os.replace(fresh, self.path)

    def settle(self, death: str | None) -> bool:
        """Deals with what was under way when its process ended; returns whether there was anything.

        Args:
            death: how the process died by itself, which becomes the measurement's error; None where it was stopped,
                and the measurement is to be made again.
        """
        found = _settle(self.results, death)
        if found:
            self.save()
        return found

    def _say(self, keys: tuple[str, ...], result: Any, seconds: float) -> None:
        short = result
        if isinstance(result, dict):
            short = {key: value for key, value in result.items() if not isinstance(value, list | dict)} or "measured"
            if _is_failure(result):
                short = result
        print(f"[{seconds:6.1f} s] {self.part} {' '.join(keys)}: {str(short)[:300]}", flush=True)


def description(error: BaseException) -> dict[str, str]:
    """An error as JSON: its type, and its message's beginning."""
    return {"type": type(error).__name__, "message": " ".join(str(error).split())[:500]}


def _is_failure(found: Any) -> bool:
    return isinstance(found, dict) and bool(found.keys() & {"error", "skipped", "started"})


def _settle(place: dict[str, Any], death: str | None) -> bool:
    found = False
    for key, value in list(place.items()):
        if value == _STARTED:
            found = True
            if death is None:
                del place[key]
            else:
                place[key] = {"error": {"type": "ProcessDied", "message": death}}
        elif isinstance(value, dict):
            found = _settle(value, death) or found
    return found
