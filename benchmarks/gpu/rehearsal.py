"""The parts of the benchmark on tensors without values, each of their launches once: for whoever watches what they ask
of a device. All that is known of the parts' inside is in this file."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import agreement
import torch
from clock import Clock
from context import BATCHES, CONTEXTS
from step import make_commit, make_plain_step, make_step, make_token
from torch.fx.experimental import _config as config
from torch.utils._python_dispatch import TorchDispatchMode
from weights import Models

from redraft.bench.shapes import shape_config
from redraft.checkpoint.load import load_model
from redraft.checkpoint.locate import locate
from redraft.model.model import DiffusionGemma

META = torch.device("meta")
_FORMS = ("int4", "bf16", "fp8")
_VERIFY = ("experts", "layer", "step", "advance")
_MINI = ("bfloat16", "float32")
# What the bundled model's canvases stand behind, and how many of them: as for an engine with a few short requests.
_MINI_CONTEXT, _MINI_BATCHES, _MINI_PROMPTS = 64, (1, 2, 4), 6
# Shares of `tune`, which takes longest.
_SHARES = 4

Note = Callable[[str, Exception], None]


def tasks(parts: list[str]) -> list[str]:
    """What `rehearse` can be asked for, the longest first, of these parts; a part may be one of its tasks.

    Raises:
        ValueError: there is no such part.
    """
    # Forms that have kernels in common do not begin together: both would compile them.
    of = {
        "steps": [*(f"steps {form}" for form in _FORMS), *(f"mini {dtype}" for dtype in _MINI)],
        "verify": [f"verify {name}" for name in _VERIFY],
        "kernels": ["kernels"],
        "tune": [f"tune {share}" for share in range(_SHARES)],
    }
    every = [task for found in of.values() for task in found]
    if unknown := set(parts) - {*of, *every}:
        raise ValueError(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join([*of, *every])}")
    return [task for part, found in of.items() for task in found if part in parts or task in parts]


def rehearse(task: str, note: Note) -> None:
    """Does one of `tasks`; `note` is told of what failed in it, by name, and the rest is done all the same."""
    what, _, which = task.partition(" ")
    with _without_values():
        context = _context(note)
        if what == "steps":
            _steps(context, which, note)
        elif what == "mini":
            _mini(context, getattr(torch, which), note)
        elif what == "tune":
            context.store.share = int(which)
            importlib.import_module("tune").run(context)
        else:
            found = _cases(context, which) if what == "verify" else _alone(context)
            for name, work in found.items():
                _tried(name, work, note)


def _tried(name: str, work: Callable[[], object], note: Note) -> None:
    try:
        work()
    except Exception as error:
        note(name, error)


def _context(note: Note) -> Any:
    """What parts read of theirs at full size. Few layers have the same kernels as all, if one of each kind is there."""
    layers = shape_config("full").layers
    period = 1 + next(number for number, layer in enumerate(layers) if layer.window is None)
    clock, shape = _Once(), shape_config("full", num_hidden_layers=period)
    return SimpleNamespace(
        clock=clock, config=shape, models=Models(shape, clock), contexts=CONTEXTS["full"], batches=BATCHES["full"],
        store=_Store(note), small=False,
    )  # fmt: skip


def _steps(context: Any, form: str, note: Note) -> None:
    """What `points` measures of a form."""
    model, length = context.models.get(form), context.config.canvas_length
    first, *others = context.contexts
    for at, batch in [*((first, batch) for batch in context.batches), *((at, 1) for at in others)]:
        name = f"{form}, {at} cached, batch {batch}"
        _tried(name, lambda at=at, batch=batch: _step(model, batch, length, at), note)
    for batch in context.batches:
        name = f"{form}, a token, batch {batch}"
        _tried(name, lambda batch=batch: make_token(model, batch, first)(), note)


def _step(model: DiffusionGemma, batch: int, length: int, at: int) -> None:
    step = make_step(model, batch, length, at)
    step.run()
    commit = make_commit(model, step, length)
    commit()
    make_plain_step(model, step.cache, length)()
    with model.by_modules():
        step.run()
        commit()
        make_plain_step(model, step.cache, length)()


def _mini(context: Any, dtype: torch.dtype, note: Note) -> None:
    """What `agreement` compares, and an engine runs."""
    model = load_model(locate("mini"), META, dtype)
    length = model.config.canvas_length
    prompts, _ = agreement.prompts_of(_MINI_PROMPTS)
    for number, prompt in enumerate(prompts):
        _tried(f"mini, prompt {number}", lambda prompt=prompt: list(agreement.Canvas(model, prompt).steps(2)), note)
    for batch in _MINI_BATCHES:
        name = f"mini, batch {batch}"
        _tried(name, lambda batch=batch: _step(model, batch, length, _MINI_CONTEXT), note)


def _cases(context: Any, name: str) -> dict[str, Callable[[], object]]:
    return importlib.import_module(f"verify_{name}").cases(context, torch.Generator())


def _alone(context: Any) -> dict[str, Callable[[], object]]:
    """Each kernel by itself."""
    part = importlib.import_module("alone")
    generator = torch.Generator()
    makers = {**part.mixture(context, generator), **part.others(context, generator)}
    return {name: lambda make=make: make().work() for name, make in makers.items()}


class _Once(Clock):
    """Does each work once, and everything takes a millisecond."""

    def __init__(self) -> None:
        super().__init__(META)

    def synchronize(self) -> None:
        """Nothing runs."""

    def is_alive(self) -> bool:
        return True

    def samples_ms(self, work: Callable[[], object], **_: Any) -> list[float]:
        work()
        return [1.0]

    def captured(self, work: Callable[[], object]) -> tuple[Callable[[], object], str | None]:
        return work, None

    def empty_cache(self) -> None:
        """Nothing is held."""


class _Store:
    """Does one share of the measurements that it is asked for, and keeps nothing."""

    def __init__(self, note: Note) -> None:
        self._note, self._asked, self.share = note, 0, 0
        self.results: dict[str, Any] = {}

    def measure(self, keys: tuple[str, ...], work: Callable[[], Any], **_: Any) -> None:
        """The work, if it is of the share."""
        if self._asked % _SHARES == self.share:
            _tried(" ".join(keys), work, self._note)
        self._asked += 1

    def save(self) -> None:
        """Nothing is kept."""


@contextmanager
def _without_values() -> Iterator[None]:
    """Draws from generators of the meta device, which torch does not have, and answers for what nobody knows."""
    real, torch.Generator = torch.Generator, _Generator  # type: ignore[misc]
    try:
        # What is chosen by a mask is all there is.
        with _Answers(), config.patch(meta_nonzero_assume_all_nonzero=True), torch.no_grad():
            yield
    finally:
        torch.Generator = real  # type: ignore[misc]


class _Generator(torch.Generator):
    """Of the CPU, whichever device it is for."""

    def __new__(cls, *_: Any) -> _Generator:
        return super().__new__(cls)


aten = torch.ops.aten


class _Answers(TorchDispatchMode):
    """Where the host asks for values, they are ones: ids, counts and places that all can be."""

    def __torch_dispatch__(self, operator, types, arguments=(), options=None):  # type: ignore[no-untyped-def]
        options = options or {}
        first = arguments[0] if arguments else None
        if isinstance(first, torch.Tensor) and first.device == META:
            if operator is aten._local_scalar_dense.default:
                return torch.ones((), dtype=first.dtype).item()
            if operator is aten._to_copy.default and options.get("device", META).type == "cpu":
                return torch.ones(first.shape, dtype=options.get("dtype") or first.dtype)
            if operator is aten._unique2.default:
                return first.new_empty(1), *(first.new_empty(0, dtype=torch.long) for _ in range(2))
            if operator is aten.bincount.default:
                return first.new_empty(options["minlength"], dtype=torch.long)
        if operator is aten.copy_.default and first.device != META and arguments[1].device == META:
            return first
        return operator(*arguments, **options)
