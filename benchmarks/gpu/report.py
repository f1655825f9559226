"""The results at the end of a run, and at every moment of it: all of it in one JSON file, what matters as Markdown, and
the few lines that say whether it is right. Imports nothing but Python."""

from __future__ import annotations

import datetime
import json
import os
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tables import FORMS, markdown, points

_OTHERS = ("verify", "engine", "reads", "kernels", "agreement", "energy", "tune")
# Between two reports of a run that is under way.
_EVERY_S = 10.0
_LONGEST = 10


class Report:
    """Of one directory of results."""

    def __init__(self, directory: Path, shape: str, command: str, archive: Path | None = None) -> None:
        """`archive` is a .tgz that holds all of it at every moment: of a machine that may go, one file comes back."""
        self._directory, self._shape, self._command, self._archive = directory, shape, command, archive
        self._seen, self._written = self._state(), 0.0

    def update(self) -> None:
        """Writes it if there is something new, and it is some time since."""
        if time.time() - self._written >= _EVERY_S and self._state() != self._seen:
            self.write()

    def write(self) -> str:
        """Writes results.json and report.md into the directory; returns the Markdown, and behind it what is short."""
        self._seen, self._written = self._state(), time.time()
        text = write_report(self._directory, self._shape, self._command)
        if self._archive is not None:
            try:
                self._pack(self._archive)
            except OSError as error:
                print(f"{self._archive} cannot be written: {error}", flush=True)
        return text

    def has_results(self) -> bool:
        """Whether anything has been measured, now or before."""
        return any(part["results"] for part in _parts_in(self._directory).values())

    def _pack(self, archive: Path) -> None:
        archive.parent.mkdir(parents=True, exist_ok=True)
        fresh = archive.with_suffix(".new")
        with tarfile.open(fresh, "w:gz") as packed:
            for path in sorted(self._directory.iterdir()):
                if path.suffix in (".json", ".md"):
                    packed.add(path, path.name)
        os.replace(fresh, archive)

    def _state(self) -> dict[str, int]:
        return {
            path.name: path.stat().st_mtime_ns for path in self._directory.glob("*.json") if path.name != "results.json"
        }


def write_report(directory: Path, shape: str, command: str) -> str:
    """Writes results.json and report.md into the directory; returns what is in the second."""
    results = collect(directory, shape, command)
    fresh = directory / "results.new"
    fresh.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    os.replace(fresh, directory / "results.json")
    text = markdown(results, shape) + "\n" + "\n".join(summary(results)) + "\n"
    (directory / "report.md").write_text(text, encoding="utf-8")
    return text


def collect(directory: Path, shape: str, command: str) -> dict[str, Any]:
    """All parts as one document: steps under the shape's name, by form, experts, context and batch."""
    parts = _parts_in(directory)
    found: dict[str, Any] = {}
    for name, part in parts.items():
        # Several processes have a share of a part each.
        found[name.partition(".")[0]] = _merged(found.get(name.partition(".")[0], {}), part["results"])
    machine = found.get("machine", {})
    steps: dict[str, Any] = {}
    for form in FORMS:
        first = _merged(found.get(f"{form}_first", {}), found.get(form, {}))
        steps[form] = _merged(first, found.get(f"{form}_more", {}))
    return {
        "device": machine.get("device", {}),
        "machine": {name: value for name, value in machine.items() if name != "device"},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "shape": shape,
        shape: steps,
        "transformers": _merged(found.get("transformers", {}), found.get("transformers_compiled", {})),
        **{name: found.get(name, {}) for name in _OTHERS},
        "pdl": found.get("pdl", {}),
        "fell_back": {name: part["fell_back"] for name, part in parts.items() if part.get("fell_back")},
        "unfinished": sorted({name.partition(".")[0] for name, part in parts.items() if not part["done"]}),
    }


def _parts_in(directory: Path) -> dict[str, dict[str, Any]]:
    """What parts have written, by their names; other files are others'."""
    found = {}
    for path in sorted(directory.glob("*.json")):
        try:
            part = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            continue
        if isinstance(part, dict) and {"part", "results", "done"} <= part.keys():
            found[path.stem] = part
    return found


def _merged(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    merged = dict(left)
    for key, value in right.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def summary(results: dict[str, Any]) -> Iterator[str]:
    """What must be known first, last on the screen: captured, the same bits, what is wrong, what is slow."""
    yield "## In short\n"
    steps = results[results["shape"]]
    timed = [(form, *point) for form in FORMS for point in points(steps[form]) if "step_ms" in point[-1]]
    for form, experts, at, batch, point in timed:
        if "same_bits" in point:
            yield f"- {form}, {experts} experts, {at} cached, batch {batch}: {'; '.join(_first(point))}"
    for form in FORMS:
        for experts, at, batch, point in points(steps[form]):
            if "step_ms" not in point:
                yield f"- {form}, {experts} experts, {at} cached, batch {batch}: **not measured**: {str(point)[:160]}"
    eager = [f"{form} {experts}/{at}/{batch}" for form, experts, at, batch, p in timed if not p["captured"]]
    yield f"- captured: {len(timed) - len(eager)} of {len(timed)} points; not: {', '.join(eager) or 'none'}"
    wrong = [name for name, found in results["verify"].items() if isinstance(found, dict) and not found.get("ok")]
    right = sum(1 for found in results["verify"].values() if isinstance(found, dict) and found.get("ok"))
    ended = "" if right + len(wrong) and "verify" not in results["unfinished"] else "**not run, or not to its end**; "
    yield f"- verify: {ended}{right} right; wrong or failed: {', '.join(sorted(wrong)) or 'none'}"
    for part, names in results["fell_back"].items():
        yield f"- {part}: torch stood in for {', '.join(names)}"
    longest = next((p["parts"]["kernels"] for *_, p in timed if p.get("parts", {}).get("kernels")), {})
    for name, kernel in list(longest.items())[:_LONGEST]:
        yield f"- {kernel['ms']:.4f} ms in {kernel['launches']:.0f} launches: {name[:60]}"


def _first(point: dict[str, Any]) -> Iterator[str]:
    bits = point["same_bits"]
    yield f"captured: {_yes(point['captured'])}"
    if not point["captured"]:
        yield f"because of {str(point['note'])[:200]}"
    yield f"{point['step_ms']:.3f} ms, device {point['device_ms']:.3f} ms"
    yield f"same bits twice: {_yes(bits['twice'])}, as launched one by one: {_yes(bits['as_launches'])}"
    if bits["unlike"]:
        yield f"unlike: {', '.join(bits['unlike'])}"
    if "without_branch_ms" in point:
        yield f"without the branch {point['without_branch_ms']:.3f} ms"


def _yes(value: bool) -> str:
    return "yes" if value else "**no**"
