"""What a saved state belongs to, recipe, data, template and base, so that a run that goes on is what it was."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from redraft.core.errors import CheckpointError
from redraft.text.template_source import template_sources
from redraft.train.recipe import Recipe

# Fields that say how long a run is, where it is and what it tells, and nothing of what it learns.
_FREE = {
    *("output", "steps", "device", "workers", "threads", "eval_every", "save_every", "save_minutes", "log_every"),
    *("save_dtype", "grader", "judge_rows", "judge_tokens", "watch", "soft_tokens_gib"),
}
_BY_CONTENT = {"data", "tokenizer"}
_PARTS = {"template": "chat template", "tokenizer": "tokenizer", "base": "base", "pictures": "content of a picture"}


def record_of(recipe: Recipe, directory: Path, base: Mapping[str, str], pictures: str | None = None) -> dict[str, Any]:
    """What a run with this recipe belongs to, as JSON has it.

    Args:
        recipe: of the run.
        directory: the checkpoint that it begins with.
        base: that one's fingerprint.
        pictures: digits of those in the data.
    """
    fields = recipe.model_dump(mode="json", exclude=_FREE | _BY_CONTENT)
    sources, _ = template_sources(directory)
    return {
        "recipe": fields,
        "shares": [[source.share, source.held_out] for source in recipe.data],
        "data": [_digest(source.path.read_bytes()) for source in recipe.data],
        "template": _digest("\0".join(sources.values()).encode()),
        "tokenizer": _digest((directory / "tokenizer.json").read_bytes()),
        "base": dict(base),
        "pictures": pictures,
    }


def check_record(was: Mapping[str, Any], now: Mapping[str, Any], state: Path, recipe: Recipe) -> None:
    """Makes sure that a state belongs to the run that would go on with it; one without a record is taken as it is.

    Raises:
        CheckpointError: it does not; names everything that differs.
    """
    found = _differences(was, now, recipe) if was else []
    if found:
        raise CheckpointError(
            f"the state in {state} belongs to another run: {'; '.join(found)}: take that back, delete {state} to begin "
            "anew, or give the run another output"
        )


def _differences(was: Mapping[str, Any], now: Mapping[str, Any], recipe: Recipe) -> list[str]:
    old, new = was.get("recipe", {}), now["recipe"]
    # A field that an earlier version did not have was what its default is.
    default = Recipe(output=Path(), steps=1).model_dump(mode="json")
    found = [
        f"{name} was {_shown(before)} and is {_shown(new.get(name))}"
        for name in new
        if (before := old.get(name, default.get(name))) != new.get(name)
    ]
    if was.get("shares") != now["shares"]:
        found.append("the data have other files or shares")
    elif was.get("data") != now["data"]:
        pairs = zip(was.get("data", ()), now["data"], recipe.data, strict=False)
        found += [f"{source.path} has changed" for before, after, source in pairs if before != after]
    found += [f"the {what} has changed" for name, what in _PARTS.items() if was.get(name) != now[name]]
    return found


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
