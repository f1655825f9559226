"""The table of generation options by meaning, read off `GenerationOptions` and the server's schema."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from redraft.cli.options import descriptions, generation_flags
from redraft.core.option_bounds import OF_CANVASES
from redraft.core.option_groups import GROUPS, OptionGroup
from redraft.core.options import GenerationOptions
from redraft.server.schema import ChatRequest, Diffusion

DIFFUSION, CAUSAL, ALL = "diffusion", "autoregressive, verified", "all"


UNITS = {
    **dict.fromkeys(("max_new_tokens",), "tokens"),
    **dict.fromkeys(("canvas_length", "pinned", "floor"), "positions"),
    **dict.fromkeys(("max_denoising_steps", "stability_threshold", "settled_steps"), "steps"),
    **dict.fromkeys(("handover_steps", "plateau_steps"), "steps"),
    **dict.fromkeys(("entropy_bound", "confidence_threshold", "settled_nats", "freeze_nats"), "nats"),
    "redraft": "rounds",
    **dict.fromkeys(("top_p", "threshold"), "probability"),
}
# Beside `OF_CANVASES`, which the causal mode refuses.
_MODES = {"initial_canvas": DIFFUSION, "pinned": DIFFUSION, "redraft": DIFFUSION, "top_p": CAUSAL}
# What the HTTP schema calls otherwise; other names are looked for in it.
_OVER_HTTP = {
    "max_new_tokens": "max_tokens",
    "max_denoising_steps": "diffusion.steps",
    "initial_canvas": "prediction",
    "enable_thinking": "chat_template_kwargs.enable_thinking",
}
_HEAD = """# Options by meaning

Every option of a generation, by the question that it answers. Unset ones come from the checkpoint's
`generation_config.json`, then from the defaults below. In Python each is a keyword of `generate` and `stream`; on the
command line it is the flag below its name; over HTTP it is a field of the request, and a dash means that there is none.

The page is made from `GenerationOptions` itself when the site is built. `redraft presets` prints named sets of them.
"""


def options_page() -> str:
    """The page.

    Raises:
        ValueError: an option without a group, or a name in a table here that is no option.
    """
    fields = {field.name: field for field in dataclasses.fields(GenerationOptions)}
    check_groups(list(fields))
    lines = [_HEAD]
    for group in GROUPS:
        lines += [f"## {group.title}", "", f"{group.question} For example `{group.example}`.", ""]
        lines += ["| option, flag | default | modes | HTTP |", "|---|---|---|---|"]
        lines += [f"| {' | '.join(_cells(fields[name]))} |" for name in group.names]
        lines += ["", *_told(group), ""]
    return "\n".join(lines)


def check_groups(names: list[str]) -> None:
    """Every option has one group, and every name in a table here is an option's."""
    grouped = [name for group in GROUPS for name in group.names]
    for name in names:
        if grouped.count(name) != 1:
            raise ValueError(f"core/option_groups.py: option {name!r} stands in {grouped.count(name)} groups")
    for name in {*grouped, *UNITS, *_MODES, *_OVER_HTTP}:
        if name not in names:
            raise ValueError(f"docs/making/options_page.py: {name!r} is no option")


def http_name(name: str) -> str | None:
    """What a chat request calls an option; None where it cannot say it."""
    places = {"": ChatRequest.model_fields, "diffusion.": Diffusion.model_fields}
    found = (f"{before}{name}" for before, fields in places.items() if name in fields)
    path = _OVER_HTTP.get(name) or next(found, None)
    if path is not None and path.split(".")[0] not in ChatRequest.model_fields:
        raise ValueError(f"docs/making/options_page.py: {path} is no field of a request")
    return path


def _cells(field: dataclasses.Field[Any]) -> Iterator[str]:
    name = field.name
    flag = f"<br>`--{name.replace('_', '-')}`" if name in generation_flags() else ""
    yield f'<span id="{name}"></span>`{name}`{flag}'
    default = "unset" if field.default in ((), None) else f"`{field.default!r}`"
    between = "; " if default == "unset" else " "
    yield f"{default}{between}{UNITS[name]}" if name in UNITS else default
    yield f"{DIFFUSION}, verified" if name in OF_CANVASES else _MODES.get(name, ALL)
    http = http_name(name)
    yield f"`{http}`" if http else "-"


def _told(group: OptionGroup) -> Iterator[str]:
    """What each option of a group does, in the words of its docstring."""
    said = descriptions()
    for name in group.names:
        if name not in said:
            raise ValueError(f"GenerationOptions does not describe {name!r}")
        yield f"- **`{name}`**: {said[name]}"
